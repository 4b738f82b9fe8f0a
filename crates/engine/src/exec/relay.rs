//! Passing bytes between this process's standard streams and a child in a container, until the child ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;
use rcon_launch::ExecChild;
use rcon_sys::outlet::Outlet;
use rcon_sys::process;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::attach::{ON_TERMINAL, PROXIED};
use crate::error::{Context, Result};
use crate::keys::Watcher;
use crate::monitor::exit_code;
use crate::terminal::{self, RawMode, Signals};
use crate::{ExecRequest, Outcome};

/// Our ends of the child's pipes.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Where our input goes.
    pub input: Option<OwnedFd>,
    /// Where its output comes from, and which of ours (1 or 2) it goes to.
    pub outputs: Vec<(OwnedFd, i32)>,
}

const BUFFER: usize = 32 * 1024;

/// Where among the outlets that of standard output (1) or error (2) is.
fn outlet(number: i32) -> usize {
    usize::from(number != 1)
}

/// The work of one exec.
pub(super) struct Relay {
    child: ExecChild,
    streams: Streams,
    watcher: Option<Watcher>,
    raw: Option<RawMode>,
    signals: Signals,
    sig_proxy: bool,
    tty: bool,
    /// We still read our standard input.
    reading: bool,
    /// What the child has no room for yet.
    pending: Vec<u8>,
    /// Nobody reads our output any more, which a terminal cannot tell the process.
    unheard: bool,
    buffer: Vec<u8>,
    /// Our standard output and error. Who does not read them holds up neither signals nor what is typed.
    outlets: [Outlet; 2],
}

enum Source {
    Child,
    Signals,
    Input,
    Stdin,
    /// One of the child's pipes.
    Output(usize),
    /// One of ours has room again.
    Outlet(usize),
}

impl Relay {
    pub fn new(child: ExecChild, mut streams: Streams, request: &ExecRequest) -> Result<Relay> {
        let why = || "cannot connect to the new process".to_string();
        if let Some(console) = &child.console {
            streams.outputs.push((console.try_clone().context(why)?, 1));
            if request.interactive {
                streams.input = Some(console.try_clone().context(why)?);
            }
        }
        for fd in streams
            .outputs
            .iter()
            .map(|(fd, _)| fd)
            .chain(&streams.input)
        {
            rustix::io::ioctl_fionbio(fd, true).context(why)?;
        }
        let raw = match request.tty && request.interactive {
            true => RawMode::enter().context(|| "cannot set up the terminal".into())?,
            false => None,
        };
        let taken: &[Signal] = match (&raw, request.relay.sig_proxy) {
            (Some(_), _) => &ON_TERMINAL,
            (None, true) => &PROXIED,
            (None, false) => &[Signal::SIGWINCH],
        };
        let mut relay = Relay {
            watcher: raw
                .is_some()
                .then(|| Watcher::new(request.relay.detach_keys.clone())),
            raw,
            signals: Signals::take(taken).context(|| "cannot take over signals".into())?,
            sig_proxy: request.relay.sig_proxy,
            tty: request.tty,
            reading: streams.input.is_some(),
            pending: Vec::new(),
            unheard: false,
            buffer: vec![0; BUFFER],
            outlets: [rustix::stdio::stdout(), rustix::stdio::stderr()].map(Outlet::new),
            child,
            streams,
        };
        relay.resize();
        Ok(relay)
    }

    /// Works until the child ends or the user detaches; the child is given back.
    pub fn run(mut self) -> Result<(Outcome, ExecChild)> {
        loop {
            for source in self
                .wait()
                .context(|| "cannot wait for the process".into())?
            {
                let outcome = match source {
                    Source::Child => Some(self.finish()?),
                    Source::Signals => self.handle_signals(),
                    Source::Input => {
                        self.write_input();
                        None
                    }
                    Source::Stdin => self.read_stdin(),
                    Source::Output(at) => {
                        self.pass_output(at)?;
                        self.unheard.then_some(Outcome::GoneReader)
                    }
                    Source::Outlet(which) => {
                        let written = self.outlets[which].flush();
                        self.written(which, written)?;
                        self.unheard.then_some(Outcome::GoneReader)
                    }
                };
                if let Some(outcome) = outcome {
                    return Ok((outcome, self.child));
                }
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut watched: Vec<(Source, BorrowedFd<'_>, PollFlags)> = Vec::with_capacity(6);
        let outputs = self.streams.outputs.iter().enumerate();
        let outputs = outputs.filter(|(_, (_, to))| !self.outlets[outlet(*to)].is_behind());
        watched
            .extend(outputs.map(|(at, (fd, _))| (Source::Output(at), fd.as_fd(), PollFlags::IN)));
        for (which, outlet) in self.outlets.iter().enumerate() {
            if outlet.is_behind() {
                watched.push((Source::Outlet(which), outlet.as_fd(), PollFlags::OUT));
            }
        }
        watched.push((Source::Signals, self.signals.as_fd(), PollFlags::IN));
        match &self.streams.input {
            Some(input) if !self.pending.is_empty() => {
                watched.push((Source::Input, input.as_fd(), PollFlags::OUT))
            }
            _ if self.reading => {
                watched.push((Source::Stdin, rustix::stdio::stdin(), PollFlags::IN))
            }
            _ => {}
        }
        // Last: what it wrote before its end is passed on first.
        watched.push((Source::Child, self.child.pidfd.as_fd(), PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> = watched
            .iter()
            .map(|(_, fd, events)| PollFd::from_borrowed_fd(*fd, *events))
            .collect();
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        // Descriptors that end are removed while the list is worked on: from the back, so that places stay right.
        let mut ready: Vec<_> = watched
            .into_iter()
            .zip(ready)
            .filter(|(_, r)| *r)
            .map(|((s, ..), _)| s)
            .collect();
        ready.sort_by_key(|source| match source {
            Source::Output(at) => usize::MAX - at,
            Source::Child => usize::MAX,
            _ => 0,
        });
        Ok(ready)
    }

    /// Takes what is left of the output, without waiting for others who may hold the pipes open, and the exit code.
    fn finish(&mut self) -> Result<Outcome> {
        let status = process::wait_pidfd(&self.child.pidfd)
            .context(|| "cannot wait for the process".into())?;
        for at in (0..self.streams.outputs.len()).rev() {
            self.pass_rest(at)?;
        }
        self.drain()?;
        Ok(Outcome::Exited(exit_code(status)))
    }

    /// Passes on what is in a pipe now, and nothing that somebody who holds it open writes meanwhile.
    fn pass_rest(&mut self, at: usize) -> Result<()> {
        let Some((fd, _)) = self.streams.outputs.get(at) else {
            return Ok(());
        };
        let mut left = match self.tty {
            // What is still on its way through a terminal is not counted; and it hangs up on whoever has stayed.
            true => u64::MAX,
            false => rustix::io::ioctl_fionread(fd).unwrap_or(u64::MAX),
        };
        while left > 0 && self.drain()? {
            match self.pass_output(at)? {
                0 => return Ok(()),
                count => left = left.saturating_sub(count as u64),
            }
        }
        Ok(())
    }

    /// Waits until our output is taken; false when a signal ends that, which is for nobody else: the child has ended.
    fn drain(&mut self) -> Result<bool> {
        let why = || "cannot write the output".to_owned();
        while self.outlets.iter().any(Outlet::is_behind) {
            let mut fds = vec![PollFd::from_borrowed_fd(
                self.signals.as_fd(),
                PollFlags::IN,
            )];
            let behind = self.outlets.iter().filter(|outlet| outlet.is_behind());
            fds.extend(behind.map(|outlet| PollFd::new(outlet, PollFlags::OUT)));
            rustix::io::retry_on_intr(|| poll(&mut fds, None)).context(why)?;
            while let Some(signal) = self.signals.take_next() {
                if signal != libc::SIGWINCH && signal != libc::SIGCONT {
                    self.outlets =
                        [rustix::stdio::stdout(), rustix::stdio::stderr()].map(Outlet::new);
                    return Ok(false);
                }
            }
            for which in 0..self.outlets.len() {
                let written = self.outlets[which].flush();
                self.written(which, written)?;
            }
        }
        Ok(true)
    }

    /// Reads once and writes it, or keeps it as long as there is no room; how much that was.
    fn pass_output(&mut self, at: usize) -> Result<usize> {
        let Some((fd, to)) = self.streams.outputs.get(at) else {
            return Ok(0);
        };
        let count = match rustix::io::read(fd, &mut self.buffer) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(0),
            // A terminal that nobody has open any more.
            Err(_) => 0,
        };
        if count == 0 {
            self.streams.outputs.remove(at);
            return Ok(0);
        }
        let which = outlet(*to);
        let written = self.outlets[which].put(&self.buffer[..count]);
        Ok(match self.written(which, written)? {
            true => count,
            false => 0,
        })
    }

    /// What becomes of the child's pipe when ours could be written to or not; whether it could.
    fn written(&mut self, which: usize, written: io::Result<()>) -> Result<bool> {
        match written {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                // Closing our end tells the program, as without us; a terminal has no such end.
                self.streams.outputs.retain(|(_, to)| outlet(*to) != which);
                self.unheard = self.tty;
                Ok(false)
            }
            Err(e) => Err(e).context(|| "cannot write the output".into()),
        }
    }

    fn read_stdin(&mut self) -> Option<Outcome> {
        let stdin = rustix::stdio::stdin();
        let count = match rustix::io::retry_on_intr(|| rustix::io::read(stdin, &mut self.buffer)) {
            Ok(count) => count,
            Err(Errno::AGAIN) => return None,
            Err(_) => 0,
        };
        if count == 0 {
            self.reading = false;
            // On a terminal ctrl-d says that there is no more; a pipe is closed once it is empty.
            if self.tty {
                self.pending.push(0x04);
            }
            self.write_input();
            return None;
        }
        let detach = match &mut self.watcher {
            Some(watcher) => watcher.feed(&self.buffer[..count], &mut self.pending),
            None => {
                self.pending.extend_from_slice(&self.buffer[..count]);
                false
            }
        };
        self.write_input();
        detach.then_some(Outcome::Detached)
    }

    fn write_input(&mut self) {
        let Some(input) = &self.streams.input else {
            return;
        };
        while !self.pending.is_empty() {
            match rustix::io::write(input, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody reads it any more.
                Err(_) => {
                    self.reading = false;
                    self.pending.clear();
                }
            }
        }
        if !self.reading {
            self.streams.input = None;
        }
    }

    fn handle_signals(&mut self) -> Option<Outcome> {
        while let Some(signal) = self.signals.take_next() {
            if signal == libc::SIGWINCH && self.tty {
                self.resize();
            } else if self.raw.is_some() {
                return Some(Outcome::Exited(128 + signal));
            } else if self.sig_proxy {
                // It may have ended just now.
                let _ = process::pidfd_send_signal(&self.child.pidfd, signal);
            }
        }
        None
    }

    fn resize(&mut self) {
        if let (Some(console), Some((rows, cols))) = (&self.child.console, terminal::size()) {
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
