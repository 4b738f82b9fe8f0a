//! `rcon volume create|exists|inspect|ls|rm|prune|export|import|mount|unmount`

mod list;
mod mount;
mod transfer;

use std::collections::BTreeMap;

use clap::Args;
use rcon_engine::bundle::parse;
use rcon_engine::{DamagedVolume, Engine, Error, Volume};
use serde_json::{Value, json};

use super::confirm::confirmed;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, GENERAL, INTERRUPTED, Outcome, for_each, gravest};
use crate::output::format::{self, Format};
use crate::output::{self, human, json};
use crate::usage::arity;

pub use list::VolumeLs;
pub use mount::{VolumeMount, VolumeUnmount};
pub use transfer::{VolumeExport, VolumeImport};

/// The arguments of `volume create`.
#[derive(Args, Debug)]
pub struct VolumeCreate {
    /// Specify volume driver name (only "local" is there)
    #[arg(short = 'd', long)]
    driver: Option<String>,
    /// Do not fail if a volume of that name exists
    #[arg(long)]
    ignore: bool,
    /// Set the owning group of the volume
    #[arg(long, value_name = "uint")]
    gid: Option<u32>,
    /// Set metadata for a volume
    #[arg(short = 'l', long, value_name = "stringArray")]
    label: Vec<String>,
    /// Set driver specific options: type (tmpfs, bind, none), device, o (as mount(8) has them)
    #[arg(short = 'o', long, value_name = "stringArray")]
    opt: Vec<String>,
    /// Set the owner of the volume
    #[arg(long, value_name = "uint")]
    uid: Option<u32>,
    args: Vec<String>,
}

impl Command for VolumeCreate {
    const ABOUT: &'static str = "Create a new volume";
    const USAGE: &'static str = "[options] [NAME]";
    const EXAMPLES: &'static [&'static str] = &[
        "volume create",
        "volume create --label app=web data",
        "volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=64m scratch",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 0, 1)?;
        if let Some(driver) = self.driver.filter(|d| d != "local") {
            return Err(Failure::new(format!(
                "rcon has no volume drivers: {driver:?} is not supported"
            ))
            .hint("leave --driver away, or say --driver local"));
        }
        let engine = context.engine()?;
        let name = self.args.first().map(String::as_str);
        let labels = labels(&self.label)?;
        let mut options = options(&self.opt)?;
        for (name, id) in [("uid", self.uid), ("gid", self.gid)] {
            if let Some(id) = id {
                let words = options.entry("o".into()).or_default();
                let comma = if words.is_empty() { "" } else { "," };
                *words += &format!("{comma}{name}={id}");
            }
        }
        let name = match (engine.create_volume(name, labels, options), name) {
            (Err(Error::VolumeExists(_)), Some(name)) if self.ignore => name.to_owned(),
            (result, _) => result?.name,
        };
        output::println(&name)?;
        Ok(0)
    }
}

/// `key=value` texts; a value may be missing.
///
/// # Errors
/// For a label without a name.
pub fn labels(words: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let no_files: &[&str] = &[];
    Ok(parse::labels(no_files, words).map_err(Error::from)?)
}

fn options(words: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure::new(format!(
            "unable to process options: invalid option format: {word:?}"
        ))),
    };
    words.iter().map(pair).collect()
}

/// The arguments of `volume exists`.
#[derive(Args, Debug)]
pub struct VolumeExists {
    args: Vec<String>,
}

impl Command for VolumeExists {
    const ABOUT: &'static str = "Check if volume exists";
    const USAGE: &'static str = "VOLUME";
    const EXAMPLES: &'static [&'static str] = &["volume exists data || rcon volume create data"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, 1)?;
        match context.engine()?.volume(&self.args[0]) {
            Ok(_) => Ok(0),
            Err(Error::NoSuchVolume(_)) => Ok(1),
            Err(error) => Err(error.into()),
        }
    }
}

/// The arguments of `volume inspect`.
#[derive(Args, Debug)]
pub struct VolumeInspect {
    /// Inspect all volumes
    #[arg(short = 'a', long)]
    all: bool,
    /// Format volume output using Go template
    #[arg(short = 'f', long)]
    format: Option<String>,
    args: Vec<String>,
}

impl Command for VolumeInspect {
    const ABOUT: &'static str = "Display detailed information on one or more volumes";
    const USAGE: &'static str = "[options] VOLUME [VOLUME...]";
    const EXAMPLES: &'static [&'static str] = &[
        "volume inspect myvol",
        "volume inspect --all --format '{{.Name}} {{.Mountpoint}}'",
    ];

    fn run(self, context: &Context) -> Outcome {
        if self.all != self.args.is_empty() {
            return Err(Failure::new("choose either one or more volumes or all"));
        }
        let engine = context.engine()?;
        let mut objects = Vec::new();
        let mut missing = Vec::new();
        match self.all {
            true => {
                let (volumes, damaged) = engine.volumes_and_damaged()?;
                warn_of(context, &damaged);
                objects.extend(volumes.iter().map(|v| object(&engine, v)));
            }
            false => {
                for name in &self.args {
                    match engine.volume(name) {
                        Ok(volume) => objects.push(object(&engine, &volume)),
                        Err(Error::NoSuchVolume(name)) => missing.push(name),
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        let text = match Format::parse(self.format.as_deref()) {
            Format::Default | Format::Json => json::pretty(&Value::Array(objects), 5),
            Format::Lines(text) | Format::Table(text) => {
                format::lines("volume inspect", &text, &objects)?
            }
        };
        output::print(&text)?;
        for_each(
            missing,
            |name| {
                Err(Failure::new(format!(
                    "inspecting object: no such volume {name}"
                )))
            },
            |_| 125,
        )
    }
}

/// A volume as `inspect` and `ls` show it.
pub fn object(engine: &Engine, volume: &Volume) -> Value {
    let mut object = json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": engine.volume_data(&volume.name).display().to_string(),
        "CreatedAt": human::rfc3339(Some(volume.created)),
        "Labels": volume.labels,
        "Scope": "local",
        "Options": volume.options,
        "MountCount": 0,
        "NeedsCopyUp": volume.fresh,
    });
    object["Anonymous"] = volume.anonymous.into();
    if let Some((uid, gid)) = volume.owner() {
        object["UID"] = uid.into();
        object["GID"] = gid.into();
    }
    object
}

/// Says which volumes are not shown, and why.
fn warn_of(context: &Context, damaged: &[DamagedVolume]) {
    for volume in damaged {
        context.warn(volume.error.to_string());
    }
}

/// Why a volume is not removed.
fn failure(error: Error) -> Failure {
    match error {
        Error::Damaged(..) => Failure::from(error).hint(
            "its files are beside its record, in _data; `rcon volume rm --force` removes both",
        ),
        error => error.into(),
    }
}

/// The arguments of `volume rm`.
#[derive(Args, Debug)]
pub struct VolumeRm {
    /// Remove all volumes
    #[arg(short = 'a', long)]
    all: bool,
    /// Remove a volume by force, even if it is being used by a container
    #[arg(short = 'f', long)]
    force: bool,
    /// Seconds to wait for running containers to stop before killing them, with --force
    #[arg(short = 't', long, value_name = "int")]
    time: Option<i64>,
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
        if self.time.is_some() && !self.force {
            return Err(Failure::new(
                "--force option must be specified to use the --time option",
            ));
        }
        // A negative one is no limit.
        let timeout = self
            .time
            .map(|time| u32::try_from(time).unwrap_or(u32::MAX));
        let engine = context.engine()?;
        let names = match self.all {
            true => {
                let (volumes, damaged) = engine.volumes_and_damaged()?;
                let damaged = damaged.into_iter().map(|v| v.name);
                volumes.into_iter().map(|v| v.name).chain(damaged).collect()
            }
            false => self.names,
        };
        for_each(
            &names,
            |name| {
                let removed = match self.force {
                    true => engine.force_remove_volume(name, timeout),
                    false => engine.volume(name).and_then(|volume| {
                        engine.remove_volume(&volume.name)?;
                        Ok(volume.name)
                    }),
                };
                match removed {
                    Ok(name) => Ok(output::println(&name)?),
                    Err(Error::NoSuchVolume(_)) if self.force => Ok(()),
                    Err(error) => {
                        // podman-volume-rm(1)
                        let code = match error {
                            Error::NoSuchVolume(_) => 1,
                            Error::VolumeInUse(..) => 2,
                            Error::Interrupted => INTERRUPTED,
                            _ => GENERAL,
                        };
                        Err(failure(error).code(code))
                    }
                }
            },
            gravest,
        )
    }
}

/// The arguments of `volume prune`.
#[derive(Args, Debug)]
pub struct VolumePrune {
    /// Remove only volumes that meet this: label, name, until
    #[arg(long)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short = 'f', long)]
    force: bool,
    args: Vec<String>,
}

impl Command for VolumePrune {
    const ABOUT: &'static str = "Remove all unused volumes";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &[
        "volume prune",
        "volume prune --force --filter label=app=web",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 0, 0)?;
        let engine = context.engine()?;
        let filter = list::Filter::parse(&self.filter)?;
        let warning = "This will remove all volumes not used by at least one container.";
        if !self.force && !confirmed(warning)? {
            return Ok(0);
        }
        let mut removed = Vec::new();
        let outcome = prune(&engine, &filter, &mut removed);
        for name in removed {
            output::println(&name)?;
        }
        outcome
    }
}

/// Removes the volumes that nobody uses, as far as they can be; their names are added to `removed`. What was left of others
/// goes without a word.
///
/// # Errors
/// When they cannot be listed.
pub fn prune(engine: &Engine, filter: &list::Filter, removed: &mut Vec<String>) -> Outcome {
    let used = engine.used_volumes()?;
    let (mut unused, mut damaged) = engine.volumes_and_damaged()?;
    // Nobody knows whether these meet any condition.
    damaged.retain(|volume| filter.is_empty() && !used.contains(&volume.name));
    unused.retain(|volume| !used.contains(&volume.name) && filter.accept(volume, &used));
    let mut swept = 0;
    let mut stays = |error: Error| {
        failure(error).report();
        swept = GENERAL;
    };
    damaged.into_iter().for_each(|volume| stays(volume.error));
    engine.sweep_volumes(stays)?;
    let code = for_each(
        unused,
        |volume| {
            match engine.remove_volume(&volume.name) {
                Ok(()) => removed.push(volume.name),
                // Came into use, or went, meanwhile.
                Err(Error::VolumeInUse(..) | Error::NoSuchVolume(_)) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(())
        },
        |_| GENERAL,
    )?;
    Ok(code.max(swept))
}

pub use list::Filter;
