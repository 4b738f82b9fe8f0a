//! Answering the calls of other processes in the kernel's place (seccomp_unotify(2)).
//!
//! A filter with a listener ([`crate::seccomp`]) hands calls over: whoever holds the listener takes
//! them one by one, looks at the caller's memory and files, and says what comes of each.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The listener of a filter.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    /// The kernel says by itself when no process with the filter is left.
    tells_end: bool,
}

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    id: u64,
    /// The thread that calls, as this process's namespace numbers it.
    pub thread: i32,
    /// The number of the call.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// What comes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel does it, as if nobody had been asked.
    Continue,
    /// It gives this.
    Value(i64),
    /// It fails with this error number.
    Error(i32),
}

#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    instruction: u64,
    arguments: [u64; 6],
}

#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    target_flags: u32,
}

// ioctl numbers of linux/seccomp.h.
const RECV: u64 = 0xc050_2100;
const SEND: u64 = 0xc018_2101;
const ID_VALID: u64 = 0x4008_2102;
const ADDFD: u64 = 0x4018_2103;
const SET_FLAGS: u64 = 0x4008_2104;

const FLAG_CONTINUE: u32 = 1;
const ADDFD_FLAG_SEND: u32 = 2;
const FD_SYNC_WAKE_UP: u64 = 1;

impl Listener {
    /// Take calls from `fd`.
    pub fn new(fd: OwnedFd) -> Self {
        // The caller and we take turns, so the kernel may keep both on one processor (Linux 6.6).
        // SAFETY: a valid descriptor and a plain number.
        let result =
            unsafe { libc::ioctl(fd.as_raw_fd(), SET_FLAGS as libc::Ioctl, FD_SYNC_WAKE_UP) };
        Self {
            fd,
            tells_end: result == 0,
        }
    }

    /// Wait for a call; `None` when no process is left that could make one.
    ///
    /// # Errors
    /// As the ioctl SECCOMP_IOCTL_NOTIF_RECV.
    pub fn next(&self) -> io::Result<Option<Call>> {
        loop {
            if !self.tells_end && self.is_deserted()? {
                return Ok(None);
            }
            let mut found = Notification::default();
            // SAFETY: the kernel writes one seccomp_notif, whose layout `found` has.
            let result =
                unsafe { libc::ioctl(self.fd.as_raw_fd(), RECV as libc::Ioctl, &raw mut found) };
            if result == 0 {
                return Ok(Some(Call {
                    id: found.id,
                    thread: found.pid.cast_signed(),
                    number: found.number.into(),
                    arguments: found.arguments,
                }));
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // The caller has gone meanwhile; or all have.
                Some(libc::ENOENT) if self.is_over()? => return Ok(None),
                Some(libc::ENOENT) => {}
                _ => return Err(error),
            }
        }
    }

    fn poll(&self, timeout: libc::c_int) -> io::Result<libc::c_short> {
        let mut fds = libc::pollfd {
            fd: self.fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd.
        match unsafe { libc::poll(&raw mut fds, 1, timeout) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(fds.revents),
        }
    }

    /// Waits for a call; whether there will be none.
    fn is_deserted(&self) -> io::Result<bool> {
        loop {
            match self.poll(-1) {
                Ok(events) if events & libc::POLLIN != 0 => return Ok(false),
                Ok(events) => return Ok(events & (libc::POLLHUP | libc::POLLERR) != 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn is_over(&self) -> io::Result<bool> {
        let events = self.poll(0)?;
        Ok(events & libc::POLLIN == 0 && events & (libc::POLLHUP | libc::POLLERR) != 0)
    }

    /// Whether the caller still waits: then what was read of it was its own.
    pub fn is_current(&self, call: &Call) -> bool {
        // SAFETY: the kernel reads one number.
        unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                ID_VALID as libc::Ioctl,
                &raw const call.id,
            ) == 0
        }
    }

    /// Say what comes of it. That nobody waits for it any more is no error.
    pub fn answer(&self, call: &Call, answer: Answer) {
        let (value, error, flags) = match answer {
            Answer::Continue => (0, 0, FLAG_CONTINUE),
            Answer::Value(value) => (value, 0, 0),
            Answer::Error(errno) => (0, -errno, 0),
        };
        let response = Response {
            id: call.id,
            value,
            error,
            flags,
        };
        // SAFETY: the kernel reads one seccomp_notif_resp, whose layout `response` has.
        unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                SEND as libc::Ioctl,
                &raw const response,
            );
        }
    }

    /// Give the caller a copy of `fd`, whose number is what the call gives (Linux 5.14).
    ///
    /// # Errors
    /// `ENOENT` when the caller waits no more; else as the ioctl SECCOMP_IOCTL_NOTIF_ADDFD.
    pub fn give(&self, call: &Call, fd: BorrowedFd<'_>, close_on_exec: bool) -> io::Result<()> {
        let request = AddFd {
            id: call.id,
            flags: ADDFD_FLAG_SEND,
            source: fd.as_raw_fd().cast_unsigned(),
            target: 0,
            target_flags: if close_on_exec {
                libc::O_CLOEXEC.cast_unsigned()
            } else {
                0
            },
        };
        // SAFETY: the kernel reads one seccomp_notif_addfd, whose layout `request` has.
        let result = unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                ADDFD as libc::Ioctl,
                &raw const request,
            )
        };
        checked(result >= 0)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn checked(good: bool) -> io::Result<()> {
    match good {
        true => Ok(()),
        false => Err(io::Error::last_os_error()),
    }
}

/// Read the memory of a thread at `address`, as far as there is any; how much was read.
///
/// # Errors
/// As process_vm_readv(2): the thread is gone or not ours, or nothing is at the address.
pub fn read_memory(thread: i32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: buffer.len(),
    };
    // SAFETY: the kernel writes at most the buffer's length to it; the remote address is only a
    // number to this process.
    let count =
        unsafe { libc::process_vm_readv(thread, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Write to the memory of a thread at `address`.
///
/// # Errors
/// As process_vm_writev(2); `EFAULT` when not all could be written.
pub fn write_memory(thread: i32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel only reads the local bytes; the remote address is only a number here.
    let count =
        unsafe { libc::process_vm_writev(thread, &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(count) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// The text that ends with a null at `address` of a thread; `ENAMETOOLONG` beyond a path's length.
pub fn read_text(thread: i32, address: u64, buffer: &mut [u8; 4096]) -> io::Result<usize> {
    let mut filled = 0;
    // Mostly the first piece is enough; it must not reach into memory that is not there.
    while filled < buffer.len() {
        let at = address.wrapping_add(filled as u64);
        let page_rest = 4096 - (at % 4096) as usize;
        let end = buffer
            .len()
            .min(filled + page_rest.min(256.max(filled * 4)));
        let count = read_memory(thread, at, &mut buffer[filled..end])?;
        if count == 0 {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        let piece = &buffer[filled..filled + count];
        if let Some(len) = piece.iter().position(|byte| *byte == 0) {
            return Ok(filled + len);
        }
        filled += count;
    }
    Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG))
}

/// The status of a file (stat(2)), with `flags` of fstatat(2).
///
/// # Errors
/// As fstatat(2).
pub fn status(path: &CStr, flags: i32) -> io::Result<libc::stat> {
    status_at(libc::AT_FDCWD, path, flags)
}

/// The status of what `fd` is.
///
/// # Errors
/// As fstat(2).
pub fn status_of(fd: BorrowedFd<'_>) -> io::Result<libc::stat> {
    status_at(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

fn status_at(dir: i32, path: &CStr, flags: i32) -> io::Result<libc::stat> {
    // SAFETY: all zero is a valid stat; the kernel fills it; the path is terminated.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        checked(libc::fstatat(dir, path.as_ptr(), &raw mut found, flags) == 0)?;
        Ok(found)
    }
}

/// The status of a file (statx(2)).
///
/// # Errors
/// As statx(2).
pub fn status_x(path: &CStr, flags: i32, mask: u32) -> io::Result<libc::statx> {
    status_x_at(libc::AT_FDCWD, path, flags, mask)
}

/// The status of what `fd` is (statx(2)).
///
/// # Errors
/// As statx(2).
pub fn status_x_of(fd: BorrowedFd<'_>, flags: i32, mask: u32) -> io::Result<libc::statx> {
    status_x_at(fd.as_raw_fd(), c"", flags | libc::AT_EMPTY_PATH, mask)
}

fn status_x_at(dir: i32, path: &CStr, flags: i32, mask: u32) -> io::Result<libc::statx> {
    // SAFETY: all zero is a valid statx; the kernel fills it; the path is terminated.
    unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let result = libc::statx(dir, path.as_ptr(), flags, mask, &raw mut found);
        checked(result == 0)?;
        Ok(found)
    }
}

/// Write a status to the memory of a thread, as the kernel would.
///
/// # Errors
/// As [`write_memory`].
pub fn write_status(thread: i32, address: u64, status: &libc::stat) -> io::Result<()> {
    // SAFETY: a plain structure without padding on 64-bit machines, where libc's is the kernel's.
    let bytes = unsafe {
        std::slice::from_raw_parts((&raw const *status).cast::<u8>(), size_of::<libc::stat>())
    };
    write_memory(thread, address, bytes)
}

/// As [`write_status`], for statx(2).
///
/// # Errors
/// As [`write_memory`].
pub fn write_status_x(thread: i32, address: u64, status: &libc::statx) -> io::Result<()> {
    // SAFETY: the kernel's own structure, which has no padding.
    let bytes = unsafe {
        std::slice::from_raw_parts((&raw const *status).cast::<u8>(), size_of::<libc::statx>())
    };
    write_memory(thread, address, bytes)
}

/// The soft limit of a process for real-time processor time (RLIMIT_RTTIME).
///
/// # Errors
/// As prlimit(2).
pub fn mark(thread: i32) -> io::Result<u64> {
    limit(thread, None).map(|limit| limit.rlim_cur)
}

/// Set that limit; the hard one stays.
///
/// # Errors
/// As prlimit(2).
pub fn set_mark(thread: i32, value: u64) -> io::Result<()> {
    let now = limit(thread, None)?;
    let wanted = libc::rlimit64 {
        rlim_cur: value.min(now.rlim_max),
        rlim_max: now.rlim_max,
    };
    if wanted.rlim_cur != value {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    limit(thread, Some(wanted)).map(drop)
}

fn limit(thread: i32, wanted: Option<libc::rlimit64>) -> io::Result<libc::rlimit64> {
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let new = wanted.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: a null or valid new value, and room for the old one.
    let result = unsafe { libc::prlimit64(thread, libc::RLIMIT_RTTIME, new, &raw mut old) };
    checked(result == 0).map(|()| old)
}

/// A copy of descriptor `fd` of another process (pidfd_getfd(2)).
///
/// # Errors
/// As pidfd_getfd(2): `EBADF` for a number that is not open there, `EPERM` for processes of others.
pub fn copy_fd(pidfd: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: plain numbers.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) };
    match i32::try_from(copy) {
        // SAFETY: the kernel has just made it.
        Ok(copy @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(copy) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<Notification>(), 80);
        assert_eq!(size_of::<Response>(), 24);
        assert_eq!(size_of::<AddFd>(), 24);
        assert_eq!(size_of::<libc::statx>(), 256);
    }

    #[test]
    fn memory_is_read_and_written() {
        let me = std::process::id().cast_signed();
        let text = c"a text".to_owned();
        let mut buffer = [0; 4096];
        let len = read_text(me, text.as_ptr() as u64, &mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"a text");
        let long = vec![b'x'; 10_000];
        assert!(read_text(me, long.as_ptr() as u64, &mut buffer).is_err());
        let mut target = [0_u8; 4];
        write_memory(me, target.as_mut_ptr() as u64, b"abcd").unwrap();
        assert_eq!(std::hint::black_box(&target), b"abcd");
        assert!(read_memory(me, 0, &mut buffer).is_err());
    }
}
