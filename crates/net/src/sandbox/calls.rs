//! The system calls of the network process: the one table that its filters are made of.
//!
//! Everything else is answered with ENOSYS. Whoever needs another call adds it here, and says what
//! for. There is nothing here to open a file, to start a program, to make a namespace, to reach
//! another process, or to make a socket that is not of the internet's families.

use super::Thread;

/// Which threads may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Both.
    All,
    /// The one that relays published TCP ports.
    Relay,
}

impl Who {
    pub(super) fn includes(self, thread: Thread) -> bool {
        self == Who::All || thread == Thread::Relay
    }
}

/// What more must hold, beyond the number of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Only {
    /// Nothing.
    Any,
    /// The first argument is one of these.
    First(&'static [u32]),
    /// The second argument is one of these.
    Second(&'static [u32]),
    /// The first argument has this bit.
    FirstHas(u32),
}

/// One row.
pub(super) type Call = (i64, Who, Only);

use Only::{Any, First, FirstHas, Second};
use Who::{All, Relay};

/// Sockets of the internet, and no others (socket(2)).
const FAMILIES: &[u32] = &[libc::AF_INET as u32, libc::AF_INET6 as u32];
/// Names of threads, and of memory, as allocators give it (prctl(2)).
const NAME: &[u32] = &[libc::PR_SET_NAME as u32, libc::PR_SET_VMA as u32];
/// Sizes of pipes, and what sockets are made with (fcntl(2)).
const PIPES: &[u32] = &[
    libc::F_GETPIPE_SZ as u32,
    libc::F_SETPIPE_SZ as u32,
    libc::F_GETFD as u32,
    libc::F_DUPFD_CLOEXEC as u32,
    libc::F_GETFL as u32,
    libc::F_SETFL as u32,
];
/// What waits in sockets (tcp(7)).
const QUEUES: &[u32] = &[
    libc::FIONBIO as u32,
    libc::FIONREAD as u32,
    libc::TIOCOUTQ as u32,
];

/// The table, the most frequent calls first.
pub(super) const CALLS: &[Call] = &[
    // Frames from the tap and to it, wake-ups, small files that were handed in.
    (libc::SYS_read, All, Any),
    (libc::SYS_write, All, Any),
    (libc::SYS_readv, All, Any),
    (libc::SYS_writev, All, Any),
    // Sockets of the host, and the relay's in the container's namespace.
    (libc::SYS_recvfrom, All, Any),
    (libc::SYS_sendto, All, Any),
    (libc::SYS_recvmsg, All, Any),
    (libc::SYS_sendmsg, All, Any),
    (libc::SYS_recvmmsg, All, Any),
    (libc::SYS_sendmmsg, All, Any),
    (libc::SYS_splice, Relay, Any),
    (libc::SYS_socket, All, First(FAMILIES)),
    (libc::SYS_connect, All, Any),
    // outbound_addr, and clients' own addresses.
    (libc::SYS_bind, All, Any),
    (libc::SYS_accept4, All, Any),
    (libc::SYS_shutdown, All, Any),
    (libc::SYS_setsockopt, All, Any),
    (libc::SYS_getsockopt, All, Any),
    (libc::SYS_getsockname, All, Any),
    (libc::SYS_getpeername, All, Any),
    (libc::SYS_pipe2, Relay, Any),
    (libc::SYS_close, All, Any),
    (libc::SYS_fcntl, All, Second(PIPES)),
    (libc::SYS_ioctl, All, Second(QUEUES)),
    // Waiting.
    (libc::SYS_epoll_ctl, All, Any),
    (libc::SYS_epoll_pwait, All, Any),
    (libc::SYS_epoll_pwait2, All, Any),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, All, Any),
    (libc::SYS_futex, All, Any),
    (libc::SYS_sched_yield, All, Any),
    (libc::SYS_clock_gettime, All, Any),
    (libc::SYS_restart_syscall, All, Any),
    // Memory.
    (libc::SYS_mmap, All, Any),
    (libc::SYS_munmap, All, Any),
    (libc::SYS_mremap, All, Any),
    (libc::SYS_mprotect, All, Any),
    (libc::SYS_madvise, All, Any),
    (libc::SYS_brk, All, Any),
    // Threads: the relay starts one for published UDP ports. clone3 cannot be looked into, and is
    // refused; the C library uses clone then.
    (libc::SYS_clone, Relay, FirstHas(libc::CLONE_THREAD as u32)),
    (libc::SYS_set_robust_list, Relay, Any),
    (libc::SYS_rseq, Relay, Any),
    (libc::SYS_capset, Relay, Any),
    (libc::SYS_prctl, All, First(NAME)),
    (libc::SYS_sched_getaffinity, All, Any),
    (libc::SYS_gettid, All, Any),
    (libc::SYS_getpid, All, Any),
    (libc::SYS_sigaltstack, All, Any),
    (libc::SYS_rt_sigprocmask, All, Any),
    (libc::SYS_rt_sigreturn, All, Any),
    // Numbers that nobody can guess.
    (libc::SYS_getrandom, All, Any),
    // The end.
    (libc::SYS_exit, All, Any),
    (libc::SYS_exit_group, All, Any),
];
