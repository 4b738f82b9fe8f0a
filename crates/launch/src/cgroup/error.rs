//! Why a cgroup or a limit cannot be had.

use std::io;
use std::path::Path;

/// Why a cgroup or a limit cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no cgroup to be had at all.
    #[error("resources cannot be limited here: {0}")]
    Unavailable(Lack),
    /// The limit needs a controller that the cgroup does not have.
    #[error("{file} cannot be set: the {controller} controller is not available here")]
    NoController {
        /// The controller.
        controller: String,
        /// The setting that was to be made.
        file: String,
    },
    /// The kernel does not take the value.
    #[error("the kernel refuses {file} = {value}: {reason}")]
    Refused {
        /// The setting.
        file: String,
        /// The value.
        value: String,
        /// The kernel's words.
        reason: String,
    },
    /// What this version of cgroups has no setting for.
    #[error("{0}")]
    Unsupported(String),
    /// Processes cannot be stopped.
    #[error("this host's cgroups have no freezer")]
    NoFreezer,
    /// Processes did not stop or go in time.
    #[error("the processes of the container did not stop in time")]
    Slow,
    /// The process or its cgroup is gone.
    #[error("the process is gone")]
    Gone,
    /// systemd does not do it.
    #[error("systemd cannot make a scope for the container: {0}")]
    Systemd(String),
    /// The kernel does not keep rules for devices, or not for this user.
    #[error("the rules for devices (linux.resources.devices) cannot be kept: {0}")]
    Devices(String),
    /// A path or slice that is none.
    #[error("invalid cgroup path {0:?}")]
    BadPath(String),
    /// A file of the cgroup file system cannot be used.
    #[error("cannot {what}: {reason}")]
    File {
        /// The attempt.
        what: String,
        /// The kernel's words.
        reason: String,
    },
}

/// What keeps this user from having a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// No cgroup file system.
    Mount,
    /// The host has the first version.
    Legacy,
    /// systemd runs, and this user's instance of it cannot be reached.
    Bus,
    /// No systemd, and our cgroup belongs to somebody else.
    Delegation,
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Lack::Mount => "no cgroup file system is mounted on /sys/fs/cgroup",
            Lack::Legacy => {
                "this host has cgroups of version 1, which ordinary users cannot be given"
            }
            Lack::Bus => "the systemd of this user cannot be reached",
            Lack::Delegation => "the cgroup of this process is not delegated to this user",
        })
    }
}

impl Error {
    /// A file that cannot be used.
    pub(crate) fn file(verb: &str, path: &Path, error: &io::Error) -> Error {
        Error::File {
            what: format!("{verb} {}", path.display()),
            reason: reason(error),
        }
    }

    /// What the user can do about it, where something can be done.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::Unavailable(Lack::Mount) => "mount -t cgroup2 cgroup2 /sys/fs/cgroup, as root",
            Error::Unavailable(Lack::Legacy) => {
                "boot with systemd.unified_cgroup_hierarchy=1 to have version 2; without limits \
                 containers run here too"
            }
            Error::Unavailable(Lack::Bus) => {
                "log in through a session (ssh or a console, not su or sudo), or run `loginctl \
                 enable-linger` for this user and set XDG_RUNTIME_DIR=/run/user/UID"
            }
            Error::Unavailable(Lack::Delegation) => {
                "run rcon in a cgroup that belongs to this user: as root, mkdir one below \
                 /sys/fs/cgroup, chown it with its cgroup.procs and cgroup.subtree_control, and \
                 move the shell into it"
            }
            Error::NoController { controller, .. } => {
                return Some(format!(
                    "as root, put `[Service]` and `Delegate=cpu cpuset io memory pids` into \
                     /etc/systemd/system/user@.service.d/delegate.conf, run `systemctl \
                     daemon-reload` and log in again; without systemd, write +{controller} to the \
                     cgroup.subtree_control above"
                ));
            }
            Error::Systemd(_) => {
                "`systemctl --user status` says how this user's systemd is; \
                 --cgroup-manager cgroupfs does without it"
            }
            Error::Devices(_) => {
                "in cgroups of version 2 they take root of the whole machine, with CAP_BPF and CAP_NET_ADMIN, and a \
                 kernel with CONFIG_CGROUP_BPF"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// The kernel's words for an error.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => crate::error::describe(errno).to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_remedy() {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let manual = include_str!("../../../../docs/troubleshooting.md");
        let manual = words(&manual.replace('`', ""));
        for lack in [Lack::Mount, Lack::Legacy, Lack::Bus, Lack::Delegation] {
            let error = Error::Unavailable(lack);
            for text in [lack.to_string(), error.hint().unwrap()] {
                let text = text.replace('`', "");
                assert!(manual.contains(&words(&text)), "not in the manual: {text}");
            }
        }
    }
}
