//! Loading images from archives: docker-archive, oci-archive, OCI layout folders and `dir:`.

use crate::archive::files::Files;
use crate::archive::source::{self, Cancel, Opened};
use crate::archive::{dir, docker, oci, unpack};
use crate::policy::Policy;
use crate::{Error, Platform, Progress, Result, work};
use rcon_store::{ImageRecord, Store};
use std::path::{Path, PathBuf};

/// Where an archive or tarball comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Our standard input.
    Stdin,
    /// A file, or for [`load()`] a folder.
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
pub fn load(store: &Store, source: &Source, progress: &dyn Progress) -> Result<Vec<LoadedImage>> {
    load_with(store, source, None, progress)
}

/// The same under another signature policy than the usual one.
///
/// # Errors
/// As [`load()`].
pub fn load_with(
    store: &Store,
    source: &Source,
    policy: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Vec<LoadedImage>> {
    let policy = Policy::load(policy)?;
    let named = source::shown(source);
    let allowed = |kind: &str| policy.check_files(kind, Path::new(&named), None);
    let cancel = Cancel::default();
    work::threaded(&cancel, || {
        let files = open(store, source, &cancel)?;
        let images = match docker::read(&files) {
            // A folder that skopeo wrote as `dir:` has a manifest.json too, of another kind.
            Ok(Some(images)) if !files.is_folder() => {
                allowed("docker-archive")?;
                images
            }
            Err(e) if !files.is_folder() => return Err(e),
            _ => match oci::read(&files, &Platform::host())? {
                Some(images) => {
                    allowed(if files.is_folder() {
                        "oci"
                    } else {
                        "oci-archive"
                    })?;
                    images
                }
                None if files.is_folder() => {
                    allowed("dir")?;
                    let image = dir::read(&files)?;
                    vec![image.ok_or_else(|| unknown(&files))?]
                }
                None => return Err(unknown(&files)),
            },
        };
        if images.is_empty() {
            return Err(files.damaged("there is no image in it"));
        }
        images
            .into_iter()
            .map(|image| {
                let names = image.names.clone();
                let record = unpack::image(store, &files, image, progress)?;
                Ok(LoadedImage { record, names })
            })
            .collect()
    })
}

pub(crate) fn open(store: &Store, source: &Source, cancel: &Cancel) -> Result<Files> {
    let name = source::shown(source);
    match (source::open(source, cancel)?, source) {
        (Opened::Folder, Source::Path(path)) => Ok(Files::folder(path, cancel)),
        (Opened::Folder, _) => Err(Error::Unsupported(format!("{name} is a folder"))),
        (Opened::Regular(file), _) => Files::from_file(file, store, &name, cancel),
        (Opened::Stream(stream), _) => Files::from_stream(stream, store, &name, cancel),
    }
}

fn unknown(files: &Files) -> Error {
    files.damaged(if files.is_empty() {
        "payload does not match any of the supported image formats: there is nothing in it"
    } else {
        "payload does not match any of the supported image formats: it has neither manifest.json \
         (docker-archive) nor index.json (oci-archive, OCI layout)"
    })
}
