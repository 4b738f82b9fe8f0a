//! `--format`: JSON, a Go template for each object, or a table of Go templates.

use serde_json::{Map, Value};

use super::table::Table;
use crate::failure::Failure;
use crate::template;

/// What `--format` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// Nothing was said.
    Default,
    /// `json`
    Json,
    /// A template, printed as it comes for each object: with the end of its line, where podman gives it one.
    Lines(String),
    /// `table TEMPLATE`: lined up under headers.
    Table(String),
}

impl Format {
    /// Reads the value of `--format`.
    pub fn parse(text: Option<&str>) -> Format {
        let Some(text) = text else {
            return Format::Default;
        };
        let inner = text
            .trim()
            .strip_prefix("{{")
            .and_then(|t| t.strip_suffix("}}"));
        let words: Vec<&str> = inner.unwrap_or(text).split_whitespace().collect();
        match (inner, words.as_slice()) {
            (None, []) => Format::Default,
            (None, ["json"]) | (Some(_), ["json", "."]) => Format::Json,
            _ => match text.strip_prefix("table ") {
                Some(row) => Format::Table(line(unescape(row.trim_start(), true))),
                // podman takes such a one as it stands.
                None if stands(text) => Format::Lines(text.into()),
                None => Format::Lines(line(unescape(text, false))),
            },
        }
    }
}

/// The template with an end, which is a part of it: a `-}}` before it takes it away.
fn line(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Whether there is a `{{"\n"}}` or its like, which a template prints and which is no way to write it; or an action that
/// does not end.
fn stands(text: &str) -> bool {
    let mut parts = text.split("{{").skip(1);
    parts.any(|part| match part.split_once("}}") {
        Some((inside, _)) => inside.contains("\\n"),
        None => true,
    })
}

/// `\t` and `\n` as typed in a shell become what they stand for. In a table, blanks outside of `{{}}` part its columns.
fn unescape(text: &str, table: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    let mut inside = false;
    while let Some(letter) = letters.next() {
        let next = letters.peek().copied();
        match (letter, next) {
            ('{', Some('{')) => inside = true,
            ('}', Some('}')) => inside = false,
            _ => {}
        }
        let escaped = match (letter, next) {
            ('\\', Some('t')) if !inside => Some('\t'),
            ('\\', Some('n')) if !inside => Some('\n'),
            _ => None,
        };
        match escaped {
            Some(white) => {
                letters.next();
                out.push(white);
            }
            None if letter == ' ' && table && !inside => out.push('\t'),
            None => out.push(letter),
        }
    }
    out
}

/// Each object through the template, a line each. `what` is the command, for messages.
///
/// # Errors
/// For a template that cannot be read or asks for what an object does not have.
pub fn lines(what: &str, text: &str, objects: &[Value]) -> Result<String, Failure> {
    if objects.is_empty() {
        template::check(what, text).map_err(|e| Failure::new(e.to_string()))?;
    }
    let mut out = String::new();
    for object in objects {
        out += &render(what, text, object)?;
    }
    Ok(out)
}

/// Each object through the template, lined up, under headers unless there are none to be.
///
/// # Errors
/// As [`lines`].
pub fn table(
    what: &str,
    text: &str,
    objects: &[Value],
    headers: Option<&Map<String, Value>>,
) -> Result<String, Failure> {
    let mut table = Table::new();
    if let Some(headers) = headers
        // A template that looks into a field has no header for it.
        && let Ok(line) = render(what, text, &Value::Object(headers.clone()))
    {
        table.tabbed(line.trim_end_matches('\n'));
    }
    for line in lines(what, text, objects)?.lines() {
        table.tabbed(line);
    }
    Ok(table.render())
}

/// One object through the template.
///
/// # Errors
/// As [`lines`].
pub fn render(what: &str, text: &str, object: &Value) -> Result<String, Failure> {
    template::render(what, text, object).map_err(|e| Failure::new(e.to_string()))
}

/// The headers of an object's fields: `ImageID` is `IMAGE ID`, but for those with a name of their own.
pub fn headers(object: &Value, own: &[(&str, &str)]) -> Map<String, Value> {
    let mut map = Map::new();
    for name in object.as_object().into_iter().flat_map(Map::keys) {
        let header = own
            .iter()
            .find(|(n, _)| n == name)
            .map_or_else(|| spaced(name), |(_, h)| (*h).into());
        map.insert(name.clone(), header.into());
    }
    map
}

/// `ImageID` as `IMAGE ID`.
fn spaced(name: &str) -> String {
    let mut text = String::new();
    let mut low = false;
    for letter in name.chars() {
        if low && letter.is_uppercase() {
            text.push(' ');
        }
        low = letter.is_lowercase();
        text.extend(letter.to_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formats_are_told_apart() {
        let of = |text| Format::parse(Some(text));
        assert_eq!(Format::parse(None), Format::Default);
        assert_eq!(of(""), Format::Default);
        assert_eq!(of("json"), Format::Json);
        assert_eq!(of("{{ json . }}"), Format::Json);
        assert_eq!(
            of("{{.ID}}\\t{{.Names}}"),
            Format::Lines("{{.ID}}\t{{.Names}}\n".into())
        );
        assert_eq!(
            of("{{.ID}}{{\"\\n\"}}"),
            Format::Lines("{{.ID}}{{\"\\n\"}}".into())
        );
        assert_eq!(
            of("table {{.ID}} {{join .Names \", \"}}"),
            Format::Table("{{.ID}}\t{{join .Names \", \"}}\n".into())
        );
        assert_eq!(
            of("table {{.ID}}\\t{{.Names}}"),
            Format::Table("{{.ID}}\t{{.Names}}\n".into())
        );
    }

    #[test]
    fn templates_give_lines_and_tables() {
        let objects = [
            json!({"ID": "1", "ImageID": "abc"}),
            json!({"ID": "2", "ImageID": "d"}),
        ];
        assert_eq!(lines("ps", "{{.ID}}\n", &objects).unwrap(), "1\n2\n");
        let headers = headers(&objects[0], &[("ID", "CONTAINER ID")]);
        assert_eq!(
            table("ps", "{{.ID}}\t{{.ImageID}}\n", &objects, Some(&headers)).unwrap(),
            "CONTAINER ID  IMAGE ID\n1             abc\n2             d\n"
        );
        assert!(lines("ps", "{{.Nope}}", &objects).is_err());
    }
}
