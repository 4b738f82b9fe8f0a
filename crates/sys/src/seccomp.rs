//! Loading a seccomp filter (seccomp(2)) into the calling process.

use std::io;

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

/// The most instructions of a filter.
pub const MAX_LEN: usize = 4096;

/// Put `filter` on this process for good; its children and what it executes have it too.
///
/// Needs `CAP_SYS_ADMIN` in the user namespace, or no_new_privs set (`EACCES` otherwise). Fails
/// with `EINVAL` for a filter that is not valid.
pub fn load(filter: &[Instruction], flags: u32) -> io::Result<()> {
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
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
