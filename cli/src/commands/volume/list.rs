//! `rcon volume ls`, and the filters of volumes.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use clap::Args;
use rcon_engine::Volume;
use serde_json::{Value, json};

use super::object;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::table::Table;
use crate::output::{self, json};
use crate::times;

/// The arguments of `volume ls`.
#[derive(Args, Debug)]
pub struct VolumeLs {
    /// Filter volume output: dangling, driver, label, name, opt, scope, since, until
    #[arg(short = 'f', long)]
    filter: Vec<String>,
    /// Format volume output using JSON or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not print headers
    #[arg(short = 'n', long)]
    noheading: bool,
    /// Print volume output in quiet mode
    #[arg(short = 'q', long)]
    quiet: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Command for VolumeLs {
    const ABOUT: &'static str = "List volumes";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] =
        &["volume ls", "volume ls --filter label=app --format json"];

    fn run(self, context: &Context) -> Outcome {
        if !self.args.is_empty() {
            return Err(Failure::new(format!(
                "`{}` takes no arguments",
                context.name
            )));
        }
        let filter = Filter::parse(&self.filter)?;
        let engine = context.engine()?;
        let (mut volumes, damaged) = engine.volumes_and_damaged()?;
        super::warn_of(context, &damaged);
        if !filter.is_empty() {
            let used = engine.used_volumes()?;
            volumes.retain(|volume| filter.accept(volume, &used));
        }
        let objects = || -> Vec<Value> { volumes.iter().map(|v| object(&engine, v)).collect() };
        let text = match Format::parse(self.format.as_deref()) {
            Format::Default if self.quiet => {
                volumes.iter().map(|v| format!("{}\n", v.name)).collect()
            }
            // As podman: nothing at all when there is nothing.
            Format::Default if volumes.is_empty() => String::new(),
            Format::Default => {
                let mut table = Table::new();
                if !self.noheading {
                    table.row(["DRIVER", "VOLUME NAME"]);
                }
                volumes.iter().for_each(|v| table.row(["local", &v.name]));
                table.render()
            }
            Format::Json => json::pretty(&Value::Array(objects()), 5),
            Format::Lines(text) => format::lines("volume ls", &text, &objects())?,
            Format::Table(text) => {
                let objects = objects();
                let blank = json!({"Driver": "", "Name": "", "Mountpoint": "", "CreatedAt": "", "Labels": "", "Scope": ""});
                let headers = format::headers(
                    objects.first().unwrap_or(&blank),
                    &[("Name", "VOLUME NAME")],
                );
                format::table(
                    "volume ls",
                    &text,
                    &objects,
                    (!self.noheading).then_some(&headers),
                )?
            }
        };
        output::print(&text)?;
        Ok(0)
    }
}

/// Conditions a volume must meet: of different keys all, of several of one key one; labels all.
#[derive(Debug, Default)]
pub struct Filter {
    conditions: Vec<(Key, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Dangling,
    Driver,
    Label,
    NoLabel,
    Name,
    Opt,
    Since,
    Until,
}

impl Filter {
    /// Reads `key=value` texts.
    ///
    /// # Errors
    /// For an unknown key, or a value that cannot be.
    pub fn parse(texts: &[String]) -> Result<Filter, Failure> {
        let mut conditions = Vec::new();
        for text in texts {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| Failure::new(format!("invalid filter: {text:?}")))?;
            let key = match key {
                "dangling" if ["true", "false", "1", "0"].contains(&value) => Key::Dangling,
                "dangling" => {
                    return Err(Failure::new(format!(
                        "{value:?} is not a valid value for the \"dangling\" filter - must be true or false"
                    )));
                }
                "driver" | "scope" => Key::Driver,
                "label" => Key::Label,
                "label!" => Key::NoLabel,
                "name" => Key::Name,
                "since" | "after" => Key::Since,
                "until" => Key::Until,
                "opt" => Key::Opt,
                _ => {
                    return Err(Failure::new(format!("{key:?} is an invalid volume filter")));
                }
            };
            if matches!(key, Key::Since | Key::Until) && moment(value).is_none() {
                return Err(Failure::new(format!(
                    "{value:?} is not a moment, nor a length of time"
                )));
            }
            conditions.push((key, value.to_owned()));
        }
        Ok(Filter { conditions })
    }

    /// Whether every volume meets them.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether the volume meets them; `used` are the names of those that containers have.
    pub fn accept(&self, volume: &Volume, used: &BTreeSet<String>) -> bool {
        self.conditions.iter().all(|(key, value)| match key {
            Key::Label | Key::NoLabel => holds(*key, value, volume, used),
            key => self
                .conditions
                .iter()
                .any(|(other, value)| other == key && holds(*key, value, volume, used)),
        })
    }
}

fn moment(value: &str) -> Option<DateTime<Utc>> {
    times::parse(value, Utc::now())
}

fn holds(key: Key, value: &str, volume: &Volume, used: &BTreeSet<String>) -> bool {
    let labelled = || match value.split_once('=') {
        Some((name, text)) => volume.labels.get(name).is_some_and(|l| l == text),
        None => volume.labels.contains_key(value),
    };
    match key {
        Key::Dangling => used.contains(&volume.name) != ["true", "1"].contains(&value),
        Key::Driver => value == "local",
        Key::Label => labelled(),
        Key::NoLabel => !labelled(),
        Key::Name => rcon_engine::filter::matches_pattern(&volume.name, value),
        Key::Opt => match value.split_once('=') {
            Some((name, text)) => volume.options.get(name).is_some_and(|o| o == text),
            None => volume.options.contains_key(value),
        },
        Key::Since => moment(value).is_some_and(|t| volume.created > t),
        Key::Until => moment(value).is_some_and(|t| volume.created < t),
    }
}
