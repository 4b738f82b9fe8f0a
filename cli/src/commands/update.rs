//! `rcon update`

use clap::Args;
use rcon_engine::bundle::parse;
use rcon_engine::{Error, RestartPolicy};

use super::health_args::HealthArgs;
use super::limit_args::LimitArgs;
use super::{container_request, select};
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::usage::arity;

/// The arguments of `update`.
#[derive(Args, Debug)]
pub struct Update {
    /// Set environment variables, from the next start on (NAME=VALUE)
    #[arg(short = 'e', long, value_name = "stringArray")]
    env: Vec<String>,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    /// Restart policy to apply when a container exits ("always"|"no"|"on-failure[:max_retries]"|"unless-stopped")
    #[arg(long)]
    restart: Option<String>,
    /// Unset environment variables, from the next start on
    #[arg(long, value_name = "stringArray")]
    unsetenv: Vec<String>,
    #[command(flatten)]
    health: HealthArgs,
    #[command(flatten)]
    limits: LimitArgs,
    names: Vec<String>,
}

impl Command for Update {
    const ABOUT: &'static str =
        "Update the limits, health checks, restart policy and variables of an existing container";
    const USAGE: &'static str = "[options] CONTAINER";
    const EXAMPLES: &'static [&'static str] = &[
        "update --cpus=5 foobar_container",
        "update --restart on-failure:3 foobar_container",
        "update --health-cmd 'wget -q localhost' --health-interval 10s foobar_container",
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
        let mut changes = self.limits.resolve()?;
        // Named with nothing they are taken away.
        changes.cpuset_cpus.clone_from(&self.limits.cpuset_cpus);
        changes.cpuset_mems.clone_from(&self.limits.cpuset_mems);
        let restart = self.restart.as_deref().map(RestartPolicy::parse);
        let restart = restart.transpose().map_err(Failure::new)?;
        let none: &[&str] = &[];
        let env = parse::environment(none, &self.env, &container_request::caller_environment())
            .map_err(Error::from)?;
        let engine = context.engine()?;
        let name = select::one(
            &engine,
            &mut names,
            self.latest,
            "you must provide a name or id",
        )?;
        let id = engine.update(&name, &changes, |config| {
            config.restart = restart.unwrap_or(config.restart);
            let options = &mut config.options;
            for name in &self.unsetenv {
                let of = |entry: &String| entry.split('=').next() == Some(name);
                options.env.retain(|(other, _)| other != name);
                options.env_merge.retain(|entry| !of(entry));
                options.unsetenv.push(name.clone());
            }
            for (name, value) in &env {
                options.unsetenv.retain(|other| other != name);
                options.env.retain(|(other, _)| other != name);
                options.env.push((name.clone(), value.clone()));
            }
            self.health.change(&mut config.lifecycle.health)
        })?;
        output::println(&id)?;
        Ok(0)
    }
}
