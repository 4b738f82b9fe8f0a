//! `rcon history`

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use rcon_engine::{Engine, Error, ImageRecord};
use serde_json::{Map, Value, json};

use super::images::config;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::table::Table;
use crate::output::{self, human, json};
use crate::usage::{arity, parse_bool};

/// The arguments of `history`.
#[derive(Args, Debug)]
pub struct History {
    /// Change the output to JSON or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Display sizes and dates in human readable format (default true)
    #[arg(short = 'H', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    human: Option<bool>,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Display the numeric IDs only
    #[arg(short = 'q', long)]
    quiet: bool,
    args: Vec<String>,
}

/// The longest command that is shown whole.
const COMMAND: usize = 45;

impl Command for History {
    const ABOUT: &'static str = "Show history of a specified image";
    const USAGE: &'static str = "[options] IMAGE";
    const EXAMPLES: &'static [&'static str] = &["history quay.io/fedora/fedora"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, 1)?;
        let engine = context.engine()?;
        let image = engine.find_image(&self.args[0])?;
        let steps = steps(&engine, &image)?;
        output::print(&self.render(&steps, Utc::now())?)?;
        Ok(0)
    }
}

/// One step of the way an image was made.
#[derive(Debug, Default)]
struct Step {
    id: String,
    created: Option<DateTime<Utc>>,
    by: String,
    comment: String,
    size: u64,
}

/// What the configuration tells, the latest first; each step that made a layer with the layer's size.
fn steps(engine: &Engine, image: &ImageRecord) -> Result<Vec<Step>, Failure> {
    let config = config(image)?;
    let told = config["history"].as_array().cloned().unwrap_or_default();
    let sizes = image
        .layers
        .iter()
        .map(|layer| {
            Ok(engine
                .store()
                .layer_meta(layer)?
                .map_or(0, |meta| meta.size))
        })
        .collect::<Result<Vec<_>, rcon_engine::store::Error>>()
        .map_err(Error::from)?;
    Ok(assembled(&image.id, &told, &sizes))
}

fn assembled(id: &str, told: &[Value], sizes: &[u64]) -> Vec<Step> {
    let mut sizes = sizes.iter().copied();
    let mut steps: Vec<Step> = told
        .iter()
        .map(|step| {
            let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
            let empty = step["empty_layer"].as_bool().unwrap_or(false);
            Step {
                id: "<missing>".to_owned(),
                created: DateTime::parse_from_rfc3339(&text("created"))
                    .ok()
                    .map(|t| t.to_utc()),
                by: text("created_by"),
                comment: text("comment"),
                size: if empty { 0 } else { sizes.next().unwrap_or(0) },
            }
        })
        .collect();
    // Layers that nobody tells of are there all the same.
    steps.extend(sizes.map(|size| Step {
        id: "<missing>".to_owned(),
        size,
        ..Step::default()
    }));
    steps.reverse();
    if let Some(last) = steps.first_mut() {
        last.id = id.to_owned();
    }
    steps
}

impl History {
    fn render(&self, steps: &[Step], now: DateTime<Utc>) -> Result<String, Failure> {
        let objects = || -> Vec<Value> { steps.iter().map(|s| self.fields(s, now)).collect() };
        let headers = || -> Map<String, Value> {
            let own = [("CreatedSince", "CREATED"), ("CreatedBy", "CREATED BY")];
            let blank: Map<String, Value> = self
                .fields(&Step::default(), now)
                .as_object()
                .cloned()
                .unwrap_or_default();
            format::headers(&Value::Object(blank), &own)
        };
        match Format::parse(self.format.as_deref()) {
            Format::Default if self.quiet => {
                Ok(steps.iter().map(|s| self.id(s).to_owned() + "\n").collect())
            }
            Format::Default => {
                let mut table = Table::new();
                let row = ["ID", "CREATED", "CREATED BY", "SIZE", "COMMENT"];
                table.row(row.map(str::to_owned));
                for step in steps {
                    table.row([
                        self.id(step).to_owned(),
                        self.created(step, now),
                        self.by(step),
                        human::size(step.size, " "),
                        step.comment.clone(),
                    ]);
                }
                Ok(table.render())
            }
            Format::Json => {
                let all: Vec<Value> = steps.iter().map(object).collect();
                Ok(json::pretty(&Value::Array(all), 4))
            }
            Format::Lines(text) => format::lines("history", &text, &objects()),
            Format::Table(text) => format::table("history", &text, &objects(), Some(&headers())),
        }
    }

    fn id<'a>(&self, step: &'a Step) -> &'a str {
        match self.no_trunc {
            true => &step.id,
            false => human::short(&step.id),
        }
    }

    fn created(&self, step: &Step, now: DateTime<Utc>) -> String {
        let time = step.created.unwrap_or(DateTime::UNIX_EPOCH);
        match self.human.unwrap_or(true) {
            true => human::ago(time, now),
            false => time.to_rfc3339_opts(SecondsFormat::Secs, true),
        }
    }

    fn by(&self, step: &Step) -> String {
        if self.no_trunc || step.by.chars().count() <= COMMAND {
            return step.by.clone();
        }
        step.by
            .chars()
            .take(COMMAND - 3)
            .chain("...".chars())
            .collect()
    }

    /// A step as templates see it.
    fn fields(&self, step: &Step, now: DateTime<Utc>) -> Value {
        let time = step.created.unwrap_or(DateTime::UNIX_EPOCH);
        json!({
            "ID": self.id(step),
            "Created": self.created(step, now),
            "CreatedSince": self.created(step, now),
            "CreatedAt": human::moment(DateTime::from_timestamp(time.timestamp(), 0).unwrap_or(time)),
            "CreatedBy": self.by(step),
            "Size": human::size(step.size, " "),
            "Comment": step.comment,
            "Tags": [],
        })
    }
}

/// A step as `--format json` shows it.
fn object(step: &Step) -> Value {
    let time = step.created.unwrap_or(DateTime::UNIX_EPOCH);
    let mut object = json!({
        "id": step.id,
        "created": human::rfc3339(Some(time)),
        "CreatedBy": step.by,
        "size": step.size,
    });
    if !step.comment.is_empty() {
        object["comment"] = json!(step.comment);
    }
    object["Created"] = json!(time.to_rfc3339_opts(SecondsFormat::Secs, true));
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_their_layers() {
        let told = [
            json!({"created": "2026-01-02T03:04:05Z", "created_by": "ADD base", "comment": "x"}),
            json!({"created_by": "ENV A=1", "empty_layer": true}),
            json!({"created_by": "RUN make"}),
        ];
        let steps = assembled("abc", &told, &[10, 20]);
        let seen: Vec<_> = steps
            .iter()
            .map(|s| (s.id.as_str(), s.by.as_str(), s.size))
            .collect();
        assert_eq!(
            seen,
            [
                ("abc", "RUN make", 20),
                ("<missing>", "ENV A=1", 0),
                ("<missing>", "ADD base", 10)
            ]
        );
        // More layers than told of, and fewer.
        assert_eq!(assembled("abc", &[], &[1, 2]).len(), 2);
        assert_eq!(assembled("abc", &told, &[10])[0].size, 0);
        assert!(assembled("abc", &[], &[]).is_empty());
    }
}
