//! The container's side of the network: its links, addresses and routes.
//!
//! This runs in the container's first process, on the way from `clone3` to its program, so it is
//! made of few system calls: a tap, one netlink message with every request, a file written for
//! each setting that is not the kernel's default.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rcon_sys::netlink::{Batch, LOOPBACK, Link, MAIN_TABLE, Route};
use rcon_sys::tun;

use crate::config::{CONTAINER_V6, Config, DNS_V6, PREFIX_V6, ROUTER_V6};
use crate::error::{Error, Result};
use crate::stack::GATEWAY_MAC;

/// The name of the device, as slirp4netns and podman have it.
const DEVICE: &str = "tap0";
/// The device's index: loopback is the first of a new namespace, the tap the second.
const DEVICE_INDEX: u32 = 2;
/// The transmit queue, in packets: the kernel's default (DEFAULT_TX_QUEUE_LEN).
const TX_QUEUE_LEN: u32 = 1000;

/// The firewall mark of connections that the port relay dials with a client's own address. Marks,
/// tables and priorities are the namespace's own, and no other is in use when it is new.
pub(crate) const MARK: u32 = 100;
/// The routing table of marked packets.
const MARK_TABLE: u8 = 100;
/// The priority of the rule that sends them there: before the kernel's own for the main table, 32766
/// (ip-rule(8)).
const MARK_PRIORITY: u32 = 100;

/// Sets up the network namespace the calling thread is in: a new one, over which it has
/// CAP_NET_ADMIN. User ids need not be mapped yet. Gives the tap, for `crate::serve`.
///
/// # Errors
/// [`Error::NoTun`] where there is no usable /dev/net/tun, [`Error::Io`] for the rest.
pub fn set_up_namespace(config: &Config) -> Result<Vec<OwnedFd>> {
    let tap = tun::create(DEVICE, true).map_err(|source| Error::NoTun { source })?;
    configure(config, DEVICE_INDEX)?;

    // TCP in the container talks to nobody but us, over a path that loses nothing: a congestion
    // control that paces (BBR) only costs time. Reno is the one every namespace may choose.
    write_setting(CONGESTION, "reno").ok();
    if config.publishes_tcp() {
        keep_client_addresses(config.has_ipv6());
    }
    Ok(vec![tap])
}

/// Opens the tap of a network that [`set_up_namespace`] made and whose processes have all died: it is there still, with its
/// addresses and routes, and nobody has it open. `userns` owns the network namespace, if that is not the caller's own.
///
/// # Errors
/// As [`set_up_namespace`]; when somebody has it open.
pub fn reopen_tap(userns: Option<&OwnedFd>, netns: &OwnedFd) -> Result<OwnedFd> {
    crate::elsewhere::in_namespace(userns, netns, || {
        tun::create(DEVICE, true).map_err(|source| Error::NoTun { source })
    })
}

/// Makes a device in the network namespace the calling thread is in, which somebody else has made;
/// it goes with its last descriptor. Its addresses and routes only if they are asked for.
///
/// # Errors
/// As [`set_up_namespace`].
pub(crate) fn set_up_device(config: &Config, name: &str, addresses: bool) -> Result<OwnedFd> {
    let tap = tun::create(name, false).map_err(|source| Error::NoTun { source })?;
    if addresses {
        let index = nix::net::if_::if_nametoindex(name)
            .map_err(|errno| Error::io(format!("cannot find {name}"))(errno.into()))?;
        configure(config, index)?;
        write_setting(CONGESTION, "reno").ok();
    }
    Ok(tap)
}

fn configure(config: &Config, index: u32) -> Result<()> {
    let gateway = IpAddr::V4(config.gateway_v4());
    let mut batch = Batch::new();
    batch.link_up(Link {
        index: LOOPBACK,
        ..Link::default()
    });
    batch.link_up(Link {
        index,
        mtu: Some(config.mtu.into()),
        tx_queue_len: Some(TX_QUEUE_LEN),
        address: config.mac,
        no_multicast: true,
        no_link_local: true,
    });
    // What distributions choose for every device; a kernel without it keeps its own default.
    batch.queueing(index, "fq_codel");
    batch.address(
        index,
        config.container_v4().into(),
        config.cidr.prefix(),
        Some(config.cidr.broadcast()),
    );
    batch.neighbour(index, gateway, GATEWAY_MAC);
    batch.neighbour(index, config.dns_v4().into(), GATEWAY_MAC);
    batch.default_route(Route {
        index,
        ipv6: false,
        gateway: Some(gateway),
        table: MAIN_TABLE,
        local: false,
    });
    if config.has_ipv6() {
        batch.address(index, CONTAINER_V6.into(), PREFIX_V6, None);
        // The first answers may be here before the kernel has made this of itself.
        batch.local_route(index, CONTAINER_V6.into());
        batch.neighbour(index, ROUTER_V6.into(), GATEWAY_MAC);
        batch.neighbour(index, DNS_V6.into(), GATEWAY_MAC);
        batch.default_route(Route {
            index,
            ipv6: true,
            gateway: Some(ROUTER_V6.into()),
            table: MAIN_TABLE,
            local: false,
        });
    }
    if config.publishes_tcp() {
        mark_routes(&mut batch, config);
    }
    batch.send().map_err(|refused| Error::Io {
        what: format!("cannot {}", refused.what),
        source: refused.source,
    })
}

/// Has marked packets stay in the namespace.
fn mark_routes(batch: &mut Batch, config: &Config) {
    for ipv6 in [false, true] {
        if ipv6 && !config.has_ipv6() {
            continue;
        }
        batch.default_route(Route {
            index: LOOPBACK,
            ipv6,
            gateway: None,
            table: MARK_TABLE,
            local: true,
        });
        batch.mark_rule(ipv6, MARK, MARK_TABLE, MARK_PRIORITY);
    }
}

/// Readies a namespace that was set up without TCP ports for them, if that has not been done since: the calling thread is
/// in it.
///
/// # Errors
/// When clients will appear as the container.
pub(crate) fn publish_tcp(config: &Config) -> io::Result<()> {
    if keeps_client_addresses() {
        return Ok(());
    }
    let mut batch = Batch::new();
    mark_routes(&mut batch, config);
    batch.send().map_err(|refused| refused.source)?;
    keep_client_addresses(config.has_ipv6());
    match keeps_client_addresses() {
        true => Ok(()),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// Lets a server in the container answer connections that the relay dials with a client's own
/// address: the mark of the connection's first packet goes over to the server's socket
/// (tcp_fwmark_accept) and to resets (fwmark_reflect), and by the mark, answers go to the relay's
/// socket in the same namespace and not out by the tap (ip-sysctl).
///
/// Where settings cannot be written (/proc/sys is read-only in many containers), clients will
/// appear as the container: the relay looks, see [`keeps_client_addresses`].
fn keep_client_addresses(ipv6: bool) {
    let first = match ipv6 {
        true => write_setting("ipv6/fwmark_reflect", "1"),
        false => Ok(()),
    };
    // The one that is looked at comes last, and only if all is well.
    let _ = first
        .and_then(|()| write_setting("ipv4/fwmark_reflect", "1"))
        .and_then(|()| write_setting(FWMARK_ACCEPT, "1"));
}

/// Whether the namespace of the calling thread lets servers answer by the client's address.
pub(crate) fn keeps_client_addresses() -> bool {
    std::fs::read_to_string(format!("/proc/sys/net/{FWMARK_ACCEPT}"))
        .is_ok_and(|value| value.trim_end() == "1")
}

/// Whether connections in the namespace of the calling thread begin with the congestion control that
/// is best there.
pub(crate) fn begins_with_reno() -> bool {
    std::fs::read_to_string(format!("/proc/sys/net/{CONGESTION}"))
        .is_ok_and(|value| value.trim_end() == "reno")
}

/// The congestion control that TCP begins with (ip-sysctl).
const CONGESTION: &str = "ipv4/tcp_congestion_control";
/// Has accepted connections inherit the mark of the packet that opened them (ip-sysctl).
const FWMARK_ACCEPT: &str = "ipv4/tcp_fwmark_accept";

fn write_setting(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/net/{name}"), value)
}
