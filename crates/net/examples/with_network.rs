//! Runs a command in a network namespace of its own, served by this crate.
//!
//!     with_network [-p PORTS]… [-o SLIRP-OPTIONS] [--dns ADDRESS]… [--pid-file FILE] [--time] COMMAND…
//!
//! `-o` takes what podman's `--network slirp4netns:` takes. The command is root of a user
//! namespace with one id. `--pid-file` gets the command's process id, and `--time` says how long
//! the namespace took to set up. When the command ends, so does its network.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Instant;

use nix::sched::CloneFlags;
use rcon_net::{Config, Guest, Network, PortMapping};
use rcon_sys::ids::{self, IdMaps};
use rcon_sys::process::{self, Fork};

type Failure = Box<dyn std::error::Error>;

struct Arguments {
    config: Config,
    pid_file: Option<String>,
    time: bool,
    command: Vec<String>,
}

fn arguments() -> Result<Arguments, Failure> {
    let mut parsed = Arguments {
        config: Config::for_this_host(),
        pid_file: None,
        time: false,
        command: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or("an option lacks its value");
        match argument.as_str() {
            "-p" => parsed.config.ports.extend(PortMapping::parse(&value()?)?),
            "-o" => parsed.config.apply_slirp_options(&value()?)?,
            "--dns" => parsed.config.dns.push(value()?.parse()?),
            "--pid-file" => parsed.pid_file = Some(value()?),
            "--time" => parsed.time = true,
            _ => {
                parsed.command.push(argument);
                parsed.command.extend(arguments);
                break;
            }
        }
    }
    if parsed.command.is_empty() {
        return Err("say which command to run".into());
    }
    Ok(parsed)
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<ExitCode, Failure> {
    let Arguments {
        config,
        pid_file,
        time,
        command,
    } = arguments()?;
    let listeners = rcon_net::bind(&config.ports).inspect_err(|error| {
        if let Some(hint) = error.hint() {
            eprintln!("hint: {hint}");
        }
    })?;
    for mapping in listeners.mappings() {
        eprintln!(
            "{} {} -> {}",
            mapping.protocol, mapping.host_port, mapping.container_port
        );
    }
    let (ours, theirs) = rcon_sys::fdpass::pair()?;
    let namespaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET;
    let (pid, pidfd) = match process::clone(namespaces)? {
        Fork::Child => {
            drop((ours, listeners));
            let error = enter(&config, time, theirs.as_fd(), &command);
            eprintln!("Error: {error}");
            process::exit_now(125);
        }
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    ids::write_maps(pid, &IdMaps::single())?;
    let (_, mut taps) = rcon_sys::fdpass::recv_fds(&ours, &mut [0; 8])?;
    let tap = taps.pop().ok_or("the namespace could not be set up")?;
    let namespace = |name: &str| -> std::io::Result<OwnedFd> {
        Ok(File::open(format!("/proc/{}/ns/{name}", pid.as_raw_pid()))?.into())
    };
    let (userns, netns) = (namespace("user")?, namespace("net")?);
    let network = Network::start(Guest {
        config,
        tap,
        userns: Some(userns),
        netns,
        listeners,
        control: None,
        process: None,
    })?;
    if let Some(server) = network.process_id() {
        eprintln!("served by {server}");
    }
    if let Some(path) = pid_file {
        std::fs::write(path, format!("{}\n", pid.as_raw_pid()))?;
    }
    File::from(ours).write_all(b"go")?;

    let status = process::wait_pidfd(&pidfd)?;
    network.end();
    Ok(ExitCode::from(status.code().unwrap_or(128) as u8))
}

/// The first process in the namespace: sets the network up, hands the tap over, becomes the command.
fn enter(
    config: &Config,
    time: bool,
    socket: std::os::fd::BorrowedFd<'_>,
    command: &[String],
) -> Failure {
    let start = Instant::now();
    let taps = match rcon_net::set_up_namespace(config) {
        Ok(taps) => taps,
        Err(error) => return error.into(),
    };
    if time {
        eprintln!("namespace set up in {} µs", start.elapsed().as_micros());
    }
    let taps: Vec<_> = taps.iter().map(AsFd::as_fd).collect();
    if let Err(error) = rcon_sys::fdpass::send_fds(socket, b"tap", &taps) {
        return error.into();
    }
    if let Err(error) = rcon_sys::fdpass::recv_fds(socket, &mut [0; 8]) {
        return error.into();
    }
    Command::new(&command[0]).args(&command[1..]).exec().into()
}
