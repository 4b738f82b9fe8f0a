//! The default profile.
//!
//! It has the effect of the profile that podman installs, with four differences, each on
//! purpose: the two terminal calls by which a program types into the shell that started it (`TIOCSTI`, `TIOCLINUX`) are
//! refused; sockets to the hypervisor (`AF_VSOCK`), which no namespace confines, are refused; `keyctl` is not there, as
//! `add_key` is not: keys are their user's in every namespace, and who knows the number of one can have it; calls younger than that
//! profile that are no more than variants of allowed ones (`fchmodat2`, `futex_wait`, `statmount`, …) are allowed.
//!
//! What is refused by an argument of `socket` a 32-bit program of x86 can still have by `socketcall`, whose arguments lie in
//! memory, where no filter can look.
//!
//! # Order
//! Rules are meant to be tried in the order of the list, the first that fits decides. Rules with conditions on arguments come
//! before rules on the call alone.

use crate::rules::{Condition, Entry, Op, Profile, action};
use crate::table;
use crate::tables::Machine;

const EPERM: u32 = action::ERRNO | 1;
const EINVAL: u32 = action::ERRNO | 22;
const ENOSYS: u32 = action::ERRNO | 38;

/// For which capabilities, of those that some calls go with, the profile is compiled when this crate is built: podman's
/// default set, and none (`--cap-drop all`).
pub const BUILT: [&[&str]; 2] = [&["SYS_CHROOT"], &[]];

/// The capabilities that make a difference to the profile.
pub fn gates() -> impl Iterator<Item = &'static str> {
    let gated = table::GATED.iter().map(|(cap, _)| *cap);
    gated.chain(["AUDIT_WRITE"])
}

/// The architectures whose programs `native` runs too.
pub fn machines(native: Machine) -> Vec<Machine> {
    match native {
        Machine::X86_64 => vec![Machine::X86_64, Machine::I386],
        other => vec![other],
    }
}

/// The profile on a machine, for a container that may have the capabilities of which `has` says so (without `CAP_`).
pub fn profile(native: Machine, has: impl Fn(&str) -> bool) -> Profile<'static> {
    let mut entries = conditional(&has);
    let allowed = table::ALLOWED.iter().map(|(_, names)| *names);
    let names = allowed.chain([table::own(native)]);
    entries.push(entry(
        names.flat_map(str::split_whitespace).collect(),
        action::ALLOW,
    ));
    for (cap, names) in table::GATED {
        let action = match has(cap) {
            true => action::ALLOW,
            false => EPERM,
        };
        entries.push(entry(names.split_whitespace().collect(), action));
    }
    entries.push(entry(table::REFUSED.split_whitespace().collect(), EPERM));
    Profile {
        default: ENOSYS,
        machines: machines(native),
        entries,
    }
}

/// Execution domains a program may choose, see personality(2): Linux, `PER_LINUX32`, each with or without
/// `UNAME26`, and the question "which is it?".
const PERSONALITIES: &[u64] = &[0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Requests of ioctl(2) that put characters into a terminal's input, or into the console's.
const TERMINAL_INJECTION: &[u64] = &[0x5412 /* TIOCSTI */, 0x541c /* TIOCLINUX */];

const AF_NETLINK: u64 = 16;
const NETLINK_AUDIT: u64 = 9;
const AF_VSOCK: u64 = 40;

/// The kernel looks at the lower half of these arguments only; so must the filter, or the upper half would be a way round.
const LOW: u64 = 0xffff_ffff;

/// The calls that are decided by an argument.
fn conditional(has: impl Fn(&str) -> bool) -> Vec<Entry<'static>> {
    let when = |name, action, conditions: &[Condition]| Entry {
        names: vec![name],
        action,
        conditions: conditions.to_vec(),
    };
    let mut entries = Vec::new();
    for &request in TERMINAL_INJECTION {
        entries.push(when("ioctl", EPERM, &[low_is(1, request)]));
    }
    entries.push(when("ioctl", action::ALLOW, &[]));

    for &domain in PERSONALITIES {
        let is = Condition {
            index: 0,
            op: Op::Equal,
            value: domain,
            second: 0,
        };
        entries.push(when("personality", action::ALLOW, &[is]));
    }

    entries.push(when("socket", EPERM, &[low_is(0, AF_VSOCK)]));
    if !has("AUDIT_WRITE") {
        // EINVAL is what a kernel without auditing says; login programs take it for that and go on.
        let audit = [low_is(0, AF_NETLINK), low_is(2, NETLINK_AUDIT)];
        entries.push(when("socket", EINVAL, &audit));
    }
    entries.push(when("socket", action::ALLOW, &[]));
    entries
}

fn entry(names: Vec<&'static str>, action: u32) -> Entry<'static> {
    Entry {
        names,
        action,
        conditions: Vec::new(),
    }
}

/// The lower 32 bits of an argument are `value`.
fn low_is(index: usize, value: u64) -> Condition {
    Condition {
        index,
        op: Op::MaskedEqual,
        value: LOW,
        second: value,
    }
}
