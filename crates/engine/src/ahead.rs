//! What a command has begun before it knows which container it will start.

use std::os::fd::OwnedFd;

use rcon_launch::{Ahead, NetworkFailure};
use rcon_net::{PortMapping, Protocol};
use rcon_sys::netlink::{Batch, LOOPBACK, Link};

use crate::{Engine, Network, Sharing};

impl Engine {
    /// Begins, beside this process, what takes the kernel longest for a container with namespaces of its own and this
    /// network, for [`Engine::run`]. `publish` are the ports asked for, `publish_all` whether the image's are added.
    ///
    /// `None` where there is nothing to begin, or it cannot be; then it is done later, and said why it fails.
    pub fn ahead(
        &self,
        network: &Network,
        sharing: &Sharing,
        publish: &[PortMapping],
        publish_all: bool,
    ) -> Option<Ahead> {
        if !sharing.is_default() {
            return None;
        }
        match network {
            Network::Slirp(config) => {
                let mut config = (**config).clone();
                config.ports = publish.to_vec();
                if publish_all {
                    // Which they are is not known yet, only that the namespace has to be ready for them.
                    config.ports.push(PortMapping {
                        host_ip: None,
                        host_port: 0,
                        container_port: 0,
                        protocol: Protocol::Tcp,
                        range: 1,
                    });
                }
                Ahead::begin(&self.maps, Box::new(|| interior(&config))).ok()
            }
            Network::None => {
                Ahead::begin(&self.maps, Box::new(|| loopback().map(|()| Vec::new()))).ok()
            }
            Network::Host | Network::Container(_) | Network::Path(_) => None,
        }
    }
}

/// The inner side of our network.
pub(crate) fn interior(config: &rcon_net::Config) -> Result<Vec<OwnedFd>, NetworkFailure> {
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
