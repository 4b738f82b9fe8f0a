//! Signal names and numbers, after signal(7) for x86-64 and arm64.

use crate::Error;

/// Names without `SIG`, by number; the first name of a number is the one to print.
const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The first real-time signal that programs may use (glibc keeps 32 and 33 for itself).
const RTMIN: i32 = 34;
/// The last one.
const RTMAX: i32 = 64;

/// Reads a signal: `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`, `SIGRTMAX-1`.
///
/// # Errors
/// podman's `invalid signal: X`, or `valid signals are 1 through 64` for a number beyond.
pub fn signal(text: &str) -> Result<i32, Error> {
    let invalid = || Error::value(format!("invalid signal: {text}"));
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return match text.parse::<i32>() {
            Ok(0) => Err(invalid()),
            Ok(n) if n <= RTMAX => Ok(n),
            _ => Err(Error::value("valid signals are 1 through 64")),
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(n, _)| *n == name) {
        return Ok(*number);
    }
    realtime(name).ok_or_else(invalid)
}

fn realtime(name: &str) -> Option<i32> {
    let digits = |d: &str| {
        (!d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
            .then(|| d.parse::<i32>().ok())
            .flatten()
    };
    let number = match name {
        "RTMIN" => RTMIN,
        "RTMAX" => RTMAX,
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(d), _) => RTMIN.checked_add(digits(d)?)?,
            (_, Some(d)) => RTMAX.checked_sub(digits(d)?)?,
            _ => return None,
        },
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// The name of a signal with `SIG` (`SIGTERM`, `SIGRTMIN+3`), or its number where it has none.
pub fn signal_name(number: i32) -> String {
    if let Some((name, _)) = NAMES.iter().find(|(_, n)| *n == number) {
        return format!("SIG{name}");
    }
    match number {
        RTMIN => "SIGRTMIN".into(),
        RTMAX => "SIGRTMAX".into(),
        n if (RTMIN..RTMAX).contains(&n) => format!("SIGRTMIN+{}", n - RTMIN),
        n => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("64", 64),
            ("32", 32),
            ("CLD", 17),
            ("POLL", 29),
            ("RTMIN", 34),
            ("SIGRTMIN+1", 35),
            ("rtmax-1", 63),
            ("RTMAX", 64),
            ("RTMIN+30", 64),
        ] {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "", "0", "FOO", "1x", "-1", "RTMIN+99", "RTMIN+", "RTMAX-99", "RTMIN-1", "RTMIN+-1",
            "SIG", "+9",
        ] {
            assert_eq!(
                signal(text).unwrap_err().to_string(),
                format!("invalid signal: {text}")
            );
        }
        for text in ["65", "99", "99999999999999"] {
            assert_eq!(
                signal(text).unwrap_err().to_string(),
                "valid signals are 1 through 64"
            );
        }
    }

    #[test]
    fn names_what_it_reads() {
        for n in 1..=64 {
            assert_eq!(signal(&signal_name(n)).unwrap(), n);
        }
        assert_eq!(signal_name(6), "SIGABRT");
        assert_eq!(signal_name(37), "SIGRTMIN+3");
        assert_eq!(signal_name(99), "99");
    }
}
