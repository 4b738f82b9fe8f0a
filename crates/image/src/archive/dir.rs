//! `dir:`: one image's files beside each other in a folder, as skopeo and `save --format docker-dir`
//! write them: the manifest, and each blob under the digits of its digest.

use super::files::Files;
use super::{ArchiveImage, ArchiveLayer};
use crate::manifest::{self, CONFIG_MAX, Config, Document};
use crate::registry::MANIFEST_MAX;
use crate::{Error, Result};
use rcon_store::Digest;

/// The manifest.
const MANIFEST: &str = "manifest.json";

/// The image, or `None` if it is not of this form.
pub(crate) fn read(files: &Files) -> Result<Option<ArchiveImage>> {
    let Some(bytes) = files.read(MANIFEST, MANIFEST_MAX)? else {
        return Ok(None);
    };
    let what = format!("{MANIFEST} in {}", files.name);
    let Document::Image(manifest) = manifest::parse(&bytes, "", &what)? else {
        return Err(Error::Unsupported(format!(
            "{what}: it is a list of manifests; copy one image of it into the folder"
        )));
    };
    let name = manifest.config.digest.hex();
    let config = files.read_blob(name, &manifest.config.digest, CONFIG_MAX)?;
    let parsed = Config::parse(&config, manifest.layers.len(), &what)?;
    let layers = manifest.layers.into_iter().zip(parsed.diff_ids());
    Ok(Some(ArchiveImage {
        manifest_digest: Digest::sha256(&bytes),
        manifest: bytes,
        media_type: manifest.media_type,
        config,
        layers: layers
            .map(|(blob, diff_id)| ArchiveLayer {
                file: blob.digest.hex().to_owned(),
                blob: Some(blob),
                diff_id: diff_id.clone(),
            })
            .collect(),
        names: Vec::from_iter(super::folder_name(&files.name)),
        label: None,
    }))
}
