//! What a command has begun before it knows which container it will start.

use std::os::fd::OwnedFd;

use rcon_launch::{Ahead, NetworkFailure};
use rcon_net::{Config, PortMapping, Protocol};
use rcon_sys::ids::IdMaps;
use rcon_sys::netlink::{Batch, LOOPBACK, Link};
use serde::{Deserialize, Serialize};

use crate::{Engine, Network, Sharing};

/// Namespaces that were begun when nothing was known but that a container is to be started, with the ids that this
/// user's containers usually have.
///
/// Dropping it waits for what was begun to end.
#[derive(Debug)]
pub struct Early {
    ahead: Ahead,
    /// The ids that its user namespace will have.
    pub(crate) maps: IdMaps,
}

/// What is to be in the network namespace.
#[derive(Serialize, Deserialize)]
enum Interior {
    /// Only loopback.
    Loopback,
    /// The inner side of our network.
    Slirp(Box<Config>),
}

impl Early {
    /// Begins, beside this process, what takes the kernel longest. `None` where it cannot be; then it is done later, and
    /// said why it fails.
    pub fn begin() -> Option<Early> {
        Early::with(IdMaps::detect())
    }

    fn with(maps: IdMaps) -> Option<Early> {
        let ahead = Ahead::begin(&maps, Box::new(set_up)).ok()?;
        Some(Early { ahead, maps })
    }
}

impl Engine {
    /// The namespaces for a container with namespaces of its own and this network, for [`Engine::run`]: those begun early,
    /// where they have the right ids, else others that are begun now. `publish` are the ports asked for, `publish_all`
    /// whether the image's are added.
    ///
    /// `None` where there is nothing to begin, or it cannot be; then it is done later, and said why it fails.
    pub fn ahead(
        &self,
        early: Option<Early>,
        network: &Network,
        sharing: &Sharing,
        publish: &[PortMapping],
        publish_all: bool,
    ) -> Option<Ahead> {
        if !sharing.is_default() {
            return None;
        }
        let interior = match network {
            Network::Slirp(config) => Interior::Slirp(Box::new(Config {
                // Which they are may not be known yet, only that the namespace has to be ready for them.
                ports: tcp(publish, publish_all),
                ..(**config).clone()
            })),
            Network::None => Interior::Loopback,
            Network::Host | Network::Container(_) | Network::Path(_) => return None,
        };
        let early = match early {
            Some(early) if early.maps == self.maps => early,
            _ => Early::with(self.maps.clone())?,
        };
        let told = early.ahead.tell(&serde_json::to_vec(&interior).ok()?);
        told.then_some(early.ahead)
    }
}

/// One port that stands for all that are published of TCP, if there are any.
fn tcp(publish: &[PortMapping], publish_all: bool) -> Vec<PortMapping> {
    let published = publish.iter().any(|port| port.protocol == Protocol::Tcp);
    let any = PortMapping {
        host_ip: None,
        host_port: 0,
        container_port: 0,
        protocol: Protocol::Tcp,
        range: 1,
    };
    (published || publish_all)
        .then_some(any)
        .into_iter()
        .collect()
}

/// In the namespace: makes what was asked for.
fn set_up(order: &[u8]) -> Result<Vec<OwnedFd>, NetworkFailure> {
    match serde_json::from_slice(order).map_err(|error| error.to_string())? {
        Interior::Loopback => loopback().map(|()| Vec::new()),
        Interior::Slirp(config) => interior(&config),
    }
}

/// The inner side of our network.
pub(crate) fn interior(config: &Config) -> Result<Vec<OwnedFd>, NetworkFailure> {
    rcon_net::set_up_namespace(config).map_err(|error| NetworkFailure {
        message: error.to_string(),
        hint: error.hint(),
    })
}

/// All that `--network none` has.
pub(crate) fn loopback() -> Result<(), NetworkFailure> {
    let mut batch = Batch::new();
    batch.link_up(Link {
        index: LOOPBACK,
        ..Link::default()
    });
    batch.send().map_err(|e| e.to_string())?;
    Ok(())
}
