//! docker-archive, OCI layout and `dir:`: the files that make up images in them.

use super::image::{Outgoing, layer_type, packing_of};
use super::pack::{self, Packing};
use super::place::{Archive, Content, Folder, Place, put_bytes, writing};
use super::{Destination, Format};
use crate::archive::source::Cancel;
use crate::manifest::{self, Descriptor, OCI_INDEX};
use crate::registry::Packed;
use crate::{BlobKind, Error, Progress, PullEvent, Result};
use rcon_store::{Compression, Digest, Store};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::FileExt;

/// What marks an OCI layout, and what is in it (image-spec, image-layout.md).
const LAYOUT: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
/// What marks a folder of `dir:`.
const VERSION: (&str, &str) = ("version", "Directory Transport Version: 1.1\n");
const INDEX: &str = "index.json";
const MANIFEST: &str = "manifest.json";
/// An image's name in an OCI layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image and the names that it has where it goes.
pub(crate) struct Item {
    pub image: Outgoing,
    pub names: Vec<String>,
}

/// How images become files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    DockerArchive,
    Oci,
    Dir,
}

impl Layout {
    fn blob(self, digest: &Digest) -> String {
        match self {
            Layout::DockerArchive => format!("{}.tar", digest.hex()),
            Layout::Oci => format!("blobs/{}", digest.to_string().replace(':', "/")),
            Layout::Dir => digest.hex().to_owned(),
        }
    }

    fn config(self, digest: &Digest) -> String {
        match self {
            Layout::DockerArchive => format!("{}.json", digest.hex()),
            _ => self.blob(digest),
        }
    }
}

/// What images are written with.
pub(crate) struct Writer<'a> {
    pub store: &'a Store,
    pub packing: Packing,
    /// The images' own if `None`.
    pub format: Option<Format>,
    pub cancel: &'a Cancel,
    pub progress: &'a dyn Progress,
}

impl Writer<'_> {
    /// Write all of it; the digest of the last manifest.
    pub fn write(&self, items: &[Item], to: &Destination) -> Result<Digest> {
        let mut index = Vec::new();
        let (layout, mut place): (_, Box<dyn Place>) = match to {
            Destination::DockerArchive(output, _) => {
                let archive = Archive::create(output, self.cancel)?;
                (Layout::DockerArchive, Box::new(archive))
            }
            Destination::OciArchive(output, _) => {
                (Layout::Oci, Box::new(Archive::create(output, self.cancel)?))
            }
            Destination::Oci(path, _) => {
                let folder = Folder::create(path, LAYOUT.0, self.cancel)?;
                index = others(&folder, items)?;
                (Layout::Oci, Box::new(folder))
            }
            Destination::Dir(path) => {
                let folder = Folder::create(path, VERSION.0, self.cancel)?;
                (Layout::Dir, Box::new(folder))
            }
            Destination::Registry(_) => {
                return Err(Error::Unsupported("a registry is no file".to_owned()));
            }
        };
        let mut contents = Vec::new();
        let mut last = None;
        for item in items {
            let format = match layout {
                Layout::DockerArchive => Format::Docker,
                Layout::Oci => Format::Oci,
                Layout::Dir => self.format.unwrap_or_else(|| item.image.format()),
            };
            let image = &item.image;
            let layers = (0..image.holds.len())
                .map(|at| self.layer(image, at, layout, format, &mut *place))
                .collect::<Result<Vec<_>>>()?;
            self.config(image, layout, &mut *place)?;
            let manifest = image.manifest(format, &layers);
            match layout {
                Layout::DockerArchive => contents.push(json!({
                    "Config": layout.config(&image.config_digest),
                    "RepoTags": item.names,
                    "Layers": layers.iter().map(|l| layout.blob(&l.digest)).collect::<Vec<_>>(),
                })),
                Layout::Oci => {
                    put_bytes(&mut *place, &layout.blob(&manifest.digest), &manifest.bytes)?;
                    let size = manifest.bytes.len() as u64;
                    let entry = manifest::describe(&manifest.media_type, &manifest.digest, size);
                    index.extend(entries(&entry, &item.names));
                }
                Layout::Dir => put_bytes(&mut *place, MANIFEST, &manifest.bytes)?,
            }
            last = Some(manifest.digest);
        }
        self.progress.event(PullEvent::Writing);
        match layout {
            Layout::DockerArchive => {
                put_bytes(&mut *place, MANIFEST, &manifest::write(&json!(contents)))?;
            }
            Layout::Oci => {
                let index = json!({
                    "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index,
                });
                put_bytes(&mut *place, LAYOUT.0, LAYOUT.1.as_bytes())?;
                put_bytes(&mut *place, INDEX, &manifest::write(&index))?;
            }
            Layout::Dir => put_bytes(&mut *place, VERSION.0, VERSION.1.as_bytes())?,
        }
        place.finish()?;
        last.ok_or_else(|| Error::Unsupported("there is no image to write".to_owned()))
    }

    fn layer(
        &self,
        image: &Outgoing,
        at: usize,
        layout: Layout,
        format: Format,
        place: &mut dyn Place,
    ) -> Result<Descriptor> {
        let hold = &image.holds[at];
        let meta = hold.meta();
        let plain = self.packing.compression == Compression::None;
        let media_type = layer_type(format, self.packing.compression)?;
        let described = |digest: &Digest, size| Descriptor {
            media_type: media_type.clone(),
            digest: digest.clone(),
            size,
            platform: None,
            annotations: None,
        };
        let exists = |digest: &Digest, size| {
            self.progress.event(PullEvent::Exists {
                digest: digest.clone(),
                size: Some(size),
            });
            Ok(described(digest, size))
        };
        let known = match image.known(at) {
            _ if plain => Some((&meta.diff_id, meta.size)),
            Some(known) if packing_of(&known.media_type) == Some(self.packing.compression) => {
                Some((&known.digest, known.size))
            }
            _ => None,
        };
        if let Some((digest, size)) = known
            && place.has(&layout.blob(digest), size)
        {
            return exists(digest, size);
        }
        self.progress.event(PullEvent::Start {
            digest: meta.diff_id.clone(),
            kind: BlobKind::Layer,
            size: Some(meta.size),
        });
        let shown = place.shown();
        let (digest, size) = if plain {
            let mut content = |out: &mut dyn Write| match hold.write_archive(out) {
                Err(rcon_store::Error::Stream(e)) => Err(writing(&shown, e)),
                other => Ok(other.map(drop)?),
            };
            place.put(&layout.blob(&meta.diff_id), meta.size, &mut content)?;
            (meta.diff_id.clone(), meta.size)
        } else {
            let packed = pack::layer(self.store, hold, self.packing, self.cancel, self.progress)?;
            let name = layout.blob(&packed.digest);
            if !place.has(&name, packed.size) {
                place.put(&name, packed.size, &mut copy(&packed, &shown))?;
            }
            (packed.digest.clone(), packed.size)
        };
        self.done(&meta.diff_id, BlobKind::Layer);
        Ok(described(&digest, size))
    }

    fn config(&self, image: &Outgoing, layout: Layout, place: &mut dyn Place) -> Result<()> {
        let digest = &image.config_digest;
        let name = layout.config(digest);
        let size = image.config.len() as u64;
        self.progress.event(PullEvent::Start {
            digest: digest.clone(),
            kind: BlobKind::Config,
            size: Some(size),
        });
        if !place.has(&name, size) {
            put_bytes(place, &name, &image.config)?;
        }
        self.done(digest, BlobKind::Config);
        Ok(())
    }

    fn done(&self, digest: &Digest, kind: BlobKind) {
        self.progress.event(PullEvent::Done {
            digest: digest.clone(),
            kind,
        });
    }
}

/// The content of a file with a compressed layer.
fn copy<'a>(packed: &'a Packed, shown: &'a str) -> Box<Content<'a>> {
    Box::new(move |out| {
        let mut buffer = vec![0; 128 * 1024];
        let mut at = 0;
        while at < packed.size {
            let want = (packed.size - at).min(buffer.len() as u64) as usize;
            let piece = &mut buffer[..want];
            packed
                .file
                .read_exact_at(piece, at)
                .and_then(|()| out.write_all(piece))
                .map_err(|e| writing(shown, e))?;
            at += want as u64;
        }
        Ok(())
    })
}

/// What the index says of an image: once for each of its names.
fn entries(entry: &Value, names: &[String]) -> Vec<Value> {
    if names.is_empty() {
        return vec![entry.clone()];
    }
    let named = |name: &String| {
        let mut entry = entry.clone();
        entry["annotations"] = json!({ REF_NAME: name });
        entry
    };
    names.iter().map(named).collect()
}

/// What the index of a folder says of other images than these.
fn others(folder: &Folder, items: &[Item]) -> Result<Vec<Value>> {
    let Some(bytes) = folder.read(INDEX)? else {
        return Ok(Vec::new());
    };
    let index: Value = serde_json::from_slice(&bytes).map_err(|e| {
        Error::invalid(
            format!("{INDEX} in {}", folder.shown()),
            format!("malformed: {e}"),
        )
    })?;
    let mut all = index["manifests"].as_array().cloned().unwrap_or_default();
    all.retain(|entry| {
        let name = entry["annotations"][REF_NAME].as_str();
        !items.iter().any(|item| match name {
            Some(name) => item.names.iter().any(|n| n == name),
            None => item.names.is_empty(),
        })
    });
    Ok(all)
}
