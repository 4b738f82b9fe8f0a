//! The container's standard streams, as its monitor has them: output to the log and to those attached, input from them.

use std::io;
use std::os::fd::OwnedFd;

use chrono::Utc;
use rustix::io::Errno;
use rustix::termios::{Winsize, tcsetwinsize};

use super::clients::Client;
use super::serve::Monitor;
use super::setup::Started;
use crate::log::{Encoder, Stream};
use crate::protocol::MAX_DATA;
use crate::requests;

/// More than the kernel keeps of what was written to a terminal and not yet read.
const TERMINAL_HOLDS: u64 = 1 << 20;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub outputs: Vec<Output>,
    pub input: Option<Input>,
}

/// A stream that is read from the container.
#[derive(Debug)]
pub(super) struct Output {
    pub fd: OwnedFd,
    stream: Stream,
    encoder: Encoder,
    /// Nothing more will come.
    ended: bool,
}

/// The stream that is written to the container.
#[derive(Debug)]
pub(super) struct Input {
    pub fd: OwnedFd,
    /// Taken from a client, but not yet by the program.
    pub pending: Vec<u8>,
    /// To be closed when the rest is written.
    closing: bool,
}

impl Streams {
    /// Takes those of a container that has just been started, and makes them never wait.
    pub fn take(started: &mut Started) -> io::Result<Streams> {
        if let Some(console) = &started.running.console {
            let output = Output::new(console.try_clone()?, Stream::Stdout)?;
            return Ok(Streams {
                outputs: vec![output],
                input: Some(Input::new(console.try_clone()?)?),
            });
        }
        let input = started.stdin.take().map(Input::new).transpose()?;
        let outputs = std::mem::take(&mut started.output).into_iter();
        let outputs = outputs.zip([Stream::Stdout, Stream::Stderr]);
        let outputs = outputs.filter_map(|(fd, stream)| Some(Output::new(fd?, stream)));
        let outputs = outputs.collect::<io::Result<_>>()?;
        Ok(Streams { outputs, input })
    }

    /// Whether the program has not read all that was sent to it.
    pub fn is_stuffed(&self) -> bool {
        self.input
            .as_ref()
            .is_some_and(|input| !input.pending.is_empty())
    }
}

impl Output {
    fn new(fd: OwnedFd, stream: Stream) -> io::Result<Output> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Output {
            fd,
            stream,
            encoder: Encoder::new(stream),
            ended: false,
        })
    }

    /// Its number in the container.
    pub fn standard(&self) -> u8 {
        match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        }
    }
}

impl Input {
    fn new(fd: OwnedFd) -> io::Result<Input> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Input {
            fd,
            pending: Vec::new(),
            closing: false,
        })
    }
}

fn wants(streams: requests::Streams, stream: Stream) -> bool {
    match stream {
        Stream::Stdout => streams.stdout,
        Stream::Stderr => streams.stderr,
    }
}

impl Monitor {
    /// Reads once from the container; how much that was.
    pub(super) fn read_output(&mut self, at: usize) -> usize {
        let Some(output) = self.streams.outputs.get_mut(at) else {
            return 0;
        };
        let count = match rustix::io::read(&output.fd, &mut self.buffer[1..=MAX_DATA]) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return 0,
            // A terminal that nobody has open any more.
            Err(_) => 0,
        };
        if count == 0 {
            output.ended = true;
            return 0;
        }
        let data = &self.buffer[1..=count];
        self.started
            .log
            .write(&mut output.encoder, Utc::now(), data);
        let stream = output.stream;
        let kind = match stream {
            Stream::Stdout => b'O',
            Stream::Stderr => b'e',
        };
        self.buffer[0] = kind;
        for client in self
            .clients
            .iter_mut()
            .filter(|client| wants(client.streams, stream))
        {
            client.send_encoded(&self.buffer[..=count]);
        }
        count
    }

    /// Client `at` reads some of the output no more. What nobody reads then is closed, for the program to see, if it is the
    /// command in the foreground that says so.
    pub(super) fn close_unread(&mut self, at: usize, closed: requests::Streams) {
        let client = &mut self.clients[at];
        client.streams.stdout &= !closed.stdout;
        client.streams.stderr &= !closed.stderr;
        if client.foreground && !self.container.config.options.tty {
            let clients = &self.clients;
            let mut unread = Vec::new();
            for output in &mut self.streams.outputs {
                let read = |client: &Client| wants(client.streams, output.stream);
                if wants(closed, output.stream) && !clients.iter().any(read) {
                    output.ended = true;
                    unread.push(output.standard());
                }
            }
            // Closed only then: whoever sees that may end us at once.
            unread.into_iter().for_each(|which| self.forget_pipe(which));
        }
    }

    pub(super) fn close_ended_outputs(&mut self) {
        let outputs = &mut self.streams.outputs;
        if outputs.iter().any(|output| output.ended) {
            for output in outputs.iter_mut().filter(|output| output.ended) {
                self.started.log.finish(&output.encoder);
            }
            outputs.retain(|output| !output.ended);
        }
    }

    /// Reads what is left after the end: no process of the container lives that could write more. Somebody else may, to whom
    /// one of them has handed its end; what comes from there meanwhile is not waited for.
    pub(super) fn drain_output(&mut self) {
        for at in 0..self.streams.outputs.len() {
            let mut left = match self.started.running.console {
                // What is still on its way through a terminal is not counted.
                Some(_) => TERMINAL_HOLDS,
                None => rustix::io::ioctl_fionread(&self.streams.outputs[at].fd)
                    .unwrap_or(TERMINAL_HOLDS),
            };
            while left > 0 {
                match self.read_output(at) {
                    0 => break,
                    count => left = left.saturating_sub(count as u64),
                }
            }
        }
        for output in &mut self.streams.outputs {
            output.ended = true;
        }
        self.close_ended_outputs();
        self.streams.input = None;
    }

    /// Adds to what the program is to read.
    pub(super) fn take_input(&mut self, from: usize, length: usize) {
        if let Some(input) = &mut self.streams.input {
            input.pending.extend_from_slice(&self.buffer[from..length]);
        }
        self.write_input();
    }

    pub(super) fn write_input(&mut self) {
        let Some(input) = &mut self.streams.input else {
            return;
        };
        while !input.pending.is_empty() {
            match rustix::io::write(&input.fd, &input.pending) {
                Ok(count) => drop(input.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody reads it any more.
                Err(_) => return self.streams.input = None,
            }
        }
        // What somebody pasted once is no reason to keep the room for ever.
        input.pending = Vec::new();
        if input.closing {
            self.streams.input = None;
        }
    }

    /// Closes the program's input once it has been written; on a terminal, ctrl-d says the same.
    pub(super) fn end_input(&mut self) {
        let Some(input) = &mut self.streams.input else {
            return;
        };
        if self.container.config.options.tty {
            input.pending.push(0x04);
        } else {
            input.closing = true;
            self.forget_pipe(0);
        }
        self.write_input();
    }

    pub(super) fn resize(&self, rows: u16, cols: u16) {
        if let Some(console) = &self.started.running.console {
            let size = Winsize {
                ws_row: rows,
                ws_col: cols,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            let _ = tcsetwinsize(console, size);
        }
    }
}
