//! `rcon inspect`, `rcon container inspect`, `rcon image inspect`

use clap::Args;
use rcon_engine::{Engine, Error};
use serde_json::Value;

use super::{network, select, volume};
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
    /// Display total file size
    #[arg(short = 's', long)]
    size: bool,
    /// Specify inspect-object type ("all"|"container"|"image"|"network"|"volume") (default "all")
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
            "network" => Kind::Network,
            "volume" => Kind::Volume,
            "pod" => return Err(Failure::new("rcon has no pods to inspect")),
            other => {
                return Err(Failure::new(format!(
                    "invalid type {other:?}: must be \"image\", \"container\", \"pod\", \"network\", \"volume\", or \"all\""
                )));
            }
        };
        inspect(
            context,
            (kind, self.size),
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
    /// Display total file size
    #[arg(short = 's', long)]
    size: bool,
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
            (Kind::Container, self.size),
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
            (Kind::Image, false),
            self.names,
            false,
            self.format.as_deref(),
        )
    }
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A container, else an image, a volume, a network.
    Any,
    Container,
    Image,
    Network,
    Volume,
}

fn inspect(
    context: &Context,
    (kind, size): (Kind, bool),
    mut names: Vec<String>,
    latest: bool,
    text: Option<&str>,
) -> Outcome {
    if latest && !names.is_empty() {
        return Err(Failure::new(
            "--latest and arguments cannot be used together",
        ));
    }
    if latest && !matches!(kind, Kind::Any | Kind::Container) {
        let kind = format!("{kind:?}").to_lowercase();
        return Err(Failure::new(format!(
            "latest is not supported for type {kind:?}"
        )));
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
        match find(&engine, kind, size, name) {
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

fn find(engine: &Engine, kind: Kind, size: bool, name: &str) -> Result<Value, Failure> {
    let missing = |what: String| Err(Failure::new(format!("inspecting object: {what}")));
    let any = kind == Kind::Any;
    let mut why = None;
    if any || kind == Kind::Container {
        match engine.container(name) {
            Ok(found) => {
                let mut object = container::object(engine, &found);
                if size {
                    let (written, all) = engine.container_size(&found)?;
                    object["SizeRw"] = written.into();
                    object["SizeRootFs"] = all.into();
                }
                return Ok(object);
            }
            Err(Error::NoSuchContainer(_)) if any => {}
            Err(Error::NoSuchContainer(_)) => return missing(format!("no such container {name}")),
            Err(error) => return Err(error.into()),
        }
    }
    if any || kind == Kind::Image {
        match engine.find_image(name) {
            Ok(found) => return image::object(engine, &found),
            // A name that no image can have may be that of something else.
            Err(Error::NoSuchImage(_) | Error::Image(rcon_engine::image::Error::Reference(_)))
                if any => {}
            Err(error) if any => why = Some(error),
            Err(Error::NoSuchImage(_)) => return missing(format!("{name}: image not known")),
            Err(error) => return Err(error.into()),
        }
    }
    if any || kind == Kind::Volume {
        match engine.volume(name) {
            Ok(found) => return Ok(volume::object(engine, &found)),
            Err(Error::NoSuchVolume(_)) if any => {}
            Err(Error::NoSuchVolume(_)) => return missing(format!("no such volume {name}")),
            Err(error) => return Err(error.into()),
        }
    }
    match (network::find(name), why) {
        (Some(object), _) => Ok(object),
        // It may have been meant for an image: several that begin so, or files that cannot be read.
        (None, Some(error)) => Err(error.into()),
        (None, None) if any => missing(format!("no such object: {name:?}")),
        (None, None) => missing(format!("no such network {name}")),
    }
}
