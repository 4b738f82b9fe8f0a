//! The descriptors of a process: those that it was started with, and those that it hands on or closes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// Whether this process was started with a descriptor of this number: it is open, and not one of its own, which are all
/// closed on exec.
pub fn is_inherited(number: RawFd) -> bool {
    // SAFETY: plain numbers; the kernel says whether the descriptor is there.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Take over a descriptor that this process was started with, known by its number; it is closed on
/// exec from then on, and has another number.
///
/// Fails with `EBADF` when there is none. The standard ones (0, 1, 2) are not for taking: `EINVAL`.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 3 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let copy = inherited(number)?;
    // SAFETY: a plain number. Whoever started this process gave it the descriptor, so nothing here owns it.
    unsafe { libc::close(number) };
    Ok(copy)
}

/// A copy of the descriptor `number`, which this process was started with, close-on-exec.
///
/// Fails with `EBADF` when there is none of that number.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    copy_from(number, 3)
}

/// Copies, close-on-exec, of the `count` descriptors from `first` on that this process was started
/// with.
///
/// Fails with `EBADF` when one of them is not open.
pub fn inherited_fds(first: RawFd, count: u32) -> io::Result<Vec<OwnedFd>> {
    let end = first.saturating_add_unsigned(count);
    // The copies come after the originals, so that none of them is taken for one.
    (first..end).map(|fd| copy_from(fd, end.max(3))).collect()
}

/// A copy of a descriptor that is known by its number, with the first number from `least` on that is free.
fn copy_from(number: RawFd, least: RawFd) -> io::Result<OwnedFd> {
    if !is_inherited(number) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: plain numbers; a descriptor that is not open only yields EBADF.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, least) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Close every descriptor of this process from `first` on, but for `keep`.
///
/// For a child right after its fork, whose copies of its parent's files it must not hold. Whoever
/// still owns one of them in this process must not use it again.
pub fn close_range_except(first: RawFd, keep: &[RawFd]) {
    sweep(first, keep, 0);
}

/// Close every descriptor from `first` on, but for `keep`; with `CLOSE_RANGE_CLOEXEC` in `flags` execve does it.
fn sweep(first: RawFd, keep: &[RawFd], flags: libc::c_uint) {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .collect();
    keep.sort_unstable();
    let mut from = u32::try_from(first).unwrap_or(0);
    for fd in keep {
        if fd > from {
            sweep_range(from, fd - 1, flags);
        }
        from = from.max(fd.saturating_add(1));
    }
    sweep_range(from, u32::MAX, flags);
}

fn sweep_range(first: u32, last: u32, flags: libc::c_uint) {
    // SAFETY: plain numbers. Closing what others own is the caller's stated intent.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 {
        return;
    }
    // Before Linux 5.9 (5.11 for the flag): one by one, from the list of what is open.
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| (first..=last).contains(fd))
        .collect();
    for fd in open {
        let fd = fd.cast_signed();
        // SAFETY: as above; a number that is no longer open only yields EBADF.
        unsafe {
            if flags == 0 {
                libc::close(fd);
            } else {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}

/// Make `fds` the descriptors 0, 1, 2, ... of this process and `kept` those after them, which execve closes. All others are
/// closed now.
///
/// For a child right before it executes a program. Descriptors that others own in this process
/// may be overwritten: nobody may use them any more.
pub fn arrange_fds(fds: &[BorrowedFd<'_>], kept: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
    let number = |count| RawFd::try_from(count).map_err(|_| io::ErrorKind::InvalidInput);
    let (first, end) = (number(fds.len())?, number(fds.len() + kept.len())?);
    // First out of the way of the targets, then into place.
    let all = fds.iter().copied().chain(kept.iter().map(AsFd::as_fd));
    let parked: Vec<OwnedFd> = all
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, end))
        .collect::<Result<_, _>>()?;
    // Their numbers may be among the targets: who drops them later would close what is put there.
    for fd in kept {
        let _number = fd.into_raw_fd();
    }
    for (target, fd) in (0..).zip(&parked) {
        // SAFETY: both are plain numbers; what `target` was is given up, as the caller was told.
        if unsafe { libc::dup2(fd.as_raw_fd(), target) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    drop(parked);
    sweep(first, &[], libc::CLOSE_RANGE_CLOEXEC);
    sweep(end, &[], 0);
    // SAFETY: dup2 has just made them, and no other owner of these numbers is left.
    Ok((first..end)
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect())
}
