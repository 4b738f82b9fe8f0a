//! The Linux part of the specification: namespaces, hidden paths, kernel settings, the system call filter.

use std::collections::HashMap;

use oci_spec::runtime::{
    Linux, LinuxNamespace, LinuxNamespaceType, LinuxPersonality, LinuxPersonalityDomain,
};

use crate::{Caps, Context, Error, Network, Options, Personality, Share, seccomp};

/// Paths of the host's kernel that a container has no business to read.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/fs/selinux",
    "/sys/dev/block",
];

/// Paths it may read but not write.
const READ_ONLY: &[&str] = &[
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

pub(crate) fn linux(options: &Options, context: &Context, caps: &Caps) -> Result<Linux, Error> {
    let (masked, read_only) = paths(options);
    let mut linux = Linux::default();
    linux
        .set_resources(options.resources.to_oci()?)
        .set_namespaces(Some(namespaces(options)))
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(read_only))
        .set_sysctl(Some(sysctls(options, context)?))
        .set_personality(options.personality.map(personality))
        .set_seccomp(seccomp::choose(options, caps)?);
    Ok(linux)
}

fn personality(wanted: Personality) -> LinuxPersonality {
    let mut personality = LinuxPersonality::default();
    personality.set_domain(match wanted {
        Personality::Linux => LinuxPersonalityDomain::PerLinux,
        Personality::Linux32 => LinuxPersonalityDomain::PerLinux32,
    });
    personality
}

/// A container has one of each kind but for what is to be the host's; another's path is put in by whoever launches it.
fn namespaces(options: &Options) -> Vec<LinuxNamespace> {
    use LinuxNamespaceType as Type;
    let shared = options.namespaces;
    let network = match options.network {
        Network::Host => Share::Host,
        Network::Private | Network::Joined => Share::Private,
    };
    [
        (Type::User, Share::Private),
        (Type::Pid, shared.pid),
        (Type::Network, network),
        (Type::Ipc, shared.ipc),
        (Type::Uts, shared.uts),
        (Type::Mount, Share::Private),
        (Type::Cgroup, shared.cgroup),
    ]
    .into_iter()
    .filter(|(_, share)| *share != Share::Host)
    .map(|(kind, _)| kind)
    .map(|kind| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind);
        namespace
    })
    .collect()
}

/// Hidden and protected paths: the defaults but for what is unmasked, none when privileged, and the user's own.
fn paths(options: &Options) -> (Vec<String>, Vec<String>) {
    let keep = |list: &[&str]| -> Vec<String> {
        let kept = list
            .iter()
            .filter(|p| !options.privileged && options.security.keeps(p));
        kept.map(ToString::to_string).collect()
    };
    let mut masked = keep(MASKED);
    masked.extend(
        options
            .security
            .mask
            .iter()
            .map(|p| crate::parse::clean(p))
            .filter(|p| p != "/"),
    );
    (masked, keep(READ_ONLY))
}

/// A private network lets every group of the container ping and every user bind any port; the user's words come on top.
fn sysctls(options: &Options, context: &Context) -> Result<HashMap<String, String>, Error> {
    let mut set = HashMap::new();
    if options.network == Network::Private {
        // The kernel refuses a range that reaches beyond the ids the namespace has.
        let last = if context.gids == 0 {
            u32::MAX / 2
        } else {
            context.gids - 1
        };
        set.insert("net.ipv4.ping_group_range".to_string(), format!("0 {last}"));
        set.insert(
            "net.ipv4.ip_unprivileged_port_start".to_string(),
            "0".to_string(),
        );
    }
    let of_network = |key: &str| key.starts_with("net.");
    let defaults = options.default_sysctls.iter();
    set.extend(
        defaults
            .filter(|(key, _)| options.network == Network::Private || !of_network(key))
            .filter(|(key, _)| options.namespaces.ipc == Share::Private || !of_ipc(key))
            .cloned(),
    );
    for (key, value) in &options.sysctls {
        if options.network == Network::Host && key.starts_with("net.") {
            return Err(Error::value(format!(
                "sysctl {key}={value} can't be set since Network Namespace set to host: invalid argument"
            )));
        }
        if options.namespaces.ipc == Share::Host && of_ipc(key) {
            return Err(Error::value(format!(
                "sysctl {key}={value} can't be set since IPC Namespace set to host: invalid argument"
            )));
        }
        if options.network == Network::Joined && key.starts_with("net.") {
            return Err(Error::value(format!(
                "sysctl {key}={value} can't be set in the network namespace of somebody else: invalid argument"
            )));
        }
        set.insert(key.clone(), value.clone());
    }
    Ok(set)
}

/// Whether a kernel setting is one of those that every ipc namespace has for itself.
fn of_ipc(key: &str) -> bool {
    ["fs.mqueue.", "kernel.msg", "kernel.sem", "kernel.shm"]
        .iter()
        .any(|start| key.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn of(options: Options) -> Linux {
        let context = Context {
            gids: 65537,
            ..Context::default()
        };
        linux(&options, &context, &Caps::default()).unwrap()
    }

    fn secured(words: &[&str]) -> Options {
        let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
        Options {
            security: parse::security(&words).unwrap(),
            ..Options::default()
        }
    }

    #[test]
    fn namespaces_of_both_networks() {
        let kinds = |l: &Linux| -> Vec<String> {
            l.namespaces()
                .as_ref()
                .unwrap()
                .iter()
                .map(|n| n.typ().to_string())
                .collect()
        };
        let private = of(Options::default());
        assert_eq!(
            kinds(&private),
            ["user", "pid", "net", "ipc", "uts", "mnt", "cgroup"]
        );
        let sysctl = private.sysctl().clone().unwrap();
        assert_eq!(sysctl["net.ipv4.ping_group_range"], "0 65536");
        assert_eq!(sysctl["net.ipv4.ip_unprivileged_port_start"], "0");
        let host = of(Options {
            network: Network::Host,
            ..Options::default()
        });
        assert_eq!(kinds(&host), ["user", "pid", "ipc", "uts", "mnt", "cgroup"]);
        assert!(host.sysctl().as_ref().unwrap().is_empty());
    }

    #[test]
    fn kernel_settings() {
        let sysctls = vec![("net.ipv4.ip_forward".to_string(), "1".to_string())];
        let set = of(Options {
            sysctls: sysctls.clone(),
            ..Options::default()
        });
        assert_eq!(set.sysctl().as_ref().unwrap()["net.ipv4.ip_forward"], "1");
        let options = Options {
            sysctls,
            network: Network::Host,
            ..Options::default()
        };
        let error = linux(&options, &Context::default(), &Caps::default())
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "sysctl net.ipv4.ip_forward=1 can't be set since Network Namespace set to host: invalid argument"
        );
    }

    #[test]
    fn hidden_paths() {
        let l = of(Options::default());
        assert_eq!(l.masked_paths().as_ref().unwrap(), MASKED);
        assert_eq!(l.readonly_paths().as_ref().unwrap(), READ_ONLY);
        let l = of(secured(&[
            "mask=/a:/b/",
            "unmask=/proc/kcore:/sys/firmware",
        ]));
        let masked = l.masked_paths().as_ref().unwrap();
        assert_eq!(masked.len(), MASKED.len());
        assert_eq!(&masked[masked.len() - 2..], ["/a", "/b"]);
        let l = of(secured(&["unmask=/proc/*"]));
        assert_eq!(
            l.masked_paths().as_ref().unwrap(),
            &["/sys/firmware", "/sys/fs/selinux", "/sys/dev/block"]
        );
        assert!(l.readonly_paths().as_ref().unwrap().is_empty());
        let l = of(secured(&["unmask=ALL", "mask=/a"]));
        assert_eq!(l.masked_paths().as_ref().unwrap(), &["/a"]);
        let l = of(Options {
            privileged: true,
            ..Options::default()
        });
        assert!(
            l.masked_paths().as_ref().unwrap().is_empty()
                && l.readonly_paths().as_ref().unwrap().is_empty()
        );
    }
}
