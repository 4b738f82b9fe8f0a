//! Pushing an image to a registry, or to wherever else it is sent by name.

use crate::archive::source::Cancel;
use crate::manifest::Descriptor;
use crate::out::image::{self, Outgoing, layer_type, packing_of};
use crate::out::pack::{self, Packing};
use crate::out::write::Item;
use crate::out::{Destination, Format};
use crate::pull::{self, PullOptions};
use crate::reference::Reference;
use crate::registries::Registries;
use crate::registry::{Client, Mounted, Packed, Patience, Session};
use crate::{BlobKind, Error, Progress, PullEvent, Result, save, work};
use futures_util::{StreamExt, TryStreamExt};
use rcon_store::{Compression, Digest, ImageRecord, Store};
use std::sync::Arc;
use std::thread::Scope;
use tokio::sync::oneshot;

/// Layers made ready or sent at the same time.
const AT_ONCE: usize = 3;
/// Places that a layer is tried to be mounted from.
const MOUNTS: usize = 4;

/// How to push.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// How the registry is talked to, as for a pull. The platform is not looked at.
    pub registry: PullOptions,
    /// The family of the manifest; the image's own when `None`.
    pub format: Option<Format>,
    /// How layers are compressed. Compressed layers that the registry has are taken as they are
    /// when `None`.
    pub compression: Option<Compression>,
    /// The level of the compression.
    pub level: Option<i32>,
    /// The digest of the manifest that is sent, of those that the image came with; its own when `None`.
    pub manifest: Option<Digest>,
    /// Send blobs in pieces of that many bytes, instead of whole.
    pub piece: Option<u64>,
}

/// Push the image with this id; the digest of its manifest. Same conditions as [`crate::pull()`].
///
/// # Errors
/// See [`Error`]; what the registry said is in it.
pub fn push(
    store: &Store,
    id: &str,
    to: &Destination,
    opts: &PushOptions,
    patience: &Patience,
    progress: &dyn Progress,
) -> Result<Digest> {
    let record = store.image_by_id(id)?;
    let record = record.ok_or_else(|| rcon_store::Error::NoSuchImage(id.to_owned()))?;
    let image = Outgoing::open(store, record, opts.manifest.as_ref())?;
    let format = match (opts.format, opts.compression) {
        (Some(format), _) => format,
        (None, Some(Compression::Zstd)) => Format::Oci,
        (None, _) => image.format(),
    };
    let local = |image, compression, names: Vec<String>| {
        let packing = Packing::new(compression, opts.level)?;
        let items = [Item { image, names }];
        save::write(store, &items, to, packing, Some(format), progress)
    };
    let reference = match to {
        Destination::Registry(reference) => reference,
        Destination::DockerArchive(_, name) => {
            let names = name.iter().map(Reference::to_string).collect();
            return local(image, Compression::None, names);
        }
        Destination::Oci(_, name) | Destination::OciArchive(_, name) => {
            let compression = opts.compression.unwrap_or(Compression::Gzip);
            return local(image, compression, Vec::from_iter(name.clone()));
        }
        Destination::Dir(_) => {
            let compression = opts.compression.unwrap_or(Compression::None);
            return local(image, compression, Vec::new());
        }
    };
    let packing = Packing::new(opts.compression.unwrap_or(Compression::Gzip), opts.level)?;
    // Said before anything is sent.
    layer_type(format, packing.compression)?;
    let candidates = candidates(store, &image, reference);
    let mut from: Vec<String> = candidates
        .iter()
        .flatten()
        .filter_map(|c| c.from.clone())
        .collect();
    from.sort();
    from.dedup();
    let registries = Registries::load()?;
    // Mirrors are for reading; the registry itself comes last.
    let endpoint = registries
        .endpoints(reference)?
        .pop()
        .ok_or(Error::Interrupted)?;
    let there = &endpoint.reference;
    let cancel = Cancel::default();
    let pushed = std::thread::scope(|scope| {
        let done = work::run(async {
            let settings = pull::settings(&endpoint, &opts.registry, patience, progress)?;
            let client = Client::connect_to_push(
                there.registry(),
                there.repository(),
                &from,
                &settings,
                progress,
            )
            .await?;
            let push = Push {
                scope,
                store,
                image: &image,
                there,
                client: &client,
                opts,
                packing,
                format,
                cancel: &cancel,
                progress,
            };
            push.all(&candidates).await
        });
        cancel.set();
        done
    });
    pushed.map_err(|e| match e {
        Error::Interrupted | Error::Store(_) | Error::Blocked(_) | Error::ConfigFile { .. } => e,
        e => Error::Target {
            destination: format!("docker://{reference}"),
            error: Box::new(e),
        },
    })
}

/// A blob that has what a layer has, and a repository that may have it.
#[derive(Clone, Debug)]
struct Candidate {
    blob: Descriptor,
    packing: Compression,
    /// Another repository of the same registry.
    from: Option<String>,
}

/// For each layer the blobs that it is known to be in, and where these may be: of the image itself, and of
/// other images here that share it.
fn candidates(store: &Store, image: &Outgoing, to: &Reference) -> Vec<Vec<Candidate>> {
    let mut all = vec![Vec::new(); image.record.layers.len()];
    let mut records = vec![image.record.clone()];
    // Without them it only takes longer.
    let others = store.images().unwrap_or_default().into_iter();
    records.extend(others.filter(|r| r.id != image.record.id));
    for record in &records {
        if !record
            .layers
            .iter()
            .any(|l| image.record.layers.contains(l))
        {
            continue;
        }
        let Some(manifest) = record.manifest().ok().and_then(|m| image::read(&m, record)) else {
            continue;
        };
        let from = repositories(record, to);
        for (blob, diff_id) in manifest.layers.iter().zip(&record.layers) {
            let Some(packing) = packing_of(&blob.media_type) else {
                continue;
            };
            let same = image.record.layers.iter().enumerate();
            for (at, _) in same.filter(|(_, l)| *l == diff_id) {
                if !is_sure(image, at, blob, packing) {
                    continue;
                }
                let known: &mut Vec<Candidate> = &mut all[at];
                let of = |from: Option<&String>| Candidate {
                    blob: blob.clone(),
                    packing,
                    from: from.cloned(),
                };
                if from.is_empty() && !known.iter().any(|c| c.blob.digest == blob.digest) {
                    known.push(of(None));
                }
                for from in &from {
                    let new = !known
                        .iter()
                        .any(|c| c.blob.digest == blob.digest && c.from.as_ref() == Some(from));
                    if new && known.len() < MOUNTS {
                        known.push(of(Some(from)));
                    }
                }
            }
        }
    }
    all
}

/// Whether the blob that an image names for a layer is the one that this image names, or the layer as it is. Anything else
/// need not be true: of a layer that was here already nobody looks at the blob when an image is pulled.
fn is_sure(image: &Outgoing, at: usize, blob: &Descriptor, packing: Compression) -> bool {
    let meta = image.holds[at].meta();
    let plain =
        packing == Compression::None && (&blob.digest, blob.size) == (&meta.diff_id, meta.size);
    plain
        || image.known(at).is_some_and(|own| {
            (&own.digest, own.size, packing_of(&own.media_type))
                == (&blob.digest, blob.size, Some(packing))
        })
}

/// Other repositories of the registry, where the image came from or has gone to.
fn repositories(record: &ImageRecord, to: &Reference) -> Vec<String> {
    let mut found = Vec::new();
    for name in record.repo_digests.iter().chain(&record.names) {
        let Ok(name) = Reference::parse(name) else {
            continue;
        };
        let repository = name.repository().to_owned();
        if name.registry() == to.registry()
            && repository != to.repository()
            && !found.contains(&repository)
        {
            found.push(repository);
        }
    }
    found
}

struct Push<'a, 'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    store: &'env Store,
    image: &'env Outgoing,
    there: &'a Reference,
    client: &'a Client<'a>,
    opts: &'a PushOptions,
    packing: Packing,
    format: Format,
    cancel: &'env Cancel,
    progress: &'env dyn Progress,
}

impl Push<'_, '_, '_> {
    async fn all(&self, candidates: &[Vec<Candidate>]) -> Result<Digest> {
        self.progress.event(PullEvent::Manifest {
            layers: candidates.len(),
            bytes: 0,
        });
        let layers: Vec<Descriptor> = futures_util::stream::iter(candidates.iter().enumerate())
            .map(|(at, known)| async move {
                self.layer(at, known).await.map_err(|e| match e {
                    Error::Interrupted => e,
                    e => Error::Layer {
                        digest: self.image.record.layers[at].clone(),
                        error: Box::new(e),
                    },
                })
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        self.config().await?;
        let manifest = self.image.manifest(self.format, &layers);
        self.progress.event(PullEvent::Writing);
        if let Some(wanted) = self.there.digest()
            && *wanted != manifest.digest
        {
            return Err(Error::DigestMismatch {
                what: format!("uploading the manifest to {}", self.there.name()),
                expected: wanted.clone(),
                actual: manifest.digest,
            });
        }
        self.client
            .put_manifest(self.there, &manifest.media_type, manifest.bytes)
            .await?;
        Ok(manifest.digest)
    }

    fn described(&self, packing: Compression, digest: &Digest, size: u64) -> Result<Descriptor> {
        Ok(Descriptor {
            media_type: layer_type(self.format, packing)?,
            digest: digest.clone(),
            size,
            platform: None,
            annotations: None,
        })
    }

    async fn layer(&self, at: usize, known: &[Candidate]) -> Result<Descriptor> {
        let mut session = None;
        let fits = |c: &&Candidate| match self.opts.compression {
            Some(wanted) => c.packing == wanted,
            None => c.packing != Compression::None && layer_type(self.format, c.packing).is_ok(),
        };
        let mut asked: Vec<&Digest> = Vec::new();
        for candidate in known.iter().filter(fits) {
            let Descriptor { digest, size, .. } = &candidate.blob;
            if !asked.contains(&digest) {
                asked.push(digest);
                if self.exists(digest, *size).await? {
                    return self.described(candidate.packing, digest, *size);
                }
            }
            if let Some(from) = &candidate.from {
                let to = self.there.repository();
                match self.client.mount(to, digest, from).await? {
                    Mounted::Done => {
                        self.there_already(digest, *size);
                        return self.described(candidate.packing, digest, *size);
                    }
                    Mounted::Session(open) => session = Some(open),
                    Mounted::No => {}
                }
            }
        }
        let meta = self.image.holds[at].meta();
        self.start(&meta.diff_id, BlobKind::Layer, meta.size);
        let packed = self.pack(at).await?;
        if asked.contains(&&packed.digest) || !self.has(&packed.digest).await? {
            self.send(&packed, session).await?;
        }
        self.done(&meta.diff_id, BlobKind::Layer);
        self.described(self.packing.compression, &packed.digest, packed.size)
    }

    /// Make the layer's blob on a thread.
    async fn pack(&self, at: usize) -> Result<Packed> {
        let (tell, told) = oneshot::channel();
        let (store, image, packing) = (self.store, self.image, self.packing);
        let (cancel, progress) = (self.cancel, self.progress);
        work::spawn(self.scope, "pack", move || {
            let packed = pack::layer(store, &image.holds[at], packing, cancel, progress);
            // Nobody to tell: the push was interrupted.
            let _ = tell.send(packed);
        })?;
        told.await.unwrap_or_else(|_| {
            Err(Error::invalid(
                format!("layer {}", image.record.layers[at]),
                "the thread that packed it broke down",
            ))
        })
    }

    async fn config(&self) -> Result<()> {
        let image = self.image;
        let digest = &image.config_digest;
        let size = image.config.len() as u64;
        self.start(digest, BlobKind::Config, size);
        if !self.has(digest).await? {
            let dir = self.store.root().join("tmp");
            let file = tempfile::tempfile_in(&dir).map_err(Error::io("making a file in", &dir))?;
            std::io::Write::write_all(&mut &file, &image.config)
                .map_err(Error::io("writing to a file in", &dir))?;
            let packed = Packed {
                file: Arc::new(file),
                digest: digest.clone(),
                size,
                shown: (digest.clone(), size),
            };
            self.send(&packed, None).await?;
        }
        self.done(digest, BlobKind::Config);
        Ok(())
    }

    async fn has(&self, digest: &Digest) -> Result<bool> {
        self.client.has_blob(self.there.repository(), digest).await
    }

    /// Is it there? Then that is told.
    async fn exists(&self, digest: &Digest, size: u64) -> Result<bool> {
        let there = self.has(digest).await?;
        if there {
            self.there_already(digest, size);
        }
        Ok(there)
    }

    async fn send(&self, packed: &Packed, session: Option<Session>) -> Result<()> {
        let to = self.there.repository();
        self.client
            .upload(to, packed, session, self.opts.piece)
            .await
    }

    fn there_already(&self, digest: &Digest, size: u64) {
        self.progress.event(PullEvent::Exists {
            digest: digest.clone(),
            size: Some(size),
        });
    }

    fn start(&self, digest: &Digest, kind: BlobKind, size: u64) {
        self.progress.event(PullEvent::Start {
            digest: digest.clone(),
            kind,
            size: Some(size),
        });
    }

    fn done(&self, digest: &Digest, kind: BlobKind) {
        self.progress.event(PullEvent::Done {
            digest: digest.clone(),
            kind,
        });
    }
}
