//! `rcon container prune`

use clap::Args;
use rcon_engine::{Engine, Error, Filters, ListRequest, RemoveRequest, Status};

use super::confirm::confirmed;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{GENERAL, Outcome, for_each};
use crate::output;
use crate::usage::arity;

/// The arguments of `container prune`.
#[derive(Args, Debug)]
pub struct ContainerPrune {
    /// Remove only containers that meet this: label, until
    #[arg(long)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short = 'f', long)]
    force: bool,
    args: Vec<String>,
}

impl Command for ContainerPrune {
    const ABOUT: &'static str = "Remove all non running containers";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &[
        "container prune",
        "container prune --force --filter until=24h",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 0, 0)?;
        let filters = super::select::filters(&self.filter)?;
        let engine = context.engine()?;
        if !self.force && !confirmed("This will remove all non running containers.")? {
            return Ok(0);
        }
        let mut removed = Vec::new();
        let outcome = prune(&engine, filters, &mut removed);
        for id in removed {
            output::println(&id)?;
        }
        outcome
    }
}

/// Removes the containers that do not run, as far as they can be; their ids are added to `removed`.
///
/// # Errors
/// When they cannot be listed, and after ctrl-c.
pub fn prune(engine: &Engine, filters: Filters, removed: &mut Vec<String>) -> Outcome {
    let list = engine.list(&ListRequest {
        all: true,
        last: None,
        filters,
    })?;
    let list = list
        .into_iter()
        .filter(|c| matches!(c.state.status, Status::Created | Status::Exited));
    for_each(
        list,
        |container| {
            match engine.remove(container.id(), &RemoveRequest::default()) {
                Ok(id) => removed.push(id),
                // Started, or removed, meanwhile.
                Err(Error::RemoveRunning(_) | Error::NoSuchContainer(_)) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(())
        },
        |_| GENERAL,
    )
}
