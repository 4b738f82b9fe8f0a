//! Points in time, which in podman's structs are Go's `time.Time`: what it can be asked, and how it is written.

use chrono::{DateTime, Datelike, FixedOffset, SecondsFormat, Timelike};
use serde_json::Value;

/// Whether a point in time can be asked this.
pub fn has(method: &str) -> bool {
    METHODS.iter().any(|(name, _)| *name == method)
}

/// Name and number of arguments.
const METHODS: [(&str, usize); 20] = [
    ("IsZero", 0),
    ("Unix", 0),
    ("UnixMilli", 0),
    ("UnixNano", 0),
    ("Year", 0),
    ("Month", 0),
    ("Day", 0),
    ("YearDay", 0),
    ("Weekday", 0),
    ("Hour", 0),
    ("Minute", 0),
    ("Second", 0),
    ("Nanosecond", 0),
    ("String", 0),
    ("UTC", 0),
    ("Local", 0),
    ("Format", 1),
    ("After", 1),
    ("Before", 1),
    ("Equal", 1),
];

/// Asks a point in time, given in RFC 3339; `None` where the text is none.
///
/// # Errors
/// What Go says of arguments that do not fit.
pub fn ask(text: &str, method: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    let wanted = METHODS.iter().find(|(name, _)| *name == method)?.1;
    if arguments.len() != wanted {
        return Some(Err(format!(
            "wrong number of args for {method}: want {wanted} got {}",
            arguments.len()
        )));
    }
    let utc = |time: DateTime<FixedOffset>| {
        let utc = time.with_timezone(&chrono::Utc);
        utc.to_rfc3339_opts(SecondsFormat::AutoSi, true)
    };
    let other = || -> Result<DateTime<FixedOffset>, String> {
        let text = arguments.first().and_then(Value::as_str);
        text.and_then(|text| DateTime::parse_from_rfc3339(text).ok())
            .ok_or_else(|| format!("wrong type for value; expected time.Time; got {arguments:?}"))
    };
    Some(match method {
        // Go's zero is the first second of the first year.
        "IsZero" => Ok((time.timestamp() == -62_135_596_800).into()),
        "Unix" => Ok(time.timestamp().into()),
        "UnixMilli" => Ok(time.timestamp_millis().into()),
        "UnixNano" => Ok(time.timestamp_nanos_opt().unwrap_or_default().into()),
        "Year" => Ok(time.year().into()),
        "Month" => Ok(time.format("%B").to_string().into()),
        "Day" => Ok(time.day().into()),
        "YearDay" => Ok(time.ordinal().into()),
        "Weekday" => Ok(time.format("%A").to_string().into()),
        "Hour" => Ok(time.hour().into()),
        "Minute" => Ok(time.minute().into()),
        "Second" => Ok(time.second().into()),
        "Nanosecond" => Ok(time.nanosecond().into()),
        "String" => Ok(go_text(text).unwrap_or_else(|| text.to_owned()).into()),
        "UTC" => Ok(utc(time).into()),
        "Local" => {
            let local = time.with_timezone(&chrono::Local);
            Ok(local.to_rfc3339_opts(SecondsFormat::AutoSi, true).into())
        }
        "Format" => match arguments.first().and_then(Value::as_str) {
            Some(layout) => Ok(written(&time, layout).into()),
            None => Err("wrong type for value; expected string".into()),
        },
        "After" => other().map(|other| (time > other).into()),
        "Before" => other().map(|other| (time < other).into()),
        _ => other().map(|other| (time == other).into()),
    })
}

/// The parts of Go's layouts, the longer before what they begin with, and what chrono calls them.
const LAYOUT: [(&str, &str); 31] = [
    ("January", "%B"),
    ("Jan", "%b"),
    ("Monday", "%A"),
    ("Mon", "%a"),
    ("MST", "%Z"),
    ("2006", "%Y"),
    ("-07:00", "%:z"),
    ("-0700", "%z"),
    ("Z07:00", "Z"),
    (".000000000", "%.9f"),
    (".000000", "%.6f"),
    (".000", "%.3f"),
    (".999999999", "%.f"),
    (".999999", "%.f"),
    (".999", "%.f"),
    ("002", "%j"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("_2", "%e"),
    ("15", "%H"),
    ("PM", "%p"),
    ("pm", "%P"),
    ("1", "%-m"),
    ("2", "%-d"),
    ("3", "%-I"),
    ("4", "%-M"),
    ("5", "%-S"),
];

/// The time in a layout of Go's, which is how it would write 2 January 2006, 15:04:05 -0700.
fn written(time: &DateTime<FixedOffset>, layout: &str) -> String {
    let mut out = String::new();
    let mut rest = layout;
    while let Some(letter) = rest.chars().next() {
        let part = LAYOUT.iter().find(|(part, _)| rest.starts_with(part));
        let (length, text) = match part {
            Some((part, "Z")) if time.offset().local_minus_utc() == 0 => (part.len(), "Z".into()),
            Some((part, "Z")) => (part.len(), time.format("%:z").to_string()),
            Some((part, "%Z")) if time.offset().local_minus_utc() == 0 => {
                (part.len(), "UTC".into())
            }
            Some((part, "%Z")) => (part.len(), time.format("%z").to_string()),
            Some((part, of)) => (part.len(), time.format(of).to_string()),
            None => (letter.len_utf8(), letter.to_string()),
        };
        out += &text;
        rest = &rest[length..];
    }
    out
}

/// `2026-11-23T10:00:00.5Z` as `2026-11-23 10:00:00.5 +0000 UTC`; `None` for what is no time of RFC 3339.
pub fn go_text(text: &str) -> Option<String> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    let (date, rest) = (text.get(..10)?, text.get(11..)?);
    let zone_at = rest.find(['Z', '+', '-'])?;
    let zone = match time.offset().local_minus_utc() {
        0 => "+0000 UTC".to_owned(),
        _ => time.format("%z %z").to_string(),
    };
    Some(format!("{date} {} {zone}", &rest[..zone_at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_asked() {
        let text = "2026-11-03T04:05:06.5Z";
        let ask = |method: &str, arguments: &[Value]| ask(text, method, arguments).unwrap();
        for (method, answer) in [
            ("Year", Value::from(2026)),
            ("Month", "November".into()),
            ("Weekday", "Tuesday".into()),
            ("Unix", 1_793_678_706.into()),
            ("IsZero", false.into()),
            ("String", "2026-11-03 04:05:06.5 +0000 UTC".into()),
            ("UTC", "2026-11-03T04:05:06.500Z".into()),
        ] {
            assert_eq!(ask(method, &[]), Ok(answer), "{method}");
        }
        for (layout, answer) in [
            ("2006-01-02T15:04:05Z07:00", "2026-11-03T04:05:06Z"),
            (
                "Mon Jan _2 15:04:05 MST 2006",
                "Tue Nov  3 04:05:06 UTC 2026",
            ),
            ("02/01/06 3:04PM -0700", "03/11/26 4:05AM +0000"),
            ("05.000 ünd", "06.500 ünd"),
        ] {
            assert_eq!(ask("Format", &[layout.into()]), Ok(answer.into()));
        }
        assert_eq!(
            ask("After", &["2025-01-01T00:00:00Z".into()]),
            Ok(true.into())
        );
        assert!(ask("Before", &["yesterday".into()]).is_err());
        assert!(ask("Year", &[1.into()]).is_err());
        assert!(super::ask("yesterday", "Year", &[]).is_none());
    }

    #[test]
    fn times_are_written_as_go_does() {
        let of = |text| go_text(text);
        let half_past = of("2026-11-23T10:00:00+01:30");
        assert_eq!(
            half_past.as_deref(),
            Some("2026-11-23 10:00:00 +0130 +0130")
        );
        assert_eq!(of("2026-11-23"), None);
        assert_eq!(of("nonsense"), None);
    }
}
