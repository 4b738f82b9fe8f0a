//! The files of a container, seen from outside of it.
//!
//! Everything here happens in a child that is root over the containers' ids, in a mount namespace of its own: what it mounts
//! is gone with it. Of a running container its own root is used, with all its mounts; of one that does not run, the layers
//! are mounted, and its volumes and bind mounts over them. Paths in it are resolved by the kernel within that root
//! (openat2(2), `RESOLVE_IN_ROOT`), so that no link of the container leads out.

mod mount;
pub(crate) mod notes;
pub(crate) mod pack;
pub(crate) mod place;
pub(crate) mod users;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rcon_store::{Driver, Form, Snapshot};
use rustix::fs::{CWD, Mode, OFlags};

use crate::Engine;
use crate::error::{Context, Error, Result};
use crate::record::{Config, Container, ProcessRef, Status};
use crate::records::Lock;

pub(crate) use mount::{overlay, tree};

/// Places that containers have for what is mounted there, and that are no part of what a container wrote.
const PLACES: [&str; 15] = [
    "dev",
    "etc/group",
    "etc/hostname",
    "etc/hosts",
    "etc/localtime",
    "etc/mtab",
    "etc/passwd",
    "etc/resolv.conf",
    "proc",
    "run/.containerenv",
    "run/notify",
    "run/podman-init",
    "run/secrets",
    "sys",
    "dev/init",
];

/// How to get at a container's files.
#[derive(Debug)]
pub(crate) enum View {
    /// Through its process.
    Running {
        /// PID 1 of the container.
        process: ProcessRef,
        /// Its pidfd, which keeps the number from being given to another.
        pidfd: OwnedFd,
    },
    /// By mounting them.
    Stopped {
        /// Where they are.
        snapshot: Snapshot,
        /// What else is mounted: from where, to where, read-only.
        binds: Vec<(PathBuf, PathBuf, bool)>,
        /// Keeps it from being started meanwhile.
        _lock: Option<Lock>,
    },
}

impl Engine {
    /// The files of a container as its programs see them, mounts and all.
    pub(crate) fn view(&self, container: &Container) -> Result<View> {
        if container.state.status == Status::Initialized {
            // Nobody may look into the process that waits to become the program, and its mounts are seen from nowhere else.
            return Err(Error::StateImproper(format!(
                "container {} is initialized: its files can be reached before that, and when it runs",
                container.config.name
            )));
        }
        if container.state.status.is_alive() {
            let process = container.state.process;
            if let Some((process, pidfd)) = process.and_then(|p| Some((p, p.open()?))) {
                return Ok(View::Running { process, pidfd });
            }
        }
        let id = container.id();
        let gone = || Error::NoSuchContainer(id.to_string());
        let lock = Lock::take(&self.paths.container(id))?.ok_or_else(gone)?;
        let now = self.settle(id)?.ok_or_else(gone)?;
        if now.state.status.has_process() {
            // It was started while we waited; or it has ended, and its monitor is about to write that down.
            drop(lock);
            let now = self.current(id)?.ok_or_else(gone)?;
            return self.view(&now);
        }
        Ok(View::Stopped {
            snapshot: self.put_together(self.snapshot(&now)?)?,
            binds: self.binds(&now.config),
            _lock: Some(lock),
        })
    }

    /// The files of a container as they are in its layers, without what is mounted over them, whether it runs or not.
    pub(crate) fn layers(&self, container: &Container) -> Result<View> {
        Ok(View::Stopped {
            snapshot: self.put_together(self.snapshot(container)?)?,
            binds: Vec::new(),
            _lock: None,
        })
    }

    fn snapshot(&self, container: &Container) -> Result<Snapshot> {
        let id = container.id();
        self.store.snapshot(id)?.ok_or_else(|| {
            Error::Invalid(format!("the root file system of container {id} is missing"))
        })
    }

    /// What makes one tree of the layers of new containers here.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn driver(&self) -> Result<Driver> {
        Ok(self.store.driver(&self.paths.wish)?)
    }

    /// Sees to it that the layers of a container can become one tree: where no overlay can be mounted, nor fuse-overlayfs
    /// does it, they are copied, together with what the container wrote when one could be.
    pub(crate) fn put_together(&self, snapshot: Snapshot) -> Result<Snapshot> {
        match (&snapshot.form, self.driver()?) {
            (Form::Copy { .. }, _) | (Form::Overlay, Driver::Overlay) => Ok(snapshot),
            (Form::Fuse { program }, Driver::Fuse { program: here, .. }) if *program == here => {
                Ok(snapshot)
            }
            (Form::Overlay | Form::Fuse { .. }, Driver::Fuse { program, .. }) => {
                Ok(self.store.use_fuse(&snapshot.id, &program)?)
            }
            // The kernel's overlay does not know the marks of fuse-overlayfs.
            (Form::Overlay, Driver::Copy { .. })
            | (Form::Fuse { .. }, Driver::Overlay | Driver::Copy { .. }) => {
                let id = snapshot.id;
                self.in_worker(|store| store.flatten_snapshot(&id).map(drop))?;
                let gone = || Error::NoSuchContainer(id.clone());
                self.store.snapshot(&id)?.ok_or_else(gone)
            }
        }
    }

    fn binds(&self, config: &Config) -> Vec<(PathBuf, PathBuf, bool)> {
        let volumes = config.volumes.iter().filter_map(|v| {
            let volume = self.volume(&v.name).ok()?;
            let files = self.volume_files(&volume).ok()?;
            Some((files, PathBuf::from(&v.destination)))
        });
        let hosts = config
            .options
            .mounts
            .iter()
            .filter_map(|m| match &m.source {
                rcon_bundle::Source::Bind(path) => {
                    Some((path.clone(), PathBuf::from(&m.destination)))
                }
                _ => None,
            });
        let read_only = |destination: &Path| {
            let mut mounts = config.options.mounts.iter();
            mounts.any(|m| {
                Path::new(&m.destination) == destination && m.options.iter().any(|o| o == "ro")
            })
        };
        let mut binds: Vec<(PathBuf, PathBuf, bool)> = volumes
            .chain(hosts)
            .map(|(from, to)| {
                let ro = read_only(&to);
                (from, to, ro)
            })
            .collect();
        // What is mounted below another comes after it.
        binds.sort_by(|a, b| a.1.cmp(&b.1));
        binds
    }

    /// Starts `work` in a child that is root over the container's ids and in which [`View::open`] works.
    pub(crate) fn beside(
        &self,
        container: &Container,
        view: &View,
        work: impl FnOnce(&mut dyn std::io::Write) -> i32,
    ) -> Result<rcon_sys::userns::Worker> {
        let maps = &self.maps_for(&container.config);
        if matches!(view, View::Stopped { .. }) && !maps.has_caller() {
            return Err(Error::StateImproper(format!(
                "the files of container {}, whose users are others than yours, can only be reached while it runs",
                container.config.name
            )));
        }
        match view {
            View::Running { pidfd, .. } => rcon_sys::userns::spawn_in(pidfd.as_fd(), work),
            View::Stopped { .. } => rcon_sys::userns::spawn(maps, work),
        }
        .context(|| "cannot reach the files of the container".into())
    }
}

impl View {
    /// The root directory. To be called in the child; `write` says whether anything is to be changed.
    pub(crate) fn open(&self, write: bool) -> Result<OwnedFd> {
        let why = || "cannot reach the files of the container".to_string();
        match self {
            View::Running { process, .. } => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let path = format!("/proc/{}/root", process.pid);
                let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).context(why)?;
                // It was its own root if it is still there.
                match process.is_there() {
                    true => Ok(root),
                    false => Err(Error::StateImproper("the container has just ended".into())),
                }
            }
            View::Stopped {
                snapshot, binds, ..
            } => {
                let root = mount::tree(snapshot, write)?;
                if binds.is_empty() {
                    return Ok(root);
                }
                mount::attach(root, &snapshot.merged, binds, why)
            }
        }
    }
}

/// Relative paths in the root that are only there for what is mounted on them.
pub(crate) fn mount_places(config: &Config) -> Vec<PathBuf> {
    let volumes = config.volumes.iter().map(|v| v.destination.as_str());
    let mounts = config.options.mounts.iter().map(|m| m.destination.as_str());
    let secrets = config.secrets.iter().filter(|secret| !secret.env);
    PLACES
        .into_iter()
        .chain(secrets.map(|secret| secret.target.as_str()))
        .chain(volumes)
        .chain(mounts)
        .map(|path| PathBuf::from(path.trim_start_matches('/')))
        .collect()
}
