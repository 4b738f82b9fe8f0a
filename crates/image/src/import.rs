//! Making a one-layer image of a tarball.

use crate::archive::source::{self, Cancel, Cancellable, Opened};
use crate::archive::unpack;
use crate::manifest::{self, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use crate::registry::{self, Patience};
use crate::{
    BlobKind, Error, Platform, Progress, PullEvent, Reference, Result, Source, changes, channel,
    work,
};
use chrono::{SecondsFormat, Utc};
use rcon_store::{Digest, ImageRecord, LayerHold, NewImage, Store};
use serde_json::{Map, Value, json};
use std::io::Read;

/// How to import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// `--change`: instructions as in a Containerfile (`CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`,
    /// `LABEL`, `USER`, `WORKDIR`, `VOLUME`, `STOPSIGNAL`, `ONBUILD`).
    pub changes: Vec<String>,
    /// `--message`.
    pub message: Option<String>,
    /// The name to give; see [`Reference::parse_local`].
    pub name: Option<Reference>,
    /// `--os`, `--arch`, `--variant`; this machine's when `None`.
    pub platform: Option<Platform>,
}

/// Import a tarball (plain, gzip or zstd) as an image of one layer. Same conditions as
/// [`crate::pull()`].
///
/// # Errors
/// A bad `--change`, a tarball that cannot be read, and whatever the store says.
pub fn import(
    store: &Store,
    source: &Source,
    opts: &ImportOptions,
    progress: &dyn Progress,
) -> Result<ImageRecord> {
    // Before anything is read: a bad change is found out at once.
    let mut config = Map::new();
    for change in &opts.changes {
        changes::apply(&mut config, change)?;
    }
    let name = source::shown(source);
    let hold = match source {
        Source::Url(url) => from_url(store, url, progress)?,
        local => {
            let cancel = Cancel::default();
            work::threaded(&cancel, || {
                let reader: Box<dyn Read + Send> = match source::open(local, &cancel)? {
                    Opened::Regular(file) => Box::new(file),
                    Opened::Stream(stream) => stream,
                    Opened::Folder => {
                        return Err(Error::Archive {
                            archive: name.clone(),
                            why: "it is a folder, not a tarball".to_owned(),
                        });
                    }
                };
                unpack::stream(store, Cancellable(reader, cancel.clone()), None)
            })?
        }
    };
    finish(store, &hold, config, opts, progress)
}

/// Download and unpack at the same time.
fn from_url(store: &Store, url: &str, progress: &dyn Progress) -> Result<LayerHold> {
    std::thread::scope(|scope| {
        work::run(async {
            let (mut sender, receiver) = channel::pair(&Digest::sha256(url.as_bytes()), progress);
            let (tell, told) = tokio::sync::oneshot::channel();
            work::spawn(scope, "unpack", move || {
                // Nobody to tell: it was interrupted.
                let _ = tell.send(unpack::stream(store, receiver, None));
            })?;
            let downloaded =
                registry::download(url, &Patience::default(), &mut sender, progress).await;
            match &downloaded {
                Ok(true) => drop(sender.end().await),
                _ => drop(sender),
            }
            let unpacked = told.await.unwrap_or_else(|_| {
                Err(Error::invalid(
                    url,
                    "the thread that unpacked it broke down",
                ))
            });
            downloaded?;
            unpacked
        })
    })
}

/// Put the layer and a configuration of ours into an image.
fn finish(
    store: &Store,
    hold: &LayerHold,
    config: Map<String, Value>,
    opts: &ImportOptions,
    progress: &dyn Progress,
) -> Result<ImageRecord> {
    let diff_id = hold.meta().diff_id.clone();
    progress.at_once(&diff_id, BlobKind::Layer, hold.meta().size);
    let platform = opts.platform.clone().unwrap_or_else(Platform::host);
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true);
    let mut history = json!({
        "created": now,
        "created_by": format!("/bin/sh -c #(nop) ADD file:{} in /", diff_id.hex()),
    });
    if let Some(message) = opts.message.as_deref().filter(|m| !m.is_empty()) {
        history["comment"] = message.into();
    }
    let mut document = json!({
        "created": now,
        "architecture": platform.architecture,
        "os": platform.os,
    });
    if let Some(variant) = platform.variant {
        document["variant"] = variant.into();
    }
    document["config"] = Value::Object(config);
    document["rootfs"] = json!({ "type": "layers", "diff_ids": [diff_id.to_string()] });
    document["history"] = json!([history]);
    let config = manifest::write(&document);
    let config_digest = Digest::sha256(&config);
    progress.at_once(&config_digest, BlobKind::Config, config.len() as u64);
    let manifest = manifest::write(&json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": manifest::describe(OCI_CONFIG, &config_digest, config.len() as u64),
        "layers": [manifest::describe(OCI_LAYER, &diff_id, hold.meta().size)],
    }));
    progress.event(PullEvent::Writing);
    Ok(store.put_image(NewImage {
        manifest_digest: Digest::sha256(&manifest),
        manifest,
        media_type: OCI_MANIFEST.to_owned(),
        config,
        layers: vec![diff_id],
        names: opts.name.iter().map(Reference::to_string).collect(),
        repo_digests: Vec::new(),
    })?)
}
