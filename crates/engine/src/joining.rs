//! Containers in the network of another: `--network container:NAME` and `--network ns:PATH`.
//!
//! Who joins a network namespace needs rights in the user namespace that owns it, so that one is
//! joined too: the two containers have the same users, as all of one user's containers have with
//! podman.

use std::fs::{File, Metadata};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::Engine;
use crate::error::{Context, Error, Result};
use crate::record::{Config, Network};

/// The network namespace of somebody else.
#[derive(Debug)]
pub(crate) struct Joined {
    netns: File,
    /// The user namespace that owns it, unless that is our own.
    userns: Option<OwnedFd>,
    /// What there is in it, as far as names and addresses go.
    network: Network,
}

impl Joined {
    /// That which a container is to be in, if it is to be in one.
    ///
    /// # Errors
    /// When the other container does not run, or there is no network namespace at the path, or none
    /// that we have rights over.
    pub fn find(engine: &Engine, config: &Config) -> Result<Option<Joined>> {
        match &config.network {
            Network::Container(id) => Joined::of_container(engine, id).map(Some),
            // It has names as the host has them: nothing is known of what is in it.
            Network::Path(path) => Joined::open(path, Network::Host).map(Some),
            Network::None | Network::Host | Network::Slirp(_) => Ok(None),
        }
    }

    fn of_container(engine: &Engine, id: &str) -> Result<Joined> {
        let other = engine.container(id)?;
        let down = || {
            Error::StateImproper(format!(
                "cannot join the network of container {}, which does not run",
                other.config.name
            ))
        };
        let process = other
            .state
            .process
            .filter(|_| other.state.status.is_alive());
        let process = process.ok_or_else(down)?;
        // Who is named by its number is the one that is meant as long as this is open.
        let _held = process.open().ok_or_else(down)?;
        let path = PathBuf::from(format!("/proc/{}/ns/net", process.pid));
        let network = match &other.config.network {
            Network::Container(further) => engine
                .container(further)
                .map_or(Network::None, |further| further.config.network),
            network => network.clone(),
        };
        Joined::open(&path, network)
    }

    fn open(path: &Path, network: Network) -> Result<Joined> {
        let what = || format!("cannot join the network namespace {}", path.display());
        let netns = File::open(path).context(what)?;
        let owner = rcon_sys::userns::owner_of(&netns).context(what)?;
        let name = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let ours = std::fs::metadata("/proc/self/ns/user")
            .map(name)
            .context(what)?;
        let owner = File::from(owner);
        let theirs = owner.metadata().map(name).context(what)?;
        Ok(Joined {
            netns,
            userns: (ours != theirs).then_some(owner.into()),
            network,
        })
    }

    /// The container's configuration as it is to be read for names and addresses.
    pub fn view(&self, config: &Config) -> Config {
        Config {
            network: self.network.clone(),
            ..config.clone()
        }
    }

    /// Puts the namespaces into the specification; they are good as long as this lives.
    pub fn apply(&self, spec: &mut Spec) {
        let path = |fd: i32| Some(PathBuf::from(format!("/proc/self/fd/{fd}")));
        let Some(linux) = spec.linux_mut() else {
            return;
        };
        let Some(namespaces) = linux.namespaces_mut() else {
            return;
        };
        for namespace in namespaces {
            match (namespace.typ(), &self.userns) {
                (LinuxNamespaceType::Network, _) => {
                    namespace.set_path(path(self.netns.as_raw_fd()));
                }
                (LinuxNamespaceType::User, Some(userns)) => {
                    namespace.set_path(path(userns.as_raw_fd()));
                }
                _ => {}
            }
        }
    }
}
