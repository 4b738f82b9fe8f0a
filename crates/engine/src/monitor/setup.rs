//! Starting the container: ports, files, namespaces, network, program, in this order, and nothing of it left on failure.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use chrono::Utc;
use oci_spec::runtime::{Mount, Spec};
use rcon_launch::{NetworkFailure, Request, Rootfs, Running, Stdio};
use rcon_net::{Guest, PortMapping};
use rcon_store::Snapshot;
use rcon_sys::netlink::{Batch, LOOPBACK, Link};
use rcon_sys::trace;
use rustix::pipe::{PipeFlags, pipe_with};

use super::notify::{self, Notify};
use crate::error::{Context, Error, Result};
use crate::files::Durable;
use crate::given;
use crate::health::HealthState;
use crate::joining::Joined;
use crate::lifecycle::LogDriver;
use crate::log::Log;
use crate::record::{Config, Container, Network, ProcessRef, State, Status};
use crate::{Engine, bundling, files, hostfiles, limits, ports, protocol, records};

/// What each start of a container is made of, beside its record.
pub(super) struct Given {
    /// Its root file system.
    pub snapshot: Snapshot,
    /// Files of the command that started it.
    pub files: given::Given,
}

/// A container that has just been started.
pub(super) struct Started {
    pub running: Running,
    pub net: Option<rcon_net::Network>,
    pub log: Log,
    /// The way to systemd.
    pub notify: Option<Notify>,
    /// The control socket.
    pub listener: OwnedFd,
    /// The writing end of its standard input, when it has one.
    pub stdin: Option<OwnedFd>,
    /// The reading ends of its standard output and error, when it has no terminal.
    pub output: Option<(OwnedFd, OwnedFd)>,
}

/// Starts it. That it runs is written down before its program does anything: whatever happens to us, it is known.
pub(super) fn start(engine: &Engine, container: &mut Container, given: &Given) -> Result<Started> {
    let runtime = engine.paths.runtime(container.id());
    // What an earlier run left that was cut off.
    files::remove_tree(&runtime)?;
    files::make_dir(&runtime)?;
    let before = container.state.clone();
    let result = start_in(engine, container, given, &runtime);
    if result.is_err() {
        let _ = files::remove_tree(&runtime);
        if container.state.status != before.status {
            container.state = before;
            unwrite(engine, container);
        }
    }
    result
}

/// Writes down that the container runs.
fn write_down(
    engine: &Engine,
    config: &Config,
    state: &mut State,
    running: &Running,
    ports: &[PortMapping],
) -> Result<()> {
    let pid = running.pid.as_raw_nonzero().get();
    let process = ProcessRef::of(pid).ok_or_else(|| {
        Error::Invalid("the container ended before its monitor could look at it".into())
    })?;
    let lifecycle = &config.lifecycle;
    *state = State {
        status: Status::Running,
        process: Some(process),
        monitor: ProcessRef::of(std::process::id().cast_signed()),
        boot_id: records::boot_id(),
        started: Some(Utc::now()),
        ports: ports.to_vec(),
        restarts: state.restarts,
        health: lifecycle
            .health
            .check
            .as_ref()
            .map(|_| HealthState::default()),
        ..State::default()
    };
    records::save_state(&engine.paths.container(&config.id), state, Durable::No)?;
    write_number(lifecycle.pidfile.as_deref(), pid)?;
    write_number(
        lifecycle.conmon_pidfile.as_deref(),
        std::process::id().cast_signed(),
    )
}

/// Takes that back: the container is as it was before.
fn unwrite(engine: &Engine, container: &Container) {
    let dir = engine.paths.container(container.id());
    let _ = match container.state.status {
        Status::Created => files::remove_file(&dir.join("state.json")),
        _ => records::save_state(&dir, &container.state, Durable::No),
    };
}

fn write_number(path: Option<&Path>, number: i32) -> Result<()> {
    match path {
        Some(path) => std::fs::write(path, number.to_string()).on("write", path),
        None => Ok(()),
    }
}

fn start_in(
    engine: &Engine,
    container: &mut Container,
    given: &Given,
    runtime: &Path,
) -> Result<Started> {
    let (config, snapshot) = (&container.config, &given.snapshot);
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
        Network::None | Network::Host | Network::Container(_) | Network::Path(_) => None,
    };
    let joined = Joined::find(engine, config)?;
    let mut bundle = bundling::build(engine, config)?;
    if let Some(joined) = &joined {
        joined.apply(&mut bundle.spec);
    }
    trace::mark("specification made");
    let why = || "cannot reach systemd".to_string();
    let notify = Notify::new(config.lifecycle.sdnotify, runtime).context(why)?;
    extend(&mut bundle.spec, notify.as_ref(), &given.files, runtime);
    let shown = joined.as_ref().map(|joined| joined.view(config));
    hostfiles::write(
        runtime,
        shown.as_ref().unwrap_or(config),
        bundle.spec.hostname().as_deref().unwrap_or_default(),
    )?;
    let dir = engine.paths.container(&config.id);
    let log = Log::open(&dir, config).context(|| "cannot open the log".into())?;
    let listener = protocol::listen(runtime).on("listen in", runtime)?;
    let pipes = Pipes::new(config, &given.files).context(|| "cannot make pipes".into())?;
    let preserve_fds = given
        .files
        .copies()
        .context(|| "cannot copy the files to hand on".into())?;

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
    let rootfs = Rootfs::Overlay {
        lower: snapshot.lower.clone(),
        upper: snapshot.upper.clone(),
        work: snapshot.work.clone(),
        volatile: config.auto_remove,
    };
    let created = rcon_launch::create(Request {
        // Also of the specification's own user, the files of the image say the groups.
        user: Some(bundle.user.clone().unwrap_or_default()),
        group_add: bundle.group_add.clone(),
        in_netns,
        init: config.options.init,
        create_cwd: bundle.create_cwd,
        preserve_fds,
        cgroup: limits::settings(config, false)?,
        emulation: engine.emulation(config),
        ..Request::new(&bundle.spec, rootfs, &engine.maps, pipes.theirs)
    })?;
    let mut created = created;
    trace::mark("container set up");
    if let Some(cgroup) = &created.running.cgroup {
        limits::note(&engine.paths, container.id(), cgroup)?;
    }
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
    trace::mark("network served");
    write_down(
        engine,
        config,
        &mut container.state,
        &created.running,
        &ports,
    )?;
    let mut running = created.start()?;
    trace::mark("program executed");
    running.netns = None;
    Ok(Started {
        running,
        net,
        log,
        notify,
        listener,
        stdin: pipes.stdin,
        output: pipes.output,
    })
}

/// Adds what only this start has: the way to systemd, and files of who started it.
fn extend(spec: &mut Spec, notify: Option<&Notify>, given: &given::Given, runtime: &Path) {
    let mut variables = given.environment.clone();
    if let Some(folder) = notify.and_then(|notify| notify.folder(runtime)) {
        variables.push(notify::VARIABLE.into());
        let mut mount = Mount::default();
        mount
            .set_destination(notify::INSIDE.into())
            .set_typ(Some("bind".into()))
            .set_source(Some(folder))
            .set_options(Some(
                ["bind", "private", "nosuid", "nodev", "noexec"]
                    .map(String::from)
                    .to_vec(),
            ));
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.push(mount);
        spec.set_mounts(Some(mounts));
    }
    if let (false, Some(process)) = (variables.is_empty(), spec.process().clone()) {
        let mut process = process;
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(variables);
        process.set_env(Some(env));
        spec.set_process(Some(process));
    }
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
    fn new(config: &Config, given: &given::Given) -> std::io::Result<Pipes> {
        let (tty, interactive) = (config.options.tty, config.options.interactive);
        if config.lifecycle.log.driver == LogDriver::Passthrough
            && let Some([stdin, stdout, stderr]) = given.stdio_copies()?
        {
            return Ok(Pipes {
                theirs: Stdio::Fds {
                    stdin,
                    stdout,
                    stderr,
                },
                stdin: None,
                output: None,
            });
        }
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
