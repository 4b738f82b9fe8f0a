//! Where rcon runs: which distribution, and in what.
//!
//! A remedy is a command to be given somewhere: on an ordinary machine by its administrator, in a
//! container by whoever starts that.

use std::fs;
use std::path::Path;

/// The distributions that a package has another name in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Debian and Ubuntu.
    Debian,
    /// Fedora and Red Hat's.
    Fedora,
    /// Arch.
    Arch,
    /// Alpine.
    Alpine,
    /// openSUSE.
    Suse,
    /// Any other.
    Other,
}

/// What is around this machine, if it is none of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Around {
    /// Nothing: a machine, real or virtual.
    Machine,
    /// A runner of GitHub Actions, which is a machine.
    GitHub,
    /// A job of GitLab's docker executor.
    GitLab,
    /// A job of its kubernetes executor.
    GitLabPod,
    /// A pod of Kubernetes.
    Kubernetes,
    /// A container of Docker.
    Docker,
    /// A container of Podman.
    Podman,
    /// A container of rcon itself.
    Rcon,
}

/// Where we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) family: Family,
    pub(crate) around: Around,
}

impl Place {
    /// Looks around.
    pub(crate) fn look(os_release: &str) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let around = match around(set, |path| Path::new(path).exists()) {
            Around::Podman => engine(&fs::read_to_string(CONTAINERENV).unwrap_or_default()),
            around => around,
        };
        Self {
            family: family(os_release),
            around,
        }
    }

    /// Whether we are in somebody else's container.
    pub(crate) fn in_container(self) -> bool {
        !matches!(self.around, Around::Machine | Around::GitHub)
    }
}

fn family(os_release: &str) -> Family {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_default()
            .trim_matches(['"', '\''])
    };
    let words = value("ID").split(' ').chain(value("ID_LIKE").split(' '));
    for word in words {
        return match word {
            "debian" | "ubuntu" => Family::Debian,
            "fedora" | "rhel" | "centos" => Family::Fedora,
            "arch" => Family::Arch,
            "alpine" => Family::Alpine,
            "suse" | "opensuse" => Family::Suse,
            _ => continue,
        };
    }
    Family::Other
}

/// What Podman, and rcon as it does, put into containers.
const CONTAINERENV: &str = "/run/.containerenv";

/// Whose container it is that has such a file.
fn engine(text: &str) -> Around {
    match text.contains("engine=\"rcon-") {
        true => Around::Rcon,
        false => Around::Podman,
    }
}

fn around(set: impl Fn(&str) -> bool, there: impl Fn(&str) -> bool) -> Around {
    let docker = there("/.dockerenv");
    let podman = there(CONTAINERENV);
    if set("KUBERNETES_SERVICE_HOST") || there("/var/run/secrets/kubernetes.io") {
        return match set("GITLAB_CI") {
            true => Around::GitLabPod,
            false => Around::Kubernetes,
        };
    }
    match (docker, podman) {
        (true, _) if set("GITLAB_CI") => Around::GitLab,
        (true, _) => Around::Docker,
        (_, true) => Around::Podman,
        _ if set("GITHUB_ACTIONS") => Around::GitHub,
        _ => Around::Machine,
    }
}

/// The text of os-release(5).
pub(crate) fn os_release() -> String {
    fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_known_by_their_relatives() {
        for (text, expected) in [
            ("ID=debian\n", Family::Debian),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Family::Debian),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"",
                Family::Fedora,
            ),
            ("ID=arch", Family::Arch),
            ("ID=alpine", Family::Alpine),
            (
                "ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"",
                Family::Suse,
            ),
            ("ID=nixos", Family::Other),
            ("", Family::Other),
        ] {
            assert_eq!(family(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_around_is_seen() {
        let look = |variables: &[&str], files: &[&str]| {
            around(
                |name| variables.contains(&name),
                |path| files.contains(&path),
            )
        };
        assert_eq!(look(&[], &[]), Around::Machine);
        assert_eq!(look(&["GITHUB_ACTIONS"], &[]), Around::GitHub);
        assert_eq!(look(&[], &["/.dockerenv"]), Around::Docker);
        assert_eq!(look(&["GITLAB_CI"], &["/.dockerenv"]), Around::GitLab);
        assert_eq!(look(&["KUBERNETES_SERVICE_HOST"], &[]), Around::Kubernetes);
        let pod = ["KUBERNETES_SERVICE_HOST", "GITLAB_CI"];
        assert_eq!(look(&pod, &[]), Around::GitLabPod);
        assert_eq!(look(&[], &["/run/.containerenv"]), Around::Podman);
        assert_eq!(engine("engine=\"podman-4.3.1\"\n"), Around::Podman);
        assert_eq!(engine("engine=\"rcon-0.1.0\"\n"), Around::Rcon);
        assert_eq!(engine(""), Around::Podman);
    }
}
