//! `rcon restart`

use std::path::PathBuf;

use clap::Args;

use super::select::Selection;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Outcome, each_named};

/// The arguments of `restart`.
#[derive(Args, Debug)]
pub struct Restart {
    /// Restart all containers, also those that do not run
    #[arg(short = 'a', long)]
    all: bool,
    /// Read the container ID from the file
    #[arg(long, value_name = "stringArray")]
    cidfile: Vec<PathBuf>,
    /// Filter output based on conditions given
    #[arg(short = 'f', long)]
    filter: Vec<String>,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    /// Restart only running containers
    #[arg(long)]
    running: bool,
    /// Seconds to wait for stop before killing the container (default 10)
    #[arg(short = 't', long, value_name = "uint")]
    time: Option<u32>,
    names: Vec<String>,
}

impl Command for Restart {
    const ABOUT: &'static str = "Restart one or more containers";
    const USAGE: &'static str = "[options] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] = &["restart ctrID", "restart --latest"];

    fn run(self, context: &Context) -> Outcome {
        let engine = context.engine()?;
        let names = Selection {
            names: &self.names,
            all: self.all || self.running,
            latest: self.latest,
            cidfiles: &self.cidfile,
            filters: &self.filter,
            of_all: self.running.then_some(|c| c.state.status.is_alive()),
            ..Selection::default()
        }
        .resolve(&engine)?;
        each_named(&names, |name| Ok(engine.restart(name, self.time)?))
    }
}
