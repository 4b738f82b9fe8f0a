//! x
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use std::io::Read;
use std::os::fd::BorrowedFd;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) single: bool,
}

/// What unpacking an archive came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the archive.
    pub diff_id: Digest,
    /// Bytes of the archive.
    pub size: u64,
    /// Bytes of the content of its files.
    pub content: u64,
    /// Entries that became something.
    pub files: u64,
    /// Entries left out: device nodes, and marks of aufs.
    pub skipped: u64,
    /// Mode of the root directory, if the archive has an entry for it.
    pub root_mode: Option<u32>,
}
pub(crate) fn unpack(
    _tar: impl Read,
    _root: BorrowedFd<'_>,
    policy: Policy,
    _algorithm: Algorithm,
) -> Result<Unpacked> {
    Err(Error::Archive {
        entry: format!("{}", policy.single),
        why: "soon".into(),
    })
}
