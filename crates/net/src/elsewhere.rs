//! Making a device in a network namespace that this process is not in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sched::{CloneFlags, setns};
use rcon_sys::process::{self, Fork};

use crate::error::{Error, Result};

/// Runs `make` in a child that has joined `userns` and `netns`; the device that it made.
pub(crate) fn in_namespace(
    userns: Option<&OwnedFd>,
    netns: &OwnedFd,
    make: impl FnOnce() -> Result<OwnedFd>,
) -> Result<OwnedFd> {
    let why = || Error::io("cannot make the device");
    let (ours, theirs) = rcon_sys::fdpass::pair().map_err(|error| why()(io::Error::from(error)))?;
    match process::fork().map_err(why())? {
        Fork::Child => {
            drop(ours);
            let made = catch_unwind(AssertUnwindSafe(|| {
                enter(userns, netns)?;
                make()
            }));
            let sent = match &made {
                Ok(Ok(tap)) => rcon_sys::fdpass::send_fds(&theirs, b"+", &[tap.as_fd()]),
                Ok(Err(Error::NoTun { source })) => {
                    let code = source.raw_os_error().unwrap_or(libc::EIO);
                    rcon_sys::fdpass::send_fds(&theirs, format!("t{code}").as_bytes(), &[])
                }
                Ok(Err(error)) => {
                    let text = format!("e{error}");
                    rcon_sys::fdpass::send_fds(&theirs, text.as_bytes(), &[])
                }
                Err(_) => Ok(()),
            };
            process::exit_now(i32::from(sent.is_err()))
        }
        Fork::Parent { pidfd, .. } => {
            drop(theirs);
            let mut buffer = [0; 1024];
            let received = rcon_sys::fdpass::recv_fds(&ours, &mut buffer);
            let _ = process::wait_pidfd(&pidfd);
            let (length, mut fds) = received.map_err(|error| why()(io::Error::from(error)))?;
            if let Some(tap) = fds.pop() {
                return Ok(tap);
            }
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            Err(match text.split_at_checked(1) {
                Some(("t", code)) => Error::NoTun {
                    source: io::Error::from_raw_os_error(code.parse().unwrap_or(libc::EIO)),
                },
                Some(("e", message)) => Error::Failed(message.to_owned()),
                _ => why()(io::Error::other("the process that makes it was killed")),
            })
        }
    }
}

fn enter(userns: Option<&OwnedFd>, netns: &OwnedFd) -> Result<()> {
    if let Some(userns) = userns {
        setns(userns, CloneFlags::CLONE_NEWUSER)
            .map_err(|errno| Error::io("cannot join the user namespace")(errno.into()))?;
    }
    setns(netns, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| Error::io("cannot join the network namespace")(errno.into()))
}
