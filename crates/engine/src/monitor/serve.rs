//! The monitor's loop: output to the log and to those attached, input from them, until the container's end.
//!
//! Nothing is lost and nothing piles up: output is read only when everybody attached has taken what came before, input is
//! taken only when the program has read what came before.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use chrono::Utc;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{Winsize, tcsetwinsize};

use super::clients::Client;
use super::setup::Started;
use crate::error::{Context, Error, Result};
use crate::files::{self, Durable};
use crate::log::{Encoder, Stream};
use crate::protocol::{self, MAX_DATA, MAX_MESSAGE, Reply, Request};
use crate::record::{Container, ProcessRef, State, Status};
use crate::records::{self, Lock};
use crate::requests::Streams;
use crate::terminal::Signals;
use crate::{Engine, records::boot_id};

/// The monitor of a running container.
pub(super) struct Monitor {
    pub engine: Engine,
    pub container: Container,
    pub started: Started,
    pub clients: Vec<Client>,
    signals: Signals,
    outputs: Vec<Output>,
    input: Option<Input>,
    /// For reading from anybody; a message's first byte is its kind.
    buffer: Vec<u8>,
    text: Vec<u8>,
    process: ProcessRef,
}

/// A stream that is read from the container.
struct Output {
    fd: OwnedFd,
    stream: Stream,
    encoder: Encoder,
    /// Nothing more will come.
    ended: bool,
}

/// The stream that is written to the container.
struct Input {
    fd: OwnedFd,
    /// Taken from a client, but not yet by the program.
    pending: Vec<u8>,
    /// To be closed when the rest is written.
    closing: bool,
}

/// What a descriptor in the poll set is.
#[derive(Clone, Copy)]
enum Source {
    Process,
    Listener,
    Signals,
    Net,
    Output(usize),
    Input,
    Client(usize),
}

impl Monitor {
    /// Takes over a container that has just been started, and writes down that it runs.
    pub fn new(
        engine: Engine,
        mut container: Container,
        mut started: Started,
        signals: Signals,
        foreground: Option<(OwnedFd, Streams)>,
        lock: Lock,
    ) -> Result<Monitor> {
        let pid = started.running.pid.as_raw_nonzero().get();
        let process = ProcessRef::of(pid).ok_or_else(|| {
            Error::Invalid("the container ended before its monitor could look at it".into())
        })?;
        let why = || "cannot connect to the container's streams".to_string();
        let (outputs, input) = streams(&mut started).context(why)?;
        container.state = State {
            status: Status::Running,
            process: Some(process),
            monitor: ProcessRef::of(std::process::id().cast_signed()),
            boot_id: boot_id(),
            started: Some(Utc::now()),
            ports: started.ports.clone(),
            ..State::default()
        };
        records::save_state(
            &engine.paths.container(container.id()),
            &container.state,
            Durable::No,
        )?;
        drop(lock);
        let clients = foreground
            .into_iter()
            .map(|(socket, streams)| Client::foreground(socket, streams))
            .collect();
        Ok(Monitor {
            engine,
            container,
            started,
            clients,
            signals,
            outputs,
            input,
            buffer: vec![0; MAX_MESSAGE],
            text: Vec::new(),
            process,
        })
    }

    /// PID 1 of the container.
    pub fn process(&self) -> ProcessRef {
        self.process
    }

    /// Sees to it that the container is known after a crash of the machine. Done when the command has its answer: it need
    /// not wait for the disk.
    pub fn make_lasting(&self) {
        if !self.container.config.auto_remove {
            let _ = files::sync(
                &self.engine.paths.container(self.container.id()),
                "config.json",
            );
        }
    }

    /// Watches until the container has ended and everybody knows.
    pub fn run(&mut self) {
        loop {
            let mut ended = false;
            for (source, events) in self.wait() {
                match source {
                    Source::Process => ended = true,
                    Source::Listener => self.accept(),
                    Source::Signals => self.handle_signals(),
                    Source::Net => self.attend_net(),
                    Source::Output(at) => drop(self.read_output(at)),
                    Source::Input => self.write_input(),
                    Source::Client(at) => self.serve(at, events),
                }
            }
            self.close_ended_outputs();
            self.clients.retain(|client| !client.is_gone());
            if ended {
                break;
            }
        }
        self.finish();
    }

    /// Waits for something to happen; what.
    fn wait(&self) -> Vec<(Source, PollFlags)> {
        let behind = self.clients.iter().any(Client::is_behind);
        let stuffed = self
            .input
            .as_ref()
            .is_some_and(|input| !input.pending.is_empty());
        let mut watched: Vec<(Source, BorrowedFd<'_>, PollFlags)> = vec![
            (
                Source::Process,
                self.started.running.pidfd.as_fd(),
                PollFlags::IN,
            ),
            (
                Source::Listener,
                self.started.listener.as_fd(),
                PollFlags::IN,
            ),
            (Source::Signals, self.signals.as_fd(), PollFlags::IN),
        ];
        watched.extend(
            self.started
                .net
                .iter()
                .filter_map(rcon_net::Network::fd)
                .map(|fd| (Source::Net, fd, PollFlags::IN)),
        );
        if !behind {
            let outputs = self.outputs.iter().enumerate();
            watched.extend(
                outputs.map(|(at, output)| (Source::Output(at), output.fd.as_fd(), PollFlags::IN)),
            );
        }
        if let Some(input) = self.input.as_ref().filter(|_| stuffed) {
            watched.push((Source::Input, input.fd.as_fd(), PollFlags::OUT));
        }
        for (at, client) in self.clients.iter().enumerate() {
            let mut events = PollFlags::empty();
            if !(stuffed && client.streams.stdin) {
                events |= PollFlags::IN;
            }
            if client.is_behind() {
                events |= PollFlags::OUT;
            }
            watched.push((Source::Client(at), client.socket.as_fd(), events));
        }
        let mut fds: Vec<PollFd<'_>> = watched
            .iter()
            .map(|(_, fd, events)| PollFd::from_borrowed_fd(*fd, *events))
            .collect();
        // Only a broken kernel fails here; turning in a circle would be worse than waiting for the next event.
        let _ = rustix::io::retry_on_intr(|| poll(&mut fds, None));
        let events = fds.iter().map(PollFd::revents);
        let sources = watched.iter().map(|(source, ..)| *source);
        sources
            .zip(events)
            .filter(|(_, events)| !events.is_empty())
            .collect()
    }

    /// Connects all who wait to be.
    pub fn accept(&mut self) {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        while let Ok(socket) = rustix::net::accept_with(&self.started.listener, flags) {
            self.clients.push(Client::new(socket));
        }
    }

    /// Being asked to end means to ask the container.
    fn handle_signals(&mut self) {
        let signal = self.container.config.stop_signal();
        while self.signals.take_next().is_some() {
            let _ = rcon_sys::process::pidfd_send_signal(&self.started.running.pidfd, signal);
        }
    }

    /// Reads once from the container; true when there was something.
    fn read_output(&mut self, at: usize) -> bool {
        let Some(output) = self.outputs.get_mut(at) else {
            return false;
        };
        let count = match rustix::io::read(&output.fd, &mut self.buffer[1..=MAX_DATA]) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return false,
            // A terminal that nobody has open any more.
            Err(_) => 0,
        };
        if count == 0 {
            output.ended = true;
            return false;
        }
        let data = &self.buffer[1..=count];
        self.text.clear();
        output.encoder.encode(Utc::now(), data, &mut self.text);
        // A full disk must not stop the program: what cannot be logged is only passed on.
        let _ = self.started.log.write_all(&self.text);
        let (kind, wanted): (u8, fn(&Streams) -> bool) = match output.stream {
            Stream::Stdout => (b'O', |streams| streams.stdout),
            Stream::Stderr => (b'e', |streams| streams.stderr),
        };
        self.buffer[0] = kind;
        for client in self
            .clients
            .iter_mut()
            .filter(|client| wanted(&client.streams))
        {
            client.send_encoded(&self.buffer[..=count]);
        }
        true
    }

    fn close_ended_outputs(&mut self) {
        if self.outputs.iter().any(|output| output.ended) {
            self.text.clear();
            for output in self.outputs.iter_mut().filter(|output| output.ended) {
                output.encoder.finish(Utc::now(), &mut self.text);
            }
            let _ = self.started.log.write_all(&self.text);
            self.outputs.retain(|output| !output.ended);
        }
    }

    /// Reads what is left after the end: no process of the container lives that could write more.
    pub fn drain_output(&mut self) {
        for at in 0..self.outputs.len() {
            while self.read_output(at) {}
        }
        self.outputs
            .iter_mut()
            .for_each(|output| output.ended = true);
        self.close_ended_outputs();
        self.input = None;
    }

    fn write_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        while !input.pending.is_empty() {
            match rustix::io::write(&input.fd, &input.pending) {
                Ok(count) => drop(input.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody reads it any more.
                Err(_) => return self.input = None,
            }
        }
        if input.closing {
            self.input = None;
        }
    }

    fn serve(&mut self, at: usize, events: PollFlags) {
        let Some(client) = self.clients.get_mut(at) else {
            return;
        };
        if events.contains(PollFlags::OUT) {
            client.flush();
        }
        if !events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        match protocol::try_receive(&client.socket, &mut self.buffer) {
            Ok(None) => {}
            Ok(Some(length @ 1..)) => self.obey(at, length),
            Ok(Some(0)) | Err(_) => {
                client.leave();
                // The command that held the other end of the program's input is gone.
                if client.foreground && client.streams.stdin && !self.container.config.options.tty {
                    self.end_input();
                }
            }
        }
    }

    fn obey(&mut self, at: usize, length: usize) {
        let client = &mut self.clients[at];
        match Request::decode(&self.buffer[..length]) {
            Some(Request::Attach(streams)) => client.streams = streams,
            Some(Request::Input(data)) if client.streams.stdin => {
                if let Some(input) = &mut self.input {
                    input.pending.extend_from_slice(data);
                }
                self.write_input();
            }
            Some(Request::EndOfInput) if client.streams.stdin => self.end_input(),
            Some(Request::Resize(rows, cols)) => self.resize(rows, cols),
            Some(Request::CloseOutput) => {
                client.streams = Streams {
                    stdout: false,
                    stderr: false,
                    ..client.streams
                };
                let listening = self
                    .clients
                    .iter()
                    .any(|c| c.streams.stdout || c.streams.stderr);
                if self.clients[at].foreground && !listening && !self.container.config.options.tty {
                    self.outputs.clear();
                }
            }
            Some(Request::Ports(text)) => {
                let order = serde_json::from_slice(text);
                let reply = self.change_ports(order);
                self.clients[at].send(&Reply::Ports(&reply));
            }
            Some(Request::Stopping) if self.container.state.status == Status::Running => {
                self.container.state.status = Status::Stopping;
                let dir = self.engine.paths.container(self.container.id());
                // If it cannot be shown it is still stopped.
                let _ = records::save_state(&dir, &self.container.state, Durable::No);
            }
            _ => {}
        }
    }

    /// Closes the program's input once it has been written; on a terminal, ctrl-d says the same.
    fn end_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        if self.container.config.options.tty {
            input.pending.push(0x04);
        } else {
            input.closing = true;
        }
        self.write_input();
    }

    fn resize(&self, rows: u16, cols: u16) {
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
}

/// The streams as the loop wants them: never waiting.
fn streams(started: &mut Started) -> io::Result<(Vec<Output>, Option<Input>)> {
    let input = |fd: OwnedFd| -> io::Result<Input> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Input {
            fd,
            pending: Vec::new(),
            closing: false,
        })
    };
    if let Some(console) = &started.running.console {
        let output = Output::new(console.try_clone()?, Stream::Stdout)?;
        return Ok((vec![output], Some(input(console.try_clone()?)?)));
    }
    let stdin = started.stdin.take().map(input).transpose()?;
    match started.output.take() {
        Some((out, err)) => Ok((
            vec![
                Output::new(out, Stream::Stdout)?,
                Output::new(err, Stream::Stderr)?,
            ],
            stdin,
        )),
        None => Ok((Vec::new(), stdin)),
    }
}
