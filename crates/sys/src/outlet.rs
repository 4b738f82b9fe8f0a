//! Writing to a standard output without ever waiting for who reads it.
//!
//! Others have the same terminal or pipe, and would be surprised to find that it does not wait any more (`O_NONBLOCK` is
//! the open file's, not the descriptor's). So it is opened once more, by /proc; where that cannot be it is asked first
//! whether there is room.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::net::SendFlags;

/// How much is written at a time to what may wait although it has room for something, in bytes: what a pipe takes whole
/// (PIPE_BUF, pipe(7)).
const AT_ONCE: usize = 4096;

/// A standard output, and what it had no room for yet.
#[derive(Debug)]
pub struct Outlet {
    to: BorrowedFd<'static>,
    /// How it is written to, once it was.
    way: Option<Way>,
    pending: Vec<u8>,
}

#[derive(Debug)]
enum Way {
    /// Opened by ourselves; never waits.
    Own(OwnedFd),
    Socket,
    /// A file on a disk, which has room or an error.
    Disk,
    /// Asked first.
    Shared,
}

impl Way {
    fn to(file: BorrowedFd<'_>) -> Way {
        let again = || {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            open(path, flags, Mode::empty()).ok()
        };
        let kind = fstat(file).map(|stat| FileType::from_raw_mode(stat.st_mode));
        match kind {
            Ok(FileType::Fifo | FileType::CharacterDevice) => again().map_or(Way::Shared, Way::Own),
            Ok(FileType::Socket) => Way::Socket,
            Ok(FileType::RegularFile) => Way::Disk,
            _ => Way::Shared,
        }
    }
}

impl Outlet {
    /// The outlet to a standard output.
    pub fn new(to: BorrowedFd<'static>) -> Outlet {
        Outlet {
            to,
            way: None,
            pending: Vec::new(),
        }
    }

    /// Writes what there is room for, and keeps the rest. Who sees to it that nothing is put while
    /// [`Outlet::is_behind`] keeps no more than was put at once.
    ///
    /// # Errors
    /// As write(2), `BrokenPipe` when nobody reads any more; what was kept is dropped then.
    pub fn put(&mut self, data: &[u8]) -> io::Result<()> {
        let rest = match self.pending.is_empty() {
            true => {
                let written = self.write(data)?;
                &data[written..]
            }
            false => data,
        };
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    /// Writes what there is room for now.
    ///
    /// # Errors
    /// As [`Outlet::put`].
    pub fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let written = self.write(&pending)?;
        if written < pending.len() {
            self.pending = pending;
            self.pending.drain(..written);
        }
        Ok(())
    }

    /// Whether something is kept: it is to be written when the descriptor of [`Outlet::as_fd`] is writable.
    pub fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// How much of this could be written.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let to = self.to;
        let way = self.way.get_or_insert_with(|| Way::to(to));
        let mut written = 0;
        while written < data.len() {
            let rest = &data[written..];
            let result = match way {
                Way::Own(file) => rustix::io::write(file, rest),
                Way::Socket => {
                    rustix::net::send(to, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
                }
                Way::Disk => rustix::io::write(to, rest),
                Way::Shared if has_room(to) => {
                    rustix::io::write(to, &rest[..rest.len().min(AT_ONCE)])
                }
                Way::Shared => Err(Errno::AGAIN),
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(written)
    }
}

impl AsFd for Outlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.way {
            Some(Way::Own(file)) => file.as_fd(),
            _ => self.to,
        }
    }
}

/// Whether something can be written now, or its error be learnt.
fn has_room(file: BorrowedFd<'_>) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::from_borrowed_fd(file, PollFlags::OUT)];
    matches!(
        rustix::io::retry_on_intr(|| poll(&mut fds, Some(&now))),
        Ok(1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// A descriptor as the standard ones are: open for as long as the process lives.
    fn lasting(file: impl Into<OwnedFd>) -> BorrowedFd<'static> {
        let file: &'static OwnedFd = Box::leak(Box::new(file.into()));
        file.as_fd()
    }

    /// Puts more than there is room for, and reads it all at the other end.
    fn pass(to: BorrowedFd<'static>, mut reader: impl Read) {
        let mut outlet = Outlet::new(to);
        let data: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        outlet.put(&data).unwrap();
        assert!(outlet.is_behind());
        let flags = rustix::fs::fcntl_getfl(to).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK), "others have it too");
        let mut seen = Vec::new();
        let mut buffer = [0; 10_000];
        while seen.len() < data.len() {
            let count = reader.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..count]);
            outlet.flush().unwrap();
        }
        assert!(seen == data && !outlet.is_behind());
        drop(reader);
        let gone = outlet.put(b"x").unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_reader_that_is_slow_is_not_waited_for() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        pass(lasting(writer), File::from(reader));
        let (near, far) = UnixStream::pair().unwrap();
        pass(lasting(near), far);
    }

    #[test]
    fn what_cannot_be_opened_again_is_asked_first() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let writer = lasting(writer);
        let mut outlet = Outlet::new(writer);
        outlet.way = Some(Way::Shared);
        outlet.put(&[7; 200_000]).unwrap();
        assert!(outlet.is_behind());
        let mut reader = File::from(reader);
        let mut seen = 0;
        let mut buffer = [0; 10_000];
        while seen < 200_000 {
            seen += reader.read(&mut buffer).unwrap();
            outlet.flush().unwrap();
        }
        assert!(seen == 200_000 && !outlet.is_behind());
    }
}
