//! `rcon container exists` and `rcon image exists`

use clap::Args;
use rcon_engine::Error;

use crate::app::Command;
use crate::context::Context;
use crate::failure::Outcome;
use crate::usage::arity;

/// The arguments of `container exists`.
#[derive(Args, Debug)]
pub struct ContainerExists {
    /// Check external storage containers as well as containers of rcon, of which there are none
    #[arg(long)]
    external: bool,
    args: Vec<String>,
}

impl Command for ContainerExists {
    const ABOUT: &'static str = "Check if a container exists in local storage";
    const USAGE: &'static str = "[options] CONTAINER";
    const EXAMPLES: &'static [&'static str] =
        &["container exists ctrID || rcon run --name ctrID alpine"];

    fn run(self, context: &Context) -> Outcome {
        // There are none, so that the answer is the same.
        let _ = self.external;
        arity(&self.args, 1, 1)?;
        match context.engine()?.container(&self.args[0]) {
            Ok(_) => Ok(0),
            Err(Error::NoSuchContainer(_)) => Ok(1),
            Err(error) => Err(error.into()),
        }
    }
}

/// The arguments of `image exists`.
#[derive(Args, Debug)]
pub struct ImageExists {
    args: Vec<String>,
}

impl Command for ImageExists {
    const ABOUT: &'static str = "Check if an image exists in local storage";
    const USAGE: &'static str = "IMAGE";
    const EXAMPLES: &'static [&'static str] = &["image exists alpine || rcon pull alpine"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, 1)?;
        match context.engine()?.find_image(&self.args[0]) {
            Ok(_) => Ok(0),
            Err(Error::NoSuchImage(_)) => Ok(1),
            Err(error) => Err(error.into()),
        }
    }
}
