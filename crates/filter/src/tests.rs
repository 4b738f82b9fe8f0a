//! Programs against an interpreter, against a plain reading of the same rules, and built ones against compiled ones.

use crate::action::{ALLOW, ERRNO, KILL_PROCESS};
use crate::*;

fn entry<'a>(names: &[&'a str], action: u32, conditions: Vec<Condition>) -> Entry<'a> {
    Entry {
        names: names.to_vec(),
        action,
        conditions,
    }
}

fn profile(entries: Vec<Entry<'_>>) -> Profile<'_> {
    Profile {
        default: ERRNO | 38,
        machines: vec![Machine::X86_64, Machine::I386, Machine::Aarch64],
        entries,
    }
}

#[test]
fn what_was_built_is_what_the_compiler_makes() {
    for gates in default::BUILT {
        let profile = default::profile(NATIVE, |gate| gates.contains(&gate));
        let built = built(&profile).unwrap();
        assert_eq!(built, compile(NATIVE, &profile).unwrap(), "{gates:?}");
        assert!(matches!(program(&profile), Ok(Cow::Borrowed(_))));
        println!("{gates:?}: {} instructions", built.len());
    }
    // A profile that is another in whatever way has a program of its own.
    let usual = || default::profile(NATIVE, |gate| gate == "SYS_CHROOT");
    for change in [
        (|p| p.default = ALLOW) as fn(&mut Profile<'_>),
        |p| p.machines.clear(),
        |p| p.entries.truncate(4),
        |p| p.entries.last_mut().unwrap().names.truncate(3),
        |p| p.entries[0].conditions[0].second += 1,
        |p| p.entries.last_mut().unwrap().action = ALLOW,
    ] {
        let mut other = usual();
        change(&mut other);
        assert_eq!(built(&other), None);
        assert!(matches!(program(&other), Ok(Cow::Owned(_))));
    }
    let more = default::profile(NATIVE, |gate| ["SYS_CHROOT", "SYS_ADMIN"].contains(&gate));
    assert_eq!(built(&more), None);
    for gate in default::BUILT.iter().copied().flatten() {
        assert!(default::gates().any(|one| one == *gate), "{gate}");
    }
}

/// Many calls with few gaps: every number gets what a look-up in the plain list says.
#[test]
fn every_number_gets_its_own_verdict() {
    let names: Vec<&str> = [
        "read", "write", "open", "openat", "close", "mmap", "futex", "clone3", "execve", "exit",
        "statx", "poll", "ppoll", "prctl", "uname", "mseal",
    ]
    .into_iter()
    .filter(|name| NATIVE.number(name).is_some())
    .collect();
    let entries = names
        .iter()
        .zip(1..)
        .map(|(name, errno)| entry(&[name], ERRNO | errno, vec![]))
        .collect();
    let program = compile(NATIVE, &profile(entries)).unwrap();
    for number in 0..600 {
        let expected = names
            .iter()
            .position(|name| NATIVE.number(name) == Some(number))
            .map_or(ERRNO | 38, |at| ERRNO | (u32::try_from(at).unwrap() + 1));
        let got = interpret(&program, NATIVE.audit(), number, [0; 6]);
        assert_eq!(got, Some(expected), "{number}");
    }
    // MIPS' read.
    assert_eq!(
        interpret(&program, 0x0800_0008, 4003, [0; 6]),
        Some(KILL_PROCESS)
    );
}

/// About as many rules as the profile of an engine has, for two architectures.
#[test]
fn a_large_profile_is_short() {
    let names: Vec<&str> = tables::names(NATIVE).collect();
    let (most, few) = names.split_at(names.len() - 60);
    let mut entries = vec![entry(most, ALLOW, vec![])];
    for name in few {
        let under = Condition {
            index: 0,
            op: Op::MaskedEqual,
            value: 0x7e02_0000,
            second: 0,
        };
        entries.push(entry(&[name], ALLOW, vec![under]));
    }
    let program = compile(NATIVE, &profile(entries)).unwrap();
    assert!(program.len() < 1500, "{}", program.len());
}

#[test]
fn what_cannot_be_had_is_a_fault() {
    let beyond = Condition {
        index: 6,
        op: Op::Equal,
        value: 0,
        second: 0,
    };
    let fault = compile(
        NATIVE,
        &profile(vec![entry(&["read"], ALLOW, vec![beyond])]),
    );
    assert_eq!(fault, Err(Fault::Argument(6, "read".to_owned())));
    let many = |value| Condition {
        index: 0,
        op: Op::Equal,
        value,
        second: 0,
    };
    let entries = (0..3000).map(|value| entry(&["read"], ALLOW, vec![many(value)]));
    let fault = compile(NATIVE, &profile(entries.collect()));
    assert!(matches!(fault, Err(Fault::TooLong(_))), "{fault:?}");
}

#[test]
fn no_call_is_in_two_places() {
    let mut seen = std::collections::BTreeSet::new();
    let tables = table::GATED
        .iter()
        .chain(table::ALLOWED)
        .map(|(_, names)| *names);
    let others = [
        table::REFUSED,
        table::own(NATIVE),
        "ioctl personality socket",
    ];
    for name in tables.chain(others).flat_map(str::split_whitespace) {
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
