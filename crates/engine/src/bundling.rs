//! From a container's record to the runtime specification that launch takes.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use rcon_bundle::{Bundle, Context, HardLimits, Options, Source, parse};
use rcon_launch::Emulation;
use rcon_net::PortMapping;
use rcon_sys::ids::IdRange;

use crate::error::{Error, Result};
use crate::record::{Config, Container};
use crate::{Engine, secrets};

/// Makes the specification.
pub(crate) fn build(engine: &Engine, config: &Config) -> Result<Bundle> {
    match config.secrets.is_empty() {
        true => build_with(engine, config, &config.options),
        false => {
            let dir = engine.paths.container(&config.id);
            build_with(engine, config, &secrets::added(config, &dir)?)
        }
    }
}

fn build_with(engine: &Engine, config: &Config, options: &Options) -> Result<Bundle> {
    let runtime = engine.paths.runtime(&config.id);
    let context = Context {
        container_id: config.id.clone(),
        host_name: engine.host_name_of(config),
        hosts_file: (!config.names.no_hosts).then(|| runtime.join("hosts")),
        resolv_file: Some(runtime.join("resolv.conf")),
        hostname_file: Some(runtime.join("hostname")),
        container_env_file: Some(runtime.join(".containerenv")),
        localtime_file: options
            .tz
            .as_deref()
            .filter(|zone| parse::zone_file(zone).exists())
            .map(|_| runtime.join("localtime")),
        volumes: config
            .volumes
            .iter()
            .map(|v| Ok((v.destination.clone(), engine.volume_at(&v.name)?)))
            .collect::<Result<_>>()?,
        images: images(engine, config)?,
        uids: count(&engine.container_maps().uid),
        gids: count(&engine.container_maps().gid),
        limits: HardLimits::current(),
    };
    Ok(rcon_bundle::build(&config.image_config, options, &context)?)
}

/// The layers of the images that are mounted.
fn images(engine: &Engine, config: &Config) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut found = BTreeMap::new();
    for mount in &config.options.mounts {
        if let Source::Image(id) = &mount.source {
            let image = engine.find_image(id)?;
            let trees = engine.store.image_trees(&image.layers)?;
            found.insert(mount.destination.clone(), trees);
        }
    }
    Ok(found)
}

impl Engine {
    /// What it takes to have several users where there is one id.
    pub(crate) fn emulation(&self, config: &Config) -> Option<Emulation> {
        self.maps.is_single().then(|| Emulation {
            identities: self.paths.runtime(&config.id).join("identities"),
            owners: self.store.owners_file(&config.id),
        })
    }

    /// The runtime specification the container would be started with now.
    ///
    /// # Errors
    /// When the source of a bind mount is gone, or a limit is above what is allowed now.
    pub fn bundle(&self, container: &Container) -> Result<Bundle> {
        build(self, &container.config)
    }
}

/// How many ids there are without a gap, from 0.
fn count(ranges: &[IdRange]) -> u32 {
    let mut next = 0u32;
    while let Some(range) = ranges.iter().find(|r| r.container == next && r.len > 0) {
        next = next.saturating_add(range.len);
        if next == u32::MAX {
            break;
        }
    }
    next
}

/// Whether the options go together and with the image; the same errors as at the start.
pub(crate) fn check(engine: &Engine, config: &Config) -> Result<()> {
    build_with(engine, config, &config.options).map(drop)
}

/// The ports to publish: those asked for, in rows as podman has them, and with `-P` those exposed that are not among them.
pub(crate) fn ports(
    config: &Config,
    publish: &[PortMapping],
    all: bool,
) -> Result<Vec<PortMapping>> {
    let mut ports = rcon_net::joined(publish);
    if !all {
        return Ok(ports);
    }
    let singles = publish.iter().flat_map(PortMapping::singles);
    let mut covered: HashSet<_> = singles
        .map(|port| (port.protocol, port.container_port))
        .collect();
    for exposed in parse::image_ports(&config.image_config, &config.options.expose) {
        let protocol = match exposed.protocol {
            parse::Protocol::Tcp => rcon_net::Protocol::Tcp,
            parse::Protocol::Udp => rcon_net::Protocol::Udp,
            parse::Protocol::Sctp => {
                return Err(Error::Invalid(format!(
                    "port {exposed} cannot be published: SCTP is not supported"
                )));
            }
        };
        for number in exposed.first..=exposed.last {
            if covered.insert((protocol, number)) {
                ports.push(PortMapping {
                    host_ip: None,
                    host_port: 0,
                    container_port: number,
                    protocol,
                    range: 1,
                });
            }
        }
    }
    Ok(ports)
}
