//! The network process's side.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::report::{Answer, Message, Question, Request, VERSION};
use crate::poll::{Kind, Poller, Ready, Token};
use crate::slab::{Key, Slab};

/// How many may look at a time: they are the user's own programs.
const MAX_CLIENTS: usize = 16;
/// The longest request, in bytes: the longest of today has less than a hundred.
const MAX_LINE: usize = 4096;
/// Who does not read answers gets no more than this, in bytes: a list of as many flows as there may
/// be, twice.
const MAX_OUTPUT: usize = 32 * 1024 * 1024;

/// Those who look.
#[derive(Debug, Default)]
pub(crate) struct Control {
    listener: Option<OwnedFd>,
    clients: Slab<Client>,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    input: Vec<u8>,
    /// What is to be sent, and how much of it was.
    output: Vec<u8>,
    sent: usize,
    ended: bool,
}

impl Control {
    /// Listens at a socket, which must not block.
    pub(crate) fn new(listener: Option<OwnedFd>, poller: &Poller) -> std::io::Result<Control> {
        if let Some(listener) = &listener {
            // Told once of each who comes: with no descriptor left, who waits must not keep us awake.
            poller.add_stream(listener, Token::only(Kind::Control))?;
        }
        Ok(Control {
            listener,
            clients: Slab::default(),
        })
    }

    /// Ends the reports about whoever looks.
    pub(crate) fn unwatch(&self, poller: &Poller) {
        let clients = self.clients.iter().map(|(_, client)| &client.socket);
        for socket in self.listener.iter().chain(clients) {
            poller.remove(socket);
        }
    }

    /// Takes those who want to look.
    pub(crate) fn accept(&mut self, poller: &Poller) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Some(listener) = &self.listener
            && let Ok(socket) = rustix::net::accept_with(listener, flags)
        {
            if self.clients.len() >= MAX_CLIENTS {
                continue;
            }
            let key = self.clients.insert(Client {
                socket,
                input: Vec::new(),
                output: Vec::new(),
                sent: 0,
                ended: false,
            });
            let token = Token::new(Kind::ControlClient, key);
            let watched = self
                .clients
                .get(key)
                .is_some_and(|client| poller.add_stream(&client.socket, token).is_ok());
            if !watched {
                self.clients.remove(key);
            }
        }
    }

    /// Reads requests of a client and sends answers.
    pub(crate) fn ready(&mut self, ready: &Ready, answer: impl FnMut(Request) -> Answer) {
        let key: Key = ready.token.key;
        if let Some(client) = self.clients.get_mut(key)
            && client.serve(answer).is_err()
        {
            self.clients.remove(key);
        }
    }
}

impl Client {
    /// Does what can be done now; an error is the end of it.
    fn serve(&mut self, mut answer: impl FnMut(Request) -> Answer) -> Result<(), Errno> {
        let mut buffer = [0; MAX_LINE];
        loop {
            match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    self.ended = true;
                    break;
                }
                Ok((length, _)) => self.take(&buffer[..length], &mut answer)?,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        self.flush()
    }

    fn take(
        &mut self,
        bytes: &[u8],
        answer: &mut impl FnMut(Request) -> Answer,
    ) -> Result<(), Errno> {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.input);
                    self.put(reply(&line, answer))?;
                }
                byte if self.input.len() < MAX_LINE => self.input.push(*byte),
                _ => return Err(Errno::MSGSIZE),
            }
        }
        Ok(())
    }

    fn put(&mut self, answer: Answer) -> Result<(), Errno> {
        let message = Message {
            version: VERSION,
            answer,
        };
        if self.output.len() > MAX_OUTPUT {
            return Err(Errno::NOBUFS);
        }
        serde_json::to_writer(&mut self.output, &message).map_err(|_| Errno::INVAL)?;
        self.output.push(b'\n');
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        while self.sent < self.output.len() {
            let rest = &self.output[self.sent..];
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, rest, flags) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        self.output = Vec::new();
        self.sent = 0;
        match self.ended {
            true => Err(Errno::PIPE),
            false => Ok(()),
        }
    }
}

/// The answer to a line.
fn reply(line: &[u8], answer: &mut impl FnMut(Request) -> Answer) -> Answer {
    match serde_json::from_slice::<Question>(line) {
        Ok(question) if question.version == VERSION => answer(question.request),
        Ok(question) => Answer::Error(format!(
            "version {} is not spoken here, but {VERSION}",
            question.version
        )),
        Err(error) => Answer::Error(format!("no request: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_request_is_said_to_be_none() {
        let mut answer = |_| Answer::Ports(Vec::new());
        for (line, expected) in [
            (r#"{"version":1,"request":"ports"}"#, ""),
            (r#"{"version":2,"request":"ports"}"#, "version 2"),
            (r#"{"version":1,"request":"secrets"}"#, "no request"),
            ("", "no request"),
            ("\u{1}[[[", "no request"),
        ] {
            match reply(line.as_bytes(), &mut answer) {
                Answer::Error(text) if !expected.is_empty() => {
                    assert!(text.starts_with(expected), "{text}");
                }
                Answer::Ports(_) if expected.is_empty() => {}
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
