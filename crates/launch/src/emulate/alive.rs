//! Which of the notes beside are still of something.
//!
//! Nobody tells us when a file goes, and to be told would make every removal slower. So when there are many more notes than
//! there were, all that can be reached in the container is looked at. What a single search does not find may have been
//! moved from under it; so it takes two to drop a note ([`SideFile::compact`]).

use std::collections::HashSet;
use std::io;
use std::os::fd::BorrowedFd;

use rcon_sys::folders::{self, Descent, names_in};
use rcon_sys::owner::{FileKey, Marks, SideFile};
use rustix::fs::{AtFlags, FileType, StatxFlags, statx};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The notes of what is there.
    pub(super) marks: Marks,
    /// How many files were looked at.
    pub(super) files: u64,
}

/// The number of a file system, as status has it.
type Device = (u32, u32);

/// Look at all below `top`, the container's root, where this is mounted (mountinfo, proc_pid_mountinfo(5)), for files that
/// `side` has notes of; nothing if it is more than `most` files, or some of it was moved away meanwhile.
pub(super) fn search(
    top: BorrowedFd<'_>,
    mountinfo: &[u8],
    side: &SideFile,
    most: u64,
) -> io::Result<Option<Found>> {
    let mut found = Found::default();
    let top = folders::open(top, ".")?;
    let wanted = StatxFlags::INO | StatxFlags::BTIME | StatxFlags::TYPE;
    let root = statx(&top, "", AtFlags::EMPTY_PATH, wanted)?;
    let (mut passed_by, mut served) = passed_by(&String::from_utf8_lossy(mountinfo));
    served.remove(&of(&root));
    if !served.is_empty() {
        found.marks.keep_served();
    }
    passed_by.extend(served);
    let mut levels = vec![names_in(&top)?];
    let mut way = Descent::new(top);
    while let Some(names) = levels.last_mut() {
        let Some(name) = names.pop() else {
            levels.pop();
            if way.leave().is_err() {
                return Ok(None);
            }
            continue;
        };
        found.files += 1;
        if found.files > most {
            return Ok(None);
        }
        // Without asking anybody else: a process that serves files may be one of those that wait for us.
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        let Ok(stat) = statx(way.here(), &name, flags, wanted) else {
            continue;
        };
        if passed_by.contains(&of(&stat)) {
            continue;
        }
        let key = match FileKey::with_birth(&stat) {
            None if side.has_inode(stat.stx_ino) => {
                FileKey::of(way.here(), &name).ok().and_then(|(_, key)| key)
            }
            key => key,
        };
        if let Some(key) = key {
            side.mark(key, &mut found.marks);
        }
        if FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory
            && let Ok(inner) = folders::open(way.here(), &name)
            && let Ok(names) = names_in(&inner)
        {
            levels.push(names);
            way.enter(inner)?;
        }
    }
    Ok(Some(found))
}

fn of(stat: &rustix::fs::Statx) -> Device {
    (stat.stx_dev_major, stat.stx_dev_minor)
}

/// The file systems that are not looked at: of what is no file, and those
/// that a process answers for, which may be one of those that wait for us.
fn passed_by(mountinfo: &str) -> (HashSet<Device>, HashSet<Device>) {
    const NO_FILES: [&str; 9] = [
        "proc", "sysfs", "devpts", "cgroup", "cgroup2", "mqueue", "bpf", "debugfs", "tracefs",
    ];
    let (mut no_files, mut served) = (HashSet::new(), HashSet::new());
    for line in mountinfo.lines() {
        let device = line.split(' ').nth(2).and_then(|device| {
            let (major, minor) = device.split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        let kind = line
            .split_once(" - ")
            .and_then(|(_, rest)| rest.split(' ').next());
        match (device, kind) {
            (Some(device), Some(kind)) if NO_FILES.contains(&kind) => no_files.insert(device),
            (Some(device), Some(kind)) if kind.starts_with("fuse") => served.insert(device),
            _ => false,
        };
    }
    (no_files, served)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use rcon_sys::owner::TrueOwner;

    use super::*;

    #[test]
    fn file_systems_are_told_apart() {
        let (no_files, served) = passed_by(
            "22 1 0:41 / / rw,relatime - overlay overlay rw\n\
             23 22 0:42 / /proc rw shared:1 - proc proc rw\n\
             24 22 0:43 / /mnt rw master:2 propagate_from:1 - fuse.sshfs host: rw\nodd",
        );
        assert_eq!(no_files, HashSet::from([(0, 42)]));
        assert_eq!(served, HashSet::from([(0, 43)]));
    }

    #[test]
    fn only_what_is_there_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().join("top");
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        let mut side = SideFile::open(&temp.path().join("owners")).unwrap();
        let folder = folders::open(rustix::fs::CWD, top.join("a/b")).unwrap();
        let keys = ["here", "gone"].map(|name| {
            symlink("x", top.join("a/b").join(name)).unwrap();
            FileKey::of(&folder, name).unwrap().1
        });
        let [Some(here), Some(gone)] = keys else {
            return;
        };
        for key in [here, gone] {
            side.set(key, TrueOwner::new(5, 5)).unwrap();
        }
        std::fs::remove_file(top.join("a/b/gone")).unwrap();
        let all = folders::open(rustix::fs::CWD, &top).unwrap();
        assert!(search(all.as_fd(), b"", &side, 2).unwrap().is_none());
        for there in [1, 1] {
            let found = search(all.as_fd(), b"", &side, 100).unwrap().unwrap();
            assert_eq!(found.files, 3);
            assert_eq!(side.compact(&found.marks).unwrap(), there);
        }
        assert_eq!(side.get(&here), Some(TrueOwner::new(5, 5)));
        assert_eq!((side.get(&gone), side.len()), (None, 1));
    }
}
