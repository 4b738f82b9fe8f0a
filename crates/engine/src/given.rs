//! Open files that a command hands on to a program in a container: `--preserve-fds`, socket activation, `passthrough`.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use crate::Inherit;
use crate::error::{Context, Error, Result};

/// The files themselves.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// What becomes descriptors 3, 4, ….
    pub files: Vec<OwnedFd>,
    /// What the program finds in its environment.
    pub environment: Vec<String>,
    /// Our own standard streams, for a program whose output nobody keeps.
    pub stdio: Option<[OwnedFd; 3]>,
}

impl Given {
    /// Takes copies of the files that `inherit` names.
    pub fn take(inherit: &Inherit) -> Result<Given> {
        let mut files = Vec::new();
        for number in &inherit.files {
            files.push(match number {
                Some(number) => rcon_sys::descriptors::inherited(*number).map_err(|_| {
                    Error::Invalid(format!(
                        "file descriptor {number} is not available - the preserve-fds option requires that file descriptors must be passed"
                    ))
                })?,
                // What is between two numbers that were asked for must be something.
                None => File::open("/dev/null")
                    .context(|| "cannot open /dev/null".into())?
                    .into(),
            });
        }
        let mut environment = Vec::new();
        if inherit.listen > 0 {
            // The program is PID 1 of its namespace.
            environment.push("LISTEN_PID=1".to_owned());
            environment.push(format!("LISTEN_FDS={}", inherit.listen));
            if let Some(names) = &inherit.listen_names {
                environment.push(format!("LISTEN_FDNAMES={names}"));
            }
        }
        Ok(Given {
            files,
            environment,
            stdio: None,
        })
    }

    /// Adds our own standard streams.
    pub fn with_stdio(mut self) -> Result<Given> {
        let why = || "cannot copy the standard streams".to_string();
        self.stdio = Some([
            std::io::stdin().as_fd().try_clone_to_owned().context(why)?,
            std::io::stdout()
                .as_fd()
                .try_clone_to_owned()
                .context(why)?,
            std::io::stderr()
                .as_fd()
                .try_clone_to_owned()
                .context(why)?,
        ]);
        Ok(self)
    }

    /// All of them.
    pub fn fds(&self) -> impl Iterator<Item = &OwnedFd> {
        self.files.iter().chain(self.stdio.iter().flatten())
    }

    /// Copies of the files, for one start.
    pub fn copies(&self) -> std::io::Result<Vec<OwnedFd>> {
        self.files.iter().map(OwnedFd::try_clone).collect()
    }

    /// Copies of the standard streams, for one start.
    pub fn stdio_copies(&self) -> std::io::Result<Option<[OwnedFd; 3]>> {
        let Some([a, b, c]) = &self.stdio else {
            return Ok(None);
        };
        Ok(Some([a.try_clone()?, b.try_clone()?, c.try_clone()?]))
    }
}
