//! What a template can call.

use std::cmp::Ordering;

use serde_json::Value;

use super::printf::printf;
use super::value::{self, Val};

/// All functions, Go's and podman's: name, least and most arguments.
const FUNCTIONS: &[(&str, usize, usize)] = &[
    ("and", 1, MANY),
    ("or", 1, MANY),
    ("not", 1, 1),
    ("eq", 1, MANY),
    ("ne", 2, 2),
    ("lt", 2, 2),
    ("le", 2, 2),
    ("gt", 2, 2),
    ("ge", 2, 2),
    ("len", 1, 1),
    ("index", 1, MANY),
    ("slice", 1, MANY),
    ("print", 0, MANY),
    ("printf", 1, MANY),
    ("println", 0, MANY),
    ("html", 0, MANY),
    ("js", 0, MANY),
    ("urlquery", 0, MANY),
    ("call", 1, MANY),
    ("json", 1, 1),
    ("join", 2, 2),
    ("split", 2, 2),
    ("lower", 1, 1),
    ("upper", 1, 1),
    ("title", 1, 1),
    ("pad", 3, 3),
    ("truncate", 2, 2),
    ("trim", 1, 1),
    ("trimPrefix", 2, 2),
    ("trimSuffix", 2, 2),
    ("replace", 3, 3),
    ("contains", 2, 2),
    ("hasPrefix", 2, 2),
    ("hasSuffix", 2, 2),
];

/// Any number of arguments.
const MANY: usize = usize::MAX;

/// The longest text that `pad` makes, in characters.
const LONGEST_PAD: usize = 1 << 16;

/// Whether there is such a function.
pub fn exists(name: &str) -> bool {
    FUNCTIONS.iter().any(|(known, ..)| *known == name)
}

/// Checks the number of arguments.
pub fn check(name: &str, count: usize) -> Result<(), String> {
    match FUNCTIONS.iter().find(|(known, ..)| *known == name) {
        Some(&(_, least, MANY)) if count < least => Err(format!(
            "wrong number of args for {name}: want at least {least} got {count}"
        )),
        Some(&(_, least, most)) if count < least || count > most => Err(format!(
            "wrong number of args for {name}: want {least} got {count}"
        )),
        _ => Ok(()),
    }
}

/// Calls one, with as many arguments as [`check`] wants.
pub fn call(name: &str, arguments: Vec<Val>) -> Result<Val, String> {
    match name {
        // The ones that did not decide early: the last argument is the result.
        "and" | "or" => Ok(arguments.into_iter().next_back().flatten()),
        "not" => yes(!value::truth(&arguments[0])),
        "eq" => {
            if arguments.len() < 2 {
                return Err("missing argument for comparison".to_owned());
            }
            for other in &arguments[1..] {
                if value::equal(&arguments[0], other)? {
                    return yes(true);
                }
            }
            yes(false)
        }
        "ne" | "lt" | "le" | "gt" | "ge" => compare(name, &arguments[0], &arguments[1]),
        "len" => length(&arguments[0]),
        "index" => {
            let mut arguments = arguments.into_iter();
            let first = arguments.next().flatten();
            arguments.try_fold(first, |found, key| index(&found, &key))
        }
        "slice" => slice(&arguments),
        "print" => text(sprint(&arguments)),
        "println" => {
            let words: Vec<String> = arguments.iter().map(value::print).collect();
            text(words.join(" ") + "\n")
        }
        "printf" => text(printf(&string(&arguments[0])?, &arguments[1..])),
        "html" => text(html(&sprint(&arguments))),
        "js" => text(js(&sprint(&arguments))),
        "urlquery" => text(urlquery(&sprint(&arguments))),
        "json" => {
            let value = arguments
                .into_iter()
                .next()
                .flatten()
                .unwrap_or(Value::Null);
            text(json(value))
        }
        "call" => Err(match &arguments[0] {
            None | Some(Value::Null) => "nil is not a function".to_owned(),
            Some(value) => format!("non-function of type {}", value::type_name(value)),
        }),
        "join" => join(&arguments[0], &string(&arguments[1])?),
        "split" => {
            let (whole, between) = (string(&arguments[0])?, string(&arguments[1])?);
            let parts: Vec<Value> = match between.is_empty() {
                true => whole
                    .chars()
                    .map(|letter| letter.to_string().into())
                    .collect(),
                false => whole.split(&between).map(Value::from).collect(),
            };
            Ok(Some(parts.into()))
        }
        "pad" => pad(
            &string(&arguments[0])?,
            whole(&arguments[1])?,
            whole(&arguments[2])?,
        ),
        "truncate" => {
            let most = usize::try_from(whole(&arguments[1])?).unwrap_or(0);
            text(string(&arguments[0])?.chars().take(most).collect())
        }
        "lower" | "upper" | "title" | "trim" => {
            let given = string(&arguments[0])?;
            text(match name {
                "lower" => given.to_lowercase(),
                "upper" => given.to_uppercase(),
                "title" => title(&given),
                _ => given.trim().to_owned(),
            })
        }
        "trimPrefix" | "trimSuffix" | "contains" | "hasPrefix" | "hasSuffix" => {
            affix(name, &string(&arguments[0])?, &string(&arguments[1])?)
        }
        "replace" => {
            text(string(&arguments[2])?.replace(&string(&arguments[0])?, &string(&arguments[1])?))
        }
        _ => Err("no such function".to_owned()),
    }
}

/// As Go writes it: a float without a fraction looks like an integer.
fn json(value: Value) -> String {
    fn whole(value: Value) -> Value {
        match value {
            Value::Number(number) => match number.as_f64() {
                Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                    Value::from(float as i64)
                }
                _ => Value::Number(number),
            },
            Value::Array(items) => items.into_iter().map(whole).collect(),
            Value::Object(object) => object
                .into_iter()
                .map(|(key, item)| (key, whole(item)))
                .collect(),
            other => other,
        }
    }
    whole(value).to_string()
}

fn yes(truth: bool) -> Result<Val, String> {
    Ok(Some(truth.into()))
}

fn text(text: String) -> Result<Val, String> {
    Ok(Some(text.into()))
}

fn string(value: &Val) -> Result<String, String> {
    match value {
        Some(Value::String(text)) => Ok(text.clone()),
        None | Some(Value::Null) => Ok(String::new()),
        Some(other) => Err(format!(
            "wrong type for value; expected string; got {}",
            value::type_name(other)
        )),
    }
}

fn whole(value: &Val) -> Result<i64, String> {
    value
        .as_ref()
        .and_then(Value::as_i64)
        .ok_or_else(|| "wrong type for value; expected int".to_owned())
}

fn compare(name: &str, left: &Val, right: &Val) -> Result<Val, String> {
    if name == "ne" {
        return yes(!value::equal(left, right)?);
    }
    let order = value::order(left, right)?;
    yes(match name {
        "lt" => order == Some(Ordering::Less),
        "le" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        "gt" => order == Some(Ordering::Greater),
        _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    })
}

fn length(value: &Val) -> Result<Val, String> {
    let length = match value {
        Some(Value::String(text)) => text.len(),
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(object)) => object.len(),
        Some(Value::Null) => 0,
        None => return Err("len of nil pointer".to_owned()),
        Some(other) => return Err(format!("len of type {}", value::type_name(other))),
    };
    Ok(Some(length.into()))
}

fn index(value: &Val, key: &Val) -> Result<Val, String> {
    match (value, key) {
        (Some(Value::Object(object)), Some(Value::String(key))) => {
            Ok(object.get(key).cloned().or_else(|| zero(object)))
        }
        (Some(Value::Array(items)), Some(Value::Number(at))) => {
            let found = at
                .as_u64()
                .and_then(|at| items.get(usize::try_from(at).ok()?));
            found
                .map(|item| Some(item.clone()))
                .ok_or_else(|| format!("index out of range: {at}"))
        }
        (Some(Value::String(text)), Some(Value::Number(at))) => {
            let found = at
                .as_u64()
                .and_then(|at| text.as_bytes().get(usize::try_from(at).ok()?));
            found
                .map(|&byte| Some(byte.into()))
                .ok_or_else(|| format!("index out of range: {at}"))
        }
        (None | Some(Value::Null), _) => Err("index of untyped nil".to_owned()),
        (Some(Value::Object(_)), key) => Err(format!(
            "value has type {}; should be string",
            key.as_ref().map_or("nil", value::type_name)
        )),
        (Some(Value::Array(_) | Value::String(_)), key) => Err(format!(
            "cannot index slice/array with type {}",
            key.as_ref().map_or("nil", value::type_name)
        )),
        (Some(other), _) => Err(format!(
            "can't index item of type {}",
            value::type_name(other)
        )),
    }
}

/// What a Go map of this kind gives for a key that it lacks: maps of strings give the empty string.
fn zero(object: &serde_json::Map<String, Value>) -> Val {
    match object.values().all(Value::is_string) {
        true => Some(Value::String(String::new())),
        false => None,
    }
}

fn slice(arguments: &[Val]) -> Result<Val, String> {
    let length = match &arguments[0] {
        Some(Value::String(text)) => text.len(),
        Some(Value::Array(items)) => items.len(),
        None | Some(Value::Null) => return Err("slice of untyped nil".to_owned()),
        Some(other) => {
            return Err(format!(
                "can't slice item of type {}",
                value::type_name(other)
            ));
        }
    };
    if arguments.len() > 3 {
        return Err(match &arguments[0] {
            Some(Value::String(_)) => "cannot 3-index slice a string".to_owned(),
            _ => "a slice with a capacity is not supported".to_owned(),
        });
    }
    let bound = |at: usize, otherwise: usize| match arguments.get(at) {
        None => Ok(otherwise),
        Some(value) => usize::try_from(whole(value)?)
            .ok()
            .filter(|&bound| bound <= length)
            .ok_or_else(|| format!("index out of range: {}", value::print(value))),
    };
    let (from, to) = (bound(1, 0)?, bound(2, length)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    match &arguments[0] {
        Some(Value::Array(items)) => Ok(Some(items[from..to].to_vec().into())),
        Some(Value::String(text)) => Ok(Some(
            String::from_utf8_lossy(&text.as_bytes()[from..to])
                .into_owned()
                .into(),
        )),
        _ => Ok(None),
    }
}

/// Go's Sprint: a space between two operands of which neither is a string.
fn sprint(arguments: &[Val]) -> String {
    let mut out = String::new();
    let mut words = true;
    for argument in arguments {
        let word = matches!(argument, Some(Value::String(_)));
        if !words && !word {
            out.push(' ');
        }
        words = word;
        out += &value::print(argument);
    }
    out
}

fn join(list: &Val, between: &str) -> Result<Val, String> {
    match list {
        None | Some(Value::Null) => text(String::new()),
        Some(Value::Array(items)) => {
            let words: Vec<String> = items
                .iter()
                .map(|item| value::print(&Some(item.clone())))
                .collect();
            text(words.join(between))
        }
        Some(other) => Err(format!(
            "wrong type for value; expected []string; got {}",
            value::type_name(other)
        )),
    }
}

fn pad(given: &str, before: i64, after: i64) -> Result<Val, String> {
    let spaces = |count: i64| " ".repeat(usize::try_from(count).unwrap_or(0).min(LONGEST_PAD));
    text(match given.is_empty() {
        true => String::new(),
        false => format!("{}{given}{}", spaces(before), spaces(after)),
    })
}

/// The first letter of each word in upper case.
fn title(given: &str) -> String {
    let mut inside = false;
    let upper = |letter: char| {
        let begins = !std::mem::replace(
            &mut inside,
            letter.is_alphanumeric() || letter == '_' || letter == '\'',
        );
        if begins {
            letter.to_uppercase().collect::<String>()
        } else {
            letter.to_string()
        }
    };
    given.chars().map(upper).collect()
}

/// Sprig's order: the affix first, the text last.
fn affix(name: &str, affix: &str, given: &str) -> Result<Val, String> {
    match name {
        "trimPrefix" => text(given.strip_prefix(affix).unwrap_or(given).to_owned()),
        "trimSuffix" => text(given.strip_suffix(affix).unwrap_or(given).to_owned()),
        "contains" => yes(given.contains(affix)),
        "hasPrefix" => yes(given.starts_with(affix)),
        _ => yes(given.ends_with(affix)),
    }
}

fn html(given: &str) -> String {
    let mut out = String::new();
    for letter in given.chars() {
        match letter {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\0' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

fn js(given: &str) -> String {
    let mut out = String::new();
    for letter in given.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out += &format!("\\u{:04X}", u32::from(letter)),
            low if low < ' ' => out += &format!("\\u{:04X}", u32::from(low)),
            other => out.push(other),
        }
    }
    out
}

fn urlquery(given: &str) -> String {
    let mut out = String::new();
    for byte in given.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            b' ' => out.push('+'),
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}
