//! What can go wrong with containers by the commands of a runtime.

use std::io;
use std::path::{Path, PathBuf};

/// The result of this module's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command of the runtime failed. The words are those that engines look for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Making the container, or running a program in it, failed.
    #[error(transparent)]
    Launch(#[from] crate::Error),
    /// The id cannot be one.
    #[error("invalid container ID format: {0:?}")]
    BadId(String),
    /// There is no container of that id.
    #[error("container {0:?} does not exist")]
    NoSuchContainer(String),
    /// There is one of that id already.
    #[error("container with id exists: {0}")]
    Exists(String),
    /// The container is not in a state for what was asked.
    #[error("{0}")]
    State(String),
    /// The bundle is not as it must be.
    #[error("{0}")]
    Bundle(String),
    /// A file could not be used.
    #[error("cannot {what} {}: {}", path.display(), crate::error::describe(source.raw_os_error().unwrap_or(libc::EIO)))]
    File {
        /// What was being done with it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What the user can do about it, where something can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Launch(error) => error.hint(),
            _ => None,
        }
    }
}

/// Puts a file to an error of the system.
pub(super) trait On<T> {
    /// The error, with what was being done with which file.
    fn on(self, what: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> On<T> for std::result::Result<T, E> {
    fn on(self, what: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::File {
            what,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}
