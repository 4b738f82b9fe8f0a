//! What can go wrong in a store, in words.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rcon_sys::errors::in_words;

use crate::digest::{Digest, DigestError};

/// The result of a store's function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{what}: {}", Why(.source))]
    Io {
        /// What was being done, with the path.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The file system is full, or the user's share of it.
    #[error("{what}: {}", Why(.source))]
    NoSpace {
        /// What was being done, with the path.
        what: String,
        /// The kernel's word for it: no space, or over quota.
        source: io::Error,
    },
    /// A digest is not well formed.
    #[error(transparent)]
    BadDigest(#[from] DigestError),
    /// Content does not have the digest it should have.
    #[error("{what} is corrupt: expected {expected}, received {actual}")]
    DigestMismatch {
        /// What the content is.
        what: String,
        /// The digest it was announced with.
        expected: Digest,
        /// The digest it has.
        actual: Digest,
    },
    /// Content does not have the length it should have.
    #[error("{what} is corrupt: expected {expected} bytes, received {actual}")]
    SizeMismatch {
        /// What the content is.
        what: String,
        /// The length it was announced with, in bytes.
        expected: u64,
        /// The length it has, in bytes.
        actual: u64,
    },
    /// A layer archive is damaged or asks for what no layer may do.
    #[error("cannot unpack layer: {entry}: {why}")]
    Archive {
        /// The entry, escaped for people.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something lies so deep that no path leads there, so nobody could make it of an archive.
    #[error(
        "cannot put /{0} into an archive: its path has more bytes than the 4095 that a path can have"
    )]
    LongPath(String),
    /// The stream of a layer ended in an error, for example of decompression.
    #[error("cannot read layer: {0}")]
    Stream(io::Error),
    /// A configuration or manifest is not what it should be.
    #[error("cannot parse {what}: {why}")]
    BadJson {
        /// The document.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file of the store cannot be understood.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store was written by a newer rcon.
    #[error("{path} has layout version {found}; this rcon knows version {known}")]
    Version {
        /// The store's directory.
        path: String,
        /// The version there.
        found: String,
        /// The version this program writes.
        known: u32,
    },
    /// What was named as a store of others is none.
    #[error("there is no store of rcon in {}", .0.display())]
    NoStore(PathBuf),
    /// An image is in a store that is only read.
    #[error("cannot remove read-only image {0:?}")]
    ReadOnlyImage(String),
    /// Where no overlay can be mounted, a tree to look at is kept with the image.
    #[error("read-only image {0} cannot be mounted where there is no overlay")]
    NoPlaceForTree(String),
    /// A layer is in a store that is only read, with owners that containers here do not have.
    #[error("layer {layer} of the read-only store {} has other owners than containers have here", .store.display())]
    OthersLayer {
        /// Its diff id.
        layer: Digest,
        /// The store.
        store: PathBuf,
    },
    /// A layer of a store that is only read cannot be read by this user.
    #[error("cannot read layer {layer} of the read-only store {}: {}", .store.display(), Why(.source))]
    Unreadable {
        /// Its diff id.
        layer: Digest,
        /// The store.
        store: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A layer of an image is not there (any more).
    #[error("layer {0} is not in the local store")]
    LayerMissing(Digest),
    /// A layer of an image was unpacked under another id map only, as happens when the subordinate
    /// ids of the user change or newuidmap goes.
    #[error("the image was unpacked for other user ids than containers have now")]
    OtherIds,
    /// No such image.
    #[error("{0}: image not known")]
    NoSuchImage(String),
    /// A container is made of the image.
    #[error("image used by {0}")]
    ImageInUse(String),
    /// The beginning of an id fits more than one image.
    #[error("{prefix}: {count} images have an id that begins with this")]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// How many images it fits.
        count: usize,
    },
    /// The archive of a layer cannot be made again, bit for bit.
    #[error("the archive of layer {layer} cannot be made again: {why}")]
    NotReproducible {
        /// Its diff id.
        layer: Digest,
        /// What is missing or has changed.
        why: String,
    },
    /// There is a snapshot with this name already.
    #[error("container storage {0} already exists")]
    SnapshotExists(String),
    /// A name that may not become a file name.
    #[error("{0:?} is not a valid name for container storage")]
    BadSnapshotName(String),
}

impl Error {
    /// What the user can do about it, where we know.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSpace { .. } => Some(
                "free some space (rcon rmi removes images, rcon rm containers), or give another \
                 place with --root"
                    .to_owned(),
            ),
            // The second of files that a server gives to somebody else as soon as they are made.
            Self::Io { source, .. }
                if matches!(source.raw_os_error(), Some(libc::EROFS | libc::EACCES)) =>
            {
                Some("give a place with --root that you may write to".to_owned())
            }
            Self::Io { source, .. } if source.raw_os_error() == Some(libc::ENOSYS) => {
                rcon_sys::floor::remedy()
            }
            Self::Io { source, .. } if source.raw_os_error() == Some(libc::EOPNOTSUPP) => Some(
                "this file system does not keep what images need; give a place on a local disk with --root"
                    .to_owned(),
            ),
            Self::NotReproducible { .. } => Some(
                "remove the image and pull or load it again; if its archive has a file twice, \
                 copy the image with another tool"
                    .to_owned(),
            ),
            Self::NoStore(root) => Some(format!(
                "fill it by `rcon --root {0} pull IMAGE`, or give another folder",
                root.display()
            )),
            Self::ReadOnlyImage(_) => Some(
                "it is in an additional image store: `rcon info` says which ones are read"
                    .to_owned(),
            ),
            Self::NoPlaceForTree(_) => {
                Some("give it a name of your own first, with `rcon tag`".to_owned())
            }
            Self::Unreadable { store, .. } => Some(format!(
                "its owner can let others read it: rcon unshare chmod -R a+rX {}",
                store.display()
            )),
            Self::LayerMissing(_) => Some("pull or load the image again".to_owned()),
            Self::OtherIds => Some(
                "pull, load or import the image again; `rcon info` says which ids are used, and why"
                    .to_owned(),
            ),
            Self::Ambiguous { .. } => Some("give more digits of the id".to_owned()),
            Self::Version { .. } => {
                Some("update rcon, or give another place with --root".to_owned())
            }
            _ => None,
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let (what, source) = (what.into(), source.into());
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace { what, source },
            _ => Self::Io { what, source },
        }
    }

    pub(crate) fn damaged(path: &Path, why: impl fmt::Display) -> Self {
        Self::Damaged {
            path: path.display().to_string(),
            why: why.to_string(),
        }
    }

    /// The error number of the system call that failed, if that is what happened.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::NoSpace { source, .. } | Self::Stream(source) => {
                source.raw_os_error()
            }
            _ => None,
        }
    }
}

/// An I/O error in words, without its number.
pub(crate) struct Why<'a>(pub &'a io::Error);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.raw_os_error() {
            // The list speaks of sockets here.
            Some(libc::EOPNOTSUPP) => f.write_str("the file system does not support it"),
            _ => f.write_str(&in_words(self.0)),
        }
    }
}

/// Adds what was being done to the result of a system call.
pub(crate) trait Context<T> {
    /// `what` says what was being done; it is only called on failure.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Error::io(what(), source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_words_and_no_numbers() {
        let error = Error::io("cannot make x", io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(error.to_string(), "cannot make x: permission denied");
        assert!(error.hint().is_some_and(|hint| hint.contains("--root")));
        let error = Error::io("cannot make x", io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(error.hint(), None);
    }

    #[test]
    fn full_disks_have_a_hint() {
        let error = Error::io("cannot write x", io::Error::from_raw_os_error(libc::ENOSPC));
        assert!(matches!(error, Error::NoSpace { .. }));
        assert!(error.hint().is_some_and(|hint| hint.contains("--root")));
    }
}
