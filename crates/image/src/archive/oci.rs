//! OCI image layout (image-spec, image-layout.md): a folder, or a tar of it.

use super::files::Files;
use super::source::blob_file;
use super::{ArchiveImage, ArchiveLayer};
use crate::manifest::{self, CONFIG_MAX, Config, Descriptor, Document, NESTING_MAX};
use crate::registry::MANIFEST_MAX;
use crate::{Platform, Reference, Result};

/// The table of contents.
pub(crate) const CONTENTS: &str = "index.json";
/// Where a name may be, best first: containerd's is a full name.
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// All images, or `None` if it is not of this form.
pub(crate) fn read(files: &Files, wanted: &Platform) -> Result<Option<Vec<ArchiveImage>>> {
    let Some(contents) = files.read(CONTENTS, MANIFEST_MAX)? else {
        return Ok(None);
    };
    let what = format!("{CONTENTS} in {}", files.name);
    let Document::Index(entries) = manifest::parse(&contents, manifest::OCI_INDEX, &what)? else {
        return Err(files.damaged(format!("{CONTENTS} is no index")));
    };
    let mut chosen = Vec::new();
    for group in by_name(&entries) {
        // Several entries of one name that tell their platforms are one image for several.
        let group: Vec<Descriptor> = group.into_iter().cloned().collect();
        if group.len() > 1 && group.iter().all(|e| e.platform.is_some()) {
            chosen.push(manifest::choose(&group, wanted, &files.name)?.clone());
        } else {
            chosen.extend(group);
        }
    }
    let images = chosen.into_iter().map(|e| image(files, e, wanted));
    super::collect(files, images).map(Some)
}

fn name_of(entry: &Descriptor) -> Option<&str> {
    let annotations = entry.annotations.as_ref()?;
    NAMES
        .iter()
        .find_map(|n| annotations.get(*n))
        .map(String::as_str)
}

fn by_name(entries: &[Descriptor]) -> Vec<Vec<&Descriptor>> {
    let mut groups: Vec<Vec<&Descriptor>> = Vec::new();
    for entry in entries {
        match groups.iter_mut().find(|g| name_of(g[0]) == name_of(entry)) {
            Some(group) => group.push(entry),
            None => groups.push(vec![entry]),
        }
    }
    groups
}

fn image(files: &Files, mut entry: Descriptor, wanted: &Platform) -> Result<ArchiveImage> {
    let label = name_of(&entry).map(str::to_owned);
    let names = match name_of(&entry) {
        _ if files.is_folder() => Vec::from_iter(super::folder_name(&files.name)),
        Some(name) => vec![Reference::parse_local(name)?.to_string()],
        None => Vec::new(),
    };
    for _ in 0..NESTING_MAX {
        let bytes = blob(files, &entry, MANIFEST_MAX)?;
        let what = format!("manifest {} in {}", entry.digest, files.name);
        match manifest::parse(&bytes, &entry.media_type, &what)? {
            Document::Index(entries) => {
                entry = manifest::choose(&entries, wanted, &files.name)?.clone()
            }
            Document::Image(manifest) => {
                let config = blob(files, &manifest.config, CONFIG_MAX)?;
                let parsed = Config::parse(&config, manifest.layers.len(), &what)?;
                let layers = manifest.layers.into_iter().zip(parsed.diff_ids());
                return Ok(ArchiveImage {
                    manifest: bytes,
                    manifest_digest: entry.digest,
                    media_type: manifest.media_type,
                    config,
                    layers: layers
                        .map(|(blob, diff_id)| ArchiveLayer {
                            file: blob_file(&blob),
                            blob: Some(blob),
                            diff_id: diff_id.clone(),
                        })
                        .collect(),
                    names,
                    label,
                });
            }
        }
    }
    Err(files.damaged("its indexes lead from one to the next"))
}

/// A small blob, checked.
fn blob(files: &Files, blob: &Descriptor, limit: u64) -> Result<Vec<u8>> {
    files.read_blob(&blob_file(blob), &blob.digest, limit)
}
