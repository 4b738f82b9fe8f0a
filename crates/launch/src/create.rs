//! The caller's side of making a container.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use oci_spec::runtime::{Process, Spec};
use rcon_sys::fdpass;
use rcon_sys::ids::{self, IdMaps};
use rcon_sys::process::{self, Fork};
use rcon_sys::trace;
use rustix::process::Pid;

use crate::cgroup::{self, Cgroup};
use crate::emulate::{self, Emulation, Inside};
use crate::error::{Context, Error, Result};
use crate::hooks::{self, Point, StateOf};
use crate::init::{self, WITH_CONSOLE};
use crate::namespaces::Namespaces;
use crate::program::OwnFile;
use crate::request::{FuseOverlay, KnownAs, Request, Rootfs, Running};
use crate::{channel, idmap, rootfs, support};

/// A container whose every part is set up and whose program waits to be started.
///
/// Dropped without [`Created::start`], it is given up: its process is killed and reaped.
#[derive(Debug)]
pub struct Created {
    /// What there is of it already.
    pub running: Running,
    newborn: Newborn,
    socket: OwnedFd,
    program: String,
}

/// A child that goes when nobody wants it.
#[derive(Debug)]
struct Newborn(Option<OwnedFd>);

impl Newborn {
    fn keep(&mut self) {
        self.0 = None;
    }

    /// See its end, and that of its cgroup.
    fn take_down(self, cgroup: Option<&Cgroup>) {
        drop(self);
        if let Some(cgroup) = cgroup {
            // Nothing can be done about what stays; it is empty.
            let _ = cgroup.remove();
        }
    }
}

impl Drop for Newborn {
    fn drop(&mut self) {
        if let Some(pidfd) = self.0.take() {
            // It may have ended by itself; then there is only the reaping left.
            let _ = process::pidfd_send_signal(&pidfd, libc::SIGKILL);
            let _ = process::wait_pidfd(&pidfd);
        }
    }
}

/// Make the container of `request`, ready to be started.
///
/// Needs a process with one thread, since it forks. Nothing is left behind after an error.
pub fn create(mut request: Request<'_>) -> Result<Created> {
    let namespaces = Namespaces::of(request.spec)?;
    support::check(request.spec, request.known_as.is_some())?;
    let mut mapped = idmap::prepare(request.spec)?;
    mapped.add(request.spec, std::mem::take(&mut request.trees));
    let own = OwnFile::look();
    let program = program_of(request.spec);
    let (ours, theirs) = fdpass::pair().context(|| "cannot make a pair of sockets".to_owned())?;
    let (spec, maps, known_as) = (request.spec, request.maps, request.known_as);
    let door = request.door.take();
    let cgroup = request
        .cgroup
        .take()
        .map(|settings| cgroup::prepare(&settings))
        .transpose()?
        .flatten();
    // A cgroup namespace begins where its first process is then: after it has been moved.
    let later = match cgroup {
        Some(_) => namespaces.new & CloneFlags::CLONE_NEWCGROUP,
        None => CloneFlags::empty(),
    };
    let emulation = request.emulation.clone();
    let fuse = match &request.rootfs {
        Rootfs::Fuse(layers) => Some(layers.clone()),
        _ => None,
    };
    let described = request.spec.process().as_ref();
    flush();
    let folder = cgroup.as_ref().and_then(cgroup::Prepared::folder);
    let (pid, pidfd) = match namespaces.clone_into(later, folder) {
        Ok(Fork::Child) => {
            drop(ours);
            init::run(request, namespaces, later, mapped, theirs, door, own)
        }
        Ok(Fork::Parent { pid, pidfd }) => (pid, pidfd),
        Err(error) => {
            if let Some(cgroup) = cgroup {
                cgroup.abandon();
            }
            return Err(error);
        }
    };
    // The streams are the new process's now; who reads them must see them end with it.
    trace::mark("process born");
    drop((request, theirs, door, mapped));
    let newborn = pidfd
        .try_clone()
        .map(|pidfd| Newborn(Some(pidfd)))
        .context(|| "cannot watch the new process".to_owned())?;
    let answers = emulation.as_ref().zip(described);
    let mut group = None;
    let met = place(pid, cgroup).and_then(|placed| {
        group = placed;
        let wants = Wants { answers, fuse };
        meet(pid, &namespaces, maps, wants, &ours, spec, known_as)
    });
    let (userns, netns, number, mut passed) = match met {
        Ok(met) => met,
        Err(error) => {
            let error = why(&ours, &pidfd, error);
            newborn.take_down(group.as_ref());
            return Err(error);
        }
    };
    let console = match number & WITH_CONSOLE {
        0 => None,
        _ => passed.pop(),
    };
    Ok(Created {
        running: Running {
            pid,
            pidfd,
            userns,
            netns,
            passed,
            console,
            cgroup: group,
        },
        newborn,
        socket: ours,
        program,
    })
}

/// Put the new process into its cgroup.
fn place(pid: Pid, cgroup: Option<cgroup::Prepared>) -> Result<Option<Cgroup>> {
    let pids = [pid.as_raw_nonzero().get()];
    Ok(cgroup.map(|cgroup| cgroup.enter(&pids)).transpose()?)
}

/// The program of `spec`, as it is asked for.
pub(crate) fn program_of(spec: &Spec) -> String {
    let process = spec.process().as_ref();
    let words = process.and_then(|process| process.args().as_ref());
    let first = words.and_then(|words| words.first());
    first.cloned().unwrap_or_default()
}

/// What the new process needs others for.
struct Wants<'a> {
    /// Who answers its calls about owners.
    answers: Option<(&'a Emulation, &'a Process)>,
    /// What its root file system is served from.
    fuse: Option<FuseOverlay>,
}

/// Map the ids of the new process and wait until it is set up: its user and network namespaces,
/// and its "ready". On the way, run the hooks that belong here.
fn meet(
    pid: Pid,
    namespaces: &Namespaces,
    maps: &IdMaps,
    wants: Wants<'_>,
    socket: &OwnedFd,
    spec: &Spec,
    known_as: Option<KnownAs<'_>>,
) -> Result<(OwnedFd, Option<OwnedFd>, u32, Vec<OwnedFd>)> {
    // Before the new process hides itself.
    let userns = namespaces
        .of_process(pid, CloneFlags::CLONE_NEWUSER)?
        .ok_or_else(|| Error::Died("its user namespace cannot be opened".to_owned()))?;
    let netns = match namespaces.has(CloneFlags::CLONE_NEWNET) {
        true => namespaces.of_process(pid, CloneFlags::CLONE_NEWNET)?,
        false => None,
    };
    let emulation = wants.answers;
    let inside = match (emulation, namespaces.is_hidden()) {
        (Some(_), false) => Some(Inside::of(pid)?),
        _ => None,
    };
    if namespaces.new.contains(CloneFlags::CLONE_NEWUSER) {
        ids::write_maps(pid, maps)?;
    }
    trace::mark("ids mapped");
    let number = pid.as_raw_nonzero().get();
    channel::send_go(socket, number.unsigned_abs())?;
    if let Some(layers) = wants.fuse {
        rootfs::serve(&layers, &userns, channel::wait_device(socket)?)?;
    }
    if let Some(who) = known_as.filter(|_| hooks::any_at_creation(spec)) {
        channel::wait_ready(socket)?;
        let state = StateOf::new(spec, who, "creating", Some(number));
        hooks::run(spec, Point::Prestart, &state, None)?;
        hooks::run(spec, Point::CreateRuntime, &state, None)?;
        channel::send_go(socket, 0)?;
    }
    if let Some((emulation, process)) = emulation
        && let (Some(listener), mount, who) = channel::wait_listener(socket)?
    {
        let missing = || Error::Died("its mount namespace cannot be had".to_owned());
        let inside = match inside {
            Some(inside) => inside,
            None => Inside {
                user: userns
                    .try_clone()
                    .context(|| "cannot keep the user namespace".to_owned())?,
                mount: mount.ok_or_else(missing)?,
            },
        };
        emulate::start(emulation, process, pid, &who, listener, inside)?;
    }
    let (number, passed) = channel::wait_ready(socket)?;
    Ok((userns, netns, number, passed))
}

/// What is behind `error`: the other side may have said why before it went, or its end says it.
/// What was done to it after its end fails too, each in its own way.
fn why(socket: &OwnedFd, pidfd: &OwnedFd, error: Error) -> Error {
    // If it still waits for a word from us it learns that there will be none, and ends.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
    match (channel::wait_ready(socket), &error) {
        (Ok(_) | Err(Error::Died(_)), Error::Died(_)) => match process::wait_pidfd(pidfd) {
            Ok(status) => Error::Died(status.to_string()),
            Err(_) => error,
        },
        (Ok(_) | Err(Error::Died(_)), _) => error,
        (Err(said), _) => said,
    }
}

fn flush() {
    // What is buffered now would be in the buffers of the new process too.
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
}

impl Created {
    /// Start the program, and wait until it is executed.
    ///
    /// Fails with [`Error::NotExecutable`] and the kernel's reason when it cannot be; the
    /// container is gone then.
    pub fn start(mut self) -> Result<Running> {
        channel::send_go(&self.socket, 0)
            .and_then(|()| channel::wait_executed(&self.socket, &self.program))
            .map_err(|error| {
                let error = why(&self.socket, &self.running.pidfd, error);
                self.fall();
                error
            })?;
        self.newborn.keep();
        Ok(self.running)
    }

    /// Leave the container, which waits at its door, to whoever will start it ([`start`]).
    pub fn leave(mut self) -> Running {
        self.newborn.keep();
        self.running
    }

    /// Give the container up: its process is killed and reaped, its cgroup removed.
    pub fn abort(mut self) {
        self.fall();
    }

    fn fall(&mut self) {
        let newborn = Newborn(self.newborn.0.take());
        newborn.take_down(self.running.cgroup.as_ref());
    }
}

/// Start the program of `spec` in a container that was made with a door, of which `visitor` is the
/// connected socket, and wait until it is executed.
///
/// Fails as [`Created::start`]; the container is gone then.
pub fn start(visitor: OwnedFd, spec: &Spec) -> Result<()> {
    channel::send_go(&visitor, 0).and_then(|()| channel::wait_executed(&visitor, &program_of(spec)))
}
