//! What becomes of connections when the container has ended.
//!
//! A kernel goes on sending what a program wrote before it ended. The container's kernel does, too, but its
//! network goes through this process; and of what it has acknowledged for others, some may lie here still. So the
//! network lingers: it takes nothing new, and goes on with the connections whose bytes from the container are not all
//! delivered. As soon as the host's kernel has a connection's last byte and its end, that is closed, and what comes
//! after that is the host's.
//!
//! The container's network namespace is there as long as that takes: the relay's thread is in it, and the tap, which was
//! opened in it, keeps it too, and with it the sockets that programs have left.

use rcon_sys::memory::Rest;
use smoltcp::time::{Duration, Instant};

use super::{FRAMES, Next, Server, Turns};
use crate::channel::{self, Word};
use crate::error::{Error, Result};
use crate::ports::mapping::Protocol;
use crate::ports::relay::RelayThread;

/// How many frames are looked at for ends of connections before anybody is told that there is more to do: half of what
/// the tap's queue holds, many more than a container that has nothing under way leaves.
const LAST_FRAMES: usize = 512;

/// How long the network lingers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// A connection that delivers nothing for so long is reset, at the latest after twice the time.
    pub(crate) stalled: Duration,
    /// All of them together have no more than this.
    pub(crate) whole: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            // What the kernel gives a connection that nobody has open any more: eight attempts, which take
            // somewhat more than a hundred seconds (tcp(7), tcp_orphan_retries).
            stalled: Duration::from_secs(100),
            // The kernel has no such bound; but a process is more than a socket.
            whole: Duration::from_secs(600),
        }
    }
}

/// The clock of something that lingers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    bounds: Bounds,
    end: Instant,
    next: Instant,
}

/// What the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing is due for so long.
    In(Duration),
    /// Connections are to be looked at that have delivered nothing since the last time.
    Look,
    /// The time is up.
    End,
}

impl Watch {
    pub(crate) fn new(bounds: Bounds, now: Instant) -> Watch {
        Watch {
            bounds,
            end: now + bounds.whole,
            next: now + bounds.stalled,
        }
    }

    pub(crate) fn look(&mut self, now: Instant) -> Due {
        if now >= self.end {
            Due::End
        } else if now >= self.next {
            self.next = now + self.bounds.stalled;
            Due::Look
        } else {
            Due::In(self.end.min(self.next) - now)
        }
    }
}

impl Server {
    /// Delivers what the container sent before it ended, and ends.
    pub(super) fn linger(mut self, mut turns: Turns, mut rest: Rest, bounds: Bounds) -> Result<()> {
        if self.stack.tcp_flows() > 0 {
            self.unwatch();
            self.stack.linger();
            self.take_last_frames()?;
        }
        self.stack.forget_datagrams();
        let lingers = self.stack.tcp_flows() > 0;
        let (channel, control) = (self.channel.clone(), std::mem::take(&mut self.control));
        let tell = move |relayed: usize| {
            if lingers || relayed > 0 {
                let _ = channel::send(&*channel, &Word::Lingers, &[]);
            }
            // Where the supervisor has gone, this says it.
            drop(control);
        };
        match &self.relay {
            Some(relay) => relay.linger(bounds, Box::new(tell)),
            None => tell(0),
        }
        let mut watch = Watch::new(bounds, self.clock());
        turns.more = true;
        while self.stack.tcp_flows() > 0 {
            match watch.look(self.clock()) {
                Due::In(time) => {
                    let next = self.turn(&mut turns, &mut rest, Some(time))?;
                    debug_assert_eq!(next, Next::Turn);
                    continue;
                }
                Due::Look => self.stack.give_up(false),
                Due::End => self.stack.give_up(true),
            }
            turns.more = true;
        }
        let Server { relay, channel, .. } = self;
        // Closed with the process: that it is closed wakes the supervisor, and there should be nothing left to wait for.
        std::mem::forget(channel);
        relay
            .map_or(Ok(()), RelayThread::join)
            .map_err(Error::io("cannot relay published ports"))
    }

    /// Hears nothing any more but the tap and the sockets of connections. Others may have the same descriptors, so
    /// closing them would not be enough.
    fn unwatch(&mut self) {
        let poller = &self.stack.io.poller;
        poller.remove(&*self.channel);
        if let Some(process) = self.process.take() {
            poller.remove(&process);
        }
        self.control.unwatch(poller);
        for place in self.places.keys() {
            if place.protocol == Protocol::Udp {
                self.stack.withdraw(place.address);
            }
        }
    }

    /// Takes the frames that are there already: most connections end with them.
    fn take_last_frames(&mut self) -> Result<()> {
        for _ in 0..LAST_FRAMES / FRAMES {
            let before = self.tap.frames_sent;
            self.take_frames(false)?;
            self.stack.flush();
            if self.stack.tcp_flows() == 0 || self.tap.frames_sent == before {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_looks_again_and_again_until_the_end() {
        let bounds = Bounds {
            stalled: Duration::from_secs(10),
            whole: Duration::from_secs(25),
        };
        let at = Instant::from_secs;
        let mut watch = Watch::new(bounds, at(100));
        assert_eq!(watch.look(at(103)), Due::In(Duration::from_secs(7)));
        assert_eq!(watch.look(at(111)), Due::Look);
        assert_eq!(watch.look(at(111)), Due::In(Duration::from_secs(10)));
        assert_eq!(watch.look(at(122)), Due::Look);
        assert_eq!(watch.look(at(122)), Due::In(Duration::from_secs(3)));
        assert_eq!(watch.look(at(125)), Due::End);
    }
}
