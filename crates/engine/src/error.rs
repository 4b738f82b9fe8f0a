//! What can go wrong, in words for people, with the exit code a script tests for and the way out where there is one.

use std::io;
use std::path::Path;

use rcon_sys::errors::in_words;

/// Everything the engine can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container has that name, id or id prefix.
    #[error("no container with name or ID {0:?} found: no such container")]
    NoSuchContainer(String),
    /// An id prefix that several containers share.
    #[error(
        "more than one result for container name or ID {0:?}: container ID prefix is not unique"
    )]
    AmbiguousContainer(String),
    /// The name is another container's.
    #[error(
        "the container name {name:?} is already in use by {id}. You have to remove that container to be able to reuse that name: that name is already in use"
    )]
    NameInUse {
        /// The name asked for.
        name: String,
        /// The id of its holder.
        id: String,
    },
    /// A name with characters that names cannot have.
    #[error("names must match [a-zA-Z0-9][a-zA-Z0-9_.-]*: invalid argument: {0:?}")]
    BadName(String),
    /// Removing a running or paused container without force.
    #[error(
        "cannot remove container {0} as it is running - running or paused containers cannot be removed without force: container state improper"
    )]
    RemoveRunning(String),
    /// The state of the container does not allow what was asked.
    #[error("{0}: container state improper")]
    StateImproper(String),
    /// A process was to be started in a container that does not run.
    #[error("can only create exec sessions on running containers: container state improper")]
    ExecNotRunning,
    /// Nobody answers for a running container.
    #[error("cannot reach the monitor of the container (it may have been killed)")]
    Unreachable,
    /// Containers still use the image.
    #[error(
        "image used by {container}: image is in use by a container: consider listing external containers and force-removing image"
    )]
    ImageInUse {
        /// The full id of one of the containers.
        container: String,
    },
    /// No image of that name or id here.
    #[error("{0}: image not known")]
    NoSuchImage(String),
    /// A volume that containers use.
    #[error("volume {0} is being used by the following container(s): {1}: volume is being used")]
    VolumeInUse(String, String),
    /// A volume of that name is there.
    #[error("volume with name {0} already exists: volume already exists")]
    VolumeExists(String),
    /// A secret of that name is there.
    #[error("{0}: secret name in use")]
    SecretExists(String),
    /// No secret of that name or id.
    #[error("no secret with name or id {0:?}: no such secret")]
    NoSuchSecret(String),
    /// No volume of that name.
    #[error("no volume with name {0:?} found: no such volume")]
    NoSuchVolume(String),
    /// A file, process or socket operation failed.
    #[error("{what}: {}", in_words(.source))]
    Io {
        /// What was being done, and to what.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A value of an option cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// A record on disk cannot be read.
    #[error("the record {0} is damaged: {1}")]
    Damaged(String, String),
    /// A record was written by a later version, which may mean anything by it.
    #[error(
        "container {id} was made by a newer version of rcon (records of version {found}; this one knows them up to {known})"
    )]
    Newer {
        /// The container.
        id: String,
        /// The version of its records.
        found: u32,
        /// The latest that we know.
        known: u32,
    },
    /// A failure that another process of ours met and handed over in words.
    #[error("{message}")]
    Remote {
        /// The message as the other process put it.
        message: String,
        /// The exit code it asked for.
        code: i32,
        /// The way out, if it knew one.
        hint: Option<String>,
    },
    /// The image part failed.
    #[error(transparent)]
    Image(#[from] rcon_image::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] rcon_store::Error),
    /// The options do not make a container.
    #[error(transparent)]
    Bundle(#[from] rcon_bundle::Error),
    /// The process could not be made.
    #[error(transparent)]
    Launch(#[from] rcon_launch::Error),
    /// The network could not be made.
    #[error(transparent)]
    Net(#[from] rcon_net::Error),
    /// The user ended it (ctrl-c).
    #[error("interrupted")]
    Interrupted,
    /// Nobody reads the output any more.
    #[error("the output is not read any more: broken pipe")]
    GoneReader,
}

/// The way out where images and containers cannot be kept.
const ANOTHER_PLACE: &str =
    "another place for images and containers can be given with --root or XDG_DATA_HOME";

/// The same for what only running containers need.
const ANOTHER_RUNROOT: &str =
    "another place for what running containers need can be given with --runroot or XDG_RUNTIME_DIR";

/// The engine's results.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The exit code of a command whose output is not read any more: what a shell has for a program that SIGPIPE ended.
    pub const GONE_READER: i32 = 128 + libc::SIGPIPE;

    /// For what was written to standard output and to no other pipe: a broken one means that nobody reads it.
    pub(crate) fn or_gone_reader(self) -> Error {
        match &self {
            Error::Io { source, .. }
            | Error::Store(rcon_store::Error::Stream(source))
            | Error::Image(
                rcon_image::Error::Io { source, .. }
                | rcon_image::Error::Store(rcon_store::Error::Stream(source)),
            ) if source.kind() == io::ErrorKind::BrokenPipe => Error::GoneReader,
            _ => self,
        }
    }

    /// The exit code for a command that fails with this: 127 for a program that does not exist in the container, 126 for one
    /// that cannot be run (as podman has it, also for want of a port or of the working directory), 130 after ctrl-c, 125 for
    /// everything of ours.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Remote { code, .. } => *code,
            Error::Launch(e) => e.exit_code(),
            Error::Net(
                rcon_net::Error::PrivilegedPort { .. }
                | rcon_net::Error::Bind { .. }
                | rcon_net::Error::TooManyPorts { .. },
            )
            | Error::Bundle(rcon_bundle::Error::NoWorkdir { .. }) => 126,
            Error::Interrupted => 130,
            Error::GoneReader => Self::GONE_READER,
            Error::ExecNotRunning => 255,
            _ => 125,
        }
    }

    /// What the user can do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        self.general_hint().map(crate::doctor::placed)
    }

    /// The same, as it is for every place.
    pub(crate) fn general_hint(&self) -> Option<String> {
        match self {
            Error::Remote { hint, .. } => hint.clone(),
            Error::Newer { .. } => Some(
                "use that version; nothing is changed here. `--root` names another place for this one".into(),
            ),
            Error::Launch(e) => e.hint(),
            Error::Net(e) => e.hint(),
            Error::Image(e) => e.hint(),
            Error::Store(e) => e.hint(),
            Error::Bundle(e) => e.hint(),
            Error::Io { source, .. } => match source.raw_os_error() {
                Some(libc::ENOSPC) => Some(
                    "free some space: `rcon rm` and `rcon rmi` give back what is not used".into(),
                ),
                Some(libc::EROFS) => Some(ANOTHER_PLACE.into()),
                Some(libc::EDQUOT) => Some("your disk quota is used up".into()),
                Some(libc::ENOSYS) => rcon_sys::floor::remedy(),
                _ => rcon_sys::forbidden::hint_of(source),
            },
            _ => None,
        }
    }

    /// The same, with the way out when it is the place for our directories, `runroot` or `root`, where nothing can be made.
    pub(crate) fn in_wrong_place(self, runroot: bool) -> Error {
        let hint = match runroot {
            true => ANOTHER_RUNROOT,
            false => ANOTHER_PLACE,
        };
        match &self {
            Error::Io { source, .. } if cannot_be_made(source) => Error::Remote {
                message: self.to_string(),
                code: self.exit_code(),
                hint: Some(hint.into()),
            },
            _ => self,
        }
    }

    /// An [`Error::Io`] that says what was being done.
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::Io {
            what: what.into(),
            source: source.into(),
        }
    }
}

/// Whether a directory and those above it cannot be made where they are wanted, whoever tries: `/proc` says that there is no
/// such file, a file on the way is none.
fn cannot_be_made(error: &io::Error) -> bool {
    use libc::{EACCES, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EROFS};
    let numbers = [
        EACCES,
        EPERM,
        EROFS,
        ENOENT,
        ENOTDIR,
        ELOOP,
        ENAMETOOLONG,
        EINVAL,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| numbers.contains(&code))
}

/// Turns a failed system call into an [`Error`] that says what was being done.
pub(crate) trait Context<T> {
    /// `what` is a phrase such as `cannot write /a/b`.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
    /// The usual phrase: `verb path`.
    fn on(self, verb: &str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::io(what(), e))
    }

    fn on(self, verb: &str, path: &Path) -> Result<T> {
        self.map_err(|e| Error::io(format!("cannot {verb} {}", path.display()), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_ours_names_the_way_out() {
        let error = |code| Error::io("cannot create /x", io::Error::from_raw_os_error(code));
        assert_eq!(error(libc::EACCES).hint(), None);
        for code in [libc::EACCES, libc::EROFS, libc::ENOENT, libc::ENOTDIR] {
            for (runroot, option) in [(false, "--root"), (true, "--runroot")] {
                let error = error(code).in_wrong_place(runroot);
                assert!(error.to_string().starts_with("cannot create /x: "));
                assert!(error.hint().unwrap().contains(option));
            }
        }
        assert_eq!(error(libc::EIO).in_wrong_place(false).hint(), None);
    }
}
