//! Many users where there is one id.
//!
//! With a single id the kernel lets a container have no user but root: files cannot be given away,
//! no process can become somebody else. So the calls about owners and ids are answered by a
//! process of ours (seccomp_unotify(2)): ids are kept in a table ([`table`]), owners noted on the
//! files ([`files`]), and both told as if they were real. Everything else stays the kernel's, so a
//! user made up like this has root's rights to the files of the container: this is for programs
//! that want several users, not for keeping them apart.
//!
//! The answering process belongs to one filter, that is to a container's first program or to one
//! that was started in it later, and to everything these start. It is root of the container's user
//! and mount namespaces but not in its process namespace, where nobody can touch it; it can do
//! nothing that the container could not. It ends with the last process it answers for.

mod alive;
mod calls;
mod files;
mod identity;
mod locate;
mod supervisor;
mod table;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{Capability, Process};
use rcon_sys::descriptors;
use rcon_sys::notify::Listener;
use rcon_sys::owner::SideFile;
use rcon_sys::process::{self, Fork};
use rcon_sys::seccomp::{self, FLAG_NEW_LISTENER, FLAG_WAIT_KILLABLE_RECV};
use rcon_sys::userns;
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use self::files::Files;
use self::identity::{Four, Identity};
use self::locate::{Callers, Places};
use self::supervisor::Supervisor;
use self::table::Table;
use crate::error::{Context, Error, RawError, Result};

/// Where a container with a single id keeps whom its processes and files belong to.
#[derive(Clone, Debug)]
pub struct Emulation {
    /// The file with the identities of its processes; it need not outlive them.
    pub identities: PathBuf,
    /// The file with the owners of what takes no extended attributes
    /// ([`rcon_sys::owner::SideFile`]).
    pub owners: PathBuf,
}

/// Which powers root has in the container, of those that we stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Powers {
    chown: bool,
    set_uid: bool,
    set_gid: bool,
}

impl Powers {
    fn of(process: &Process) -> Self {
        let capabilities = process.capabilities().as_ref();
        let bounding = capabilities.and_then(|sets| sets.bounding().as_ref());
        let has = |capability: Capability| {
            capabilities.is_none() || bounding.is_some_and(|set| set.contains(&capability))
        };
        Self {
            chown: has(Capability::Chown),
            set_uid: has(Capability::Setuid),
            set_gid: has(Capability::Setgid),
        }
    }
}

/// Have the calls of this process and its descendants handed over; by whom they are then to be
/// answered. `None` where somebody else answers already (a container in a container with one id),
/// or the kernel knows nothing of it.
pub(crate) fn hand_over() -> Result<Option<OwnedFd>> {
    let filter = calls::filter();
    let load = |flags| seccomp::load(&filter, flags);
    let loaded = match load(FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV) {
        // Linux before 5.19.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => load(FLAG_NEW_LISTENER),
        other => other,
    };
    match loaded {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EBUSY | libc::EINVAL | libc::ENOSYS)
            ) =>
        {
            Ok(None)
        }
        result => result.context(|| "cannot have calls about owners answered".to_owned()),
    }
}

/// The user and mount namespaces of a container.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) user: OwnedFd,
    pub(crate) mount: OwnedFd,
}

impl Inside {
    /// Those of the process `pid`.
    pub(crate) fn of(pid: Pid) -> Result<Self> {
        let open = |kind: &str| {
            let path = format!("/proc/{}/ns/{kind}", pid.as_raw_nonzero());
            match File::open(&path).map(OwnedFd::from) {
                // A process that is about to end has left its namespaces already.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(Error::Died("it is not running".to_owned()))
                }
                file => file.context(|| format!("cannot open {path}")),
            }
        };
        Ok(Self {
            user: open("user")?,
            mount: open("mnt")?,
        })
    }
}

/// Start the process that answers the calls of `pid`, which is `who` from now on. It is nobody's
/// child: it ends by itself, and our caller need not know.
pub(crate) fn start(
    emulation: &Emulation,
    process: &Process,
    pid: Pid,
    who: &[u32],
    listener: OwnedFd,
    inside: Inside,
) -> Result<()> {
    let step = || "cannot answer calls about owners".to_owned();
    let mut table = Table::open(&emulation.identities).context(step)?;
    if let [uid, gid, groups @ ..] = who {
        let identity = Identity {
            user: Four::all(*uid),
            group: Four::all(*gid),
            groups: groups.to_vec(),
            bound: process.no_new_privileges().unwrap_or(false),
            ..Identity::default()
        };
        if identity != Identity::default() {
            table
                .set(pid.as_raw_nonzero().get(), &identity)
                .context(|| "cannot set the user of the program".to_owned())?;
        }
    }
    let marks = table.marks;
    drop(table);
    let (told, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(step)?;
    match process::fork().context(step)? {
        Fork::Child => {
            match process::fork() {
                Ok(Fork::Child) => {}
                _ => process::exit_now(0),
            }
            let keep = [&listener, &inside.user, &inside.mount, &tell];
            descriptors::close_range_except(3, &keep.map(AsRawFd::as_raw_fd));
            let made = set_up(emulation, Powers::of(process), marks, listener, &inside);
            let errno = made.as_ref().err().map_or(0, RawError::raw);
            let heard = rustix::io::write(&tell, &errno.to_ne_bytes());
            drop(tell);
            let served = match (made, heard) {
                (Ok(supervisor), Ok(4)) => supervisor.run(),
                _ => Err(io::ErrorKind::BrokenPipe.into()),
            };
            process::exit_now(i32::from(served.is_err()))
        }
        Fork::Parent { pidfd, .. } => {
            drop((tell, listener));
            process::wait_pidfd(&pidfd).context(step)?;
            let mut errno = [0; 4];
            let read = rustix::io::retry_on_intr(|| rustix::io::read(&told, &mut errno));
            match (read, i32::from_ne_bytes(errno)) {
                (Ok(4), 0) => Ok(()),
                (Ok(4), errno) => Err(io::Error::from_raw_os_error(errno)).context(step),
                _ => Err(io::Error::from_raw_os_error(libc::EPIPE)).context(step),
            }
        }
    }
}

/// In the new process: leave everything else and go inside.
fn set_up(
    emulation: &Emulation,
    powers: Powers,
    marks: bool,
    listener: OwnedFd,
    inside: &Inside,
) -> io::Result<Supervisor> {
    // The names are for people only.
    let _ = process::set_name("rcon-owners");
    let _ = rustix::process::setsid();
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    drop(null);
    let mut table = Table::open(&emulation.identities)?;
    table.marks = marks;
    let side = SideFile::open(&emulation.owners)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty())?;
    setns(&inside.user, CloneFlags::CLONE_NEWUSER)?;
    setns(&inside.mount, CloneFlags::CLONE_NEWNS)?;
    userns::become_root(false)?;
    rustix::process::umask(Mode::empty());
    rustix::process::fchdir(&proc)?;
    Ok(Supervisor {
        listener: Listener::new(listener),
        places: Places::new()?,
        callers: Callers::default(),
        table,
        files: Files::new(side)?,
        powers,
        executing: HashMap::new(),
    })
}
