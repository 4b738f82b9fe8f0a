//! `rcon inspect`, `rcon container inspect`, `rcon image inspect`

use clap::Args;
use rcon_engine::{Engine, Error};
use serde_json::Value;

use super::select;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::inspection::{container, image};
use crate::output::format::{self, Format};
use crate::output::{self, json};

/// The arguments of `inspect`.
#[derive(Args, Debug)]
pub struct Inspect {
    /// Format the output to a Go template or json (default "json")
    #[arg(short = 'f', long)]
    format: Option<String>,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    /// Specify inspect-object type ("all"|"container"|"image") (default "all")
    #[arg(short = 't', long = "type")]
    kind: Option<String>,
    names: Vec<String>,
}

impl Command for Inspect {
    const ABOUT: &'static str = "Display the configuration of object denoted by ID";
    const USAGE: &'static str = "[options] {CONTAINER|IMAGE} [...]";
    const EXAMPLES: &'static [&'static str] = &[
        "inspect fedora",
        "inspect --type image fedora",
        "inspect --format \"imageId: {{.Id}}\" fedora",
    ];

    fn run(self, context: &Context) -> Outcome {
        let kind = match self.kind.as_deref().unwrap_or("all") {
            "all" | "" => Kind::Any,
            "container" => Kind::Container,
            "image" => Kind::Image,
            other @ ("pod" | "network" | "volume") => {
                return Err(Failure::new(format!(
                    "rcon cannot inspect objects of type {other:?} yet"
                )));
            }
            other => {
                return Err(Failure::new(format!(
                    "invalid type {other:?}: must be \"image\", \"container\", \"pod\", \"network\", \"volume\", or \"all\""
                )));
            }
        };
        inspect(
            context,
            kind,
            self.names,
            self.latest,
            self.format.as_deref(),
        )
    }
}

/// The arguments of `container inspect`.
#[derive(Args, Debug)]
pub struct ContainerInspect {
    /// Format the output to a Go template or json (default "json")
    #[arg(short = 'f', long)]
    format: Option<String>,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    names: Vec<String>,
}

impl Command for ContainerInspect {
    const ABOUT: &'static str = "Display the configuration of a container";
    const USAGE: &'static str = "[options] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] = &[
        "container inspect myCtr",
        "container inspect -l --format '{{.Id}} {{.Config.Labels}}'",
    ];

    fn run(self, context: &Context) -> Outcome {
        inspect(
            context,
            Kind::Container,
            self.names,
            self.latest,
            self.format.as_deref(),
        )
    }
}

/// The arguments of `image inspect`.
#[derive(Args, Debug)]
pub struct ImageInspect {
    /// Format the output to a Go template or json (default "json")
    #[arg(short = 'f', long)]
    format: Option<String>,
    names: Vec<String>,
}

impl Command for ImageInspect {
    const ABOUT: &'static str = "Display the configuration of an image";
    const USAGE: &'static str = "[options] IMAGE [IMAGE...]";
    const EXAMPLES: &'static [&'static str] = &[
        "image inspect alpine",
        "image inspect --format '{{.Id}} {{.Size}}' alpine",
    ];

    fn run(self, context: &Context) -> Outcome {
        inspect(
            context,
            Kind::Image,
            self.names,
            false,
            self.format.as_deref(),
        )
    }
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A container, else an image.
    Any,
    Container,
    Image,
}

fn inspect(
    context: &Context,
    kind: Kind,
    mut names: Vec<String>,
    latest: bool,
    text: Option<&str>,
) -> Outcome {
    if latest && !names.is_empty() {
        return Err(Failure::new(
            "--latest and arguments cannot be used together",
        ));
    }
    if latest && kind == Kind::Image {
        return Err(Failure::new("latest is not supported for type \"image\""));
    }
    if names.is_empty() && !latest {
        return Err(Failure::new("no names or ids specified"));
    }
    let engine = context.engine()?;
    if latest {
        names.push(select::latest(&engine)?);
    }
    let mut objects = Vec::new();
    let mut failures = Vec::new();
    for name in &names {
        match find(&engine, kind, name) {
            Ok(object) => objects.push(object),
            Err(failure) => failures.push(failure),
        }
    }
    let text = match Format::parse(text) {
        Format::Default | Format::Json => json::pretty(&Value::Array(objects), 5),
        Format::Lines(text) => format::lines("inspect", &text, &objects)?,
        Format::Table(text) => format::table("inspect", &text, &objects, None)?,
    };
    output::print(&text)?;
    let last = failures.pop();
    failures.iter().for_each(Failure::report);
    match last {
        Some(failure) => Err(failure),
        None => Ok(0),
    }
}

fn find(engine: &Engine, kind: Kind, name: &str) -> Result<Value, Failure> {
    let missing = |what: String| Err(Failure::new(format!("inspecting object: {what}")));
    if kind != Kind::Image {
        match engine.container(name) {
            Ok(found) => return Ok(container::object(engine, &found)),
            Err(Error::NoSuchContainer(_)) if kind == Kind::Any => {}
            Err(Error::NoSuchContainer(_)) => return missing(format!("no such container {name}")),
            Err(error) => return Err(error.into()),
        }
    }
    match engine.find_image(name) {
        Ok(found) => image::object(&found),
        Err(Error::NoSuchImage(_)) if kind == Kind::Any => {
            missing(format!("no such object: {name:?}"))
        }
        Err(Error::NoSuchImage(_)) => missing(format!("{name}: image not known")),
        // A name that no image can have is none of a container either.
        Err(_) if kind == Kind::Any => missing(format!("no such object: {name:?}")),
        Err(error) => Err(error.into()),
    }
}
