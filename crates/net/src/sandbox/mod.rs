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

use nix::sched::{CloneFlags, unshare};
use rcon_sys::seccomp;
use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

/// What a network process has given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    /// It has no files: its root directory is empty, and cannot be written to.
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

/// Gets mounts of its own for the process, which must have one thread and be in a user namespace
/// in which it may do that.
pub(crate) fn own_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // No mount of ours is seen by anybody, and none of anybody's by us.
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    Ok(rustix::mount::mount_change("/", private)?)
}

/// Leaves nothing of the file system in sight, for every thread of the process.
pub(crate) fn empty_root() -> io::Result<()> {
    /// A directory that is there wherever Linux is.
    const PLACE: &str = "/proc";
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = c"size=4k,nr_inodes=1,mode=0555";
    rustix::mount::mount("none", PLACE, "tmpfs", flags, Some(options))?;
    rustix::process::chdir(PLACE)?;
    // The old root comes to lie over the new one, and is let go (pivot_root(2)).
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Whether nothing can be opened.
pub(crate) fn is_empty() -> bool {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/proc/self", flags, rustix::fs::Mode::empty()).is_err()
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
