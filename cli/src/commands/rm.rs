//! `rcon rm`

use std::path::PathBuf;

use clap::Args;
use rcon_engine::{Error, RemoveRequest};

use super::select::{Selection, is_missing, stop_all};
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, GENERAL, INTERRUPTED, Outcome, for_each, gravest};
use crate::output;

/// The arguments of `rm`.
#[derive(Args, Debug)]
pub struct Rm {
    /// Remove all containers
    #[arg(short = 'a', long)]
    all: bool,
    /// Read the container ID from the file
    #[arg(long, value_name = "stringArray")]
    cidfile: Vec<PathBuf>,
    /// Filter output based on conditions given
    #[arg(long)]
    filter: Vec<String>,
    /// Force removal of a running or unusable container
    #[arg(short = 'f', long)]
    force: bool,
    /// Ignore errors when a specified container is missing
    #[arg(short = 'i', long)]
    ignore: bool,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    /// Seconds to wait for stop before killing the container (default 10)
    #[arg(short = 't', long, value_name = "uint")]
    time: Option<u32>,
    /// Remove anonymous volumes associated with the container
    #[arg(short = 'v', long)]
    volumes: bool,
    names: Vec<String>,
}

impl Command for Rm {
    const ABOUT: &'static str = "Remove one or more containers";
    const USAGE: &'static str = "[options] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] =
        &["rm mywebserver myflaskserver 860a4b23", "rm --force --all"];

    fn run(self, context: &Context) -> Outcome {
        if self.time.is_some() && !self.force {
            return Err(Failure::new(
                "--force option must be specified to use the --time option",
            ));
        }
        let engine = context.engine()?;
        let names = Selection {
            names: &self.names,
            all: self.all,
            latest: self.latest,
            cidfiles: &self.cidfile,
            filters: &self.filter,
            ..Selection::default()
        }
        .resolve(&engine)?;
        if self.force && names.len() > 1 {
            // What cannot be stopped is told when it cannot be removed.
            stop_all(&engine, &names, self.time);
        }
        let request = RemoveRequest {
            force: self.force,
            volumes: self.volumes,
            timeout: self.time,
        };
        for_each(
            &names,
            |name| match engine.remove(name, &request) {
                // Who forces a removal does not mind that it is done already.
                Err(error) if (self.ignore || self.force) && is_missing(&error) => Ok(()),
                Err(error) => {
                    let code = exit_code(&error);
                    Err(Failure::from(error).code(code))
                }
                Ok(_) => Ok(output::println(name)?),
            },
            gravest,
        )
    }
}

/// 1 for a container that is not there, 2 for one that runs, 125 for all else (podman-rm(1)) but ctrl-c.
fn exit_code(error: &Error) -> u8 {
    match error {
        Error::NoSuchContainer(_) => 1,
        Error::RemoveRunning(_) => 2,
        Error::Interrupted => INTERRUPTED,
        _ => GENERAL,
    }
}
