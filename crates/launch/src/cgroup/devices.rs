//! Which devices the processes of a cgroup may make and open (config-linux.md, allowed device list): for the first version
//! lines for its controller, for the second a program for the kernel.

use std::fmt;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};
use rcon_sys::bpf::{self, Instruction};

use super::error::reason;
use super::{Error, Result, files};

/// A rule. Of those that speak of a device, the last one holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    /// `b`, `c`, or both.
    kind: Option<char>,
    /// Its numbers, or all.
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

/// The letters of what can be done to a device; their places are the kernel's bits (BPF_DEVCG_ACC_MKNOD, _READ, _WRITE).
const LETTERS: [char; 3] = ['m', 'r', 'w'];
const ALL: u8 = 7;

/// What every container has: it may make any node, but open only /dev/null, zero, full, random, urandom, tty, ptmx and its
/// terminals.
const USUAL: [(char, Option<u32>, Option<u32>, u8); 10] = [
    ('c', None, None, 1),
    ('b', None, None, 1),
    ('c', Some(1), Some(3), ALL),
    ('c', Some(1), Some(5), ALL),
    ('c', Some(1), Some(7), ALL),
    ('c', Some(1), Some(8), ALL),
    ('c', Some(1), Some(9), ALL),
    ('c', Some(5), Some(0), ALL),
    ('c', Some(5), Some(2), ALL),
    ('c', Some(136), None, ALL),
];

impl Rule {
    /// Whether it is of every device and all that can be done to it.
    fn is_of_all(&self) -> bool {
        (self.kind, self.major, self.minor, self.access) == (None, None, None, ALL)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        let letters = (0..3).filter(|bit| self.access & (1 << bit) != 0);
        let letters: String = letters.map(|bit| LETTERS[bit]).collect();
        write!(f, "{} {major}:{minor} {letters}", self.kind.unwrap_or('a'))
    }
}

/// The rules of a specification. Whatever denies everything still leaves what every container has.
pub(super) fn rules(resources: &LinuxResources) -> Result<Vec<Rule>> {
    let mut list = Vec::new();
    for said in resources.devices().iter().flatten() {
        let rule = rule(said)?;
        if rule.access == 0 {
            continue;
        }
        match rule.kind {
            // To the first version, both kinds with numbers would be every device there is.
            None if !rule.is_of_all() => list.extend(['b', 'c'].map(|kind| Rule {
                kind: Some(kind),
                ..rule
            })),
            _ => list.push(rule),
        }
        if rule.is_of_all() && !rule.allow {
            list.extend(USUAL.map(|(kind, major, minor, access)| Rule {
                allow: true,
                kind: Some(kind),
                major,
                minor,
                access,
            }));
        }
    }
    Ok(list)
}

fn rule(said: &LinuxDeviceCgroup) -> Result<Rule> {
    let wrong = || Error::Unsupported(format!("{said:?} is no rule for devices"));
    let number = |value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| wrong()),
    };
    let mut access = 0;
    for letter in said.access().as_deref().unwrap_or("rwm").chars() {
        let bit = LETTERS.iter().position(|known| *known == letter);
        access |= 1 << bit.ok_or_else(wrong)?;
    }
    Ok(Rule {
        allow: said.allow(),
        kind: match said.typ() {
            Some(LinuxDeviceType::B) => Some('b'),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some('c'),
            Some(LinuxDeviceType::P) => return Err(wrong()),
            _ => None,
        },
        major: number(said.major())?,
        minor: number(said.minor())?,
        access,
    })
}

/// Whether this process may have rules kept: it is root, and that of the machine.
pub(super) fn can_be_kept() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    rustix::process::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Have the rules hold in the cgroup `dir` of the second version.
pub(super) fn apply(dir: &Path, rules: &[Rule]) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let folder = File::open(dir).map_err(|error| Error::file("open", dir, &error))?;
    match bpf::decide_devices(folder.as_fd(), &program(rules)) {
        Ok(()) => Ok(()),
        // In a user namespace no node can be made; there are only the devices that the container was given.
        Err(error)
            if files::is_denied(&error)
                && !can_be_kept()
                && rules.iter().any(|rule| rule.is_of_all() && !rule.allow) =>
        {
            Ok(())
        }
        Err(error) => Err(Error::Devices(reason(&error))),
    }
}

/// Registers: the result; what is given; what is asked for and not yet allowed; the kind and the numbers of the device.
const RESULT: u8 = 0;
const GIVEN: u8 = 1;
const ASKED: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Codes of instructions (linux/bpf_common.h, linux/bpf.h).
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const COPY: u8 = 0xbf;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const UNLESS_EQUAL: u8 = 0x55;
const IF_ANY_BIT: u8 = 0x45;
const JUMP: u8 = 0x05;
const EXIT: u8 = 0x95;

/// The program: from the last rule to the first, until all that is asked for is allowed or some of it is denied. What no rule
/// speaks of is allowed, as it was.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    let ins = |code, register, offset, value| Instruction {
        code,
        registers: register,
        offset,
        value,
    };
    let end = |allow: bool| {
        [
            ins(MOVE, RESULT, 0, i32::from(allow)),
            ins(EXIT, RESULT, 0, 0),
        ]
    };
    let given = |to: u8, offset| ins(LOAD_WORD, to | GIVEN << 4, offset, 0);
    let mut all = vec![
        given(ASKED, 0),
        given(MAJOR, 4),
        given(MINOR, 8),
        ins(COPY, KIND | ASKED << 4, 0, 0),
        ins(AND, KIND, 0, 0xffff),
        ins(SHIFT_RIGHT, ASKED, 0, 16),
    ];
    for rule in rules.iter().rev() {
        if rule.is_of_all() {
            // Nothing before it matters, and the kernel takes no instructions that nobody reaches.
            all.extend(end(rule.allow));
            return all;
        }
        let access = i32::from(rule.access);
        let body = match rule.allow {
            true => {
                let rest = [ins(AND, ASKED, 0, !access), ins(UNLESS_EQUAL, ASKED, 2, 0)];
                [&rest[..], &end(true)].concat()
            }
            false => {
                let look = [ins(IF_ANY_BIT, ASKED, 1, access), ins(JUMP, 0, 2, 0)];
                [&look[..], &end(false)].concat()
            }
        };
        let kind = rule.kind.map(|kind| if kind == 'b' { 1 } else { 2 });
        let tests = [(KIND, kind), (MAJOR, rule.major), (MINOR, rule.minor)];
        let tests: Vec<(u8, u32)> = tests
            .into_iter()
            .filter_map(|(register, value)| Some((register, value?)))
            .collect();
        for (at, (register, value)) in tests.iter().enumerate() {
            let over = tests.len() - at - 1 + body.len();
            let over = i16::try_from(over).unwrap_or(i16::MAX);
            all.push(ins(UNLESS_EQUAL, *register, over, value.cast_signed()));
        }
        all.extend(body);
    }
    all.extend(end(true));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<Rule>> {
        let all = format!(r#"{{"devices":{text}}}"#);
        rules(&serde_json::from_str(&all).unwrap())
    }

    /// What the kernel would do: the access asked for, the kind, the numbers.
    fn decide(program: &[Instruction], kind: char, major: u32, minor: u32, asked: &str) -> bool {
        let bits = |letter| 1 << LETTERS.iter().position(|one| *one == letter).unwrap();
        let asked: u64 = asked.chars().map(bits).sum();
        let kind = if kind == 'b' { 1 } else { 2 };
        let given = [asked << 16 | kind, u64::from(major), u64::from(minor)];
        let mut registers = [0_u64; 10];
        let mut at = 0_usize;
        loop {
            let one = program[at];
            let (to, from) = (
                usize::from(one.registers & 15),
                usize::from(one.registers >> 4),
            );
            let value = i64::from(one.value).cast_unsigned();
            let mut jump = false;
            match one.code {
                LOAD_WORD => registers[to] = given[one.offset.unsigned_abs() as usize / 4],
                MOVE => registers[to] = value,
                COPY => registers[to] = registers[from],
                AND => registers[to] &= value & 0xffff_ffff,
                SHIFT_RIGHT => registers[to] >>= value,
                UNLESS_EQUAL => jump = registers[to] != value,
                IF_ANY_BIT => jump = registers[to] & value != 0,
                JUMP => jump = true,
                EXIT => return registers[0] != 0,
                code => panic!("{code:#x}"),
            }
            at += 1 + if jump {
                one.offset.unsigned_abs() as usize
            } else {
                0
            };
        }
    }

    #[test]
    fn the_last_rule_holds() {
        let rules = of(r#"[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":10,"minor":229,"access":"rw"},
            {"allow":true,"type":"b","major":8,"access":"r"},
            {"allow":true,"type":"b","major":8,"minor":1,"access":"w"},
            {"allow":false,"type":"c","major":1,"minor":9,"access":"w"}]"#);
        let all = program(&rules.unwrap());
        for (kind, major, minor, asked, right) in [
            ('c', 10, 229, "rw", true),
            ('c', 10, 229, "rwm", true),
            ('c', 10, 228, "r", false),
            ('b', 10, 229, "r", false),
            ('b', 8, 7, "r", true),
            ('b', 8, 7, "rw", false),
            ('b', 8, 1, "rw", true),
            ('c', 1, 3, "rwm", true),
            ('c', 136, 77, "rw", true),
            ('c', 1, 9, "r", true),
            ('c', 1, 9, "rw", false),
            ('c', 240, 1, "m", true),
        ] {
            assert_eq!(
                decide(&all, kind, major, minor, asked),
                right,
                "{kind} {major}:{minor} {asked}"
            );
        }
        // Without a word on the rest that is allowed.
        let some = program(&of(r#"[{"allow":false,"major":10,"access":"w"}]"#).unwrap());
        assert!(decide(&some, 'c', 10, 1, "r") && !decide(&some, 'b', 10, 1, "rw"));
        assert!(decide(&some, 'c', 11, 1, "rwm"));
        let none = program(&of(r#"[{"allow":false},{"allow":true}]"#).unwrap());
        assert_eq!(none.len(), 8);
        assert!(decide(&none, 'c', 10, 1, "rwm"));
    }

    #[test]
    fn rules_as_lines() {
        let lines =
            |text: &str| -> Vec<String> { of(text).unwrap().iter().map(Rule::to_string).collect() };
        assert_eq!(
            lines(r#"[{"allow":true,"major":10,"access":"wr"}]"#),
            ["b 10:* rw", "c 10:* rw"]
        );
        let all = lines(r#"[{"allow":false,"access":"rwm"}]"#);
        assert_eq!((all[0].as_str(), all.len()), ("a *:* mrw", 11));
        assert_eq!(lines(r#"[{"allow":true,"access":""}]"#), [""; 0]);
        assert!(of(r#"[{"allow":true,"access":"x"}]"#).is_err());
        assert!(of(r#"[{"allow":true,"major":-5}]"#).is_err());
    }
}
