//! The new process of a container, from its birth in new namespaces to its program.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sched::CloneFlags;
use oci_spec::runtime::{Process, Spec};
use rcon_sys::ids::{IdMaps, MapMethod};
use rcon_sys::mount::{self, Attributes};
use rcon_sys::stub::Mode;
use rcon_sys::trace;
use rcon_sys::{descriptors, process, userns};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;

use crate::channel;
use crate::console::Console;
use crate::emulate;
use crate::error::{Context, Error, Result};
use crate::giving::Owner;
use crate::hooks::{self, Point, StateOf};
use crate::idmap::IdMapped;
use crate::mounts::Mounter;
use crate::namespaces::{self, Namespaces};
use crate::program::{self, OwnFile, Plan, Prepared};
use crate::request::{Request, Size, Stdio};
use crate::root::Root;
use crate::rootfs;
use crate::seccomp::{self, Filter, Listener};
use crate::user;

/// The bit of the "ready" message's number that says that a terminal is the last file with it.
pub(crate) const WITH_CONSOLE: u32 = 1 << 31;
/// The bit that says that the mount namespace is the last file with it, but for a terminal.
pub(crate) const WITH_MOUNTS: u32 = 1 << 30;

/// The streams and further files of a program, in the order of their descriptors.
pub(crate) struct Streams {
    /// The files.
    pub(crate) fds: Vec<OwnedFd>,
    /// The terminal that they are, if they are one.
    pub(crate) console: Option<Console>,
}

impl Streams {
    /// Those that `stdio` asks for; a terminal is made in `root`.
    pub(crate) fn open(
        stdio: Stdio,
        further: Vec<OwnedFd>,
        root: &Root,
        process: &Process,
    ) -> Result<Self> {
        let (mut fds, console) = match stdio {
            Stdio::Fds {
                stdin,
                stdout,
                stderr,
            } => (vec![stdin, stdout, stderr], None),
            Stdio::Terminal { size } => {
                let console = Console::open(root, size.or_else(|| size_in(process)))?;
                let copy = || console.slave.try_clone();
                let fds = (|| Ok::<_, std::io::Error>(vec![copy()?, copy()?, copy()?]))()
                    .context(|| "cannot copy the terminal".to_owned())?;
                (fds, Some(console))
            }
        };
        fds.extend(further);
        Ok(Self { fds, console })
    }

    /// The files as they are handed on.
    pub(crate) fn borrow(&self) -> Vec<BorrowedFd<'_>> {
        self.fds.iter().map(AsFd::as_fd).collect()
    }
}

fn size_in(process: &Process) -> Option<Size> {
    let size = process.console_size()?;
    let number = |value: u64| u16::try_from(value).ok().filter(|value| *value > 0);
    Some(Size {
        rows: number(size.height())?,
        cols: number(size.width())?,
    })
}

/// Run `life`, which does not come back, and let no panic get into the frames of the caller,
/// which this process has copies of.
pub(crate) fn live(life: impl FnOnce() -> Infallible) -> ! {
    match catch_unwind(AssertUnwindSafe(life)) {
        Ok(never) => match never {},
        Err(_) => process::exit_now(userns::PANICKED),
    }
}

/// What the new process has beside its request.
pub(crate) struct Lot {
    /// Its namespaces: it has the new ones, but for those that come yet.
    pub(crate) namespaces: Namespaces,
    /// Those that it makes itself once its caller has put it where it belongs.
    pub(crate) later: CloneFlags,
    /// Whether its caller hands it its network namespace.
    pub(crate) netns_follows: bool,
    /// The trees to be mounted with ids of their own.
    pub(crate) mapped: IdMapped,
    /// This program's file.
    pub(crate) own: Option<OwnFile>,
}

/// Live through the set-up and become the program; what goes wrong is told through `socket`, or
/// through the door once somebody has come to it.
pub(crate) fn run(
    request: Request<'_>,
    mut lot: Lot,
    mut socket: OwnedFd,
    door: Option<OwnedFd>,
) -> ! {
    live(|| {
        let own = lot.own.take();
        let mode = match (request.init, &request.stdio) {
            (false, _) => Mode::Execute,
            (true, Stdio::Terminal { .. }) => Mode::Init { terminal: true },
            (true, Stdio::Fds { .. }) => Mode::Init { terminal: false },
        };
        if door.is_some() || request.waits {
            // It will be here when its creator has long gone, or has other things to do, with its locks and logs.
            let mut keep = vec![socket.as_raw_fd()];
            keep.extend(door.iter().map(AsRawFd::as_raw_fd));
            keep.extend(request.preserve_fds.iter().map(AsRawFd::as_raw_fd));
            keep.extend(lot.mapped.descriptors());
            keep.extend(lot.namespaces.descriptors());
            if let Stdio::Fds {
                stdin,
                stdout,
                stderr,
            } = &request.stdio
            {
                keep.extend([stdin, stdout, stderr].map(AsRawFd::as_raw_fd));
            }
            descriptors::close_range_except(3, &keep);
        }
        match set_up(request, lot, mode, &mut socket, door) {
            Ok((prepared, streams)) => {
                prepared.become_program(&streams.borrow(), socket, mode, own.as_ref())
            }
            Err(error) => channel::fail(Some(&socket), &error),
        }
    })
}

fn set_up<'a>(
    request: Request<'a>,
    lot: Lot,
    mode: Mode,
    socket: &mut OwnedFd,
    door: Option<OwnedFd>,
) -> Result<(Prepared<'a>, Streams)> {
    let Lot {
        namespaces,
        later,
        netns_follows,
        mut mapped,
        ..
    } = lot;
    let spec = request.spec;
    let described = described(spec)?;
    // Who answers for this process must find its files, and may not look for itself.
    let for_emulation = request.emulation.is_some() && namespaces.is_hidden();
    let mount_namespace = match for_emulation || request.keep_mounts {
        true => Some(namespaces::own_mounts()?),
        false => None,
    };
    rootfs::isolate(spec, &namespaces)?;
    // The caller maps our ids meanwhile: time for all that needs none.
    let passed = match request.in_netns {
        Some(set_up_network) => {
            let passed = set_up_network().map_err(Error::Network)?;
            trace::mark("network made");
            passed
        }
        None => Vec::new(),
    };
    let filter = filter(spec)?;
    trace::mark("filter compiled");
    program::set_oom_score(described, request.known_as.is_none())?;
    let number = channel::wait_go(socket)?;
    if !later.is_empty() {
        nix::sched::unshare(later)
            .context(|| "cannot make the namespaces of the container".to_owned())?;
    }

    // As the caller still: whose files these are.
    let opened = rootfs::open(&request.rootfs)?;
    if request.open_first {
        mapped.open_sources(spec)?;
    }
    let accounts = match &request.accounts {
        Some(accounts) => accounts.open(request.user.as_deref())?,
        None => None,
    };
    let own_maps;
    let maps = if namespaces.new.contains(CloneFlags::CLONE_NEWUSER) {
        let groups = request.maps.method != MapMethod::Single && !request.keep_groups;
        userns::become_root(groups)
            .context(|| "cannot become root of the user namespace".to_owned())?;
        request.maps
    } else {
        own_maps = IdMaps::own();
        &own_maps
    };
    if namespaces.new_time {
        namespaces::enter_new_time(spec)?;
    }
    hide()?;
    // What is made on the way to the program has the usual modes, whatever our caller's mask is.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if request.keyring {
        process::new_session_keyring();
    }
    name_host(spec, &namespaces, request.any_host_name)?;
    rustix::process::setsid().context(|| "cannot make a session".to_owned())?;
    let root = rootfs::mount(opened, socket)?;
    trace::mark("root mounted");
    let owner = match gives(spec) {
        true => {
            let user = request.user.as_deref();
            let identity = user::resolve(&root, user, &[], described.user())?;
            Some(Owner::new(&identity, request.emulation.is_some()))
        }
        false => None,
    };
    Mounter::new(spec, &root, maps, &namespaces, mapped)
        .giving_to(owner)
        .network_from(netns_follows.then_some(&*socket))
        .run()?;
    if let Some(accounts) = accounts {
        accounts.add(&root, spec, described)?;
    }
    trace::mark("mounts made");
    let streams = Streams::open(request.stdio, request.preserve_fds, &root, described)?;
    if let Some(console) = &streams.console {
        console.bind(&root)?;
        if door.is_some() {
            // It may wait for long, and what its creator has for output is nothing to it.
            let step = || "cannot use the terminal".to_owned();
            rustix::stdio::dup2_stdin(&console.slave).context(step)?;
            rustix::stdio::dup2_stdout(&console.slave).context(step)?;
            rustix::stdio::dup2_stderr(&console.slave).context(step)?;
        }
    }
    if let Some(who) = request.known_as {
        if hooks::any_at_creation(spec) {
            channel::send_ready(socket, 0, &[])?;
            channel::wait_go(socket)?;
        }
        let state = StateOf::new(spec, who, "creating", own_pid());
        hooks::run(spec, Point::CreateContainer, &state, None)?;
    }
    let listener = match &filter {
        Some(filter) if filter.notifies() => {
            let mut listener = Listener::connect(spec)?;
            listener.tell(spec, request.known_as, number.cast_signed(), "creating")?;
            Some(listener)
        }
        _ => None,
    };
    rootfs::pivot(&root)?;
    rootfs::propagate(spec, &root)?;
    let plan = Plan {
        spec,
        process: described,
        user: request.user.as_deref(),
        group_add: &request.group_add,
        keep_groups: request.keep_groups,
        filter,
        listener,
        create_cwd: request.create_cwd,
    };
    let mut prepared = Prepared::new(plan, &root)?;
    if spec.root().as_ref().and_then(|root| root.readonly()) == Some(true) {
        mount::set_attributes(root.fd(), Attributes::MOUNT_ATTR_RDONLY, None, false)
            .context(|| "cannot make the root filesystem read-only".to_owned())?;
    }
    if request.emulation.is_some() {
        let mount_namespace = mount_namespace.as_ref().filter(|_| for_emulation);
        hand_over(socket, mount_namespace, &mut prepared)?;
    }
    trace::mark("ready");
    let mounts = mount_namespace.filter(|_| request.keep_mounts);
    announce(socket, &passed, mounts.as_ref(), &streams, &prepared)?;
    drop((passed, mounts));
    if let Some(door) = door {
        // Before its creator has written down that it is there, nobody would ever come, or could end it.
        channel::wait_go(socket)?;
        *socket = visitor(door)?;
    }
    channel::wait_go(socket)?;
    if let Some(who) = request.known_as {
        let state = StateOf::new(spec, who, "created", own_pid());
        let environment = described.env().as_deref().unwrap_or_default();
        hooks::run(spec, Point::StartContainer, &state, Some(environment))?;
    }
    if mode == Mode::Execute {
        take_terminal(&streams)?;
    }
    Ok((prepared, streams))
}

/// This process's number in its own namespace, which its hooks see it by.
fn own_pid() -> Option<i32> {
    Some(rustix::process::getpid().as_raw_nonzero().get())
}

/// The first who comes to `door`.
fn visitor(door: OwnedFd) -> Result<OwnedFd> {
    let accept = || rustix::net::accept_with(&door, rustix::net::SocketFlags::CLOEXEC);
    rustix::io::retry_on_intr(accept).context(|| "cannot wait to be started".to_owned())
}

/// Whether the files of a mount are to be given to the program's user.
fn gives(spec: &Spec) -> bool {
    let mut mounts = spec.mounts().iter().flatten();
    mounts.any(|mount| {
        let options = mount.options().iter().flatten();
        options.into_iter().any(|option| option == "rcon.give")
    })
}

/// The process of the specification.
fn described(spec: &Spec) -> Result<&Process> {
    let described = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::Invalid("the specification has no process".to_owned()))?;
    Ok(described)
}

/// The filter of the specification.
pub(crate) fn filter(spec: &Spec) -> Result<Option<Filter>> {
    let linux = spec.linux().as_ref();
    linux
        .and_then(|linux| linux.seccomp().as_ref())
        .map(seccomp::compile)
        .transpose()
}

/// Keep other processes of the container from looking into this one while it is still ours.
pub(crate) fn hide() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context(|| "cannot hide the new process".to_owned())
}

fn name_host(spec: &Spec, namespaces: &Namespaces, any: bool) -> Result<()> {
    if !namespaces.has(CloneFlags::CLONE_NEWUTS) {
        return Ok(());
    }
    if let Some(name) = spec.hostname() {
        match rustix::system::sethostname(name.as_bytes()) {
            Err(Errno::PERM) if any => {}
            set => set.context(|| format!("cannot set the host name {name:?}"))?,
        }
    }
    if let Some(name) = spec.domainname() {
        rustix::system::setdomainname(name.as_bytes())
            .context(|| format!("cannot set the domain name {name:?}"))?;
    }
    Ok(())
}

/// Let the caller see to it that the calls about owners are answered. From here on, until it does,
/// none may be made.
pub(crate) fn hand_over(
    socket: &OwnedFd,
    mount_namespace: Option<&OwnedFd>,
    prepared: &mut Prepared<'_>,
) -> Result<()> {
    let listener = emulate::hand_over()?;
    let ids = prepared.credentials.ids();
    if listener.is_some() {
        prepared.credentials.make_up();
    }
    let files = listener
        .iter()
        .chain(mount_namespace.filter(|_| listener.is_some()));
    let files: Vec<BorrowedFd<'_>> = files.map(AsFd::as_fd).collect();
    channel::send_listener(socket, &files, &ids)
}

/// Tell the caller that the program can be started, and hand over what is the caller's.
pub(crate) fn announce(
    socket: &OwnedFd,
    passed: &[OwnedFd],
    mounts: Option<&OwnedFd>,
    streams: &Streams,
    prepared: &Prepared<'_>,
) -> Result<()> {
    let mut fds: Vec<BorrowedFd<'_>> = passed.iter().chain(mounts).map(AsFd::as_fd).collect();
    let mut number = mounts.map_or(0, |_| WITH_MOUNTS);
    if let Some(console) = &streams.console {
        if !prepared.credentials.is_made_up() {
            console.give_to(prepared.uid())?;
        }
        fds.push(console.master.as_fd());
        number |= WITH_CONSOLE;
    }
    channel::send_ready(socket, number, &fds)
}

/// Make the terminal among the streams, if there is one, that of this session.
pub(crate) fn take_terminal(streams: &Streams) -> Result<()> {
    match &streams.console {
        Some(console) => rustix::process::ioctl_tiocsctty(&console.slave)
            .context(|| "cannot take the terminal".to_owned()),
        None => Ok(()),
    }
}
