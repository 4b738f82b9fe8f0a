//! `rcon diff`

use clap::Args;
use rcon_engine::{Change, ChangeKind, Error};
use serde_json::{Map, Value};

use super::select;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::output::json;
use crate::usage::arity;

/// The arguments of `diff` and `container diff`.
#[derive(Args, Debug)]
pub struct Diff {
    /// Change the output format (json)
    #[arg(long)]
    format: Option<String>,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    args: Vec<String>,
}

impl Command for Diff {
    const ABOUT: &'static str = "Display the changes to the object's file system";
    const USAGE: &'static str = "[options] {CONTAINER|IMAGE} [{CONTAINER|IMAGE}]";
    const EXAMPLES: &'static [&'static str] = &[
        "diff myctr",
        "diff --format json myctr",
        "diff myctr myimage",
    ];

    fn run(mut self, context: &Context) -> Outcome {
        let engine = context.engine()?;
        let images = context.name == "rcon diff";
        arity(&self.args, 0, 2 - usize::from(self.latest))?;
        let name = select::one(&engine, &mut self.args, self.latest, NOTHING)?;
        let changes = match self.args.first() {
            Some(than) => engine.differences([&name, than], true, images),
            None => match engine.container_changes(&name) {
                Err(Error::NoSuchContainer(_)) if images => engine.image_changes(&name),
                other => other,
            },
        };
        let changes = match changes {
            Err(Error::NoSuchImage(name)) => {
                return Err(Failure::new(format!("{name} not found: layer not known")));
            }
            other => other?,
        };
        print(&changes, self.format.as_deref())
    }
}

/// The arguments of `image diff`.
#[derive(Args, Debug)]
pub struct ImageDiff {
    /// Change the output format (json)
    #[arg(long)]
    format: Option<String>,
    args: Vec<String>,
}

impl Command for ImageDiff {
    const ABOUT: &'static str = "Inspect changes to the image's file systems";
    const USAGE: &'static str = "[options] IMAGE [IMAGE]";
    const EXAMPLES: &'static [&'static str] = &["image diff myimage"];

    fn run(mut self, context: &Context) -> Outcome {
        let engine = context.engine()?;
        arity(&self.args, 0, 2)?;
        let name = select::one(&engine, &mut self.args, false, NOTHING)?;
        let changes = match self.args.first() {
            Some(than) => engine.differences([&name, than], false, true)?,
            None => engine.image_changes(&name)?,
        };
        print(&changes, self.format.as_deref())
    }
}

const NOTHING: &str = "no container or image given";

fn print(changes: &[Change], format: Option<&str>) -> Outcome {
    let text = match format {
        None | Some("") => changes
            .iter()
            .map(|change| format!("{} {}\n", letter(change.kind), change.path))
            .collect(),
        Some("json") => {
            let mut map = Map::new();
            for (name, kind) in [
                ("changed", ChangeKind::Changed),
                ("added", ChangeKind::Added),
                ("deleted", ChangeKind::Deleted),
            ] {
                let paths: Vec<Value> = changes
                    .iter()
                    .filter(|change| change.kind == kind)
                    .map(|change| change.path.clone().into())
                    .collect();
                if !paths.is_empty() {
                    map.insert(name.into(), Value::Array(paths));
                }
            }
            json::pretty(&Value::Object(map), 5)
        }
        Some(_) => {
            return Err(Failure::new(
                "only supported value for '--format' is 'json'",
            ));
        }
    };
    output::print(&text)?;
    Ok(0)
}

fn letter(kind: ChangeKind) -> char {
    match kind {
        ChangeKind::Changed => 'C',
        ChangeKind::Added => 'A',
        ChangeKind::Deleted => 'D',
    }
}
