//! Moments as users write them: `10m` ago, `2026-11-23`, `2026-11-23T19:26:53+01:00`, seconds since 1970.

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};

/// Reads a moment; lengths of time are taken back from `now`. What names no zone is in the local one.
pub fn parse(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    if let Some(length) = duration(text) {
        return now.checked_sub_signed(length);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    if let Some(time) = seconds(text) {
        return Some(time);
    }
    let naive = [
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%dT%H:%M",
    ]
    .iter()
    .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
    .or_else(|| {
        Some(
            NaiveDate::parse_from_str(text, "%Y-%m-%d")
                .ok()?
                .and_time(NaiveTime::MIN),
        )
    });
    if let Some(naive) = naive {
        return Local
            .from_local_datetime(&naive)
            .earliest()
            .map(|t| t.to_utc());
    }
    // A date, and a zone that RFC 3339 would want a time with.
    let naive = NaiveDate::parse_from_str(text.strip_suffix('Z')?, "%Y-%m-%d").ok()?;
    Some(naive.and_time(NaiveTime::MIN).and_utc())
}

/// Seconds since 1970, with up to nine decimals.
fn seconds(text: &str) -> Option<DateTime<Utc>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    DateTime::from_timestamp(whole.parse().ok()?, nanoseconds)
}

/// A length of time as Go writes it: `1h30m`, `1.5s`, `300ms`.
pub fn duration(text: &str) -> Option<TimeDelta> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    // 292 years, as Go has it.
    (total < i64::MAX as f64).then(|| {
        TimeDelta::nanoseconds(if negative {
            -total as i64
        } else {
            total as i64
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        for (text, milliseconds) in [
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            ("300ms", 300),
            ("-2s", -2000),
        ] {
            assert_eq!(
                duration(text).unwrap().num_milliseconds(),
                milliseconds,
                "{text}"
            );
        }
        for text in ["", "10", "m", "1x", "-", "1h2", "99999999999999h", "1..2s"] {
            assert!(duration(text).is_none(), "{text}");
        }
    }

    #[test]
    fn moments() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let of = |text: &str| parse(text, now);
        assert_eq!(of("10s").unwrap().timestamp(), 999_990);
        assert_eq!(of("1700000000").unwrap().timestamp(), 1_700_000_000);
        assert_eq!(
            of("1700000000.5").unwrap().timestamp_millis(),
            1_700_000_000_500
        );
        assert_eq!(
            of("2023-11-14T22:13:20Z").unwrap().timestamp(),
            1_700_000_000
        );
        assert_eq!(
            of("2023-11-14T23:13:20+01:00").unwrap().timestamp(),
            1_700_000_000
        );
        assert_eq!(of("2023-11-14Z").unwrap().timestamp(), 1_699_920_000);
        for text in [
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13",
            "2023-11-14 22:13:20.5",
        ] {
            assert!(of(text).is_some(), "{text}");
        }
        for text in ["foo", "", "2023-13-14", "1.2.3", "12:00"] {
            assert!(of(text).is_none(), "{text}");
        }
    }
}
