//! A network process whose container has ended, while bytes of the container's are on their way.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rcon_sys::process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::channel::{self, Received, Word};

/// A network process that delivers what its container sent before it ended. It has closed the ports, ends by itself, and
/// needs nobody; dropping this changes nothing about it.
#[derive(Debug)]
pub struct Lingering {
    process: OwnedFd,
}

impl Lingering {
    pub(super) fn new(process: OwnedFd) -> Lingering {
        Lingering { process }
    }

    /// Readable when it has ended; [`Lingering::bury`] is to be called then by whoever lives on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Leaves nothing of one that has ended.
    pub fn bury(self) {
        let _ = process::wait_pidfd(&self.process);
    }

    /// Ends it at once: its connections are reset.
    pub fn end(self) {
        let _ = process::pidfd_send_signal(&self.process, libc::SIGKILL);
        self.bury();
    }
}

/// What has become of a network process that was told of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Ended,
    Lingers,
    /// It has not answered in time.
    Neither,
}

/// Waits until the process has ended or says that it lingers, for so long.
pub(super) fn await_end(process: &OwnedFd, channel: &OwnedFd, limit: Duration) -> After {
    let end = Instant::now() + limit;
    let mut listens = true;
    loop {
        let Ok(left) = Timespec::try_from(end.saturating_duration_since(Instant::now())) else {
            return After::Neither;
        };
        let mut fds = [
            PollFd::new(process, PollFlags::IN),
            PollFd::new(channel, PollFlags::IN),
        ];
        let watched = &mut fds[..1 + usize::from(listens)];
        if !matches!(
            rustix::io::retry_on_intr(|| poll(watched, Some(&left))),
            Ok(1..)
        ) {
            return After::Neither;
        }
        if !fds[0].revents().is_empty() {
            return After::Ended;
        }
        match channel::receive::<Word>(channel) {
            Received::Message(Word::Lingers, _) => return After::Lingers,
            Received::Message(..) | Received::Nothing => {}
            // It is about to end.
            Received::End => listens = false,
        }
    }
}
