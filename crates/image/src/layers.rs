//! All layers of an image at once, each in one pass from the socket to its tree.

use crate::channel::{self, Receiver};
use crate::manifest::Descriptor;
use crate::registry::Client;
use crate::{BlobKind, Error, Progress, PullEvent, Result};
use futures_util::{StreamExt, TryStreamExt};
use rcon_store::{Digest, LayerHold, Store};
use std::io;
use std::thread::Scope;
use tokio::sync::oneshot;

/// Layers fetched at the same time.
const AT_ONCE: usize = 6;

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
    progress.event(PullEvent::Start {
        digest: digest.clone(),
        kind: BlobKind::Layer,
        size: Some(layer.blob.size),
    });
    let (mut sender, receiver) = channel::pair(digest, progress);
    let (tell, told) = oneshot::channel();
    let diff_id = layer.diff_id.clone();
    std::thread::Builder::new()
        .name("unpack".to_owned())
        .spawn_scoped(scope, move || {
            // Nobody to tell: the pull was interrupted, and the stage is gone already.
            let _ = tell.send(unpack(store, receiver, &diff_id));
        })
        .map_err(|source| Error::Io {
            what: "cannot start a thread".to_owned(),
            source,
        })?;
    let downloaded = match client.blob(repository, &layer.blob, &mut sender).await {
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
    let hold = unpacked?;
    progress.event(PullEvent::Done {
        digest: digest.clone(),
        kind: BlobKind::Layer,
    });
    Ok(hold)
}

/// The blocking part: bytes to files. The layer becomes visible if the download said that its
/// blob was right, and if the tar has the digest that the configuration names.
fn unpack(store: &Store, mut receiver: Receiver, diff_id: &Digest) -> Result<LayerHold> {
    let result = unpack_stream(store, &mut receiver, diff_id);
    if let Err(Error::Store(rcon_store::Error::Stream(e))) = &result
        && e.kind() != io::ErrorKind::Unsupported
    {
        // Damaged data: the blob's digest will tell whether it was damaged on its way.
        receiver.drain();
    }
    result
}

fn unpack_stream(store: &Store, receiver: &mut Receiver, diff_id: &Digest) -> Result<LayerHold> {
    let stream_error = rcon_store::Error::Stream;
    let mut stage = store.stage_layer_with(diff_id.algorithm())?;
    let mut tar = rcon_store::decompress(receiver).map_err(stream_error)?;
    stage.unpack(&mut tar)?;
    tar.into_source().map_err(stream_error)?;
    Ok(stage.commit(diff_id)?)
}
