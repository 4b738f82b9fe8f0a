//! Asking a system call filter what it says, as the kernel would.

use rcon_sys::seccomp::Instruction;

/// The architecture of this machine, as filters know it.
pub const NATIVE: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else {
    0xc000_00b7
};

/// What a filter says (seccomp_data: number, architecture, address, six arguments).
pub fn ask(program: &[Instruction], arch: u32, call: u32, arguments: [u64; 6]) -> u32 {
    let word = |offset: u32| match offset {
        0 => call,
        4 => arch,
        16.. => {
            let argument = arguments[(offset as usize - 16) / 8];
            (if offset & 4 == 0 {
                argument
            } else {
                argument >> 32
            }) as u32
        }
        _ => 0,
    };
    let (mut a, mut at) = (0_u32, 0_usize);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let holds = match code {
            0x20 => {
                a = word(k);
                continue;
            }
            0x54 => {
                a &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x06 => return k,
            0x15 => a == k,
            0x25 => a > k,
            0x35 => a >= k,
            0x45 => a & k != 0,
            other => panic!("an instruction of the kind {other:x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}
