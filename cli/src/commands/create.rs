//! `rcon create`

use clap::Args;

use super::container_args::ContainerArgs;
use super::container_request;
use crate::app::Command;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output;

/// The arguments of `create`.
#[derive(Args, Debug)]
pub struct Create {
    #[command(flatten)]
    container: ContainerArgs,
}

impl Command for Create {
    const ABOUT: &'static str = "Create but do not start a container";
    const USAGE: &'static str = "[options] IMAGE [COMMAND [ARG...]]";
    const EXAMPLES: &'static [&'static str] =
        &["create alpine ls", "create -t -i --name myctr alpine ls"];

    fn run(self, context: &Context) -> Outcome {
        let (engine, request, _) = container_request::make(self.container, context, false)?;
        let container = engine.create(request)?;
        output::println(container.id())?;
        Ok(0)
    }
}
