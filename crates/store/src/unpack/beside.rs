//! True owners that cannot be noted on what they own: links, fifos, and everything where a file system keeps no
//! extended attributes. They go into a list beside the tree ([`rcon_sys::owner::SideFile`]).

use std::os::fd::{AsFd, BorrowedFd};

use rcon_sys::owner::{FileKey, SideFile, TrueOwner};
use rustix::fs::{Mode, OFlags};

use super::archive::Entry;
use crate::error::{Error, Result};

/// Its name, in the directory that the root of the tree is in.
pub(crate) const BESIDE: &str = "owners";

/// The list of one tree, made when it is needed.
pub(super) struct Beside<'a> {
    root: BorrowedFd<'a>,
    list: Option<SideFile>,
}

impl<'a> Beside<'a> {
    /// That of the tree whose root this is.
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, list: None }
    }

    /// Note the owner of `name` in the directory `at`, or of `at` itself when `name` is empty.
    pub(super) fn note(&mut self, at: impl AsFd, name: &[u8], entry: &Entry) -> Result<()> {
        let failed = |error: std::io::Error| {
            Error::io(
                format!("cannot note the true owner of {}", entry.shown()),
                error,
            )
        };
        let key = FileKey::of(at, name).map_err(|error| failed(error.into()))?;
        let Some(key) = key.1 else { return Ok(()) };
        let list = match &mut self.list {
            Some(list) => list,
            none => {
                let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
                let path = format!("../{BESIDE}");
                let file = rustix::fs::openat(self.root, path, flags, Mode::RUSR | Mode::WUSR);
                let file = file.map_err(|error| failed(error.into()))?;
                none.insert(SideFile::from_file(file.into()).map_err(failed)?)
            }
        };
        let id = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let owner = TrueOwner::new(id(entry.uid), id(entry.gid));
        list.set(key, owner).map_err(failed)
    }
}
