//! Starting the container: ports, files, namespaces, network, program, in this order, and nothing of it left on failure.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use chrono::Utc;
use oci_spec::runtime::{Mount, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Spec};
use rcon_launch::{Ahead, FuseOverlay, Request, Rootfs, Running, Stdio, Waiting};
use rcon_net::{Guest, Listeners, PortMapping};
use rcon_store::{Form, Snapshot, Store};
use rcon_sys::trace;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit};

use super::inside::{Found, Inside};
use super::notify::{self, Notify};
use crate::error::{Context, Error, Result};
use crate::files::Durable;
use crate::given;
use crate::health::HealthState;
use crate::joining::Joined;
use crate::lifecycle::LogDriver;
use crate::log::Log;
use crate::record::{Config, Container, Network, ProcessRef, State, Status};
use crate::sharing::Place;
use crate::{Engine, accounts, bundling, files, hostfiles, limits, ports, protocol, records};

/// What each start of a container is made of, beside its record.
pub(super) struct Given {
    /// Its root file system.
    pub snapshot: Snapshot,
    /// Files of the command that started it.
    pub files: given::Given,
    /// The command that stays with it in the foreground.
    pub command: Option<ProcessRef>,
}

/// A container that has just been started.
pub(super) struct Started {
    pub running: Running,
    pub net: Option<rcon_net::Network>,
    /// The process of a network that another monitor started.
    pub orphan: Option<OwnedFd>,
    /// Another monitor started it: its process is not our child.
    pub taken_up: bool,
    /// Its program, if that waits to be started.
    pub held: Option<Waiting>,
    pub log: Log,
    /// Its mount namespace, where its processes are among those of others: held, so that nobody else gets its number.
    pub mounts: Option<File>,
    /// The way to systemd.
    pub notify: Option<Notify>,
    /// The control socket.
    pub listener: OwnedFd,
    /// The writing end of its standard input, when it has one.
    pub stdin: Option<OwnedFd>,
    /// The reading ends of its standard output and error, when it has no terminal.
    pub output: [Option<OwnedFd>; 2],
}

/// Starts it. That it runs is written down before its program does anything: whatever happens to us, it is known.
pub(super) fn start(
    engine: &Engine,
    container: &mut Container,
    given: &Given,
    ahead: Option<Ahead>,
    hold: bool,
) -> Result<Started> {
    let runtime = engine.paths.runtime(container.id());
    // What an earlier run left that was cut off.
    limits::discard_runtime(&engine.paths, container.id())?;
    files::make_dir(&runtime)?;
    let before = container.state.clone();
    let result = start_in(engine, container, given, &runtime, ahead, hold);
    if result.is_err() {
        let _ = files::remove_tree(&runtime);
        if container.state.status != before.status {
            container.state = before;
            unwrite(engine, container);
        }
    }
    result
}

/// What a start has made by the time it is written down.
struct Made<'a> {
    running: &'a Running,
    ports: &'a [PortMapping],
    pipes: &'a Pipes,
    net: Option<&'a rcon_net::Network>,
    held: bool,
}

/// Writes down that the container runs.
fn write_down(
    engine: &Engine,
    config: &Config,
    state: &mut State,
    given: &Given,
    made: &Made<'_>,
) -> Result<()> {
    let pid = made.running.pid.as_raw_nonzero().get();
    let process = ProcessRef::of(pid).ok_or_else(|| {
        Error::Invalid("the container ended before its monitor could look at it".into())
    })?;
    let lifecycle = &config.lifecycle;
    let before = match made.held {
        // Until its program is started, it last ended as it did.
        true => state.before_it_was_set_up(),
        false => State {
            started: Some(Utc::now()),
            ..State::default()
        },
    };
    *state = State {
        status: match made.held {
            true => Status::Initialized,
            false => Status::Running,
        },
        process: Some(process),
        monitor: ProcessRef::of(std::process::id().cast_signed()),
        network: made
            .net
            .and_then(rcon_net::Network::process_id)
            .and_then(ProcessRef::of),
        command: given.command,
        pipes: made.pipes.inodes.clone(),
        has_files: given.files.fds().next().is_some(),
        boot_id: rcon_sys::process::boot_id().to_owned(),
        ports: made.ports.to_vec(),
        restarts: state.restarts,
        health: (lifecycle.health.check.is_some() && !made.held).then(HealthState::default),
        ..before
    };
    records::save_state(&engine.paths.container(&config.id), state, Durable::No)?;
    write_number(lifecycle.pidfile.as_deref(), pid)?;
    write_number(
        lifecycle.conmon_pidfile.as_deref(),
        std::process::id().cast_signed(),
    )
}

/// Takes that back: the container is as it was before.
pub(super) fn unwrite(engine: &Engine, container: &Container) {
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
    ahead: Option<Ahead>,
    hold: bool,
) -> Result<Started> {
    /// How many open files there might be when this process began: many ports change that.
    static OPEN_FILES: OnceLock<Rlimit> = OnceLock::new();
    let (config, snapshot) = (&container.config, &given.snapshot);
    let open_files = OPEN_FILES.get_or_init(|| getrlimit(Resource::Nofile));
    let listeners =
        rcon_net::bind(&config.ports).map_err(|error| ports::with_holder(engine, error))?;
    let ports = listeners.mappings().to_vec();
    let net = network(config, &ports);
    let mut joined = Joined::find(engine, config)?;
    let mut bundle = bundling::build(engine, config)?;
    if let Some(joined) = &joined {
        joined.apply(&mut bundle.spec);
    }
    trace::mark("specification made");
    let why = || "cannot reach systemd".to_string();
    let notify = Notify::new(config.lifecycle.sdnotify, runtime).context(why)?;
    extend(&mut bundle.spec, notify.as_ref(), &given.files, runtime);
    keep_limit(&mut bundle.spec, open_files);
    let shown = joined.as_ref().and_then(|joined| joined.view(config));
    hostfiles::write(runtime, shown.as_ref().unwrap_or(config), &bundle.hostname)?;
    let dir = engine.paths.container(&config.id);
    let log = Log::open(&dir, config).context(|| "cannot open the log".into())?;
    let listener = protocol::listen(runtime).on("listen in", runtime)?;
    let mut pipes = Pipes::new(config, given).context(|| "cannot make pipes".into())?;
    let preserve_fds = given
        .files
        .copies()
        .context(|| "cannot copy the files to hand on".into())?;

    let inside = Inside {
        net: net.as_ref(),
        loopback: matches!(config.network, Network::None),
        hidden: joined.as_ref().is_some_and(Joined::has_others_users),
        shares_processes: config.sharing.pid != Place::Private,
    };
    let rootfs = match &snapshot.form {
        Form::Fuse { program } => Rootfs::Fuse(FuseOverlay {
            program: program.clone(),
            lower: snapshot.lower.clone(),
            upper: snapshot.upper.clone(),
            work: snapshot.work.clone(),
        }),
        Form::Copy { .. } => Rootfs::Dir(snapshot.merged.clone()),
        Form::Overlay => Rootfs::Overlay {
            lower: lower(engine, snapshot, &bundle.spec)?,
            upper: snapshot.upper.clone(),
            work: snapshot.work.clone(),
            volatile: config.auto_remove,
        },
    };
    let maps = engine.container_maps();
    let begun = rcon_launch::begin(Request {
        // Also of the specification's own user, the files of the image say the groups.
        user: Some(bundle.user.clone().unwrap_or_default()),
        group_add: bundle.group_add.clone(),
        in_netns: if ahead.is_some() { None } else { inside.work() },
        init: config.options.init && config.options.init_path.is_none(),
        keep_groups: config.options.keep_groups,
        accounts: accounts::of(config, runtime),
        trees: joined.as_mut().map(Joined::take_trees).unwrap_or_default(),
        create_cwd: bundle.create_cwd,
        preserve_fds,
        cgroup: limits::settings(config, false)?,
        note_cgroup: Some(Box::new(|cgroup| {
            // It is tried once more when the container is there; then it must be known.
            let _ = limits::note(&engine.paths, &config.id, cgroup);
        })),
        emulation: engine.emulation(config),
        any_host_name: config.options.hostname.is_none(),
        // The container's root may be another than ours, with no rights where it knows the owner but not the group.
        open_first: engine.special.is_some(),
        ahead,
        // Where it may be started again, its layers must be free by the time that its end is known.
        keep_mounts: config.auto_remove,
        waits: hold,
        ..Request::new(
            &bundle.spec,
            rootfs,
            maps,
            pipes
                .theirs
                .take()
                .unwrap_or(Stdio::Terminal { size: None }),
        )
    });
    let explained = |error: rcon_launch::Error| match &joined {
        Some(joined) => joined.explain(error.into()),
        None => error.into(),
    };
    let mut begun = begun.map_err(explained)?;
    // The network process is a copy of this one, and keeps what there is now.
    drop(bundle);
    if let Some(cgroup) = &begun.running.cgroup {
        limits::note(&engine.paths, container.id(), cgroup)?;
    }
    // Where the network is there already, we look after it while the container sets itself up.
    let mut found = inside.found(std::mem::take(&mut begun.running.passed));
    let mut own = net.clone().map(|net| (net, listeners));
    let mut net = match own.take_if(|_| found.tap.is_some()) {
        Some(own) => Some(serve_network(own, &mut found, runtime, &mut begun.running)?),
        None => None,
    };
    let mut created = begun.finish().map_err(explained)?;
    trace::mark("container set up");
    let passed = std::mem::take(&mut created.running.passed);
    if !passed.is_empty() {
        found = inside.found(passed);
    }
    if let Some(own) = own {
        net = Some(serve_network(
            own,
            &mut found,
            runtime,
            &mut created.running,
        )?);
    }
    write_down(
        engine,
        config,
        &mut container.state,
        given,
        &Made {
            running: &created.running,
            ports: &ports,
            pipes: &pipes,
            net: net.as_ref(),
            held: hold,
        },
    )?;
    if !config.volumes.is_empty() {
        engine.note_owned(config)?;
    }
    let (mut running, waiting) = created.hold();
    let held = match hold {
        true => Some(waiting),
        false => {
            waiting.start().map_err(explained)?;
            trace::mark("program executed");
            None
        }
    };
    running.netns = None;
    Ok(Started {
        running,
        net,
        orphan: None,
        taken_up: false,
        held,
        log,
        mounts: found.mounts,
        notify,
        listener,
        stdin: pipes.stdin,
        output: pipes.output,
    })
}

/// Gives the program the limit of open files that it is to inherit, where that is not what we have any more.
fn keep_limit(spec: &mut Spec, inherited: &Rlimit) {
    let Some(process) = spec.process_mut() else {
        return;
    };
    let mut limits = process.rlimits().clone().unwrap_or_default();
    let files = |limit: &PosixRlimit| limit.typ() == PosixRlimitType::RlimitNofile;
    if getrlimit(Resource::Nofile) != *inherited && !limits.iter().any(files) {
        // (The builder has a default for every field and cannot fail.)
        let limit = PosixRlimitBuilder::default()
            .typ(PosixRlimitType::RlimitNofile)
            .soft(inherited.current.unwrap_or(u64::MAX))
            .hard(inherited.maximum.unwrap_or(u64::MAX))
            .build();
        limits.push(limit.unwrap_or_default());
        process.set_rlimits(Some(limits));
    }
}

/// The network that a container has of its own, if it has one.
pub(super) fn network(config: &Config, ports: &[PortMapping]) -> Option<rcon_net::Config> {
    let Network::Slirp(net) = &config.network else {
        return None;
    };
    let servers = &config.names.servers;
    Some(rcon_net::Config {
        ports: ports.to_vec(),
        dns: match servers.is_empty() {
            true => net.dns.clone(),
            false => servers.clone(),
        },
        host: hostfiles::host_address().filter(|host| net.cidr.contains(*host)),
        ..(**net).clone()
    })
}

/// The layers of the container, with the places of what is mounted in it below them, if all of them are wanted.
fn lower(engine: &Engine, snapshot: &Snapshot, spec: &Spec) -> Result<Vec<PathBuf>> {
    let mut lower = snapshot.lower.clone();
    let wanted = |place: &str| {
        let mut mounts = spec.mounts().iter().flatten();
        mounts.any(|mount| mount.destination() == Path::new(place))
    };
    if Store::PLACES.into_iter().all(wanted) {
        lower.push(engine.store.places()?);
    }
    Ok(lower)
}

/// Has the network of a container served.
fn serve_network(
    (config, listeners): (rcon_net::Config, Listeners),
    found: &mut Found,
    runtime: &Path,
    running: &mut Running,
) -> Result<rcon_net::Network> {
    let missing = || Error::Invalid("the container has no network namespace".into());
    let netns = found.netns.take().or_else(|| running.netns.take());
    let userns = running.userns.try_clone();
    let network = rcon_net::Network::start(Guest {
        config,
        tap: found.tap.take().ok_or_else(missing)?,
        userns: Some(userns.context(|| "cannot start the network".into())?),
        netns: netns.ok_or_else(missing)?,
        listeners,
        // Without it nobody can look, which is no reason not to start.
        control: protocol::listen_stream(runtime, protocol::NET).ok(),
        process: running.pidfd.try_clone().ok(),
    })?;
    trace::mark("network served");
    Ok(network)
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

/// Both sides of the container's standard streams.
struct Pipes {
    /// The container's, until it is started; `None` for a terminal.
    theirs: Option<Stdio>,
    stdin: Option<OwnedFd>,
    output: [Option<OwnedFd>; 2],
    /// Which pipes they are: input (0 for none), output, error.
    inodes: Vec<u64>,
}

impl Pipes {
    fn new(config: &Config, given: &Given) -> std::io::Result<Pipes> {
        let (tty, interactive) = (config.options.tty, config.options.interactive);
        if config.lifecycle.log.driver == LogDriver::Passthrough
            && let Some([stdin, stdout, stderr]) = given.files.stdio_copies()?
        {
            return Ok(Pipes::without_us(Some(Stdio::Fds {
                stdin,
                stdout,
                stderr,
            })));
        }
        if tty {
            return Ok(Pipes::without_us(None));
        }
        let (stdin, ours) = match interactive {
            true => pipe_with(PipeFlags::CLOEXEC).map(|(read, write)| (read, Some(write)))?,
            false => (File::open("/dev/null")?.into(), None),
        };
        let (out, mut stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err, mut stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        if given.command.is_none() {
            stdout = lasting(stdout);
            stderr = lasting(stderr);
        }
        let inode = |fd: &OwnedFd| Ok::<u64, std::io::Error>(rustix::fs::fstat(fd)?.st_ino);
        let inodes = vec![
            ours.as_ref().map_or(Ok(0), inode)?,
            inode(&out)?,
            inode(&err)?,
        ];
        Ok(Pipes {
            theirs: Some(Stdio::Fds {
                stdin,
                stdout,
                stderr,
            }),
            stdin: ours,
            output: [Some(out), Some(err)],
            inodes,
        })
    }

    /// The container's streams are none of ours, or a terminal.
    fn without_us(theirs: Option<Stdio>) -> Pipes {
        Pipes {
            theirs,
            stdin: None,
            output: [None, None],
            inodes: Vec::new(),
        }
    }
}

/// The writing end of a pipe as one for both ways: the pipe is whole as long as the container has it. Should its reader be
/// killed, who writes waits for another one, and is not killed too.
fn lasting(end: OwnedFd) -> OwnedFd {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", end.as_raw_fd());
    // Without /proc it is as pipes are.
    rustix::fs::open(path, flags, Mode::empty()).unwrap_or(end)
}
