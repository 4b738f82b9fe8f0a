//! The network process of a container, seen from its monitor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::signal::SigSet;
use rcon_net::Listeners;
use rcon_sys::process::{self, Fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Context, Result};

/// How long the network may take to bring out what the container sent last.
const GRACE: Duration = Duration::from_millis(500);

/// A running network process; dropping this ends it.
#[derive(Debug)]
pub(super) struct NetProcess {
    pidfd: OwnedFd,
    /// It ends when this is closed, and so when the monitor dies.
    stop: Option<OwnedFd>,
}

impl NetProcess {
    /// Forks the process that serves the container's network.
    pub fn start(
        config: &rcon_net::Config,
        tap: OwnedFd,
        listeners: Listeners,
        userns: OwnedFd,
        netns: OwnedFd,
    ) -> Result<NetProcess> {
        let why = || "cannot start the network".to_string();
        let (ended, stop) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(why)?;
        match process::fork().context(why)? {
            Fork::Child => {
                let mut keep: Vec<_> = [&tap, &userns, &netns, &ended]
                    .iter()
                    .map(|fd| fd.as_raw_fd())
                    .collect();
                keep.extend(listeners.fds().map(|fd| fd.as_raw_fd()));
                // What goes belongs to the monitor, whose values in this copy of its memory are never dropped.
                process::close_range_except(3, &keep);
                let _ = process::set_name("rcon-net");
                let _ = SigSet::empty().thread_set_mask();
                let served = rcon_net::serve(config, tap, listeners, userns, netns, ended);
                process::exit_now(i32::from(served.is_err()))
            }
            Fork::Parent { pidfd, .. } => Ok(NetProcess {
                pidfd,
                stop: Some(stop),
            }),
        }
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Ends it; its ports are closed when this returns.
    fn end(&mut self) {
        self.stop = None;
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let limit = Timespec::try_from(GRACE).ok();
        if !matches!(
            rustix::io::retry_on_intr(|| poll(&mut fds, limit.as_ref())),
            Ok(1)
        ) {
            let _ = process::pidfd_send_signal(&self.pidfd, libc::SIGKILL);
        }
        let _ = process::wait_pidfd(&self.pidfd);
    }
}

impl Drop for NetProcess {
    fn drop(&mut self) {
        self.end();
    }
}
