//! Why an ordinary user may make no namespaces here, and what exactly would change that.
//!
//! The kernel gives one error number for many reasons (clone(2), user_namespaces(7)); the files that
//! decide can be read by everybody, so the reason can be told.

use std::fs;
use std::io;
use std::path::PathBuf;

/// No namespaces can be made; the error that [`crate::userns::spawn`] puts in its [`io::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("user namespaces are not to be had: {}", reason(*.errno))]
pub struct Forbidden {
    /// The error number of clone(2).
    pub errno: i32,
}

impl Forbidden {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        remedy(self.errno)
    }

    /// `error` as one of these, when the kernel gave it.
    pub(crate) fn wrap(error: io::Error) -> io::Error {
        match error.raw_os_error() {
            Some(errno) => io::Error::new(error.kind(), Forbidden { errno }),
            None => error,
        }
    }
}

/// What `errno` of clone(2) means for namespaces, in words.
pub fn reason(errno: i32) -> &'static str {
    match errno {
        libc::ENOSPC | libc::EUSERS => "their limit is reached",
        libc::ENOSYS => "not supported here",
        errno => nix::errno::Errno::from_raw(errno).desc(),
    }
}

/// The remedy in an error of [`crate::userns`], whatever it was that failed.
pub fn hint_of(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?;
    if let Some(forbidden) = inner.downcast_ref::<Forbidden>() {
        return forbidden.hint();
    }
    inner.downcast_ref::<crate::ids::IdError>()?.hint()
}

/// What of the system decides about user namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    /// The `user.max_*_namespaces` that are 0, `user` for `user.max_user_namespaces`.
    zero_limits: Vec<&'static str>,
    /// `kernel.unprivileged_userns_clone` is there (Debian's kernels) and 0.
    clone_forbidden: bool,
    /// `kernel.apparmor_restrict_unprivileged_userns` is there (Ubuntu's kernels) and not 0.
    apparmor_restricts: bool,
    /// The AppArmor profile of this process, if it has one that confines it.
    profile: Option<String>,
    /// AppArmor decides, and this process has no profile at all.
    unconfined: bool,
    /// A system call filter is on this process.
    filtered: bool,
    /// The root directory is no mount of its own, as after chroot(2).
    chrooted: bool,
    /// This program.
    program: PathBuf,
}

/// The remedy for `errno`, which clone(2) or unshare(2) gave for new namespaces, or which a first
/// step in them gave: `EPERM`, `EACCES`, `ENOSPC`, `EUSERS`, `EINVAL`, `ENOSYS`, `EAGAIN`. `None`
/// for other numbers.
pub fn remedy(errno: i32) -> Option<String> {
    remedy_for(errno, &Facts::look())
}

/// The remedy where user namespaces can be made but have no rights, which is how Ubuntu restricts
/// them: everything in them fails with `EPERM`. `None` where nothing restricts them in this way.
pub fn powerless() -> Option<String> {
    let facts = Facts::look();
    (facts.profile.is_some() || (facts.apparmor_restricts && facts.unconfined))
        .then(|| apparmor(&facts))
}

/// The remedy where a step of the root of a user namespace fails with `EPERM`: AppArmor
/// ([`powerless`]), or a system call filter around. `None` where neither is there.
pub fn restricted() -> Option<String> {
    powerless().or_else(|| Facts::look().filtered.then(sandbox))
}

impl Facts {
    fn look() -> Facts {
        const KINDS: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
        let number = |path: &str| {
            let text = fs::read_to_string(path).ok()?;
            text.trim().parse::<u64>().ok()
        };
        let label = fs::read_to_string("/proc/self/attr/apparmor/current").unwrap_or_default();
        let label = label.trim_end_matches(['\n', '\0']);
        // "NAME (unconfined)" is a profile that allows everything.
        let confined =
            !label.is_empty() && label != "unconfined" && !label.ends_with("(unconfined)");
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let root_mounted = mounts
            .lines()
            .any(|line| line.split(' ').nth(4) == Some("/"));
        Facts {
            zero_limits: KINDS
                .into_iter()
                .filter(|kind| number(&format!("/proc/sys/user/max_{kind}_namespaces")) == Some(0))
                .collect(),
            clone_forbidden: number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0),
            apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
                .is_some_and(|value| value != 0),
            profile: confined.then(|| {
                let name = label.rsplit_once(" (").map_or(label, |(name, _)| name);
                name.to_owned()
            }),
            unconfined: label == "unconfined",
            filtered: status.lines().any(|line| {
                line.strip_prefix("Seccomp:")
                    .is_some_and(|mode| mode.trim() != "0")
            }),
            chrooted: !mounts.is_empty() && !root_mounted,
            program: std::env::current_exe().unwrap_or_else(|_| "/usr/local/bin/rcon".into()),
        }
    }
}

fn remedy_for(errno: i32, facts: &Facts) -> Option<String> {
    Some(match errno {
        libc::ENOSPC | libc::EUSERS => limits(facts),
        libc::EPERM | libc::EACCES => forbidden(errno, facts),
        libc::EINVAL | libc::ENOSYS if facts.filtered => sandbox(),
        libc::EINVAL | libc::ENOSYS => {
            "this kernel lacks a kind of namespace; rcon needs Linux 5.12 or later with user, pid, \
             mount, network, ipc, uts and cgroup namespaces"
                .to_owned()
        }
        libc::EAGAIN => {
            "the limit of processes is reached (ulimit -u, or pids.max of the cgroup)".to_owned()
        }
        _ => return None,
    })
}

fn limits(facts: &Facts) -> String {
    let Some(kind) = facts.zero_limits.first() else {
        return "too many namespaces exist or are nested: end some containers, or raise the \
                sysctls user.max_*_namespaces"
            .to_owned();
    };
    setting(&format!("user.max_{kind}_namespaces"), "0", "15000")
}

fn setting(name: &str, now: &str, wanted: &str) -> String {
    format!(
        "the sysctl {name} is {now}; as root: sysctl -w {name}={wanted} (and the same line in \
         /etc/sysctl.d/99-rcon.conf, to keep it)"
    )
}

fn forbidden(errno: i32, facts: &Facts) -> String {
    if facts.clone_forbidden {
        return setting("kernel.unprivileged_userns_clone", "0", "1");
    }
    if facts.profile.is_some() || (facts.apparmor_restricts && facts.unconfined) {
        return apparmor(facts);
    }
    if facts.filtered {
        return sandbox();
    }
    if facts.chrooted {
        return "the kernel makes no user namespaces in a chroot; enter the tree by pivot_root(8), \
                systemd-nspawn or a container instead"
            .to_owned();
    }
    match errno {
        libc::EACCES => "the security policy of this machine (SELinux or another) forbids user \
                         namespaces to this program; its audit log names the rule"
            .to_owned(),
        _ => format!(
            "{SOMETHING} forbids user namespaces: a sandbox, a service with RestrictNamespaces=, \
             or a user id that this namespace does not know"
        ),
    }
}

fn apparmor(facts: &Facts) -> String {
    match &facts.profile {
        Some(profile) => format!(
            "{PROFILE}{profile} forbids it; as root, add the line `userns,` to that \
             profile, or take it away with: aa-disable {profile}"
        ),
        None => format!(
            "AppArmor restricts user namespaces here; as root: echo 'abi <abi/4.0>, profile rcon \
             {} flags=(unconfined) {{ userns, }}' >/etc/apparmor.d/rcon && apparmor_parser -r \
             /etc/apparmor.d/rcon",
            facts.program.display()
        ),
    }
}

/// What to do about a filter, where it is not known whose it is.
pub const OUTSIDE: &str = "run rcon outside of that sandbox, or in Docker and Podman with \
                           --security-opt seccomp=unconfined";

fn sandbox() -> String {
    format!("a system call filter around this process forbids it; {OUTSIDE}")
}

/// Whether a remedy is about what is around this process, not about the machine: who starts the
/// container around can do something about that.
pub fn is_around(remedy: &str) -> bool {
    [OUTSIDE, PROFILE, SOMETHING]
        .iter()
        .any(|text| remedy.contains(text))
}

const PROFILE: &str = "the AppArmor profile ";
const SOMETHING: &str = "something around this process";

#[cfg(test)]
mod tests {
    use super::*;

    fn says(errno: i32, facts: &Facts) -> String {
        remedy_for(errno, facts).unwrap_or_default()
    }

    #[test]
    fn the_setting_that_is_wrong_is_named() {
        let none = Facts {
            zero_limits: vec!["user"],
            ..Facts::default()
        };
        assert!(says(libc::ENOSPC, &none).contains("sysctl -w user.max_user_namespaces=15000"));
        assert!(!says(libc::ENOSPC, &Facts::default()).contains("sysctl -w"));
        let debian = Facts {
            clone_forbidden: true,
            apparmor_restricts: true,
            ..Facts::default()
        };
        assert!(
            says(libc::EPERM, &debian).contains("sysctl -w kernel.unprivileged_userns_clone=1")
        );
    }

    #[test]
    fn a_limit_is_no_full_disk() {
        let error = Forbidden::wrap(io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(
            error.to_string(),
            "user namespaces are not to be had: their limit is reached"
        );
        assert!(hint_of(&error).is_some());
        assert_eq!(hint_of(&io::Error::from_raw_os_error(libc::EPERM)), None);
    }

    #[test]
    fn apparmor_is_told_from_other_policies() {
        let ubuntu = Facts {
            apparmor_restricts: true,
            unconfined: true,
            program: "/opt/rcon".into(),
            ..Facts::default()
        };
        assert!(
            says(libc::EPERM, &ubuntu)
                .contains("profile rcon /opt/rcon flags=(unconfined) { userns, }")
        );
        let confined = Facts {
            profile: Some("x".to_owned()),
            ..Facts::default()
        };
        assert!(says(libc::EACCES, &confined).contains("AppArmor profile x"));
        assert!(says(libc::EACCES, &Facts::default()).contains("SELinux"));
    }

    #[test]
    fn what_is_around_is_told_from_the_machine() {
        let filtered = Facts {
            filtered: true,
            ..Facts::default()
        };
        let limited = Facts {
            zero_limits: vec!["user"],
            ..filtered.clone()
        };
        assert!(is_around(&says(libc::EPERM, &filtered)));
        assert!(is_around(&says(libc::EPERM, &Facts::default())));
        assert!(!is_around(&says(libc::ENOSPC, &limited)));
    }

    /// Of each refusal the manual has the setting, option or command that lifts it.
    #[test]
    fn the_manual_has_every_remedy() {
        let manual = include_str!("../../../docs/troubleshooting.md");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let manual = words(manual);
        let facts = |change: fn(&mut Facts)| {
            let mut facts = Facts::default();
            change(&mut facts);
            facts
        };
        for (errno, facts, remedy) in [
            (
                libc::ENOSPC,
                facts(|f| f.zero_limits = vec!["user"]),
                "sysctl -w user.max_user_namespaces=15000",
            ),
            (
                libc::EPERM,
                facts(|f| f.clone_forbidden = true),
                "sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                libc::EPERM,
                facts(|f| (f.apparmor_restricts, f.unconfined) = (true, true)),
                "flags=(unconfined) { userns, }",
            ),
            (
                libc::EACCES,
                facts(|f| f.profile = Some("x".to_owned())),
                "`userns,`",
            ),
            (
                libc::EPERM,
                facts(|f| f.filtered = true),
                "--security-opt seccomp=unconfined",
            ),
            (libc::EPERM, facts(|f| f.chrooted = true), "pivot_root"),
            (libc::ENOSYS, Facts::default(), "5.12"),
            (libc::EACCES, Facts::default(), "SELinux"),
            (libc::EPERM, Facts::default(), "RestrictNamespaces="),
        ] {
            assert!(says(errno, &facts).contains(remedy), "{remedy}");
            assert!(manual.contains(remedy), "not in the manual: {remedy}");
        }
    }

    #[test]
    fn sandboxes_and_trees_are_seen() {
        let filtered = Facts {
            filtered: true,
            ..Facts::default()
        };
        assert!(says(libc::ENOSYS, &filtered).contains("seccomp"));
        assert!(says(libc::EPERM, &filtered).contains("seccomp"));
        assert!(says(libc::ENOSYS, &Facts::default()).contains("5.12"));
        let chrooted = Facts {
            chrooted: true,
            ..Facts::default()
        };
        assert!(says(libc::EPERM, &chrooted).contains("chroot"));
        assert_eq!(remedy_for(libc::EIO, &chrooted), None);
    }
}
