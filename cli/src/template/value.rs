//! How Go looks into values, tests, compares and prints them.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::time;

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

/// Fields of podman's structs that are lists, which may be nil.
const LISTS: [&str; 19] = [
    "Cmd",
    "Entrypoint",
    "Env",
    "OnBuild",
    "Log",
    "VolumesFrom",
    "Links",
    "Binds",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "SecurityOpt",
    "Devices",
    "CgroupConf",
    "RepoTags",
    "RepoDigests",
    "History",
];

/// Fields of podman's structs that its JSON leaves out where they are empty, and so do ours: a field that an object of
/// this kind has besides, the name, and whether it is text.
const LEFT_OUT: [(&str, &str, bool); 22] = [
    ("SandboxKey", "Networks", false),
    ("OciVersion", "CgroupPath", true),
    ("Hostname", "Healthcheck", false),
    ("Hostname", "Timezone", true),
    ("Hostname", "PasswdEntry", true),
    ("Hostname", "GroupEntry", true),
    ("Hostname", "ChrootDirs", false),
    ("Hostname", "StartupHealthCheck", false),
    ("IpcMode", "IDMappings", false),
    ("IpcMode", "Init", false),
    ("GraphDriver", "SizeRw", false),
    ("GraphDriver", "SizeRootFs", false),
    ("RootFS", "Healthcheck", false),
    ("RootFS", "NamesHistory", false),
    ("Mountpoint", "UID", false),
    ("Mountpoint", "GID", false),
    ("Mountpoint", "Timeout", false),
    ("Propagation", "Name", true),
    ("Propagation", "SubPath", true),
    ("cgroupVersion", "Slirp4NetNS", false),
    ("Names", "Size", false),
    ("Names", "Pod", true),
];

/// The part of an image's configuration that OCI knows, all of which may be left out; whether it is text.
const OF_IMAGES: [(&str, bool); 9] = [
    ("User", true),
    ("ExposedPorts", false),
    ("Env", false),
    ("Entrypoint", false),
    ("Cmd", false),
    ("Volumes", false),
    ("WorkingDir", true),
    ("Labels", false),
    ("StopSignal", true),
];

/// What a struct has in such a field; `None` for a field that it has not.
fn left_out(object: &Map<String, Value>, name: &str, parent: Option<&str>) -> Option<Value> {
    let alike = |known: &str| known.eq_ignore_ascii_case(name);
    let text = if parent == Some("Config") && !object.contains_key("Hostname") {
        OF_IMAGES
            .iter()
            .find(|(known, _)| alike(known))
            .map(|f| f.1)
    } else {
        let found = LEFT_OUT
            .iter()
            .find(|(beside, known, _)| alike(known) && object.contains_key(*beside));
        found.map(|f| f.2)
    }?;
    Some(match text {
        true => "".into(),
        false => Value::Null,
    })
}

/// Why a field cannot be had.
pub struct NoField(pub String);

/// The field `name` of `value`, which itself was found as the field `parent`.
pub fn field(value: &Val, name: &str, parent: Option<&str>) -> Result<Val, NoField> {
    match value {
        Some(Value::Object(object)) => match lookup(object, name) {
            Some(found) => Ok(Some(found.clone())),
            None => match left_out(object, name, parent) {
                Some(empty) => Ok(Some(empty)),
                None if lacks_freely(object, parent) => Ok(None),
                None => Err(NoField(format!(
                    "can't evaluate field {name} in type interface {{}}"
                ))),
            },
        },
        Some(Value::String(text)) if parent.is_some_and(is_time) => {
            match time::ask(text, name, &[]) {
                Some(Ok(answer)) => Ok(Some(answer)),
                Some(Err(why)) => Err(NoField(why)),
                None => Err(NoField(format!(
                    "can't evaluate field {name} in type time.Time"
                ))),
            }
        }
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
        // The one field that podman spells differently in JSON.
        let name = match name {
            "CgroupsVersion" => "cgroupVersion",
            name => name,
        };
        let mut alike = object
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        alike.next().map(|(_, value)| value)
    })
}

/// Whether the field of that name is a point in time.
pub fn is_time(name: &str) -> bool {
    TIMES.contains(&name)
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

/// What the field `name` is when it is printed: a point in time is Go's text for it, a map or list that is nil an empty one.
pub fn shown(name: &str, value: Val) -> Val {
    match value {
        Some(Value::Null) if LISTS.contains(&name) => Some(Value::Array(Vec::new())),
        Some(Value::Null) if MAPS.contains(&name) => Some(Value::Object(Map::new())),
        Some(Value::String(text)) if TIMES.contains(&name) => {
            Some(Value::String(time::go_text(&text).unwrap_or(text)))
        }
        other => other,
    }
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
