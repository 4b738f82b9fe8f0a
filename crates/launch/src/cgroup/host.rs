//! How this host's cgroups are mounted, and where in them we are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, CWD, statfs};

use super::error::{Error, Lack};

/// Where every Linux distribution mounts them.
pub(super) const MOUNT: &str = "/sys/fs/cgroup";

const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The cgroups of this host, as far as we are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// The second version, and our place in it.
    Unified {
        /// The folder of our own cgroup.
        own: PathBuf,
    },
    /// The first version, alone or beside the second: a folder of ours for each controller.
    Legacy(BTreeMap<String, PathBuf>),
    /// None.
    Missing,
}

impl Host {
    /// What there is.
    pub fn look() -> Host {
        let Ok(mounted) = statfs(MOUNT) else {
            return Host::Missing;
        };
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        if mounted.f_type == CGROUP2_MAGIC {
            return match unified_path(&own) {
                Some(path) => Host::Unified {
                    own: beneath(Path::new(MOUNT), &path),
                },
                None => Host::Missing,
            };
        }
        // Ordinary users are not given any of the first version.
        if !rustix::process::geteuid().is_root() {
            return Host::Legacy(BTreeMap::new());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let dirs = legacy_dirs(&own, &mounts);
        match dirs.is_empty() {
            true => Host::Missing,
            false => Host::Legacy(dirs),
        }
    }

    /// The version, as `info` shows it.
    pub fn version(&self) -> &'static str {
        match self {
            Host::Unified { .. } => "v2",
            Host::Legacy(_) => "v1",
            Host::Missing => "",
        }
    }

    /// What keeps us from having one.
    pub(super) fn lack(&self) -> Lack {
        match self {
            Host::Missing => Lack::Mount,
            Host::Legacy(_) => Lack::Legacy,
            Host::Unified { .. } if has_systemd() => Lack::Bus,
            Host::Unified { .. } => Lack::Delegation,
        }
    }
}

/// The controllers that containers of this user can have; empty where there is no cgroup for them.
pub fn controllers() -> Vec<String> {
    let listed = |dir: &Path| {
        let text = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    match Host::look() {
        Host::Unified { own } if is_delegated(&own) => listed(&own),
        Host::Unified { own } if super::scope::is_reachable() => {
            let uid = rustix::process::geteuid().as_raw();
            let service = PathBuf::from(format!(
                "{MOUNT}/user.slice/user-{uid}.slice/user@{uid}.service"
            ));
            match rustix::process::geteuid().is_root() {
                true => listed(Path::new(MOUNT)),
                false if service.exists() => listed(&service),
                false => listed(&own),
            }
        }
        Host::Legacy(dirs) if may_make(&dirs) => dirs.into_keys().collect(),
        _ => Vec::new(),
    }
}

/// What keeps containers from having cgroups here; `None` where they can have some.
pub fn missing() -> Option<Error> {
    let host = Host::look();
    let there = match &host {
        Host::Unified { own } => is_writable(own) || super::scope::is_reachable(),
        Host::Legacy(dirs) => may_make(dirs),
        Host::Missing => false,
    };
    (!there).then(|| Error::Unavailable(host.lack()))
}

/// Whether cgroups can be made in all of `dirs`, those of the first version: in a container they are mounted read-only.
pub(super) fn may_make(dirs: &BTreeMap<String, PathBuf>) -> bool {
    let may = |dir: &PathBuf| rustix::fs::access(dir, Access::WRITE_OK).is_ok();
    !dirs.is_empty() && dirs.values().all(may)
}

/// Whether systemd is what this system was booted with, see sd_booted(3).
pub(super) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether we may make cgroups in `dir`.
pub(super) fn is_writable(dir: &Path) -> bool {
    let may = |path: &Path| {
        rustix::fs::accessat(CWD, path, Access::WRITE_OK, rustix::fs::AtFlags::EACCESS).is_ok()
    };
    may(dir) && may(&dir.join("cgroup.procs")) && may(&dir.join("cgroup.subtree_control"))
}

/// Whether `dir` is there for us to make cgroups in: systemd marks such ones, and without it whoever
/// gave it to us has meant it.
pub(super) fn is_delegated(dir: &Path) -> bool {
    if !is_writable(dir) {
        return false;
    }
    let mut mark = [0_u8; 8];
    !has_systemd()
        || matches!(rustix::fs::getxattr(dir, "user.delegate", &mut mark), Ok(1) if mark[0] == b'1')
}

/// The path of the second version in the text of `/proc/PID/cgroup`.
pub(super) fn unified_path(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    // One outside of our cgroup namespace cannot be named from here.
    (path.starts_with('/') && !path.starts_with("/..")).then(|| path.to_owned())
}

/// `path` with its leading slash put beneath `root`.
pub(super) fn beneath(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Our folder in the hierarchy of each controller.
fn legacy_dirs(own: &str, mountinfo: &str) -> BTreeMap<String, PathBuf> {
    let mut dirs = BTreeMap::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let fields: Vec<&str> = left.split(' ').collect();
        let kind: Vec<&str> = right.split(' ').collect();
        let ([_, _, _, root, mount, ..], ["cgroup", _, options, ..]) = (&fields[..], &kind[..])
        else {
            continue;
        };
        for line in own.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(names), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            // What is mounted may itself be a part of the hierarchy.
            let path = path
                .strip_prefix(root.trim_end_matches('/'))
                .unwrap_or(path);
            for name in names.split(',') {
                if options.split(',').any(|option| option == name) && !name.starts_with("name=") {
                    dirs.insert(name.to_owned(), beneath(Path::new(mount), path));
                }
            }
        }
    }
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_place_is_found() {
        assert_eq!(unified_path("0::/a/b\n").unwrap(), "/a/b");
        assert_eq!(unified_path("1:cpu:/\n0::/\n").unwrap(), "/");
        assert!(unified_path("0::/../x\n").is_none());
        assert!(unified_path("1:cpu:/\n").is_none());
    }

    #[test]
    fn the_hierarchies_of_the_first_version() {
        let own = "4:memory:/job/1\n3:cpu,cpuacct:/\n2:name=systemd:/x\n0::/\n";
        let mounts = "30 29 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            31 29 0:27 /job /sys/fs/cgroup/memory rw,nosuid shared:1 - cgroup cgroup rw,memory\n\
            32 29 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            33 29 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        let dirs = legacy_dirs(own, mounts);
        assert_eq!(
            dirs.keys().map(String::as_str).collect::<Vec<_>>(),
            ["cpu", "cpuacct", "memory"]
        );
        assert_eq!(dirs["memory"], Path::new("/sys/fs/cgroup/memory/1"));
        assert_eq!(dirs["cpu"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    }

    #[test]
    fn what_cannot_be_written_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let mut dirs = BTreeMap::new();
        assert!(!may_make(&dirs));
        dirs.insert("cpu".to_owned(), dir.path().to_owned());
        assert!(may_make(&dirs));
        dirs.insert("memory".to_owned(), dir.path().join("not-there"));
        assert!(!may_make(&dirs));
    }
}
