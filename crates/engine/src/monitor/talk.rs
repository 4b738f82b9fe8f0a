//! What the commands that are connected say, and what is done about it.

use rustix::event::PollFlags;

use super::clients::Client;
use super::serve::Monitor;
use crate::files::Durable;
use crate::protocol::{self, Reply, Request};
use crate::record::Status;
use crate::records;

impl Monitor {
    /// Connects all who wait to be.
    pub(super) fn accept(&mut self) {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        while let Ok(socket) = rustix::net::accept_with(&self.started.listener, flags) {
            self.clients.push(Client::new(socket));
        }
    }

    /// Hears what everybody has said so far: at the end of the container it matters who wanted that.
    pub(super) fn hear_all(&mut self) {
        self.accept();
        for at in 0..self.clients.len() {
            while !self.clients[at].is_gone() && self.hear(at) {}
        }
    }

    /// Hears one message; false when there is none for now.
    fn hear(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        match protocol::try_receive(&client.socket, &mut self.buffer) {
            Ok(None) => false,
            Ok(Some(length @ 1..)) => {
                self.obey(at, length);
                true
            }
            Ok(Some(0)) | Err(_) => {
                client.leave();
                // The command that held the other end of the program's input is gone.
                if client.foreground && client.streams.stdin && !self.container.config.options.tty {
                    self.end_input();
                }
                false
            }
        }
    }

    /// Sends what a client has room for, and hears what it says.
    pub(super) fn serve(&mut self, at: usize, events: PollFlags) {
        let Some(client) = self.clients.get_mut(at) else {
            return;
        };
        if events.contains(PollFlags::OUT) {
            client.flush();
        }
        if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.hear(at);
        }
    }

    fn obey(&mut self, at: usize, length: usize) {
        let client = &mut self.clients[at];
        let wants_input = client.streams.stdin;
        match Request::decode(&self.buffer[..length]) {
            Some(Request::Attach(streams)) => {
                client.streams = streams;
                client.send(&Reply::Attached);
            }
            Some(Request::Begin) => self.begin_program(at),
            Some(Request::Input(_)) if wants_input => self.take_input(1, length),
            Some(Request::EndOfInput) if wants_input => self.end_input(),
            Some(Request::Resize(rows, cols)) => self.resize(rows, cols),
            Some(Request::CloseOutput(closed)) => self.close_unread(at, closed),
            Some(Request::Stopping) => {
                self.asked_to_end = true;
                if self.container.state.status == Status::Running {
                    self.container.state.status = Status::Stopping;
                    let dir = self.engine.paths.container(self.container.id());
                    // If it cannot be shown it is still stopped.
                    let _ = records::save_state(&dir, &self.container.state, Durable::No);
                }
            }
            Some(Request::Ports(text)) => {
                let order = serde_json::from_slice(text);
                let reply = self.change_ports(order);
                self.clients[at].send(&Reply::Ports(&reply));
            }
            Some(Request::Killing) => self.asked_to_end = true,
            Some(Request::Health) => {
                client.asked_health = true;
                self.check_health();
            }
            Some(Request::Renew) => self.renew_health(),
            _ => {}
        }
    }
}
