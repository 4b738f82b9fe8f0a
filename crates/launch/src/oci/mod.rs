//! Containers by the commands of an OCI runtime (runtime.md of the specification): made from a bundle
//! by one command, started, signalled and deleted by others.
//!
//! What is known of a container lies in a folder of its own below [`Runtime::root`]: `state.json`,
//! `config.json` (the specification it was made of) and `door`, the socket at which its first process
//! waits to be started. There is no process of ours beside the container's own: who made it, usually
//! a monitor of an engine, becomes its parent.

mod bundle;
mod create;
mod error;
mod exec;
mod features;
mod granted;
mod json;
mod life;
mod processes;
mod record;
mod resctrl;
mod template;

use std::path::{Path, PathBuf};

pub use bundle::{CONFIG, Loaded};
pub use create::{Console, CreateOptions, Foreground};
pub use error::{Error, Result};
pub use exec::{ExecOptions, Executed};
pub use features::features;
pub use json::read as read_json;
pub use record::{Container, Record, Status};
pub use template::template;

/// The version of the specification that is followed.
pub const SPEC_VERSION: &str = "1.3.0";

/// All containers below one folder.
#[derive(Clone, Debug)]
pub struct Runtime {
    root: PathBuf,
}

impl Runtime {
    /// The containers below `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the container `id`.
    ///
    /// # Errors
    /// For what cannot be an id.
    fn folder(&self, id: &str) -> Result<PathBuf> {
        match valid_id(id) {
            true => Ok(self.root.join(id)),
            false => Err(Error::BadId(id.to_owned())),
        }
    }
}

/// Whether `id` can be one: letters, digits and `_ + - .`, not beginning with a dot, so that it is
/// nothing but a name in whatever path it gets into.
fn valid_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte);
    id.len() <= 255
        && id.bytes().next().is_some_and(plain)
        && id.bytes().all(|byte| plain(byte) || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_and_nothing_else() {
        for good in ["a", "A-b_c+d.e", "0", "-x", "a..b"] {
            assert!(valid_id(good), "{good}");
        }
        let long = "x".repeat(256);
        for bad in [
            "", ".", "..", ".a", "a/b", "../a", "a b", "a\0", "ä", "a\n", &long,
        ] {
            assert!(!valid_id(bad), "{bad:?}");
        }
    }
}
