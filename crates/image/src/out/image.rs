//! What there is of an image, and the manifest that it gets where it goes.

use super::Format;
use crate::manifest::{
    self, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, Descriptor, Document, Manifest, OCI_CONFIG,
    OCI_LAYER, OCI_MANIFEST,
};
use crate::{Error, Result};
use rcon_store::{Compression, Digest, ImageRecord, LayerHold, Store};
use serde_json::{Value, json};

/// An image that is held while it is sent.
pub(crate) struct Outgoing {
    pub record: ImageRecord,
    pub config: Vec<u8>,
    pub config_digest: Digest,
    /// Lowest first.
    pub holds: Vec<LayerHold>,
    original: Vec<u8>,
    /// The original manifest, if it can be read.
    parsed: Option<Manifest>,
}

/// A manifest to be sent.
pub(crate) struct NewManifest {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    pub media_type: String,
}

impl Outgoing {
    /// An image with that one of its manifests, or its own.
    pub fn open(store: &Store, record: ImageRecord, manifest: Option<&Digest>) -> Result<Outgoing> {
        let record = match manifest {
            Some(digest) => record.seen_by(digest),
            None => record,
        };
        let config = record.config()?;
        let holds = record
            .layers
            .iter()
            .map(|layer| {
                let hold = store.hold_layer_anywhere(layer)?;
                hold.ok_or_else(|| rcon_store::Error::LayerMissing(layer.clone()).into())
            })
            .collect::<Result<_>>()?;
        let original = record.manifest()?;
        Ok(Outgoing {
            config_digest: Digest::sha256(&config),
            config,
            holds,
            parsed: read(&original, &record),
            original,
            record,
        })
    }

    /// The family that its own manifest is of.
    pub fn format(&self) -> Format {
        match self.record.media_type.as_str() {
            DOCKER_MANIFEST => Format::Docker,
            _ => Format::Oci,
        }
    }

    /// What the image's own manifest says of a layer.
    pub fn known(&self, layer: usize) -> Option<&Descriptor> {
        self.parsed.as_ref()?.layers.get(layer)
    }

    /// The manifest of the image with these layers: its own, if that says the same.
    pub fn manifest(&self, format: Format, layers: &[Descriptor]) -> NewManifest {
        let (media_type, config_type) = match format {
            Format::Oci => (OCI_MANIFEST, OCI_CONFIG),
            Format::Docker => (DOCKER_MANIFEST, DOCKER_CONFIG),
        };
        let own = self.parsed.as_ref().filter(|own| {
            format == self.format()
                && own.config.digest == self.config_digest
                && own.layers.len() == layers.len()
                && own.layers.iter().zip(layers).all(|(a, b)| {
                    (&a.digest, &a.media_type, a.size) == (&b.digest, &b.media_type, b.size)
                })
        });
        let bytes = match own {
            Some(_) => self.original.clone(),
            None => {
                let size = self.config.len() as u64;
                let describe =
                    |l: &Descriptor| manifest::describe(&l.media_type, &l.digest, l.size);
                let mut document = json!({
                    "schemaVersion": 2,
                    "mediaType": media_type,
                    "config": manifest::describe(config_type, &self.config_digest, size),
                    "layers": layers.iter().map(describe).collect::<Vec<_>>(),
                });
                if format == Format::Oci
                    && let Some(annotations) = self.annotations()
                {
                    document["annotations"] = annotations;
                }
                manifest::write(&document)
            }
        };
        NewManifest {
            digest: match own {
                Some(_) => self.record.manifest_digest.clone(),
                None => Digest::sha256(&bytes),
            },
            bytes,
            media_type: media_type.to_owned(),
        }
    }

    /// Remarks on the image that its manifest has.
    fn annotations(&self) -> Option<Value> {
        let document: Value = serde_json::from_slice(&self.original).ok()?;
        let annotations = document.get("annotations")?.as_object()?;
        let all = annotations.values().all(Value::is_string) && !annotations.is_empty();
        all.then(|| Value::Object(annotations.clone()))
    }
}

/// The manifest of an image, as far as it can be relied upon: of images made here it may be no more
/// than a form.
pub(crate) fn read(bytes: &[u8], record: &ImageRecord) -> Option<Manifest> {
    match manifest::parse(bytes, &record.media_type, "manifest") {
        Ok(Document::Image(manifest)) if manifest.layers.len() == record.layers.len() => {
            Some(manifest)
        }
        _ => None,
    }
}

/// The media type of a layer.
///
/// # Errors
/// Docker's manifests know no zstd.
pub(crate) fn layer_type(format: Format, packing: Compression) -> Result<String> {
    Ok(match (format, packing) {
        (Format::Oci, Compression::None) => OCI_LAYER.to_owned(),
        (Format::Oci, Compression::Gzip) => format!("{OCI_LAYER}+gzip"),
        (Format::Oci, Compression::Zstd) => format!("{OCI_LAYER}+zstd"),
        (Format::Docker, Compression::None) => DOCKER_LAYER.to_owned(),
        (Format::Docker, Compression::Gzip) => format!("{DOCKER_LAYER}.gzip"),
        (Format::Docker, Compression::Zstd) => {
            return Err(Error::Unsupported(
                "layers compressed with zstd need an OCI manifest (--format oci)".to_owned(),
            ));
        }
    })
}

/// How a layer of this media type is packed; nothing for what we would not send.
pub(crate) fn packing_of(media_type: &str) -> Option<Compression> {
    if media_type.contains("foreign") || media_type.contains("nondistributable") {
        return None;
    }
    match media_type.rsplit(['.', '+']).next()? {
        "tar" => Some(Compression::None),
        "gzip" => Some(Compression::Gzip),
        "zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_there_and_back() {
        for format in [Format::Oci, Format::Docker] {
            for packing in [Compression::None, Compression::Gzip, Compression::Zstd] {
                match layer_type(format, packing) {
                    Ok(name) => assert_eq!(packing_of(&name), Some(packing), "{name}"),
                    Err(_) => assert_eq!((format, packing), (Format::Docker, Compression::Zstd)),
                }
            }
        }
        for strange in [
            "",
            "x",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ] {
            assert_eq!(packing_of(strange), None, "{strange}");
        }
    }
}
