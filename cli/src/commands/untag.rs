//! `rcon untag`

use clap::Args;

use crate::app::Command;
use crate::context::Context;
use crate::failure::Outcome;
use crate::usage::arity;

/// The arguments of `untag`.
#[derive(Args, Debug)]
pub struct Untag {
    args: Vec<String>,
}

impl Command for Untag {
    const ABOUT: &'static str = "Remove a name from a local image";
    const USAGE: &'static str = "IMAGE [IMAGE...]";
    const EXAMPLES: &'static [&'static str] = &[
        "untag 0e3bbc2",
        "untag imageID:latest otherImageName:latest",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, usize::MAX)?;
        context.engine()?.untag(&self.args[0], &self.args[1..])?;
        Ok(0)
    }
}
