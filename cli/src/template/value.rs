//! How Go looks into values, tests, compares and prints them.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// A value, or the lack of one: Go prints `<no value>` for it.
pub type Val = Option<Value>;

/// Fields of podman's structs that are maps whatever their keys look like.
const MAPS: [&str; 14] = [
    "Labels",
    "Annotations",
    "Ports",
    "PortBindings",
    "Networks",
    "ExposedPorts",
    "Volumes",
    "Sysctl",
    "Sysctls",
    "Tmpfs",
    "Options",
    "LogOpts",
    "Data",
    "ContainerJSON",
];

/// Fields of podman's structs that are points in time: text in JSON, and printed by Go in a form of its own.
const TIMES: [&str; 7] = [
    "Created",
    "CreatedAt",
    "StartedAt",
    "FinishedAt",
    "CheckpointedAt",
    "RestoredAt",
    "LastTagTime",
];

/// Why a field cannot be had.
pub struct NoField(pub String);

/// The field `name` of `value`, which itself was found as the field `parent`.
pub fn field(value: &Val, name: &str, parent: Option<&str>) -> Result<Val, NoField> {
    match value {
        Some(Value::Object(object)) => match lookup(object, name) {
            Some(found) => Ok(Some(found.clone())),
            None if lacks_freely(object, parent) => Ok(None),
            None => Err(NoField(format!(
                "can't evaluate field {name} in type interface {{}}"
            ))),
        },
        // A map that is nil is empty.
        Some(Value::Null) if parent.is_some_and(|parent| MAPS.contains(&parent)) => Ok(None),
        None | Some(Value::Null) => Err(NoField(format!(
            "nil pointer evaluating interface {{}}.{name}"
        ))),
        Some(other) => Err(NoField(format!(
            "can't evaluate field {name} in type {}",
            type_name(other)
        ))),
    }
}

/// By its own name, or by one that differs in case alone.
fn lookup<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).or_else(|| {
        let mut alike = object
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        alike.next().map(|(_, value)| value)
    })
}

/// Whether an object may lack any key, as a Go map may and a struct may not.
fn lacks_freely(object: &Map<String, Value>, parent: Option<&str>) -> bool {
    let name = |key: &String| {
        key.chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    parent.is_some_and(|parent| MAPS.contains(&parent))
        || object.is_empty()
        || !object.keys().all(name)
}

/// Whether an object is printed as a Go map, with its keys, or as a struct, without.
pub fn prints_as_map(object: &Map<String, Value>) -> bool {
    object.is_empty()
        || !object
            .keys()
            .all(|key| key.starts_with(|letter: char| letter.is_ascii_uppercase()))
}

/// Go's name for the type of a value.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Whether `if` takes it for true: not empty, not zero.
pub fn truth(value: &Val) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(truth)) => *truth,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(object)) => !object.is_empty(),
    }
}

/// As Go's `%v` prints it.
pub fn print(value: &Val) -> String {
    match value {
        None => "<no value>".to_owned(),
        Some(value) => {
            let mut out = String::new();
            write_value(value, &mut out);
            out
        }
    }
}

/// What the field `name` is when it is printed: a point in time is Go's text for it, a map that is nil an empty one.
pub fn shown(name: &str, value: Val) -> Val {
    match value {
        Some(Value::Null) if MAPS.contains(&name) => Some(Value::Object(Map::new())),
        Some(Value::String(text)) if TIMES.contains(&name) => {
            Some(Value::String(go_time(&text).unwrap_or(text)))
        }
        other => other,
    }
}

/// `2026-11-23T10:00:00.5Z` as `2026-11-23 10:00:00.5 +0000 UTC`; `None` for what is no time of RFC 3339.
fn go_time(text: &str) -> Option<String> {
    let (date, rest) = (text.get(..10)?, text.get(11..)?);
    let digits = |part: &str, pattern: &str| {
        part.len() == pattern.len()
            && part.bytes().zip(pattern.bytes()).all(|(b, p)| match p {
                b'0' => b.is_ascii_digit(),
                p => b == p,
            })
    };
    let (clock, tail) = (rest.get(..8)?, rest.get(8..)?);
    let zone_at = tail.find(['Z', '+', '-'])?;
    let (fraction, zone) = tail.split_at(zone_at);
    let fraction_fits = fraction.is_empty()
        || fraction.len() > 1
            && fraction.starts_with('.')
            && fraction[1..].bytes().all(|b| b.is_ascii_digit());
    if !digits(date, "0000-00-00")
        || text.as_bytes()[10] != b'T'
        || !digits(clock, "00:00:00")
        || !fraction_fits
    {
        return None;
    }
    let zone = match zone {
        "Z" | "+00:00" | "-00:00" => "+0000 UTC".to_owned(),
        zone if digits(&zone[1..], "00:00") => {
            let offset = zone.replace(':', "");
            format!("{offset} {offset}")
        }
        _ => return None,
    };
    Some(format!("{date} {clock}{fraction} {zone}"))
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => out.push_str(&float_text(float)),
            None => out.push_str(&number.to_string()),
        },
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Value::Object(object) if prints_as_map(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push_str("map[");
            for (at, (key, item)) in entries.into_iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                write_value(item, out);
            }
            out.push(']');
        }
        Value::Object(object) => {
            out.push('{');
            for (at, (name, item)) in object.iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                match item {
                    Value::Null | Value::String(_) => {
                        let shown = shown(name, Some(item.clone()));
                        write_value(shown.as_ref().unwrap_or(item), out);
                    }
                    _ => write_value(item, out),
                }
            }
            out.push('}');
        }
    }
}

/// Go's `%v` of a float64, which is `%g`: an exponent below -4 and from 21 on.
pub fn float_text(float: f64) -> String {
    if float == 0.0 || (1e-4..1e21).contains(&float.abs()) {
        return float.to_string();
    }
    if !float.is_finite() {
        return if float.is_nan() {
            "NaN"
        } else if float > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        }
        .to_owned();
    }
    let text = format!("{float:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

/// `eq`: of one kind and equal.
pub fn equal(left: &Val, right: &Val) -> Result<bool, String> {
    match (left, right) {
        (None | Some(Value::Null), None | Some(Value::Null)) => Ok(true),
        (None | Some(Value::Null), _) | (_, None | Some(Value::Null)) => Ok(false),
        (Some(list @ (Value::Array(_) | Value::Object(_))), _)
        | (_, Some(list @ (Value::Array(_) | Value::Object(_)))) => Err(format!(
            "non-comparable type {}: {}",
            print(&Some(list.clone())),
            type_name(list)
        )),
        (Some(left), Some(right)) => Ok(order_of(left, right)? == Some(Ordering::Equal)),
    }
}

/// `lt` and its kin: of one kind, and numbers or text.
pub fn order(left: &Val, right: &Val) -> Result<Option<Ordering>, String> {
    match (left, right) {
        (Some(left @ (Value::Number(_) | Value::String(_))), Some(right)) => order_of(left, right),
        _ => Err("invalid type for comparison".to_owned()),
    }
}

fn order_of(left: &Value, right: &Value) -> Result<Option<Ordering>, String> {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Ok(Some(left.cmp(right))),
        (Value::String(left), Value::String(right)) => Ok(Some(left.cmp(right))),
        (Value::Number(left), Value::Number(right)) => match (left.as_i128(), right.as_i128()) {
            (Some(left), Some(right)) => Ok(Some(left.cmp(&right))),
            _ => Ok(left.as_f64().partial_cmp(&right.as_f64())),
        },
        _ => Err("incompatible types for comparison".to_owned()),
    }
}
