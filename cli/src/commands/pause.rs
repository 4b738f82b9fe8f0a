//! `rcon pause` and `rcon unpause`

use std::path::PathBuf;

use clap::Args;
use rcon_engine::Status;

use super::select::Selection;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Outcome, each_named};

/// The arguments of both.
#[derive(Args, Debug)]
pub struct PauseArgs {
    /// All containers it can be done to
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
    names: Vec<String>,
}

/// The arguments of `pause`.
#[derive(Args, Debug)]
pub struct Pause {
    #[command(flatten)]
    which: PauseArgs,
}

/// The arguments of `unpause`.
#[derive(Args, Debug)]
pub struct Unpause {
    #[command(flatten)]
    which: PauseArgs,
}

impl Command for Pause {
    const ABOUT: &'static str = "Pause all the processes in one or more containers";
    const USAGE: &'static str = "[options] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] =
        &["pause mywebserver", "pause 860a4b23", "pause --all"];

    fn run(self, context: &Context) -> Outcome {
        each(&self.which, context, true)
    }
}

impl Command for Unpause {
    const ABOUT: &'static str = "Unpause the processes in one or more containers";
    const USAGE: &'static str = "[options] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] = &["unpause ctrID", "unpause --all"];

    fn run(self, context: &Context) -> Outcome {
        each(&self.which, context, false)
    }
}

fn each(which: &PauseArgs, context: &Context, pause: bool) -> Outcome {
    let engine = context.engine()?;
    let selection = Selection {
        names: &which.names,
        all: which.all,
        latest: which.latest,
        cidfiles: &which.cidfile,
        filters: &which.filter,
        of_all: Some(match pause {
            true => |c| c.state.status == Status::Running,
            false => |c| c.state.status == Status::Paused,
        }),
        ..Selection::default()
    };
    let names = selection.resolve(&engine)?;
    each_named(&names, |name| {
        match pause {
            true => engine.pause(name)?,
            false => engine.unpause(name)?,
        };
        Ok(())
    })
}
