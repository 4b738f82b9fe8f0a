//! What the network process gives up before it reads the first byte from its container.
//!
//! It parses what a hostile container sends. If it were taken over, the attacker would have the
//! sockets of an ordinary user of the host, as every network of a container gives; and no files,
//! no other processes, no way to start a program, and the few system calls of [`calls`].
//!
//! Where a machine forbids one of the steps, the others are taken all the same; what came of them
//! is told with the statistics of the network.

mod calls;
mod filter;

use std::io;

use rcon_sys::seccomp;
use rustix::fs::CWD;
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

/// The stack of a thread that makes two system calls, in bytes.
const STACK: usize = 64 * 1024;

/// What a network process has given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    /// It has no files: nothing is in its root directory, and nothing can be made there.
    pub no_files: bool,
    /// It has no capabilities, but for one over the container's own network.
    pub no_capabilities: bool,
    /// It can make only the system calls that it needs.
    pub few_calls: bool,
}

/// Which thread a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thread {
    /// The one that serves the tap.
    Stack,
    /// The one that relays published TCP ports.
    Relay,
}

/// Leaves nothing of the file system in sight, for every thread of the process; whether that worked.
///
/// The root becomes a directory of a thread that has ended: nothing is in it, nothing can be made in
/// it, and no way leads out, for nobody here has a directory open. A mount namespace of our own would
/// do the same, but the kernel takes milliseconds to let go of one.
pub(crate) fn leave_files() -> bool {
    let enter = || -> io::Result<()> {
        rustix::process::chroot("/proc/thread-self/fdinfo")?;
        Ok(rustix::process::chdir("/")?)
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(enter);
    let entered = thread.is_ok_and(|thread| matches!(thread.join(), Ok(Ok(()))));
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let nothing = rustix::fs::openat(CWD, "/proc/self", flags, rustix::fs::Mode::empty());
    entered && nothing.is_err()
}

/// Gives up every capability but those to be kept, for the calling thread.
pub(crate) fn keep_capabilities(keep: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Allows the calling thread, and those it starts, the system calls it needs and no others.
///
/// # Errors
/// Where the kernel has no filters, or we have no numbers for this kind of machine.
pub(crate) fn restrict(thread: Thread) -> io::Result<()> {
    let filter = filter::assemble(thread).ok_or(io::ErrorKind::Unsupported)?;
    seccomp::load(&filter, seccomp::FLAG_SPEC_ALLOW).map(drop)
}

/// Leaves the calling thread, the relay's, what it needs: the capability to speak with clients'
/// addresses (IP_TRANSPARENT and SO_MARK in the container's network namespace), and few calls.
/// Whether all of that was possible.
pub(crate) fn restrict_relay() -> bool {
    keep_capabilities(CapabilitySet::NET_ADMIN).is_ok() && restrict(Thread::Relay).is_ok()
}
