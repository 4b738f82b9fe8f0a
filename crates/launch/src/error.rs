//! What can go wrong between a bundle and a running program, and how it travels.
//!
//! Most of the work happens in the new process, so most errors do too. They come back to the
//! caller over the socket between the two, whole and typed: [`Error::encode`] and
//! [`Error::decode`] are the two ends of that.

use nix::errno::Errno;
use rcon_sys::{floor, forbidden};

use crate::wire::{Reader, Writer};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a container could not be made or a program not be started in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel or its administrator does not let this user make namespaces.
    #[error("cannot create the namespaces of the container: {}", forbidden::reason(*.errno))]
    Namespaces {
        /// The error number of clone(2).
        errno: i32,
    },
    /// The ids of the container could not be mapped.
    #[error("{message}")]
    Ids {
        /// What failed and why.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// This kernel or file system does not take the layers as an overlay of an ordinary user.
    ///
    /// The caller can fall back to a root filesystem of another kind.
    #[error("cannot mount the layers of the root filesystem as an overlay: {}", describe(*.errno))]
    Overlay {
        /// The error number of mount(2).
        errno: i32,
    },
    /// A step of the set-up failed.
    #[error("{step}: {}", describe(*.errno))]
    Setup {
        /// What was being done, with the path or name it was done to.
        step: String,
        /// The error number.
        errno: i32,
    },
    /// The request asks for what makes no sense or cannot be had.
    #[error("{0}")]
    Invalid(String),
    /// The cgroup of the container, or a limit, cannot be had.
    #[error("{message}")]
    Cgroup {
        /// What failed and why.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The set-up of the network failed.
    #[error("{}", .0.message)]
    Network(NetworkFailure),
    /// The user is not in the container's passwd file.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// The group is not in the container's group file.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// The id exists but this user has no id of their own to stand for it.
    #[error("{kind} id {id} is not mapped into the container")]
    Unmapped {
        /// `user` or `group`.
        kind: String,
        /// The id inside.
        id: u32,
    },
    /// The working directory does not exist.
    #[error("workdir {0:?} does not exist on container")]
    NoWorkdir(String),
    /// The working directory is no directory.
    #[error("workdir {0:?} exists on container, but is not a directory")]
    NotFolder(String),
    /// The working directory cannot be entered.
    #[error("cannot enter the working directory {path:?}: {}", describe(*.errno))]
    Workdir {
        /// The directory.
        path: String,
        /// The error number.
        errno: i32,
    },
    /// No such program, neither by its path nor in `PATH`.
    #[error("executable file `{0}` not found in $PATH: No such file or directory")]
    NotFound(String),
    /// The program is there and cannot be executed.
    #[error("open executable `{program}`: {}", describe(*.errno))]
    NotExecutable {
        /// The program as asked for.
        program: String,
        /// The error number of execve(2).
        errno: i32,
    },
    /// A hook of the specification failed.
    #[error("{0}")]
    Hook(String),
    /// The new process went away without a word.
    #[error("the container ended while it was being set up: {0}")]
    Died(String),
}

/// What [`crate::InNetns`] fails with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFailure {
    /// What failed and why.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl From<String> for NetworkFailure {
    fn from(message: String) -> Self {
        Self {
            message,
            hint: None,
        }
    }
}

/// The words for an error number, as strerror(3) has them.
pub fn describe(errno: i32) -> &'static str {
    Errno::from_raw(errno).desc()
}

/// Where an error of the system happened, put to it with [`Context::context`].
pub(crate) trait Context<T> {
    /// The error with the step it happened in.
    fn context(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: RawError> Context<T> for std::result::Result<T, E> {
    fn context(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Setup {
            step: step(),
            errno: error.raw(),
        })
    }
}

/// The error types of the libraries that carry an error number.
pub(crate) trait RawError {
    /// The number.
    fn raw(&self) -> i32;
}

impl RawError for rustix::io::Errno {
    fn raw(&self) -> i32 {
        self.raw_os_error()
    }
}

impl RawError for std::io::Error {
    fn raw(&self) -> i32 {
        self.raw_os_error().unwrap_or(libc::EIO)
    }
}

impl RawError for Errno {
    fn raw(&self) -> i32 {
        *self as i32
    }
}

impl Error {
    /// The exit code of a command that fails for this reason, as podman has it: 127 for a program
    /// that is not there, 126 for what else keeps it from being run, 125 for our own troubles.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotExecutable { errno, .. } if *errno == libc::ENOENT => 127,
            Self::NotExecutable { .. }
            | Self::NoWorkdir(_)
            | Self::NotFolder(_)
            | Self::Workdir { .. } => 126,
            Self::NoUser(_) | Self::NoGroup(_) | Self::Unmapped { .. } | Self::Setup { .. } => 126,
            Self::Namespaces { .. }
            | Self::Ids { .. }
            | Self::Cgroup { .. }
            | Self::Overlay { .. }
            | Self::Invalid(_)
            | Self::Network(_)
            | Self::Hook(_)
            | Self::Died(_) => 125,
        }
    }

    /// What the user can do about it, where something can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Namespaces { errno } => forbidden::remedy(*errno),
            // What the root of a user namespace may do, and yet may not.
            Self::Setup { errno, .. } => match *errno {
                libc::EPERM => forbidden::restricted(),
                libc::EACCES => forbidden::powerless(),
                libc::ENOSYS => floor::remedy(),
                _ => None,
            },
            Self::Ids { hint, .. } | Self::Cgroup { hint, .. } => hint.clone(),
            Self::Network(failure) => failure.hint.clone(),
            Self::Overlay { errno } => Some(match [libc::EPERM, libc::EACCES].contains(errno) {
                true => forbidden::restricted(),
                false => None,
            }
            .unwrap_or_else(|| {
                "overlay mounts of ordinary users need Linux 5.11 or later and a storage folder \
                 on a local file system that is not itself an overlay"
                    .to_owned()
            })),
            Self::Unmapped { kind, .. } => Some(format!(
                "give yourself more subordinate {kind} ids in /etc/sub{}",
                if kind == "user" { "uid" } else { "gid" }
            )),
            Self::NotExecutable { errno, .. } if *errno == libc::ENOEXEC => Some(
                "the file is not a program of this architecture, or a script without a first \
                 line like #!/bin/sh"
                    .to_owned(),
            ),
            Self::NotExecutable { errno, .. } if *errno == libc::ENOENT => Some(
                "the file is there, but what executes it is not: the interpreter in its first \
                 line, or the dynamic loader of the libc that it was built for"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// The bytes that [`Error::decode`] makes the same error of.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (tag, errno, first, second): (u8, i32, &str, Option<&str>) = match self {
            Self::Namespaces { errno } => (0, *errno, "", None),
            Self::Ids { message, hint } => (1, 0, message, hint.as_deref()),
            Self::Overlay { errno } => (2, *errno, "", None),
            Self::Setup { step, errno } => (3, *errno, step, None),
            Self::Invalid(what) => (4, 0, what, None),
            Self::Network(failure) => (5, 0, &failure.message, failure.hint.as_deref()),
            Self::NoUser(name) => (6, 0, name, None),
            Self::NoGroup(name) => (7, 0, name, None),
            Self::Unmapped { kind, id } => (8, id.cast_signed(), kind, None),
            Self::NoWorkdir(path) => (9, 0, path, None),
            Self::Workdir { path, errno } => (10, *errno, path, None),
            Self::NotFound(program) => (11, 0, program, None),
            Self::NotExecutable { program, errno } => (12, *errno, program, None),
            Self::Died(what) => (13, 0, what, None),
            Self::NotFolder(path) => (14, 0, path, None),
            Self::Cgroup { message, hint } => (40, 0, message, hint.as_deref()),
            Self::Hook(what) => (15, 0, what, None),
        };
        let mut writer = Writer::default();
        writer.byte(tag);
        writer.number(errno.cast_unsigned());
        writer.text(first);
        if let Some(second) = second {
            writer.text(second);
        }
        writer.finish()
    }

    /// The error in `bytes`; anything that [`Error::encode`] did not write is a [`Error::Died`].
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        Self::read(bytes).unwrap_or_else(|| Self::Died("it sent what is no message".to_owned()))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let tag = reader.byte()?;
        let errno = reader.number()?.cast_signed();
        let text = reader.text()?;
        Some(match tag {
            0 => Self::Namespaces { errno },
            1 => Self::Ids {
                message: text,
                hint: reader.text(),
            },
            2 => Self::Overlay { errno },
            3 => Self::Setup { step: text, errno },
            4 => Self::Invalid(text),
            5 => Self::Network(NetworkFailure {
                message: text,
                hint: reader.text(),
            }),
            6 => Self::NoUser(text),
            7 => Self::NoGroup(text),
            8 => Self::Unmapped {
                kind: text,
                id: errno.cast_unsigned(),
            },
            9 => Self::NoWorkdir(text),
            10 => Self::Workdir { path: text, errno },
            11 => Self::NotFound(text),
            12 => Self::NotExecutable {
                program: text,
                errno,
            },
            13 => Self::Died(text),
            14 => Self::NotFolder(text),
            40 => Self::Cgroup {
                message: text,
                hint: reader.text(),
            },
            15 => Self::Hook(text),
            _ => return None,
        })
    }
}

impl From<crate::cgroup::Error> for Error {
    fn from(error: crate::cgroup::Error) -> Self {
        Self::Cgroup {
            message: error.to_string(),
            hint: error.hint(),
        }
    }
}

impl From<rcon_sys::ids::IdError> for Error {
    fn from(error: rcon_sys::ids::IdError) -> Self {
        Self::Ids {
            message: error.to_string(),
            hint: error.hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_wire() {
        let text = || "päth\n".to_owned();
        let all = [
            Error::Namespaces { errno: 1 },
            Error::Ids {
                message: text(),
                hint: None,
            },
            Error::Ids {
                message: text(),
                hint: Some(String::new()),
            },
            Error::Cgroup {
                message: text(),
                hint: Some(text()),
            },
            Error::Overlay { errno: 22 },
            Error::Setup {
                step: text(),
                errno: -1,
            },
            Error::Invalid(text()),
            Error::Network(text().into()),
            Error::Network(NetworkFailure {
                message: text(),
                hint: Some(text()),
            }),
            Error::NoUser(text()),
            Error::NoGroup(text()),
            Error::Unmapped {
                kind: "group".to_owned(),
                id: u32::MAX,
            },
            Error::NoWorkdir(text()),
            Error::Workdir {
                path: text(),
                errno: 13,
            },
            Error::NotFound(text()),
            Error::NotExecutable {
                program: text(),
                errno: 8,
            },
            Error::Died(text()),
            Error::NotFolder(text()),
            Error::Hook(text()),
        ];
        for error in all {
            assert_eq!(Error::decode(&error.encode()), error);
        }
    }

    #[test]
    fn noise_is_an_error_too() {
        for bytes in [
            &[][..],
            &[0],
            &[99; 40],
            &[1, 0, 0, 0, 0, 255, 255, 255, 255, 1],
        ] {
            assert!(matches!(Error::decode(bytes), Error::Died(_)), "{bytes:?}");
        }
    }

    #[test]
    fn the_words_are_those_people_know() {
        let error = Error::NotExecutable {
            program: "/etc".to_owned(),
            errno: libc::EACCES,
        };
        assert_eq!(
            error.to_string(),
            "open executable `/etc`: Permission denied"
        );
        assert_eq!(error.exit_code(), 126);
        let error = Error::NotFound("foo".to_owned());
        assert_eq!(
            error.to_string(),
            "executable file `foo` not found in $PATH: No such file or directory"
        );
        assert_eq!(error.exit_code(), 127);
    }
}
