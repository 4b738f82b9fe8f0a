//! The default system call filter beside one that libseccomp makes of the same table: the same verdict for every number of a
//! call on each architecture, and for arguments around every value that a condition looks at.

use std::io::Write;
use std::process::{Command, Stdio};

use rcon_filter::{Condition, Entry, Instruction, Machine, NATIVE, Op, Profile, action, default};
use serde_json::{Value, json};

use crate::lab::bpf::ask;
use crate::lab::{script, skip};

#[test]
fn libseccomp_says_the_same() {
    let every: Vec<&str> = default::gates().collect();
    for gates in default::BUILT.into_iter().chain([every.as_slice()]) {
        let profile = default::profile(NATIVE, |gate| gates.contains(&gate));
        let ours = rcon_filter::program(&profile).unwrap();
        for machine in default::machines(NATIVE) {
            let Some(compared) = compare(&profile, &ours, machine) else {
                return skip("python3-seccomp is not installed");
            };
            assert!(compared > 700, "{compared}");
        }
    }
}

/// Compares all verdicts on one architecture; how many there were. `None` where libseccomp is not there.
fn compare(profile: &Profile<'_>, ours: &[Instruction], machine: Machine) -> Option<u32> {
    let conditional = |entry: &&Entry<'_>| !entry.conditions.is_empty();
    let mut by_argument: Vec<&str> = Vec::new();
    for entry in profile.entries.iter().filter(conditional) {
        by_argument.extend(
            entry
                .names
                .iter()
                .filter(|name| machine.number(name).is_some()),
        );
    }
    by_argument.dedup();

    // By the number alone.
    let plain: Vec<Value> = profile
        .entries
        .iter()
        .filter(|entry| entry.conditions.is_empty())
        .map(|entry| {
            let names = entry
                .names
                .iter()
                .filter(|name| !by_argument.contains(name));
            rule(&names.copied().collect::<Vec<_>>(), entry.action, &[])
        })
        .collect();
    let (twin, unknown) = made(machine, profile.default, &plain)?;
    let numbers = |names: &[&str]| -> Vec<u32> {
        names
            .iter()
            .filter_map(|name| machine.number(name))
            .collect()
    };
    let unknown = numbers(&unknown.iter().map(String::as_str).collect::<Vec<_>>());
    // They are those that are younger than it.
    assert!(unknown.iter().all(|number| *number > 440), "{unknown:?}");
    let aside = [unknown, numbers(&by_argument)].concat();
    let mut compared = 0;
    for number in (0..1024).filter(|number| !aside.contains(number)) {
        let said = |program| ask(program, machine.audit(), number, [0; 6]);
        assert_eq!(said(ours), said(&twin), "{machine:?}: call {number}");
        compared += 1;
    }

    // By arguments: a twin for each call, since libseccomp has no order of rules.
    for name in by_argument {
        let all = || {
            profile
                .entries
                .iter()
                .filter(|entry| entry.names.contains(&name))
        };
        let rest = all().find(|entry| entry.conditions.is_empty());
        let rest = rest.map_or(profile.default, |entry| entry.action);
        let rules: Vec<Value> = all()
            .filter(conditional)
            .map(|entry| rule(&[name], entry.action, &entry.conditions))
            .collect();
        let (twin, _) = made(machine, rest, &rules)?;
        let number = machine.number(name).unwrap();
        for arguments in samples(machine, all().flat_map(|entry| &entry.conditions)) {
            let said = |program| ask(program, machine.audit(), number, arguments);
            assert_eq!(said(ours), said(&twin), "{machine:?}: {name}{arguments:x?}");
            compared += 1;
        }
    }
    Some(compared)
}

/// Arguments on both sides of all that the conditions look at, in all combinations.
fn samples<'a>(machine: Machine, conditions: impl Iterator<Item = &'a Condition>) -> Vec<[u64; 6]> {
    let mut values: [Vec<u64>; 6] = std::array::from_fn(|_| vec![0]);
    for condition in conditions {
        let at = match condition.op {
            Op::MaskedEqual => condition.second,
            _ => condition.value,
        };
        let near = [
            at.wrapping_sub(1),
            at,
            at + 1,
            at | 1 << 32,
            at | 1 << 63,
            u64::MAX,
        ];
        values[condition.index].extend(near);
    }
    let mut all = vec![[0; 6]];
    for (index, values) in values.iter().enumerate() {
        all = all
            .iter()
            .flat_map(|sample| {
                values.iter().map(move |value| {
                    let mut sample = *sample;
                    sample[index] = match machine {
                        // The kernel widens the arguments of 32-bit programs.
                        Machine::I386 => value & 0xffff_ffff,
                        _ => *value,
                    };
                    sample
                })
            })
            .collect();
    }
    all
}

/// A rule, for the script.
fn rule(names: &[&str], action: u32, conditions: &[Condition]) -> Value {
    let conditions = conditions.iter().map(|one| match one.op {
        Op::Equal => json!({"index": one.index, "mask": null, "value": one.value}),
        Op::MaskedEqual => json!({"index": one.index, "mask": one.value, "value": one.second}),
        other => panic!("the default profile has no {other:?}"),
    });
    let conditions: Vec<Value> = conditions.collect();
    json!({"names": names, "verdict": verdict(action), "conditions": conditions})
}

fn verdict(action: u32) -> Value {
    match action {
        action::ALLOW => Value::Null,
        refused => json!(refused & 0xffff),
    }
}

/// The program that libseccomp makes, and the names that it does not know.
fn made(
    machine: Machine,
    default: u32,
    rules: &[Value],
) -> Option<(Vec<Instruction>, Vec<String>)> {
    let arch = match machine {
        Machine::X86_64 => "X86_64",
        Machine::I386 => "X86",
        Machine::Aarch64 => "AARCH64",
    };
    let profile = json!({"arch": arch, "default": verdict(default), "rules": rules});
    let mut child = Command::new(script("twin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take().unwrap();
    // It reads nothing when it cannot begin.
    let _ = input.write_all(profile.to_string().as_bytes());
    drop(input);
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    if !out.status.success() {
        assert!(said.contains("No module named 'seccomp'"), "{said}");
        return None;
    }
    let instructions = out.stdout.chunks_exact(8).map(|bytes| Instruction {
        code: u16::from_le_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    });
    Some((
        instructions.collect(),
        said.lines().map(str::to_owned).collect(),
    ))
}
