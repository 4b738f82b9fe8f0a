//! Those who are connected to the monitor.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use crate::protocol::{self, Reply};
use crate::requests::Streams;

/// One command that is connected.
#[derive(Debug)]
pub(super) struct Client {
    pub socket: OwnedFd,
    /// What it gets and may send.
    pub streams: Streams,
    /// It started the container, and the container's output is its own.
    pub foreground: bool,
    /// It waits for the result of a health check.
    pub asked_health: bool,
    /// What its socket has no room for yet.
    queue: VecDeque<Vec<u8>>,
    gone: bool,
}

impl Client {
    /// Somebody new, who gets nothing yet but the news of the end.
    pub fn new(socket: OwnedFd) -> Client {
        let streams = Streams {
            stdin: false,
            stdout: false,
            stderr: false,
        };
        Client {
            socket,
            streams,
            foreground: false,
            asked_health: false,
            queue: VecDeque::new(),
            gone: false,
        }
    }

    /// The command that starts the container and stays with it.
    pub fn foreground(socket: OwnedFd, streams: Streams) -> Client {
        let mut client = Client::new(socket);
        client.streams = streams;
        client.foreground = true;
        client
    }

    /// Whether messages wait for it to read.
    pub fn is_behind(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether nobody is there any more.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Marks it as gone.
    pub fn leave(&mut self) {
        self.gone = true;
        self.queue.clear();
    }

    /// Sends a message now, or when there is room.
    pub fn send(&mut self, reply: &Reply<'_>) {
        let mut message = Vec::new();
        reply.encode(&mut message);
        self.queue.push_back(message);
        self.flush();
    }

    /// Sends an encoded message, which is copied only if there is no room.
    pub fn send_encoded(&mut self, message: &[u8]) {
        if self.queue.is_empty() {
            match protocol::try_send(&self.socket, message) {
                Ok(true) => return,
                Ok(false) => {}
                Err(_) => return self.leave(),
            }
        }
        self.queue.push_back(message.to_vec());
    }

    /// Sends what there is room for.
    pub fn flush(&mut self) {
        while let Some(message) = self.queue.front() {
            match protocol::try_send(&self.socket, message) {
                Ok(true) => drop(self.queue.pop_front()),
                Ok(false) => return,
                Err(_) => return self.leave(),
            }
        }
    }
}
