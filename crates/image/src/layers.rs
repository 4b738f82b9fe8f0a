//! All layers of an image at once, each in one pass from the socket to its tree.

use crate::channel::{self, Receiver};
use crate::manifest::Descriptor;
use crate::registry::Client;
use crate::{BlobKind, Error, Progress, PullEvent, Result, work};
use futures_util::{StreamExt, TryStreamExt};
use rcon_store::{Digest, LayerHold, Partial, Store};
use std::io;
use std::thread::Scope;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Layers fetched at the same time.
const AT_ONCE: usize = 6;
/// Another process that has not shown for so long that it goes on with a layer is not waited for.
const NO_BEAT: Duration = Duration::from_secs(15);
/// How often we look how far it is.
const LOOK: Duration = Duration::from_millis(50);

/// A layer to be had.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub blob: Descriptor,
    pub diff_id: Digest,
}

/// Fetch what is not in the store. The holds keep all of them from being removed before an image
/// refers to them.
pub(crate) async fn fetch<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    store: &'env Store,
    client: &Client<'_>,
    repository: &str,
    layers: &[Layer],
    progress: &dyn Progress,
) -> Result<Vec<LayerHold>> {
    let mut holds = Vec::new();
    let mut missing: Vec<&Layer> = Vec::new();
    for layer in layers {
        if missing.iter().any(|m| m.diff_id == layer.diff_id) {
            continue;
        }
        match store.hold_layer(&layer.diff_id)? {
            Some(hold) => {
                holds.push(hold);
                progress.event(PullEvent::Exists {
                    digest: layer.blob.digest.clone(),
                    size: Some(layer.blob.size),
                });
            }
            None => missing.push(layer),
        }
    }
    let fetched: Vec<LayerHold> = futures_util::stream::iter(missing)
        .map(|layer| async move {
            let done = fetch_one(scope, store, client, repository, layer, progress).await;
            done.map_err(|e| match e {
                Error::Interrupted => e,
                e => Error::Layer {
                    digest: layer.blob.digest.clone(),
                    error: Box::new(e),
                },
            })
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    holds.extend(fetched);
    Ok(holds)
}

async fn fetch_one<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    store: &'env Store,
    client: &Client<'_>,
    repository: &str,
    layer: &Layer,
    progress: &dyn Progress,
) -> Result<LayerHold> {
    let digest = &layer.blob.digest;
    let kind = BlobKind::Layer;
    progress.event(PullEvent::Start {
        digest: digest.clone(),
        kind,
        size: Some(layer.blob.size),
    });
    let mut kept = match turn(store, layer).await? {
        Turn::Ours(kept) => Some(kept),
        Turn::Alone => None,
        Turn::Done(hold) => {
            progress.event(PullEvent::Done {
                digest: digest.clone(),
                kind,
            });
            return Ok(hold);
        }
    };
    let begun = kept.as_ref().is_some_and(|kept| kept.size() > 0);
    let mut fetched = attempt(scope, store, client, repository, layer, &mut kept, progress).await;
    if let Some(kept) = &mut kept
        && fetched.as_ref().is_err_and(|e| !passes(e))
    {
        // Whatever was wrong with the bytes, they must not be taken again; nor take up a full disk.
        let cleared = kept.clear();
        let full = matches!(
            fetched,
            Err(Error::Store(rcon_store::Error::NoSpace { .. }))
        );
        if begun && cleared.is_ok() && !full {
            // It may have been those of an earlier process.
            let kept = &mut None;
            fetched = attempt(scope, store, client, repository, layer, kept, progress).await;
        }
    }
    let hold = fetched?;
    if let Some(kept) = kept {
        kept.remove();
    }
    progress.event(PullEvent::Done {
        digest: digest.clone(),
        kind,
    });
    Ok(hold)
}

/// Whether the next try may use what this one has fetched.
fn passes(error: &Error) -> bool {
    match error {
        Error::Store(e) => matches!(e, rcon_store::Error::Io { .. }),
        Error::DigestMismatch { .. } | Error::SizeMismatch { .. } => false,
        _ => true,
    }
}

/// Who fetches a layer.
enum Turn<'a> {
    /// We do, and others wait for us.
    Ours(Partial<'a>),
    /// We do, without a place to keep it.
    Alone,
    /// Another process has done it.
    Done(LayerHold),
}

/// Wait while another process fetches the layer and shows that it goes on.
async fn turn<'a>(store: &'a Store, layer: &Layer) -> Result<Turn<'a>> {
    let digest = &layer.blob.digest;
    let (mut seen, mut since) = (None, Instant::now());
    loop {
        // A store that cannot keep it shows in what comes next.
        let Ok(free) = store.partial_blob(digest) else {
            return Ok(Turn::Alone);
        };
        if let Some(hold) = store.hold_layer(&layer.diff_id)? {
            if let Some(kept) = free {
                kept.remove();
            }
            return Ok(Turn::Done(hold));
        }
        if let Some(kept) = free {
            return Ok(Turn::Ours(kept));
        }
        let beat = store.partial_beat(digest);
        if beat != seen {
            (seen, since) = (beat, Instant::now());
        }
        if since.elapsed() > NO_BEAT {
            return Ok(Turn::Alone);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn attempt<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    store: &'env Store,
    client: &Client<'_>,
    repository: &str,
    layer: &Layer,
    kept: &mut Option<Partial<'_>>,
    progress: &dyn Progress,
) -> Result<LayerHold> {
    let digest = &layer.blob.digest;
    let (mut sender, receiver) = channel::pair(digest, progress);
    let (tell, told) = oneshot::channel();
    let diff_id = layer.diff_id.clone();
    work::spawn(scope, "unpack", move || {
        // Nobody to tell: the pull was interrupted, and the stage is gone already.
        let _ = tell.send(unpack(store, receiver, &diff_id));
    })?;
    let fetch = client.blob(repository, &layer.blob, &mut sender, kept.as_mut());
    let downloaded = match fetch.await {
        Ok(true) => {
            sender.end().await;
            Ok(())
        }
        Ok(false) => Ok(()),
        Err(e) => {
            // The reader must see that there is no end before we wait for it.
            drop(sender);
            Err(e)
        }
    };
    let unpacked = told.await.unwrap_or_else(|_| {
        Err(Error::invalid(
            format!("layer {digest}"),
            "the thread that unpacked it broke down",
        ))
    });
    // What is wrong with the download explains what went wrong with unpacking, not the reverse.
    downloaded?;
    unpacked
}

/// The blocking part: bytes to files. The layer becomes visible if the download said that its
/// blob was right, and if the tar has the digest that the configuration names.
fn unpack(store: &Store, mut receiver: Receiver, diff_id: &Digest) -> Result<LayerHold> {
    let result = crate::archive::unpack::stream(store, &mut receiver, Some(diff_id));
    if let Err(Error::Store(rcon_store::Error::Stream(e))) = &result
        && e.kind() != io::ErrorKind::Unsupported
    {
        // Damaged data: the blob's digest will tell whether it was damaged on its way.
        receiver.drain();
    }
    result
}
