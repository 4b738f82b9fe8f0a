//! Making a seccomp filter of the table (seccomp(2), struct seccomp_data).

use rcon_sys::seccomp::Instruction;

use super::Thread;
use super::calls::{CALLS, Only};

/// Loads a word of the call's data (BPF_LD | BPF_W | BPF_ABS).
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
/// Compares it for equality; asks for a bit.
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const HAS: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
/// Decides.
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Where in struct seccomp_data the number, the kind of machine and the arguments are. Arguments
/// have eight bytes; on the machines that we know, the lower half comes first.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The kind of machine (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const MACHINE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const MACHINE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const MACHINE: Option<u32> = None;

/// What a call gets that is not in the table: the C library knows that answer from older kernels.
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
/// For code of another kind of machine, in which the numbers mean something else.
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// The filter for a thread; `None` for a kind of machine that we do not know.
pub(super) fn assemble(thread: Thread) -> Option<Vec<Instruction>> {
    let mut filter = vec![
        step(LOAD, 0, 0, ARCH),
        step(EQUAL, 1, 0, MACHINE?),
        step(RETURN, 0, 0, KILL),
        step(LOAD, 0, 0, NUMBER),
    ];
    for (number, who, only) in CALLS {
        if !who.includes(thread) {
            continue;
        }
        let body = body(*only);
        filter.push(step(
            EQUAL,
            0,
            body.len() as u8,
            u32::try_from(*number).ok()?,
        ));
        filter.extend(body);
    }
    filter.push(step(RETURN, 0, 0, REFUSE));
    Some(filter)
}

/// What follows when the number is right: it always decides.
fn body(only: Only) -> Vec<Instruction> {
    let among = |argument: u32, values: &[u32]| {
        let mut body = vec![step(LOAD, 0, 0, ARGUMENTS + 8 * argument)];
        for (at, value) in values.iter().enumerate() {
            // Over the rest of the comparisons and the refusal.
            let further = values.len() - at;
            body.push(step(EQUAL, further as u8, 0, *value));
        }
        body.extend([step(RETURN, 0, 0, REFUSE), step(RETURN, 0, 0, ALLOW)]);
        body
    };
    match only {
        Only::Any => vec![step(RETURN, 0, 0, ALLOW)],
        Only::First(values) => among(0, values),
        Only::Second(values) => among(1, values),
        Only::FirstHas(bit) => vec![
            step(LOAD, 0, 0, ARGUMENTS),
            step(HAS, 1, 0, bit),
            step(RETURN, 0, 0, REFUSE),
            step(RETURN, 0, 0, ALLOW),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel does.
    fn decide(filter: &[Instruction], machine: u32, number: i64, arguments: [u32; 2]) -> u32 {
        let mut at = 0;
        let mut accumulator = 0;
        loop {
            let Instruction { code, jt, jf, k } = filter[at];
            at += 1;
            match code {
                LOAD => {
                    accumulator = match k {
                        NUMBER => number as u32,
                        ARCH => machine,
                        16 => arguments[0],
                        24 => arguments[1],
                        other => panic!("a load from {other}"),
                    }
                }
                EQUAL if accumulator == k => at += usize::from(jt),
                HAS if accumulator & k != 0 => at += usize::from(jt),
                EQUAL | HAS => at += usize::from(jf),
                RETURN => return k,
                other => panic!("an instruction {other:x}"),
            }
        }
    }

    #[test]
    fn the_table_and_nothing_else_is_allowed() {
        let Some(machine) = MACHINE else { return };
        let stack = assemble(Thread::Stack).unwrap();
        let relay = assemble(Thread::Relay).unwrap();
        let ask = |filter: &[Instruction], number, arguments| {
            decide(filter, machine, number, arguments) == ALLOW
        };
        let none = [0, 0];
        assert!(ask(&stack, libc::SYS_read, none));
        assert!(ask(&stack, libc::SYS_exit_group, none));
        for number in [
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_execve,
            libc::SYS_ptrace,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_clone3,
            libc::SYS_kill,
            libc::SYS_pidfd_open,
            libc::SYS_io_uring_setup,
            libc::SYS_bpf,
            libc::SYS_memfd_create,
            libc::SYS_socketpair,
            libc::SYS_listen,
            4096,
        ] {
            assert!(!ask(&stack, number, none), "{number}");
            assert!(!ask(&relay, number, none), "{number}");
        }
        for family in 0..46 {
            let internet = family == libc::AF_INET as u32 || family == libc::AF_INET6 as u32;
            assert_eq!(ask(&stack, libc::SYS_socket, [family, 1]), internet);
        }
        assert!(ask(&stack, libc::SYS_ioctl, [3, libc::FIONREAD as u32]));
        assert!(!ask(&stack, libc::SYS_ioctl, [3, libc::TIOCSTI as u32]));
        assert!(!ask(&stack, libc::SYS_ioctl, [3, libc::TUNSETIFF as u32]));
        assert!(ask(&relay, libc::SYS_splice, none) && !ask(&stack, libc::SYS_splice, none));
        assert!(ask(&relay, libc::SYS_clone, [libc::CLONE_THREAD as u32, 0]));
        assert!(!ask(&relay, libc::SYS_clone, [libc::SIGCHLD as u32, 0]));
        assert_eq!(decide(&stack, 0x4000_0003, libc::SYS_read, none), KILL);
    }
}
