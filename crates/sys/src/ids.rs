//! Which user and group ids a container of this user can have, and how they are mapped.
//!
//! A ladder, each step checked before it is taken:
//!
//! 1. [`MapMethod::Direct`]: root with `CAP_SETUID` and `CAP_SETGID` maps every id it has to
//!    itself.
//! 2. [`MapMethod::Newuidmap`]: the user's own id becomes 0, the subordinate ids of subuid(5) and
//!    subgid(5) follow, written by newuidmap(1) and newgidmap(1).
//! 3. [`MapMethod::Single`]: the user's own id becomes 0 and nothing else is mapped; needs nothing
//!    at all.
//!
//! Detection never fails: where a step cannot be taken the next one is, and
//! [`IdMaps::why_single`] tells people why and what to do about it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;

use crate::passwd;

/// A run of ids that is mapped as a whole, as one line of user_namespaces(7)'s `uid_map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id inside.
    pub container: u32,
    /// First id outside, as the namespace of this process sees it.
    pub host: u32,
    /// How many.
    pub len: u32,
}

/// How the maps get written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapMethod {
    /// By the set-user-id programs of the distribution.
    Newuidmap {
        /// Where newuidmap(1) is.
        newuidmap: PathBuf,
        /// Where newgidmap(1) is.
        newgidmap: PathBuf,
    },
    /// One user and one group, written by ourselves; setgroups(2) stays denied inside.
    Single,
    /// Any ids, written by ourselves with the privileges of root.
    Direct,
}

/// The ids of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMaps {
    /// User ids.
    pub uid: Vec<IdRange>,
    /// Group ids.
    pub gid: Vec<IdRange>,
    /// How they are written.
    pub method: MapMethod,
    /// Why there is only one id, with a remedy; for people.
    pub why_single: Option<String>,
}

/// Why the maps of a process could not be written.
#[derive(Debug, thiserror::Error)]
pub enum IdError {
    /// A map file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// newuidmap or newgidmap could not be run.
    #[error("cannot run {program}: {source}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// newuidmap or newgidmap ran and refused.
    #[error("{program} refused the id map: {message}")]
    Refused {
        /// The program.
        program: String,
        /// What it said.
        message: String,
    },
}

impl IdError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Write { .. } => None,
            Self::Run { .. } => Some("reinstall the package uidmap (shadow-utils)".to_owned()),
            Self::Refused { .. } => Some(
                "check that the ranges in /etc/subuid and /etc/subgid belong to you and that \
                 newuidmap and newgidmap are set-user-id root or have file capabilities"
                    .to_owned(),
            ),
        }
    }
}

impl IdMaps {
    /// The best maps this user can have here.
    pub fn detect() -> Self {
        let uid_limits = read_map("/proc/self/uid_map");
        let gid_limits = read_map("/proc/self/gid_map");
        if is_root() {
            return Self {
                uid: identity(&uid_limits),
                gid: identity(&gid_limits),
                method: MapMethod::Direct,
                why_single: None,
            };
        }
        match subordinate(&uid_limits, &gid_limits) {
            Ok(maps) => maps,
            Err(why) => Self {
                why_single: Some(why),
                ..Self::single()
            },
        }
    }

    /// The user's own id as 0, and nothing else.
    pub fn single() -> Self {
        let own = |host| {
            vec![IdRange {
                container: 0,
                host,
                len: 1,
            }]
        };
        Self {
            uid: own(rustix::process::geteuid().as_raw()),
            gid: own(rustix::process::getegid().as_raw()),
            method: MapMethod::Single,
            why_single: None,
        }
    }

    /// The ids that this process's own user namespace has, each as itself: the maps of what lives in
    /// the same namespace. They are never written.
    pub fn own() -> Self {
        Self {
            uid: identity(&read_map("/proc/self/uid_map")),
            gid: identity(&read_map("/proc/self/gid_map")),
            method: MapMethod::Direct,
            why_single: None,
        }
    }

    /// The given maps, to be written by the way that this user has for them.
    ///
    /// Fails with a reason for people where a map takes newuidmap and that cannot be used.
    pub fn given(uid: Vec<IdRange>, gid: Vec<IdRange>) -> Result<Self, String> {
        let only = |ranges: &[IdRange], own: u32| matches!(ranges, [IdRange { host, len: 1, .. }] if *host == own);
        let method = if is_root() {
            MapMethod::Direct
        } else if only(&uid, rustix::process::geteuid().as_raw())
            && only(&gid, rustix::process::getegid().as_raw())
        {
            MapMethod::Single
        } else {
            MapMethod::Newuidmap {
                newuidmap: find_mapper("newuidmap")?,
                newgidmap: find_mapper("newgidmap")?,
            }
        };
        Ok(Self {
            uid,
            gid,
            method,
            why_single: None,
        })
    }

    /// Whether only one user or one group is mapped, so that owners cannot be told apart.
    pub fn is_single(&self) -> bool {
        let one =
            |ranges: &[IdRange]| ranges.iter().map(|range| u64::from(range.len)).sum::<u64>() <= 1;
        self.method == MapMethod::Single || one(&self.uid) || one(&self.gid)
    }

    /// A short name for the mapping that is safe as a file name.
    ///
    /// Files written under one mapping have the right owners under an equal one only. `s` is the
    /// single id and `i` the identity; else the host's runs of ids beyond the user's own, for
    /// example `200000-65536`.
    pub fn key(&self) -> String {
        if self.is_single() {
            return "s".to_owned();
        }
        let full = |ranges: &[IdRange]| ranges.iter().all(|range| range.container == range.host);
        if full(&self.uid) && full(&self.gid) {
            return "i".to_owned();
        }
        let runs = |ranges: &[IdRange]| {
            let skip = usize::from(ranges.first().is_some_and(|range| range.len == 1));
            let runs: Vec<String> = ranges[skip..]
                .iter()
                .map(|range| format!("{}-{}", range.host, range.len))
                .collect();
            runs.join("_")
        };
        let (uid, gid) = (runs(&self.uid), runs(&self.gid));
        let key = if uid == gid {
            uid
        } else {
            format!("{uid}.{gid}")
        };
        if key.len() <= 100 {
            return key;
        }
        // Very many runs: a name of fixed length (FNV-1a), still the same for the same runs.
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("h{hash:016x}")
    }

    /// The id outside of the user `uid` inside.
    pub fn to_host_uid(&self, uid: u32) -> Option<u32> {
        outward(&self.uid, uid)
    }

    /// The id outside of the group `gid` inside.
    pub fn to_host_gid(&self, gid: u32) -> Option<u32> {
        outward(&self.gid, gid)
    }

    /// The id inside of the user `uid` outside.
    pub fn to_container_uid(&self, uid: u32) -> Option<u32> {
        inward(&self.uid, uid)
    }

    /// The id inside of the group `gid` outside.
    pub fn to_container_gid(&self, gid: u32) -> Option<u32> {
        inward(&self.gid, gid)
    }
}

fn outward(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.container)?;
        (offset < range.len).then(|| range.host + offset)
    })
}

fn inward(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.host)?;
        (offset < range.len).then(|| range.container + offset)
    })
}

/// Give the new user namespace of the child process `pid` its maps.
///
/// newuidmap and newgidmap run side by side. The child must not have been waited for, so that its
/// id is still its own.
pub fn write_maps(pid: Pid, maps: &IdMaps) -> Result<(), IdError> {
    let pid = pid.as_raw_nonzero();
    match &maps.method {
        MapMethod::Newuidmap {
            newuidmap,
            newgidmap,
        } => {
            let uid = start_mapper(newuidmap, pid.get(), &maps.uid);
            let gid = start_mapper(newgidmap, pid.get(), &maps.gid);
            // Both are waited for before an error of either is looked at.
            let uid = uid.and_then(|child| finish_mapper(newuidmap, child));
            let gid = gid.and_then(|child| finish_mapper(newgidmap, child));
            uid.and(gid)
        }
        MapMethod::Single => {
            write_file(&format!("/proc/{pid}/uid_map"), &map_text(&maps.uid))?;
            write_file(&format!("/proc/{pid}/setgroups"), "deny")?;
            write_file(&format!("/proc/{pid}/gid_map"), &map_text(&maps.gid))
        }
        MapMethod::Direct => {
            write_file(&format!("/proc/{pid}/uid_map"), &map_text(&maps.uid))?;
            write_file(&format!("/proc/{pid}/gid_map"), &map_text(&maps.gid))
        }
    }
}

fn map_text(ranges: &[IdRange]) -> String {
    ranges
        .iter()
        .map(|range| format!("{} {} {}\n", range.container, range.host, range.len))
        .collect()
}

fn write_file(path: &str, text: &str) -> Result<(), IdError> {
    // One write: the kernel takes a map whole or not at all.
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| rustix::io::write(&file, text.as_bytes()).map_err(io::Error::from))
        .map(drop)
        .map_err(|source| IdError::Write {
            path: path.to_owned(),
            source,
        })
}

fn start_mapper(program: &Path, pid: i32, ranges: &[IdRange]) -> Result<Child, IdError> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for range in ranges {
        command
            .arg(range.container.to_string())
            .arg(range.host.to_string())
            .arg(range.len.to_string());
    }
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| IdError::Run {
            program: program.display().to_string(),
            source,
        })
}

fn finish_mapper(program: &Path, mut child: Child) -> Result<(), IdError> {
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // What it said only matters when it failed; a failure to read it is not one of the map.
        let _ = stderr.read_to_string(&mut said);
    }
    let status = child.wait().map_err(|source| IdError::Run {
        program: program.display().to_string(),
        source,
    })?;
    if status.success() {
        return Ok(());
    }
    let message = said.trim();
    Err(IdError::Refused {
        program: program.display().to_string(),
        message: if message.is_empty() {
            status.to_string()
        } else {
            message.replace('\n', "; ")
        },
    })
}

fn is_root() -> bool {
    use rustix::thread::CapabilitySet;
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    rustix::process::geteuid().is_root()
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// The first ids inside and the lengths of this process's own map: what can be mapped further.
fn read_map(path: &str) -> Vec<(u32, u32)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let first = fields.next()?.parse().ok()?;
            let len = fields.nth(1)?.parse().ok()?;
            Some((first, len))
        })
        .collect()
}

fn identity(limits: &[(u32, u32)]) -> Vec<IdRange> {
    limits
        .iter()
        .map(|&(first, len)| IdRange {
            container: first,
            host: first,
            len,
        })
        .collect()
}

/// The maps with subordinate ids, or why there can be none.
fn subordinate(uid_limits: &[(u32, u32)], gid_limits: &[(u32, u32)]) -> Result<IdMaps, String> {
    let uid = rustix::process::getuid().as_raw();
    let euid = rustix::process::geteuid().as_raw();
    let egid = rustix::process::getegid().as_raw();
    let name = passwd::current_user_name();
    let who = name.clone().unwrap_or_else(|| uid.to_string());
    let remedy = || {
        let (first, last) = free_range(["/etc/subuid", "/etc/subgid"].map(fs::read_to_string));
        format!("as root: usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {who}")
    };
    let ranges = |file: &str, own: u32, limits: &[(u32, u32)]| {
        let text = fs::read(file).map_err(|_| format!("{file} cannot be read; {}", remedy()))?;
        let text = String::from_utf8_lossy(&text);
        let found = parse_subids(&text, name.as_deref(), uid);
        if found.is_empty() {
            return Err(format!(
                "{who} has no subordinate ids in {file}; {}",
                remedy()
            ));
        }
        let usable = usable_ranges(&found, own, limits);
        if usable.is_empty() {
            return Err(format!(
                "none of the subordinate ids of {who} in {file} can be used here: they overlap \
                 with the id {own} itself or lie outside of what /proc/self/uid_map allows; {}",
                remedy()
            ));
        }
        let mut next = 1;
        let mut all = vec![IdRange {
            container: 0,
            host: own,
            len: 1,
        }];
        for (host, len) in usable {
            all.push(IdRange {
                container: next,
                host,
                len,
            });
            next += len;
        }
        Ok(all)
    };
    let uids = ranges("/etc/subuid", euid, uid_limits)?;
    let gids = ranges("/etc/subgid", egid, gid_limits)?;
    if rustix::thread::no_new_privs().unwrap_or(false) {
        return Err(
            "this process may not gain privileges (no_new_privs is set), so newuidmap \
                    cannot work; run it outside of that sandbox"
                .to_owned(),
        );
    }
    Ok(IdMaps {
        uid: uids,
        gid: gids,
        method: MapMethod::Newuidmap {
            newuidmap: find_mapper("newuidmap")?,
            newgidmap: find_mapper("newgidmap")?,
        },
        why_single: None,
    })
}

/// The runs (first id, length) of the user in a text in the form of subuid(5).
fn parse_subids(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let first = passwd::parse_id(fields.next()?)?;
            let len = passwd::parse_id(fields.next()?)?;
            let mine = owner == number || name == Some(owner);
            (mine && !owner.is_empty() && fields.next().is_none()).then_some((first, len))
        })
        .collect()
}

/// The first and last of 65536 ids that nobody has in `files`, from 100000 as useradd(8) gives them.
fn free_range(files: [io::Result<String>; 2]) -> (u32, u32) {
    let ends = files.iter().flatten().flat_map(|text| text.lines());
    let ends = ends.filter_map(|line| {
        let mut numbers = line.trim().split(':').skip(1).map(str::parse::<u32>);
        numbers.next()?.ok()?.checked_add(numbers.next()?.ok()?)
    });
    let first = ends
        .filter(|end| *end <= 0x7fff_0000)
        .fold(100_000, u32::max);
    (first, first + 0xffff)
}

/// The runs that the kernel will take together with the id `own`, in their order.
fn usable_ranges(found: &[(u32, u32)], own: u32, limits: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let within = |first: u32, len: u32| {
        let (first, end) = (u64::from(first), u64::from(first) + u64::from(len));
        limits.is_empty()
            || limits.iter().any(|&(start, count)| {
                first >= u64::from(start) && end <= u64::from(start) + u64::from(count)
            })
    };
    let mut usable: Vec<(u32, u32)> = Vec::new();
    let mut total = 1_u32;
    for &(first, len) in found {
        let Some(end) = first.checked_add(len) else {
            continue;
        };
        let overlaps = |start: u32, count: u32| first < start + count && start < end;
        let fits = len > 0
            && within(first, len)
            && !overlaps(own, 1)
            && !usable.iter().any(|&(start, count)| overlaps(start, count));
        // The kernel takes at most 340 lines of a map.
        if let (true, Some(sum), true) = (fits, total.checked_add(len), usable.len() < 339) {
            total = sum;
            usable.push((first, len));
        }
    }
    usable
}

/// Find newuidmap or newgidmap and check that it can do its work.
fn find_mapper(name: &str) -> Result<PathBuf, String> {
    let search = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&search).filter(|folder| folder.is_absolute());
    let usual = ["/usr/bin", "/usr/local/bin", "/bin", "/run/wrappers/bin"].map(PathBuf::from);
    let mut weak = None;
    for folder in folders.chain(usual) {
        let path = folder.join(name);
        let Ok(meta) = fs::metadata(&path) else {
            continue;
        };
        if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
            continue;
        }
        match privileged(&path, &meta) {
            Ok(()) => return Ok(path),
            Err(why) => weak = weak.or(Some(why)),
        }
    }
    Err(weak.unwrap_or_else(|| {
        format!(
            "{name} is not installed; install the package uidmap (Debian, Ubuntu) or shadow-utils"
        )
    }))
}

fn privileged(path: &Path, meta: &fs::Metadata) -> Result<(), String> {
    let shown = path.display();
    let set_uid = meta.permissions().mode() & 0o4000 != 0 && meta.uid() == 0;
    let mut value = [0_u8; 64];
    let capable = rustix::fs::getxattr(
        path,
        OsStr::from_bytes(b"security.capability"),
        &mut value[..],
    )
    .is_ok();
    if !set_uid && !capable {
        return Err(format!(
            "{shown} is neither set-user-id root nor has file capabilities; reinstall the package \
             uidmap (shadow-utils)"
        ));
    }
    let no_suid = rustix::fs::statvfs(path)
        .is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID));
    if no_suid {
        return Err(format!(
            "{shown} is on a file system mounted nosuid and cannot gain its privileges"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(sub: &[(u32, u32)]) -> IdMaps {
        let mut ranges = vec![IdRange {
            container: 0,
            host: 1000,
            len: 1,
        }];
        let mut next = 1;
        for &(host, len) in sub {
            ranges.push(IdRange {
                container: next,
                host,
                len,
            });
            next += len;
        }
        IdMaps {
            uid: ranges.clone(),
            gid: ranges,
            method: MapMethod::Newuidmap {
                newuidmap: "/u".into(),
                newgidmap: "/g".into(),
            },
            why_single: None,
        }
    }

    #[test]
    fn subids_by_name_and_number() {
        let text = "web:100000:65536\n1000:200000:10\nother:1:1\nweb:bad:1\nweb:1:1:1\n:5:5\n\
                    web:-1:5\n";
        assert_eq!(
            parse_subids(text, Some("web"), 1000),
            [(100_000, 65_536), (200_000, 10)]
        );
        assert_eq!(parse_subids(text, None, 7), []);
    }

    #[test]
    fn the_range_to_ask_for_is_nobodys() {
        let files = |uid: &str, gid: &str| free_range([Ok(uid.to_owned()), Ok(gid.to_owned())]);
        assert_eq!(files("", "x:y\nz"), (100_000, 165_535));
        assert_eq!(
            files(
                "a:100000:65536\nb:5:5\nc:1:4294967295\n",
                "a:200000:65536\n"
            ),
            (265_536, 331_071)
        );
    }

    #[test]
    fn unusable_ranges_are_left_out() {
        let found = [
            (900, 200),
            (0, 0),
            (5000, 10),
            (5005, 10),
            (u32::MAX - 1, 5),
            (6000, 10),
        ];
        assert_eq!(
            usable_ranges(&found, 1000, &[(0, u32::MAX)]),
            [(5000, 10), (6000, 10)]
        );
        assert_eq!(usable_ranges(&[(5000, 10)], 1000, &[(0, 5005)]), []);
    }

    #[test]
    fn ids_go_both_ways() {
        let maps = maps(&[(200_000, 65_536)]);
        assert_eq!(maps.to_host_uid(0), Some(1000));
        assert_eq!(maps.to_host_uid(33), Some(200_032));
        assert_eq!(maps.to_host_uid(65_536), Some(265_535));
        assert_eq!(maps.to_host_uid(65_537), None);
        assert_eq!(maps.to_container_gid(200_032), Some(33));
        assert_eq!(maps.to_container_gid(1001), None);
    }

    #[test]
    fn keys_are_short_and_tell_mappings_apart() {
        assert_eq!(IdMaps::single().key(), "s");
        assert_eq!(maps(&[(200_000, 65_536)]).key(), "200000-65536");
        assert_eq!(maps(&[(1, 2), (5, 6)]).key(), "1-2_5-6");
        let many: Vec<_> = (0..60).map(|n| (10_000 + n * 10, 2)).collect();
        assert_eq!(maps(&many).key().len(), 17);
    }

    #[test]
    fn detection_says_why() {
        let maps = IdMaps::detect();
        assert_eq!(maps.why_single.is_some(), maps.method == MapMethod::Single);
        assert!(!maps.uid.is_empty() && !maps.gid.is_empty());
    }
}
