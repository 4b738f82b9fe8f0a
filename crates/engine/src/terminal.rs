//! The calling terminal: raw while keys go to a container, and as it was before whatever happens.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, Once, PoisonError};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// How the terminal is to be left, while it is raw; also for the panic hook, which may run where no value is dropped.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// The terminal on standard input in raw mode; dropping it restores the terminal.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Makes the terminal on standard input raw; `None` when there is none.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> io::Result<Option<RawMode>> {
        let stdin = rustix::stdio::stdin();
        if !isatty(stdin) {
            return Ok(None);
        }
        let before = tcgetattr(stdin)?;
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                next(info);
            }));
        });
        let mut raw = before.clone();
        raw.make_raw();
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let mode = RawMode(());
        tcsetattr(stdin, OptionalActions::Drain, &raw)?;
        Ok(Some(mode))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = saved {
        // At once: whoever reads the terminal may not. One that is gone needs no restoring.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &before);
    }
}

/// Rows and columns of the terminal we are on, if any.
pub fn size() -> Option<(u16, u16)> {
    [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ]
    .into_iter()
    .filter(|fd| isatty(fd))
    .find_map(|fd| tcgetwinsize(fd).ok())
    .map(|size| (size.ws_row, size.ws_col))
}

/// Signals that come as messages instead of as interruptions.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Takes these signals over until dropped.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn take(signals: &[Signal]) -> io::Result<Signals> {
        let mut set = SigSet::empty();
        for signal in signals {
            set.add(*signal);
        }
        let before = SigSet::thread_get_mask()?;
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Signals { fd, before })
    }

    /// Takes over these and no others from now on. What has come of them already is not lost; what has come of the others
    /// acts as if it came now.
    ///
    /// # Errors
    /// Does not happen with valid signals.
    pub fn change(&mut self, signals: &[Signal]) -> io::Result<()> {
        let mut mask = self.before;
        let mut set = SigSet::empty();
        for signal in signals {
            set.add(*signal);
            mask.add(*signal);
        }
        self.fd.set_mask(&set)?;
        Ok(mask.thread_set_mask()?)
    }

    /// The next signal that has come.
    pub fn take_next(&mut self) -> Option<i32> {
        match self.fd.read_signal() {
            Ok(Some(info)) => i32::try_from(info.ssi_signo).ok(),
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// Puts `/dev/null` or another file in the place of the three standard streams.
pub(crate) fn replace_stdio(with: &File) -> io::Result<()> {
    rustix::stdio::dup2_stdin(with)?;
    rustix::stdio::dup2_stdout(with)?;
    rustix::stdio::dup2_stderr(with)?;
    Ok(())
}
