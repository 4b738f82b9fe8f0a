//! `rcon update`

use clap::Args;
use rcon_engine::RestartPolicy;

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
    /// Restart policy to apply when a container exits ("always"|"no"|"on-failure[:max_retries]"|"unless-stopped")
    #[arg(long)]
    restart: Option<String>,
    #[command(flatten)]
    limits: LimitArgs,
    names: Vec<String>,
}

impl Command for Update {
    const ABOUT: &'static str = "Update the limits and the restart policy of an existing container";
    const USAGE: &'static str = "[options] CONTAINER";
    const EXAMPLES: &'static [&'static str] = &[
        "update --cpus=5 foobar_container",
        "update --restart on-failure:3 foobar_container",
    ];

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
        let restart = self.restart.as_deref().map(RestartPolicy::parse);
        let restart = restart.transpose().map_err(Failure::new)?;
        let engine = context.engine()?;
        let name = select::one(
            &engine,
            &mut names,
            self.latest,
            "you must provide a name or id",
        )?;
        let id = engine.update(&name, &changes, restart)?;
        output::println(&id)?;
        Ok(0)
    }
}
