//! What to do about what is missing: one command, for the place where it is missing.
//!
//! docs/troubleshooting.md has every one of these texts; a test compares them.

use super::place::{Around, Family, Place};

/// What can be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// User namespaces, or a call that sets them up.
    Namespaces,
    /// The programs newuidmap and newgidmap.
    Mappers,
    /// Subordinate ids.
    Ids,
    /// Leave to gain privileges (no_new_privs is set).
    Privileges,
    /// Storage that an overlay can be written to.
    Storage,
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
    /// Leave to publish ports below 1024.
    Ports,
}

/// What whoever starts the container around us says there; `None` on a machine, and for what is
/// not of that container's making.
fn outside(missing: Missing, around: Around) -> Option<&'static str> {
    use Around::{Docker, GitHub, GitLab, GitLabPod, Kubernetes, Machine, Podman, Rcon};
    Some(match (missing, around) {
        (_, Machine | GitHub) => return None,
        (Missing::Namespaces, Docker) => {
            "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined …"
        }
        (Missing::Namespaces, Podman) => "podman run --security-opt seccomp=unconfined …",
        (Missing::Namespaces, Rcon) => "rcon run --security-opt seccomp=unconfined …",
        (Missing::Namespaces, Kubernetes) => {
            "in the pod: hostUsers: false, and for the container securityContext: {seccompProfile: \
             {type: Unconfined}, appArmorProfile: {type: Unconfined}}"
        }
        (Missing::Namespaces, GitLab) => {
            "in the runner's config.toml: [runners.docker] security_opt = \
             [\"seccomp=unconfined\", \"apparmor=unconfined\"]"
        }
        (Missing::Namespaces, GitLabPod) => {
            "in the runner's config.toml: FF_USE_ADVANCED_POD_SPEC_CONFIGURATION, and a patch of \
             [[runners.kubernetes.pod_spec]] with hostUsers: false, and for \
             the container build securityContext: {seccompProfile: {type: Unconfined}, appArmorProfile: {type: \
             Unconfined}}"
        }
        (Missing::Proc, GitLabPod) => {
            "in the runner's config.toml: FF_USE_ADVANCED_POD_SPEC_CONFIGURATION, and a patch of \
             [[runners.kubernetes.pod_spec]] with hostUsers: false, and for \
             the container build securityContext: {procMount: Unmasked}"
        }
        (Missing::Storage, GitLabPod) => {
            "in the runner's config.toml: [[runners.kubernetes.volumes.empty_dir]] with mount_path = \
             \"/var/lib/rcon\", and rcon --root /var/lib/rcon"
        }
        (Missing::Proc, Docker) => "docker run --security-opt systempaths=unconfined …",
        (Missing::Proc, Podman) => "podman run --security-opt unmask=ALL …",
        (Missing::Proc, Rcon) => "rcon run --security-opt unmask=ALL …",
        (Missing::Proc, Kubernetes) => {
            "in the pod: hostUsers: false, and for the container securityContext: {procMount: \
             Unmasked}"
        }
        (Missing::Proc, GitLab) => {
            // What systempaths= says, the docker command says in another way, and nobody else can.
            "in the runner's config.toml: [runners.docker] privileged = true"
        }
        (Missing::Tun, Docker) => "docker run --device /dev/net/tun …",
        (Missing::Tun, Podman) => "podman run --device /dev/net/tun …",
        (Missing::Tun, Rcon) => "rcon run --volume /dev/net/tun:/dev/net/tun …",
        (Missing::Tun | Missing::TunPermission, Kubernetes | GitLabPod) => {
            "a device plugin that gives pods /dev/net/tun, or --network host"
        }
        (Missing::Tun, GitLab) => {
            "in the runner's config.toml: [runners.docker] devices = [\"/dev/net/tun\"]"
        }
        (Missing::Storage, Docker) => {
            "docker run --volume rcon:/var/lib/rcon …, and rcon --root /var/lib/rcon"
        }
        (Missing::Storage, Podman) => {
            "podman run --volume rcon:/var/lib/rcon …, and rcon --root /var/lib/rcon"
        }
        (Missing::Storage, Rcon) => {
            "rcon run --volume rcon:/var/lib/rcon …, and rcon --root /var/lib/rcon"
        }
        (Missing::Storage, Kubernetes) => {
            "in the pod: a volume emptyDir: {} that is mounted on /var/lib/rcon, and rcon --root /var/lib/rcon"
        }
        (Missing::Storage, GitLab) => {
            "in the runner's config.toml: [runners.docker] volumes = [\"/var/lib/rcon\"], and rcon --root /var/lib/rcon"
        }
        (Missing::Privileges, Docker) => {
            "docker run … without --security-opt no-new-privileges, nor \"no-new-privileges\" in daemon.json"
        }
        (Missing::Privileges, Podman) => "podman run … without --security-opt no-new-privileges",
        (Missing::Privileges, Rcon) => "rcon run … without --security-opt no-new-privileges",
        (Missing::Privileges, Kubernetes) => {
            "in the pod: for the container securityContext: {allowPrivilegeEscalation: true}"
        }
        (Missing::Privileges, GitLab) => {
            "in the runner's config.toml: [runners.docker] security_opt without no-new-privileges"
        }
        (Missing::Privileges, GitLabPod) => {
            "in the runner's config.toml: [runners.kubernetes] allow_privilege_escalation = true"
        }
        // Docker gives them all by itself.
        (Missing::Ports, Podman) => "podman run --sysctl net.ipv4.ip_unprivileged_port_start=80 …",
        (Missing::Ports, Rcon) => "rcon run --sysctl net.ipv4.ip_unprivileged_port_start=80 …",
        (Missing::Ports, Kubernetes) => {
            "in the pod: securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: \"80\"}]}"
        }
        // Docker 28.
        (Missing::Cgroup, Docker) => "docker run --security-opt writable-cgroups=true …",
        (Missing::Cgroup, GitLab) => {
            "in the runner's config.toml: [runners.docker] security_opt = [\"writable-cgroups=true\"]"
        }
        (Missing::Cgroup, Podman) => "podman run --security-opt unmask=ALL …",
        _ => return None,
    })
}

/// The one command that would help; `None` where nothing can.
pub(crate) fn remedy(missing: Missing, place: Place) -> Option<&'static str> {
    // What its root can mend from within.
    let own = matches!(
        missing,
        Missing::Mappers | Missing::Ids | Missing::TunPermission
    );
    let theirs = outside(missing, place.around);
    if place.in_container() && (theirs.is_some() || !own) {
        return theirs;
    }
    Some(match missing {
        // What says that they are missing knows what to do on a machine.
        Missing::Namespaces | Missing::Proc | Missing::Cgroup | Missing::Privileges => return None,
        Missing::Storage => "rcon --root DIRECTORY, on a local disk",
        Missing::Ports => "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80",
        Missing::Tun => "sudo modprobe tun",
        Missing::TunPermission => "sudo chmod 0666 /dev/net/tun",
        Missing::Mappers => match (place.around, place.family) {
            (Around::GitHub, _) => "sudo apt-get install -y uidmap",
            (_, Family::Debian) => "sudo apt install uidmap",
            (_, Family::Fedora) => "sudo dnf reinstall shadow-utils",
            (_, Family::Arch) => "sudo pacman -S shadow",
            (_, Family::Alpine) => "doas apk add shadow-uidmap",
            (_, Family::Suse) => "sudo zypper install shadow",
            (_, Family::Other) => "install newuidmap and newgidmap (the package uidmap or shadow)",
        },
        Missing::Ids => match place.family {
            Family::Alpine => "echo \"$USER:100000:65536\" | doas tee -a /etc/subuid /etc/subgid",
            _ => "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \"$USER\"",
        },
        Missing::RuntimeDir | Missing::Linger => "loginctl enable-linger",
    })
}

/// The remedy for missing ids with a range that is nobody's, instead of the manual's example.
pub(super) fn with_range(remedy: &str, first: u32, last: u32) -> String {
    remedy
        .replace("100000-165535", &format!("{first}-{last}"))
        .replace("100000:", &format!("{first}:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSING: [Missing; 12] = [
        Missing::Privileges,
        Missing::Namespaces,
        Missing::Mappers,
        Missing::Ids,
        Missing::Storage,
        Missing::Tun,
        Missing::TunPermission,
        Missing::Cgroup,
        Missing::RuntimeDir,
        Missing::Linger,
        Missing::Proc,
        Missing::Ports,
    ];
    const FAMILIES: [Family; 6] = [
        Family::Debian,
        Family::Fedora,
        Family::Arch,
        Family::Alpine,
        Family::Suse,
        Family::Other,
    ];
    const AROUND: [Around; 8] = [
        Around::Machine,
        Around::GitHub,
        Around::GitLab,
        Around::GitLabPod,
        Around::Kubernetes,
        Around::Docker,
        Around::Podman,
        Around::Rcon,
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
    fn the_range_is_one_that_is_free() {
        for (family, expected) in [
            (
                Family::Fedora,
                "sudo usermod --add-subuids 7-8 --add-subgids 7-8 \"$USER\"",
            ),
            (
                Family::Alpine,
                "echo \"$USER:7:65536\" | doas tee -a /etc/subuid /etc/subgid",
            ),
        ] {
            let around = Around::Machine;
            let text = remedy(Missing::Ids, Place { family, around }).unwrap();
            assert_eq!(with_range(text, 7, 8), expected);
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
            let outer = matches!(
                missing,
                Missing::Namespaces | Missing::Proc | Missing::Cgroup | Missing::Privileges
            );
            assert_eq!(has, !outer, "{missing:?}");
        }
    }
}
