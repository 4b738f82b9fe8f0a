//! `rcon attach`

use clap::Args;
use rcon_engine::Streams;

use super::{run, select};
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::usage::parse_bool;

/// The arguments of `attach`.
#[derive(Args, Debug)]
pub struct Attach {
    /// Select the key sequence for detaching a container (default "ctrl-p,ctrl-q")
    #[arg(long, value_name = "[a-Z]")]
    detach_keys: Option<String>,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    /// Do not attach STDIN. The default is false
    #[arg(long)]
    no_stdin: bool,
    /// Proxy received signals to the process (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    sig_proxy: Option<bool>,
    args: Vec<String>,
}

impl Command for Attach {
    const ABOUT: &'static str = "Attach to a running container";
    const USAGE: &'static str = "[options] CONTAINER";
    const EXAMPLES: &'static [&'static str] = &["attach ctrID", "attach --no-stdin foobar"];

    fn run(mut self, context: &Context) -> Outcome {
        let nothing = "attach requires the name or id of one running container or the latest flag";
        if self.args.len() > 1 || self.latest && !self.args.is_empty() {
            return Err(Failure::new(nothing));
        }
        let engine = context.engine()?;
        let name = select::one(&engine, &mut self.args, self.latest, nothing)?;
        let options = engine.container(&name)?.config.options;
        let relay = run::relay_options(
            self.detach_keys.as_deref(),
            self.sig_proxy.unwrap_or(true),
            true,
        )?;
        let streams = Streams {
            stdin: !self.no_stdin && options.interactive,
            ..Streams::OUTPUT
        };
        run::ended(engine.attach(&name, streams)?.relay(&relay)?)
    }
}
