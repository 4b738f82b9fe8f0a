//! Containers in namespaces of others: `--network`, `--pid`, `--ipc`, `--uts`, `--cgroupns` and `--userns` with
//! `container:NAME` or `ns:PATH`.
//!
//! Who joins a namespace needs rights in the user namespace that owns it, so that one is joined too: the two
//! containers have the same users, as all of one user's containers have with podman. A process has one user namespace, so
//! all that is joined must belong to one.

use std::fs::{File, Metadata};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rcon_sys::fdpass;
use rcon_sys::process::{self, Fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::DumpableBehavior;

use crate::Engine;
use crate::error::{Context, Error, Result};
use crate::record::{Config, Network, ProcessRef};
use crate::sharing::Place;

/// The file system of `/dev/shm` (linux/magic.h).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// How long to wait for the end of one whose namespaces are gone.
const PATIENCE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Namespaces of somebody else.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    files: Vec<(LinuxNamespaceType, File)>,
    /// The user namespace that owns them, unless that is our own.
    userns: Option<File>,
    /// What there is in the network, as far as names and addresses go.
    network: Option<Network>,
    /// The `/dev/shm` of whose IPC it is.
    shm: Option<OwnedFd>,
    /// Who must go on running while they are joined.
    donors: Vec<Donor>,
}

#[derive(Debug)]
struct Donor {
    name: String,
    process: ProcessRef,
    pidfd: OwnedFd,
}

impl Donor {
    fn gone(&self) -> Error {
        Error::StateImproper(format!(
            "container {} ended while its namespaces were joined",
            self.name
        ))
    }
}

impl Joined {
    /// Those that a container is to be in, if it is to be in any.
    ///
    /// # Errors
    /// When the other container does not run, or there is no namespace at the path, or none that we have rights over.
    pub fn find(engine: &Engine, config: &Config) -> Result<Option<Joined>> {
        let mut joined = Joined::default();
        // Who ended before all was open may have left its number to another, whose namespaces these are then.
        match (joined.collect(engine, config), joined.ended()) {
            (Ok(()) | Err(Error::Io { .. }), Some(donor)) => return Err(donor.gone()),
            (result, _) => result?,
        }
        let any = !joined.files.is_empty() || joined.userns.is_some();
        Ok(any.then_some(joined))
    }

    fn collect(&mut self, engine: &Engine, config: &Config) -> Result<()> {
        let joined = self;
        match &config.network {
            Network::Container(id) => {
                let donor = joined.donor(engine, id, "network")?;
                let added = joined.add(LinuxNamespaceType::Network, &donor.join("net"));
                added.map_err(|error| joined.without_donor(error))?;
                joined.network = Some(match engine.container(id)?.config.network {
                    Network::Container(further) => engine
                        .container(&further)
                        .map_or(Network::None, |further| further.config.network),
                    network => network,
                });
            }
            Network::Path(path) => {
                joined.add(LinuxNamespaceType::Network, path)?;
                // It has names as the host has them: nothing is known of what is in it.
                joined.network = Some(Network::Host);
            }
            Network::None | Network::Host | Network::Slirp(_) => {}
        }
        for (name, place) in config.sharing.places() {
            let kind = match name {
                "user" => LinuxNamespaceType::User,
                "pid" => LinuxNamespaceType::Pid,
                "ipc" => LinuxNamespaceType::Ipc,
                "uts" => LinuxNamespaceType::Uts,
                _ => LinuxNamespaceType::Cgroup,
            };
            match place {
                Place::Private | Place::Host => {}
                Place::Path(path) => joined.add(kind, path)?,
                Place::Container(id) => {
                    let what = format!("{name} namespace");
                    let donor = joined.donor(engine, id, &what)?;
                    let added = joined.add(kind, &donor.join(name));
                    added.map_err(|error| joined.without_donor(error))?;
                    if kind == LinuxNamespaceType::Ipc && !config.options.no_shm {
                        joined.shm = joined.shared_memory()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The folder of the namespaces of a container that must run.
    fn donor(&mut self, engine: &Engine, id: &str, what: &str) -> Result<PathBuf> {
        let other = engine.container(id)?;
        let down = || {
            Error::StateImproper(format!(
                "cannot join the {what} of container {}, which does not run",
                other.config.name
            ))
        };
        let process = other
            .state
            .process
            .filter(|_| other.state.status.is_alive());
        let process = process.ok_or_else(down)?;
        let pidfd = process.open().ok_or_else(down)?;
        self.donors.push(Donor {
            name: other.config.name.clone(),
            process,
            pidfd,
        });
        Ok(PathBuf::from(format!("/proc/{}/ns", process.pid)))
    }

    fn add(&mut self, kind: LinuxNamespaceType, path: &Path) -> Result<()> {
        let name = match kind {
            LinuxNamespaceType::Network => "network".to_owned(),
            kind => kind.to_string(),
        };
        let what = || format!("cannot join the {name} namespace {}", path.display());
        let file = File::open(path).context(what)?;
        let number = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let owner = match kind {
            LinuxNamespaceType::User => file.try_clone().context(what)?,
            _ => File::from(rcon_sys::userns::owner_of(&file).context(what)?),
        };
        let ours = std::fs::metadata("/proc/self/ns/user")
            .map(number)
            .context(what)?;
        let theirs = owner.metadata().map(number).context(what)?;
        if theirs != ours {
            let before = self
                .userns
                .as_ref()
                .map(|known| known.metadata().map(number));
            match before.transpose().context(what)? {
                Some(before) if before != theirs => {
                    return Err(Error::Remote {
                        message: format!(
                            "the {name} namespace {} belongs to another user namespace than what else is joined",
                            path.display()
                        ),
                        code: 125,
                        hint: Some(
                            "all that is joined must be of containers that have their users together: make the second \
                             with --userns container:FIRST"
                                .into(),
                        ),
                    });
                }
                Some(_) => {}
                None => self.userns = Some(owner),
            }
        }
        if kind != LinuxNamespaceType::User {
            self.files.push((kind, file));
        }
        Ok(())
    }

    /// A detached mount of the last donor's `/dev/shm`.
    ///
    /// Only who is in a mount namespace can copy a mount of it, and who has joined one of a container's cannot come back; so
    /// a child goes there.
    fn shared_memory(&self) -> Result<Option<OwnedFd>> {
        let Some(donor) = self.donors.last() else {
            return Ok(None);
        };
        let why = || format!("cannot share /dev/shm of container {}", donor.name);
        let (ours, theirs) = fdpass::pair().context(why)?;
        let child = match process::fork().context(why)? {
            Fork::Child => {
                drop(ours);
                let code = match hand_over(donor, &theirs) {
                    Ok(()) => 0,
                    Err(error) => error.raw_os_error().unwrap_or(1),
                };
                process::exit_now(code)
            }
            Fork::Parent { pidfd, .. } => pidfd,
        };
        drop(theirs);
        let heard = fdpass::recv_fds(&ours, &mut [0]);
        let status = process::wait_pidfd(&child).context(why)?;
        match heard.map(|(_, mut fds)| fds.pop()) {
            Ok(Some(tree)) => Ok(Some(tree)),
            _ if !donor.process.is_there() => Err(donor.gone()),
            Ok(None) | Err(_) => {
                let errno = status.code().unwrap_or(libc::EIO);
                if [libc::ESRCH, libc::EINVAL].contains(&errno) {
                    // Its namespaces were gone before it counted as ended.
                    return Err(donor.gone());
                }
                Err(std::io::Error::from_raw_os_error(errno)).context(why)
            }
        }
    }

    /// Why a namespace of the last donor is not to be found: a process loses its namespaces before it counts as ended.
    fn without_donor(&self, error: Error) -> Error {
        match (&error, self.donors.last()) {
            (Error::Io { source, .. }, Some(donor))
                if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) =>
            {
                donor.gone()
            }
            _ => error,
        }
    }

    fn ended(&self) -> Option<&Donor> {
        self.donors.iter().find(|donor| !donor.process.is_there())
    }

    /// What is behind `error`, which came up while the namespaces were joined: their owner may have ended meanwhile.
    pub fn explain(&self, error: Error) -> Error {
        let lost = matches!(
            error,
            Error::Launch(rcon_launch::Error::Namespaces { .. } | rcon_launch::Error::Died(_))
        );
        if lost {
            // A process loses its namespaces a moment before it counts as ended.
            for donor in &self.donors {
                let mut fds = [PollFd::new(&donor.pidfd, PollFlags::IN)];
                let _ = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&PATIENCE)));
            }
        }
        match self.ended() {
            Some(donor) => donor.gone(),
            None => error,
        }
    }

    /// The container's configuration as it is to be read for names and addresses.
    pub fn view(&self, config: &Config) -> Option<Config> {
        Some(Config {
            network: self.network.clone()?,
            ..config.clone()
        })
    }

    /// Whether it comes about among the users of somebody else.
    pub fn has_others_users(&self) -> bool {
        self.userns.is_some()
    }

    /// The mounts that are made already, with their places.
    pub fn take_trees(&mut self) -> Vec<(PathBuf, OwnedFd)> {
        let shm = self.shm.take();
        shm.into_iter()
            .map(|tree| (PathBuf::from("/dev/shm"), tree))
            .collect()
    }

    /// Puts the namespaces into the specification; they are good as long as this lives.
    pub fn apply(&self, spec: &mut Spec) {
        let path = |file: &File| Some(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        let Some(linux) = spec.linux_mut() else {
            return;
        };
        let Some(namespaces) = linux.namespaces_mut() else {
            return;
        };
        for namespace in namespaces {
            let kind = namespace.typ();
            let theirs = match kind {
                LinuxNamespaceType::User => self.userns.as_ref(),
                kind => self
                    .files
                    .iter()
                    .find_map(|(known, file)| (*known == kind).then_some(file)),
            };
            if let Some(file) = theirs {
                namespace.set_path(path(file));
            }
        }
    }
}

/// The child's part of [`Joined::shared_memory`].
fn hand_over(donor: &Donor, socket: &OwnedFd) -> std::io::Result<()> {
    // Nobody in there is to look into us.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setns(
        &donor.pidfd,
        CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS,
    )?;
    let tree = rcon_sys::mount::copy_of_path(Path::new("/dev/shm"), false)?;
    // Whatever lies there: it is to be memory, and nothing else of the container's files.
    match rustix::fs::fstatfs(&tree)?.f_type {
        TMPFS_MAGIC => {}
        _ => return Err(std::io::Error::from_raw_os_error(libc::ENOTSUP)),
    }
    use std::os::fd::AsFd;
    fdpass::send_fds(socket, b"m", &[tree.as_fd()])?;
    Ok(())
}
