//! Filters against an interpreter, and against a plain reading of the same rules.

use oci_spec::runtime::{LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSyscallBuilder};

use super::*;

fn arg(index: usize, op: LinuxSeccompOperator, value: u64, two: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .op(op)
        .value(value)
        .value_two(two)
        .build()
        .unwrap()
}

fn entry(
    names: &[&str],
    action: LinuxSeccompAction,
    errno: Option<u32>,
    args: Vec<LinuxSeccompArg>,
) -> LinuxSyscall {
    let mut builder = LinuxSyscallBuilder::default()
        .names(
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )
        .action(action)
        .args(args);
    if let Some(errno) = errno {
        builder = builder.errno_ret(errno);
    }
    builder.build().unwrap()
}

fn profile(entries: Vec<LinuxSyscall>) -> LinuxSeccomp {
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(38_u32)
        .architectures(vec![
            Arch::ScmpArchX86_64,
            Arch::ScmpArchX86,
            Arch::ScmpArchX32,
            Arch::ScmpArchAarch64,
        ])
        .syscalls(entries)
        .build()
        .unwrap()
}

fn verdict(filter: &Filter, name: &str, arguments: [u64; 6]) -> u32 {
    let number = NATIVE.number(name).unwrap();
    interpret(&filter.program, NATIVE.audit(), number, arguments).unwrap()
}

const ALLOW_ACTION: LinuxSeccompAction = LinuxSeccompAction::ScmpActAllow;

#[test]
fn names_and_errors() {
    let filter = compile(&profile(vec![
        entry(
            &["read", "write", "no_such_call"],
            ALLOW_ACTION,
            None,
            vec![],
        ),
        entry(&["bpf"], LinuxSeccompAction::ScmpActErrno, Some(1), vec![]),
        entry(
            &["ptrace"],
            LinuxSeccompAction::ScmpActKillProcess,
            None,
            vec![],
        ),
    ]))
    .unwrap();
    assert_eq!(verdict(&filter, "read", [0; 6]), ALLOW);
    assert_eq!(verdict(&filter, "write", [0; 6]), ALLOW);
    assert_eq!(verdict(&filter, "bpf", [0; 6]), ERRNO | 1);
    assert_eq!(verdict(&filter, "ptrace", [0; 6]), KILL_PROCESS);
    assert_eq!(verdict(&filter, "close", [0; 6]), ERRNO | 38);
    assert!(filter.allows("read") && !filter.allows("close"));
}

#[test]
fn foreign_calls() {
    let filter = compile(&profile(vec![entry(&["read"], ALLOW_ACTION, None, vec![])])).unwrap();
    let run = |arch, number| interpret(&filter.program, arch, number, [0; 6]);
    // An architecture that is not listed, and one that cannot be: read of MIPS.
    assert_eq!(run(0x0800_0008, 4003), Some(KILL_PROCESS));
    if NATIVE == Machine::X86_64 {
        assert_eq!(run(Machine::I386.audit(), 3), Some(ALLOW));
        assert_eq!(run(Machine::I386.audit(), 0), Some(ERRNO | 38));
        assert_eq!(run(Machine::X86_64.audit(), 0x4000_0000), Some(ERRNO | 38));
        assert_eq!(run(Machine::X86_64.audit(), u32::MAX), Some(ERRNO | 38));
    }
}

#[test]
fn comparisons_of_64_bits() {
    let limit = 0x1_0000_0005_u64;
    let samples = [
        0,
        5,
        limit - 1,
        limit,
        limit + 1,
        0x1_0000_0000,
        0x2_0000_0000,
        u64::MAX,
    ];
    type Holds = fn(u64, u64) -> bool;
    let tests: [(LinuxSeccompOperator, Holds); 6] = [
        (LinuxSeccompOperator::ScmpCmpEq, |a, b| a == b),
        (LinuxSeccompOperator::ScmpCmpNe, |a, b| a != b),
        (LinuxSeccompOperator::ScmpCmpLt, |a, b| a < b),
        (LinuxSeccompOperator::ScmpCmpLe, |a, b| a <= b),
        (LinuxSeccompOperator::ScmpCmpGt, |a, b| a > b),
        (LinuxSeccompOperator::ScmpCmpGe, |a, b| a >= b),
    ];
    for (op, expected) in tests {
        let args = vec![arg(2, op, limit, 0)];
        let filter = compile(&profile(vec![entry(&["ioctl"], ALLOW_ACTION, None, args)])).unwrap();
        for sample in samples {
            let allowed = verdict(&filter, "ioctl", [9, 9, sample, 9, 9, 9]) == ALLOW;
            assert_eq!(allowed, expected(sample, limit), "{op:?} {sample:#x}");
        }
    }
}

#[test]
fn masks() {
    for mask in [0x7e02_0000_u64, 0xf_0000_0000_u64] {
        let args = vec![arg(0, LinuxSeccompOperator::ScmpCmpMaskedEq, mask, 0)];
        let filter = compile(&profile(vec![entry(&["clone"], ALLOW_ACTION, None, args)])).unwrap();
        for sample in [0, 17, mask, mask & (mask - 1), !mask, u64::MAX] {
            let allowed = verdict(&filter, "clone", [sample, 0, 0, 0, 0, 0]) == ALLOW;
            assert_eq!(allowed, sample & mask == 0, "{mask:#x} {sample:#x}");
        }
    }
}

#[test]
fn rules_of_one_call() {
    use LinuxSeccompOperator::ScmpCmpEq;
    let filter = compile(&profile(vec![
        // Any of two values, and two conditions together.
        entry(
            &["personality"],
            ALLOW_ACTION,
            None,
            vec![arg(0, ScmpCmpEq, 0, 0), arg(0, ScmpCmpEq, 8, 0)],
        ),
        entry(
            &["socket"],
            LinuxSeccompAction::ScmpActErrno,
            Some(22),
            vec![arg(0, ScmpCmpEq, 16, 0), arg(2, ScmpCmpEq, 9, 0)],
        ),
        entry(&["socket"], ALLOW_ACTION, None, vec![]),
    ]))
    .unwrap();
    let first = |name, value| verdict(&filter, name, [value, 0, 0, 0, 0, 0]);
    assert_eq!(first("personality", 0), ALLOW);
    assert_eq!(first("personality", 8), ALLOW);
    assert_eq!(first("personality", 9), ERRNO | 38);
    assert_eq!(verdict(&filter, "socket", [16, 3, 9, 0, 0, 0]), ERRNO | 22);
    assert_eq!(verdict(&filter, "socket", [16, 3, 8, 0, 0, 0]), ALLOW);
    assert_eq!(first("socket", 2), ALLOW);
}

#[test]
fn what_cannot_be_had_is_an_error() {
    let bad = [
        entry(&["read"], LinuxSeccompAction::ScmpActNotify, None, vec![]),
        entry(
            &["read"],
            ALLOW_ACTION,
            None,
            vec![arg(6, LinuxSeccompOperator::ScmpCmpEq, 0, 0)],
        ),
    ];
    for entry in bad {
        assert!(matches!(
            compile(&profile(vec![entry])),
            Err(Error::Invalid(_))
        ));
    }
}
