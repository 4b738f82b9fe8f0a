//! From the files of an archive to layers and an image in the store.

use super::files::Files;
use super::{ArchiveImage, ArchiveLayer};
use crate::{BlobKind, Error, Progress, PullEvent, Result};
use rcon_store::{Digest, ImageRecord, LayerHold, NewImage, Store, VerifyingReader};
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_millis(40);
/// Layers unpacked at the same time; each has a thread of its own that writes.
const AT_ONCE: usize = 4;

/// Unpack what is missing and put the image into the store.
pub(crate) fn image(
    store: &Store,
    files: &Files,
    image: ArchiveImage,
    progress: &dyn Progress,
) -> Result<ImageRecord> {
    let mut holds = Vec::new();
    let mut missing: Vec<&ArchiveLayer> = Vec::new();
    for layer in &image.layers {
        if missing.iter().any(|m| m.diff_id == layer.diff_id) {
            continue;
        }
        match store.hold_layer(&layer.diff_id)? {
            Some(hold) => {
                holds.push(hold);
                progress.event(PullEvent::Exists {
                    digest: shown(layer).clone(),
                    size: layer.blob.as_ref().map(|b| b.size),
                });
            }
            None => missing.push(layer),
        }
    }
    holds.extend(layers(store, files, &missing, progress)?);
    let size = image.config.len() as u64;
    progress.at_once(&Digest::sha256(&image.config), BlobKind::Config, size);
    progress.event(PullEvent::Writing);
    Ok(store.put_image(NewImage {
        manifest: image.manifest,
        manifest_digest: image.manifest_digest,
        media_type: image.media_type,
        config: image.config,
        layers: image.layers.into_iter().map(|l| l.diff_id).collect(),
        names: image.names,
        repo_digests: Vec::new(),
    })?)
}

fn shown(layer: &ArchiveLayer) -> &Digest {
    layer.blob.as_ref().map_or(&layer.diff_id, |b| &b.digest)
}

/// Several at once, as many as there is use for.
fn layers(
    store: &Store,
    files: &Files,
    missing: &[&ArchiveLayer],
    progress: &dyn Progress,
) -> Result<Vec<LayerHold>> {
    let queue = Mutex::new(missing.iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<Vec<LayerHold>> {
        let mut holds = Vec::new();
        while let Some(layer) = next() {
            let hold = one(store, files, layer, progress).map_err(|e| Error::Layer {
                digest: shown(layer).clone(),
                error: Box::new(e),
            });
            if hold.is_err() {
                // No use for the others.
                while next().is_some() {}
            }
            holds.push(hold?);
        }
        Ok(holds)
    };
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..missing.len().min(AT_ONCE) {
            match crate::work::spawn(scope, "layer", work) {
                Ok(thread) => threads.push(thread),
                Err(error) if threads.is_empty() => return Err(error),
                // Those that there are do all of it.
                Err(_) => break,
            }
        }
        let mut holds = Vec::new();
        let mut failed = None;
        for thread in threads {
            match thread.join() {
                Ok(Ok(done)) => holds.extend(done),
                Ok(Err(e)) => failed = Some(e),
                Err(_) => failed = Some(files.damaged("a thread that unpacked it broke down")),
            }
        }
        failed.map_or(Ok(holds), Err)
    })
}

fn one(
    store: &Store,
    files: &Files,
    layer: &ArchiveLayer,
    progress: &dyn Progress,
) -> Result<LayerHold> {
    let (reader, size) = files
        .open(&layer.file)?
        .ok_or_else(|| files.damaged(format!("{} is missing", layer.file)))?;
    let digest = shown(layer).clone();
    let kind = BlobKind::Layer;
    progress.event(PullEvent::Start {
        digest: digest.clone(),
        kind,
        size: Some(size),
    });
    let telling = Telling::new(reader, &digest, progress);
    let hold = match &layer.blob {
        Some(blob) => {
            let checked = VerifyingReader::new(telling, blob.digest.clone(), Some(blob.size));
            stream(store, checked, Some(&layer.diff_id))?
        }
        None => stream(store, telling, Some(&layer.diff_id))?,
    };
    progress.event(PullEvent::Done { digest, kind });
    Ok(hold)
}

/// A layer from a stream, whole and checked. Without an expected digest any is right.
pub(crate) fn stream(
    store: &Store,
    source: impl Read,
    expected: Option<&Digest>,
) -> Result<LayerHold> {
    let stream_error = rcon_store::Error::Stream;
    let mut stage = match expected {
        Some(digest) => store.stage_layer_with(digest.algorithm())?,
        None => store.stage_layer()?,
    };
    let mut tar = rcon_store::decompress(source).map_err(stream_error)?;
    let unpacked = stage.unpack(&mut tar)?;
    tar.into_source().map_err(stream_error)?;
    Ok(stage.commit(expected.unwrap_or(&unpacked.diff_id))?)
}

/// A layer from an archive of our own making, which is not compressed, however the first name in it looks.
pub(crate) fn plain(store: &Store, tar: impl Read) -> Result<LayerHold> {
    let mut stage = store.stage_layer()?;
    let unpacked = stage.unpack(tar)?;
    Ok(stage.commit(&unpacked.diff_id)?)
}

/// A reader that tells how far it is.
pub(crate) struct Telling<'a, R> {
    inner: R,
    digest: Digest,
    done: u64,
    told: Instant,
    progress: &'a dyn Progress,
}

impl<'a, R> Telling<'a, R> {
    pub fn new(inner: R, digest: &Digest, progress: &'a dyn Progress) -> Self {
        Telling {
            inner,
            digest: digest.clone(),
            done: 0,
            told: Instant::now(),
            progress,
        }
    }
}

impl<R: Read> Read for Telling<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.done += count as u64;
        if count == 0 || self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.progress.event(PullEvent::Bytes {
                digest: self.digest.clone(),
                done: self.done,
            });
        }
        Ok(count)
    }
}
