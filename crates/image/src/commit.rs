//! Making an image of what a container changed.

use crate::archive::source::{Cancel, Cancellable};
use crate::archive::unpack;
use crate::manifest::{
    self, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST,
};
use crate::out::image;
use crate::{
    BlobKind, Error, Format, Platform, Progress, PullEvent, Reference, Result, changes, work,
};
use chrono::{SecondsFormat, Utc};
use rcon_store::{Digest, ImageRecord, LayerHold, NewImage, Store, TreeForm, TreeReader};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// What is to become an image, and how.
#[derive(Clone, Debug)]
pub struct CommitOptions {
    /// The tree: the upper directory of a container ([`TreeForm::Changes`]), put on top of its image;
    /// or its whole root file system ([`TreeForm::Whole`]), which then is the only layer.
    pub tree: PathBuf,
    /// What kind of tree that is.
    pub form: TreeForm,
    /// Paths in the tree, relative, that are left out where they are empty files or directories:
    /// what the container's mounts lie on.
    pub leave_out: Vec<PathBuf>,
    /// The `config` object to begin with (`Cmd`, `Env`, …), for example with what the container was
    /// created with; the image's own when `None`.
    pub config: Option<Map<String, Value>>,
    /// `--change`: instructions as in a Containerfile.
    pub changes: Vec<String>,
    /// `--message`.
    pub message: Option<String>,
    /// `--author`.
    pub author: Option<String>,
    /// What the history says it was made by.
    pub created_by: String,
    /// The name to give; see [`Reference::parse_local`].
    pub name: Option<Reference>,
    /// The family of its manifest.
    pub format: Format,
}

/// Make an image of a container's files. Same conditions as [`crate::pull()`].
///
/// `base` is the id of the container's image.
///
/// # Errors
/// A bad `--change`, an image that is not here, files that cannot be read, a full disk.
pub fn commit(
    store: &Store,
    base: &str,
    opts: &CommitOptions,
    progress: &dyn Progress,
) -> Result<ImageRecord> {
    let record = store.image_by_id(base)?;
    let record = record.ok_or_else(|| rcon_store::Error::NoSuchImage(base.to_owned()))?;
    let what = format!("reading the configuration of image {base}");
    let mut document: Map<String, Value> = serde_json::from_slice(&record.config()?)
        .map_err(|e| Error::invalid(&what, e.to_string()))?;
    let mut config = match &opts.config {
        Some(config) => config.clone(),
        None => match document.remove("config") {
            Some(Value::Object(config)) => config,
            _ => Map::new(),
        },
    };
    // Before anything is read: a bad change is found out at once.
    for change in &opts.changes {
        changes::apply(&mut config, change)?;
    }
    let cancel = Cancel::default();
    let hold = work::threaded(&cancel, || {
        let dir = File::open(&opts.tree).map_err(Error::io("opening", &opts.tree))?;
        let tree = TreeReader::new(
            OwnedFd::from(dir),
            opts.form,
            opts.leave_out.clone(),
            store.shift().cloned(),
        )?;
        unpack::plain(store, Cancellable(tree, cancel.clone()))
    })?;
    let digest = hold.meta().diff_id.clone();
    progress.at_once(&digest, BlobKind::Layer, hold.meta().size);
    document.insert("config".to_owned(), Value::Object(config));
    let layers = layers(store, &record, &hold, opts);
    describe(&mut document, &layers, opts);
    let config = manifest::write(&Value::Object(document));
    let config_digest = Digest::sha256(&config);
    progress.at_once(&config_digest, BlobKind::Config, config.len() as u64);
    let (media_type, config_type) = match opts.format {
        Format::Oci => (OCI_MANIFEST, OCI_CONFIG),
        Format::Docker => (DOCKER_MANIFEST, DOCKER_CONFIG),
    };
    let manifest = manifest::write(&json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": manifest::describe(config_type, &config_digest, config.len() as u64),
        "layers": layers.iter().map(|(_, blob)| blob).collect::<Vec<_>>(),
    }));
    progress.event(PullEvent::Writing);
    Ok(store.put_image(NewImage {
        manifest_digest: Digest::sha256(&manifest),
        manifest,
        media_type: media_type.to_owned(),
        config,
        layers: layers.into_iter().map(|(diff_id, _)| diff_id).collect(),
        names: opts.name.iter().map(Reference::to_string).collect(),
        repo_digests: Vec::new(),
    })?)
}

/// The layers of the new image, lowest first, and what its manifest says of each.
fn layers(
    store: &Store,
    base: &ImageRecord,
    new: &LayerHold,
    opts: &CommitOptions,
) -> Vec<(Digest, Value)> {
    let plain = match opts.format {
        Format::Oci => OCI_LAYER,
        Format::Docker => DOCKER_LAYER,
    };
    let mut all = Vec::new();
    if opts.form == TreeForm::Changes {
        let own = base
            .manifest()
            .ok()
            .and_then(|bytes| image::read(&bytes, base));
        for (at, diff_id) in base.layers.iter().enumerate() {
            let known = own
                .as_ref()
                .map(|m| &m.layers[at])
                .and_then(|l| Some((l, image::packing_of(&l.media_type)?)))
                .and_then(|(l, packing)| Some((l, image::layer_type(opts.format, packing).ok()?)));
            let blob = match known {
                // As the registry has it: a push finds it there.
                Some((layer, media_type)) => {
                    manifest::describe(&media_type, &layer.digest, layer.size)
                }
                None => {
                    let size = store
                        .layer_meta(diff_id)
                        .ok()
                        .flatten()
                        .map_or(0, |m| m.size);
                    manifest::describe(plain, diff_id, size)
                }
            };
            all.push((diff_id.clone(), blob));
        }
    }
    let meta = new.meta();
    let blob = manifest::describe(plain, &meta.diff_id, meta.size);
    all.push((meta.diff_id.clone(), blob));
    all
}

/// What the configuration says of the image as a whole.
fn describe(document: &mut Map<String, Value>, layers: &[(Digest, Value)], opts: &CommitOptions) {
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true);
    let mut entry = json!({ "created": now, "created_by": opts.created_by });
    for (key, text) in [("author", &opts.author), ("comment", &opts.message)] {
        if let Some(text) = text.as_deref().filter(|t| !t.is_empty()) {
            entry[key] = text.into();
        }
    }
    if let Some(author) = entry.get("author") {
        document.insert("author".to_owned(), author.clone());
    }
    // Docker's own remarks on the container that an image was made of.
    for old in [
        "container",
        "container_config",
        "id",
        "parent",
        "parent_id",
        "throwaway",
    ] {
        document.remove(old);
    }
    let host = Platform::host();
    document
        .entry("architecture")
        .or_insert(host.architecture.into());
    document.entry("os").or_insert(host.os.into());
    document.insert("created".to_owned(), now.into());
    let history = match document.remove("history") {
        Some(Value::Array(mut history)) if opts.form == TreeForm::Changes => {
            history.push(entry);
            history
        }
        _ => vec![entry],
    };
    document.insert("history".to_owned(), Value::Array(history));
    let diff_ids: Vec<String> = layers.iter().map(|(id, _)| id.to_string()).collect();
    document.insert(
        "rootfs".to_owned(),
        json!({ "type": "layers", "diff_ids": diff_ids }),
    );
}
