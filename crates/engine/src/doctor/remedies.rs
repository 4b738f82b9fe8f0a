//! What to do about what is missing: one command, for the place where it is missing.
//!
//! docs/troubleshooting.md has every one of these texts; a test compares them.

use super::place::{Around, Family, Place};

/// What can be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// User namespaces, in a container.
    Namespaces,
    /// The programs newuidmap and newgidmap.
    Mappers,
    /// Subordinate ids.
    Ids,
    /// /dev/net/tun.
    Tun,
    /// Permission to open it.
    TunPermission,
    /// A writable control group.
    Cgroup,
    /// A runtime directory.
    RuntimeDir,
    /// A login that lasts.
    Linger,
    /// A proc file system without anything mounted over it.
    Proc,
}

/// How whoever starts the container around us lets it make containers.
fn outside(around: Around) -> Option<&'static str> {
    Some(match around {
        Around::Docker => {
            "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
             --security-opt systempaths=unconfined --device /dev/net/tun …"
        }
        Around::Podman => {
            "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL \
             --device /dev/net/tun … (in a container of rcon: --privileged)"
        }
        Around::Kubernetes => {
            "in the pod: hostUsers: false, and for the container securityContext: {procMount: \
             Unmasked, seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}"
        }
        Around::GitLab => {
            "in the runner's config.toml: [runners.docker] devices = [\"/dev/net/tun\"], \
             security_opt = [\"seccomp=unconfined\", \"apparmor=unconfined\", \
             \"systempaths=unconfined\"]"
        }
        Around::Machine | Around::GitHub => return None,
    })
}

/// The one command that would help; `None` where nothing can.
pub(crate) fn remedy(missing: Missing, place: Place) -> Option<&'static str> {
    let outside = outside(place.around);
    Some(match (missing, place.around) {
        (Missing::Namespaces | Missing::Proc, _) => return outside,
        (Missing::Tun | Missing::TunPermission, Around::Kubernetes) => {
            "a device plugin that gives pods /dev/net/tun, or --network host"
        }
        (Missing::Tun, _) if outside.is_some() => return outside,
        (Missing::Tun, _) => "sudo modprobe tun",
        (Missing::TunPermission, _) => "sudo chmod 0666 /dev/net/tun",
        (Missing::Mappers, Around::GitHub) => "sudo apt-get install -y uidmap",
        (Missing::Mappers, _) => match place.family {
            Family::Debian => "sudo apt install uidmap",
            Family::Fedora => "sudo dnf reinstall shadow-utils",
            Family::Arch => "sudo pacman -S shadow",
            Family::Alpine => "doas apk add shadow-uidmap",
            Family::Suse => "sudo zypper install shadow",
            Family::Other => "install newuidmap and newgidmap (the package uidmap or shadow)",
        },
        (Missing::Ids, _) => match place.family {
            Family::Alpine => "echo \"$USER:100000:65536\" | doas tee -a /etc/subuid /etc/subgid",
            _ => "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \"$USER\"",
        },
        (Missing::Cgroup, Around::Machine | Around::GitHub) => {
            "systemd-run --user --scope -p Delegate=yes rcon run …"
        }
        (Missing::Cgroup, Around::Docker) => "docker run --cgroupns=private --privileged …",
        (Missing::Cgroup, _) => return None,
        (Missing::RuntimeDir, Around::Machine) => "loginctl enable-linger",
        (Missing::RuntimeDir, _) => return None,
        (Missing::Linger, _) => "loginctl enable-linger",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSING: [Missing; 9] = [
        Missing::Namespaces,
        Missing::Mappers,
        Missing::Ids,
        Missing::Tun,
        Missing::TunPermission,
        Missing::Cgroup,
        Missing::RuntimeDir,
        Missing::Linger,
        Missing::Proc,
    ];
    const FAMILIES: [Family; 6] = [
        Family::Debian,
        Family::Fedora,
        Family::Arch,
        Family::Alpine,
        Family::Suse,
        Family::Other,
    ];
    const AROUND: [Around; 6] = [
        Around::Machine,
        Around::GitHub,
        Around::GitLab,
        Around::Kubernetes,
        Around::Docker,
        Around::Podman,
    ];

    #[test]
    fn the_manual_has_every_remedy() {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let manual = include_str!("../../../../docs/troubleshooting.md");
        let manual = words(manual);
        for missing in MISSING {
            for family in FAMILIES {
                for around in AROUND {
                    let Some(text) = remedy(missing, Place { family, around }) else {
                        continue;
                    };
                    assert!(manual.contains(&words(text)), "not in the manual: {text}");
                }
            }
        }
    }

    #[test]
    fn a_machine_has_a_remedy_for_nearly_everything() {
        let place = Place {
            family: Family::Debian,
            around: Around::Machine,
        };
        for missing in MISSING {
            let has = remedy(missing, place).is_some();
            let outer = matches!(missing, Missing::Namespaces | Missing::Proc);
            assert_eq!(has, !outer, "{missing:?}");
        }
    }
}
