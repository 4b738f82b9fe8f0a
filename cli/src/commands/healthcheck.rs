//! `rcon healthcheck run`

use clap::Args;
use rcon_engine::HealthStatus;

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;

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
        let [name] = self.args.as_slice() else {
            return Err(Failure::new(format!(
                "accepts 1 arg(s), received {}",
                self.args.len()
            )));
        };
        match context.engine()?.check_health(name)? {
            HealthStatus::Healthy => Ok(0),
            status => {
                output::println(status.as_str())?;
                Ok(1)
            }
        }
    }
}
