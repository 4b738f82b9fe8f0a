//! docker-archive: what `docker save` and `podman save` write.
//!
//! `manifest.json` lists images; each names its configuration and its layers by the files that
//! hold them. There is no manifest in the sense of a registry: one is made up, of the
//! uncompressed layers.

use super::files::Files;
use super::{ArchiveImage, ArchiveLayer};
use crate::manifest::{self, CONFIG_MAX, Config, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST};
use crate::registry::MANIFEST_MAX;
use crate::{Reference, Result};
use rcon_store::Digest;
use serde::Deserialize;
use serde_json::json;

/// The table of contents.
pub(crate) const CONTENTS: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// All images, or `None` if it is not of this form.
pub(crate) fn read(files: &Files) -> Result<Option<Vec<ArchiveImage>>> {
    let Some(contents) = files.read(CONTENTS, MANIFEST_MAX)? else {
        return Ok(None);
    };
    let items: Vec<Item> = serde_json::from_slice(&contents)
        .map_err(|e| files.damaged(format!("{CONTENTS} is malformed: {e}")))?;
    super::collect(files, items.iter().map(|item| image(files, item))).map(Some)
}

fn image(files: &Files, item: &Item) -> Result<ArchiveImage> {
    let missing = |path: &str| files.damaged(format!("{path} is missing"));
    let config = files
        .read(&item.config, CONFIG_MAX)?
        .ok_or_else(|| missing(&item.config))?;
    let parsed = Config::parse(&config, item.layers.len(), &item.config)?;
    let mut layers = Vec::new();
    let mut descriptors = Vec::new();
    for (path, diff_id) in item.layers.iter().zip(parsed.diff_ids()) {
        let (_, size) = files.open(path)?.ok_or_else(|| missing(path))?;
        descriptors.push(manifest::describe(DOCKER_LAYER, diff_id, size));
        layers.push(ArchiveLayer {
            file: path.clone(),
            blob: None,
            diff_id: diff_id.clone(),
        });
    }
    let config_digest = Digest::sha256(&config);
    let manifest = manifest::write(&json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": manifest::describe(DOCKER_CONFIG, &config_digest, config.len() as u64),
        "layers": descriptors,
    }));
    let names = item.repo_tags.iter().flatten();
    Ok(ArchiveImage {
        manifest_digest: Digest::sha256(&manifest),
        manifest,
        media_type: DOCKER_MANIFEST.to_owned(),
        config,
        layers,
        // Old archives have `<none>:<none>` for images without a name.
        names: names
            .filter(|n| !n.starts_with("<none>"))
            .map(|n| Ok(Reference::parse_archived(n)?.to_string()))
            .collect::<Result<_>>()?,
        label: None,
    })
}
