//! Finding out which ids this user can give to containers.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;

use super::{IdError, IdMaps, IdRange, MapMethod};
use crate::{passwd, userns};

/// Whether this process may map any ids.
pub(super) fn is_root() -> bool {
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    rustix::process::geteuid().is_root()
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// The first ids inside and the lengths of this process's own map: what can be mapped further.
pub(super) fn read_map(path: &str) -> Vec<(u32, u32)> {
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

/// Every id as itself.
pub(super) fn identity(limits: &[(u32, u32)]) -> Vec<IdRange> {
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
pub(super) fn subordinate(
    uid_limits: &[(u32, u32)],
    gid_limits: &[(u32, u32)],
) -> Result<IdMaps, String> {
    let uid = rustix::process::getuid().as_raw();
    let euid = rustix::process::geteuid().as_raw();
    let egid = rustix::process::getegid().as_raw();
    let name = passwd::current_user_name();
    let who = name.clone().unwrap_or_else(|| uid.to_string());
    let remedy = || {
        let (first, last) = free();
        format!("as root: usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {who}")
    };
    let ranges = |file: &str, own: u32, limits: &[(u32, u32)]| {
        // Nobody has any where there is no such file, as in images of containers.
        let text = match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text.map_err(|_| format!("{file} cannot be read; {}", remedy()))?,
        };
        let text = String::from_utf8_lossy(&text);
        let found = parse_subids(&text, name.as_deref(), uid);
        if found.is_empty() {
            // What else is missing is told at once.
            let also = find_mapper("newuidmap").err().unwrap_or_default();
            let (also, first) = match also.split_once("; ") {
                Some((also, first)) => (format!(", and {also}"), format!("{first}, and then ")),
                None => (String::new(), String::new()),
            };
            return Err(format!(
                "{who} has no subordinate ids in {file}{also}; {first}{}",
                remedy()
            ));
        }
        let usable = usable_ranges(&found, own, limits);
        if usable.is_empty() && !usable_ranges(&found, own, &[]).is_empty() {
            return Err(format!(
                "the subordinate ids of {who} in {file} are not among those of the sandbox or \
                 container around (/proc/self/uid_map); run rcon outside of it"
            ));
        }
        if usable.is_empty() {
            return Err(format!(
                "none of the subordinate ids of {who} in {file} can be used: they overlap with \
                 the id {own} itself, or are none that the kernel knows; {}",
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
    let newuidmap = find_mapper("newuidmap")?;
    let newgidmap = find_mapper("newgidmap")?;
    if has(CapabilitySet::SETUID) && has(CapabilitySet::SETGID) {
        let doubtful = !has(CapabilitySet::SYS_ADMIN);
        let exact = format!(
            "as root: setcap cap_setuid=ep {} && setcap cap_setgid=ep {}",
            newuidmap.display(),
            newgidmap.display()
        );
        let maps = IdMaps {
            uid: uids,
            gid: gids,
            method: MapMethod::Newuidmap {
                newuidmap,
                newgidmap,
            },
            why_single: None,
            special: false,
        };
        // What newuidmap may do as root without it depends on how it was built.
        if doubtful && userns::run(&maps, |_| 0).is_err_and(|error| ids_refused(&error)) {
            return Err(format!(
                "newuidmap is set-user-id root, and root may do too little in the container \
                 around (no CAP_SYS_ADMIN); {exact}"
            ));
        }
        return Ok(maps);
    }
    Err(
        "newuidmap cannot work in the container around, whose root has no CAP_SETUID or no \
         CAP_SETGID; start that one with --cap-add SETUID --cap-add SETGID"
            .to_owned(),
    )
}

/// Whether processes here can gain a capability.
fn has(capability: CapabilitySet) -> bool {
    rustix::thread::capability_is_in_bounding_set(capability).unwrap_or(true)
}

/// Whether the programs that map ids said no, not the kernel to a namespace.
fn ids_refused(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<IdError>())
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

/// The first and last of 65536 ids that nobody has here.
pub fn free() -> (u32, u32) {
    free_range(["/etc/subuid", "/etc/subgid"].map(fs::read_to_string))
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
pub(super) fn find_mapper(name: &str) -> Result<PathBuf, String> {
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
        let both = ["newuidmap", "newgidmap"].map(|name| path.with_file_name(name));
        let [uids, gids] = both.each_ref().map(|path| path.display());
        return Err(format!(
            "{shown} is neither set-user-id root nor has file capabilities; as root: chown root \
             {uids} {gids} && chmod u+s {uids} {gids}"
        ));
    }
    let no_suid = rustix::fs::statvfs(path)
        .is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID));
    if no_suid {
        return Err(format!(
            "{shown} is on a file system mounted nosuid and cannot gain its privileges; as root: \
             mount -o remount,suid {}",
            mount_of(path).display()
        ));
    }
    Ok(())
}

/// Where the file system that a file is on is mounted.
fn mount_of(path: &Path) -> PathBuf {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let around = points
        .map(Path::new)
        .filter(|point| path.starts_with(point));
    let nearest = around.max_by_key(|point| point.components().count());
    nearest.unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// The manual has the remedy of each way in which the programs can be of no use.
    #[test]
    fn the_manual_has_the_remedies() {
        let manual = include_str!("../../../../docs/troubleshooting.md");
        let dir = tempfile::tempdir().unwrap();
        let weak = dir.path().join("newuidmap");
        fs::write(&weak, "").unwrap();
        let why = privileged(&weak, &fs::metadata(&weak).unwrap()).unwrap_err();
        let why = why.replace(dir.path().to_str().unwrap(), "/usr/bin");
        let remedy = why.split_once("; as root: ").map(|(_, remedy)| remedy);
        assert!(
            remedy.is_some_and(|remedy| manual.contains(remedy)),
            "{why}"
        );
        assert!(manual.contains("`mount -o remount,suid /usr`"));
        assert!(manual.contains("no_new_privs") && manual.contains("nosuid"));
        assert_eq!(mount_of(Path::new("/proc/self/status")), Path::new("/proc"));
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
}
