//! `rcon rename`

use clap::Args;

use crate::app::Command;
use crate::context::Context;
use crate::failure::Outcome;
use crate::usage::arity;

/// The arguments of `rename`.
#[derive(Args, Debug)]
pub struct Rename {
    args: Vec<String>,
}

impl Command for Rename {
    const ABOUT: &'static str = "Rename an existing container";
    const USAGE: &'static str = "CONTAINER NAME";
    const EXAMPLES: &'static [&'static str] = &["rename containerA newName"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 2, 2)?;
        context.engine()?.rename(&self.args[0], &self.args[1])?;
        Ok(0)
    }
}
