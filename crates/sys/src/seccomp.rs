//! Loading a seccomp filter (seccomp(2)) into the calling process.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// One instruction of classic BPF, as the kernel takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip when a comparison holds.
    pub jt: u8,
    /// How many to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// Log what the filter does, but for allowing.
pub const FLAG_LOG: u32 = 1 << 1;
/// Do not turn on mitigations of speculation for the sake of the filter.
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;

/// Give a descriptor through which another process decides about calls (seccomp_unotify(2)).
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// While another process decides, only a signal that kills interrupts the call (Linux 5.19).
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The most instructions of a filter.
pub const MAX_LEN: usize = 4096;

/// Put `filter` on this process for good; its children and what it executes have it too.
///
/// Needs `CAP_SYS_ADMIN` in the user namespace, or no_new_privs set (`EACCES` otherwise). Fails
/// with `EINVAL` for a filter that is not valid, and with `EBUSY` for a second listener.
///
/// With [`FLAG_NEW_LISTENER`] the listener comes back, close-on-exec.
pub fn load(filter: &[Instruction], flags: u32) -> io::Result<Option<OwnedFd>> {
    let len =
        u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog {
        len,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    // SAFETY: Instruction has the layout of sock_filter, the program points at `len` of them, all
    // outlives the call, and the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    match RawFd::try_from(result) {
        Ok(0) if flags & FLAG_NEW_LISTENER == 0 => Ok(None),
        // SAFETY: with this flag the result is a descriptor that the kernel has just made.
        Ok(fd @ 0..) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        _ => Err(io::Error::last_os_error()),
    }
}
