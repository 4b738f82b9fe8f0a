//! Processes: forking, watching, signalling and the small per-process settings.
//!
//! Children are made by clone3(2) with `CLONE_PIDFD`, so that who starts a process holds a name
//! for it that cannot come to mean another one. The child is a copy of the caller as after
//! fork(2); it must come about while the caller has a single thread, because a lock that another
//! thread held would stay locked in it for ever. That is checked, and refused otherwise.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sched::CloneFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// Who we are after a fork.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The process that asked.
    Parent {
        /// The child's process id, in the caller's own process id namespace.
        pid: Pid,
        /// The child, close-on-exec; readable when it has ended.
        pidfd: OwnedFd,
    },
}

/// From linux/sched.h; it lies outside of the type that libc has for such flags.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Make a copy of this process.
///
/// Fails with [`io::ErrorKind::Other`] when the process has more than one thread, and as clone(2).
pub fn fork() -> io::Result<Fork> {
    clone(CloneFlags::empty())
}

/// Make a copy of this process in new namespaces.
///
/// As [`clone_into`] without a cgroup.
///
/// # Errors
/// As [`clone_into`].
pub fn clone(namespaces: CloneFlags) -> io::Result<Fork> {
    clone_into(namespaces, None)
}

/// Make a copy of this process in new namespaces and, if one is given, in the cgroup (of the second
/// version) with the folder `cgroup`.
///
/// `namespaces` may hold `CLONE_NEW*` flags only. Fails as [`fork`], and as clone(2): `EPERM`
/// where user namespaces are forbidden, `ENOSPC` where their number is exhausted.
pub fn clone_into(namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    copy(namespace_flags(namespaces)?, libc::SIGCHLD, cgroup)
}

fn namespace_flags(namespaces: CloneFlags) -> io::Result<u64> {
    let allowed = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    if !allowed.contains(namespaces) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(u64::from(namespaces.bits().cast_unsigned()))
}

/// Make a copy of this process that is a child of this process's parent.
///
/// The new process is in the process id namespace that setns(2) has chosen for children. The
/// parent tells it from others by its pidfd, which this process has to hand on.
///
/// # Errors
/// As [`fork`].
pub fn fork_sibling() -> io::Result<Fork> {
    copy(libc::CLONE_PARENT as u64, 0, None)
}

/// As [`fork_sibling`], in new `namespaces` and in the cgroup `cgroup` as with [`clone_into`].
///
/// Where the cgroup cannot be entered so, the new process is in ours.
///
/// # Errors
/// As [`clone_into`].
pub fn clone_sibling(namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let flags = libc::CLONE_PARENT as u64 | namespace_flags(namespaces)?;
    match copy(flags, 0, cgroup) {
        // Kernels before 5.7, and cgroups that want to be entered by the front door.
        Err(error) if cgroup.is_some() && error.raw_os_error().is_some() => copy(flags, 0, None),
        other => other,
    }
}

fn copy(flags: u64, exit_signal: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    if !single_threaded() {
        return Err(io::Error::other(
            "a process can only be forked before it has threads",
        ));
    }
    let mut pidfd: libc::c_int = -1;
    let flags = flags | libc::CLONE_PIDFD as u64;
    let exit_signal = u64::from(exit_signal.unsigned_abs());
    let folder = cgroup.and_then(|folder| u64::try_from(folder.as_raw_fd()).ok());
    let into = folder.map_or(0, |_| CLONE_INTO_CGROUP);
    let mut args = libc::clone_args {
        flags: flags | into,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: folder.unwrap_or(0),
    };
    // SAFETY: `args` is a whole clone_args and lives across the call. Without CLONE_VM the child
    // gets its own copy of memory and goes on from here on its copy of this stack, as after
    // fork(2); there is one thread, so no lock is held by anybody who is missing in the child.
    let mut result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    };
    if result < 0
        && folder.is_none()
        && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS)
    {
        // Older filters answer clone3 with ENOSYS; clone(2) can say the same, its pidfd takes the
        // place of the parent's thread id.
        let legacy = flags | exit_signal;
        // SAFETY: as above; a null stack means the caller's, and the pidfd is written to a c_int.
        result = unsafe { libc::syscall(libc::SYS_clone, legacy, 0, &raw mut pidfd, 0, 0) };
    }
    match result {
        0 => Ok(Fork::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel has just put a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            pid.map(|pid| Fork::Parent { pid, pidfd })
                .ok_or_else(|| io::Error::other("clone gave an impossible process id"))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether this process has one thread; taken to be so where `/proc` is not there to tell.
pub fn single_threaded() -> bool {
    // A directory has two links and one more for each directory in it.
    rustix::fs::stat("/proc/self/task").map_or(true, |stat| stat.st_nlink <= 3)
}

/// End this process at once, without running exit handlers or flushing buffers.
///
/// The right end for a forked child that shares its parent's buffers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// Have the kernel send `signal` to this process when its parent thread ends; `None` to stop that.
///
/// Cleared by changes of ids and by executing a set-user-id program. The parent may have ended
/// already: compare `getppid` with what it was before the fork.
///
/// # Errors
/// As prctl(2).
pub fn set_pdeathsig(signal: Option<Signal>) -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(signal)?)
}

/// Become the parent of every orphan among our descendants, as PID 1 is (`PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// As prctl(2).
pub fn set_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(
        rustix::process::getpid(),
    ))?)
}

/// The name of this process in `ps` and `/proc/PID/comm`; cut after 15 bytes by the kernel.
///
/// # Errors
/// As prctl(2).
pub fn set_name(name: &str) -> io::Result<()> {
    let name = std::ffi::CString::new(name)?;
    Ok(rustix::thread::set_name(&name)?)
}

/// A name for the process `pid` that stays its own (pidfd_open(2)).
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(
        pid,
        rustix::process::PidfdFlags::empty(),
    )?)
}

/// Send `signal` (a number as in signal(7), real-time ones too; 0 only asks whether the process is
/// there).
///
/// Fails with `ESRCH` when the process has ended and been waited for.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: a valid descriptor and plain numbers; no signal information is handed over.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd,
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Wait for the child behind `pidfd` to end, and reap it.
///
/// # Errors
/// `ECHILD` when it is not our child, or has been waited for.
pub fn wait_pidfd(pidfd: impl AsFd) -> io::Result<ExitStatus> {
    loop {
        match wait(pidfd.as_fd(), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
}

fn wait(pidfd: BorrowedFd<'_>, options: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
    let status =
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd), options))?;
    Ok(status.and_then(|status| {
        // The encoding of wait(2), which is what std's type is made of.
        if let Some(code) = status.exit_status() {
            Some(ExitStatus::from_raw((code & 0xff) << 8))
        } else {
            let core = if status.dumped() { 0x80 } else { 0 };
            status
                .terminating_signal()
                .map(|signal| ExitStatus::from_raw(signal | core))
        }
    }))
}

/// How the process behind `pidfd` ended, which need not be a child of ours: known once its parent has waited for it, from
/// Linux 6.15 on (`PIDFD_GET_INFO`, linux/pidfd.h). `None` while it is not.
///
/// Fails where the kernel does not keep that.
pub fn exit_info(pidfd: impl AsFd) -> io::Result<Option<ExitStatus>> {
    /// `struct pidfd_info` in its first form: a mask, the cgroup's id, eleven numbers, the status.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        numbers: [u32; 11],
        status: i32,
    }
    const EXIT: u64 = 1 << 3;
    /// `_IOWR(0xFF, 11, struct pidfd_info)` of that size.
    const GET_INFO: libc::Ioctl = 0xc040_ff0b_u32 as libc::Ioctl;
    let mut info = Info {
        mask: EXIT,
        ..Info::default()
    };
    // SAFETY: a valid descriptor; the kernel writes no more than the size that the request names, which is that of `Info`.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), GET_INFO, &raw mut info) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info.mask & EXIT != 0).then(|| ExitStatus::from_raw(info.status)))
}

/// When the process started, in clock ticks since boot (field 22 of `/proc/PID/stat`, proc(5)).
///
/// A process id and its start time together name one process of this boot. `None` when there is
/// no such process.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    start_time_in(&stat)
}

fn start_time_in(stat: &[u8]) -> Option<u64> {
    // The second field is the name in parentheses and may hold anything, so count from its end.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The name of this run of the machine (random(4)); empty where it cannot be read.
pub fn boot_id() -> &'static str {
    static BOOT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        text.map(|text| text.trim().to_owned()).unwrap_or_default()
    })
}

/// Which kind of namespace `file` is, as a flag `CLONE_NEW*` of clone(2).
///
/// Fails with `ENOTTY` for what is no namespace.
pub fn namespace_kind(file: impl AsFd) -> io::Result<libc::c_int> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: a valid descriptor and a request without an argument.
    let kind = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), NS_GET_NSTYPE) };
    match kind {
        0.. => Ok(kind),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Leave the keys of the session behind for an empty keyring (session-keyring(7)).
///
/// Where that cannot be had (no keyrings in the kernel, the user's quota of keys is used up) the
/// old ring stays.
pub fn new_session_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_ulong = 1;
    // SAFETY: a null name asks for an anonymous ring; no memory is touched.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        );
    }
}

/// Block every signal that can be blocked, and give every one its default action: the mask outlives execve, and so would
/// it that a signal is ignored.
pub fn block_signals() {
    // SAFETY: the set is filled before its use, and only the calling thread's mask changes.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
    set_default_actions();
}

/// Give every signal its default action and unblock them all, as a new program expects.
pub fn reset_signals() {
    set_default_actions();
    // SAFETY: the set is initialised before its use, and only the calling thread's mask changes.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

fn set_default_actions() {
    // The kernel's own structure, all zero: the default action, no flags, no mask. By the bare
    // call, since libc keeps its hands over the two signals that it uses itself.
    let default = [0_u64; 4];
    for signal in 1..=libc::SIGRTMAX() {
        let old = std::ptr::null_mut::<u64>();
        // SAFETY: default actions run no code of ours; the structure is no longer than the array, which is only read.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, 8) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_survives_odd_names() {
        let stat = b"12 (a) b (c)) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        assert_eq!(start_time_in(stat), Some(98765));
        assert_eq!(start_time_in(b"12 (cut"), None);
        assert_eq!(start_time_in(b"12 (x) S 1"), None);
    }

    #[test]
    fn the_end_of_a_process_is_known_without_waiting_for_it() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "exit 7"])
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let pidfd = pidfd_open(pid).unwrap();
        child.wait().unwrap();
        // An older kernel says that it does not know.
        if let Ok(status) = exit_info(&pidfd) {
            assert_eq!(status.and_then(|status| status.code()), Some(7));
        }
    }

    #[test]
    fn own_start_time() {
        let own = std::process::id().cast_signed();
        assert_eq!(start_time(own), start_time(own));
        assert!(start_time(own).is_some());
        assert_eq!(start_time(-5), None);
    }
}
