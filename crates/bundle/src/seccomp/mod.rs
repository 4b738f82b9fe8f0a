//! The system call filter: our default profile, none, or one from a file.
//!
//! The default ([`default_profile`]) has the effect of the profile that podman installs, with three differences, each on
//! purpose: the two terminal calls by which a program types into the shell that started it (`TIOCSTI`, `TIOCLINUX`) are
//! refused; sockets to the hypervisor (`AF_VSOCK`), which no namespace confines, are refused; calls younger than that
//! profile that are no more than variants of allowed ones (`fchmodat2`, `futex_wait`, `statmount`, …) are allowed.
//!
//! # Order
//! Rules are meant to be tried in the order of the list, the first that fits decides. Rules with conditions on arguments come
//! before rules on the call alone.

mod file;
mod table;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg};
use oci_spec::runtime::{LinuxSeccompArgBuilder, LinuxSeccompOperator as Op, LinuxSyscall};

use crate::parse::SeccompChoice;
use crate::{Caps, Error, Options};

const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSYS: u32 = 38;

/// The filter for a container; `None` for none (unconfined, or privileged).
pub(crate) fn choose(options: &Options, caps: &Caps) -> Result<Option<LinuxSeccomp>, Error> {
    match &options.security.seccomp {
        _ if options.privileged => Ok(None),
        SeccompChoice::Unconfined => Ok(None),
        SeccompChoice::Default => Ok(Some(default_profile(caps))),
        SeccompChoice::File(path) => file::read(path, caps).map(Some),
    }
}

/// The default profile for a container with these capabilities.
pub fn default_profile(caps: &Caps) -> LinuxSeccomp {
    let mut rules = conditional(caps);
    let allowed = table::ALLOWED
        .iter()
        .flat_map(|(_, names)| names.split_whitespace());
    rules.push(rule(Action::ScmpActAllow, None, allowed, &[]));
    for (cap, names) in table::GATED {
        rules.push(match caps.has(cap) {
            true => rule(Action::ScmpActAllow, None, names.split_whitespace(), &[]),
            false => rule(
                Action::ScmpActErrno,
                Some(EPERM),
                names.split_whitespace(),
                &[],
            ),
        });
    }
    rules.push(rule(
        Action::ScmpActErrno,
        Some(EPERM),
        table::REFUSED.split_whitespace(),
        &[],
    ));
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(Action::ScmpActErrno)
        .set_default_errno_ret(Some(ENOSYS))
        .set_architectures(Some(architectures()))
        .set_syscalls(Some(rules));
    profile
}

/// This machine's architecture and those whose programs it runs too.
pub(crate) fn architectures() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        "riscv64" => vec![Arch::ScmpArchRiscv64],
        _ => vec![Arch::ScmpArchNative],
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
fn conditional(caps: &Caps) -> Vec<LinuxSyscall> {
    let mut rules = Vec::new();
    for &request in TERMINAL_INJECTION {
        rules.push(rule(
            Action::ScmpActErrno,
            Some(EPERM),
            ["ioctl"].into_iter(),
            &[low_is(1, request)],
        ));
    }
    rules.push(rule(Action::ScmpActAllow, None, ["ioctl"].into_iter(), &[]));

    for &domain in PERSONALITIES {
        rules.push(rule(
            Action::ScmpActAllow,
            None,
            ["personality"].into_iter(),
            &[argument(0, Op::ScmpCmpEq, domain, None)],
        ));
    }

    rules.push(rule(
        Action::ScmpActErrno,
        Some(EPERM),
        ["socket"].into_iter(),
        &[low_is(0, AF_VSOCK)],
    ));
    if !caps.has("AUDIT_WRITE") {
        // EINVAL is what a kernel without auditing says; login programs take it for that and go on.
        let audit = [low_is(0, AF_NETLINK), low_is(2, NETLINK_AUDIT)];
        rules.push(rule(
            Action::ScmpActErrno,
            Some(EINVAL),
            ["socket"].into_iter(),
            &audit,
        ));
    }
    rules.push(rule(
        Action::ScmpActAllow,
        None,
        ["socket"].into_iter(),
        &[],
    ));
    rules
}

/// The lower 32 bits of an argument are `value`.
fn low_is(index: usize, value: u64) -> LinuxSeccompArg {
    argument(index, Op::ScmpCmpMaskedEq, LOW, Some(value))
}

/// A condition on one argument. (The builder has a default for every field and cannot fail.)
fn argument(index: usize, op: Op, value: u64, second: Option<u64>) -> LinuxSeccompArg {
    let arg = LinuxSeccompArgBuilder::default()
        .index(index)
        .op(op)
        .value(value);
    match second {
        Some(second) => arg.value_two(second).build(),
        None => arg.build(),
    }
    .unwrap_or_default()
}

fn rule<'a>(
    action: Action,
    errno: Option<u32>,
    names: impl Iterator<Item = &'a str>,
    args: &[LinuxSeccompArg],
) -> LinuxSyscall {
    let mut syscall = LinuxSyscall::default();
    syscall
        .set_names(names.map(str::to_string).collect())
        .set_action(action)
        .set_errno_ret(errno)
        .set_args((!args.is_empty()).then(|| args.to_vec()));
    syscall
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Options, capabilities};

    /// What the profile answers, by the rule "first that fits".
    pub(super) fn answer(profile: &LinuxSeccomp, name: &str, args: [u64; 6]) -> Result<(), u32> {
        let fits = |a: &LinuxSeccompArg| {
            let given = args[a.index()];
            match a.op() {
                Op::ScmpCmpEq => given == a.value(),
                Op::ScmpCmpMaskedEq => given & a.value() == a.value_two().unwrap(),
                Op::ScmpCmpNe => given != a.value(),
                _ => unreachable!(),
            }
        };
        for rule in profile.syscalls().as_ref().unwrap() {
            if rule.names().iter().any(|n| n == name) && rule.args().iter().flatten().all(fits) {
                return match rule.action() {
                    Action::ScmpActAllow => Ok(()),
                    _ => Err(rule.errno_ret().unwrap()),
                };
            }
        }
        Err(profile.default_errno_ret().unwrap())
    }

    fn profile(add: &[&str]) -> LinuxSeccomp {
        let options = Options {
            cap_add: add.iter().map(|a| a.to_string()).collect(),
            ..Options::default()
        };
        default_profile(&capabilities(&options, None).unwrap())
    }

    #[test]
    fn no_call_is_in_two_places() {
        let mut seen = BTreeSet::new();
        let tables = table::GATED
            .iter()
            .chain(table::ALLOWED)
            .map(|(_, names)| *names);
        let all = tables.chain([table::REFUSED, "ioctl personality socket"]);
        for name in all.flat_map(str::split_whitespace) {
            assert!(seen.insert(name), "{name} twice");
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
        }
        assert!(seen.len() > 400);
        for (_, names) in table::ALLOWED {
            assert!(names.split_whitespace().is_sorted());
        }
    }

    #[test]
    fn the_states_of_a_call() {
        let p = profile(&[]);
        for name in [
            "read",
            "clone",
            "clone3",
            "mount",
            "unshare",
            "ptrace",
            "setns",
            "chroot",
            "faccessat2",
        ] {
            assert_eq!(answer(&p, name, [0; 6]), Ok(()), "{name}");
        }
        for name in [
            "bpf",
            "kexec_load",
            "userfaultfd",
            "open_by_handle_at",
            "init_module",
            "settimeofday",
        ] {
            assert_eq!(answer(&p, name, [0; 6]), Err(EPERM), "{name}");
        }
        for name in ["io_uring_setup", "a_call_of_tomorrow", "add_key"] {
            assert_eq!(answer(&p, name, [0; 6]), Err(ENOSYS), "{name}");
        }
        let p = profile(&["SYS_ADMIN", "SYS_TIME"]);
        assert_eq!(answer(&p, "bpf", [0; 6]), Ok(()));
        assert_eq!(answer(&p, "settimeofday", [0; 6]), Ok(()));
        assert_eq!(answer(&p, "init_module", [0; 6]), Err(EPERM));
    }

    #[test]
    fn the_terminal_cannot_be_typed_into() {
        let p = profile(&["ALL"]);
        let ioctl = |request| answer(&p, "ioctl", [0, request, 0, 0, 0, 0]);
        assert_eq!(ioctl(0x5413), Ok(()));
        for request in [0x5412, 0x541c, 0x1_0000_5412, 0xffff_ffff_0000_541c] {
            assert_eq!(ioctl(request), Err(EPERM));
        }
    }

    #[test]
    fn sockets_and_personalities() {
        let p = profile(&[]);
        let socket = |p, family, protocol| answer(p, "socket", [family, 3, protocol, 0, 0, 0]);
        assert_eq!(socket(&p, 2, 0), Ok(()));
        assert_eq!(socket(&p, 16, 0), Ok(()));
        assert_eq!(socket(&p, 16, 9), Err(EINVAL));
        assert_eq!(socket(&p, 16, 0x7_0000_0009), Err(EINVAL));
        assert_eq!(socket(&p, 40, 0), Err(EPERM));
        assert_eq!(socket(&profile(&["AUDIT_WRITE"]), 16, 9), Ok(()));
        let personality = |domain| answer(&p, "personality", [domain, 0, 0, 0, 0, 0]);
        for domain in [0, 8, 0x20000, 0x20008, 0xffff_ffff] {
            assert_eq!(personality(domain), Ok(()));
        }
        // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC
        for domain in [0x004_0000, 0x040_0000] {
            assert_eq!(personality(domain), Err(ENOSYS));
        }
    }

    #[test]
    fn choices() {
        let caps = Caps::default();
        let mut options = Options::default();
        assert!(choose(&options, &caps).unwrap().is_some());
        options.security.seccomp = SeccompChoice::Unconfined;
        assert!(choose(&options, &caps).unwrap().is_none());
        let privileged = Options {
            privileged: true,
            ..Options::default()
        };
        assert!(choose(&privileged, &caps).unwrap().is_none());
    }
}
