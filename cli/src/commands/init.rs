//! `rcon init`

use clap::Args;
use rcon_engine::StartRequest;

use super::descriptors;
use super::select::Selection;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Outcome, each_named};

/// The arguments of `init`.
#[derive(Args, Debug)]
pub struct Init {
    /// Initialize all containers
    #[arg(short = 'a', long)]
    all: bool,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    names: Vec<String>,
}

impl Command for Init {
    const ABOUT: &'static str =
        "Set containers up, with their namespaces and mounts, for a later start";
    const USAGE: &'static str = "[options] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] = &["init --latest", "init 3c45ef19d893 test1"];

    fn run(self, context: &Context) -> Outcome {
        let inherit = descriptors::inherit(0, &[], true)?;
        let engine = context.engine()?;
        let names = Selection {
            names: &self.names,
            all: self.all,
            latest: self.latest,
            of_all: Some(|c| !c.state.status.has_process()),
            ..Selection::default()
        }
        .resolve(&engine)?;
        let request = StartRequest {
            attach: None,
            inherit,
            hold: true,
        };
        each_named(&names, |name| Ok(engine.start(name, &request).map(drop)?))
    }
}
