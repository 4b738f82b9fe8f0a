//! Filling a fresh file system with what it is about to cover (the option `tmpcopyup`).
//!
//! Everything is opened relative to descriptors and without following links, so the copy cannot
//! leave the folder it was asked for. Devices and sockets stay behind.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rcon_sys::folders::{self, Descent, names_in};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, chownat, fchmod, futimens,
    mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::mounts::readable;

/// Copy what is in the folder `from` into the folder `to`, and its owner and times to it; its mode
/// too, but for a folder that was given one of its own.
pub(crate) fn fill(from: &OwnedFd, to: impl AsFd, own_mode: bool) -> io::Result<()> {
    let from = readable(from)?;
    let mut stat = rustix::fs::fstat(&from)?;
    if own_mode {
        stat.st_mode = rustix::fs::fstat(&to)?.st_mode;
    }
    let to = folders::open(&to, ".")?;
    // What is in each folder on the way down, and what the copy of that folder gets in the end.
    let mut levels = vec![(names_in(&from)?, stat)];
    let (mut from, mut to) = (Descent::new(from), Descent::new(to));
    while let Some((names, stat)) = levels.last_mut() {
        let Some(name) = names.pop() else {
            from.leave()?;
            match to.leave()? {
                Some(copy) => finish(&copy, stat)?,
                None => finish(to.here(), stat)?,
            }
            levels.pop();
            continue;
        };
        if let Some((inner, copy, stat)) = copy_entry(from.here(), to.here(), &name)? {
            levels.push((names_in(&inner)?, stat));
            from.enter(inner)?;
            to.enter(copy)?;
        }
    }
    Ok(())
}

/// Copy what is no folder; of a folder nothing but the name, and give both, with the status of the original.
fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &OsStr,
) -> io::Result<Option<(OwnedFd, OwnedFd, Stat)>> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    let open = |at: BorrowedFd<'_>, flags: OFlags| {
        openat(
            at,
            name,
            flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::from(0o600),
        )
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, Mode::from(0o700))?;
            let copy = folders::open(to, name)?;
            return Ok(Some((folders::open(from, name)?, copy, stat)));
        }
        FileType::RegularFile => {
            let mut source = File::from(open(from, OFlags::RDONLY | OFlags::NONBLOCK)?);
            let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let mut copy = File::from(open(to, create)?);
            io::copy(&mut source, &mut copy)?;
            finish(copy, &stat)?;
        }
        FileType::Symlink => {
            let target = readlinkat(from, name, Vec::new())?;
            symlinkat(target, to, name)?;
            own(chownat(
                to,
                name,
                uid(&stat),
                gid(&stat),
                AtFlags::SYMLINK_NOFOLLOW,
            ))?;
        }
        FileType::Fifo => {
            mknodat(to, name, FileType::Fifo, mode, 0)?;
            own(chownat(
                to,
                name,
                uid(&stat),
                gid(&stat),
                AtFlags::SYMLINK_NOFOLLOW,
            ))?;
        }
        _ => {}
    }
    Ok(None)
}

/// Give the copy the owner, mode and times of the original, in the order in which they last.
fn finish(copy: impl AsFd, stat: &Stat) -> io::Result<()> {
    own(rustix::fs::fchown(&copy, uid(stat), gid(stat)))?;
    fchmod(&copy, Mode::from_raw_mode(stat.st_mode))?;
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(futimens(&copy, &times)?)
}

/// Owners that have no id in this namespace cannot be given; the copy stays ours then.
fn own(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn uid(stat: &Stat) -> Option<Uid> {
    Some(Uid::from_raw(stat.st_uid))
}

fn gid(stat: &Stat) -> Option<Gid> {
    Some(Gid::from_raw(stat.st_gid))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn everything_but_devices_is_copied() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let deep = from.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "text").unwrap();
        fs::set_permissions(deep.join("file"), fs::Permissions::from_mode(0o751)).unwrap();
        symlink("/nowhere", from.path().join("link")).unwrap();
        let path_only =
            |path| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        fill(&path_only(from.path()), path_only(to.path()), false).unwrap();
        let copy = to.path().join("a/b/file");
        assert_eq!(fs::read_to_string(&copy).unwrap(), "text");
        assert_eq!(
            fs::metadata(&copy).unwrap().permissions().mode() & 0o7777,
            0o751
        );
        assert_eq!(
            fs::metadata(&copy).unwrap().modified().unwrap(),
            fs::metadata(deep.join("file")).unwrap().modified().unwrap()
        );
        assert_eq!(
            fs::read_link(to.path().join("link")).unwrap().to_str(),
            Some("/nowhere")
        );
    }
}
