//! The caller's side.

use std::os::fd::OwnedFd;

use crate::error::{Error, Result};
use crate::request::{Request, Running};

/// A container whose every part is set up and whose program waits to be started.
#[derive(Debug)]
pub struct Created {
    /// What there is of it.
    pub running: Running,
    channel: OwnedFd,
}

/// Make the container.
pub fn create(request: Request<'_>) -> Result<Created> {
    let _ = request;
    Err(Error::Invalid(String::new()))
}

impl Created {
    /// Start the program.
    pub fn start(self) -> Result<Running> {
        drop(self.channel);
        Ok(self.running)
    }

    /// Give the container up.
    pub fn abort(self) {}
}
