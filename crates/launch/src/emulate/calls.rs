//! The calls that are answered in the kernel's place, and the filter that hands them over.
//!
//! Which these are is decided by number, and for the frequent ones by an argument too: an open that
//! creates nothing, a look at a standard stream, the making of an ordinary node never leave the
//! kernel. For calls that are not in the table the filter looks at nothing but the number, so the
//! kernel keeps its verdict in a bitmap and does not even run it (Linux 5.11).

use rcon_sys::notify::Call;
use rcon_sys::seccomp::Instruction;

use crate::seccomp::{ALLOW, Assembler, NATIVE, Test, USER_NOTIF};

/// A file as a call names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// The directory, or `AT_FDCWD`.
    pub(super) dir: i32,
    /// Where its path is in the caller's memory; without one the directory itself is meant.
    pub(super) path: u64,
    /// A link at the end is followed.
    pub(super) follow: bool,
    /// An empty path means the directory itself.
    pub(super) empty: bool,
}

/// A user or a group id is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Users.
    User,
    /// Groups.
    Group,
}

/// A call, whatever variant of it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Change the owner.
    Chown(At, u32, u32),
    /// Tell the status, to an address.
    Stat(At, u64),
    /// As `Stat`, with flags and a mask.
    Statx(At, i32, u32, u64),
    /// Open with `O_CREAT`: flags and mode.
    Create(At, i32, u32),
    /// Make a directory.
    Mkdir(At, u32),
    /// Make a link to the text at an address.
    Symlink(u64, At),
    /// Make a node: mode and device.
    Mknod(At, u32, u64),
    /// List the extended attributes to an address with so much room.
    List(At, u64, u64),
    /// Execute.
    Execute(At),
    /// Which id: real, effective.
    Get(Kind, bool),
    /// All three, to addresses.
    GetAll(Kind, [u64; 3]),
    /// setuid(2).
    Set(Kind, u32),
    /// setreuid(2).
    SetTwo(Kind, u32, u32),
    /// setresuid(2).
    SetAll(Kind, [u32; 3]),
    /// setfsuid(2).
    SetFs(Kind, u32),
    /// Count and address.
    GetGroups(i32, u64),
    /// Count and address.
    SetGroups(u64, u64),
    /// Ask for or set the limit that we mark processes with: the address for the old value.
    Limit(u64),
    /// Keep the power of root when it becomes somebody else, or not.
    Keep(bool),
    /// Gain nothing by executions any more.
    Bind,
    /// Who is at the other end of a socket: its number, addresses for the answer and its length.
    Peer(i32, u64, u64),
    /// From here on there may be processes with another root.
    NewRoot,
}

/// When a call is handed over.
#[derive(Clone, Copy)]
enum When {
    Always,
    /// An argument has one of these bits.
    Bits(u32, u32),
    /// An argument (its lower half) is at least this.
    AtLeast(u32, u32),
    /// An argument (its lower half) is this.
    Is(u32, u32),
    /// It is one of these.
    Either(u32, [u32; 2]),
}

const PATH: i32 = libc::AT_FDCWD;

fn path(address: u64, follow: bool) -> At {
    At {
        dir: PATH,
        path: address,
        follow,
        empty: false,
    }
}

fn fd(number: u64) -> At {
    At {
        dir: number as i32,
        path: 0,
        follow: true,
        empty: true,
    }
}

fn at(dir: u64, path: u64, flags: u64) -> At {
    let flags = flags as i32;
    At {
        dir: dir as i32,
        path,
        follow: flags & libc::AT_SYMLINK_NOFOLLOW == 0,
        empty: flags & libc::AT_EMPTY_PATH != 0,
    }
}

fn creating(at: At, flags: u64, mode: u64) -> Op {
    let at = At {
        follow: flags as i32 & libc::O_NOFOLLOW == 0,
        ..at
    };
    Op::Create(at, flags as i32, mode as u32)
}

type Make = fn(&[u64; 6]) -> Op;

const NOFOLLOW: u64 = libc::AT_SYMLINK_NOFOLLOW as u64;
const CREATE: u32 = libc::O_CREAT as u32;
const KEEPCAPS: u32 = libc::PR_SET_KEEPCAPS as u32;
const NO_NEW_PRIVS: u32 = libc::PR_SET_NO_NEW_PRIVS as u32;
const PEERCRED: u32 = libc::SO_PEERCRED as u32;
const SOCKET: u64 = libc::SOL_SOCKET as u64;
const RTTIME: u32 = libc::RLIMIT_RTTIME;

/// What every 64-bit machine has.
static CALLS: &[(i64, When, Make)] = &[
    (libc::SYS_newfstatat, When::AtLeast(0, 3), |a| {
        Op::Stat(at(a[0], a[1], a[3]), a[2])
    }),
    (libc::SYS_statx, When::Always, |a| {
        Op::Statx(at(a[0], a[1], a[2]), a[2] as i32, a[3] as u32, a[4])
    }),
    // Of the standard streams everybody asks, and nobody for the owner.
    (libc::SYS_fstat, When::AtLeast(0, 3), |a| {
        Op::Stat(fd(a[0]), a[1])
    }),
    (libc::SYS_openat, When::Bits(2, CREATE), |a| {
        creating(at(a[0], a[1], 0), a[2], a[3])
    }),
    (libc::SYS_execve, When::Always, |a| {
        Op::Execute(path(a[0], true))
    }),
    (libc::SYS_execveat, When::Always, |a| {
        Op::Execute(at(a[0], a[1], a[4]))
    }),
    (libc::SYS_getuid, When::Always, |_| {
        Op::Get(Kind::User, false)
    }),
    (libc::SYS_geteuid, When::Always, |_| {
        Op::Get(Kind::User, true)
    }),
    (libc::SYS_getgid, When::Always, |_| {
        Op::Get(Kind::Group, false)
    }),
    (libc::SYS_getegid, When::Always, |_| {
        Op::Get(Kind::Group, true)
    }),
    (libc::SYS_getresuid, When::Always, |a| {
        Op::GetAll(Kind::User, [a[0], a[1], a[2]])
    }),
    (libc::SYS_getresgid, When::Always, |a| {
        Op::GetAll(Kind::Group, [a[0], a[1], a[2]])
    }),
    (libc::SYS_setuid, When::Always, |a| {
        Op::Set(Kind::User, a[0] as u32)
    }),
    (libc::SYS_setgid, When::Always, |a| {
        Op::Set(Kind::Group, a[0] as u32)
    }),
    (libc::SYS_setreuid, When::Always, |a| {
        Op::SetTwo(Kind::User, a[0] as u32, a[1] as u32)
    }),
    (libc::SYS_setregid, When::Always, |a| {
        Op::SetTwo(Kind::Group, a[0] as u32, a[1] as u32)
    }),
    (libc::SYS_setresuid, When::Always, |a| {
        Op::SetAll(Kind::User, [a[0] as u32, a[1] as u32, a[2] as u32])
    }),
    (libc::SYS_setresgid, When::Always, |a| {
        Op::SetAll(Kind::Group, [a[0] as u32, a[1] as u32, a[2] as u32])
    }),
    (libc::SYS_setfsuid, When::Always, |a| {
        Op::SetFs(Kind::User, a[0] as u32)
    }),
    (libc::SYS_setfsgid, When::Always, |a| {
        Op::SetFs(Kind::Group, a[0] as u32)
    }),
    (libc::SYS_getgroups, When::Always, |a| {
        Op::GetGroups(a[0] as i32, a[1])
    }),
    (libc::SYS_setgroups, When::Always, |a| {
        Op::SetGroups(a[0], a[1])
    }),
    (libc::SYS_fchown, When::Always, |a| {
        Op::Chown(fd(a[0]), a[1] as u32, a[2] as u32)
    }),
    (libc::SYS_fchownat, When::Always, |a| {
        Op::Chown(at(a[0], a[1], a[4]), a[2] as u32, a[3] as u32)
    }),
    (libc::SYS_mkdirat, When::Always, |a| {
        Op::Mkdir(at(a[0], a[1], NOFOLLOW), a[2] as u32)
    }),
    (libc::SYS_symlinkat, When::Always, |a| {
        Op::Symlink(a[0], at(a[1], a[2], NOFOLLOW))
    }),
    (libc::SYS_mknodat, When::Always, |a| {
        Op::Mknod(at(a[0], a[1], NOFOLLOW), a[2] as u32, a[3])
    }),
    (libc::SYS_listxattr, When::Always, |a| {
        Op::List(path(a[0], true), a[1], a[2])
    }),
    (libc::SYS_llistxattr, When::Always, |a| {
        Op::List(path(a[0], false), a[1], a[2])
    }),
    (libc::SYS_flistxattr, When::Always, |a| {
        Op::List(fd(a[0]), a[1], a[2])
    }),
    (libc::SYS_prlimit64, When::Is(1, RTTIME), |a| {
        Op::Limit(a[3])
    }),
    (libc::SYS_getrlimit, When::Is(0, RTTIME), |a| {
        Op::Limit(a[1])
    }),
    (libc::SYS_setrlimit, When::Is(0, RTTIME), |_| Op::Limit(0)),
    (
        libc::SYS_prctl,
        When::Either(0, [KEEPCAPS, NO_NEW_PRIVS]),
        |a| match a[0] as u32 {
            KEEPCAPS => Op::Keep(a[1] == 1),
            _ => Op::Bind,
        },
    ),
    (libc::SYS_getsockopt, When::Is(2, PEERCRED), |a| {
        Op::Peer(if a[1] == SOCKET { a[0] as i32 } else { -1 }, a[3], a[4])
    }),
    (libc::SYS_chroot, When::Always, |_| Op::NewRoot),
    (libc::SYS_pivot_root, When::Always, |_| Op::NewRoot),
    (libc::SYS_mount, When::Always, |_| Op::NewRoot),
    (libc::SYS_move_mount, When::Always, |_| Op::NewRoot),
];

/// What only x86-64 has.
#[cfg(target_arch = "x86_64")]
static OLD_CALLS: &[(i64, When, Make)] = &[
    (libc::SYS_stat, When::Always, |a| {
        Op::Stat(path(a[0], true), a[1])
    }),
    (libc::SYS_lstat, When::Always, |a| {
        Op::Stat(path(a[0], false), a[1])
    }),
    (libc::SYS_open, When::Bits(1, CREATE), |a| {
        creating(path(a[0], true), a[1], a[2])
    }),
    (libc::SYS_creat, When::Always, |a| {
        let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
        creating(path(a[0], true), flags as u64, a[1])
    }),
    (libc::SYS_mkdir, When::Always, |a| {
        Op::Mkdir(path(a[0], false), a[1] as u32)
    }),
    (libc::SYS_symlink, When::Always, |a| {
        Op::Symlink(a[0], path(a[1], false))
    }),
    (libc::SYS_mknod, When::Always, |a| {
        Op::Mknod(path(a[0], false), a[1] as u32, a[2])
    }),
    (libc::SYS_chown, When::Always, |a| {
        Op::Chown(path(a[0], true), a[1] as u32, a[2] as u32)
    }),
    (libc::SYS_lchown, When::Always, |a| {
        Op::Chown(path(a[0], false), a[1] as u32, a[2] as u32)
    }),
];
#[cfg(not(target_arch = "x86_64"))]
static OLD_CALLS: &[(i64, When, Make)] = &[];

fn all() -> impl DoubleEndedIterator<Item = &'static (i64, When, Make)> {
    CALLS.iter().chain(OLD_CALLS)
}

/// What a call asks for.
pub(super) fn read(call: &Call) -> Option<Op> {
    let (_, _, make) = all().find(|(number, ..)| *number == call.number)?;
    Some(make(&call.arguments))
}

/// The filter that hands over the calls of the table and lets everything else pass.
pub(crate) fn filter() -> Vec<Instruction> {
    let mut asm = Assembler::default();
    let argument = |index: u32| 16 + 8 * index;
    let allow = asm.ret(ALLOW);
    let mut next = allow;
    for (number, when, _) in all().rev() {
        let notify = asm.ret(USER_NOTIF);
        let matched = match *when {
            When::Always => notify,
            When::Bits(index, bits) => {
                let allow = asm.ret(ALLOW);
                asm.test(Test::Equal, 0, allow, notify);
                asm.and(bits);
                asm.load(argument(index))
            }
            When::AtLeast(index, least) => {
                let allow = asm.ret(ALLOW);
                asm.test(Test::AtLeast, least, notify, allow);
                asm.load(argument(index))
            }
            When::Is(index, value) => {
                let allow = asm.ret(ALLOW);
                asm.test(Test::Equal, value, notify, allow);
                asm.load(argument(index))
            }
            When::Either(index, [one, other]) => {
                let allow = asm.ret(ALLOW);
                let second = asm.test(Test::Equal, other, notify, allow);
                asm.test(Test::Equal, one, notify, second);
                asm.load(argument(index))
            }
        };
        next = asm.test(Test::Equal, *number as u32, matched, next);
    }
    let start = asm.load(0);
    let _ = next;
    // Calls of 32-bit programs are the kernel's: there the ids are what they are.
    let other = asm.ret(ALLOW);
    let start = match asm.len() {
        0 => other,
        _ => start,
    };
    asm.test(Test::Equal, NATIVE.audit(), start, other);
    asm.load(4);
    asm.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::interpret;

    fn verdict(number: i64, arguments: [u64; 6]) -> u32 {
        let program = filter();
        interpret(&program, NATIVE.audit(), number as u32, arguments).unwrap()
    }

    #[test]
    fn ordinary_calls_stay_in_the_kernel() {
        for number in [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_close,
            libc::SYS_mmap,
            libc::SYS_clone,
            libc::SYS_futex,
            libc::SYS_unlinkat,
            libc::SYS_fchmod,
            libc::SYS_faccessat,
            libc::SYS_getxattr,
        ] {
            assert_eq!(verdict(number, [7; 6]), ALLOW, "{number}");
        }
        let read_only = (libc::O_RDONLY | libc::O_CLOEXEC) as u64;
        assert_eq!(verdict(libc::SYS_openat, [0, 0, read_only, 0, 0, 0]), ALLOW);
        assert_eq!(verdict(libc::SYS_fstat, [2, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(verdict(libc::SYS_prlimit64, [0, 7, 0, 0, 0, 0]), ALLOW);
        let program = filter();
        let foreign = interpret(&program, 0x4000_0003, libc::SYS_setuid as u32, [0; 6]);
        assert_eq!(foreign, Some(ALLOW));
    }

    #[test]
    fn calls_about_owners_are_handed_over() {
        for (number, ..) in all() {
            let arguments = [u64::from(RTTIME), u64::from(RTTIME), 0o100, 0, 0, 0];
            let arguments = match *number {
                #[cfg(target_arch = "x86_64")]
                libc::SYS_open => [0, 0o100, 0, 0, 0, 0],
                libc::SYS_getsockopt => [3, 1, PEERCRED.into(), 0, 0, 0],
                libc::SYS_prctl => [KEEPCAPS.into(), 1, 0, 0, 0, 0],
                _ => arguments,
            };
            assert_eq!(verdict(*number, arguments), USER_NOTIF, "{number}");
        }
        let bind = [NO_NEW_PRIVS.into(), 1, 0, 0, 0, 0];
        assert_eq!(verdict(libc::SYS_prctl, bind), USER_NOTIF);
        assert_eq!(verdict(libc::SYS_prctl, [15, 1, 0, 0, 0, 0]), ALLOW);
        let here = PATH as u32;
        let stat = [u64::from(here), 1, 2, 0, 0, 0];
        assert_eq!(verdict(libc::SYS_newfstatat, stat), USER_NOTIF);
    }
}
