//! Whose files are where a container has a single id: everything belongs to its root, and the true owners are noted.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rcon_sys::owner::{self, FileKey, SideFile, TrueOwner};
use rustix::fs::{FileType, RawMode, Stat};
use rustix::io::Errno;

/// The notes of a container. To be used in a child that is root over its ids.
#[derive(Debug)]
pub(crate) struct Notes(RefCell<SideFile>);

impl Notes {
    /// Those with what files cannot keep themselves in the file `beside`.
    pub(crate) fn open(beside: &Path) -> io::Result<Self> {
        SideFile::open(beside).map(RefCell::new).map(Self)
    }

    /// Those of files that no container has for itself: what they cannot keep is not kept.
    pub(crate) fn on_files() -> Self {
        Self(RefCell::default())
    }

    /// Whose the file is that `at` is open on, or the one called `name` in that directory.
    pub(crate) fn of(&self, at: BorrowedFd<'_>, name: Option<&OsStr>, stat: &Stat) -> TrueOwner {
        let plain = TrueOwner::new(stat.st_uid, stat.st_gid);
        if !plain.is_root() {
            return plain;
        }
        let noted = match (FileType::from_raw_mode(stat.st_mode as RawMode), name) {
            (FileType::RegularFile | FileType::Directory, Some(name)) => owner::noted(at, name),
            (FileType::RegularFile | FileType::Directory, None) => owner::noted_on(at),
            _ => Ok(None),
        };
        if let Ok(Some(owner)) = noted {
            return owner;
        }
        let mut side = self.0.borrow_mut();
        if side.refresh().is_err() || side.is_empty() {
            return plain;
        }
        let key = FileKey::of(at, name.unwrap_or_default()).ok();
        key.and_then(|(_, key)| side.get(&key?)).unwrap_or(plain)
    }

    /// Note whose the file is that `file` is open on.
    pub(crate) fn set(&self, file: BorrowedFd<'_>, owner: TrueOwner) -> io::Result<()> {
        match owner::note_on(file, owner) {
            Err(Errno::NOTSUP) => self.set_beside(file, OsStr::new(""), owner),
            set => Ok(set?),
        }
    }

    /// Note whose the link or fifo is that is called `name` in the directory `at`.
    pub(crate) fn set_beside(
        &self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        owner: TrueOwner,
    ) -> io::Result<()> {
        let mut side = self.0.borrow_mut();
        match FileKey::of(at, name)?.1 {
            Some(key) if !owner.is_root() || side.get(&key).is_some() => {
                match side.set(key, owner) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
                    set => set,
                }
            }
            // Root's is what has no note; and where files have no time of birth none can be noted.
            _ => Ok(()),
        }
    }
}
