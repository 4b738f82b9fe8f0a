//! Staying with a program in the foreground: its terminal is shown, signals are passed on, and its
//! code becomes ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rcon_sys::outlet::Outlet;
use rcon_sys::process;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::failure::{Failure, Outcome};

/// The signals that are the program's, from before it is there.
pub struct Signals(SignalFd);

impl Signals {
    /// Takes them.
    pub fn take() -> Result<Signals, Failure> {
        let mut set = SigSet::all();
        for own in [
            Signal::SIGCHLD,
            Signal::SIGPIPE,
            Signal::SIGSEGV,
            Signal::SIGABRT,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGFPE,
            Signal::SIGTRAP,
            Signal::SIGURG,
        ] {
            set.remove(own);
        }
        set.thread_block()
            .and_then(|()| {
                SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            })
            .map(Signals)
            .map_err(|error| Failure::new(format!("cannot take over signals: {}", error.desc())))
    }

    /// The next that has come.
    fn next(&self) -> Option<i32> {
        let info = self.0.read_signal().ok().flatten()?;
        i32::try_from(info.ssi_signo).ok()
    }
}

/// Our terminal, given back as it was.
struct Raw<'a>(BorrowedFd<'a>, Termios);

impl<'a> Raw<'a> {
    fn make(terminal: BorrowedFd<'a>) -> Option<Raw<'a>> {
        let old = isatty(terminal).then(|| tcgetattr(terminal).ok())??;
        let mut raw = old.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Flush, &raw).ok()?;
        Some(Raw(terminal, old))
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Flush, &self.1);
    }
}

/// How much is read at a time, in bytes. No more than this is kept of either direction.
const BUFFER: usize = 32 * 1024;

/// Waits for the program behind `pidfd`, whose terminal has the master `console` if it has one.
///
/// Neither direction waits for the other: a program may write without reading what is typed, and whoever types may not look.
pub fn attend(pidfd: &OwnedFd, console: Option<&OwnedFd>, signals: Signals) -> Outcome {
    let mut relay = console.map(Relay::new).transpose().map_err(failed)?;
    loop {
        let mut fds = vec![
            PollFd::new(pidfd, PollFlags::IN),
            PollFd::new(&signals.0, PollFlags::IN),
        ];
        if let Some(relay) = &relay {
            relay.watch(&mut fds);
        }
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).map_err(failed)?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        while let Some(signal) = signals.next() {
            match (&relay, signal == Signal::SIGWINCH as i32) {
                (Some(relay), true) => relay.resize(),
                (None, true) => {}
                (_, false) => drop(process::pidfd_send_signal(pidfd, signal)),
            }
        }
        if let Some(relay) = &mut relay {
            relay.pass_on(&ready[2..]);
        }
        if ready[0] {
            break;
        }
    }
    if let Some(relay) = &mut relay {
        relay.finish(&signals).map_err(failed)?;
    }
    drop(relay);
    let status = process::wait_pidfd(pidfd)
        .map_err(|error| Failure::new(format!("cannot wait for the program: {error}")))?;
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}

fn failed(error: Errno) -> Failure {
    let errno = nix::errno::Errno::from_raw(error.raw_os_error());
    Failure::new(format!("cannot relay: {}", errno.desc()))
}

/// Both directions between our standard streams and a terminal.
struct Relay<'a> {
    console: &'a OwnedFd,
    /// Something may still come from the terminal, and from our input.
    showing: bool,
    reading: bool,
    output: Outlet,
    /// What the program has no room for yet.
    typed: Vec<u8>,
    buffer: Vec<u8>,
    _raw: Option<Raw<'static>>,
}

impl<'a> Relay<'a> {
    fn new(console: &'a OwnedFd) -> Result<Relay<'a>, Errno> {
        rustix::io::ioctl_fionbio(console, true)?;
        let relay = Relay {
            console,
            showing: true,
            reading: true,
            output: Outlet::new(rustix::stdio::stdout()),
            typed: Vec::new(),
            buffer: vec![0; BUFFER],
            _raw: Raw::make(rustix::stdio::stdin()),
        };
        relay.resize();
        Ok(relay)
    }

    fn resize(&self) {
        if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
            let _ = tcsetwinsize(self.console, size);
        }
    }

    /// Whether the terminal, our input and our output are to be looked at: while one side does not take what there is, the
    /// other is not read.
    fn wants(&self) -> [PollFlags; 3] {
        let when = |wanted: bool, flags: PollFlags| match wanted {
            true => flags,
            false => PollFlags::empty(),
        };
        let console = when(self.showing && !self.output.is_behind(), PollFlags::IN)
            | when(!self.typed.is_empty(), PollFlags::OUT);
        [
            console,
            when(self.reading && self.typed.is_empty(), PollFlags::IN),
            when(self.output.is_behind(), PollFlags::OUT),
        ]
    }

    /// What is over, or need not be looked at, would be news each time.
    fn watch<'b>(&'b self, fds: &mut Vec<PollFd<'b>>) {
        let files = [
            self.console.as_fd(),
            rustix::stdio::stdin(),
            self.output.as_fd(),
        ];
        let watched = self.wants().into_iter().zip(files);
        let watched = watched.filter(|(wanted, _)| !wanted.is_empty());
        fds.extend(watched.map(|(wanted, file)| PollFd::from_borrowed_fd(file, wanted)));
    }

    /// Does what can be done now, `ready` being in the order of [`Relay::watch`].
    fn pass_on(&mut self, ready: &[bool]) {
        let mut ready = ready.iter();
        let [console, input, output] = self
            .wants()
            .map(|wanted| !wanted.is_empty() && ready.next().copied().unwrap_or(false));
        if output {
            // What nobody takes is lost: a program is not held up because the reader of what it says went away.
            let _ = self.output.flush();
        }
        if console {
            self.write_typed();
            self.show();
        }
        if input {
            self.read_typed();
        }
    }

    /// Shows what the program said before its end, unless somebody ends that.
    fn finish(&mut self, signals: &Signals) -> Result<(), Errno> {
        loop {
            while self.show() {}
            if !self.output.is_behind() {
                return Ok(());
            }
            let mut fds = [
                PollFd::new(&signals.0, PollFlags::IN),
                PollFd::new(&self.output, PollFlags::OUT),
            ];
            rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
            while let Some(signal) = signals.next() {
                if signal != Signal::SIGWINCH as i32 {
                    return Ok(());
                }
            }
            let _ = self.output.flush();
        }
    }

    /// Shows what the program has written; whether there was something.
    fn show(&mut self) -> bool {
        if !self.showing || self.output.is_behind() {
            return false;
        }
        match rustix::io::retry_on_intr(|| rustix::io::read(self.console, &mut self.buffer)) {
            Err(Errno::AGAIN) => false,
            Ok(0) | Err(_) => {
                self.showing = false;
                false
            }
            Ok(count) => {
                // As above.
                let _ = self.output.put(&self.buffer[..count]);
                true
            }
        }
    }

    fn read_typed(&mut self) {
        let stdin = rustix::stdio::stdin();
        match rustix::io::retry_on_intr(|| rustix::io::read(stdin, &mut self.buffer)) {
            Err(Errno::AGAIN) => {}
            Ok(0) | Err(_) => self.reading = false,
            Ok(count) => {
                self.typed.extend_from_slice(&self.buffer[..count]);
                self.write_typed();
            }
        }
    }

    fn write_typed(&mut self) {
        while !self.typed.is_empty() {
            match rustix::io::write(self.console, &self.typed) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody reads it any more.
                Err(_) => self.typed.clear(),
            }
        }
    }
}
