//! `rcon unshare`

use clap::Args;

use crate::app::Command;
use crate::context::Context;
use crate::failure::Outcome;

/// The arguments of `unshare`.
#[derive(Args, Debug)]
pub struct Unshare {
    #[arg(trailing_var_arg = true)]
    args: Vec<String>,
}

impl Command for Unshare {
    const ABOUT: &'static str = "Run a command in a modified user namespace";
    const USAGE: &'static str = "[options] [COMMAND [ARG...]]";
    const EXAMPLES: &'static [&'static str] = &["unshare id", "unshare cat /proc/self/uid_map"];

    fn run(self, context: &Context) -> Outcome {
        let command = match self.args.is_empty() {
            false => self.args,
            true => vec![
                std::env::var("SHELL")
                    .ok()
                    .filter(|s| !s.is_empty())
                    .unwrap_or_else(|| "/bin/sh".into()),
            ],
        };
        Ok((context.engine()?.unshare(&command)? & 0xff) as u8)
    }
}
