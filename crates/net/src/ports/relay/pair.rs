//! One relayed connection: two sockets, and bytes in two directions.
//!
//! Small exchanges are copied through a buffer that all connections share. A direction that fills
//! that buffer again and again carries bulk, and moves it by splice(2) through a pipe, borrowed
//! for as long as there are bytes at hand.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use rustix::pipe::{SpliceFlags, splice};

use super::pipe::{Pipe, Pipes};
use crate::poll::Ready;
use std::os::fd::AsFd;

/// How often in a row the buffer must be filled for a direction to count as bulk.
const BULK: u8 = 2;
/// How much goes in one direction in one turn, in bytes.
const TURN: usize = 1024 * 1024;

/// One end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The host's socket to the client.
    Client,
    /// The container's socket to the server.
    Server,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// Which socket of a direction has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    /// That which is read: all that came before has been.
    Sender(Errno),
    /// That which is written to.
    Receiver(Errno),
}

/// What became of a connection in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It waits for news.
    Waiting,
    /// It has more to do at once.
    More,
    /// Both directions have ended.
    Over,
}

/// A relayed connection.
#[derive(Debug)]
pub(super) struct Pair {
    client: OwnedFd,
    server: OwnedFd,
    /// Whether the server has taken the connection.
    connected: bool,
    /// The side whose connection has failed: what it sent before is passed on, and then the other side hears of it.
    failed: Option<Side>,
    /// Client to server, server to client.
    there: Direction,
    back: Direction,
    /// Whether the connection waits for its turn.
    pub(super) queued: bool,
    /// How much was moved in its last turn, in bytes.
    pub(super) moved: u64,
    /// Whether the client has got something since somebody looked.
    moved_on: bool,
}

/// Bytes from one socket to the other.
#[derive(Debug, Default)]
struct Direction {
    /// Whether there may be something to read, room to write, as far as we know.
    readable: bool,
    writable: bool,
    /// Whether the sender has said that no more will come, be it unread.
    hung_up: bool,
    /// Whether something urgent came, before which reading stops. Splicing never goes on after it.
    urgent: bool,
    /// Whether all has been read, and whether the receiver was told.
    ended: bool,
    told: bool,
    /// How often in a row the buffer was filled.
    filled: u8,
    pipe: Option<Pipe>,
    /// What was read and found no room.
    rest: Vec<u8>,
    /// Whether the kernel was told that more comes, and so may keep the last bytes back.
    held: bool,
}

impl Pair {
    /// A connection whose server is still being dialed.
    pub(super) fn new(client: OwnedFd, server: OwnedFd) -> Pair {
        Pair {
            client,
            server,
            connected: false,
            failed: None,
            there: Direction::default(),
            back: Direction::default(),
            queued: false,
            moved: 0,
            moved_on: false,
        }
    }

    /// The socket of a side.
    pub(super) fn socket(&self, side: Side) -> BorrowedFd<'_> {
        match side {
            Side::Client => self.client.as_fd(),
            Side::Server => self.server.as_fd(),
        }
    }

    /// Whether the server has taken the connection.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Takes news of one side.
    ///
    /// # Errors
    /// The connection has failed.
    pub(super) fn ready(&mut self, news: &Ready, side: Side) -> Result<(), Errno> {
        if news.failed
            && let Err(error) = sockopt::socket_error(self.socket(side)).and_then(|error| error)
        {
            // A server that answers and closes before it has read all resets the connection: the answer counts.
            if !self.connected {
                return Err(error);
            }
            self.fail(side, error)?;
        }
        let (from, to) = match side {
            Side::Client => (&mut self.there, &mut self.back),
            Side::Server => (&mut self.back, &mut self.there),
        };
        from.readable |= news.readable;
        from.hung_up |= news.hung_up;
        from.urgent |= news.urgent;
        to.writable |= news.writable;
        if side == Side::Server && news.writable {
            self.connected = true;
        }
        Ok(())
    }

    /// Moves what can be moved.
    ///
    /// # Errors
    /// One of the sockets has failed.
    pub(super) fn turn(&mut self, pipes: &mut Pipes, buffer: &mut [u8]) -> Result<Turn, Errno> {
        self.moved = 0;
        if !self.connected {
            return Ok(Turn::Waiting);
        }
        let (mut most, mut again) = (0, false);
        for side in [Side::Client, Side::Server] {
            if self.failed.is_some_and(|failed| failed != side) {
                continue;
            }
            let (direction, from, to) = self.direction(side);
            match direction.run(from, to, pipes, buffer) {
                Ok(count) => {
                    most = most.max(count);
                    self.moved += count as u64;
                    self.moved_on |= side == Side::Server && count > 0;
                }
                Err(Failed::Sender(error)) => {
                    direction.ended = true;
                    self.fail(side, error)?;
                    again = true;
                }
                Err(Failed::Receiver(error)) => {
                    self.fail(side.other(), error)?;
                    again = true;
                }
            }
        }
        if let Some(side) = self.failed {
            let (direction, _, to) = self.direction(side);
            direction.let_go(to);
            if (direction.ended || !direction.readable) && direction.is_empty() {
                return Err(Errno::CONNRESET);
            }
        } else {
            self.there.tell(&self.server, self.back.told);
            self.back.tell(&self.client, self.there.told);
            if self.there.told && self.back.told {
                return Ok(Turn::Over);
            }
        }
        match again || most >= TURN {
            true => Ok(Turn::More),
            false => Ok(Turn::Waiting),
        }
    }

    /// What comes from a side: where it is read and written.
    fn direction(&mut self, from: Side) -> (&mut Direction, &OwnedFd, &OwnedFd) {
        match from {
            Side::Client => (&mut self.there, &self.client, &self.server),
            Side::Server => (&mut self.back, &self.server, &self.client),
        }
    }

    /// Learns that the connection of a side has failed.
    ///
    /// # Errors
    /// So has the other.
    fn fail(&mut self, side: Side, error: Errno) -> Result<(), Errno> {
        if self.failed.is_some_and(|failed| failed != side) {
            return Err(error);
        }
        self.failed = Some(side);
        // What came before the failure can be read still, and then its end.
        let (direction, ..) = self.direction(side);
        direction.readable = true;
        direction.hung_up = true;
        Ok(())
    }

    /// The container has ended. Should we end before all is delivered, the client is to see that something is missing.
    pub(super) fn linger(&mut self) {
        let _ = rcon_sys::sockopt::set_reset_on_close(&self.client);
        self.moved_on = false;
    }

    /// Whether the host has all that the server has sent, and its end: then it goes on alone, once the socket is closed.
    pub(super) fn hand_over(&self) -> bool {
        if self.back.told {
            let _ = rcon_sys::sockopt::set_deliver_on_close(&self.client);
        }
        self.back.told
    }

    /// Whether the client has got something since this was asked last.
    pub(super) fn has_moved_on(&mut self) -> bool {
        std::mem::take(&mut self.moved_on)
    }

    /// Gives back what was borrowed.
    pub(super) fn recycle(&mut self, pipes: &mut Pipes) {
        for direction in [&mut self.there, &mut self.back] {
            if let Some(pipe) = direction.pipe.take() {
                pipes.put(pipe);
            }
        }
    }

    /// Has both ends reset when they are closed.
    pub(super) fn reset(&self) {
        let _ = rcon_sys::sockopt::set_reset_on_close(&self.client);
        let _ = rcon_sys::sockopt::set_reset_on_close(&self.server);
    }
}

impl Direction {
    /// Moves bytes; gives how many. With [`TURN`] of them the turn is over and there may be more.
    fn run(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        pipes: &mut Pipes,
        buffer: &mut [u8],
    ) -> Result<usize, Failed> {
        let mut done = 0;
        while done < TURN {
            let bulk = self.pipe.is_some() || self.filled >= BULK && !self.urgent;
            let moved = match bulk && self.rest.is_empty() {
                true => self.splice(from, to, pipes, buffer)?,
                false => self.copy(from, to, buffer)?,
            };
            if moved == 0 {
                break;
            }
            done += moved;
        }
        Ok(done)
    }

    /// Tells the receiver that all has come. After the last of both directions that is done by
    /// closing.
    fn tell(&mut self, to: &OwnedFd, last: bool) {
        if !self.ended {
            self.let_go(to);
        }
        if self.ended && self.is_empty() && !self.told {
            self.told = true;
            if !last {
                // One that is gone already needs not be told.
                let _ = rustix::net::shutdown(to, Shutdown::Write);
            }
        }
    }

    /// Has the kernel send what it kept back.
    fn let_go(&mut self, to: &OwnedFd) {
        if std::mem::take(&mut self.held) {
            // Set already; setting it sends what was kept back (tcp(7)).
            let _ = sockopt::set_tcp_nodelay(to, true);
        }
    }

    /// Whether nothing was read that is not sent.
    fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.pipe.is_none()
    }

    /// Moves bytes through the buffer; gives how many.
    fn copy(&mut self, from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Failed> {
        if !self.rest.is_empty() {
            if !self.writable {
                return Ok(0);
            }
            let sent = self.send(to, None, false)?;
            return Ok(sent);
        }
        if !self.readable || self.ended || !self.writable {
            return Ok(0);
        }
        let count = match rustix::net::recv(from, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => {
                self.ended = true;
                return Ok(0);
            }
            Ok((count, _)) => count,
            Err(Errno::AGAIN) => {
                self.readable = false;
                return Ok(0);
            }
            Err(Errno::INTR) => return Ok(0),
            Err(error) => return Err(Failed::Sender(error)),
        };
        self.filled = match count == buffer.len() {
            true => self.filled.saturating_add(1),
            false => 0,
        };
        // Less than asked for means that there is no more; epoll(7) tells of new. But of an end or
        // something urgent that it has told of already it will not tell again.
        self.readable = count == buffer.len() || self.hung_up || self.urgent;
        // The last bytes go with the end that follows them in one segment.
        self.send(to, Some(&buffer[..count]), self.hung_up)?;
        Ok(count)
    }

    /// Sends new bytes, or what is left of earlier ones; keeps what finds no room. With `hold` the
    /// kernel may keep back what does not fill a segment.
    fn send(&mut self, to: &OwnedFd, new: Option<&[u8]>, hold: bool) -> Result<usize, Failed> {
        let bytes = new.unwrap_or(&self.rest);
        self.held = hold;
        let flags = match hold {
            true => SendFlags::NOSIGNAL | SendFlags::MORE,
            false => SendFlags::NOSIGNAL,
        };
        let sent = match rustix::net::send(to, bytes, flags) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => return Err(Failed::Receiver(error)),
        };
        self.writable = sent == bytes.len();
        match new {
            Some(new) => self.rest.extend_from_slice(&new[sent..]),
            None => {
                self.rest.drain(..sent);
                if self.rest.is_empty() {
                    self.rest = Vec::new();
                }
            }
        }
        Ok(sent)
    }

    /// Moves bytes through a pipe, or through the buffer where there is none; gives how many.
    fn splice(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        pipes: &mut Pipes,
        buffer: &mut [u8],
    ) -> Result<usize, Failed> {
        if self.pipe.is_none() {
            if !self.readable || self.ended {
                return Ok(0);
            }
            self.pipe = pipes.get();
        }
        let Some(pipe) = &mut self.pipe else {
            return self.copy(from, to, buffer);
        };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let mut moved = 0;
        let room = pipe.size - pipe.filled;
        if self.readable && !self.ended && room > 0 {
            match splice(from, None, &pipe.writer, None, room, flags) {
                // The end, or something urgent, which splicing takes for the end when the end has
                // come too: reading tells the two apart.
                Ok(0) => self.urgent = true,
                Ok(count) => {
                    pipe.filled += count;
                    moved += count;
                }
                // With something in the pipe it may be the pipe that takes no more.
                Err(Errno::AGAIN) if pipe.filled == 0 => self.readable = self.urgent,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(Failed::Sender(error)),
            }
        }
        if self.writable && pipe.filled > 0 {
            match splice(&pipe.reader, None, to, None, pipe.filled, flags) {
                Ok(count) => {
                    pipe.filled -= count;
                    moved += count;
                }
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(error) => return Err(Failed::Receiver(error)),
            }
        }
        // Nothing at hand: others may have the pipe meanwhile.
        if pipe.filled == 0
            && (self.ended || !self.readable || self.urgent)
            && let Some(pipe) = self.pipe.take()
        {
            pipes.put(pipe);
            if moved == 0 && self.urgent {
                return self.copy(from, to, buffer);
            }
        }
        Ok(moved)
    }
}

#[cfg(test)]
mod tests;
