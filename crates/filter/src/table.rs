//! The default profile as a table: which system calls a container may make, and under which conditions.
//!
//! Every call is in one of four states.
//! - **Allowed** ([`ALLOWED`]), by subject. What a capability or a namespace guards anyway (mount, ptrace, setuid) is here:
//!   the kernel decides, with the container's own capabilities in its own user namespace.
//! - **Gated** ([`GATED`]): allowed to containers that may ever have the capability, EPERM to others.
//! - **Refused** ([`REFUSED`]): EPERM always. Old or dangerous, and programs know how to live without.
//! - **Unknown**: everything else is ENOSYS, the answer of a kernel that does not have the call. C libraries then fall back
//!   to an older one; EPERM would make them fail (that is what happened to `clone3` and `faccessat2` once).
//!
//! Calls that are decided by an argument ([`crate::default`]) are none of these.

use crate::tables::Machine;

/// Calls that need no more than the kernel's own checks, by subject; the names of a subject are separated by blanks.
pub const ALLOWED: &[(&str, &str)] = &[
    (
        "processes and threads: birth, death, waiting",
        "clone clone3 execve execveat exit exit_group fork get_robust_list get_thread_area getpgid \
         getpgrp getpid getppid getsid gettid membarrier prctl restart_syscall rseq set_robust_list \
         set_thread_area set_tid_address setpgid setsid vfork wait4 waitid waitpid",
    ),
    (
        "other processes, by pidfd or trace",
        "pidfd_getfd pidfd_open pidfd_send_signal process_mrelease process_vm_readv process_vm_writev \
         ptrace",
    ),
    (
        "who a process is",
        "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 \
         getresgid getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid \
         setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32 \
         setresuid setresuid32 setreuid setreuid32 setuid setuid32",
    ),
    (
        "signals",
        "kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
         rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaction sigaltstack \
         signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend tgkill tkill",
    ),
    (
        "scheduling and limits",
        "getcpu getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64 \
         sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
         sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity \
         sched_setattr sched_setparam sched_setscheduler sched_yield setpriority setrlimit ugetrlimit",
    ),
    (
        "memory",
        "brk get_mempolicy madvise map_shadow_stack mbind memfd_create memfd_secret mincore mlock \
         mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc \
         pkey_free pkey_mprotect remap_file_pages set_mempolicy set_mempolicy_home_node",
    ),
    (
        "opening, reading and writing files",
        "_llseek cachestat close close_range copy_file_range creat dup dup2 dup3 fadvise64 \
         fadvise64_64 fallocate fcntl fcntl64 fdatasync flock fsync ftruncate ftruncate64 lseek open \
         openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead \
         readv sendfile sendfile64 splice sync sync_file_range syncfs tee truncate truncate64 write \
         writev",
    ),
    (
        "directories, links, names",
        "chdir fchdir getcwd getdents getdents64 link linkat mkdir mkdirat mknod mknodat \
         name_to_handle_at readdir readlink readlinkat rename renameat renameat2 rmdir symlink \
         symlinkat umask unlink unlinkat",
    ),
    (
        "attributes of files and file systems",
        "access chmod chown chown32 faccessat faccessat2 fchmod fchmodat fchmodat2 fchown fchown32 \
         fchownat fgetxattr file_getattr file_setattr flistxattr fremovexattr fsetxattr fstat fstat64 \
         fstatat64 fstatfs fstatfs64 futimesat getxattr getxattrat lchown lchown32 lgetxattr \
         listxattr listxattrat llistxattr lremovexattr lsetxattr lstat lstat64 newfstatat removexattr \
         removexattrat setxattr setxattrat stat stat64 statfs statfs64 statx utime utimensat \
         utimensat_time64 utimes",
    ),
    (
        "mounts and namespaces, in the container's own",
        "fsconfig fsmount fsopen fspick listmount mount mount_setattr move_mount open_tree \
         open_tree_attr pivot_root setns statmount umount umount2 unshare",
    ),
    (
        "waiting for files",
        "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 \
         epoll_wait epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init \
         inotify_init1 inotify_rm_watch poll ppoll ppoll_time64 pselect6 pselect6_time64 select",
    ),
    (
        "asynchronous input and output, the old kind",
        "io_cancel io_destroy io_getevents io_setup io_submit",
    ),
    (
        "sockets (their creation is conditional)",
        "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg \
         recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall \
         socketpair",
    ),
    (
        "communication between processes, waiting for memory",
        "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake ipc mq_getsetattr \
         mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
         mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat \
         shmctl shmdt shmget",
    ),
    (
        "clocks and timers",
        "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
         clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep \
         setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 \
         timer_settime timer_settime64 timerfd timerfd_create timerfd_gettime timerfd_gettime64 \
         timerfd_settime timerfd_settime64 times",
    ),
    (
        "the rest: the machine, sandboxes of one's own",
        "getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self reboot \
         seccomp syscall sysinfo syslog uname",
    ),
];

/// Calls of this kind that only some processors have.
pub fn own(machine: Machine) -> &'static str {
    match machine {
        Machine::X86_64 | Machine::I386 => "arch_prctl modify_ldt",
        Machine::Aarch64 => {
            "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"
        }
    }
}

/// Calls that go with a capability: allowed to containers that have it in their bounding set, EPERM to others.
pub const GATED: &[(&str, &str)] = &[
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf fanotify_init lookup_dcookie perf_event_open quotactl quotactl_fd setdomainname \
         sethostname",
    ),
    ("SYS_CHROOT", "chroot"),
    (
        "SYS_MODULE",
        "delete_module finit_module init_module query_module",
    ),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp process_madvise"),
    ("SYS_RAWIO", "ioperm iopl"),
    (
        "SYS_TIME",
        "clock_settime clock_settime64 settimeofday stime",
    ),
    ("SYS_TTY_CONFIG", "vhangup"),
];

/// Calls that no container needs: EPERM, so that a program learns it is not allowed rather than not there.
pub const REFUSED: &str = "bdflush io_pgetevents kexec_file_load kexec_load migrate_pages move_pages nfsservctl nice \
     oldfstat oldlstat oldolduname oldstat olduname pciconfig_iobase pciconfig_read pciconfig_write \
     sgetmask ssetmask swapcontext swapoff swapon sysfs uselib userfaultfd ustat vm86 vm86old \
     vmsplice";
