//! Taking on the ids, capabilities and filter of a program, and giving up everything else.

use oci_spec::runtime::{Capabilities, Capability, Process};
use rcon_sys::seccomp as filter;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use crate::error::{Context, Error, Result};
use crate::seccomp::Filter;
use crate::user::Identity;

/// The five sets of capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sets {
    bounding: CapabilitySet,
    effective: CapabilitySet,
    permitted: CapabilitySet,
    inheritable: CapabilitySet,
    ambient: CapabilitySet,
}

/// What a process takes on right before it executes its program.
pub(crate) struct Credentials {
    identity: Identity,
    sets: Option<Sets>,
    no_new_privileges: bool,
    filter: Option<Filter>,
    made_up: bool,
}

impl Credentials {
    /// Those of `process`, for `identity`, with `filter`.
    pub(crate) fn new(process: &Process, identity: Identity, filter: Option<Filter>) -> Self {
        let sets = process.capabilities().as_ref().map(|wanted| {
            let ambient = set(wanted.ambient());
            Sets {
                bounding: set(wanted.bounding()),
                effective: set(wanted.effective()),
                permitted: set(wanted.permitted()),
                // An ambient capability must be inheritable; nothing else needs to be.
                inheritable: set(wanted.inheritable()) | ambient,
                ambient,
            }
        });
        Self {
            identity,
            sets,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            filter,
            made_up: false,
        }
    }

    /// User, group and supplementary groups.
    pub(crate) fn ids(&self) -> Vec<u32> {
        let Identity {
            uid, gid, groups, ..
        } = &self.identity;
        [*uid, *gid]
            .into_iter()
            .chain(groups.iter().copied())
            .collect()
    }

    /// The ids are not to be taken on: others make them up.
    pub(crate) fn make_up(&mut self) {
        self.made_up = true;
    }

    /// Whether they are.
    pub(crate) fn is_made_up(&self) -> bool {
        self.made_up
    }

    /// The user id.
    pub(crate) fn uid(&self) -> u32 {
        self.identity.uid
    }

    /// Whether the filter lets the native calls `names` pass; without a filter all do.
    pub(crate) fn allows(&self, names: &[&str]) -> bool {
        let filter = self.filter.as_ref();
        filter.is_none_or(|filter| names.iter().all(|name| filter.allows(name)))
    }

    /// Take them on. This cannot be undone; after an error the process can only end.
    ///
    /// After the filter only what its own rules let pass is called, so it comes last: before it
    /// when new privileges are forbidden, which is what entitles to it; else with
    /// `CAP_SYS_ADMIN`, which is kept for that one call and given up with the next.
    pub(crate) fn take(&self) -> Result<()> {
        if let Some(sets) = &self.sets {
            drop_bounding(sets.bounding).context(|| "cannot limit the capabilities".to_owned())?;
        }
        if !self.made_up {
            self.change_ids()?;
        }
        let admin = match (&self.filter, self.no_new_privileges) {
            (Some(_), false) => CapabilitySet::SYS_ADMIN,
            _ => CapabilitySet::empty(),
        };
        if let Some(sets) = &self.sets {
            set_capabilities(sets, admin)?;
            raise_ambient(sets.ambient)?;
        }
        if self.no_new_privileges {
            thread::set_no_new_privs(true).context(|| "cannot set no_new_privs".to_owned())?;
        }
        if let Some(compiled) = &self.filter {
            filter::load(&compiled.program, compiled.flags)
                .map(drop)
                .context(|| "cannot load the seccomp filter".to_owned())?;
        }
        match &self.sets {
            Some(sets) if !(admin - sets.permitted).is_empty() => {
                set_capabilities(sets, CapabilitySet::empty())
            }
            _ => Ok(()),
        }
    }

    fn change_ids(&self) -> Result<()> {
        let uid = self.identity.uid;
        let user = Uid::from_raw(uid);
        let unmapped = || Error::Unmapped {
            kind: "user".to_owned(),
            id: uid,
        };
        // Groups come first, since another user may not change them; but where neither is mapped
        // it is the user that people should hear of.
        if let Err(error) = change_groups(&self.identity) {
            let no_user = matches!(error, Error::Unmapped { .. })
                && thread::set_thread_res_uid(user, user, user) == Err(Errno::INVAL);
            return Err(if no_user { unmapped() } else { error });
        }
        // Otherwise the change from root to somebody else would empty the sets.
        let step = || "cannot keep the capabilities".to_owned();
        thread::set_keep_capabilities(true).context(step)?;
        match thread::set_thread_res_uid(user, user, user) {
            Err(Errno::INVAL) => return Err(unmapped()),
            result => result.context(|| format!("cannot change to user {uid}"))?,
        }
        thread::set_keep_capabilities(false).context(step)
    }
}

fn change_groups(identity: &Identity) -> Result<()> {
    set_groups(&identity.groups)?;
    let group = Gid::from_raw(identity.gid);
    match thread::set_thread_res_gid(group, group, group) {
        Err(Errno::INVAL) => Err(Error::Unmapped {
            kind: "group".to_owned(),
            id: identity.gid,
        }),
        result => result.context(|| format!("cannot change to group {}", identity.gid)),
    }
}

/// Set the supplementary groups; where setgroups(2) is denied, as with a single id, they stay.
fn set_groups(groups: &[u32]) -> Result<()> {
    let ids: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match thread::set_thread_groups(&ids) {
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(Errno::INVAL) => {
            let bad = ids
                .iter()
                .find(|gid| thread::set_thread_groups(&[**gid]).is_err());
            Err(Error::Unmapped {
                kind: "group".to_owned(),
                id: bad.map_or(u32::MAX, |gid| gid.as_raw()),
            })
        }
        Err(error) => Err(error).context(|| "cannot set the supplementary groups".to_owned()),
    }
}

fn drop_bounding(keep: CapabilitySet) -> rustix::io::Result<()> {
    for bit in 0..63 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if keep.contains(capability) {
            continue;
        }
        match thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Beyond the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn set_capabilities(sets: &Sets, extra: CapabilitySet) -> Result<()> {
    let wanted = CapabilitySets {
        effective: sets.effective | extra,
        permitted: sets.permitted | extra,
        inheritable: sets.inheritable,
    };
    thread::set_capabilities(None, wanted).context(|| "cannot set the capabilities".to_owned())
}

fn raise_ambient(ambient: CapabilitySet) -> Result<()> {
    for capability in ambient {
        thread::configure_capability_in_ambient_set(capability, true)
            .context(|| "cannot set the ambient capabilities".to_owned())?;
    }
    Ok(())
}

fn set(wanted: &Option<Capabilities>) -> CapabilitySet {
    let wanted = wanted.iter().flatten();
    wanted.fold(CapabilitySet::empty(), |set, capability| {
        set | bit(*capability)
    })
}

/// The bit of a capability (linux/capability.h).
fn bit(capability: Capability) -> CapabilitySet {
    match capability {
        Capability::AuditControl => CapabilitySet::AUDIT_CONTROL,
        Capability::AuditRead => CapabilitySet::AUDIT_READ,
        Capability::AuditWrite => CapabilitySet::AUDIT_WRITE,
        Capability::BlockSuspend => CapabilitySet::BLOCK_SUSPEND,
        Capability::Bpf => CapabilitySet::BPF,
        Capability::CheckpointRestore => CapabilitySet::CHECKPOINT_RESTORE,
        Capability::Chown => CapabilitySet::CHOWN,
        Capability::DacOverride => CapabilitySet::DAC_OVERRIDE,
        Capability::DacReadSearch => CapabilitySet::DAC_READ_SEARCH,
        Capability::Fowner => CapabilitySet::FOWNER,
        Capability::Fsetid => CapabilitySet::FSETID,
        Capability::IpcLock => CapabilitySet::IPC_LOCK,
        Capability::IpcOwner => CapabilitySet::IPC_OWNER,
        Capability::Kill => CapabilitySet::KILL,
        Capability::Lease => CapabilitySet::LEASE,
        Capability::LinuxImmutable => CapabilitySet::LINUX_IMMUTABLE,
        Capability::MacAdmin => CapabilitySet::MAC_ADMIN,
        Capability::MacOverride => CapabilitySet::MAC_OVERRIDE,
        Capability::Mknod => CapabilitySet::MKNOD,
        Capability::NetAdmin => CapabilitySet::NET_ADMIN,
        Capability::NetBindService => CapabilitySet::NET_BIND_SERVICE,
        Capability::NetBroadcast => CapabilitySet::NET_BROADCAST,
        Capability::NetRaw => CapabilitySet::NET_RAW,
        Capability::Perfmon => CapabilitySet::PERFMON,
        Capability::Setgid => CapabilitySet::SETGID,
        Capability::Setfcap => CapabilitySet::SETFCAP,
        Capability::Setpcap => CapabilitySet::SETPCAP,
        Capability::Setuid => CapabilitySet::SETUID,
        Capability::SysAdmin => CapabilitySet::SYS_ADMIN,
        Capability::SysBoot => CapabilitySet::SYS_BOOT,
        Capability::SysChroot => CapabilitySet::SYS_CHROOT,
        Capability::SysModule => CapabilitySet::SYS_MODULE,
        Capability::SysNice => CapabilitySet::SYS_NICE,
        Capability::SysPacct => CapabilitySet::SYS_PACCT,
        Capability::SysPtrace => CapabilitySet::SYS_PTRACE,
        Capability::SysRawio => CapabilitySet::SYS_RAWIO,
        Capability::SysResource => CapabilitySet::SYS_RESOURCE,
        Capability::SysTime => CapabilitySet::SYS_TIME,
        Capability::SysTtyConfig => CapabilitySet::SYS_TTY_CONFIG,
        Capability::Syslog => CapabilitySet::SYSLOG,
        Capability::WakeAlarm => CapabilitySet::WAKE_ALARM,
    }
}
