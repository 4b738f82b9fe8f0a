//! The last program of ours that a container sees: a few hundred bytes, and nothing to steal.
//!
//! A container's program is executed by this one, which runs from a sealed memory file. So
//! `/proc/self/exe`, which whatever is executed can reach through an interpreter line or a link,
//! never leads to the file of rcon itself, which the user of the container may well own.
//!
//! Arguments: a name to show; the mode, two letters and a number; the program; its arguments.
//! The letters are `x` to execute it or `i` to stay as the first process, with the program as a
//! child; and `t` when standard input is to become its controlling terminal, else `-`. The number
//! is a descriptor that takes the byte `X` and the error number (four bytes, little endian) when
//! the program cannot be executed, and is closed when it can.
//!
//! It is built by the build script for the same target, without any library.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym main,
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x0, sp",
    "bl {main}",
    "brk #1",
    main = sym main,
);

/// The numbers of the calls used here.
#[cfg(target_arch = "x86_64")]
mod call {
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const CLONE: usize = 56;
    pub const PRCTL: usize = 157;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const FCNTL: usize = 72;
    pub const SETSID: usize = 112;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}
#[cfg(target_arch = "aarch64")]
mod call {
    pub const FCNTL: usize = 25;
    pub const IOCTL: usize = 29;
    pub const CLOSE: usize = 57;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const SIGPROCMASK: usize = 135;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const SETSID: usize = 157;
    pub const PRCTL: usize = 167;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
}

const SIGCHLD: isize = 17;
const TIOCSCTTY: usize = 0x540e;
const F_SETFD: usize = 2;
const FD_CLOEXEC: usize = 1;
const SIG_SETMASK: usize = 2;
const WNOHANG: usize = 1;
const PR_SET_NAME: usize = 15;
const ENOENT: isize = 2;
const EINTR: isize = 4;

/// A system call with up to five arguments.
///
/// # Safety
/// As the call itself: pointers among the arguments must be good for what it does with them.
#[cfg(target_arch = "x86_64")]
unsafe fn system(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result;
    // SAFETY: the registers are those of the kernel's calling convention; rcx and r11 are its own.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b,
            in("rdx") c, in("r10") d, in("r8") e, lateout("rcx") _, lateout("r11") _,
            options(nostack));
    }
    result
}

/// A system call with up to five arguments.
///
/// # Safety
/// As the call itself: pointers among the arguments must be good for what it does with them.
#[cfg(target_arch = "aarch64")]
unsafe fn system(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result;
    // SAFETY: the registers are those of the kernel's calling convention.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b,
            in("x2") c, in("x3") d, in("x4") e, options(nostack));
    }
    result
}

extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: this is the stack that the kernel gives a new program: the number of arguments, the
    // arguments, a null, the environment, a null. rcon is the only one to execute this program
    // and gives at least three arguments, the second of at least three bytes.
    unsafe {
        let count = *stack;
        let arguments = stack.add(1).cast::<*const u8>();
        if count < 4 {
            exit(126);
        }
        let environment = arguments.add(count + 1);
        let mode = *arguments.add(1);
        let control = number(mode.add(2));
        // Across our own execution it had to stay open; not across the next.
        if system(call::FCNTL, control, F_SETFD, FD_CLOEXEC, 0, 0) < 0 {
            system(call::CLOSE, control, 0, 0, 0, 0);
        }
        if *mode == b'x' {
            execute(arguments, environment, control);
        }
        let terminal = *mode.add(1) == b't';
        watch(arguments, environment, control, terminal)
    }
}

/// The number in decimal digits at `text`.
///
/// # Safety
/// `text` must end with a null byte.
unsafe fn number(text: *const u8) -> usize {
    let mut value = 0_usize;
    let mut at = text;
    // SAFETY: the loop ends at the null byte at the latest.
    unsafe {
        while (*at).is_ascii_digit() {
            value = value.wrapping_mul(10).wrapping_add((*at - b'0') as usize);
            at = at.add(1);
        }
    }
    value
}

/// Execute the program, or say why not.
///
/// # Safety
/// The pointers must be those of this program's stack.
unsafe fn execute(arguments: *const *const u8, environment: *const *const u8, control: usize) -> ! {
    // SAFETY: path, arguments and environment are null-terminated as the kernel gave them to us.
    let error = unsafe {
        -system(
            call::EXECVE,
            *arguments.add(2) as usize,
            arguments.add(3) as usize,
            environment as usize,
            0,
            0,
        )
    };
    let code = (error as u32).to_le_bytes();
    let message = [b'X', code[0], code[1], code[2], code[3]];
    // SAFETY: the message is five bytes long and lives across the call.
    unsafe {
        system(call::WRITE, control, message.as_ptr() as usize, 5, 0, 0);
    }
    exit(if error == ENOENT { 127 } else { 126 })
}

/// Be the first process: start the program, pass signals on to it, reap whoever ends, and end as
/// it does. All signals are blocked already, so that none is lost.
///
/// # Safety
/// The pointers must be those of this program's stack.
unsafe fn watch(
    arguments: *const *const u8,
    environment: *const *const u8,
    control: usize,
    terminal: bool,
) -> ! {
    // SAFETY: every pointer given to the kernel is to a local that lives across its call; the
    // child of clone, without shared memory, goes on with its own copy of the stack.
    unsafe {
        let child = system(call::CLONE, SIGCHLD as usize, 0, 0, 0, 0);
        if child == 0 {
            system(call::SETSID, 0, 0, 0, 0, 0);
            if terminal {
                system(call::IOCTL, 0, TIOCSCTTY, 0, 0, 0);
            }
            let none = 0_u64;
            system(
                call::SIGPROCMASK,
                SIG_SETMASK,
                &raw const none as usize,
                0,
                8,
                0,
            );
            execute(arguments, environment, control);
        }
        if child < 0 {
            execute(arguments, environment, control);
        }
        system(call::CLOSE, control, 0, 0, 0, 0);
        system(
            call::PRCTL,
            PR_SET_NAME,
            c"rcon-init".as_ptr() as usize,
            0,
            0,
            0,
        );
        let all = !0_u64;
        loop {
            let signal = system(call::SIGTIMEDWAIT, &raw const all as usize, 0, 0, 8, 0);
            if signal == SIGCHLD {
                reap(child);
            } else if signal > 0 {
                system(call::KILL, child as usize, signal as usize, 0, 0, 0);
            } else if signal != -EINTR {
                exit(126);
            }
        }
    }
}

/// Reap all that have ended; end as `child` did when it is among them.
fn reap(child: isize) {
    loop {
        let mut status = 0_u32;
        // SAFETY: the status is a local that lives across the call.
        let ended = unsafe {
            system(
                call::WAIT4,
                usize::MAX,
                &raw mut status as usize,
                WNOHANG,
                0,
                0,
            )
        };
        if ended == child {
            let signal = status & 0x7f;
            exit(if signal == 0 {
                (status >> 8) & 0xff
            } else {
                128 + signal
            });
        }
        if ended <= 0 {
            return;
        }
    }
}

fn exit(code: u32) -> ! {
    loop {
        // SAFETY: no pointers; it does not come back.
        unsafe {
            system(call::EXIT_GROUP, code as usize, 0, 0, 0, 0);
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(126)
}
