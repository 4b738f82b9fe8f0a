//! From an archive to a tree: what a layer may write, and how.
//!
//! Layers come from strangers. The rules, each in a file of its own:
//!
//! | file | rule |
//! |---|---|
//! | `pipe` | two threads, a few buffers between: reading and hashing here, writing there |
//! | `archive`, `header`, `pax`, `sparse` | one way to read an archive, the one of Go's archive/tar, which all other engines use: two readings of one archive are how files get smuggled |
//! | `name` | names are relative, whatever they look like, and `..` never leads out |
//! | `tree` | directories are resolved by openat2(2) inside the layer; the last part of a name is never followed |
//! | `place` | what each kind of entry becomes; what is in its way goes |
//! | `whiteout` | deletions of lower layers in overlay's own form |
//! | `recipe` | what it takes to make the archive again is noted |
//! | `attributes` | owners, modes, times and the extended attributes that an image may set |
//!
//! Memory is bounded, however large the archive and each thing in it is.

mod archive;
mod attributes;
mod beside;
mod header;
mod name;
mod pax;
mod pipe;
mod place;
pub(crate) mod recipe;
mod sparse;
mod tree;
mod whiteout;

pub(crate) use attributes::is_allowed;
pub(crate) use beside::BESIDE;
pub(crate) use whiteout::{OPAQUE, OPAQUE_XATTR, PREFIX, WHITEOUT_XATTR, hide};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::os::fd::BorrowedFd;

use rcon_sys::shift::Shift;

use crate::digest::{Algorithm, Digest};
use crate::error::{Context, Error, Result};

/// How a tree is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    /// There is only one id: true owners go into an extended attribute.
    pub(crate) single: bool,
    /// What cannot take that attribute has its owner in a list beside the tree.
    pub(crate) beside: bool,
    /// The ids of the archive are other ones here.
    pub(crate) shift: Option<Shift>,
}

impl Policy {
    /// The owner of what belongs to root.
    fn root(&self) -> (rustix::fs::Uid, rustix::fs::Gid) {
        let root = self.shift.as_ref().and_then(|shift| shift.root().ok());
        let (uid, gid) = root.unwrap_or((0, 0));
        (
            rustix::fs::Uid::from_raw(uid),
            rustix::fs::Gid::from_raw(gid),
        )
    }
}

/// What unpacking an archive came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the whole archive.
    pub diff_id: Digest,
    /// Bytes of the archive.
    pub size: u64,
    /// Bytes of the content of its files.
    pub content: u64,
    /// Entries that became something.
    pub files: u64,
    /// Entries left out: device nodes, which nobody but root may make, and marks of aufs.
    pub skipped: u64,
    /// Files that belong to an id that is not mapped. They belong to 0 now, their true owner is
    /// in the extended attribute `user.rootlesscontainers`.
    pub squashed: u64,
    /// Mode of the root directory, if the archive has an entry for it.
    pub root_mode: Option<u32>,
    /// Whether the archive can be made again from the tree and the recipe.
    pub recorded: bool,
    /// Whether something in the archive was replaced by what came later in it.
    pub replaced: bool,
}

/// Unpack the archive `tar` into the directory `root`, which belongs to this call alone. What `tar`
/// has besides the content of files goes to `recorder`.
pub(crate) fn unpack(
    tar: impl Read,
    root: BorrowedFd<'_>,
    policy: Policy,
    algorithm: Algorithm,
    recorder: Option<recipe::Recorder>,
) -> Result<Unpacked> {
    let (read, written) = pipe::run(tar, algorithm, |chunks| {
        if let Some(shift) = &policy.shift {
            let what = || "cannot write as the root of the container";
            shift.write_as_root().context(what)?;
        }
        let own_umask = attributes::own_umask();
        let mut archive = archive::Archive::new(chunks, recorder);
        let counts = place::all(&mut archive, root, policy, own_umask)?;
        Ok::<_, Error>((counts, archive.finish()?))
    })
    .map_err(|error| Error::io("cannot start a thread", error))?;
    // Where the stream failed the writer only saw it end too early.
    let (diff_id, size) = read.map_err(Error::Stream)?;
    let (counts, recorded) = written?;
    Ok(Unpacked {
        diff_id,
        size,
        content: counts.content,
        files: counts.files,
        skipped: counts.skipped,
        squashed: counts.squashed,
        root_mode: counts.root_mode,
        recorded,
        replaced: counts.replaced,
    })
}

/// Bytes of an archive as people can read them.
fn shown(name: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(name).chars().take(300).collect();
    text.escape_debug().to_string()
}

/// An archive that is wrong at this entry.
fn bad(entry: &[u8], why: impl Into<String>) -> Error {
    Error::Archive {
        entry: shown(entry),
        why: why.into(),
    }
}
