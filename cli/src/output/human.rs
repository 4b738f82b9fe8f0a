//! Times and sizes in the words podman uses.

use chrono::{DateTime, Local, Offset, TimeDelta, Utc};

/// A length of time in rough words: `3 seconds`, `About a minute`, `2 weeks`.
pub fn duration(length: TimeDelta) -> String {
    let seconds = length.num_seconds();
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago something was: `3 seconds ago`.
pub fn ago(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    format!("{} ago", duration(now - then))
}

/// A size in decimal units with three digits that count, as `1.98MB`; `gap` goes between number and unit.
pub fn size(bytes: u64, gap: &str) -> String {
    const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    let mut number = format!("{value:.decimals$}");
    if number.contains('.') {
        number.truncate(number.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{number}{gap}{}", UNITS[unit])
}

/// A moment as Go prints it in the local zone: `2026-11-23 19:26:05.458035031 +0000 UTC`.
pub fn moment(time: DateTime<Utc>) -> String {
    let local = time.with_timezone(&Local);
    let mut text = local.format("%Y-%m-%d %H:%M:%S%.9f").to_string();
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    let zone = local.format("%z");
    match local.offset().fix().local_minus_utc() {
        0 => format!("{text} +0000 UTC"),
        _ => format!("{text} {zone} {zone}"),
    }
}

/// A moment as JSON has it (RFC 3339 with the fraction it has, no more); nothing at all is Go's zero time.
pub fn rfc3339(time: Option<DateTime<Utc>>) -> String {
    let Some(time) = time else {
        return "0001-01-01T00:00:00Z".into();
    };
    let mut text = time.format("%Y-%m-%dT%H:%M:%S%.9f").to_string();
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    text + "Z"
}

/// Seconds since 1970; nothing at all is Go's zero time.
pub fn unix(time: Option<DateTime<Utc>>) -> i64 {
    time.map_or(-62_135_596_800, |t| t.timestamp())
}

/// Bytes with four digits and a decimal unit, as docker's units have them: `3.092MB`.
pub fn decimal(bytes: u64) -> String {
    four_digits(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Bytes with four digits and a binary unit: `2.949MiB`.
pub fn binary(bytes: u64) -> String {
    four_digits(
        bytes,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
    )
}

fn four_digits(bytes: u64, step: f64, units: &[&str]) -> String {
    let mut value = bytes as f64;
    let mut at = 0;
    while value >= step && at + 1 < units.len() {
        value /= step;
        at += 1;
    }
    // Four digits in all, and no zeros at the end: Go's %.4g.
    let before = if value < 1.0 {
        1
    } else {
        value.log10().floor() as usize + 1
    };
    let text = format!("{value:.*}", 4_usize.saturating_sub(before));
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{}", units[at])
}

/// A length of time as Go prints one: `1h2m3.5s`, `31.209ms`, `0s`.
pub fn go_duration(length: std::time::Duration) -> String {
    let nanos = length.as_nanos();
    let fraction = |value: u128, unit: u128, name: &str| {
        let digits = unit.ilog10() as usize;
        let text = format!("{}.{:0digits$}", value / unit, value % unit);
        format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match nanos {
        0 => "0s".into(),
        1..=999 => format!("{nanos}ns"),
        1_000..=999_999 => fraction(nanos, 1_000, "\u{b5}s"),
        1_000_000..=999_999_999 => fraction(nanos, 1_000_000, "ms"),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// The first twelve digits of an id.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (seconds, words) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86400, "13 days"),
            (14 * 86400, "2 weeks"),
            (61 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(duration(TimeDelta::seconds(seconds)), words, "{seconds}");
        }
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (12, "12 B"),
            (999, "999 B"),
            (1000, "1 kB"),
            (1_997_963, "2 MB"),
            (7_340_000, "7.34 MB"),
            (80_400_000, "80.4 MB"),
            (133_700_000, "134 MB"),
            (1_530_000_000, "1.53 GB"),
        ] {
            assert_eq!(size(bytes, " "), text);
        }
        assert_eq!(size(1_984_000, ""), "1.98MB");
    }

    #[test]
    fn moments() {
        let time = DateTime::from_timestamp(1_795_462_013, 308_592_046).unwrap();
        assert_eq!(rfc3339(Some(time)), "2026-11-23T19:26:53.308592046Z");
        assert_eq!(
            rfc3339(DateTime::from_timestamp(1_795_462_010, 0)),
            "2026-11-23T19:26:50Z"
        );
        assert_eq!(rfc3339(None), "0001-01-01T00:00:00Z");
        assert_eq!(unix(None), -62_135_596_800);
        assert!(moment(time).starts_with("2026-11-2"));
    }

    #[test]
    fn sizes_of_stats() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (3_092_000, "3.092MB"),
            (16_700_000_000, "16.7GB"),
            (134_217_728, "134.2MB"),
        ] {
            assert_eq!(decimal(bytes), text);
        }
        assert_eq!(binary(134_217_728), "128MiB");
    }

    #[test]
    fn durations_of_go() {
        use std::time::Duration;
        for (length, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_micros(31_209), "31.209ms"),
            (Duration::from_micros(4), "4\u{b5}s"),
            (Duration::from_millis(8_500), "8.5s"),
            (Duration::from_millis(60_000), "1m0s"),
            (Duration::from_millis(3_723_500), "1h2m3.5s"),
        ] {
            assert_eq!(go_duration(length), text);
        }
    }

    #[test]
    fn short_ids() {
        assert_eq!(short("0123456789abcdef"), "0123456789ab");
        assert_eq!(short("01"), "01");
    }
}
