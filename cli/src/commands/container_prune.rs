//! `rcon container prune`

use clap::Args;
use rcon_engine::{Engine, Error, Filters, ListRequest, RemoveRequest, Status};

use super::confirm::confirmed;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
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
        for id in prune(&engine, filters)? {
            output::println(&id)?;
        }
        Ok(0)
    }
}

/// Removes the containers that do not run; their ids.
///
/// # Errors
/// Files that cannot be removed.
pub fn prune(engine: &Engine, filters: Filters) -> Result<Vec<String>, Failure> {
    let list = engine.list(&ListRequest {
        all: true,
        last: None,
        filters,
    })?;
    let mut removed = Vec::new();
    for container in list {
        if !matches!(container.state.status, Status::Created | Status::Exited) {
            continue;
        }
        match engine.remove(container.id(), &RemoveRequest::default()) {
            Ok(id) => removed.push(id),
            // Started, or removed, meanwhile.
            Err(Error::RemoveRunning(_) | Error::NoSuchContainer(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(removed)
}
