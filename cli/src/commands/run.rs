//! `rcon run`

use std::io::IsTerminal;

use clap::Args;
use rcon_engine::{
    DetachKeys, Engine, Error, Outcome as Ended, RelayOptions, StartRequest, Streams,
};

use super::container_args::ContainerArgs;
use super::container_request;
use super::descriptors;
use crate::app::Command;
use crate::containers_conf::Defaults;
use crate::context::Context;
use crate::failure::{Failure, GONE_READER, Outcome};
use crate::output;
use crate::usage::{parse_bool, split_lists};

/// The arguments of `run`.
#[derive(Args, Debug)]
pub struct Run {
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short = 'a', long)]
    attach: Vec<String>,
    /// Run container in background and print container ID
    #[arg(short = 'd', long)]
    detach: bool,
    /// Override the key sequence for detaching a container (default "ctrl-p,ctrl-q")
    #[arg(long, value_name = "[a-Z]")]
    detach_keys: Option<String>,
    /// Pass down to the process the additional file descriptors specified in the comma separated list
    #[arg(long, value_name = "ints")]
    preserve_fd: Vec<String>,
    /// Pass a number of additional file descriptors into the container
    #[arg(long, value_name = "uint")]
    preserve_fds: Option<u32>,
    /// Remove image after exit unless used by other containers, implies --rm
    #[arg(long)]
    rmi: bool,
    /// Proxy received signals to the process (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    sig_proxy: Option<bool>,
    #[command(flatten)]
    container: ContainerArgs,
}

impl Command for Run {
    const ABOUT: &'static str = "Run a command in a new container";
    const USAGE: &'static str = "[options] IMAGE [COMMAND [ARG...]]";
    const EXAMPLES: &'static [&'static str] = &[
        "run --rm -it docker.io/library/alpine",
        "run -d --name webserver -p 8080:80 quay.io/libpod/banner",
        "run --network=none --volume /var/hostdir:/var/ctrdir fedora ls /var/ctrdir",
    ];

    fn run(self, context: &Context) -> Outcome {
        let Run {
            attach,
            detach,
            detach_keys,
            preserve_fd,
            preserve_fds,
            rmi,
            sig_proxy,
            mut container,
        } = self;
        let attach = split_lists(&attach);
        if detach && !attach.is_empty() {
            return Err(Failure::new(
                "--detach and --attach can not be used together",
            ));
        }
        if rmi && detach {
            return Err(Failure::new(
                "--rmi and --detach can not be used together: nobody is left to remove the image",
            ));
        }
        container.rm |= rmi;
        let image = container.args.first().cloned().unwrap_or_default();
        let inherit =
            descriptors::inherit(preserve_fds.unwrap_or(0), &split_lists(&preserve_fd), true)?;
        let (tty, interactive) = (container.tty, container.interactive);
        let streams = streams(&attach, interactive)?;
        let terminal = tty && !detach;
        let relay = relay_options(detach_keys.as_deref(), sig_proxy.unwrap_or(true), terminal)?;
        if tty && interactive && !std::io::stdin().is_terminal() {
            context.warn("The input device is not a TTY. The --tty and --interactive flags might not work properly");
        }
        let (engine, request, ahead) = container_request::make(container, context, true)?;
        if detach {
            let logout = engine.logout_hint();
            let start = StartRequest {
                attach: None,
                inherit,
                hold: false,
            };
            let (container, _) = engine.run(request, &start, ahead)?;
            output::println(container.id())?;
            context.log_trace();
            if let Some(hint) = logout {
                output::error_line("hint:", &hint);
            }
            return Ok(0);
        }
        match engine.run(
            request,
            &StartRequest {
                attach: Some(streams),
                inherit,
                hold: false,
            },
            ahead,
        )? {
            (_, Some(session)) => {
                let end = session.relay(&relay)?;
                context.log_trace();
                if rmi
                    && matches!(end, Ended::Exited(_))
                    && let Err(failure) = remove_image(&engine, &image)
                {
                    // How the program ended is what counts.
                    failure.report();
                }
                ended(end)
            }
            (_, None) => Ok(0),
        }
    }
}

/// The image of a container that has ended, unless others use it.
fn remove_image(engine: &Engine, name: &str) -> Result<(), Failure> {
    match engine.remove_image(name, false) {
        Ok(_) | Err(Error::ImageInUse { .. } | Error::NoSuchImage(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How the calling terminal is to behave. Where there may be one, the keys may be in a configuration file.
///
/// # Errors
/// For keys that are none.
pub fn relay_options(
    keys: Option<&str>,
    sig_proxy: bool,
    terminal: bool,
) -> Result<RelayOptions, Failure> {
    let usual = match keys {
        None if terminal => Defaults::load()?.detach_keys,
        _ => None,
    };
    let detach_keys = keys
        .or(usual.as_deref())
        .map_or_else(|| Ok(DetachKeys::default()), DetachKeys::parse)?;
    Ok(RelayOptions {
        detach_keys,
        sig_proxy,
    })
}

/// The exit code that a connection's end gives us.
///
/// # Errors
/// None; it is an [`Outcome`] so that commands can end with it.
pub fn ended(end: Ended) -> Outcome {
    Ok(match end {
        // Exit codes are eight bits wide, as wait(2) has them.
        Ended::Exited(code) => (code & 0xff) as u8,
        Ended::Detached => 0,
        Ended::GoneReader => GONE_READER,
    })
}

/// Which streams to connect: what `--attach` names, else output, and input when it is to be kept open.
fn streams(attach: &[String], interactive: bool) -> Result<Streams, Failure> {
    if attach.is_empty() {
        return Ok(Streams {
            stdin: interactive,
            ..Streams::OUTPUT
        });
    }
    let mut streams = Streams {
        stdin: false,
        stdout: false,
        stderr: false,
    };
    for name in attach {
        match name.to_ascii_lowercase().as_str() {
            "stdin" => streams.stdin = true,
            "stdout" => streams.stdout = true,
            "stderr" => streams.stderr = true,
            _ => {
                return Err(Failure::new(format!(
                    "invalid stream {name:?} for --attach - must be one of stdin, stdout, or stderr: invalid argument"
                )));
            }
        }
    }
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_to_connect() {
        assert_eq!(streams(&[], false).unwrap(), Streams::OUTPUT);
        assert_eq!(streams(&[], true).unwrap(), Streams::ALL);
        let only = streams(&["STDERR".into()], true).unwrap();
        assert_eq!(
            only,
            Streams {
                stdin: false,
                stdout: false,
                stderr: true
            }
        );
        assert!(streams(&["foo".into()], false).is_err());
    }

    #[test]
    fn ends() {
        assert_eq!(ended(Ended::Exited(137)).ok(), Some(137));
        assert_eq!(ended(Ended::Detached).ok(), Some(0));
    }
}
