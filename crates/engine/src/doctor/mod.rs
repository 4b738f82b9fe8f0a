//! What rcon relies on here, part by part: which step of its ladder is taken, why it is no better
//! one, and what would help.
//!
//! Everything is tried, not guessed: namespaces are made, an overlay is mounted, the device opened.

mod place;
mod remedies;

use std::fs::{self, File};
use std::path::Path;

use rcon_store::Driver;
use rcon_sys::ids::MapMethod;
use serde::Serialize;

use self::place::Place;
pub(crate) use self::place::os_release;
use self::remedies::{Missing, remedy};
use crate::Engine;
use crate::error::Error;

/// How good a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// The best there is.
    Good,
    /// Containers run, with less.
    Less,
    /// Containers do not run.
    Bad,
}

/// One part of what rcon relies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about: `namespaces`, `ids`, `network` and so on.
    pub part: String,
    /// What is used.
    pub used: String,
    /// How good that is.
    pub grade: Grade,
    /// Why it is nothing better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What that costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matters: Option<String>,
    /// The command that would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn good(part: &str, used: impl Into<String>) -> Self {
        Self {
            part: part.into(),
            used: used.into(),
            grade: Grade::Good,
            why: None,
            matters: None,
            remedy: None,
        }
    }

    fn less(part: &str, used: impl Into<String>, why: impl Into<String>, matters: &str) -> Self {
        Self {
            grade: Grade::Less,
            why: Some(why.into()),
            matters: Some(matters.into()),
            ..Self::good(part, used)
        }
    }

    fn helped_by(self, remedy: Option<impl Into<String>>) -> Self {
        Self {
            remedy: remedy.map(|remedy| for_caller(remedy.into())),
            ..self
        }
    }
}

/// A command as this user has to say it: root, as whom one mostly is in containers, needs no sudo, and there is none.
fn for_caller(command: String) -> String {
    match rustix::process::geteuid().is_root() {
        true => command.replace("sudo ", "").replace("doas ", ""),
        false => command,
    }
}

/// A hint that was written for every place, as it is for this one.
pub(crate) fn placed(hint: String) -> String {
    let general = [
        (rcon_sys::forbidden::OUTSIDE, Missing::Namespaces),
        (rcon_net::HAND_IN, Missing::Tun),
    ];
    for (text, missing) in general {
        if hint.contains(text)
            && let Some(here) = remedy(missing, Place::look(&os_release()))
        {
            return hint.replace(text, &for_caller(here.to_owned()));
        }
    }
    hint
}

impl Engine {
    /// Looks at every part.
    pub fn examine(&self) -> Vec<Finding> {
        let place = Place::look(&os_release());
        let namespaces = self.namespaces(place);
        let able = namespaces.grade != Grade::Bad;
        let mut findings = vec![namespaces, self.id_maps(place)];
        if able {
            findings.push(self.root_filesystem(place));
            findings.push(proc_mounts(place, &self.maps));
            findings.extend(host_name(place));
        }
        findings.push(network(place));
        findings.push(cgroups(place));
        findings.push(self.directories(place));
        findings.push(session(place));
        findings.push(ports(place));
        findings
    }

    /// Whether there can be containers at all.
    fn namespaces(&self, place: Place) -> Finding {
        if let Some(remedy) = rcon_sys::floor::remedy() {
            let call = rcon_sys::floor::missing().unwrap_or_default();
            return Finding {
                grade: Grade::Bad,
                ..Finding::less(
                    "namespaces",
                    "none",
                    format!("the call {call}(2) is not there"),
                    "the mounts of a container cannot be made safely without it",
                )
            }
            .helped_by(Some(remedy));
        }
        let error = match rcon_sys::userns::run(&self.maps, |_| 0) {
            Ok((status, _)) if status.success() => {
                return Finding::good("namespaces", "user namespaces");
            }
            Ok(_) => crate::worker::powerless(),
            Err(source) => Error::io("cannot make containers", source),
        };
        let hint = error.general_hint();
        let theirs = hint.as_deref().is_none_or(rcon_sys::forbidden::is_around);
        Finding {
            grade: Grade::Bad,
            ..Finding::less(
                "namespaces",
                "none",
                error.to_string(),
                "without user namespaces there are no containers",
            )
        }
        .helped_by(match place.in_container() && theirs {
            true => remedy(Missing::Namespaces, place)
                .map(str::to_owned)
                .or(hint),
            false => hint,
        })
    }

    fn id_maps(&self, place: Place) -> Finding {
        if !self.maps.is_single() {
            let count: u64 = self.maps.uid.iter().map(|range| u64::from(range.len)).sum();
            let how = match self.maps.method {
                MapMethod::Newuidmap { .. } => "by newuidmap",
                MapMethod::Direct => "as root",
                MapMethod::Single => "",
            };
            return Finding::good("ids", format!("{count} ids {how}"));
        }
        let why = self.maps.why_single.clone();
        let why = why.unwrap_or_else(|| "this namespace has one id itself".into());
        let matters = "owners and users of containers are made up: they see several, the files \
                       and processes of all belong to you, and programs that give root up can \
                       still reach root's files";
        // The reason has the exact command behind it, where it knows one.
        let (why, exact) = match why.split_once("; ") {
            Some((why, exact)) => (why.to_owned(), Some(exact.to_owned())),
            None => (why, None),
        };
        let known = |missing| remedy(missing, place).map(str::to_owned);
        let programs = why
            .contains("is not installed")
            .then(|| known(Missing::Mappers));
        // The last words of a range that is to be given.
        let range = exact
            .as_ref()
            .is_some_and(|exact| exact.contains("usermod"));
        let range = range.then(|| {
            let (first, last) = rcon_sys::ids::free_range();
            known(Missing::Ids).map(|text| remedies::with_range(&text, first, last))
        });
        let both: Vec<String> = [programs, range].into_iter().flatten().flatten().collect();
        let help = match both.is_empty() {
            false => Some(both.join(" && ")),
            true if why.contains("no_new_privs") => known(Missing::Privileges).or(exact),
            true => exact,
        };
        Finding::less("ids", "one id", why, matters).helped_by(help)
    }

    fn root_filesystem(&self, place: Place) -> Finding {
        match self.store().driver(&self.paths().wish) {
            Ok(Driver::Overlay) => Finding::good("root filesystem", "overlay"),
            Ok(Driver::Fuse { why, .. }) => lesser(
                "fuse-overlayfs",
                why.unwrap_or_else(|| "fuse-overlayfs is asked for".into()),
                "every access to a file of a container takes the way through another process",
                place,
            ),
            Ok(Driver::Copy { why }) => lesser(
                "copies of the layers",
                why.unwrap_or_else(|| "the storage driver \"vfs\" is asked for".into()),
                "each container takes the time and the space that a copy of its image takes",
                place,
            ),
            Err(error) => Finding {
                grade: Grade::Bad,
                ..Finding::less(
                    "root filesystem",
                    "none",
                    error.to_string(),
                    "nothing can be kept",
                )
            },
        }
    }

    fn directories(&self, place: Place) -> Finding {
        let uid = rustix::process::geteuid().as_raw();
        let is_fallback = self.paths().runroot.starts_with(format!("/tmp/rcon-{uid}"));
        let runroot = self.paths().runroot.display().to_string();
        match is_fallback {
            false => Finding::good("directories", runroot),
            true => Finding::less(
                "directories",
                runroot,
                "there is no XDG_RUNTIME_DIR and no /run/user for you",
                "nothing: what only running containers need is in /tmp",
            )
            .helped_by(remedy(Missing::RuntimeDir, place)),
        }
    }
}

fn lesser(used: &str, reason: String, matters: &str, place: Place) -> Finding {
    let (why, help) = match reason.split_once("; ") {
        Some((why, help)) => (why.to_owned(), Some(help.to_owned())),
        None => (reason, None),
    };
    let known = remedy(Missing::Storage, place).map(str::to_owned);
    Finding::less("root filesystem", used, why, matters).helped_by(match place.in_container() {
        true => known.or(help),
        false => help.or(known),
    })
}

/// Whether containers can have a proc of their own: not where the one around is partly covered.
fn proc_mounts(place: Place, maps: &rcon_sys::ids::IdMaps) -> Finding {
    let tried = rcon_sys::userns::run(maps, |_| {
        use nix::sched::{CloneFlags, unshare};
        use rcon_sys::process::{Fork, exit_now, fork, wait_pidfd};
        if unshare(CloneFlags::CLONE_NEWPID).is_err() {
            return 1;
        }
        // The first process of the new namespace is a child.
        match fork() {
            Ok(Fork::Child) => {
                let attributes = rcon_sys::mount::Attributes::empty();
                let made = rcon_sys::mount::new_filesystem("proc", None, &[], attributes);
                exit_now(i32::from(made.is_err()))
            }
            Ok(Fork::Parent { pidfd, .. }) => {
                wait_pidfd(&pidfd).map_or(1, |status| i32::from(!status.success()))
            }
            Err(_) => 1,
        }
    });
    match tried {
        Ok((status, _)) if status.success() => Finding::good("proc", "its own in each container"),
        _ => Finding::less(
            "proc",
            "the one around",
            "parts of /proc are covered here, as container engines do, and the kernel then mounts \
             no new one",
            "containers see the processes around them, which they cannot touch, and by other \
             numbers than their own",
        )
        .helped_by(remedy(Missing::Proc, place)),
    }
}

/// Whether containers can have a host name; told only where they cannot.
fn host_name(place: Place) -> Option<Finding> {
    let maps = rcon_sys::ids::IdMaps::single();
    let tried = rcon_sys::userns::run(&maps, |_| {
        let own = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS);
        let set = rustix::system::sethostname(b"rcon");
        i32::from(own.is_ok() && set.is_err())
    });
    let refused = tried.is_ok_and(|(status, _)| status.code() == Some(1));
    refused.then(|| {
        Finding::less(
            "host name",
            "the one around",
            "a system call filter around forbids to set one",
            "containers have the host name of what is around them, and --hostname is refused",
        )
        .helped_by(remedy(Missing::Namespaces, place))
    })
}

fn network(place: Place) -> Finding {
    let path = "/dev/net/tun";
    let error = match File::options().read(true).write(true).open(path) {
        Ok(_) => return Finding::good("network", "tap"),
        Err(error) => error,
    };
    let missing = match error.raw_os_error() {
        // The engine around has not handed it in, though it can be seen.
        Some(libc::EPERM) if place.in_container() => Missing::Tun,
        Some(libc::EACCES | libc::EPERM) => Missing::TunPermission,
        _ => Missing::Tun,
    };
    let why = rcon_net::Error::NoTun { source: error }.to_string();
    Finding::less(
        "network",
        "host or none",
        why,
        "containers have no network of their own: run them with --network host or --network none",
    )
    .helped_by(remedy(missing, place))
}

fn cgroups(place: Place) -> Finding {
    use rcon_launch::cgroup;
    let Some(missing) = cgroup::missing() else {
        let used = match cgroup::has_systemd() {
            true => "scopes of systemd",
            false => "our own",
        };
        return Finding::good("cgroups", used);
    };
    let matters = "limits (--memory, --cpus, --pids-limit) are refused";
    // The version is the machine's, whatever is around.
    let version = matches!(missing, cgroup::Error::Unavailable(cgroup::Lack::Legacy));
    let remedy = match place.in_container() && !version {
        true => remedy(Missing::Cgroup, place).map(str::to_owned),
        false => missing.hint(),
    };
    Finding::less("cgroups", "none", missing.to_string(), matters).helped_by(remedy)
}

/// Whether containers outlive the login.
fn session(place: Place) -> Finding {
    let uid = rustix::process::geteuid().as_raw();
    let kills = |path: &str| {
        fs::read_to_string(path).is_ok_and(|text| {
            text.lines()
                .any(|line| line.trim() == "KillUserProcesses=yes")
        })
    };
    let drop_ins = fs::read_dir("/etc/systemd/logind.conf.d")
        .into_iter()
        .flatten();
    let killed = kills("/etc/systemd/logind.conf")
        || drop_ins
            .flatten()
            .any(|entry| entry.path().to_str().is_some_and(kills));
    let name = rcon_sys::passwd::current_user_name().unwrap_or_else(|| uid.to_string());
    let lingers = Path::new("/var/lib/systemd/linger").join(name).exists();
    match !killed || lingers || uid == 0 {
        true => Finding::good("after logging out", "containers go on"),
        false => Finding::less(
            "after logging out",
            "containers end",
            "systemd-logind has KillUserProcesses=yes and no lingering for you",
            "what runs detached ends with your last login",
        )
        .helped_by(remedy(Missing::Linger, place)),
    }
}

fn ports(place: Place) -> Finding {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = text.ok().and_then(|text| text.trim().parse::<u16>().ok());
    let root = rustix::process::geteuid().is_root();
    match first.unwrap_or(1024) {
        0 | 1 => Finding::good("ports", "all"),
        _ if root => Finding::good("ports", "all"),
        first => Finding {
            grade: Grade::Good,
            ..Finding::less(
                "ports",
                format!("from {first}"),
                format!("the sysctl net.ipv4.ip_unprivileged_port_start is {first}"),
                "ports below cannot be published",
            )
        }
        .helped_by(remedy(Missing::Ports, place)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_less_says_why() {
        for finding in [network, cgroups, session].map(|look| look(Place::look(""))) {
            assert_eq!(
                finding.grade == Grade::Good,
                finding.why.is_none(),
                "{finding:?}"
            );
        }
        assert_eq!(ports(Place::look("")).grade, Grade::Good);
    }

    #[test]
    fn reasons_and_remedies_are_told_apart() {
        let place = Place {
            family: place::Family::Debian,
            around: place::Around::Machine,
        };
        let finding = lesser(
            "copies",
            "it does not work; give --root on a local disk".into(),
            "time",
            place,
        );
        assert_eq!(finding.why.as_deref(), Some("it does not work"));
        assert_eq!(
            finding.remedy.as_deref(),
            Some("give --root on a local disk")
        );
    }
}
