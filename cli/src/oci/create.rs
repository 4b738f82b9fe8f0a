//! `create` and `run`.

use std::path::PathBuf;

use chrono::{SecondsFormat, Utc};
use clap::Args;
use rcon_launch::oci::{Console, CreateOptions, Loaded, Runtime};

use super::globals::Globals;
use super::{Command, relay, warn};
use crate::failure::{Failure, Outcome};

/// What both commands are told.
#[derive(Args, Debug)]
pub struct Making {
    /// The folder of the bundle (default: the current one)
    #[arg(short, long)]
    bundle: Option<PathBuf>,
    /// The specification, where it is not config.json of the bundle
    #[arg(short = 'f', long)]
    config: Option<PathBuf>,
    /// A socket that gets the master of the terminal
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// A file that gets the number of the first process
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// Change to the root filesystem without pivot_root
    #[arg(long)]
    no_pivot: bool,
    /// Leave the container the session keyring of the caller
    #[arg(long)]
    no_new_keyring: bool,
    /// Pass on so many descriptors, from 3 on
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// The id of the container
    id: String,
}

impl Making {
    fn resolve(self, globals: &Globals) -> Result<(String, Loaded, CreateOptions), Failure> {
        if self.no_pivot {
            return Err(Failure::new(
                "--no-pivot is not supported: the old root would stay in reach of the container",
            ));
        }
        // Sockets that systemd passes come after those that are asked for.
        let own = std::process::id().to_string();
        let activated = match std::env::var("LISTEN_PID") {
            Ok(pid) if pid == own => std::env::var("LISTEN_FDS").ok(),
            _ => None,
        };
        let activated = activated.and_then(|count| count.parse::<u32>().ok());
        // Before anything else is opened, which could be taken for what we were started with.
        let count = self.preserve_fds.saturating_add(activated.unwrap_or(0));
        let preserve_fds = super::inherited(count)?;
        let bundle = self.bundle.unwrap_or_else(|| ".".into());
        let loaded = Loaded::read(&bundle, self.config.as_deref())?;
        globals.warn(&loaded.warnings);
        let options = CreateOptions {
            console_socket: self.console_socket,
            pid_file: self.pid_file,
            preserve_fds,
            manager: globals.manager(),
            no_new_keyring: self.no_new_keyring,
            created: Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true),
        };
        Ok((self.id, loaded, options))
    }
}

/// `rcon oci create`
#[derive(Args, Debug)]
pub struct Create {
    #[command(flatten)]
    making: Making,
}

impl Command for Create {
    fn run(self, runtime: &Runtime, globals: &Globals) -> Outcome {
        let (id, bundle, options) = self.making.resolve(globals)?;
        runtime.create(&id, &bundle, &options)?;
        Ok(0)
    }
}

/// `rcon oci run`
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    making: Making,
    /// Leave the container to itself once it runs
    #[arg(short, long)]
    detach: bool,
    /// Keep what is known of the container when it has ended
    #[arg(long)]
    keep: bool,
    /// Do not become the parent of orphans of the container
    #[arg(long)]
    no_subreaper: bool,
}

impl Command for Run {
    fn run(self, runtime: &Runtime, globals: &Globals) -> Outcome {
        let (id, bundle, options) = self.making.resolve(globals)?;
        let console = match (&options.console_socket, self.detach) {
            (Some(path), _) => Console::Sent(path),
            (None, true) => Console::None,
            (None, false) => Console::Kept,
        };
        if self.detach {
            runtime.run(&id, &bundle, &options, console)?;
            return Ok(0);
        }
        if !self.no_subreaper {
            // What the container leaves in our process namespace shall not outlive it unseen.
            let _ = rcon_sys::process::set_subreaper();
        }
        let signals = relay::Signals::take()?;
        let foreground = runtime.run(&id, &bundle, &options, console)?;
        let running = &foreground.running;
        let code = relay::attend(&running.pidfd, running.console.as_ref(), signals)?;
        if !self.keep {
            warn(&runtime.delete(&id, true)?);
        }
        Ok(code)
    }
}
