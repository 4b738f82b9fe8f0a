//! From the seccomp part of a runtime specification to a BPF program.
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
//! - calls of an architecture that the specification does not list end the process.
//!
//! The calls of an architecture are found by a binary search over runs of numbers with the same
//! action, so an ordinary call costs about ten instructions.

mod assemble;
mod notify;
mod tables;

pub(crate) use notify::Listener;

use std::collections::BTreeMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use rcon_sys::seccomp::{FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV, Instruction, MAX_LEN};

use self::assemble::Label;
#[cfg(test)]
pub(crate) use self::assemble::interpret;
pub(crate) use self::assemble::{Assembler, Test};
use self::tables::Machine;
pub(crate) use self::tables::NATIVE;
use crate::error::{Error, Result};

const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
/// Hand the call over to a listener.
pub(crate) const USER_NOTIF: u32 = 0x7fc0_0000;
const LOG: u32 = 0x7ffc_0000;
/// Let the call pass.
pub(crate) const ALLOW: u32 = 0x7fff_0000;

/// The bit in a call's number that marks the x32 interface.
const X32_BIT: u32 = 0x4000_0000;

/// A filter that can be loaded.
#[derive(Debug)]
pub(crate) struct Filter {
    /// The program.
    pub(crate) program: Vec<Instruction>,
    /// The flags to load it with.
    pub(crate) flags: u32,
}

impl Filter {
    /// Whether another process decides about some calls, and gets a listener.
    pub(crate) fn notifies(&self) -> bool {
        self.program
            .iter()
            .any(|step| assemble::returns(step, USER_NOTIF))
    }

    /// Whether the native call `name` passes, whatever its arguments.
    pub(crate) fn allows(&self, name: &str) -> bool {
        NATIVE.number(name).is_some_and(|number| {
            assemble::interpret(&self.program, NATIVE.audit(), number, [0; 6])
                .is_some_and(|action| action == ALLOW || action == LOG)
        })
    }
}

struct Rule<'a> {
    conditions: Vec<&'a LinuxSeccompArg>,
    action: u32,
}

/// Make the filter that `seccomp` describes.
///
/// Fails with [`Error::Invalid`] for what cannot be had: argument numbers beyond 5, a filter that is
/// too long, one with a listener that could not be handed over under it.
pub(crate) fn compile(seccomp: &LinuxSeccomp) -> Result<Filter> {
    let default = action(seccomp.default_action(), seccomp.default_errno_ret());
    let machines = machines(seccomp.architectures().as_deref().unwrap_or_default());
    let mut asm = Assembler::default();
    let mut next = asm.ret(KILL_PROCESS);
    for machine in machines.into_iter().rev() {
        let rules = collect(
            machine,
            seccomp.syscalls().as_deref().unwrap_or_default(),
            default,
        )?;
        let after = next;
        let mut start = search(&mut asm, &rules, default)?;
        if machine == Machine::X86_64 {
            let absent = asm.ret(ERRNO | libc::ENOSYS.unsigned_abs());
            start = asm.test(Test::AtLeast, X32_BIT, absent, start);
        }
        let _ = start;
        start = asm.load(0);
        asm.test(Test::Equal, machine.audit(), start, after);
        next = asm.load(4);
    }
    let _ = next;
    if asm.len() > MAX_LEN {
        return Err(Error::Invalid(format!(
            "the seccomp profile makes a filter of {} instructions, more than the {MAX_LEN} that \
             the kernel takes",
            asm.len()
        )));
    }
    let mut filter = Filter {
        program: asm.finish(),
        flags: flags(seccomp.flags().as_deref().unwrap_or_default()),
    };
    if !filter.notifies() {
        // The kernel refuses it where nobody is asked.
        filter.flags &= !FLAG_WAIT_KILLABLE_RECV;
    }
    if filter.notifies() && !filter.allows("sendmsg") {
        return Err(Error::Invalid(
            "the seccomp profile has the action SCMP_ACT_NOTIFY and does not allow sendmsg, by \
             which its listener is handed over"
                .to_owned(),
        ));
    }
    Ok(filter)
}

/// The architectures that a filter can have rules for here.
pub(crate) fn architectures() -> &'static [&'static str] {
    match NATIVE {
        Machine::X86_64 => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        _ => &["SCMP_ARCH_AARCH64"],
    }
}

fn machines(listed: &[Arch]) -> Vec<Machine> {
    let mut machines = vec![NATIVE];
    for arch in listed {
        let machine = match arch {
            Arch::ScmpArchX86_64 => Machine::X86_64,
            Arch::ScmpArchX86 => Machine::I386,
            Arch::ScmpArchAarch64 => Machine::Aarch64,
            _ => continue,
        };
        // What this machine cannot run needs no rules.
        let runs = machine == NATIVE || (NATIVE, machine) == (Machine::X86_64, Machine::I386);
        if runs && !machines.contains(&machine) {
            machines.push(machine);
        }
    }
    machines
}

fn flags(listed: &[LinuxSeccompFilterFlag]) -> u32 {
    listed.iter().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                    FLAG_WAIT_KILLABLE_RECV
                }
                // One thread is all threads when the filter is loaded.
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            }
    })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(libc::EPERM.unsigned_abs()) & 0xffff;
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => TRAP,
        LinuxSeccompAction::ScmpActErrno => ERRNO | data,
        LinuxSeccompAction::ScmpActTrace => TRACE | data,
        LinuxSeccompAction::ScmpActLog => LOG,
        LinuxSeccompAction::ScmpActAllow => ALLOW,
        LinuxSeccompAction::ScmpActNotify => USER_NOTIF,
    }
}

/// The rules of every call that the profile names, by its number.
fn collect<'a>(
    machine: Machine,
    entries: &'a [LinuxSyscall],
    default: u32,
) -> Result<BTreeMap<u32, Vec<Rule<'a>>>> {
    let mut rules: BTreeMap<u32, Vec<Rule<'a>>> = BTreeMap::new();
    for entry in entries {
        let action = action(entry.action(), entry.errno_ret());
        if action == default {
            continue;
        }
        let conditions = entry.args().as_deref().unwrap_or_default();
        if let Some(bad) = conditions.iter().find(|condition| condition.index() > 5) {
            return Err(Error::Invalid(format!(
                "the seccomp profile speaks of argument {} of {}; calls have arguments 0 to 5",
                bad.index(),
                entry.names().join(", ")
            )));
        }
        let repeated = conditions.iter().enumerate().any(|(at, condition)| {
            conditions[..at]
                .iter()
                .any(|earlier| earlier.index() == condition.index())
        });
        for number in entry.names().iter().filter_map(|name| machine.number(name)) {
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
fn search(
    asm: &mut Assembler,
    rules: &BTreeMap<u32, Vec<Rule<'_>>>,
    default: u32,
) -> Result<Label> {
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
) -> Result<Label> {
    if let [(_, fate)] = runs {
        return Ok(match fate {
            Fate::Always(action) => asm.ret(*action),
            Fate::ByArguments(number) => {
                let known = rules.get(number).map(Vec::as_slice).unwrap_or_default();
                by_arguments(asm, known, default)
            }
        });
    }
    let middle = runs.len() / 2;
    let (left, right) = runs.split_at(middle);
    let upper = tree(asm, right, rules, default)?;
    let lower = tree(asm, left, rules, default)?;
    Ok(asm.test(Test::AtLeast, right[0].0, upper, lower))
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
fn compare(asm: &mut Assembler, condition: &LinuxSeccompArg, yes: Label, no: Label) -> Label {
    let base = 16 + 8 * u32::try_from(condition.index()).unwrap_or(0);
    let halves = |value: u64| (value as u32, (value >> 32) as u32);
    let (low, high) = halves(condition.value());
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
    match condition.op() {
        LinuxSeccompOperator::ScmpCmpEq => equal(asm, yes, no),
        LinuxSeccompOperator::ScmpCmpNe => equal(asm, no, yes),
        LinuxSeccompOperator::ScmpCmpGt => ordered(asm, Test::Greater, yes, no),
        LinuxSeccompOperator::ScmpCmpGe => ordered(asm, Test::AtLeast, yes, no),
        LinuxSeccompOperator::ScmpCmpLt => ordered(asm, Test::AtLeast, no, yes),
        LinuxSeccompOperator::ScmpCmpLe => ordered(asm, Test::Greater, no, yes),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            // Here the first value is the mask, and the second what must be left of the argument.
            let (mask_low, mask_high) = (low, high);
            let wanted = condition.value_two().unwrap_or(0) & condition.value();
            let (low, high) = halves(wanted);
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

#[cfg(test)]
mod tests;
