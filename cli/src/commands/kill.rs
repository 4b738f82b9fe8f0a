//! `rcon kill`

use std::path::PathBuf;

use clap::Args;
use rcon_engine::Error;
use rcon_engine::bundle::parse;

use super::select::Selection;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Outcome, each_named};

/// The arguments of `kill`.
#[derive(Args, Debug)]
pub struct Kill {
    /// Signal all running containers
    #[arg(short = 'a', long)]
    all: bool,
    /// Read the container ID from the file
    #[arg(long, value_name = "stringArray")]
    cidfile: Vec<PathBuf>,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    /// Signal to send to the container (default "KILL")
    #[arg(short = 's', long)]
    signal: Option<String>,
    names: Vec<String>,
}

impl Command for Kill {
    const ABOUT: &'static str = "Kill one or more running containers with a specific signal";
    const USAGE: &'static str = "[options] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] = &["kill mywebserver", "kill --signal TERM ctrID"];

    fn run(self, context: &Context) -> Outcome {
        let signal =
            parse::signal(self.signal.as_deref().unwrap_or("KILL")).map_err(Error::from)?;
        let engine = context.engine()?;
        let names = Selection {
            names: &self.names,
            all: self.all,
            latest: self.latest,
            cidfiles: &self.cidfile,
            of_all: Some(|c| c.state.status.is_alive()),
            ..Selection::default()
        }
        .resolve(&engine)?;
        each_named(&names, |name| Ok(engine.kill(name, signal)?))
    }
}
