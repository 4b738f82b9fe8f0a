//! Images in files: docker-archive, oci-archive and OCI layout folders.
//!
//! | file | what |
//! |---|---|
//! | `source` | opening a file, standard input or a URL, so that it can be interrupted |
//! | `files` | an archive or folder as a set of named files, readable in any order |
//! | `docker`, `oci` | what each form says about its images |
//! | `unpack` | from files to layers and an image in the store |
//!
//! An archive that cannot be read in any order (a pipe, a compressed file) is first written out
//! to an unnamed file in the store: its table of contents may come last.

pub(crate) mod docker;
pub(crate) mod files;
pub(crate) mod oci;
pub(crate) mod source;
pub(crate) mod unpack;

use crate::manifest::Descriptor;
use rcon_store::Digest;

/// An image as an archive describes it.
pub(crate) struct ArchiveImage {
    pub manifest: Vec<u8>,
    pub manifest_digest: Digest,
    pub media_type: String,
    pub config: Vec<u8>,
    pub layers: Vec<ArchiveLayer>,
    /// Full names.
    pub names: Vec<String>,
}

/// One of its layers.
pub(crate) struct ArchiveLayer {
    /// The file that holds it.
    pub file: String,
    /// What the file should be; docker archives do not say, and have only the diff id.
    pub blob: Option<Descriptor>,
    pub diff_id: Digest,
}
