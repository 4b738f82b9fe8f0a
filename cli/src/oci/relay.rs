//! Staying with a program in the foreground: its terminal is shown, signals are passed on, and its
//! code becomes ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
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

/// Waits for the program behind `pidfd`, whose terminal has the master `console` if it has one.
pub fn attend(pidfd: &OwnedFd, console: Option<&OwnedFd>, signals: Signals) -> Outcome {
    let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let failed = |error: Errno| {
        let errno = nix::errno::Errno::from_raw(error.raw_os_error());
        Failure::new(format!("cannot relay: {}", errno.desc()))
    };
    let _raw = console.and_then(|_| Raw::make(stdin));
    let resize = || {
        if let (Some(console), Ok(size)) = (console, tcgetwinsize(stdin)) {
            let _ = tcsetwinsize(console, size);
        }
    };
    resize();
    let (mut reading, mut showing) = (console.is_some(), console.is_some());
    loop {
        let on = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        // What is over is not looked at: its end would be news each time.
        let off = || PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::empty());
        let mut fds = [
            on(pidfd.as_fd()),
            on(signals.0.as_fd()),
            console
                .filter(|_| showing)
                .map_or_else(off, |fd| on(fd.as_fd())),
            if reading { on(stdin) } else { off() },
        ];
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).map_err(failed)?;
        let [ended, signalled, output, input] = fds.map(|fd| !fd.revents().is_empty());
        if signalled {
            while let Ok(Some(info)) = signals.0.read_signal() {
                let number = i32::try_from(info.ssi_signo).unwrap_or(0);
                match number == Signal::SIGWINCH as i32 {
                    true => resize(),
                    false => {
                        let _ = process::pidfd_send_signal(pidfd, number);
                    }
                }
            }
        }
        if let Some(console) = console {
            if output && showing {
                showing = copy(console.as_fd(), stdout);
            }
            if input && reading {
                reading = copy(stdin, console.as_fd());
            }
        }
        // What it said last comes before its end.
        if ended && !(showing && output) {
            break;
        }
    }
    let status = process::wait_pidfd(pidfd)
        .map_err(|error| Failure::new(format!("cannot wait for the program: {error}")))?;
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}

/// Copies what is there to be read; whether more may come. What nobody takes is lost: a program is not held up because the
/// reader of what it says went away.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 8192];
    let count = match rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer)) {
        Ok(0) | Err(_) => return false,
        Ok(count) => count,
    };
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(to, rest)) {
            Ok(written) => rest = &rest[written..],
            Err(_) => break,
        }
    }
    true
}
