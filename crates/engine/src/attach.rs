//! The connection of this process's standard streams to a container's.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::Signal;
use rcon_sys::memory::Untouched;
use rcon_sys::outlet::Outlet;
use rustix::event::{PollFd, PollFlags, poll};

use crate::error::{Context, Error, Result};
use crate::events::Action;
use crate::keys::Watcher;
use crate::monitor::Ends;
use crate::protocol::{self, MAX_DATA, MAX_MESSAGE, Reply, Request};
use crate::record::{Container, ProcessRef, Status};
use crate::records::{self, Lock};
use crate::terminal::{self, RawMode, Signals};
use crate::{Engine, Outcome, Paths, RelayOptions, Streams};

/// What is passed on to a container that has no terminal. Job control and what the terminal itself causes stay ours.
pub(crate) const PROXIED: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// What ends a session on a raw terminal, where keys are bytes and not signals; and the change of its size.
pub(crate) const ON_TERMINAL: [Signal; 5] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGWINCH,
];

/// What becomes of a session whose monitor has gone.
enum Rejoined {
    /// There is another one.
    Connected(OwnedFd),
    /// The container had ended with this code.
    Ended(i32),
    /// Nobody knows.
    Gone,
}

/// How often, and how long apart, to try to reach a monitor again.
const ATTEMPTS: u32 = 500;
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(10);

/// How many messages are passed on before signals and our input are looked at.
const AT_ONCE: usize = 16;

/// A connection to a running container's streams.
#[derive(Debug)]
pub struct Session {
    pub(crate) socket: OwnedFd,
    /// What the monitor has said already.
    pub(crate) heard: Option<Vec<u8>>,
    /// The container has a terminal.
    pub(crate) tty: bool,
    pub(crate) streams: Streams,
    pub(crate) process: Option<ProcessRef>,
    /// We started the container, and its output is ours.
    pub(crate) foreground: bool,
    pub(crate) id: String,
    /// Keeps signals back that came while the container was being started; they are for the relay.
    pub(crate) held: Option<Signals>,
    /// The container's streams, which stay whole by this should its monitor be killed. Nobody reads or writes here.
    pub(crate) ends: Ends,
    pub(crate) paths: Paths,
}

impl Session {
    /// Passes input, output, window sizes and signals between this process's standard streams and the container until it
    /// ends or the user detaches. The terminal is as it was when this returns, however it returns.
    ///
    /// # Errors
    /// When the monitor goes away without telling how the container ended.
    pub fn relay(self, options: &RelayOptions) -> Result<Outcome> {
        Relay::new(self, options)?.run()
    }
}

impl Engine {
    /// Connects to a running container.
    ///
    /// # Errors
    /// When it does not run: `you can only attach to running containers: container state improper`.
    pub fn attach(&self, name_or_id: &str, streams: Streams) -> Result<Session> {
        for _ in 0..ATTEMPTS {
            match self.attach_now(name_or_id, streams) {
                // It is just ending, which its record is about to say; or its monitor was killed just now.
                Err(Error::Unreachable) => std::thread::sleep(LOOK_AGAIN),
                result => return result,
            }
        }
        self.attach_now(name_or_id, streams)
    }

    fn attach_now(&self, name_or_id: &str, streams: Streams) -> Result<Session> {
        let container = self.container(name_or_id)?;
        if !matches!(container.state.status, Status::Running | Status::Stopping) {
            return Err(Error::StateImproper(
                "you can only attach to running containers".into(),
            ));
        }
        self.join(container, streams)
    }

    /// Connects to a container that has a monitor. When this returns the monitor has heard of it: nothing is missed from
    /// here on.
    pub(crate) fn join(&self, container: Container, streams: Streams) -> Result<Session> {
        container.state.wake_monitor();
        let socket = protocol::connect(&self.paths.runtime(container.id()))
            .map_err(|_| Error::Unreachable)?;
        let streams = Streams {
            stdin: streams.stdin && container.config.options.interactive,
            ..streams
        };
        let mut message = Vec::new();
        Request::Attach(streams).encode(&mut message);
        protocol::try_send(&socket, &message).map_err(|_| Error::Unreachable)?;
        let heard = protocol::await_attached(&socket).map_err(|_| Error::Unreachable)?;
        self.emit_container(&container, Action::Attach);
        Ok(Session {
            socket,
            heard,
            tty: container.config.options.tty,
            streams,
            process: container.state.process,
            foreground: false,
            id: container.config.id,
            held: None,
            ends: Ends::default(),
            paths: self.paths.clone(),
        })
    }

    /// Connects again to a container whose monitor was killed, which gets another one by this.
    fn rejoin(&self, session: &mut Session) -> Result<Rejoined> {
        for _ in 0..ATTEMPTS {
            match self.rejoin_now(session) {
                // A process that is killed closes its files before it is gone.
                Err(Error::Unreachable) => std::thread::sleep(LOOK_AGAIN),
                result => return result,
            }
        }
        self.rejoin_now(session)
    }

    fn rejoin_now(&self, session: &mut Session) -> Result<Rejoined> {
        let dir = self.paths.container(&session.id);
        let Some(lock) = Lock::take(&dir)? else {
            return Ok(Rejoined::Gone);
        };
        let Some(container) = records::load(&dir)? else {
            return Ok(Rejoined::Gone);
        };
        let state = &container.state;
        if state.status == Status::Exited {
            return Ok(Rejoined::Ended(state.exit_code));
        }
        if state.is_ending() {
            // Another monitor is about to write down how.
            return Err(Error::Unreachable);
        }
        if !state.status.is_alive() || !state.has(state.process) {
            return Ok(Rejoined::Gone);
        }
        if state.monitor_lives() {
            drop(lock);
            let socket = protocol::connect(&self.paths.runtime(&session.id))
                .map_err(|_| Error::Unreachable)?;
            let mut message = Vec::new();
            Request::Attach(session.streams).encode(&mut message);
            protocol::try_send(&socket, &message).map_err(|_| Error::Unreachable)?;
            return Ok(Rejoined::Connected(socket));
        }
        let (ours, theirs) =
            rcon_sys::fdpass::pair().context(|| "cannot make a socket pair".into())?;
        let ends = std::mem::take(&mut session.ends);
        let foreground = session.foreground.then_some((theirs, session.streams));
        session.ends = self.take_up(container, lock, foreground, ends)?;
        if session.foreground {
            return Ok(Rejoined::Connected(ours));
        }
        let again = self.attach_now(&session.id, session.streams)?;
        session.heard = again.heard;
        Ok(Rejoined::Connected(again.socket))
    }
}

/// What there is to hear.
enum Received {
    Nothing,
    /// So many bytes.
    Message(usize),
    /// The container ended with this code, and the monitor could not tell us.
    Ended(i32),
}

/// The work of a session.
struct Relay {
    session: Session,
    sig_proxy: bool,
    watcher: Option<Watcher>,
    raw: Option<RawMode>,
    signals: Signals,
    /// We still read our standard input.
    reading: bool,
    /// Messages the monitor has no room for yet.
    queue: VecDeque<Vec<u8>>,
    message: Vec<u8>,
    /// Our standard output and error. Who does not read them holds up neither signals nor what is typed.
    outlets: [Outlet; 2],
    /// The monitor has closed its end.
    gone: bool,
}

impl Relay {
    fn new(mut session: Session, options: &RelayOptions) -> Result<Relay> {
        let held = session.held.take();
        let raw = match session.tty && session.streams.stdin {
            true => RawMode::enter().context(|| "cannot set up the terminal".into())?,
            false => None,
        };
        let taken: &[Signal] = match (&raw, options.sig_proxy) {
            (Some(_), _) => &ON_TERMINAL,
            (None, true) => &PROXIED,
            (None, false) => &[Signal::SIGWINCH],
        };
        let signals = match held {
            Some(mut held) => held.change(taken).map(|()| held),
            None => Signals::take(taken),
        };
        let signals = signals.context(|| "cannot take over signals".into())?;
        let mut relay = Relay {
            sig_proxy: options.sig_proxy,
            watcher: raw
                .is_some()
                .then(|| Watcher::new(options.detach_keys.clone())),
            raw,
            signals,
            reading: session.streams.stdin,
            queue: VecDeque::new(),
            message: Vec::new(),
            outlets: [rustix::stdio::stdout(), rustix::stdio::stderr()].map(Outlet::new),
            gone: false,
            session,
        };
        if relay.session.tty {
            relay.send_size()?;
        }
        Ok(relay)
    }

    fn run(mut self) -> Result<Outcome> {
        let mut buffer = Untouched::new(MAX_MESSAGE);
        loop {
            if let Some(message) = self.session.heard.take()
                && let Some(outcome) = self.handle(&message)?
            {
                return Ok(outcome);
            }
            let (stdin, socket, signal) = self
                .wait()
                .context(|| "cannot wait for the container".into())?;
            for at in 0..self.outlets.len() {
                let written = self.outlets[at].flush();
                if let Some(outcome) = self.written(at == 1, written)? {
                    return Ok(outcome);
                }
            }
            if signal && let Some(outcome) = self.handle_signals()? {
                return Ok(outcome);
            }
            if socket {
                self.flush()?;
                // All there is, so that waiting is for nothing to do; but signals and keys are not kept waiting for the end of
                // what has none.
                for _ in 0..AT_ONCE {
                    if self.is_behind() {
                        break;
                    }
                    match self.receive(&mut buffer)? {
                        Received::Nothing => break,
                        Received::Message(length) => {
                            if let Some(outcome) = self.handle(&buffer[..length])? {
                                return Ok(outcome);
                            }
                        }
                        Received::Ended(code) => {
                            self.drain()?;
                            return Ok(Outcome::Exited(code));
                        }
                    }
                }
            }
            if stdin && let Some(outcome) = self.read_input(&mut buffer)? {
                return Ok(outcome);
            }
        }
    }

    /// Waits for our input, the monitor, a signal, or room for our output.
    fn wait(&mut self) -> io::Result<(bool, bool, bool)> {
        let behind = self.is_behind();
        let when = |wanted: bool, flags: PollFlags| match wanted {
            true => flags,
            false => PollFlags::empty(),
        };
        // While nobody takes our output there need not be more of it; nor is it news each time that the monitor has gone.
        let mut news = when(!behind, PollFlags::IN);
        if !(behind && self.gone) {
            news |= when(!self.queue.is_empty(), PollFlags::OUT);
        }
        // While the monitor has no room for more, ours waits.
        let typed = when(self.reading && self.queue.is_empty(), PollFlags::IN);
        let (signals, socket) = (self.signals.as_fd(), self.session.socket.as_fd());
        let [out, err] = &self.outlets;
        let room = |outlet: &Outlet| when(outlet.is_behind(), PollFlags::OUT);
        let mut fds = [
            (rustix::stdio::stdin(), typed),
            (socket, news),
            (signals, PollFlags::IN),
            (out.as_fd(), room(out)),
            (err.as_fd(), room(err)),
        ]
        .map(|(fd, wanted)| match wanted.is_empty() {
            // Who is not asked for anything might say all the same that it has ended.
            true => PollFd::from_borrowed_fd(signals, wanted),
            false => PollFd::from_borrowed_fd(fd, wanted),
        });
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        let [stdin, socket, signal, ..] = fds.map(|fd| fd.revents());
        self.gone |= socket.intersects(PollFlags::HUP | PollFlags::ERR);
        Ok((!stdin.is_empty(), !socket.is_empty(), !signal.is_empty()))
    }

    /// Whether something waits for whoever reads our output.
    fn is_behind(&self) -> bool {
        self.outlets.iter().any(Outlet::is_behind)
    }

    /// Waits until our output is taken, all but for a signal: the container has ended, and nobody else is to have that.
    fn drain(&mut self) -> Result<()> {
        let why = || "cannot write the container's output".to_owned();
        while self.is_behind() {
            let mut fds = vec![PollFd::from_borrowed_fd(
                self.signals.as_fd(),
                PollFlags::IN,
            )];
            let behind = self.outlets.iter().filter(|outlet| outlet.is_behind());
            fds.extend(behind.map(|outlet| PollFd::new(outlet, PollFlags::OUT)));
            rustix::io::retry_on_intr(|| poll(&mut fds, None)).context(why)?;
            while let Some(signal) = self.signals.take_next() {
                if signal != libc::SIGWINCH && signal != libc::SIGCONT {
                    return Ok(());
                }
            }
            for outlet in &mut self.outlets {
                match outlet.flush() {
                    Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e).context(why),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Received> {
        match protocol::try_receive(&self.session.socket, buffer) {
            Ok(Some(0)) => self.rejoin(),
            Ok(Some(length)) => Ok(Received::Message(length)),
            Ok(None) => Ok(Received::Nothing),
            Err(e) => Err(e).context(|| "cannot hear the monitor".into()),
        }
    }

    /// The monitor is gone. If the container is still there it gets another, and we go on.
    fn rejoin(&mut self) -> Result<Received> {
        match Engine::open(self.session.paths.clone())?.rejoin(&mut self.session)? {
            Rejoined::Connected(socket) => {
                self.session.socket = socket;
                self.gone = false;
            }
            Rejoined::Ended(code) => return Ok(Received::Ended(code)),
            Rejoined::Gone => {
                return Err(Error::Invalid(format!(
                    "the monitor of container {} is gone: how the container ends will not be known",
                    &self.session.id[..12]
                )));
            }
        }
        // What else was to be said is said anew, or by how we connect.
        self.queue
            .retain(|message| matches!(Request::decode(message), Some(Request::Input(_))));
        if self.session.tty {
            self.send_size()?;
        }
        if !self.reading && self.session.streams.stdin {
            self.send(Request::EndOfInput)?;
        }
        self.flush()?;
        Ok(Received::Nothing)
    }

    fn handle(&mut self, message: &[u8]) -> Result<Option<Outcome>> {
        let (error, written) = match Reply::decode(message) {
            Some(Reply::Exited(code)) => {
                self.drain()?;
                return Ok(Some(Outcome::Exited(code)));
            }
            Some(Reply::Output(data)) if self.session.streams.stdout => {
                (false, self.outlets[0].put(data))
            }
            Some(Reply::Error(data)) if self.session.streams.stderr => {
                (true, self.outlets[1].put(data))
            }
            _ => return Ok(None),
        };
        self.written(error, written)
    }

    /// What becomes of the session when output, or errors, could be written or not.
    fn written(&mut self, error: bool, written: io::Result<()>) -> Result<Option<Outcome>> {
        match written {
            Ok(()) => Ok(None),
            // Whoever read our output has gone. A terminal has no end of its own that could be closed.
            Err(e)
                if e.kind() == io::ErrorKind::BrokenPipe
                    && (self.session.tty || !self.session.foreground) =>
            {
                Ok(Some(Outcome::GoneReader))
            }
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                // The program is to see that as it would without a container in between.
                let streams = &mut self.session.streams;
                streams.stdout &= error;
                streams.stderr &= !error;
                self.session.ends.output[usize::from(error)] = None;
                self.send(Request::CloseOutput(Streams {
                    stdin: false,
                    stdout: !error,
                    stderr: error,
                }))?;
                Ok(None)
            }
            Err(e) => Err(e).context(|| "cannot write the container's output".into()),
        }
    }

    fn read_input(&mut self, buffer: &mut [u8]) -> Result<Option<Outcome>> {
        let count = match rustix::io::retry_on_intr(|| {
            rustix::io::read(rustix::stdio::stdin(), &mut buffer[..MAX_DATA])
        }) {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            // A terminal that hung up is at its end.
            Err(_) => 0,
        };
        if count == 0 {
            self.reading = false;
            self.session.ends.stdin = None;
            self.send(Request::EndOfInput)?;
            return Ok(None);
        }
        let Some(watcher) = &mut self.watcher else {
            self.send(Request::Input(&buffer[..count]))?;
            return Ok(None);
        };
        let mut typed = Vec::with_capacity(count);
        let detach = watcher.feed(&buffer[..count], &mut typed);
        for part in typed.chunks(MAX_DATA) {
            self.send(Request::Input(part))?;
        }
        Ok(detach.then_some(Outcome::Detached))
    }

    fn handle_signals(&mut self) -> Result<Option<Outcome>> {
        while let Some(signal) = self.signals.take_next() {
            if signal == libc::SIGWINCH && self.session.tty {
                self.send_size()?;
            } else if self.raw.is_some() {
                // The terminal is going away, or somebody wants us to: the container learns of the former.
                if signal == libc::SIGHUP {
                    self.pass_on(signal);
                }
                return Ok(Some(Outcome::Exited(128 + signal)));
            } else if self.sig_proxy && !self.pass_on(signal) && self.is_behind() {
                // There is only us to hear it, who wait for somebody to take the rest of the output.
                return Ok(Some(Outcome::Exited(128 + signal)));
            }
        }
        Ok(None)
    }

    /// Passes a signal on; false when there is nobody to hear it.
    fn pass_on(&self, signal: i32) -> bool {
        // It may have ended just now, which we are about to hear.
        let process = self.session.process.and_then(|p| p.open());
        process.is_some_and(|pidfd| rcon_sys::process::pidfd_send_signal(&pidfd, signal).is_ok())
    }

    fn send_size(&mut self) -> Result<()> {
        match terminal::size() {
            Some((rows, cols)) => self.send(Request::Resize(rows, cols)),
            None => Ok(()),
        }
    }

    fn send(&mut self, request: Request<'_>) -> Result<()> {
        request.encode(&mut self.message);
        self.queue.push_back(std::mem::take(&mut self.message));
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        while let Some(message) = self.queue.front() {
            match protocol::try_send(&self.session.socket, message) {
                Ok(true) => self.message = self.queue.pop_front().unwrap_or_default(),
                Ok(false) => break,
                // It has gone, but what it said last may still be to be read. Another one gets what is left.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                    ) =>
                {
                    break;
                }
                Err(e) => return Err(e).context(|| "cannot talk to the monitor".into()),
            }
        }
        Ok(())
    }
}
