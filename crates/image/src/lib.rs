//! OCI images: names, the registry protocol, pull and push, load, save and import.
//!
//! This crate turns a name into an image in a [`rcon_store::Store`]:
//!
//! - [`Reference`] and [`registries::Registries`] say which registries a name stands for, as podman
//!   does it (`registries.conf`, short names, aliases, mirrors);
//! - [`pull()`] speaks the OCI distribution protocol (and Docker's v2 schema 2) with token and basic
//!   authentication, and streams every layer from the socket into its tree in one pass;
//! - [`load()`] and [`import()`] do the same from archives and plain tarballs;
//! - [`push()`] and [`save()`] go the other way: layers are made again of their trees, bit for bit;
//! - [`auth`] keeps credentials where podman, buildah and skopeo keep them.
//!
//! # The way of one layer
//!
//! ```text
//! socket ──► blob digest ──► bounded channel ──► inflate ──► store::LayerStage::unpack ──► commit
//!   asynchronous, one task a layer               a blocking thread a layer
//! ```
//!
//! Nothing is visible in the store before both digests (of the blob and of the unpacked tar)
//! agree with the manifest and the configuration. Memory is bounded by the channels: a slow disk
//! slows the socket down.
//!
//! Everything that unpacks must run where it may give files to any id of the mapping, that is
//! inside `rcon_sys::userns::run`. Functions that write no layer ([`auth`], [`find_local`]) need
//! nothing.
//!
//! To read in this order: [`mod@reference`] and [`registries`], [`mod@pull`] and `layers`, `registry/` (its `mod.rs` has the map),
//! `archive/` and [`out`]. Nothing here knows what a container is; how things lie on the disk is the store's.

#![forbid(unsafe_code)]

mod archive;
pub mod auth;
mod changes;
mod channel;
pub mod commit;
pub mod error;
pub mod import;
mod layers;
pub mod load;
pub mod local;
pub mod manifest;
pub mod out;
pub mod policy;
pub mod progress;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registries;
mod registry;
pub mod save;
pub mod search;
pub mod transport;
mod work;

pub use commit::{CommitOptions, commit};
pub use error::{Error, Result};
pub use import::{ImportOptions, import};
pub use load::{LoadedImage, Source, load, load_with};
pub use local::find_local;
pub use out::{Destination, Format, Output};
pub use policy::Policy;
pub use progress::{BlobKind, Progress, PullEvent, Silent};
pub use pull::{PullOptions, pull, pull_all_tags, pull_each, pull_with};
pub use push::{PushOptions, push};
pub use rcon_store::Platform;
pub use reference::{ParseError, Reference};
pub use registry::{Patience, Split, schemes};
pub use save::{SaveOptions, SavedImage, save};
pub use transport::LocalSource;
