//! `rcon start`

use clap::Args;
use rcon_engine::{StartRequest, Streams};

use super::select::Selection;
use super::{descriptors, run};
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome, each_named};
use crate::usage::parse_bool;

/// The arguments of `start`.
#[derive(Args, Debug)]
pub struct Start {
    /// Start all containers that do not run
    #[arg(long)]
    all: bool,
    /// Attach container's STDOUT and STDERR
    #[arg(short = 'a', long)]
    attach: bool,
    /// Select the key sequence for detaching a container (default "ctrl-p,ctrl-q")
    #[arg(long, value_name = "[a-Z]")]
    detach_keys: Option<String>,
    /// Filter output based on conditions given
    #[arg(short = 'f', long)]
    filter: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long)]
    interactive: bool,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    /// Proxy received signals to the process (default true if attaching, false otherwise)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    sig_proxy: Option<bool>,
    names: Vec<String>,
}

const TOO_MANY: &str = "you cannot start and attach multiple containers at once";

impl Command for Start {
    const ABOUT: &'static str = "Start one or more containers";
    const USAGE: &'static str = "[options] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] = &[
        "start 860a4b231279 5421ab43b45",
        "start --interactive --attach ctrID",
    ];

    fn run(self, context: &Context) -> Outcome {
        if self.names.len() > 1 && self.attach {
            return Err(Failure::new(TOO_MANY));
        }
        if self.sig_proxy == Some(true) && !self.attach {
            return Err(Failure::new(
                "you cannot use sig-proxy without --attach: invalid argument",
            ));
        }
        let inherit = descriptors::inherit(0, &[], true)?;
        let engine = context.engine()?;
        let names = Selection {
            names: &self.names,
            all: self.all,
            latest: self.latest,
            filters: &self.filter,
            of_all: Some(|c| !c.state.status.is_alive()),
            nothing: "start requires at least one argument",
            ..Selection::default()
        }
        .resolve(&engine)?;
        if let (true, [name, others @ ..]) = (self.attach, &names[..]) {
            if !others.is_empty() {
                return Err(Failure::new(TOO_MANY));
            }
            let options = engine.container(name)?.config.options;
            // The input of a container that keeps it open, as it was created.
            let streams = Streams {
                stdin: self.interactive && options.interactive,
                ..Streams::OUTPUT
            };
            let relay = run::relay_options(
                self.detach_keys.as_deref(),
                self.sig_proxy.unwrap_or(true),
                true,
            )?;
            return match engine.start(
                name,
                &StartRequest {
                    attach: Some(streams),
                    inherit,
                    hold: false,
                },
            )? {
                Some(session) => run::ended(session.relay(&relay)?),
                None => Ok(0),
            };
        }
        // Nothing is started when one of them is not there.
        for name in &names {
            engine.container(name)?;
        }
        let request = StartRequest {
            attach: None,
            inherit,
            hold: false,
        };
        each_named(&names, |name| Ok(engine.start(name, &request).map(drop)?))
    }
}
