//! Waiting for descriptors and deadlines: epoll, and the names that events come back with.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::slab::Key;

/// How many events one wait brings at most; what is left comes with the next.
const EVENTS: usize = 64;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The tap has frames.
    Tap,
    /// The end has come.
    Stop,
    /// The process that started this one says something.
    Supervisor,
    /// Somebody wants to look at the network.
    Control,
    /// Somebody who looks at the network.
    ControlClient,
    /// Another thread of ours says something.
    Wake,
    /// A TCP flow's host socket, or its timer.
    Tcp,
    /// A UDP flow's host socket, or its expiry.
    Udp,
    /// A ping's host socket, or its expiry.
    Echo,
    /// A name query's host socket, or its next attempt.
    Dns,
    /// A published UDP port, or the expiry of one of its clients.
    UdpPort,
    /// A client of a published UDP port has a socket of its own inside.
    UdpInner,
    /// A published TCP port.
    TcpPort,
    /// A relayed connection's socket towards the client.
    RelayClient,
    /// A relayed connection's socket towards the container.
    RelayServer,
}

impl Kind {
    const ALL: [Kind; 15] = [
        Kind::Tap,
        Kind::Stop,
        Kind::Supervisor,
        Kind::Control,
        Kind::ControlClient,
        Kind::Wake,
        Kind::Tcp,
        Kind::Udp,
        Kind::Echo,
        Kind::Dns,
        Kind::UdpPort,
        Kind::UdpInner,
        Kind::TcpPort,
        Kind::RelayClient,
        Kind::RelayServer,
    ];

    /// Whether it is one of many that come and go with what the container and its clients do.
    fn is_connection(self) -> bool {
        use Kind::{Dns, Echo, RelayClient, RelayServer, Tcp, Udp, UdpInner};
        matches!(
            self,
            Tcp | Udp | Echo | Dns | UdpInner | RelayClient | RelayServer
        )
    }
}

/// The name of something that has events: what it is, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
}

impl Token {
    pub(crate) fn new(kind: Kind, key: Key) -> Token {
        Token { kind, key }
    }

    /// The name of what there is one of.
    pub(crate) fn only(kind: Kind) -> Token {
        Token::new(kind, Key::default())
    }

    fn pack(self) -> u64 {
        (self.kind as u64) << 56 | self.key.pack()
    }

    fn unpack(data: u64) -> Option<Token> {
        let kind = *Kind::ALL.get((data >> 56) as usize)?;
        Some(Token::new(kind, Key::unpack(data & ((1 << 56) - 1))))
    }
}

/// What became of a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: Token,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The other end will send no more: what is read is all there is.
    pub(crate) hung_up: bool,
    /// Something urgent is among what is to be read: reading stops before it.
    pub(crate) urgent: bool,
    /// The socket has an error, or is dead in both directions.
    pub(crate) failed: bool,
}

/// How long is looked again and again before sleeping, where something is due to come at once: about
/// what it takes to be woken.
const SPIN: Duration = Duration::from_micros(30);
/// A sleep shorter than this is one that the next is likely to be like.
const NAP: Duration = Duration::from_micros(60);
/// How far the count of changes from one connection to another goes: as many events of one alone
/// after another, and it has the thread for itself again.
const CROWD: u8 = 8;
/// What moves so much in one turn, in bytes, is not waiting for an answer: the longer the sleep, the
/// more there is to share the cost of being woken.
const BULK: u64 = 64 * 1024;

/// Whether to sleep at once.
#[derive(Debug, Default)]
pub(crate) struct Alertness {
    /// The last sleep was short.
    napped: bool,
    /// The connection that the last event was of.
    last: Option<Key>,
    /// Goes up with each event of another connection than the last, and down with each of the same.
    crowd: u8,
}

impl Alertness {
    /// Waits like [`Poller::wait`]. Where small things follow one another closely, falling asleep and
    /// being woken takes longer than what is waited for: then it stays awake for a moment, giving
    /// way to whoever wants to run. Who is left alone for longer, or is busy, does not; nor who serves
    /// many at a time, where the processor is of more use to those at either end, and what comes
    /// meanwhile is served by one waking.
    pub(crate) fn wait(
        &mut self,
        poller: &Poller,
        ready: &mut Vec<Ready>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return poller.wait(ready, timeout);
        }
        let start = Instant::now();
        while self.napped && self.crowd <= 1 && start.elapsed() < SPIN {
            poller.wait(ready, Some(Duration::ZERO))?;
            if !ready.is_empty() {
                self.notice(ready);
                return Ok(());
            }
            rustix::thread::sched_yield();
        }
        let start = Instant::now();
        poller.wait(ready, timeout)?;
        self.napped = !ready.is_empty() && start.elapsed() < NAP;
        self.notice(ready);
        Ok(())
    }

    /// Counts changes from one connection to another.
    fn notice(&mut self, ready: &[Ready]) {
        for event in ready
            .iter()
            .filter(|event| event.token.kind.is_connection())
        {
            let key = Some(event.token.key);
            self.crowd = match self.last == key {
                true => self.crowd.saturating_sub(1),
                false => (self.crowd + 1).min(CROWD),
            };
            self.last = key;
        }
    }

    /// Learns how many bytes were moved in the turn that ends.
    pub(crate) fn moved(&mut self, bytes: u64) {
        self.napped &= bytes < BULK;
    }
}

/// An epoll instance.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Poller> {
        Ok(Poller {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
        })
    }

    /// Reports reading as long as there is something to read.
    pub(crate) fn add_readable(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        self.add(fd, token, EventFlags::IN)
    }

    /// Reports each change to readable or writable once.
    pub(crate) fn add_stream(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        self.add(
            fd,
            token,
            EventFlags::IN | EventFlags::PRI | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
        )
    }

    /// Ends the reports about a descriptor. Closing it is not enough where another process has it too.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        // What is not watched needs no end.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Stops or resumes the reports asked for with [`Poller::add_readable`].
    pub(crate) fn pause(&self, fd: impl AsFd, token: Token, paused: bool) -> io::Result<()> {
        let flags = match paused {
            true => EventFlags::empty(),
            false => EventFlags::IN,
        };
        Ok(epoll::modify(
            &self.epoll,
            fd,
            EventData::new_u64(token.pack()),
            flags,
        )?)
    }

    fn add(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            fd,
            EventData::new_u64(token.pack()),
            flags,
        )?)
    }

    /// Waits until something happens or the time is up (`None`: for ever), and puts what happened
    /// into `ready`, which is emptied first.
    pub(crate) fn wait(&self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        let timeout = timeout.map(|timeout| rustix::time::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut events = [epoll::Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        }; EVENTS];
        let count = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        ready.extend(events[..count].iter().filter_map(|event| {
            let flags = event.flags;
            let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            Some(Ready {
                token: Token::unpack(event.data.u64())?,
                readable: failed
                    || flags.intersects(EventFlags::IN | EventFlags::PRI | EventFlags::RDHUP),
                writable: failed || flags.contains(EventFlags::OUT),
                hung_up: failed || flags.contains(EventFlags::RDHUP),
                urgent: flags.contains(EventFlags::PRI),
                failed,
            })
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_kernel() {
        for kind in Kind::ALL {
            let token = Token::new(kind, Key::unpack(0x00ab_cdef_0123_4567));
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(u64::MAX), None);
    }

    #[test]
    fn one_connection_among_many_is_told_from_one_alone() {
        let event = |kind, number| Ready {
            token: Token::new(kind, Key::unpack(number)),
            readable: true,
            writable: false,
            hung_up: false,
            urgent: false,
            failed: false,
        };
        let mut alertness = Alertness::default();
        // Connections one after another, each with news of both of its sides.
        for number in 0..10 {
            alertness.notice(&[event(Kind::TcpPort, 0)]);
            for _ in 0..3 {
                alertness.notice(&[event(Kind::RelayClient, number)]);
                alertness.notice(&[event(Kind::RelayServer, number)]);
                assert!(alertness.crowd <= 1);
            }
        }
        for turn in 0..100 {
            let number = turn * 7 % 32;
            alertness.notice(&[event(Kind::Tap, 0), event(Kind::Tcp, number)]);
        }
        assert_eq!(alertness.crowd, CROWD);
        for _ in 0..CROWD {
            assert!(alertness.crowd > 0);
            alertness.notice(&[event(Kind::Tcp, 99 * 7 % 32), event(Kind::Tap, 0)]);
        }
        assert_eq!(alertness.crowd, 0);
    }
}
