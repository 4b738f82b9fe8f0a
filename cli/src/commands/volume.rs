//! `rcon volume ls` and `rcon volume rm`

use clap::Args;
use rcon_engine::{Error, Volume};
use serde_json::{Value, json};

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome, for_each};
use crate::output::format::{self, Format};
use crate::output::table::Table;
use crate::output::{self, human, json};

/// The arguments of `volume ls`.
#[derive(Args, Debug)]
pub struct VolumeLs {
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
    const EXAMPLES: &'static [&'static str] = &["volume ls", "volume ls --format json"];

    fn run(self, context: &Context) -> Outcome {
        if !self.args.is_empty() {
            return Err(Failure::new(format!(
                "`{}` takes no arguments",
                context.name
            )));
        }
        let engine = context.engine()?;
        let volumes = engine.volumes()?;
        let objects = || -> Vec<Value> {
            let place = |v: &Volume| engine.volume_data(&v.name).display().to_string();
            volumes.iter().map(|v| object(v, place(v))).collect()
        };
        let text = match Format::parse(self.format.as_deref()) {
            Format::Default if self.quiet => {
                volumes.iter().map(|v| format!("{}\n", v.name)).collect()
            }
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

fn object(volume: &Volume, place: String) -> Value {
    json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": place,
        "CreatedAt": human::rfc3339(Some(volume.created)),
        "Labels": volume.labels,
        "Scope": "local",
        "Options": {},
        "Anonymous": volume.anonymous,
    })
}

/// The arguments of `volume rm`.
#[derive(Args, Debug)]
pub struct VolumeRm {
    /// Remove all volumes
    #[arg(short = 'a', long)]
    all: bool,
    names: Vec<String>,
}

impl Command for VolumeRm {
    const ABOUT: &'static str = "Remove one or more volumes";
    const USAGE: &'static str = "[options] VOLUME [VOLUME...]";
    const EXAMPLES: &'static [&'static str] = &["volume rm myvol1 myvol2", "volume rm --all"];

    fn run(self, context: &Context) -> Outcome {
        if self.all != self.names.is_empty() {
            return Err(Failure::new("choose either one or more volumes or all"));
        }
        let engine = context.engine()?;
        let names = match self.all {
            true => engine.volumes()?.into_iter().map(|v| v.name).collect(),
            false => self.names,
        };
        for_each(
            &names,
            |name| match engine.remove_volume(name) {
                Ok(()) => Ok(output::println(name)?),
                Err(error) => {
                    // podman-volume-rm(1)
                    let code = match error {
                        Error::NoSuchVolume(_) => 1,
                        Error::VolumeInUse(..) => 2,
                        _ => 125,
                    };
                    Err(Failure::from(error).code(code))
                }
            },
            |codes| {
                codes
                    .iter()
                    .copied()
                    .max_by_key(|code| if *code == 1 { 0 } else { *code })
                    .unwrap_or(1)
            },
        )
    }
}
