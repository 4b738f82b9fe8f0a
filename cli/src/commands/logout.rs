//! `rcon logout`

use std::path::PathBuf;

use clap::Args;
use rcon_engine::image::auth::{self, AuthOptions};

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::usage::arity;

/// The arguments of `logout`.
#[derive(Args, Debug)]
pub struct Logout {
    /// Remove the cached credentials for all registries in the auth file
    #[arg(short = 'a', long)]
    all: bool,
    /// Path of the authentication file. Use REGISTRY_AUTH_FILE environment variable to override
    #[arg(long)]
    authfile: Option<PathBuf>,
    args: Vec<String>,
}

impl Command for Logout {
    const ABOUT: &'static str = "Logout of a container registry";
    const USAGE: &'static str = "[options] [REGISTRY]";
    const EXAMPLES: &'static [&'static str] = &["logout quay.io", "logout --all"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 0, 1)?;
        let options = AuthOptions {
            authfile: self.authfile,
            ..AuthOptions::default()
        };
        let engine = context.engine()?;
        if self.all {
            if !self.args.is_empty() {
                return Err(Failure::new("--all takes no arguments"));
            }
            engine.logout_all(&options)?;
            output::println("Removed login credentials for all registries")?;
            return Ok(0);
        }
        let registry = self
            .args
            .first()
            .cloned()
            .unwrap_or_else(auth::default_registry);
        if !engine.logout(&registry, &options)? {
            return Err(Failure::new(format!("not logged into {registry}")));
        }
        output::println(&format!("Removed login credentials for {registry}"))?;
        Ok(0)
    }
}
