//! From rules about system calls to a BPF program.
//!
//! The rules are those of the OCI runtime specification (config-linux.md, seccomp) as runtimes
//! built on libseccomp apply them:
//!
//! - names that an architecture does not have are passed over;
//! - a rule whose action is the default one says nothing;
//! - of the rules of one call the first that matches counts, and rules with conditions come before
//!   the one without;
//! - the conditions of a rule must hold together, unless two are about the same argument: then
//!   each is a rule of its own;
//! - calls of an architecture that is not listed end the process.
//!
//! The calls of an architecture are found by a binary search over runs of numbers with the same
//! action, so an ordinary call costs about ten instructions.

use std::collections::BTreeMap;
use std::fmt;

use crate::assemble::{Assembler, Label, Test};
use crate::tables::Machine;
use crate::{Instruction, MAX_LEN};

/// What a filter can say to a call (linux/seccomp.h).
pub mod action {
    /// End the process.
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    /// End the thread.
    pub const KILL_THREAD: u32 = 0;
    /// Send it SIGSYS.
    pub const TRAP: u32 = 0x0003_0000;
    /// Fail with the number in the lower half.
    pub const ERRNO: u32 = 0x0005_0000;
    /// Ask the tracer, who gets the number in the lower half.
    pub const TRACE: u32 = 0x7ff0_0000;
    /// Hand the call over to a listener.
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    /// Let it pass, and log it.
    pub const LOG: u32 = 0x7ffc_0000;
    /// Let the call pass.
    pub const ALLOW: u32 = 0x7fff_0000;
}

/// The number of "no such call".
const ENOSYS: u32 = 38;

/// The bit in a call's number that marks the x32 interface.
const X32_BIT: u32 = 0x4000_0000;

/// What is to happen to the calls of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile<'a> {
    /// The action for calls that no rule is about.
    pub default: u32,
    /// The architectures that it is for, beside the native one.
    pub machines: Vec<Machine>,
    /// The rules, in the order in which they are tried.
    pub entries: Vec<Entry<'a>>,
}

/// A rule about some calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The calls.
    pub names: Vec<&'a str>,
    /// What happens to them.
    pub action: u32,
    /// When.
    pub conditions: Vec<Condition>,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, counted from 0.
    pub index: usize,
    /// How it is compared.
    pub op: Op,
    /// With what; of [`Op::MaskedEqual`] the mask.
    pub value: u64,
    /// Of [`Op::MaskedEqual`] what is left under the mask.
    pub second: u64,
}

/// A comparison, of 64 bits without sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// Less.
    Less,
    /// Less or equal.
    AtMost,
    /// Greater.
    Greater,
    /// Greater or equal.
    AtLeast,
    /// Equal under a mask.
    MaskedEqual,
}

/// Why there can be no program of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A rule is about an argument that calls do not have: which, and the calls.
    Argument(usize, String),
    /// The program would have so many instructions.
    TooLong(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Argument(index, names) => write!(
                f,
                "the seccomp profile speaks of argument {index} of {names}; calls have arguments 0 to 5"
            ),
            Fault::TooLong(length) => write!(
                f,
                "the seccomp profile makes a filter of {length} instructions, more than the \
                 {MAX_LEN} that the kernel takes"
            ),
        }
    }
}

impl std::error::Error for Fault {}

struct Rule<'a> {
    conditions: Vec<&'a Condition>,
    action: u32,
}

/// Make the program of `profile` for a machine whose own architecture is `native`.
///
/// # Errors
/// What cannot be had, in words.
pub fn compile(native: Machine, profile: &Profile<'_>) -> Result<Vec<Instruction>, Fault> {
    let mut asm = Assembler::default();
    let mut next = asm.ret(action::KILL_PROCESS);
    for machine in machines(native, &profile.machines).into_iter().rev() {
        let rules = collect(machine, &profile.entries, profile.default)?;
        let after = next;
        let mut start = search(&mut asm, &rules, profile.default);
        if machine == Machine::X86_64 {
            let absent = asm.ret(action::ERRNO | ENOSYS);
            start = asm.test(Test::AtLeast, X32_BIT, absent, start);
        }
        let _ = start;
        start = asm.load(0);
        asm.test(Test::Equal, machine.audit(), start, after);
        next = asm.load(4);
    }
    let _ = next;
    match asm.len() {
        0..=MAX_LEN => Ok(asm.finish()),
        length => Err(Fault::TooLong(length)),
    }
}

/// Those of `listed` whose programs run on `native`, which comes first.
fn machines(native: Machine, listed: &[Machine]) -> Vec<Machine> {
    let mut machines = vec![native];
    for machine in listed {
        let runs = (native, *machine) == (Machine::X86_64, Machine::I386);
        if runs && !machines.contains(machine) {
            machines.push(*machine);
        }
    }
    machines
}

/// The rules of every call that the profile names, by its number.
fn collect<'a>(
    machine: Machine,
    entries: &'a [Entry<'_>],
    default: u32,
) -> Result<BTreeMap<u32, Vec<Rule<'a>>>, Fault> {
    let mut rules: BTreeMap<u32, Vec<Rule<'a>>> = BTreeMap::new();
    for entry in entries {
        let action = entry.action;
        if action == default {
            continue;
        }
        let conditions = &entry.conditions;
        if let Some(bad) = conditions.iter().find(|condition| condition.index > 5) {
            return Err(Fault::Argument(bad.index, entry.names.join(", ")));
        }
        let repeated = conditions.iter().enumerate().any(|(at, condition)| {
            conditions[..at]
                .iter()
                .any(|earlier| earlier.index == condition.index)
        });
        for number in entry.names.iter().filter_map(|name| machine.number(name)) {
            let known = rules.entry(number).or_default();
            if repeated {
                known.extend(conditions.iter().map(|condition| Rule {
                    conditions: vec![condition],
                    action,
                }));
            } else {
                known.push(Rule {
                    conditions: conditions.iter().collect(),
                    action,
                });
            }
        }
    }
    for known in rules.values_mut() {
        // Stable: among their kind they stay in the order of the profile.
        known.sort_by_key(|rule| rule.conditions.is_empty());
    }
    Ok(rules)
}

/// What happens to the calls from one number on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Always(u32),
    ByArguments(u32),
}

/// Code that finds the number in the accumulator among `rules` and does what they say.
fn search(asm: &mut Assembler, rules: &BTreeMap<u32, Vec<Rule<'_>>>, default: u32) -> Label {
    let mut runs: Vec<(u32, Fate)> = vec![(0, Fate::Always(default))];
    let mut put = |from: u32, fate: Fate| match runs.last_mut() {
        Some(last) if last.0 == from => last.1 = fate,
        Some(last) if last.1 == fate => {}
        _ => runs.push((from, fate)),
    };
    for (number, known) in rules {
        let fate = match known.first() {
            Some(rule) if rule.conditions.is_empty() => Fate::Always(rule.action),
            _ => Fate::ByArguments(*number),
        };
        put(*number, fate);
        put(number + 1, Fate::Always(default));
    }
    // A run may have become equal to the one before it when its start was taken over.
    runs.dedup_by(|later, earlier| later.1 == earlier.1);
    tree(asm, &runs, rules, default)
}

fn tree(
    asm: &mut Assembler,
    runs: &[(u32, Fate)],
    rules: &BTreeMap<u32, Vec<Rule<'_>>>,
    default: u32,
) -> Label {
    if let [(_, fate)] = runs {
        return match fate {
            Fate::Always(action) => asm.ret(*action),
            Fate::ByArguments(number) => {
                let known = rules.get(number).map(Vec::as_slice).unwrap_or_default();
                by_arguments(asm, known, default)
            }
        };
    }
    let middle = runs.len() / 2;
    let (left, right) = runs.split_at(middle);
    let upper = tree(asm, right, rules, default);
    let lower = tree(asm, left, rules, default);
    asm.test(Test::AtLeast, right[0].0, upper, lower)
}

fn by_arguments(asm: &mut Assembler, rules: &[Rule<'_>], default: u32) -> Label {
    let mut next = asm.ret(default);
    for rule in rules.iter().rev() {
        let mut matched = asm.ret(rule.action);
        for condition in rule.conditions.iter().rev() {
            matched = compare(asm, condition, matched, next);
        }
        next = matched;
    }
    next
}

/// Code that goes on at `yes` when the condition holds and at `no` when it does not.
fn compare(asm: &mut Assembler, condition: &Condition, yes: Label, no: Label) -> Label {
    let base = 16 + 8 * u32::try_from(condition.index).unwrap_or(0);
    let halves = |value: u64| (value as u32, (value >> 32) as u32);
    let (low, high) = halves(condition.value);
    // Numbers compare by their upper half first.
    let ordered = |asm: &mut Assembler, test: Test, yes: Label, no: Label| {
        asm.test(test, low, yes, no);
        let lower = asm.load(base);
        let equal = asm.test(Test::Equal, high, lower, no);
        asm.test(Test::Greater, high, yes, equal);
        asm.load(base + 4)
    };
    let equal = |asm: &mut Assembler, yes: Label, no: Label| {
        asm.test(Test::Equal, low, yes, no);
        let lower = asm.load(base);
        asm.test(Test::Equal, high, lower, no);
        asm.load(base + 4)
    };
    match condition.op {
        Op::Equal => equal(asm, yes, no),
        Op::NotEqual => equal(asm, no, yes),
        Op::Greater => ordered(asm, Test::Greater, yes, no),
        Op::AtLeast => ordered(asm, Test::AtLeast, yes, no),
        Op::Less => ordered(asm, Test::AtLeast, no, yes),
        Op::AtMost => ordered(asm, Test::Greater, no, yes),
        Op::MaskedEqual => {
            let (mask_low, mask_high) = (low, high);
            let (low, high) = halves(condition.second & condition.value);
            asm.test(Test::Equal, low, yes, no);
            asm.and(mask_low);
            let lower = asm.load(base);
            if mask_high == 0 {
                return lower;
            }
            asm.test(Test::Equal, high, lower, no);
            asm.and(mask_high);
            asm.load(base + 4)
        }
    }
}
