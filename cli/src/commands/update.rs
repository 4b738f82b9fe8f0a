//! `rcon update`

use clap::Args;

use super::limit_args::LimitArgs;
use super::select;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::usage::arity;

/// The arguments of `update`.
#[derive(Args, Debug)]
pub struct Update {
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    #[command(flatten)]
    limits: LimitArgs,
    names: Vec<String>,
}

impl Command for Update {
    const ABOUT: &'static str = "Update the limits of an existing container";
    const USAGE: &'static str = "[options] CONTAINER";
    const EXAMPLES: &'static [&'static str] = &["update --cpus=5 foobar_container"];

    fn run(self, context: &Context) -> Outcome {
        let mut names = self.names;
        if self.latest && !names.is_empty() {
            return Err(Failure::new(
                "--latest and containers cannot be used together",
            ));
        }
        if !self.latest {
            arity(&names, 1, 1)?;
        }
        let changes = self.limits.resolve()?;
        let engine = context.engine()?;
        let name = select::one(
            &engine,
            &mut names,
            self.latest,
            "you must provide a name or id",
        )?;
        let id = engine.update(&name, &changes)?;
        output::println(&id)?;
        Ok(0)
    }
}
