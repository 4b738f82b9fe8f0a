//! `rcon container cleanup`

use clap::Args;
use rcon_engine::RemoveRequest;

use super::select::Selection;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Outcome, each_named};

/// The arguments of `container cleanup`.
#[derive(Args, Debug)]
pub struct Cleanup {
    /// Cleanup all containers
    #[arg(short = 'a', long)]
    all: bool,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    /// After cleanup, remove the container entirely
    #[arg(long)]
    rm: bool,
    /// After cleanup, remove the image entirely
    #[arg(long)]
    rmi: bool,
    names: Vec<String>,
}

impl Command for Cleanup {
    const ABOUT: &'static str = "Clean up what containers left that have ended";
    const USAGE: &'static str = "[options] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] =
        &["container cleanup --latest", "container cleanup --all"];

    fn run(self, context: &Context) -> Outcome {
        let engine = context.engine()?;
        let names = Selection {
            names: &self.names,
            all: self.all,
            latest: self.latest,
            of_all: Some(|c| !c.state.status.has_process()),
            ..Selection::default()
        }
        .resolve(&engine)?;
        each_named(&names, |name| {
            let image = engine.clean_up(name)?;
            if self.rm || self.rmi {
                engine.remove(name, &RemoveRequest::default())?;
            }
            if self.rmi {
                engine.remove_image(&image, false)?;
            }
            Ok(())
        })
    }
}
