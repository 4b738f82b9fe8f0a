//! `--ulimit`: resource limits, see getrlimit(2).

use oci_spec::runtime::PosixRlimitType;
use serde::{Deserialize, Serialize};

use crate::Error;

/// One `--ulimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ulimit {
    /// `host`: change none of the limits rcon itself runs under.
    Host,
    /// One limit.
    Limit {
        /// Which.
        kind: UlimitKind,
        /// The limit in force; `u64::MAX` is unlimited.
        soft: u64,
        /// How far the process may raise it; `u64::MAX` is unlimited.
        hard: u64,
    },
}

/// The resources that can be limited, named as `--ulimit` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UlimitKind {
    /// Size of core files, bytes.
    Core,
    /// Processor time, seconds.
    Cpu,
    /// Data segment, bytes.
    Data,
    /// Size of files written, bytes.
    Fsize,
    /// File locks.
    Locks,
    /// Locked memory, bytes.
    Memlock,
    /// Bytes in message queues.
    Msgqueue,
    /// Ceiling of the nice value (20 − limit).
    Nice,
    /// Open files.
    Nofile,
    /// Processes of the user.
    Nproc,
    /// Resident set, bytes (no effect on today's kernels).
    Rss,
    /// Real-time priority.
    Rtprio,
    /// Real-time processor time without a blocking call, microseconds.
    Rttime,
    /// Queued signals.
    Sigpending,
    /// Stack, bytes.
    Stack,
}

/// Every kind by name, with the OCI name.
const KINDS: &[(&str, UlimitKind, PosixRlimitType)] = &[
    ("core", UlimitKind::Core, PosixRlimitType::RlimitCore),
    ("cpu", UlimitKind::Cpu, PosixRlimitType::RlimitCpu),
    ("data", UlimitKind::Data, PosixRlimitType::RlimitData),
    ("fsize", UlimitKind::Fsize, PosixRlimitType::RlimitFsize),
    ("locks", UlimitKind::Locks, PosixRlimitType::RlimitLocks),
    (
        "memlock",
        UlimitKind::Memlock,
        PosixRlimitType::RlimitMemlock,
    ),
    (
        "msgqueue",
        UlimitKind::Msgqueue,
        PosixRlimitType::RlimitMsgqueue,
    ),
    ("nice", UlimitKind::Nice, PosixRlimitType::RlimitNice),
    ("nofile", UlimitKind::Nofile, PosixRlimitType::RlimitNofile),
    ("nproc", UlimitKind::Nproc, PosixRlimitType::RlimitNproc),
    ("rss", UlimitKind::Rss, PosixRlimitType::RlimitRss),
    ("rtprio", UlimitKind::Rtprio, PosixRlimitType::RlimitRtprio),
    ("rttime", UlimitKind::Rttime, PosixRlimitType::RlimitRttime),
    (
        "sigpending",
        UlimitKind::Sigpending,
        PosixRlimitType::RlimitSigpending,
    ),
    ("stack", UlimitKind::Stack, PosixRlimitType::RlimitStack),
];

impl UlimitKind {
    /// The name as `--ulimit` takes it.
    pub fn name(self) -> &'static str {
        KINDS[self as usize].0
    }

    /// The OCI runtime specification's name for it.
    pub fn oci(self) -> PosixRlimitType {
        KINDS[self as usize].2
    }
}

/// Reads `host` or `NAME=SOFT[:HARD]`; −1 is unlimited. Empty text is nothing (`None`), as podman has it.
///
/// # Errors
/// podman's `ulimit option "X" requires name=SOFT:HARD, failed to be parsed: …`.
pub fn ulimit(text: &str) -> Result<Option<Ulimit>, Error> {
    match text {
        "" => Ok(None),
        "host" => Ok(Some(Ulimit::Host)),
        _ => parse(text).map(Some).map_err(|why| {
            Error::value(format!(
                "ulimit option {text:?} requires name=SOFT:HARD, failed to be parsed: {why}"
            ))
        }),
    }
}

fn parse(text: &str) -> Result<Ulimit, String> {
    let (name, values) = text
        .split_once('=')
        .ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    let kind = KINDS
        .iter()
        .find(|k| k.0 == name)
        .ok_or_else(|| format!("invalid ulimit type: {name}"))?
        .1;
    let mut parts = values.split(':');
    let soft = number(parts.next().unwrap_or_default())?;
    let hard = parts.next().map(number).transpose()?.unwrap_or(soft);
    if parts.next().is_some() {
        return Err(format!(
            "too many limit value arguments - {values}, can only have up to two, `soft[:hard]`"
        ));
    }
    if soft > hard {
        let shown = if soft == u64::MAX {
            "-1 (unlimited)".to_string()
        } else {
            soft.to_string()
        };
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {shown} > {hard}"
        ));
    }
    Ok(Ulimit::Limit { kind, soft, hard })
}

fn number(text: &str) -> Result<u64, String> {
    let invalid = || format!("strconv.ParseInt: parsing {text:?}: invalid syntax");
    match text.parse::<i64>() {
        Ok(-1) => Ok(u64::MAX),
        Ok(n) => u64::try_from(n).map_err(|_| format!("{n} is below -1, which means unlimited")),
        Err(e) if *e.kind() == std::num::IntErrorKind::PosOverflow => Err(format!(
            "strconv.ParseInt: parsing {text:?}: value out of range"
        )),
        Err(_) => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(kind: UlimitKind, soft: u64, hard: u64) -> Option<Ulimit> {
        Some(Ulimit::Limit { kind, soft, hard })
    }

    #[test]
    fn reads_limits() {
        assert_eq!(ulimit("host").unwrap(), Some(Ulimit::Host));
        assert_eq!(ulimit("").unwrap(), None);
        assert_eq!(ulimit("nofile=1").unwrap(), limit(UlimitKind::Nofile, 1, 1));
        assert_eq!(
            ulimit("nofile=1:2").unwrap(),
            limit(UlimitKind::Nofile, 1, 2)
        );
        assert_eq!(
            ulimit("core=-1:-1").unwrap(),
            limit(UlimitKind::Core, u64::MAX, u64::MAX)
        );
        assert_eq!(
            ulimit("stack=5:-1").unwrap(),
            limit(UlimitKind::Stack, 5, u64::MAX)
        );
    }

    #[test]
    fn refuses_as_podman_does() {
        for (text, why) in [
            ("x", "invalid ulimit argument: x"),
            ("nofile=", "strconv.ParseInt: parsing \"\": invalid syntax"),
            (
                "nofile=2:1",
                "ulimit soft limit must be less than or equal to hard limit: 2 > 1",
            ),
            (
                "nofile=-1:1",
                "ulimit soft limit must be less than or equal to hard limit: -1 (unlimited) > 1",
            ),
            (
                "nofile=1:2:3",
                "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`",
            ),
            ("as=1", "invalid ulimit type: as"),
            ("NOFILE=1", "invalid ulimit type: NOFILE"),
            (
                "core=unlimited",
                "strconv.ParseInt: parsing \"unlimited\": invalid syntax",
            ),
            ("core=-2", "-2 is below -1, which means unlimited"),
            (
                "core=99999999999999999999",
                "strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
            ),
        ] {
            let message = format!(
                "ulimit option {text:?} requires name=SOFT:HARD, failed to be parsed: {why}"
            );
            assert_eq!(ulimit(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn the_table_is_in_the_order_of_the_kinds() {
        for (i, (name, kind, _)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, i);
            assert_eq!(kind.name(), *name);
        }
    }
}
