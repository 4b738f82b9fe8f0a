//! The tiny program that executes a container's program, and stays as its first process if asked.
//!
//! See `stub/main.rs` for what it does and why. Here it is put into a sealed memory file, which
//! nobody can change, and executed from there.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// The program, as an executable file.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub"));

/// The first byte of the message that says that the program could not be executed.
pub const FAILED: u8 = b'X';

/// What the stub is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Execute the program.
    Execute,
    /// Stay as the first process of the container, with the program as a child. All signals must
    /// be blocked before.
    Init {
        /// Make standard input the controlling terminal of the program.
        terminal: bool,
    },
}

/// The stub in a sealed memory file, close-on-exec.
///
/// Fails with `EACCES` where the sysctl vm.memfd_noexec forbids programs in memory.
pub fn file() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC says that it is meant to be executed; kernels before 6.3 do not know it.
    let exec = MemfdFlags::from_bits_retain(0x10);
    let file = match memfd_create("rcon-stub", flags | exec) {
        Err(rustix::io::Errno::INVAL) => memfd_create("rcon-stub", flags)?,
        other => other?,
    };
    let mut rest = PROGRAM;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file)
}

/// Become the stub in `file`, which executes `program` with `arguments` and `environment`.
///
/// `control` takes [`FAILED`] and the error number (four bytes, little endian) when the program
/// cannot be executed, and is closed when it can. Comes back only with an error.
pub fn become_stub(
    file: impl AsFd,
    mode: Mode,
    control: impl AsFd,
    program: &CStr,
    arguments: &[CString],
    environment: &[CString],
) -> io::Error {
    let (letters, name) = match mode {
        Mode::Execute => ("x-", c"rcon-start"),
        Mode::Init { terminal: false } => ("i-", c"rcon-init"),
        Mode::Init { terminal: true } => ("it", c"rcon-init"),
    };
    let config = format!("{letters}{}", control.as_fd().as_raw_fd());
    let Ok(config) = CString::new(config) else {
        return io::ErrorKind::InvalidInput.into();
    };
    if let Err(error) = rustix::io::fcntl_setfd(&control, rustix::io::FdFlags::empty()) {
        return error.into();
    }
    let mut argv = vec![name.as_ptr(), config.as_ptr(), program.as_ptr()];
    argv.extend(arguments.iter().map(|argument| argument.as_ptr()));
    argv.push(ptr::null());
    let error = execveat(file.as_fd().as_raw_fd(), c"", &argv, &pointers(environment));
    // The caller goes on in this process: leave the descriptor as it was.
    let _ = rustix::io::fcntl_setfd(&control, rustix::io::FdFlags::CLOEXEC);
    error
}

/// Execute `program` from this process itself. Comes back only with an error.
pub fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let (argv, envp) = (pointers(arguments), pointers(environment));
    // SAFETY: a terminated path and null-terminated arrays of terminated texts, all of which
    // outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    let mut pointers: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
    pointers.push(ptr::null());
    pointers
}

fn execveat(fd: i32, path: &CStr, argv: &[*const c_char], envp: &[*const c_char]) -> io::Error {
    // SAFETY: a valid descriptor, a terminated path, and null-terminated arrays of terminated
    // texts that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd,
            path.as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stub_is_small_and_sealed() {
        assert!(PROGRAM.starts_with(b"\x7fELF"));
        assert!(PROGRAM.len() < 8192, "{} bytes", PROGRAM.len());
        let file = file().unwrap();
        assert!(rustix::io::write(&file, b"x").is_err());
        assert!(rustix::fs::ftruncate(&file, 0).is_err());
    }
}
