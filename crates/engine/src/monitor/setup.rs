//! Starting the container: ports, files, namespaces, network, program, in this order, and nothing of it left on failure.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcon_launch::{NetworkFailure, Request, Rootfs, Running, Stdio};
use rcon_net::{Guest, PortMapping};
use rcon_store::Snapshot;
use rcon_sys::netlink::{Batch, LOOPBACK, Link};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Context, Error, Result};
use crate::record::{Container, Network};
use crate::{Engine, bundling, files, hostfiles, log, ports, protocol};

/// A container that has just been started.
pub(super) struct Started {
    pub running: Running,
    pub net: Option<rcon_net::Network>,
    /// The ports as they are bound.
    pub ports: Vec<PortMapping>,
    pub log: File,
    /// The control socket.
    pub listener: OwnedFd,
    /// The writing end of its standard input, when it has one.
    pub stdin: Option<OwnedFd>,
    /// The reading ends of its standard output and error, when it has no terminal.
    pub output: Option<(OwnedFd, OwnedFd)>,
}

/// Starts it.
pub(super) fn start(
    engine: &Engine,
    container: &Container,
    snapshot: &Snapshot,
) -> Result<Started> {
    let runtime = engine.paths.runtime(container.id());
    // What an earlier run left that was cut off.
    files::remove_tree(&runtime)?;
    files::make_dir(&runtime)?;
    let result = start_in(engine, container, snapshot, &runtime);
    if result.is_err() {
        let _ = files::remove_tree(&runtime);
    }
    result
}

fn start_in(
    engine: &Engine,
    container: &Container,
    snapshot: &Snapshot,
    runtime: &Path,
) -> Result<Started> {
    let config = &container.config;
    let listeners =
        rcon_net::bind(&config.ports).map_err(|error| ports::with_holder(engine, error))?;
    let ports = listeners.mappings().to_vec();
    let net = match &config.network {
        Network::Slirp(net) => {
            let servers = &config.names.servers;
            let dns = if servers.is_empty() {
                net.dns.clone()
            } else {
                servers.clone()
            };
            Some(rcon_net::Config {
                ports: ports.clone(),
                dns,
                host: hostfiles::host_address().filter(|host| net.cidr.contains(*host)),
                ..(**net).clone()
            })
        }
        Network::None | Network::Host => None,
    };
    let bundle = bundling::build(engine, config)?;
    hostfiles::write(
        runtime,
        config,
        bundle.spec.hostname().as_deref().unwrap_or_default(),
    )?;
    let path = engine.paths.container(container.id()).join(log::FILE);
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .on("open", &path)?;
    let listener = protocol::listen(runtime).on("listen in", runtime)?;
    let pipes = Pipes::new(config.options.tty, config.options.interactive)
        .context(|| "cannot make pipes".into())?;

    let in_netns: Option<rcon_launch::InNetns<'_>> = match (&config.network, &net) {
        (_, Some(net)) => Some(Box::new(|| {
            rcon_net::set_up_namespace(net).map_err(|error| NetworkFailure {
                message: error.to_string(),
                hint: error.hint(),
            })
        })),
        (Network::None, None) => Some(Box::new(loopback)),
        _ => None,
    };
    let created = rcon_launch::create(Request {
        spec: &bundle.spec,
        rootfs: Rootfs::Overlay {
            lower: snapshot.lower.clone(),
            upper: snapshot.upper.clone(),
            work: snapshot.work.clone(),
            volatile: config.auto_remove,
        },
        maps: &engine.maps,
        user: bundle.user.clone(),
        group_add: bundle.group_add.clone(),
        stdio: pipes.theirs,
        in_netns,
        init: config.options.init,
        create_cwd: bundle.create_cwd,
        preserve_fds: Vec::new(),
        cgroup: None,
    })?;
    let mut created = created;
    let net = match net {
        Some(net) => {
            let running = &mut created.running;
            let missing = || Error::Invalid("the container has no network namespace".into());
            let tap = running.passed.pop().ok_or_else(missing)?;
            let netns = running.netns.take().ok_or_else(missing)?;
            let userns = running
                .userns
                .try_clone()
                .context(|| "cannot start the network".into())?;
            // Without it nobody can look, which is no reason not to start.
            let control = protocol::listen_stream(runtime, protocol::NET).ok();
            Some(rcon_net::Network::start(Guest {
                config: net,
                tap,
                userns: Some(userns),
                netns,
                listeners,
                control,
                process: running.pidfd.try_clone().ok(),
            })?)
        }
        None => None,
    };
    let mut running = created.start()?;
    running.netns = None;
    Ok(Started {
        running,
        net,
        ports,
        log,
        listener,
        stdin: pipes.stdin,
        output: pipes.output,
    })
}

/// All that `--network none` has.
fn loopback() -> std::result::Result<Vec<OwnedFd>, NetworkFailure> {
    let mut batch = Batch::new();
    batch.link_up(Link {
        index: LOOPBACK,
        ..Link::default()
    });
    batch.send().map_err(|e| e.to_string())?;
    Ok(Vec::new())
}

/// Both sides of the container's standard streams.
struct Pipes {
    theirs: Stdio,
    stdin: Option<OwnedFd>,
    output: Option<(OwnedFd, OwnedFd)>,
}

impl Pipes {
    fn new(tty: bool, interactive: bool) -> std::io::Result<Pipes> {
        if tty {
            return Ok(Pipes {
                theirs: Stdio::Terminal { size: None },
                stdin: None,
                output: None,
            });
        }
        let (stdin, ours) = match interactive {
            true => pipe_with(PipeFlags::CLOEXEC).map(|(read, write)| (read, Some(write)))?,
            false => (File::open("/dev/null")?.into(), None),
        };
        let (out, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Pipes {
            theirs: Stdio::Fds {
                stdin,
                stdout,
                stderr,
            },
            stdin: ours,
            output: Some((out, err)),
        })
    }
}
