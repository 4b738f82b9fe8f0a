//! `rcon healthcheck run`

use chrono::{TimeDelta, Utc};
use clap::Args;
use rcon_engine::{Engine, HealthStatus};

use crate::app::Command;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output;
use crate::usage::arity;

/// The arguments of `healthcheck run`.
#[derive(Args, Debug)]
pub struct Run {
    args: Vec<String>,
}

impl Command for Run {
    const ABOUT: &'static str = "Run the health check of a container";
    const USAGE: &'static str = "CONTAINER";
    const EXAMPLES: &'static [&'static str] = &["healthcheck run mywebapp"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, 1)?;
        let name = &self.args[0];
        let engine = context.engine()?;
        match engine.check_health(name)? {
            HealthStatus::Healthy => Ok(0),
            // What came of this check, not what the container is taken for after it: that takes several.
            status => {
                let starting = status == HealthStatus::Starting && is_starting(&engine, name);
                output::println(if starting { "starting" } else { "unhealthy" })?;
                Ok(1)
            }
        }
    }
}

/// Whether its checks do not count yet.
fn is_starting(engine: &Engine, name: &str) -> bool {
    let Ok(container) = engine.container(name) else {
        return false;
    };
    let check = container.config.lifecycle.health.check.as_ref();
    let period = check.and_then(|check| TimeDelta::from_std(check.start_period).ok());
    let since = container.state.started.map(|started| Utc::now() - started);
    period
        .zip(since)
        .is_some_and(|(period, since)| since < period)
}
