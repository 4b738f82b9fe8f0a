//! The system call filter: our default profile, none, or one from a file.
//!
//! The default profile is `rcon-filter`'s ([`rcon_filter::default`]); here it is written as the specification has it.

mod file;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg};
use oci_spec::runtime::{LinuxSeccompArgBuilder, LinuxSeccompOperator as Op, LinuxSyscall};
use rcon_filter::{NATIVE, action, default};

use crate::parse::SeccompChoice;
use crate::{Caps, Error, Options};

/// The filter for a container; `None` for none (unconfined, or privileged and nothing said).
pub(crate) fn choose(options: &Options, caps: &Caps) -> Result<Option<LinuxSeccomp>, Error> {
    match &options.security.seccomp {
        SeccompChoice::Default if options.privileged => Ok(None),
        SeccompChoice::Unconfined => Ok(None),
        SeccompChoice::Default => Ok(Some(default_profile(caps))),
        SeccompChoice::File(path) => file::read(path, caps).map(Some),
    }
}

/// The default profile for a container with these capabilities.
pub fn default_profile(caps: &Caps) -> LinuxSeccomp {
    let profile = default::profile(NATIVE, |cap| caps.has(cap));
    let rules = profile.entries.iter().map(rule).collect::<Vec<_>>();
    let (action, errno) = spelled(profile.default);
    let mut seccomp = LinuxSeccomp::default();
    seccomp
        .set_default_action(action)
        .set_default_errno_ret(errno)
        .set_architectures(Some(architectures()))
        .set_syscalls(Some(rules));
    seccomp
}

/// A rule as the specification has it.
fn rule(entry: &rcon_filter::Entry<'_>) -> LinuxSyscall {
    let conditions = entry.conditions.iter().map(|condition| {
        let op = match condition.op {
            rcon_filter::Op::Equal => Op::ScmpCmpEq,
            rcon_filter::Op::NotEqual => Op::ScmpCmpNe,
            rcon_filter::Op::Less => Op::ScmpCmpLt,
            rcon_filter::Op::AtMost => Op::ScmpCmpLe,
            rcon_filter::Op::Greater => Op::ScmpCmpGt,
            rcon_filter::Op::AtLeast => Op::ScmpCmpGe,
            rcon_filter::Op::MaskedEqual => Op::ScmpCmpMaskedEq,
        };
        let second = (op == Op::ScmpCmpMaskedEq).then_some(condition.second);
        argument(condition.index, op, condition.value, second)
    });
    let conditions: Vec<_> = conditions.collect();
    let (action, errno) = spelled(entry.action);
    let mut syscall = LinuxSyscall::default();
    syscall
        .set_names(entry.names.iter().map(|name| (*name).to_owned()).collect())
        .set_action(action)
        .set_errno_ret(errno)
        .set_args((!conditions.is_empty()).then_some(conditions));
    syscall
}

/// An action of the default profile, which allows or refuses.
fn spelled(value: u32) -> (Action, Option<u32>) {
    match value {
        action::ALLOW => (Action::ScmpActAllow, None),
        refused => (Action::ScmpActErrno, Some(refused & 0xffff)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, capabilities};

    const EPERM: u32 = 1;
    const EINVAL: u32 = 22;
    const ENOSYS: u32 = 38;

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

    /// What containers have by default is what was compiled when the program was built.
    #[test]
    fn the_usual_sets_of_capabilities_are_built_in() {
        let sets = [
            Options::default(),
            Options {
                cap_drop: vec!["ALL".into()],
                ..Options::default()
            },
        ];
        for (options, built) in sets.iter().zip(default::BUILT) {
            let caps = capabilities(options, None).unwrap();
            let gates: Vec<&str> = default::gates().filter(|gate| caps.has(gate)).collect();
            assert_eq!(gates, built);
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
        let mut privileged = Options {
            privileged: true,
            ..Options::default()
        };
        assert!(choose(&privileged, &caps).unwrap().is_none());
        // A filter that is asked for is not left out.
        privileged.security.seccomp = SeccompChoice::File("/nonexistent".into());
        assert!(choose(&privileged, &caps).is_err());
    }
}
