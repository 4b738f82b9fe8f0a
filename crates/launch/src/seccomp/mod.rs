//! From the seccomp part of a runtime specification to a filter that can be loaded.

mod notify;

pub(crate) use notify::Listener;

use std::borrow::Cow;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
pub(crate) use rcon_filter::action::{ALLOW, USER_NOTIF};
use rcon_filter::action::{ERRNO, KILL_PROCESS, KILL_THREAD, LOG, TRACE, TRAP};
#[cfg(test)]
pub(crate) use rcon_filter::interpret;
pub(crate) use rcon_filter::{Assembler, NATIVE, Test};
use rcon_filter::{Condition, Entry, Machine, Op, Profile};
use rcon_sys::seccomp::{FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV, Instruction};

use crate::error::{Error, Result};

/// A filter that can be loaded.
#[derive(Debug)]
pub(crate) struct Filter {
    /// The program.
    pub(crate) program: Cow<'static, [Instruction]>,
    /// The flags to load it with.
    pub(crate) flags: u32,
}

impl Filter {
    /// Whether another process decides about some calls, and gets a listener.
    pub(crate) fn notifies(&self) -> bool {
        self.program
            .iter()
            .any(|step| rcon_filter::returns(step, USER_NOTIF))
    }

    /// Whether the native call `name` passes, whatever its arguments.
    pub(crate) fn allows(&self, name: &str) -> bool {
        NATIVE.number(name).is_some_and(|number| {
            rcon_filter::interpret(&self.program, NATIVE.audit(), number, [0; 6])
                .is_some_and(|action| action == ALLOW || action == LOG)
        })
    }
}

/// Make the filter that `seccomp` describes. That of the default profile is there already.
///
/// Fails with [`Error::Invalid`] for what cannot be had: argument numbers beyond 5, a filter that is
/// too long, one with a listener that could not be handed over under it.
pub(crate) fn compile(seccomp: &LinuxSeccomp) -> Result<Filter> {
    let program = rcon_filter::program(&profile(seccomp))
        .map_err(|fault| Error::Invalid(fault.to_string()))?;
    let mut filter = Filter {
        program,
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

fn profile(seccomp: &LinuxSeccomp) -> Profile<'_> {
    let listed = seccomp.architectures().iter().flatten();
    Profile {
        default: action(seccomp.default_action(), seccomp.default_errno_ret()),
        machines: listed.filter_map(machine).collect(),
        entries: seccomp.syscalls().iter().flatten().map(entry).collect(),
    }
}

fn machine(listed: &Arch) -> Option<Machine> {
    match listed {
        Arch::ScmpArchX86_64 => Some(Machine::X86_64),
        Arch::ScmpArchX86 => Some(Machine::I386),
        Arch::ScmpArchAarch64 => Some(Machine::Aarch64),
        // The x32 interface is never there; others do not run here.
        _ => None,
    }
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

fn entry(rule: &LinuxSyscall) -> Entry<'_> {
    let conditions = rule.args().iter().flatten();
    Entry {
        names: rule.names().iter().map(String::as_str).collect(),
        action: action(rule.action(), rule.errno_ret()),
        conditions: conditions.map(condition).collect(),
    }
}

fn condition(argument: &LinuxSeccompArg) -> Condition {
    let op = match argument.op() {
        LinuxSeccompOperator::ScmpCmpEq => Op::Equal,
        LinuxSeccompOperator::ScmpCmpNe => Op::NotEqual,
        LinuxSeccompOperator::ScmpCmpLt => Op::Less,
        LinuxSeccompOperator::ScmpCmpLe => Op::AtMost,
        LinuxSeccompOperator::ScmpCmpGt => Op::Greater,
        LinuxSeccompOperator::ScmpCmpGe => Op::AtLeast,
        LinuxSeccompOperator::ScmpCmpMaskedEq => Op::MaskedEqual,
    };
    Condition {
        index: argument.index(),
        op,
        value: argument.value(),
        // Of a masked comparison the first value is the mask; others have no second one.
        second: match op {
            Op::MaskedEqual => argument.value_two().unwrap_or(0),
            _ => 0,
        },
    }
}

#[cfg(test)]
mod tests;
