//! Copying a directory of an image, as it is: owners, modes, times, links and the user's extended attributes. Runs as root
//! over the containers' ids. Paths of the image are resolved beneath its root (openat2(2)), so that no link in it leads out,
//! and below the directory that is copied no link is followed.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::error::{Context, Result};
use rcon_sys::folders::{self, Descent, names_in};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Stat, Timespec, Timestamps,
    Uid, XattrFlags,
};
use rustix::io::Errno;

/// Makes `target` a copy of the directory `path` in `tree`; an empty directory of `root`'s and false when there is none.
pub(super) fn copy_from(
    tree: &OwnedFd,
    path: &Path,
    target: &Path,
    root: (u32, u32),
) -> Result<bool> {
    fs::create_dir(target).on("create", target)?;
    let to = folders::open(CWD, target).on("open", target)?;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let from = match rustix::fs::openat2(tree, path, flags, Mode::empty(), inside) {
        Ok(from) => from,
        Err(Errno::NOENT | Errno::NOTDIR) => {
            let owner = (Uid::from_raw(root.0), Gid::from_raw(root.1));
            if root != (0, 0) {
                rustix::fs::fchown(&to, Some(owner.0), Some(owner.1)).on("change", target)?;
            }
            rustix::fs::fchmod(&to, Mode::from_raw_mode(0o755)).on("change", target)?;
            return Ok(false);
        }
        Err(error) => return Err(error).on("open", path),
    };
    copy_tree(from, to).context(|| format!("cannot copy {}", path.display()))?;
    Ok(true)
}

fn copy_tree(from: OwnedFd, to: OwnedFd) -> rustix::io::Result<()> {
    let mut levels = vec![names_in(&from)?.into_iter()];
    let (mut from, mut to) = (Descent::new(from), Descent::new(to));
    while let Some(names) = levels.last_mut() {
        let Some(name) = names.next() else {
            levels.pop();
            match (from.leave()?, to.leave()?) {
                (Some(original), Some(copy)) => finish(original.as_fd(), copy.as_fd())?,
                // Nothing is above the first.
                _ => finish(from.here(), to.here())?,
            }
            continue;
        };
        if let Some((inner, copy)) = copy_entry(from.here(), to.here(), &name)? {
            levels.push(names_in(&inner)?.into_iter());
            from.enter(inner)?;
            to.enter(copy)?;
        }
    }
    Ok(())
}

/// Copies what is no directory; of a directory nothing but the name, and gives both.
fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &OsStr,
) -> rustix::io::Result<Option<(OwnedFd, OwnedFd)>> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode as RawMode) {
        FileType::Directory => {
            let inner = folders::open(from, name)?;
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            return Ok(Some((inner, folders::open(to, name)?)));
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let copy = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
            copy_data(&source, &copy)?;
            take_after(copy.as_fd(), &stat)?;
            copy_xattrs(source.as_fd(), copy.as_fd())?;
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(link, to, name)?;
            let (user, group) = owner(&stat);
            rustix::fs::chownat(to, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        FileType::Fifo => {
            let mode = Mode::from_raw_mode(stat.st_mode as RawMode & 0o7777);
            rustix::fs::mknodat(to, name, FileType::Fifo, mode, 0)?;
        }
        // Devices and sockets mean nothing in a copy.
        _ => {}
    }
    Ok(None)
}

/// What a directory gets when all is in it.
fn finish(original: BorrowedFd<'_>, copy: BorrowedFd<'_>) -> rustix::io::Result<()> {
    copy_xattrs(original, copy)?;
    take_after(copy, &rustix::fs::fstat(original)?)
}

fn copy_data(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, 1 << 30) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            // Between these file systems bytes must be read and written.
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => break,
            Err(error) => return Err(error),
        }
    }
    let mut block = vec![0; 128 * 1024];
    loop {
        let count = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut block))?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = &block[..count];
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(to, rest))?;
            rest = &rest[written..];
        }
    }
}

fn owner(stat: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

/// Owner, mode and time of the original; the mode after the owner, whose change clears the set-user-id bits.
fn take_after(copy: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<()> {
    let (user, group) = owner(stat);
    // With one id there is one owner.
    match rustix::fs::fchown(copy, Some(user), Some(group)) {
        Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    rustix::fs::fchmod(copy, Mode::from_raw_mode(stat.st_mode as RawMode & 0o7777))?;
    let time = Timespec {
        tv_sec: stat.st_mtime as _,
        tv_nsec: stat.st_mtime_nsec as _,
    };
    rustix::fs::futimens(
        copy,
        &Timestamps {
            last_access: time,
            last_modification: time,
        },
    )
}

/// The attributes that belong to the user; overlay's own are no part of the file.
fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut names = vec![0; 64 * 1024];
    let length = match rustix::fs::flistxattr(from, &mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names[..length].split(|b| *b == 0) {
        if !name.starts_with(b"user.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0; 64 * 1024];
        let length = rustix::fs::fgetxattr(from, name, &mut value)?;
        match rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_copy_is_like_its_original() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("data/deep")).unwrap();
        fs::write(root.join("data/deep/file"), "text").unwrap();
        fs::set_permissions(
            root.join("data/deep/file"),
            fs::Permissions::from_mode(0o4711),
        )
        .unwrap();
        fs::set_permissions(root.join("data"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/etc/passwd", root.join("data/link")).unwrap();
        // A link in the image that leads out of it by name leads to the same name inside.
        symlink("/data", root.join("alias")).unwrap();
        let tree = OwnedFd::from(fs::File::open(&root).unwrap());
        let copy = dir.path().join("copy");
        copy_from(&tree, Path::new("/alias"), &copy, (0, 0)).unwrap();
        let meta = fs::metadata(copy.join("deep/file")).unwrap();
        assert_eq!((meta.len(), meta.mode() & 0o7777), (4, 0o4711));
        assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(
            meta.mtime_nsec(),
            fs::metadata(root.join("data/deep/file"))
                .unwrap()
                .mtime_nsec()
        );
        assert_eq!(
            fs::read_link(copy.join("link")).unwrap(),
            Path::new("/etc/passwd")
        );
        let empty = dir.path().join("empty");
        copy_from(&tree, Path::new("/nothing"), &empty, (0, 0)).unwrap();
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    }
}
