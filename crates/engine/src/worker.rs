//! Work on files of other owners: done in a child that is root over the containers' ids, with its result handed back.

use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal};
use rcon_store::Store;
use rustix::event::{PollFd, PollFlags, poll};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::error::{Context, Error, Result};
use crate::terminal::Signals;

/// What the child says at its end.
#[derive(Serialize, Deserialize)]
enum Answer<T> {
    Done(T),
    Interrupted,
    Failed {
        message: String,
        code: i32,
        hint: Option<String>,
    },
}

impl Engine {
    /// Runs `work` in a child that is root of a new user namespace with the containers' ids, and gives back what it found.
    /// Signals that end a command go to the child, which cleans up; this process stays until it has.
    pub(crate) fn in_worker<T, E>(
        &self,
        work: impl FnOnce(&Store) -> std::result::Result<T, E>,
    ) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        E: Into<Error>,
    {
        let why = || "cannot work with the ids of containers".to_string();
        let mut signals =
            Signals::take(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]).context(why)?;
        let worker = rcon_sys::userns::spawn(&self.maps, |out| {
            let _ = SigSet::empty().thread_set_mask();
            // A descriptor of our own: the parent's may be in use with an offset.
            let answer = match self.open_store() {
                Ok(store) => match work(&store).map_err(Into::into) {
                    Ok(value) => Answer::Done(value),
                    Err(error) => refuse(&error),
                },
                Err(error) => refuse(&error),
            };
            match serde_json::to_vec(&answer).map(|text| out.write_all(&text)) {
                Ok(Ok(())) => 0,
                _ => 1,
            }
        })
        .context(why)?;
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(worker.output(), PollFlags::IN),
                PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            ];
            rustix::io::retry_on_intr(|| poll(&mut fds, None)).context(why)?;
            let [output, signal] = fds.map(|fd| !fd.revents().is_empty());
            if signal {
                while let Some(signal) = signals.take_next() {
                    let _ = rcon_sys::process::pidfd_send_signal(&worker.pidfd, signal);
                }
            }
            // It speaks only once, at its end.
            if output {
                break;
            }
        }
        let (status, text) = worker.finish().context(why)?;
        match serde_json::from_slice(&text) {
            Ok(Answer::Done(value)) => Ok(value),
            Ok(Answer::Interrupted) => Err(Error::Interrupted),
            Ok(Answer::Failed {
                message,
                code,
                hint,
            }) => Err(Error::Remote {
                message,
                code,
                hint,
            }),
            Err(_) if status.code() == Some(rcon_sys::userns::NOT_SET_UP) => Err(powerless()),
            Err(_) => Err(Error::Invalid(format!(
                "the process that worked on the store ended early: {status}"
            ))),
        }
    }
}

/// A new user namespace has no rights.
pub(crate) fn powerless() -> Error {
    Error::Remote {
        message: "user namespaces can be made here but have no rights".into(),
        code: 125,
        hint: Some(rcon_sys::forbidden::restricted().unwrap_or_else(|| {
            "a security policy of this machine (SELinux or another) allows nothing in them; its \
             audit log names the rule"
                .to_owned()
        })),
    }
}

fn refuse<T>(error: &Error) -> Answer<T> {
    match error {
        Error::Interrupted | Error::Image(rcon_image::Error::Interrupted) => Answer::Interrupted,
        error => Answer::Failed {
            message: error.to_string(),
            code: error.exit_code(),
            hint: error.hint(),
        },
    }
}
