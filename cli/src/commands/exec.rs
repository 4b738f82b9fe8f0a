//! `rcon exec`

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use rcon_engine::bundle::parse;
use rcon_engine::{Error, ExecOutcome, ExecRequest};

use super::{container_request, descriptors, run, select};
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::usage::split_lists;

/// The arguments of `exec`.
#[derive(Args, Debug)]
pub struct Exec {
    /// Read the container ID from the file
    #[arg(long)]
    cidfile: Option<PathBuf>,
    /// Run the exec session in detached mode (backgrounded)
    #[arg(short = 'd', long)]
    detach: bool,
    /// Select the key sequence for detaching a container (default "ctrl-p,ctrl-q")
    #[arg(long)]
    detach_keys: Option<String>,
    /// Set environment variables
    #[arg(short = 'e', long, value_name = "stringArray")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long)]
    env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long)]
    interactive: bool,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    /// Pass down to the process the additional file descriptors specified in the comma separated list
    #[arg(long, value_name = "ints")]
    preserve_fd: Vec<String>,
    /// Pass N additional file descriptors to the container
    #[arg(long, value_name = "uint")]
    preserve_fds: Option<u32>,
    /// Give the process extended Linux capabilities inside the container
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short = 't', long)]
    tty: bool,
    /// Sets the username or UID used and optionally the groupname or GID for the specified command
    #[arg(short = 'u', long)]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short = 'w', long)]
    workdir: Option<String>,
    #[arg(trailing_var_arg = true)]
    args: Vec<String>,
}

impl Command for Exec {
    const ABOUT: &'static str = "Run a process in a running container";
    const USAGE: &'static str = "[options] CONTAINER [COMMAND [ARG...]]";
    const EXAMPLES: &'static [&'static str] = &[
        "exec -it ctrID ls",
        "exec -it -w /tmp myCtr pwd",
        "exec --user root ctrID ls",
    ];

    fn run(mut self, context: &Context) -> Outcome {
        let relay = run::relay_options(self.detach_keys.as_deref(), true, self.tty)?;
        let inherit = descriptors::inherit(
            self.preserve_fds.unwrap_or(0),
            &split_lists(&self.preserve_fd),
            false,
        )?;
        let host_env = container_request::caller_environment();
        let env = parse::environment(&split_lists(&self.env_file), &self.env, &host_env)
            .map_err(Error::from)?;
        if let Some(path) = &self.cidfile {
            if self.latest {
                return Err(Failure::new(
                    "--cidfile and --latest cannot be used together",
                ));
            }
            self.args.insert(0, select::in_file(path)?);
        }
        if self.args.is_empty() && !self.latest {
            return Err(Failure::new(
                "exec requires the name or ID of a container or the --latest flag",
            ));
        }
        if self.tty && self.interactive && !std::io::stdin().is_terminal() {
            context.warn("The input device is not a TTY. The --tty and --interactive flags might not work properly");
        }
        let engine = context.engine()?;
        let name = select::one(&engine, &mut self.args, self.latest, "")?;
        if self.args.is_empty() {
            // A container that is not there is the graver mistake.
            engine.container(&name)?;
            return Err(Failure::new(
                "must provide a non-empty command to start an exec session: invalid argument",
            )
            .code(255));
        }
        let request = ExecRequest {
            command: self.args,
            tty: self.tty,
            interactive: self.interactive,
            detach: self.detach,
            env,
            user: self.user,
            workdir: self.workdir,
            privileged: self.privileged,
            relay,
            inherit,
        };
        match engine.exec(&name, &request)? {
            ExecOutcome::Ended(end) => run::ended(end),
            ExecOutcome::Started(id) => {
                output::println(&id)?;
                Ok(0)
            }
        }
    }
}
