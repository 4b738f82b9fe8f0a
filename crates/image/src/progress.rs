//! What a pull, push, load, save, import or commit tells about its progress.
//!
//! The caller draws; this crate only says what happened. Events may come from several threads at
//! once, and byte counts at most a few hundred times a second for one blob.

use rcon_store::Digest;
use std::time::Duration;

/// What a blob is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobKind {
    /// A layer of the file system.
    Layer,
    /// The image configuration.
    Config,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PullEvent {
    /// A short name was resolved through an alias; podman prints
    /// `Resolved "alpine" as an alias (/etc/containers/…)`.
    Alias {
        /// The name as given.
        name: String,
        /// The file that holds the alias.
        file: String,
    },
    /// A short name was resolved through `unqualified-search-registries`.
    Unqualified {
        /// The name as given.
        name: String,
        /// The file that names the registries.
        file: String,
    },
    /// A source is being tried; podman prints `Trying to pull docker.io/library/alpine:latest...`.
    Trying {
        /// The full reference.
        reference: String,
    },
    /// The manifest for our platform is here; its blobs come next.
    Manifest {
        /// Number of layers; one that the image has twice counts twice.
        layers: usize,
        /// Sum of the compressed sizes in bytes, where the manifest tells them.
        bytes: u64,
    },
    /// A blob starts; podman prints `Copying blob sha256:…` or `Copying config sha256:…`.
    Start {
        /// The blob.
        digest: Digest,
        /// What it is.
        kind: BlobKind,
        /// Its size in bytes as transferred, if known.
        size: Option<u64>,
    },
    /// A layer is in the store already and is not fetched.
    Exists {
        /// The blob.
        digest: Digest,
        /// Its size in bytes as transferred, if known.
        size: Option<u64>,
    },
    /// So much of a blob has been read.
    Bytes {
        /// The blob.
        digest: Digest,
        /// Bytes read since the blob started.
        done: u64,
    },
    /// A blob is whole, checked and in its place.
    Done {
        /// The blob.
        digest: Digest,
        /// What it is.
        kind: BlobKind,
    },
    /// A request failed in a way that may pass; it is tried again.
    Retry {
        /// What is tried again and why.
        reason: String,
        /// How long we wait first.
        after: Duration,
        /// Which attempt failed, from 1.
        attempt: u32,
        /// Of how many.
        of: u32,
    },
    /// Something the user should know, though the work goes on.
    Warning(String),
    /// All layers are there, the image record is being written.
    Writing,
}

/// Receives events.
pub trait Progress: Sync {
    /// Called from any thread, must be quick.
    fn event(&self, event: PullEvent);
}

impl dyn Progress + '_ {
    /// A blob that took no time: it was at hand.
    pub(crate) fn at_once(&self, digest: &Digest, kind: BlobKind, size: u64) {
        self.event(PullEvent::Start {
            digest: digest.clone(),
            kind,
            size: Some(size),
        });
        self.event(PullEvent::Done {
            digest: digest.clone(),
            kind,
        });
    }
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: PullEvent) {}
}
