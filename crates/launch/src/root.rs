//! Paths of a root filesystem that is not to be trusted.
//!
//! An image may have a symbolic link at every place where a runtime expects a folder. So every
//! path is resolved by the kernel as if the root filesystem were `/`, without magic links of proc
//! (openat2(2), `RESOLVE_IN_ROOT`), and used by the descriptor that came out. What is missing is
//! created one name at a time, on descriptors, following links by their text within the root.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, mknodat, openat, openat2, readlinkat,
};
use rustix::io::{Errno, Result};

/// The most symbolic links on one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// What a path is created as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A folder.
    Folder,
    /// An empty file.
    File,
}

/// The root folder of a container.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    /// The folder that `fd` is open on.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The folder itself.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Open `path` inside.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            // EAGAIN: somebody moved a folder while `..` was being looked at.
            match openat2(
                &self.0,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// A descriptor (`O_PATH`) of `path` inside.
    pub(crate) fn find(&self, path: &Path) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    /// As [`Root::find`]; what is missing is created, folders with mode 0755, the last name as
    /// `kind` says. A link to what does not exist is followed within the root.
    pub(crate) fn find_or_create(&self, path: &Path, kind: Kind) -> Result<OwnedFd> {
        match self.find(path) {
            Err(Errno::NOENT) => self.create(path, kind),
            other => other,
        }
    }

    fn create(&self, path: &Path, kind: Kind) -> Result<OwnedFd> {
        let folder = |at: BorrowedFd<'_>, name: &OsString| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(at, name, flags, Mode::empty())
        };
        let mut names = normal_names(path);
        // The folders on the way, from below the root to where we are.
        let mut way: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if name == ".." {
                way.pop();
                continue;
            }
            let here = way.last().map_or(self.0.as_fd(), AsFd::as_fd);
            let next = match folder(here, &name) {
                Err(Errno::NOENT) => {
                    if names.is_empty() && kind == Kind::File {
                        mknodat(here, &name, FileType::RegularFile, Mode::from(0o644), 0)?;
                    } else {
                        mkdirat(here, &name, Mode::from(0o755))?;
                    }
                    folder(here, &name)?
                }
                other => other?,
            };
            if FileType::from_raw_mode(fstat(&next)?.st_mode) == FileType::Symlink {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = readlinkat(&next, "", Vec::new())?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    way.clear();
                }
                let mut before = normal_names(&target);
                before.append(&mut names);
                names = before;
                continue;
            }
            way.push(next);
        }
        match way.pop() {
            Some(fd) => Ok(fd),
            None => self.find(Path::new("/")),
        }
    }

    /// Read a small text file inside, or `None` when there is none.
    ///
    /// What is not a regular file, or longer than `most` bytes, is refused with `EINVAL`: reading
    /// a pipe or a device that the image put there could take for ever.
    pub(crate) fn read(&self, path: &Path, most: u64) -> Result<Option<String>> {
        let file = match self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = fstat(&file)?;
        let null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        if null && stat.st_rdev == rustix::fs::makedev(1, 3) {
            // Hidden: covered by /dev/null.
            return Ok(None);
        }
        let len = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || len > most {
            return Err(Errno::INVAL);
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| Errno::INVAL)?];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::io::read(&file, &mut bytes[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

fn normal_names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// Whether the descriptor is of a folder.
pub(crate) fn is_folder(fd: impl AsFd) -> Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(
            folder.path(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .unwrap();
        (folder, Root::new(fd))
    }

    #[test]
    fn links_stay_inside() {
        let (folder, root) = root();
        symlink("/", folder.path().join("top")).unwrap();
        symlink("../../../../..", folder.path().join("up")).unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        fs::write(folder.path().join("etc/passwd"), "inside").unwrap();
        for path in ["top/etc/passwd", "/up/etc/passwd", "up/top/up/etc/passwd"] {
            let text = root.read(Path::new(path), 100).unwrap();
            assert_eq!(text.as_deref(), Some("inside"), "{path}");
        }
    }

    #[test]
    fn missing_parts_are_made_inside() {
        let (folder, root) = root();
        symlink("/run/deep/../stub", folder.path().join("resolv.conf")).unwrap();
        root.find_or_create(Path::new("/resolv.conf"), Kind::File)
            .unwrap();
        assert!(folder.path().join("run/stub").is_file());
        symlink(
            "../../../../../../../tmp/rcon-no",
            folder.path().join("out"),
        )
        .unwrap();
        root.find_or_create(Path::new("out/below"), Kind::Folder)
            .unwrap();
        assert!(folder.path().join("tmp/rcon-no/below").is_dir());
        root.find_or_create(Path::new("../../a/./b"), Kind::File)
            .unwrap();
        assert!(folder.path().join("a/b").is_file());
    }

    #[test]
    fn loops_and_pipes_are_refused() {
        let (folder, root) = root();
        symlink("two", folder.path().join("one")).unwrap();
        symlink("one", folder.path().join("two")).unwrap();
        assert_eq!(
            root.create(Path::new("one/x"), Kind::Folder).unwrap_err(),
            Errno::LOOP
        );
        mknodat(root.fd(), "pipe", FileType::Fifo, Mode::from(0o644), 0).unwrap();
        assert_eq!(root.read(Path::new("pipe"), 10), Err(Errno::INVAL));
        assert_eq!(root.read(Path::new("none"), 10), Ok(None));
        fs::write(folder.path().join("big"), "0123456789a").unwrap();
        assert_eq!(root.read(Path::new("big"), 10), Err(Errno::INVAL));
    }

    #[test]
    fn a_file_on_the_way_is_no_folder() {
        let (folder, root) = root();
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(
            root.find_or_create(Path::new("file/x"), Kind::Folder)
                .is_err()
        );
    }
}
