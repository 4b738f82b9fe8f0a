//! Taking on the ids, capabilities and filter of a program, and giving up everything else.

use std::os::fd::OwnedFd;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process};
use rcon_sys::seccomp as filter;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use crate::error::{Context, Error, Result};
use crate::seccomp::{Filter, Listener};
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
    sets: Sets,
    no_new_privileges: bool,
    filter: Option<Filter>,
    made_up: bool,
    keep_groups: bool,
    listener: Option<Listener>,
}

impl Credentials {
    /// Those of `process`, for `identity`, with `filter`, whose listener `listener` is for.
    ///
    /// A description without capabilities is one of a process that has none.
    pub(crate) fn new(
        process: &Process,
        identity: Identity,
        filter: Option<Filter>,
        listener: Option<Listener>,
    ) -> Self {
        let none;
        let wanted = match process.capabilities() {
            Some(wanted) => wanted,
            None => {
                none = nothing();
                &none
            }
        };
        // Nobody has an effective or ambient capability that is not permitted.
        let permitted = set(wanted.permitted());
        let ambient = set(wanted.ambient()) & permitted;
        let sets = Sets {
            bounding: set(wanted.bounding()),
            effective: set(wanted.effective()) & permitted,
            permitted,
            // An ambient capability must be inheritable; nothing else needs to be.
            inheritable: set(wanted.inheritable()) | ambient,
            ambient,
        };
        Self {
            listener,
            identity,
            sets,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            filter,
            made_up: false,
            keep_groups: false,
        }
    }

    /// The supplementary groups are those that this process has already.
    pub(crate) fn keeping_groups(self, keep_groups: bool) -> Self {
        Self {
            keep_groups,
            ..self
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

    /// The socket by which the listener is handed over, which has to be kept open until then.
    pub(crate) fn take_socket(&mut self) -> Option<OwnedFd> {
        self.listener.as_mut()?.take_socket()
    }

    /// Take them on. This cannot be undone; after an error the process can only end. `socket` is the
    /// one that was taken from here, if there was one.
    ///
    /// After the filter only what its own rules let pass is called, so it comes last: before it
    /// when new privileges are forbidden, which is what entitles to it; else with
    /// `CAP_SYS_ADMIN`, which is kept for that one call and given up with the next.
    pub(crate) fn take(&self, socket: Option<&OwnedFd>) -> Result<()> {
        let sets = &self.sets;
        drop_bounding(sets.bounding).context(|| "cannot limit the capabilities".to_owned())?;
        if !self.made_up {
            self.change_ids()?;
        }
        let admin = match (&self.filter, self.no_new_privileges) {
            (Some(_), false) => CapabilitySet::SYS_ADMIN,
            _ => CapabilitySet::empty(),
        };
        set_capabilities(sets, admin)?;
        raise_ambient(sets.ambient)?;
        if self.no_new_privileges {
            thread::set_no_new_privs(true).context(|| "cannot set no_new_privs".to_owned())?;
        }
        if let Some(compiled) = &self.filter {
            let flags = match &self.listener {
                Some(_) => compiled.flags | filter::FLAG_NEW_LISTENER,
                None => compiled.flags,
            };
            let listener = filter::load(&compiled.program, flags)
                .context(|| "cannot load the seccomp filter".to_owned())?;
            if let (Some(listener), Some(to), Some(socket)) = (listener, &self.listener, socket) {
                to.give(socket, listener)?;
            }
        }
        match (admin - sets.permitted).is_empty() {
            true => Ok(()),
            false => set_capabilities(sets, CapabilitySet::empty()),
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
        if let Err(error) = change_groups(&self.identity, self.keep_groups) {
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

fn change_groups(identity: &Identity, keep: bool) -> Result<()> {
    if !keep {
        set_groups(&identity.groups)?;
    }
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
    let set = thread::set_thread_groups(&ids);
    let unmapped = |gid: &&Gid| thread::set_thread_groups(&[**gid]) == Err(Errno::INVAL);
    match set {
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(error) => match ids.iter().find(unmapped) {
            Some(bad) => Err(Error::Unmapped {
                kind: "group".to_owned(),
                id: bad.as_raw(),
            }),
            // There may be more of them than a process can have.
            None => Err(error).context(|| "cannot set the supplementary groups".to_owned()),
        },
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

fn nothing() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(None)
        .set_effective(None)
        .set_permitted(None)
        .set_inheritable(None)
        .set_ambient(None);
    none
}

fn set(wanted: &Option<Capabilities>) -> CapabilitySet {
    let wanted = wanted.iter().flatten();
    wanted.fold(CapabilitySet::empty(), |set, capability| {
        set | bit(*capability)
    })
}

/// The names of all capabilities that a specification can name.
pub(crate) fn names() -> Vec<String> {
    const ALL: [Capability; 41] = [
        Capability::AuditControl,
        Capability::AuditRead,
        Capability::AuditWrite,
        Capability::BlockSuspend,
        Capability::Bpf,
        Capability::CheckpointRestore,
        Capability::Chown,
        Capability::DacOverride,
        Capability::DacReadSearch,
        Capability::Fowner,
        Capability::Fsetid,
        Capability::IpcLock,
        Capability::IpcOwner,
        Capability::Kill,
        Capability::Lease,
        Capability::LinuxImmutable,
        Capability::MacAdmin,
        Capability::MacOverride,
        Capability::Mknod,
        Capability::NetAdmin,
        Capability::NetBindService,
        Capability::NetBroadcast,
        Capability::NetRaw,
        Capability::Perfmon,
        Capability::Setgid,
        Capability::Setfcap,
        Capability::Setpcap,
        Capability::Setuid,
        Capability::SysAdmin,
        Capability::SysBoot,
        Capability::SysChroot,
        Capability::SysModule,
        Capability::SysNice,
        Capability::SysPacct,
        Capability::SysPtrace,
        Capability::SysRawio,
        Capability::SysResource,
        Capability::SysTime,
        Capability::SysTtyConfig,
        Capability::Syslog,
        Capability::WakeAlarm,
    ];
    let name = |capability: &Capability| serde_json::to_value(capability).ok();
    let text = |value: serde_json::Value| value.as_str().map(str::to_owned);
    ALL.iter().filter_map(name).filter_map(text).collect()
}

/// The bit of a capability (linux/capability.h).
pub(crate) fn bit(capability: Capability) -> CapabilitySet {
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
