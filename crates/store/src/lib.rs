//! What images and containers are made of, on disk: layer trees by digest, image records and the
//! writable directories of containers.
//!
//! A [`Store`] is a directory of small files and trees, without a database and without a lock
//! over all of it. It needs nothing else of rcon but an id map, and keeps its promises whoever
//! is killed when:
//!
//! - **Nothing is visible before it is whole.** Everything is made under `tmp/` and moved to its
//!   place by one rename. What dead processes left in `tmp/` is found by its lock (which died
//!   with them) and removed by the next writer.
//! - **Nothing in use goes away.** Each object has its own flock(2); a layer stays while an image
//!   or a container refers to it or a [`LayerHold`] pins it.
//! - **Hostile archives stay inside.** The unpacking policy is in `unpack/`; it names every file
//!   relative to a directory that openat2(2) resolved within the layer.
//!
//! ```text
//! ROOT/version                      the layout's version
//! ROOT/overlay.json                 that an overlay worked, on which kernel and file system
//! ROOT/giving.json                  that files could be given to other ids, and where
//! ROOT/places-1/                    a layer of empty files and folders below all others: where things are mounted
//!                                   in every container
//! ROOT/layers/MAPKEY/HEX/fs/        an unpacked layer; owners depend on the id map, so that is
//!                      /meta.json   in the path. Sizes, so that nobody has to walk the tree
//!                      /recipe.zst  what else it takes to make the layer's archive again
//!                      /owners      true owners that cannot be noted on what they own
//!                      /settled     it is on disk, whatever happened since to the machine
//! ROOT/images/ID/manifest.json      as received
//!               /manifest-HEX.json  others that the same image came with
//!               /config.json        as received
//!               /record.json        what we need to know without parsing those
//!               /tree-MAPKEY/       where no overlay can be mounted and somebody looked into the
//!                                   image: its layers as one tree, of hard links
//! ROOT/names/NAME                   the id of the image that has this name
//! ROOT/snapshots/CONTAINER/         upper/, work/, merged/, snapshot.json, and owners as above;
//!                                   where no overlay can be mounted all files are in merged/
//! ROOT/partial/ALGORITHM-HEX        what has come of a blob that is being fetched, or was
//! ROOT/tmp/                         what is being made, and what is being removed
//! ```
//!
//! To read in this order: `store`, then `stage` and `atomic`, by which everything appears and goes; `unpack/` (its `mod.rs`
//! has the map), `layers/`, `images`, `snapshots`; `gc` and `check`. Registries, manifests and containers' lives are for others.
#![forbid(unsafe_code)]

mod additional;
mod atomic;
mod check;
mod decompress;
mod digest;
mod driver;
mod error;
mod flatten;
mod gc;
mod giving;
mod images;
mod layered;
mod layers;
mod names;
mod owners;
mod pack;
mod partial;
mod places;
mod platform;
mod probe;
mod remove;
mod snapshots;
mod stage;
mod store;
mod unpack;
mod written;

pub use check::{CheckOptions, Damage};
pub use decompress::{Compression, Decompressor, decompress};
pub use digest::{Algorithm, Digest, DigestError, Hasher, HashingReader, VerifyingReader};
pub use driver::{Driver, Wish};
pub use error::{Error, Result};
pub use gc::{Collected, RemovedImage};
pub use images::{ImageHold, ImageRecord, NewImage};
pub use layered::{Layered, LayeredDescent, Seen, is_opaque};
pub use layers::{LayerHold, LayerMeta, LayerStage};
pub use owners::Owners;
pub use pack::{TreeForm, TreeReader, write_tree, write_tree_of};
pub use partial::Partial;
pub use platform::Platform;
pub use probe::Overlay;
pub use remove::{Removal, TreeSize, remove_at, remove_tree, tree_size};
pub use snapshots::{DetachedSnapshot, Form, Snapshot, SnapshotUse, Time};
pub use store::Store;
pub use unpack::Unpacked;
pub use written::Written;
