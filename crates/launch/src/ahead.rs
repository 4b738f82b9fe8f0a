//! Namespaces that are made while it is still being found out what is to live in them.
//!
//! A network namespace takes the kernel a while, and so do newuidmap(1) and newgidmap(1), and neither
//! needs to know more of a container than that there will be one. So a command that will start one has
//! both begun beside it, before it has even read its own words; it says later what is to be in the network
//! namespace ([`Ahead::tell`]), and the container's first process is born into them (`Request::ahead`).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use rcon_sys::descriptors;
use rcon_sys::ids::{self, IdMaps};
use rcon_sys::process::{self, Fork};
use rcon_sys::{fdpass, trace};
use rustix::pipe::PipeFlags;

use crate::channel;
use crate::error::{Context, Error, NetworkFailure, RawError, Result};

/// Sets up a network namespace from inside, by what was said with [`Ahead::tell`]; gives what its user needs of it.
pub type SetUp<'a> = Box<dyn FnOnce(&[u8]) -> Result<Vec<OwnedFd>, NetworkFailure> + 'a>;

/// A user namespace and a network namespace in it, on their way.
///
/// Two processes work on them: a helper, a child of the one that called [`Ahead::begin`], that maps the
/// ids, and its child, which lives in the namespaces until nobody has this any more. Dropping it waits
/// for both in the process that began it.
#[derive(Debug)]
pub struct Ahead {
    /// The helper says here when the ids are mapped.
    helper: Option<OwnedFd>,
    /// The namespaces come from here.
    inhabitant: Option<OwnedFd>,
    process: OwnedFd,
}

/// The network namespace, made.
#[derive(Debug)]
pub(crate) struct MadeNetwork {
    /// The namespace.
    pub(crate) netns: OwnedFd,
    /// What its set-up gave.
    pub(crate) passed: Vec<OwnedFd>,
}

impl Ahead {
    /// Begin: a user namespace that will have `maps`, and a network namespace that `network` will set up.
    ///
    /// Needs a process with one thread. Fails where there can be no further process; what fails later is
    /// told to who makes the container.
    pub fn begin(maps: &IdMaps, network: SetUp<'_>) -> io::Result<Self> {
        let (helper, maps_done) = fdpass::pair()?;
        let (inhabitant, namespaces_done) = fdpass::pair()?;
        match process::fork()? {
            Fork::Child => {
                drop((helper, inhabitant));
                help(maps, network, &maps_done, namespaces_done);
                process::exit_now(0)
            }
            Fork::Parent { pidfd, .. } => Ok(Self {
                helper: Some(helper),
                inhabitant: Some(inhabitant),
                process: pidfd,
            }),
        }
    }

    /// Say what the network is to be; once, and nothing is ready before. False when nobody hears it any more, or it is too
    /// long to be said.
    pub fn tell(&self, what: &[u8]) -> bool {
        let socket = self.inhabitant.as_ref();
        socket.is_some_and(|socket| channel::send_order(socket, what).is_ok())
    }

    /// What a process that is to make the container of it has to keep open.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let sockets = self.helper.iter().chain(&self.inhabitant);
        sockets.map(AsFd::as_fd).chain([self.process.as_fd()])
    }

    /// Wait for the user namespace, whose ids may not be mapped yet. Once, and first.
    pub(crate) fn userns(&self) -> Result<OwnedFd> {
        let (_, mut fds) = wait(self.inhabitant.as_ref())?;
        fds.pop().ok_or_else(gone)
    }

    /// Wait for the network namespace. Once, after [`Ahead::userns`].
    pub(crate) fn network(&self) -> Result<MadeNetwork> {
        let (_, fds) = wait(self.inhabitant.as_ref())?;
        let mut fds = fds.into_iter();
        Ok(MadeNetwork {
            netns: fds.next().ok_or_else(gone)?,
            passed: fds.collect(),
        })
    }

    /// Wait for the ids.
    pub(crate) fn mapped(&self) -> Result<()> {
        wait(self.helper.as_ref()).map(drop)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.helper = None;
        self.inhabitant = None;
        // Only in the process whose child it is; it ends at once, when others have let go too.
        let _ = process::wait_pidfd(&self.process);
    }
}

fn wait(socket: Option<&OwnedFd>) -> Result<(u32, Vec<OwnedFd>)> {
    channel::wait_ready(socket.ok_or_else(gone)?).map_err(|error| match error {
        Error::Died(_) => gone(),
        error => error,
    })
}

const LOST: &str = "the process that made its namespaces was killed";

fn gone() -> Error {
    Error::Died(LOST.to_owned())
}

/// Whether `error` is of the processes here, not of the one that was to live in the namespaces.
pub(crate) fn is_lost(error: &Error) -> bool {
    matches!(error, Error::Died(what) if what == LOST)
}

/// The kinds of the namespaces that are begun.
pub(crate) const KINDS: CloneFlags = CloneFlags::CLONE_NEWUSER.union(CloneFlags::CLONE_NEWNET);

/// Put this process into the user namespace, as nobody in particular, with all capabilities.
pub(crate) fn join(userns: &OwnedFd) -> Result<()> {
    setns(userns, CloneFlags::CLONE_NEWUSER).context(joining)
}

/// Put this process, which is in the user namespace, into the network namespace.
pub(crate) fn join_network(netns: &OwnedFd) -> Result<()> {
    setns(netns, CloneFlags::CLONE_NEWNET).context(joining)
}

fn joining() -> String {
    "cannot join the namespaces of the container".to_owned()
}

/// The life of the helper.
fn help(maps: &IdMaps, network: SetUp<'_>, done: &OwnedFd, namespaces: OwnedFd) {
    // What is pressed at the terminal is for the command.
    let _ = rustix::process::setsid();
    let _ = process::set_name("rcon-ahead");
    descriptors::close_range_except(3, &[done.as_raw_fd(), namespaces.as_raw_fd()]);
    let (turn, pass) = match rustix::pipe::pipe_with(PipeFlags::CLOEXEC) {
        Ok(pipe) => pipe,
        Err(error) => {
            let errno = error.raw_os_error();
            return channel::tell(&namespaces, &Error::Namespaces { errno });
        }
    };
    let (pid, pidfd) = match process::clone(CloneFlags::CLONE_NEWUSER) {
        Ok(Fork::Child) => {
            drop(pass);
            inhabit(network, &namespaces, &turn)
        }
        Ok(Fork::Parent { pid, pidfd }) => (pid, pidfd),
        Err(error) => {
            let errno = error.raw();
            return channel::tell(&namespaces, &Error::Namespaces { errno });
        }
    };
    drop(namespaces);
    match ids::write_maps_and(pid, maps, || drop(pass)) {
        // Whoever waited may have gone.
        Ok(()) => drop(channel::send_ready(done, 0, &[])),
        Err(error) => channel::tell(done, &error.into()),
    }
    let _ = process::wait_pidfd(pidfd);
}

/// The life of the one in the namespaces.
///
/// `turn` ends when it is its turn: where processors are few, the ids go first, for they are waited for longest.
fn inhabit(network: SetUp<'_>, socket: &OwnedFd, turn: &OwnedFd) -> ! {
    descriptors::close_range_except(3, &[socket.as_raw_fd(), turn.as_raw_fd()]);
    let result = (|| {
        let step = || "cannot open the namespaces of the container".to_owned();
        let userns = File::open("/proc/self/ns/user").context(step)?;
        channel::send_ready(socket, 0, &[userns.as_fd()])?;
        // Interrupted or not, it may begin at any time.
        let _ = rustix::io::read(turn, &mut [0_u8]);
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Namespaces {
            errno: errno as i32,
        })?;
        trace::mark("network namespace made");
        let Ok(order) = channel::wait_order(socket) else {
            // Nobody wants it.
            process::exit_now(0)
        };
        let passed = network(&order).map_err(Error::Network)?;
        trace::mark("network made");
        let netns = File::open("/proc/self/ns/net").context(step)?;
        let mut fds = vec![netns.as_fd()];
        fds.extend(passed.iter().map(AsFd::as_fd));
        channel::send_ready(socket, 0, &fds)
    })();
    if let Err(error) = result {
        channel::fail(Some(socket), &error);
    }
    // Its end is the end of those who want to live here.
    let _ = channel::wait_go(socket);
    process::exit_now(0)
}
