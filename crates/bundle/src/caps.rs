//! Capabilities: podman's default set, `--cap-add`, `--cap-drop`, `--privileged`. See capabilities(7).

use std::collections::BTreeSet;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use crate::{Error, Options};

/// All capabilities, in the kernel's order and by its names without `CAP_`.
const ALL: &[(&str, Capability)] = &[
    ("CHOWN", Capability::Chown),
    ("DAC_OVERRIDE", Capability::DacOverride),
    ("DAC_READ_SEARCH", Capability::DacReadSearch),
    ("FOWNER", Capability::Fowner),
    ("FSETID", Capability::Fsetid),
    ("KILL", Capability::Kill),
    ("SETGID", Capability::Setgid),
    ("SETUID", Capability::Setuid),
    ("SETPCAP", Capability::Setpcap),
    ("LINUX_IMMUTABLE", Capability::LinuxImmutable),
    ("NET_BIND_SERVICE", Capability::NetBindService),
    ("NET_BROADCAST", Capability::NetBroadcast),
    ("NET_ADMIN", Capability::NetAdmin),
    ("NET_RAW", Capability::NetRaw),
    ("IPC_LOCK", Capability::IpcLock),
    ("IPC_OWNER", Capability::IpcOwner),
    ("SYS_MODULE", Capability::SysModule),
    ("SYS_RAWIO", Capability::SysRawio),
    ("SYS_CHROOT", Capability::SysChroot),
    ("SYS_PTRACE", Capability::SysPtrace),
    ("SYS_PACCT", Capability::SysPacct),
    ("SYS_ADMIN", Capability::SysAdmin),
    ("SYS_BOOT", Capability::SysBoot),
    ("SYS_NICE", Capability::SysNice),
    ("SYS_RESOURCE", Capability::SysResource),
    ("SYS_TIME", Capability::SysTime),
    ("SYS_TTY_CONFIG", Capability::SysTtyConfig),
    ("MKNOD", Capability::Mknod),
    ("LEASE", Capability::Lease),
    ("AUDIT_WRITE", Capability::AuditWrite),
    ("AUDIT_CONTROL", Capability::AuditControl),
    ("SETFCAP", Capability::Setfcap),
    ("MAC_OVERRIDE", Capability::MacOverride),
    ("MAC_ADMIN", Capability::MacAdmin),
    ("SYSLOG", Capability::Syslog),
    ("WAKE_ALARM", Capability::WakeAlarm),
    ("BLOCK_SUSPEND", Capability::BlockSuspend),
    ("AUDIT_READ", Capability::AuditRead),
    ("PERFMON", Capability::Perfmon),
    ("BPF", Capability::Bpf),
    ("CHECKPOINT_RESTORE", Capability::CheckpointRestore),
];

/// The names of all capabilities without `CAP_`, in the order of their numbers (linux/capability.h).
pub fn capability_names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// What a container has unless something else is said.
const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The capabilities of a container, by name without `CAP_`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// What its processes can ever have.
    pub bounding: BTreeSet<&'static str>,
    /// What its first process has (effective and permitted alike).
    pub effective: BTreeSet<&'static str>,
    /// What survives the execution of a program by an ordinary user of the container. The inheritable set is this one and
    /// no more: any more would hand capabilities to files that were never meant to have them.
    pub ambient: BTreeSet<&'static str>,
}

impl Caps {
    /// Whether a process of the container can have a capability.
    pub fn has(&self, name: &str) -> bool {
        self.bounding.contains(name)
    }

    /// In the specification's terms.
    pub fn to_oci(&self) -> LinuxCapabilities {
        let set = |names: &BTreeSet<&str>| -> Option<Capabilities> {
            Some(
                ALL.iter()
                    .filter(|(n, _)| names.contains(n))
                    .map(|(_, c)| *c)
                    .collect(),
            )
        };
        let mut caps = LinuxCapabilities::default();
        caps.set_bounding(set(&self.bounding))
            .set_effective(set(&self.effective))
            .set_permitted(set(&self.effective))
            .set_inheritable(set(&self.ambient))
            .set_ambient(set(&self.ambient));
        caps
    }
}

/// One word of `--cap-add` or `--cap-drop`.
enum Word {
    All,
    One(&'static str),
}

fn words(list: &[String]) -> Result<Vec<Word>, Error> {
    let mut read = Vec::new();
    for word in list
        .iter()
        .flat_map(|w| w.split(','))
        .map(str::trim)
        .filter(|w| !w.is_empty())
    {
        let upper = word.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        read.push(match ALL.iter().find(|(n, _)| *n == name) {
            _ if upper == "ALL" => Word::All,
            Some((name, _)) => Word::One(name),
            None => {
                return Err(Error::value(format!(
                    "{:?}: unknown capability",
                    format!("CAP_{name}")
                )));
            }
        });
    }
    Ok(read)
}

/// Works out the capabilities for a user (`None` is root).
///
/// Root has the whole set; anyone else has, as podman does it, only what `--cap-add` names. Unlike podman, `--privileged`
/// does not make `--cap-drop` void: what is dropped is dropped.
///
/// # Errors
/// podman's: an unknown name, both `ALL`s, a capability both added and dropped.
pub fn capabilities(options: &Options, user: Option<&str>) -> Result<Caps, Error> {
    let (add, drop) = (words(&options.cap_add)?, words(&options.cap_drop)?);
    let (add_all, added) = split(&add);
    let (drop_all, dropped) = split(&drop);
    if add_all && drop_all {
        return Err(Error::value(
            "adding all caps and removing all caps not allowed",
        ));
    }
    if let Some(name) = added.intersection(&dropped).next() {
        return Err(Error::value(format!(
            "capability {:?} cannot be dropped and added",
            format!("CAP_{name}")
        )));
    }
    let all = || capability_names().collect::<BTreeSet<_>>();
    let start = match () {
        () if drop_all => BTreeSet::new(),
        () if add_all || options.privileged => all(),
        () => match &options.default_caps {
            Some(list) => match split(&words(list)?) {
                (true, _) => all(),
                (false, names) => names,
            },
            None => DEFAULT.iter().copied().collect(),
        },
    };
    let bounding: BTreeSet<_> = &(&start | &added) - &dropped;
    let user = user.and_then(|u| u.split(':').next()).unwrap_or_default();
    Ok(match matches!(user, "" | "0" | "root") {
        true => Caps {
            effective: bounding.clone(),
            bounding,
            ambient: BTreeSet::new(),
        },
        false => {
            let asked = if add_all { all() } else { added };
            let kept: BTreeSet<_> = &asked & &bounding;
            Caps {
                bounding,
                effective: kept.clone(),
                ambient: kept,
            }
        }
    })
}

fn split(words: &[Word]) -> (bool, BTreeSet<&'static str>) {
    let names = words.iter().filter_map(|w| match w {
        Word::One(name) => Some(*name),
        Word::All => None,
    });
    (
        words.iter().any(|w| matches!(w, Word::All)),
        names.collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(
        add: &[&str],
        drop: &[&str],
        privileged: bool,
        user: Option<&str>,
    ) -> Result<Caps, Error> {
        let list = |w: &[&str]| w.iter().map(|w| w.to_string()).collect();
        capabilities(
            &Options {
                cap_add: list(add),
                cap_drop: list(drop),
                privileged,
                ..Options::default()
            },
            user,
        )
    }

    fn shown(set: &BTreeSet<&str>) -> String {
        set.iter().copied().collect::<Vec<_>>().join(" ")
    }

    const PODMANS: &str = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT";

    #[test]
    fn defaults_of_the_system() {
        let options = Options {
            default_caps: Some(vec!["CAP_CHOWN".into(), "KILL".into()]),
            cap_drop: vec!["kill".into()],
            ..Options::default()
        };
        let root = capabilities(&options, None).unwrap();
        assert_eq!(shown(&root.effective), "CHOWN");
        // They are nobody's but root's: only what is asked for is.
        let other = capabilities(&options, Some("app")).unwrap();
        assert_eq!(
            (shown(&other.effective), shown(&other.ambient)),
            (String::new(), String::new())
        );
        assert_eq!(shown(&other.bounding), "CHOWN");
    }

    #[test]
    fn defaults() {
        let c = caps(&[], &[], false, None).unwrap();
        assert_eq!(shown(&c.bounding), PODMANS);
        assert_eq!(shown(&c.effective), PODMANS);
        assert_eq!(shown(&c.ambient), "");
        let c = caps(&[], &[], false, Some("1000:0")).unwrap();
        assert_eq!(shown(&c.bounding), PODMANS);
        assert_eq!(shown(&c.effective), "");
        for root in ["", "0", "root", "0:5", ":5", "root:x"] {
            assert_eq!(
                shown(&caps(&[], &[], false, Some(root)).unwrap().effective),
                PODMANS
            );
        }
    }

    #[test]
    fn adding_and_dropping() {
        let c = caps(&["net_admin,CAP_SYS_TIME"], &["chown", ""], false, None).unwrap();
        assert!(c.has("NET_ADMIN") && c.has("SYS_TIME") && !c.has("CHOWN"));
        assert_eq!(
            shown(&caps(&["CHOWN"], &["ALL"], false, None).unwrap().bounding),
            "CHOWN"
        );
        assert_eq!(caps(&["all"], &[], false, None).unwrap().bounding.len(), 41);
        assert_eq!(
            caps(&["ALL"], &["CHOWN"], false, None)
                .unwrap()
                .bounding
                .len(),
            40
        );
        assert_eq!(
            shown(&caps(&[], &["ALL"], false, None).unwrap().bounding),
            ""
        );
        let c = caps(&["NET_ADMIN"], &[], false, Some("1000")).unwrap();
        assert_eq!(
            (shown(&c.effective), shown(&c.ambient)),
            ("NET_ADMIN".into(), "NET_ADMIN".into())
        );
        let c = caps(&["ALL"], &[], false, Some("1000")).unwrap();
        assert_eq!((c.effective.len(), c.ambient.len()), (41, 41));
    }

    #[test]
    fn privileged() {
        assert_eq!(caps(&[], &[], true, None).unwrap().effective.len(), 41);
        assert_eq!(
            caps(&[], &["CHOWN"], true, None).unwrap().effective.len(),
            40
        );
        let c = caps(&[], &[], true, Some("1000")).unwrap();
        assert_eq!((c.bounding.len(), c.effective.len()), (41, 0));
    }

    #[test]
    fn refuses_as_podman_does() {
        for (add, drop, message) in [
            (&["foo"][..], &[][..], "\"CAP_FOO\": unknown capability"),
            (&[], &["CAP_FOO"], "\"CAP_FOO\": unknown capability"),
            (
                &["ALL"],
                &["all"],
                "adding all caps and removing all caps not allowed",
            ),
            (
                &["CHOWN"],
                &["cap_chown"],
                "capability \"CAP_CHOWN\" cannot be dropped and added",
            ),
        ] {
            assert_eq!(
                caps(add, drop, false, None).unwrap_err().to_string(),
                message
            );
        }
    }

    #[test]
    fn the_oci_form_names_them_right() {
        let oci = caps(&["ALL"], &[], false, Some("1")).unwrap().to_oci();
        assert_eq!(oci.bounding().as_ref().unwrap().len(), 41);
        assert_eq!(oci.inheritable(), oci.ambient());
        for (name, capability) in ALL {
            assert_eq!(capability.to_string(), *name);
        }
    }
}
