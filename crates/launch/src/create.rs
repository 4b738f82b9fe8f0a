//! The caller's side of making a container.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::sched::CloneFlags;
use oci_spec::runtime::{Process, Spec};
use rcon_sys::fdpass;
use rcon_sys::ids::{self, IdMaps};
use rcon_sys::process::{self, Fork};
use rcon_sys::trace;
use rustix::process::Pid;

use crate::ahead::{self, Ahead, MadeNetwork};
use crate::cgroup::{self, Cgroup};
use crate::emulate::{self, Emulation, Inside};
use crate::error::{Context, Error, Result};
use crate::hooks::{self, Point, StateOf};
use crate::init::{self, WITH_CONSOLE, WITH_MOUNTS};
use crate::namespaces::Namespaces;
use crate::netdevices::Devices;
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

/// The program of a container that is set up, which waits to be started.
///
/// Dropped without [`Waiting::start`] or [`Waiting::leave`], the container is given up. It ends by itself when
/// the process that holds this does.
#[derive(Debug)]
pub struct Waiting {
    newborn: Newborn,
    socket: OwnedFd,
    program: String,
}

impl Waiting {
    /// Start the program, and wait until it is executed; see [`Created::start`].
    ///
    /// # Errors
    /// [`Error::NotFound`] and [`Error::NotExecutable`], of the program.
    pub fn start(mut self) -> Result<()> {
        let started = channel::send_go(&self.socket, 0)
            .and_then(|()| channel::wait_executed(&self.socket, &self.program));
        match (started, &self.newborn.0) {
            (Ok(()), _) => {}
            (Err(error), Some(all)) => return Err(why(&self.socket, &all.pidfd, error)),
            (Err(error), None) => return Err(error),
        }
        self.newborn.keep();
        Ok(())
    }

    /// Have nothing more to do with it: it has ended, and somebody else reaps it.
    pub fn leave(mut self) {
        self.newborn.keep();
    }
}

/// A container whose first process is born and sets itself up. Dropped without [`Begun::finish`], it is
/// given up.
#[derive(Debug)]
pub struct Begun {
    /// Its namespaces and files, as far as they are there already: those that were made [`Ahead`] are.
    pub running: Running,
    newborn: Newborn,
    socket: OwnedFd,
    program: String,
    /// The specification that has them, the container's id and its bundle.
    hooks: Option<(Spec, String, PathBuf)>,
    /// With where it is, as far as that could be seen before it hid itself.
    emulation: Option<(Emulation, Process, Option<Inside>)>,
    /// What its root file system is to be served from.
    fuse: Option<FuseOverlay>,
}

/// A child that goes, and its cgroup with it, when nobody wants it.
#[derive(Debug)]
struct Newborn(Option<Unwanted>);

/// What there is to be undone then.
#[derive(Debug)]
struct Unwanted {
    pidfd: OwnedFd,
    cgroup: Option<Cgroup>,
    /// The devices that were moved, and where they are.
    devices: Option<(Devices, OwnedFd)>,
}

impl Newborn {
    fn keep(&mut self) {
        self.0 = None;
    }
}

impl Drop for Newborn {
    fn drop(&mut self) {
        if let Some(Unwanted {
            pidfd,
            cgroup,
            devices,
        }) = self.0.take()
        {
            if let Some((devices, netns)) = devices {
                devices.take_back(&netns);
            }
            // It may have ended by itself; then there is only the reaping left.
            let _ = process::pidfd_send_signal(&pidfd, libc::SIGKILL);
            let _ = process::wait_pidfd(&pidfd);
            if let Some(cgroup) = cgroup {
                // Nothing can be done about what stays; it is empty.
                let _ = cgroup.remove();
            }
        }
    }
}

/// Make the container of `request`, ready to be started.
///
/// Needs a process with one thread, since it forks. Nothing is left behind after an error.
pub fn create(request: Request<'_>) -> Result<Created> {
    begin(request)?.finish()
}

/// Have the first process of the container of `request` born, with its ids mapped.
///
/// As [`create`], which is this and [`Begun::finish`]; the process sets itself up meanwhile.
pub fn begin(mut request: Request<'_>) -> Result<Begun> {
    let namespaces = Namespaces::of(request.spec)?;
    support::check(request.spec, request.known_as.is_some())?;
    let mut devices = Some(Devices::of(request.spec, &namespaces)?).filter(|some| !some.is_empty());
    let mut mapped = idmap::prepare(request.spec)?;
    mapped.add(request.spec, std::mem::take(&mut request.trees));
    let own = OwnFile::look();
    let (ours, theirs) = fdpass::pair().context(|| "cannot make a pair of sockets".to_owned())?;
    let (spec, maps, known_as) = (request.spec, request.maps, request.known_as);
    let door = request.door.take();
    let ahead = request.ahead.take();
    let made = ahead.as_ref().map(Ahead::userns).transpose()?;
    let cgroup = request
        .cgroup
        .take()
        .map(|settings| match &mut request.note_cgroup {
            Some(note) => cgroup::prepare_noting(&settings, note),
            None => cgroup::prepare(&settings),
        })
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
    flush();
    let folder = cgroup.as_ref().and_then(cgroup::Prepared::folder);
    let (pid, pidfd) = match namespaces.clone_into(later, folder, made.as_ref()) {
        Ok(Fork::Child) => {
            let lot = init::Lot {
                namespaces,
                later,
                netns_follows: ahead.is_some(),
                mapped,
                own,
            };
            drop((ours, ahead, made));
            init::run(request, lot, theirs, door)
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
    let mut newborn = pidfd
        .try_clone()
        .map(|pidfd| {
            Newborn(Some(Unwanted {
                pidfd,
                cgroup: None,
                devices: None,
            }))
        })
        .context(|| "cannot watch the new process".to_owned())?;
    let mut group = None;
    let met = place(pid, cgroup).and_then(|placed| {
        group = placed;
        if let Some(all) = &mut newborn.0 {
            all.cgroup.clone_from(&group);
        }
        if let (Some(group), Some(uid)) = (&group, owner_of_cgroup(spec, maps, &namespaces)) {
            group.give(uid);
        }
        let (userns, netns) = match made {
            Some(userns) => (userns, None),
            None => look(pid, &namespaces)?,
        };
        if let Some(netns) = &netns {
            give(&mut devices, netns, &mut newborn)?;
        }
        let emulation = match (emulation, spec.process()) {
            (Some(emulation), Some(process)) => {
                let seen = !namespaces.is_hidden();
                let inside = seen.then(|| Inside::of(pid)).transpose()?;
                Some((emulation, process.clone(), inside))
            }
            _ => None,
        };
        match &ahead {
            Some(ahead) => ahead.mapped()?,
            None if namespaces.new.contains(CloneFlags::CLONE_NEWUSER) => {
                ids::write_maps(pid, maps)?;
            }
            None => {}
        }
        trace::mark("ids mapped");
        channel::send_go(&ours, pid.as_raw_nonzero().get().unsigned_abs())?;
        let Some(ahead) = &ahead else {
            return Ok((userns, netns, Vec::new(), emulation));
        };
        // It sets itself up meanwhile.
        let MadeNetwork { netns, passed } = ahead.network()?;
        give(&mut devices, &netns, &mut newborn)?;
        channel::send_netns(&ours, &netns)?;
        Ok((userns, Some(netns), passed, emulation))
    });
    let (userns, netns, passed, emulation) = met.map_err(|error| why(&ours, &pidfd, error))?;
    Ok(Begun {
        running: Running {
            pid,
            pidfd,
            userns,
            netns,
            passed,
            mounts: None,
            console: None,
            cgroup: group,
        },
        newborn,
        socket: ours,
        // Nothing of the request is kept: who goes on from here may have to keep itself small.
        program: program_of(spec),
        hooks: known_as
            .filter(|_| hooks::any_at_creation(spec))
            .map(|who| (spec.clone(), who.id.to_owned(), who.bundle.to_owned())),
        emulation,
        fuse,
    })
}

/// Put the new process into its cgroup.
fn place(pid: Pid, cgroup: Option<cgroup::Prepared>) -> Result<Option<Cgroup>> {
    let pids = [pid.as_raw_nonzero().get()];
    Ok(cgroup.map(|cgroup| cgroup.enter(&pids)).transpose()?)
}

/// The user of the host whose the container's cgroup is to be: where the container sees no other one, and may write there.
fn owner_of_cgroup(spec: &Spec, maps: &IdMaps, namespaces: &Namespaces) -> Option<u32> {
    let writable = spec.mounts().iter().flatten().any(|mount| {
        let options = mount.options().as_deref().unwrap_or_default();
        mount.destination() == std::path::Path::new("/sys/fs/cgroup")
            && mount
                .typ()
                .as_deref()
                .is_some_and(|kind| kind.starts_with("cgroup"))
            && !options.iter().any(|option| option == "ro")
    });
    if !writable || !namespaces.new.contains(CloneFlags::CLONE_NEWCGROUP) {
        return None;
    }
    let uid = spec.process().as_ref()?.user().uid();
    match namespaces.new.contains(CloneFlags::CLONE_NEWUSER) {
        true => maps.to_host_uid(uid),
        false if namespaces.other_users() => None,
        false => Some(uid),
    }
}

/// The program of `spec`, as it is asked for.
pub(crate) fn program_of(spec: &Spec) -> String {
    let process = spec.process().as_ref();
    let words = process.and_then(|process| process.args().as_ref());
    let first = words.and_then(|words| words.first());
    first.cloned().unwrap_or_default()
}

/// The user and network namespaces of the new process, before it hides itself.
fn look(pid: Pid, namespaces: &Namespaces) -> Result<(OwnedFd, Option<OwnedFd>)> {
    let userns = namespaces
        .of_process(pid, CloneFlags::CLONE_NEWUSER)?
        .ok_or_else(|| Error::Died("its user namespace cannot be opened".to_owned()))?;
    let netns = match namespaces.has(CloneFlags::CLONE_NEWNET) {
        true => namespaces.of_process(pid, CloneFlags::CLONE_NEWNET)?,
        false => None,
    };
    Ok((userns, netns))
}

/// Move `devices`, if there are any, into the network namespace; they go back when `newborn` does.
fn give(devices: &mut Option<Devices>, netns: &OwnedFd, newborn: &mut Newborn) -> Result<()> {
    let (Some(devices), Some(all)) = (devices.take(), &mut newborn.0) else {
        return Ok(());
    };
    let step = || "cannot keep the network namespace".to_owned();
    let netns = netns.try_clone().context(step)?;
    let (devices, netns) = all.devices.insert((devices, netns));
    devices.give(netns)
}

impl Begun {
    /// Wait until the new process is set up. On the way, run the hooks that belong here.
    ///
    /// # Errors
    /// What a step of the container's set-up, or a hook, failed with. Nothing is left of the container then.
    pub fn finish(mut self) -> Result<Created> {
        let (number, mut passed) = self
            .meet()
            .map_err(|error| why(&self.socket, &self.running.pidfd, error))?;
        let console = match number & WITH_CONSOLE {
            0 => None,
            _ => passed.pop(),
        };
        let mounts = match number & WITH_MOUNTS {
            0 => None,
            _ => passed.pop(),
        };
        let mut running = self.running;
        running.passed.extend(passed);
        running.mounts = mounts;
        running.console = console;
        Ok(Created {
            running,
            newborn: self.newborn,
            socket: self.socket,
            program: self.program,
        })
    }

    /// Its "ready": the number and the files with it.
    fn meet(&mut self) -> Result<(u32, Vec<OwnedFd>)> {
        let socket = &self.socket;
        let pid = self.running.pid;
        if let Some(layers) = &self.fuse {
            rootfs::serve(layers, &self.running.userns, channel::wait_device(socket)?)?;
        }
        if let Some((spec, id, bundle)) = &self.hooks {
            channel::wait_ready(socket)?;
            let number = pid.as_raw_nonzero().get();
            let state = StateOf::new(spec, KnownAs { id, bundle }, "creating", Some(number));
            hooks::run(spec, Point::Prestart, &state, None)?;
            hooks::run(spec, Point::CreateRuntime, &state, None)?;
            channel::send_go(socket, 0)?;
        }
        if let Some((emulation, process, inside)) = self.emulation.take()
            && let (Some(listener), mount, who) = channel::wait_listener(socket)?
        {
            let missing = || Error::Died("its mount namespace cannot be had".to_owned());
            let step = || "cannot keep the user namespace".to_owned();
            let inside = match inside {
                Some(inside) => inside,
                None => Inside {
                    user: self.running.userns.try_clone().context(step)?,
                    mount: mount.ok_or_else(missing)?,
                },
            };
            emulate::start(&emulation, &process, pid, &who, listener, inside)?;
        }
        channel::wait_ready(socket)
    }
}

/// What is behind `error`: the other side may have said why before it went, or its end says it.
/// What was done to it after its end fails too, each in its own way.
fn why(socket: &OwnedFd, pidfd: &OwnedFd, error: Error) -> Error {
    // If it still waits for a word from us it learns that there will be none, and ends.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
    let ended = matches!(error, Error::Died(_)) && !ahead::is_lost(&error);
    match channel::wait_ready(socket) {
        Ok(_) | Err(Error::Died(_)) if ended => match process::wait_pidfd(pidfd) {
            Ok(status) => Error::Died(status.to_string()),
            Err(_) => error,
        },
        Ok(_) | Err(Error::Died(_)) => error,
        Err(said) => said,
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
    pub fn start(self) -> Result<Running> {
        let (running, waiting) = self.hold();
        waiting.start()?;
        Ok(running)
    }

    /// What there is of the container, apart from its start, which may come later.
    pub fn hold(self) -> (Running, Waiting) {
        let waiting = Waiting {
            newborn: self.newborn,
            socket: self.socket,
            program: self.program,
        };
        (self.running, waiting)
    }

    /// Leave the container at its door, to whoever will start it ([`start`]). Until then it ends with its creator.
    pub fn leave(mut self) -> Running {
        // Whoever comes to the door of one that has ended will see it.
        let _ = channel::send_go(&self.socket, 0);
        self.newborn.keep();
        self.running
    }

    /// Give the container up: its process is killed and reaped, its cgroup removed.
    pub fn abort(self) {
        drop(self.newborn);
    }
}

/// Start the program of `spec` in a container that was made with a door, of which `visitor` is the
/// connected socket, and wait until it is executed.
///
/// Fails as [`Created::start`]; the container is gone then.
pub fn start(visitor: OwnedFd, spec: &Spec) -> Result<()> {
    channel::send_go(&visitor, 0).and_then(|()| channel::wait_executed(&visitor, &program_of(spec)))
}
