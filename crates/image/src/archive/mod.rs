//! Images in files: docker-archive, oci-archive and OCI layout folders.
//!
//! | file | what |
//! |---|---|
//! | `source` | opening a file or standard input, so that it can be interrupted |
//! | `files` | an archive or folder as a set of named files, readable in any order |
//! | `docker`, `oci`, `dir` | what each form says about its images |
//! | `unpack` | from files to layers and an image in the store |
//!
//! An archive that cannot be read in any order (a pipe, a compressed file) is first written out
//! to an unnamed file in the store: its table of contents may come last.

pub(crate) mod dir;
pub(crate) mod docker;
pub(crate) mod files;
pub(crate) mod oci;
pub(crate) mod source;
pub(crate) mod unpack;

use crate::manifest::Descriptor;
use crate::{Error, Reference, Result};
use files::Files;
use rcon_store::Digest;

/// What the images of an archive may say of themselves, all together, in bytes: it is in memory before the first is
/// unpacked, and a short list can name the same large file again and again.
const SAID_MAX: usize = 256 << 20;

/// An image as an archive describes it.
pub(crate) struct ArchiveImage {
    pub manifest: Vec<u8>,
    pub manifest_digest: Digest,
    pub media_type: String,
    pub config: Vec<u8>,
    pub layers: Vec<ArchiveLayer>,
    /// Full names.
    pub names: Vec<String>,
    /// What the archive itself calls it.
    pub label: Option<String>,
}

/// One of its layers.
pub(crate) struct ArchiveLayer {
    /// The file that holds it.
    pub file: String,
    /// What the file should be; docker archives do not say, and have only the diff id.
    pub blob: Option<Descriptor>,
    pub diff_id: Digest,
}

/// All images of an archive, each of which is read when it is asked for.
fn collect(
    files: &Files,
    images: impl IntoIterator<Item = Result<ArchiveImage>>,
) -> Result<Vec<ArchiveImage>> {
    let mut all = Vec::new();
    let mut said = 0;
    for image in images {
        let image = image?;
        said += image.manifest.len() + image.config.len();
        if said > SAID_MAX {
            return Err(Error::TooLarge {
                what: format!("what {} says of its images", files.name),
                limit: SAID_MAX as u64,
            });
        }
        all.push(image);
    }
    Ok(all)
}

/// podman names what it loads from a folder after the folder; where the path is no name, its last
/// part may be one.
pub(crate) fn folder_name(path: &str) -> Option<String> {
    let whole = path.trim_matches(['/', '.']).to_lowercase();
    let last = whole.rsplit('/').next()?;
    let name = [whole.as_str(), last].into_iter().find_map(|n| {
        let reference = Reference::parse_local(&format!("localhost/{n}"));
        reference.ok().filter(|r| r.tag() == Some("latest"))
    });
    Some(name?.to_string())
}
