//! A command in the user namespace of the containers, to look at their files with their ids.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigSet, Signal};

use crate::Engine;
use crate::error::{Context, Error, Result};
use crate::monitor::exit_code;
use crate::terminal::Signals;
use crate::worker;

/// What the child says before it becomes the command.
const ENTERED: &[u8] = b"e";

impl Engine {
    /// Runs a command as the root of a user namespace with the containers' ids; its exit code. Without a command, the
    /// user's shell.
    ///
    /// # Errors
    /// When there is no such program (127), it cannot be run (126), or user namespaces are refused.
    pub fn unshare(&self, command: &[String]) -> Result<i32> {
        let shell = || {
            std::env::var("SHELL")
                .ok()
                .filter(|s| !s.is_empty())
                .unwrap_or_else(|| "/bin/sh".into())
        };
        let (program, arguments) = match command.split_first() {
            Some((program, arguments)) => (program.clone(), arguments),
            None => (shell(), &[][..]),
        };
        let why = || "cannot enter a user namespace".to_string();
        // The keys that end it are for the command; we wait for it in any case.
        let signals = Signals::take(&[Signal::SIGINT, Signal::SIGQUIT]).context(why)?;
        let (status, said) = rcon_sys::userns::run(&self.maps, |out| {
            let _ = SigSet::empty().thread_set_mask();
            // We are in; what ends with any code from now on is the command.
            let _ = out.write_all(ENTERED);
            let error = Command::new(&program)
                .args(arguments)
                .env("CONTAINERS_GRAPHROOT", &self.paths.root)
                .env("CONTAINERS_RUNROOT", &self.paths.runroot)
                .exec();
            // Only a failure comes back.
            let code = error.raw_os_error().unwrap_or(libc::EIO);
            let _ = out.write_all(&code.to_le_bytes());
            1
        })
        .context(why)?;
        drop(signals);
        let Some(failure) = said.strip_prefix(ENTERED) else {
            return Err(worker::powerless());
        };
        let Ok(code) = <[u8; 4]>::try_from(failure) else {
            return Ok(exit_code(status));
        };
        let source = std::io::Error::from_raw_os_error(i32::from_le_bytes(code));
        Err(Error::Remote {
            message: format!(
                "cannot run {program:?}: {}",
                rcon_sys::errors::in_words(&source)
            ),
            code: if source.kind() == std::io::ErrorKind::NotFound {
                127
            } else {
                126
            },
            hint: None,
        })
    }
}
