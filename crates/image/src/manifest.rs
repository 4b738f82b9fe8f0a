//! Manifests, indexes and configurations: what is read of them, and what is believed.
//!
//! Understood are the OCI image manifest and index and Docker's v2 schema 2 manifest and list.
//! Only the fields needed are read; the bytes are kept as they came. A document that could be read
//! as both a manifest and an index is refused (CVE-2021-41190).

use crate::{Error, Platform, Result};
use rcon_store::Digest;
use serde::Deserialize;
use std::collections::BTreeMap;

/// OCI image manifest.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image configuration.
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, not compressed.
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Docker image manifest, version 2, schema 2.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image configuration.
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer, not compressed.
pub(crate) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// What we ask registries for. Schema 1 is not in it.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.index.v1+json";

/// More layers than any overlay can be made of.
const LAYERS_MAX: usize = 500;
/// An index may point to an index, but not for ever.
pub(crate) const NESTING_MAX: usize = 4;
/// Largest configuration.
pub(crate) const CONFIG_MAX: u64 = 8 << 20;

/// A pointer to content.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What a document turned out to be.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    /// Several images.
    Index(Vec<Descriptor>),
    /// One image.
    Image(Manifest),
}

/// The manifest of one image.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub media_type: String,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// What a manifest or index holds, for those who only look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Summary {
    /// An index, with the digests of its manifests.
    Index(Vec<Digest>),
    /// An image: the digests of its configuration and of its layers.
    Image(Digest, Vec<Digest>),
}

/// Look into a document as it came from a registry or an archive.
///
/// # Errors
/// What is neither manifest nor index, or of a kind that is not supported.
pub fn summary(bytes: &[u8], content_type: &str) -> Result<Summary> {
    let digests = |all: Vec<Descriptor>| all.into_iter().map(|d| d.digest).collect();
    Ok(match parse(bytes, content_type, "document")? {
        Document::Index(entries) => Summary::Index(digests(entries)),
        Document::Image(image) => Summary::Image(image.config.digest, digests(image.layers)),
    })
}

/// Read a document. `content_type` is what the transport said it is; the document's own word
/// comes first, and its shape decides when neither says anything useful.
pub(crate) fn parse(bytes: &[u8], content_type: &str, what: &str) -> Result<Document> {
    let raw: Raw = serde_json::from_slice(bytes)
        .map_err(|e| Error::invalid(what, format!("malformed: {e}")))?;
    let known = |t: &&str| [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].contains(t);
    let said = raw.media_type.as_deref().filter(|t| !t.is_empty());
    if raw.schema_version == 1
        || raw.fs_layers.is_some()
        || content_type.contains("docker.distribution.manifest.v1+")
    {
        return Err(Error::Unsupported(format!(
            "{what}: this is a Docker schema 1 manifest, a form that is no longer supported: push \
             the image again with a current tool"
        )));
    }
    if raw.schema_version != 2 {
        return Err(Error::invalid(
            what,
            format!("schema version {} is unknown", raw.schema_version),
        ));
    }
    let is_index = raw.manifests.is_some();
    if is_index && (raw.layers.is_some() || raw.config.is_some()) {
        return Err(Error::invalid(
            what,
            "it is a manifest and an index at the same time",
        ));
    }
    let media_type = match said.filter(known).or(Some(content_type).filter(known)) {
        Some(t) => t,
        None if said.is_some() => {
            return Err(Error::Unsupported(format!(
                "{what}: unsupported manifest media type {:?}",
                said.unwrap_or_default()
            )));
        }
        None if is_index => OCI_INDEX,
        None => OCI_MANIFEST,
    };
    if is_index != matches!(media_type, OCI_INDEX | DOCKER_LIST) {
        return Err(Error::invalid(
            what,
            format!("it says it is {media_type}, but has other content"),
        ));
    }
    if let Some(manifests) = raw.manifests {
        return Ok(Document::Index(manifests));
    }
    let (Some(config), Some(layers)) = (raw.config, raw.layers) else {
        return Err(Error::invalid(
            what,
            "there is no config or no list of layers in it",
        ));
    };
    if !matches!(config.media_type.as_str(), "" | OCI_CONFIG | DOCKER_CONFIG) {
        return Err(Error::Unsupported(format!(
            "{what}: not a container image, but an artifact of type {}",
            config.media_type
        )));
    }
    if layers.len() > LAYERS_MAX {
        return Err(Error::invalid(
            what,
            format!(
                "{} layers are more than an image can have ({LAYERS_MAX})",
                layers.len()
            ),
        ));
    }
    for layer in &layers {
        let t = layer.media_type.as_str();
        if t.contains("+encrypted") {
            return Err(Error::Unsupported(format!(
                "{what}: layer {} is encrypted",
                layer.digest
            )));
        }
        if !(t.is_empty() || t.contains(".tar")) {
            return Err(Error::Unsupported(format!(
                "{what}: unsupported layer media type {t:?}"
            )));
        }
    }
    Ok(Document::Image(Manifest {
        media_type: media_type.to_owned(),
        config,
        layers,
    }))
}

/// Choose of an index: the best fit; among equals the first; an entry that does not tell its
/// platform only if nothing else fits.
pub(crate) fn choose<'a>(
    entries: &'a [Descriptor],
    wanted: &Platform,
    name: &str,
) -> Result<&'a Descriptor> {
    entries
        .iter()
        .filter(|e| {
            e.annotations
                .as_ref()
                .is_none_or(|a| !a.contains_key("vnd.docker.reference.type"))
        })
        .filter_map(|e| {
            let rank = match &e.platform {
                Some(platform) => wanted.rank(platform)?,
                None => u32::MAX,
            };
            Some((rank, e))
        })
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, e)| e)
        .ok_or_else(|| Error::NoPlatform {
            name: name.to_owned(),
            wanted: wanted.clone(),
            found: platforms(entries),
        })
}

fn platforms(entries: &[Descriptor]) -> Vec<Platform> {
    let mut found: Vec<Platform> = Vec::new();
    for platform in entries.iter().filter_map(|e| e.platform.as_ref()) {
        if platform.os != "unknown" && !found.contains(platform) {
            found.push(platform.clone());
        }
    }
    found
}

/// A descriptor to be written.
pub(crate) fn describe(media_type: &str, digest: &Digest, size: u64) -> serde_json::Value {
    serde_json::json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size })
}

/// A document of ours in bytes.
pub(crate) fn write(document: &serde_json::Value) -> Vec<u8> {
    document.to_string().into_bytes()
}

/// What we need of a configuration.
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    #[serde(flatten)]
    pub platform: Platform,
    rootfs: Option<RootFs>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

impl Config {
    /// Read it, and check that it tells of as many layers as the manifest.
    pub fn parse(bytes: &[u8], layers: usize, what: &str) -> Result<Config> {
        let config: Config = serde_json::from_slice(bytes)
            .map_err(|e| Error::invalid(what, format!("malformed configuration: {e}")))?;
        if config.diff_ids().len() != layers {
            return Err(Error::invalid(
                what,
                format!(
                    "the manifest has {layers} layers, the configuration {}",
                    config.diff_ids().len()
                ),
            ));
        }
        Ok(config)
    }

    /// The diff ids, lowest layer first.
    pub fn diff_ids(&self) -> &[Digest] {
        self.rootfs
            .as_ref()
            .map(|r| r.diff_ids.as_slice())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn read(json: &str, content_type: &str) -> Result<Document> {
        parse(json.replace("$D", D).as_bytes(), content_type, "reading it")
    }

    #[test]
    fn kinds() {
        let image = r#"{"schemaVersion":2,"config":{"digest":"$D","size":2},"layers":[]}"#;
        let Document::Image(m) = read(image, "text/plain").unwrap() else {
            panic!()
        };
        assert_eq!(m.media_type, OCI_MANIFEST);
        let Document::Image(m) = read(image, DOCKER_MANIFEST).unwrap() else {
            panic!()
        };
        assert_eq!(m.media_type, DOCKER_MANIFEST);
        assert!(read(image, OCI_MANIFEST).is_ok());
        let index = r#"{"schemaVersion":2,"manifests":[{"digest":"$D","size":2,"mediaType":"x"}]}"#;
        assert!(matches!(read(index, "").unwrap(), Document::Index(_)));
    }

    #[test]
    fn nonsense() {
        let msg = |j: &str, t: &str| read(j, t).unwrap_err().to_string();
        assert!(msg(r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, "").contains("same time"));
        assert!(msg(r#"{"schemaVersion":1,"fsLayers":[]}"#, "").contains("schema 1"));
        assert!(msg(r#"{"schemaVersion":2,"layers":[]}"#, "").contains("no config"));
        assert!(
            msg(r#"{"schemaVersion":2,"manifests":[]}"#, OCI_MANIFEST).contains("other content")
        );
        assert!(msg("[]", "").contains("malformed"));
        assert!(msg("", "").contains("malformed"));
        assert!(
            msg(
                r#"{"schemaVersion":2,"config":{"digest":"../../x","size":2},"layers":[]}"#,
                ""
            )
            .contains("malformed")
        );
        let chart = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"$D","size":2},"layers":[]}"#;
        assert!(msg(chart, "").contains("artifact"));
    }

    #[test]
    fn choosing() {
        let entry = |platform: Option<&str>| Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: D.parse().unwrap(),
            size: platform.map_or(0, |p| p.len() as u64),
            platform: platform.map(|p| Platform::parse(p).unwrap()),
            annotations: None,
        };
        let amd = Platform::parse("linux/amd64").unwrap();
        let all = [
            entry(None),
            entry(Some("linux/arm64")),
            entry(Some("linux/amd64")),
        ];
        assert_eq!(choose(&all, &amd, "x").unwrap().size, 11);
        assert_eq!(choose(&all[..2], &amd, "x").unwrap().size, 0);
        let err = choose(&all[1..2], &amd, "x").unwrap_err().to_string();
        assert!(err.contains("linux/amd64 (it has: linux/arm64)"), "{err}");
    }
}
