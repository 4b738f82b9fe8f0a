//! Writing classic BPF from its end to its beginning.
//!
//! Jumps in BPF go forwards only, so a program that is written backwards knows the places of all
//! its targets: no second pass, no unknown distances. A label is where an instruction stands,
//! counted from the end. Conditional jumps reach 255 instructions; where that is not enough, an
//! unconditional one is put in between.

use crate::Instruction;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// A comparison of the accumulator with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Test {
    /// Equal.
    Equal = 0x15,
    /// Greater, without sign.
    Greater = 0x25,
    /// Greater or equal, without sign.
    AtLeast = 0x35,
}

/// The place of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// A program that grows at its front.
#[derive(Default)]
pub struct Assembler {
    reversed: Vec<Instruction>,
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// How many instructions lie between the next one to be written and `target`.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - 1 - target.0
    }

    /// Load the 32 bits at `offset` of `struct seccomp_data`; what was written last comes next.
    pub fn load(&mut self, offset: u32) -> Label {
        self.push(LOAD, 0, 0, offset)
    }

    /// Keep the bits in `mask`; what was written last comes next.
    pub fn and(&mut self, mask: u32) -> Label {
        self.push(AND, 0, 0, mask)
    }

    /// End with `value`. One that was written before is used again while it is near.
    pub fn ret(&mut self, value: u32) -> Label {
        if let Some((_, label)) = self.returns.iter().rev().find(|(known, _)| *known == value)
            && self.reversed.len() - label.0 < 200
        {
            return *label;
        }
        let label = self.push(RETURN, 0, 0, value);
        self.returns.push((value, label));
        label
    }

    /// Compare with `k` and go on at one of two places.
    pub fn test(&mut self, test: Test, k: u32, yes: Label, no: Label) -> Label {
        let (mut yes, mut no) = (yes, no);
        loop {
            match (
                u8::try_from(self.distance_or_zero(yes)),
                u8::try_from(self.distance_or_zero(no)),
            ) {
                (Ok(jt), Ok(jf)) => return self.push(test as u16, jt, jf, k),
                (Err(_), _) => yes = self.jump(yes),
                (_, Err(_)) => no = self.jump(no),
            }
        }
    }

    fn distance_or_zero(&self, target: Label) -> usize {
        if self.reversed.is_empty() {
            0
        } else {
            self.distance(target)
        }
    }

    fn jump(&mut self, target: Label) -> Label {
        let distance = u32::try_from(self.distance(target)).unwrap_or(u32::MAX);
        self.push(JUMP, 0, 0, distance)
    }

    /// How long the program is by now.
    pub fn len(&self) -> usize {
        self.reversed.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.reversed.is_empty()
    }

    /// The program, which begins with what was written last.
    pub fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }
}

/// Whether an instruction ends a filter with `value`.
pub fn returns(instruction: &Instruction, value: u32) -> bool {
    instruction.code == RETURN && instruction.k == value
}

/// What a filter says to a call: an interpreter of the instructions that are written here.
///
/// `None` for a program that runs over its end.
pub fn interpret(
    program: &[Instruction],
    arch: u32,
    number: u32,
    arguments: [u64; 6],
) -> Option<u32> {
    let word = |offset: u32| match offset {
        0 => number,
        4 => arch,
        16.. => {
            let index = usize::try_from((offset - 16) / 8).unwrap_or(usize::MAX);
            let argument = arguments.get(index).copied().unwrap_or(0);
            let [low, high] = [argument as u32, (argument >> 32) as u32];
            if offset & 4 == 0 { low } else { high }
        }
        _ => 0,
    };
    let mut accumulator = 0;
    let mut at = 0_usize;
    loop {
        let instruction = program.get(at)?;
        at += 1;
        let k = instruction.k;
        let holds = match instruction.code {
            LOAD => {
                accumulator = word(k);
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            JUMP => {
                at = at.checked_add(usize::try_from(k).ok()?)?;
                continue;
            }
            RETURN => return Some(k),
            code if code == Test::Equal as u16 => accumulator == k,
            code if code == Test::Greater as u16 => accumulator > k,
            code if code == Test::AtLeast as u16 => accumulator >= k,
            _ => return None,
        };
        at += usize::from(if holds {
            instruction.jt
        } else {
            instruction.jf
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_targets_are_reached() {
        let mut asm = Assembler::default();
        let far = asm.ret(7);
        let mut next = asm.ret(8);
        for _ in 0..400 {
            next = asm.and(u32::MAX);
        }
        let start = asm.test(Test::Equal, 5, far, next);
        let _ = start;
        asm.load(0);
        let program = asm.finish();
        assert_eq!(interpret(&program, 0, 5, [0; 6]), Some(7));
        assert_eq!(interpret(&program, 0, 6, [0; 6]), Some(8));
    }

    #[test]
    fn arguments_have_two_halves() {
        let mut asm = Assembler::default();
        let (yes, no) = (asm.ret(1), asm.ret(0));
        asm.test(Test::Greater, 2, yes, no);
        asm.load(16 + 8 + 4);
        let program = asm.finish();
        let with = |value| interpret(&program, 0, 0, [0, value, 0, 0, 0, 0]);
        assert_eq!(with(3 << 32), Some(1));
        assert_eq!(with((2 << 32) | 0xffff_ffff), Some(0));
    }
}
