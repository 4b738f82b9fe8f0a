//! What can be wrong with what a user or an image says. Messages are podman's where scripts may look for them.

use thiserror::Error;

/// Why a value was refused or a specification could not be made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The image's configuration is no JSON object.
    #[error("the image's configuration cannot be read: {0}")]
    ImageConfig(String),
    /// Neither image nor user says what to run.
    #[error("no command or entrypoint provided, and no CMD or ENTRYPOINT from image")]
    NoCommand,
    /// The working directory is not one that a container can have.
    #[error("workdir {path:?} does not exist on container {container}")]
    NoWorkdir {
        /// What the user said.
        path: String,
        /// The id of the container.
        container: String,
    },
    /// A value was refused; the text is the whole message.
    #[error("{message}")]
    Value {
        /// What is wrong, in words.
        message: String,
        /// What to do about it, where something can be done.
        hint: Option<String>,
    },
}

impl Error {
    /// A refusal with nothing to add.
    pub(crate) fn value(message: impl Into<String>) -> Error {
        Error::Value {
            message: message.into(),
            hint: None,
        }
    }

    /// A refusal that the user can mend.
    pub(crate) fn with_hint(message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::Value {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    /// What the user can do about it, for a `hint:` line.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NoCommand => Some("give a command after the image name".into()),
            Error::Value { hint, .. } => hint.clone(),
            Error::NoWorkdir { .. } => Some("give an absolute path".into()),
            Error::ImageConfig(_) => None,
        }
    }
}
