//! Running a piece of our own program as the root of a user namespace.
//!
//! Files of subordinate owners can only be made, read and removed by somebody to whom these ids
//! belong. Such work runs in a forked child that is uid 0 of a namespace with the container's id
//! maps; what it writes comes back to the caller together with its exit status.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitStatus;

use nix::sched::CloneFlags;
use rustix::process::{Gid, Pid, Signal, Uid};

use crate::forbidden::Forbidden;
use crate::ids::{self, IdMaps, MapMethod};
use crate::process::{self, Fork};

/// The exit code of a child whose work panicked.
pub const PANICKED: i32 = 101;
/// The exit code of a child that could not become the root of its namespace.
pub const NOT_SET_UP: i32 = 102;

/// The user namespace that owns another namespace (ioctl_ns(2), NS_GET_USERNS).
///
/// Fails with `EPERM` when that is none of ours or below, with `ENOTTY` for what is no namespace.
pub fn owner_of(namespace: impl AsFd) -> io::Result<OwnedFd> {
    /// `_IO(0xb7, 0x1)` (linux/nsfs.h).
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: the call has no argument, and the descriptor is open.
    let owner = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_USERNS) };
    if owner < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us.
    let owner = unsafe { OwnedFd::from_raw_fd(owner) };
    rustix::io::fcntl_setfd(&owner, rustix::io::FdFlags::CLOEXEC)?;
    Ok(owner)
}

/// A child at work in a user namespace.
#[derive(Debug)]
pub struct Worker {
    /// Its process id.
    pub pid: Pid,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    output: OwnedFd,
}

impl Worker {
    /// The reading end of what the child writes; it ends when the child does.
    pub fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    /// Read all the child writes and wait for its end.
    ///
    /// # Errors
    /// When it cannot be read or waited for.
    pub fn finish(self) -> io::Result<(ExitStatus, Vec<u8>)> {
        let mut text = Vec::new();
        let read = std::fs::File::from(self.output).read_to_end(&mut text);
        let status = process::wait_pidfd(&self.pidfd)?;
        read.map(|_| (status, text))
    }
}

/// Run `f` in a forked child in a new user and mount namespace with `maps`, as uid 0 and gid 0
/// with full capabilities there; what it writes and how it ended.
///
/// `f`'s value is the exit code. A panic in it ends the child with [`PANICKED`]. The child is
/// killed when this process ends. Needs a process with one thread (see [`process::fork`]); fails
/// where user namespaces are forbidden and where the maps are refused, with errors that
/// [`hint_of`](crate::forbidden::hint_of) has a remedy for.
pub fn run(
    maps: &IdMaps,
    f: impl FnOnce(&mut dyn Write) -> i32,
) -> io::Result<(ExitStatus, Vec<u8>)> {
    spawn(maps, f)?.finish()
}

/// As [`run`], without waiting.
///
/// # Errors
/// As [`run`].
pub fn spawn(maps: &IdMaps, f: impl FnOnce(&mut dyn Write) -> i32) -> io::Result<Worker> {
    let (output, writer) = pipe()?;
    let (go, ready) = pipe()?;
    let parent = rustix::process::getpid();
    flush();
    let kinds = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
    match process::clone(kinds).map_err(Forbidden::wrap)? {
        Fork::Child => {
            drop((output, ready));
            let mut byte = [0];
            let released = matches!(
                rustix::io::retry_on_intr(|| rustix::io::read(&go, &mut byte)),
                Ok(1)
            );
            drop(go);
            work(
                released && has_power(),
                parent,
                maps.method != MapMethod::Single,
                writer,
                f,
            )
        }
        Fork::Parent { pid, pidfd } => {
            drop((writer, go));
            let mapped = ids::write_maps(pid, maps)
                .map_err(io::Error::other)
                .and_then(|()| Ok(rustix::io::write(&ready, b"g").map(drop)?));
            if let Err(error) = mapped {
                // It waits for our byte, and goes when the pipe closes; nothing is left behind.
                drop(ready);
                process::wait_pidfd(&pidfd)?;
                return Err(error);
            }
            Ok(Worker { pid, pidfd, output })
        }
    }
}

/// As [`run`], in the user namespace that is already there behind `userns` and in a new mount
/// namespace. No maps need to be written.
///
/// Fails with `EPERM` for a namespace that this user neither owns nor is a descendant of.
pub fn run_in(
    userns: BorrowedFd<'_>,
    f: impl FnOnce(&mut dyn Write) -> i32,
) -> io::Result<(ExitStatus, Vec<u8>)> {
    spawn_in(userns, f)?.finish()
}

/// As [`run_in`], without waiting.
///
/// # Errors
/// As [`run_in`].
pub fn spawn_in(
    userns: BorrowedFd<'_>,
    f: impl FnOnce(&mut dyn Write) -> i32,
) -> io::Result<Worker> {
    let (output, writer) = pipe()?;
    let parent = rustix::process::getpid();
    flush();
    match process::fork()? {
        Fork::Child => {
            drop(output);
            let entered = nix::sched::setns(userns, CloneFlags::CLONE_NEWUSER)
                .and_then(|()| nix::sched::unshare(CloneFlags::CLONE_NEWNS));
            work(entered.is_ok(), parent, true, writer, f)
        }
        Fork::Parent { pid, pidfd } => Ok(Worker { pid, pidfd, output }),
    }
}

/// The child's part: become root of the namespace, work, end.
fn work(
    entered: bool,
    parent: Pid,
    groups: bool,
    writer: OwnedFd,
    f: impl FnOnce(&mut dyn Write) -> i32,
) -> ! {
    if !entered || become_root(groups).is_err() {
        process::exit_now(NOT_SET_UP);
    }
    // After the change of ids, which clears it.
    let _ = process::set_pdeathsig(Some(Signal::KILL));
    if rustix::process::getppid() != Some(parent) {
        process::exit_now(NOT_SET_UP);
    }
    let mut writer = std::fs::File::from(writer);
    let code = catch_unwind(AssertUnwindSafe(|| f(&mut writer))).unwrap_or(PANICKED);
    flush();
    process::exit_now(code)
}

/// Whether the capabilities in our new namespaces are real: a security module may have let us make
/// them and yet forbid every use, see [`powerless`](crate::forbidden::powerless).
///
/// To be asked in the first process of a new user and mount namespace.
pub fn has_power() -> bool {
    use rustix::mount::{MountPropagationFlags, mount_change};
    let kind = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", kind) != Err(rustix::io::Errno::PERM)
}

/// Take uid 0, gid 0 and, where that is allowed, no supplementary groups.
///
/// # Errors
/// As setresuid(2) and setresgid(2): the ids are not mapped.
pub fn become_root(groups: bool) -> io::Result<()> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    if groups {
        match rustix::thread::set_thread_groups(&[]) {
            // A namespace that was made where setgroups is denied denies it too.
            Ok(()) | Err(rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

fn flush() {
    // What is still buffered would otherwise be written twice, or not at all.
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
}
