//! `rcon stop`

use std::path::PathBuf;

use clap::Args;

use super::select::{Selection, is_missing, stop_all};
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Outcome, for_each, last};
use crate::output;

/// The arguments of `stop`.
#[derive(Args, Debug)]
pub struct Stop {
    /// Stop all running containers
    #[arg(short = 'a', long)]
    all: bool,
    /// Read the container ID from the file
    #[arg(long, value_name = "stringArray")]
    cidfile: Vec<PathBuf>,
    /// Filter output based on conditions given
    #[arg(short = 'f', long)]
    filter: Vec<String>,
    /// Ignore errors when a specified container is missing
    #[arg(short = 'i', long)]
    ignore: bool,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    /// Seconds to wait for stop before killing the container (default 10)
    #[arg(short = 't', long, value_name = "uint")]
    time: Option<u32>,
    names: Vec<String>,
}

impl Command for Stop {
    const ABOUT: &'static str = "Stop one or more containers";
    const USAGE: &'static str = "[options] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] =
        &["stop ctrID", "stop --time 2 mywebserver 6e534f14da9d"];

    fn run(self, context: &Context) -> Outcome {
        let engine = context.engine()?;
        let names = Selection {
            names: &self.names,
            all: self.all,
            latest: self.latest,
            cidfiles: &self.cidfile,
            filters: &self.filter,
            // Of all: those that have ended are named too.
            ..Selection::default()
        }
        .resolve(&engine)?;
        let results = stop_all(&engine, &names, self.time);
        for_each(
            names.iter().zip(results),
            |(name, result)| match result {
                Err(error) if self.ignore && is_missing(&error) => Ok(()),
                Err(error) => Err(error.into()),
                Ok(()) => Ok(output::println(name)?),
            },
            last,
        )
    }
}
