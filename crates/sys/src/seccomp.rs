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

/// The filter number `index` of the process `pid`, the newest being 0; `None` when it has no more.
///
/// Needs `CAP_SYS_ADMIN` over the whole machine, and a process that nobody traces. For tests: they compare what is really
/// loaded.
pub fn of_process(pid: rustix::process::Pid, index: usize) -> io::Result<Option<Vec<Instruction>>> {
    use nix::sys::{ptrace, wait};
    const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;
    let traced = nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get());
    ptrace::attach(traced)?;
    let stopped = wait::waitpid(traced, Some(wait::WaitPidFlag::__WALL)).map_err(io::Error::from);
    let empty = Instruction {
        code: 0,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let read = |buffer: *mut Instruction| {
        // SAFETY: without a buffer the kernel only says how many instructions there are; with one it writes as many,
        // each of the layout of Instruction, and `MAX_LEN` is the most that a filter has.
        let count = unsafe {
            libc::ptrace(
                PTRACE_SECCOMP_GET_FILTER as _,
                traced.as_raw(),
                index,
                buffer,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    };
    let filter = stopped.and_then(|_| match read(std::ptr::null_mut()) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
        Ok(_) => {
            let mut filter = vec![empty; MAX_LEN];
            let count = read(filter.as_mut_ptr())?;
            filter.truncate(count);
            Ok(Some(filter))
        }
    });
    ptrace::detach(traced, None)?;
    filter
}
