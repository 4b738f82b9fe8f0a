//! `rcon tag`

use clap::Args;

use crate::app::Command;
use crate::context::Context;
use crate::failure::Outcome;
use crate::usage::arity;

/// The arguments of `tag`.
#[derive(Args, Debug)]
pub struct Tag {
    args: Vec<String>,
}

impl Command for Tag {
    const ABOUT: &'static str = "Add an additional name to a local image";
    const USAGE: &'static str = "IMAGE TARGET_NAME [TARGET_NAME...]";
    const EXAMPLES: &'static [&'static str] = &[
        "tag 0e3bbc2 fedora:latest",
        "tag httpd myregistryhost:5000/fedora/httpd:v2",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 2, usize::MAX)?;
        let engine = context.engine()?;
        for name in &self.args[1..] {
            engine.tag(&self.args[0], name)?;
        }
        Ok(0)
    }
}
