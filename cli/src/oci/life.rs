//! `start`, `kill` and `delete`.

use clap::Args;
use rcon_engine::bundle::parse;
use rcon_launch::oci::Runtime;

use super::globals::Globals;
use super::{Command, warn};
use crate::failure::{Failure, Outcome};

/// `rcon oci start`
#[derive(Args, Debug)]
pub struct Start {
    /// The id of the container
    id: String,
}

impl Command for Start {
    fn run(self, runtime: &Runtime, _: &Globals) -> Outcome {
        warn(&runtime.start(&self.id)?);
        Ok(0)
    }
}

/// `rcon oci kill`
#[derive(Args, Debug)]
pub struct Kill {
    /// Signal all processes of the container
    #[arg(short, long)]
    all: bool,
    /// The id of the container
    id: String,
    /// The signal, by its name or number
    #[arg(default_value = "TERM")]
    signal: String,
}

impl Command for Kill {
    fn run(self, runtime: &Runtime, _: &Globals) -> Outcome {
        // 0 asks whether there is anybody.
        let signal = match self.signal.as_str() {
            "0" => 0,
            word => parse::signal(word).map_err(|error| Failure::new(error.to_string()))?,
        };
        runtime.kill(&self.id, signal, self.all)?;
        Ok(0)
    }
}

/// `rcon oci delete`
#[derive(Args, Debug)]
pub struct Delete {
    /// Kill the container if it still runs; be content if there is none
    #[arg(short, long)]
    force: bool,
    /// The ids of the containers
    #[arg(required = true)]
    ids: Vec<String>,
}

impl Command for Delete {
    fn run(self, runtime: &Runtime, _: &Globals) -> Outcome {
        for id in &self.ids {
            warn(&runtime.delete(id, self.force)?);
        }
        Ok(0)
    }
}
