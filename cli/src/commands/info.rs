//! `rcon info`

use clap::Args;
use serde_json::{Map, Value};

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::{self, json};

/// The arguments of `info`.
#[derive(Args, Debug)]
pub struct Info {
    /// Change the output format to JSON or a Go template
    #[arg(short = 'f', long)]
    format: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Command for Info {
    const ABOUT: &'static str = "Display system information, as a bug report needs it";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &["info", "info --format '{{.Host.Kernel}}'"];

    fn run(self, context: &Context) -> Outcome {
        if !self.args.is_empty() {
            return Err(Failure::new(format!(
                "`{}` takes no arguments",
                context.name
            )));
        }
        let info = context.engine()?.info()?;
        let facts = serde_json::to_value(&info).map_err(Failure::new)?;
        let text = match Format::parse(self.format.as_deref()) {
            Format::Default => yaml(&facts),
            Format::Json => json::pretty(&facts, 2),
            Format::Lines(text) | Format::Table(text) => {
                format::lines("info", &text, &[exported(&facts)])?
            }
        };
        output::print(&text)?;
        Ok(0)
    }
}

/// The same object with its keys as Go exports them: `memTotal` is `MemTotal`, and `id` at the beginning of a word `ID`.
fn exported(value: &Value) -> Value {
    let name = |key: &str| {
        if let Some(rest) = key
            .strip_prefix("id")
            .filter(|r| r.is_empty() || r.starts_with(char::is_uppercase))
        {
            return format!("ID{rest}");
        }
        let mut letters = key.chars();
        letters.next().map_or_else(String::new, |first| {
            first.to_uppercase().chain(letters).collect()
        })
    };
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(k, v)| (name(k), exported(v)))
                .collect::<Map<String, Value>>(),
        ),
        Value::Array(list) => list.iter().map(exported).collect(),
        other => other.clone(),
    }
}

/// The object as YAML, the keys sorted as podman has them.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            for key in keys {
                *text += &format!("{indent}{key}:");
                // A list stands as deep as its key.
                entry(
                    &map[key],
                    if map[key].is_array() {
                        depth
                    } else {
                        depth + 1
                    },
                    text,
                );
            }
        }
        Value::Array(list) => {
            for item in list {
                let mut inner = String::new();
                block(item, depth + 1, &mut inner);
                *text += &format!("{indent}- {}", inner.trim_start());
            }
        }
        scalar => *text += &format!("{indent}{}\n", plain(scalar, depth)),
    }
}

fn entry(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            block(value, depth, text);
        }
        Value::Array(list) if !list.is_empty() => {
            text.push('\n');
            block(value, depth, text);
        }
        Value::Object(_) => *text += " {}\n",
        Value::Array(_) => *text += " []\n",
        scalar => *text += &format!(" {}\n", plain(scalar, depth)),
    }
}

/// A scalar; text that YAML would take for something else is quoted.
fn plain(value: &Value, depth: usize) -> String {
    let Value::String(text) = value else {
        return value.to_string();
    };
    if text.contains('\n') {
        let indent = "  ".repeat(depth);
        return format!(
            "|-\n{indent}{}",
            text.trim_end().replace('\n', &format!("\n{indent}"))
        );
    }
    let odd = text.is_empty()
        || text.trim() != text
        || text.contains(": ")
        || text.contains(" #")
        || text.ends_with(':')
        || text.starts_with(|c: char| "!&*-?|>@`\"'%#{}[],:=~".contains(c))
        || text.parse::<f64>().is_ok()
        || ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_lowercase().as_str())
        || text.chars().any(char::is_control);
    match odd {
        true => Value::String(text.clone()).to_string(),
        false => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_are_printed_as_yaml() {
        let value = json!({
            "b": {"c": [], "a": {}},
            "a": [{"x": 1, "y": "12"}, {"x": 2, "y": "a: b"}],
            "t": "two\nlines", "e": "", "n": null,
        });
        assert_eq!(
            yaml(&value),
            "a:\n- x: 1\n  y: \"12\"\n- x: 2\n  y: \"a: b\"\nb:\n  a: {}\n  c: []\ne: \"\"\nn: null\nt: |-\n  two\n  lines\n"
        );
    }

    #[test]
    fn templates_see_gos_names() {
        let value =
            exported(&json!({"host": {"memTotal": 1, "idMappings": [{"id": 2}], "idle": 3}}));
        assert_eq!(
            value,
            json!({"Host": {"MemTotal": 1, "IDMappings": [{"ID": 2}], "Idle": 3}})
        );
    }
}
