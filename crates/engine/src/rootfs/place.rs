//! From an archive to files in a tree that others may be changing at the same time.
//!
//! Every name is resolved by the kernel beneath the tree's root, each directory anew: in a container links are followed
//! within its root; outside of one none is followed, since what the archive itself brought may be one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rcon_store::Removal;
use rcon_sys::owner::TrueOwner;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use super::notes::Notes;

/// Where and how files are written.
#[derive(Debug)]
pub(crate) struct Place {
    /// Nothing is written outside of this directory.
    pub root: OwnedFd,
    /// The directory in it that is written to.
    pub base: PathBuf,
    /// It is a container's.
    pub inside: bool,
    /// Whose the files are to be; `None` keeps what the archive says.
    pub owner: Option<(u32, u32)>,
    /// Where owners are noted that files cannot be given to.
    pub notes: Option<Notes>,
    /// Directories may take the place of files, and files that of directories.
    pub overwrite: bool,
}

impl Place {
    /// Unpacks `archive`. The first part of each name becomes `name`, or goes, where it is empty; `None` leaves names alone.
    pub(crate) fn unpack(&self, archive: impl Read, name: Option<&OsStr>) -> io::Result<()> {
        let mut archive = tar::Archive::new(archive);
        // Directories get their modes and times when all is in them.
        let mut dirs: Vec<(PathBuf, tar::Header)> = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let Some(path) = renamed(&relative(&entry.path()?)?, name) else {
                continue;
            };
            let header = entry.header().clone();
            match header.entry_type() {
                tar::EntryType::Directory => {
                    if self.make_dir(&path).map_err(|e| at(&path, e))? {
                        dirs.push((path, header));
                    }
                }
                tar::EntryType::Link => {
                    let target = entry.link_name()?.unwrap_or_default();
                    let target = renamed(&relative(&target)?, name);
                    let target = target.ok_or_else(|| bad(&path))?;
                    self.link(&path, &target).map_err(|e| at(&path, e))?;
                }
                _ => self
                    .make(&path, &header, &mut entry)
                    .map_err(|e| at(&path, e))?,
            }
        }
        for (path, header) in dirs.into_iter().rev() {
            let dir = self.dir(&path).map_err(|e| at(&path, e.into()))?;
            self.finish(&dir, &header).map_err(|e| at(&path, e))?;
        }
        Ok(())
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = match self.inside {
            true => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            false => {
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
            }
        };
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        loop {
            let flags = flags | OFlags::CLOEXEC;
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    fn dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.resolve(&self.base.join(path), OFlags::DIRECTORY | OFlags::RDONLY)
    }

    /// The directory a path is in, and the path's last name.
    fn parent<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or_else(|| bad(path))?;
        let above = path.parent().unwrap_or(Path::new(""));
        match self.dir(above) {
            // Archives need not name the directories that their files are in.
            Err(Errno::NOENT) if !above.as_os_str().is_empty() => {
                self.make_dir(above)?;
                Ok((self.dir(above)?, name))
            }
            other => Ok((other?, name)),
        }
    }

    /// Makes a directory; false when there is one.
    fn make_dir(&self, path: &Path) -> io::Result<bool> {
        if path.as_os_str().is_empty() {
            return Ok(false);
        }
        let (parent, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => {
                if self.dir(path).is_ok() {
                    return Ok(false);
                }
                if !self.overwrite {
                    return Err(Errno::EXIST.into());
                }
                rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn link(&self, path: &Path, target: &Path) -> io::Result<()> {
        let (from, old) = self.parent(target)?;
        let (to, name) = self.parent(path)?;
        self.clear(&to, name)?;
        Ok(rustix::fs::linkat(&from, old, &to, name, AtFlags::empty())?)
    }

    fn make(&self, path: &Path, header: &tar::Header, content: &mut impl Read) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let mode = Mode::from_raw_mode((header.mode()? & 0o777) as RawMode);
        match header.entry_type() {
            kind if kind.is_file() || kind == tar::EntryType::GNUSparse => {
                self.write(&parent, name, header, content)
            }
            tar::EntryType::Symlink => {
                let target = header.link_name_bytes().unwrap_or_default();
                let target: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&target);
                self.clear(&parent, name)?;
                rustix::fs::symlinkat(target, &parent, name)?;
                match self.owner_of(header) {
                    Some((uid, gid)) => self.chown_link(&parent, name, uid, gid),
                    None => Ok(()),
                }
            }
            tar::EntryType::Fifo => {
                self.clear(&parent, name)?;
                rustix::fs::mknodat(&parent, name, FileType::Fifo, mode, 0)?;
                match self.owner_of(header) {
                    Some((uid, gid)) => self.chown_link(&parent, name, uid, gid),
                    None => Ok(()),
                }
            }
            // Devices mean nothing elsewhere.
            _ => Ok(()),
        }
    }

    fn write(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        header: &tar::Header,
        content: &mut impl Read,
    ) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        let file = match self.clear(parent, name) {
            Ok(()) => rustix::fs::openat(parent, name, flags | OFlags::EXCL, private)?,
            // Something is mounted on it: it gets new content.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                rustix::fs::openat(parent, name, flags | OFlags::TRUNC, private)?
            }
            Err(error) => return Err(error),
        };
        let mut file = File::from(file);
        let mut block = vec![0; 128 * 1024];
        loop {
            match content.read(&mut block) {
                Ok(0) => break,
                Ok(count) => file.write_all(&block[..count])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.finish(&OwnedFd::from(file), header)
    }

    /// Takes away what is in the way of something that is no directory.
    fn clear(&self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) if self.overwrite => {
                remove_dir(parent, name).map_err(io::Error::from)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn owner_of(&self, header: &tar::Header) -> Option<(Uid, Gid)> {
        if !self.inside {
            return None;
        }
        let id = |id: io::Result<u64>| u32::try_from(id.ok()?).ok();
        let (uid, gid) = match self.owner {
            Some(owner) => owner,
            None => (id(header.uid())?, id(header.gid())?),
        };
        Some((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    fn chown_link(&self, at: &OwnedFd, name: &OsStr, uid: Uid, gid: Gid) -> io::Result<()> {
        if let Some(notes) = &self.notes {
            let owner = TrueOwner::new(uid.as_raw(), gid.as_raw());
            return notes.set_beside(at.as_fd(), name, owner);
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::chownat(at, name, Some(uid), Some(gid), flags) {
            // With one id there is one owner; and an id that is not mapped is nobody's.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Owner, mode, time; the mode after the owner, whose change clears the set-user-id bits.
    fn finish(&self, fd: &OwnedFd, header: &tar::Header) -> io::Result<()> {
        if let (Some((uid, gid)), Some(notes)) = (self.owner_of(header), &self.notes) {
            notes.set(fd.as_fd(), TrueOwner::new(uid.as_raw(), gid.as_raw()))?;
        } else if let Some((uid, gid)) = self.owner_of(header) {
            match rustix::fs::fchown(fd, Some(uid), Some(gid)) {
                Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Outside, nobody's program becomes the user's by being copied.
        let bits = if self.inside { 0o7777 } else { 0o1777 };
        rustix::fs::fchmod(fd, Mode::from_raw_mode((header.mode()? & bits) as RawMode))?;
        let time = Timespec {
            tv_sec: i64::try_from(header.mtime()?).unwrap_or_default(),
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        Ok(rustix::fs::futimens(fd, &times)?)
    }
}

/// Removes a directory with all that is in it, following no link.
fn remove_dir(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    match rcon_store::remove_at(parent.as_fd(), name) {
        Removal::Whole => Ok(()),
        // What is in the way says why.
        Removal::Partly => rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR),
    }
}

/// The path without what leads elsewhere: archives have no business with `..`.
fn relative(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(bad(path)),
        }
    }
    Ok(clean)
}

/// The path under its new name; `None` for what is nothing but the directory that is there.
fn renamed(path: &Path, name: Option<&OsStr>) -> Option<PathBuf> {
    let path = match name {
        None => path.to_path_buf(),
        Some(name) => {
            let mut parts = path.components();
            parts.next();
            let mut fresh = PathBuf::from(OsString::from(name));
            fresh.extend(parts);
            fresh
        }
    };
    (!path.as_os_str().is_empty()).then_some(path)
}

fn bad(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the archive has the name {}", path.display()),
    )
}

fn at(path: &Path, error: io::Error) -> io::Error {
    let text = rcon_sys::errors::in_words(&error);
    io::Error::new(error.kind(), format!("/{}: {text}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::pack::pack;
    use super::*;

    fn place(dir: &Path) -> Place {
        Place {
            root: File::open(dir).unwrap().into(),
            base: PathBuf::new(),
            inside: false,
            owner: None,
            notes: None,
            overwrite: false,
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_under_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("sub/file"), "text").unwrap();
        fs::hard_link(from.join("sub/file"), from.join("sub/twin")).unwrap();
        symlink("/etc", from.join("link")).unwrap();
        let mut archive = Vec::new();
        let source = File::open(&from).unwrap().into();
        pack(
            source,
            Path::new("top"),
            &|_, _, s| Some((s.st_uid, s.st_gid)),
            &mut archive,
        )
        .unwrap();
        place(&to)
            .unpack(archive.as_slice(), Some(OsStr::new("new")))
            .unwrap();
        assert_eq!(fs::read(to.join("new/sub/twin")).unwrap(), b"text");
        assert_eq!(
            fs::read_link(to.join("new/link")).unwrap(),
            Path::new("/etc")
        );
        // Without its first part, the content goes where we are.
        place(&to)
            .unpack(archive.as_slice(), Some(OsStr::new("")))
            .unwrap();
        assert_eq!(fs::read(to.join("sub/file")).unwrap(), b"text");
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let (to, out) = (dir.path().join("to"), dir.path().join("out"));
        fs::create_dir(&to).unwrap();
        fs::create_dir(&out).unwrap();
        let hostile = |entries: &[(&str, Option<&str>)]| {
            let mut archive = tar::Builder::new(Vec::new());
            for (name, link) in entries {
                let mut header = tar::Header::new_gnu();
                header.set_mode(0o644);
                header.set_size(0);
                header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
                if let Some(link) = link {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_link_name(link).unwrap();
                }
                header.set_cksum();
                archive.append(&header, io::empty()).unwrap();
            }
            archive.into_inner().unwrap()
        };
        let out_text = out.to_str().unwrap();
        for entries in [
            &[("link", Some(out_text)), ("link/x", None)][..],
            &[("link", Some("../out")), ("link/x", None)],
            &[("../out/x", None)],
            &[("a/../../out/x", None)],
        ] {
            let archive = hostile(entries);
            assert!(
                place(&to).unpack(archive.as_slice(), None).is_err(),
                "{entries:?}"
            );
            assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "{entries:?}");
        }
        let archive = hostile(&[("/abs", None)]);
        place(&to).unpack(archive.as_slice(), None).unwrap();
        assert!(to.join("abs").exists());
    }
}
