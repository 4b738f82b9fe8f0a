//! Finding hardware addresses: ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861).
//!
//! The container starts with permanent entries for all it needs; these answers are for those who
//! ask again. Every address of ours has the one hardware address, and nothing is ever learned from
//! what the container claims about others.

use std::net::{IpAddr, Ipv6Addr};

use super::link::{ETHERTYPE_ARP, Finish, HEADROOM};
use super::packet::{self, IPV6_LEN, Packet};
use super::policy::Target;
use super::{GATEWAY_MAC, Io};
use crate::config::{DNS_V6, GATEWAY_V6, ROUTER_V6};

/// The length of an ARP packet for IPv4 over Ethernet, in bytes (RFC 826).
const ARP_LEN: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, their address lengths, operation request
/// (RFC 826).
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
/// The same, operation reply.
const ARP_REPLY: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 2];

/// Answers an ARP request for one of our addresses.
pub(crate) fn arp(io: &mut Io, request: &[u8]) {
    let Some(request) = request.get(..ARP_LEN) else {
        return;
    };
    let (Some(sender), Some(target)) = (packet::ipv4(request, 14), packet::ipv4(request, 24))
    else {
        return;
    };
    if request[..8] != ARP_REQUEST || !is_ours(io, target.into()) || sender == target {
        return;
    }
    let reply = &mut io.buffer[HEADROOM..HEADROOM + ARP_LEN];
    reply[..8].copy_from_slice(&ARP_REPLY);
    reply[8..14].copy_from_slice(&GATEWAY_MAC);
    reply[14..18].copy_from_slice(&target.octets());
    reply[18..28].copy_from_slice(&request[8..18]);
    let frame = &mut io.buffer[..HEADROOM + ARP_LEN];
    io.link.send_frame(frame, ETHERTYPE_ARP, Finish::Whole);
}

/// Router solicitation (RFC 4861 §4.1): the first of the ICMPv6 types of neighbour discovery.
const ROUTER_SOLICITATION: u8 = 133;
/// Router advertisement (RFC 4861 §4.2).
const ROUTER_ADVERTISEMENT: u8 = 134;
/// Neighbour solicitation (RFC 4861 §4.3).
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Neighbour advertisement (RFC 4861 §4.4).
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Redirect (RFC 4861 §4.5).
const REDIRECT: u8 = 137;
/// The option that tells the source's hardware address (RFC 4861 §4.6.1).
const SOURCE_LINK_LAYER: u8 = 1;
/// The option that tells the target's hardware address (RFC 4861 §4.6.1).
const TARGET_LINK_LAYER: u8 = 2;
/// How long we say that we are a router, in seconds: the default of RFC 4861 §6.2.1.
const ROUTER_LIFETIME: u16 = 1800;

/// Answers neighbour discovery; true when the message was of it, and needs nobody else.
pub(crate) fn ndp(io: &mut Io, packet: &Packet<'_>) -> bool {
    let message = packet.payload;
    let (Some(kind), IpAddr::V6(source)) = (message.first(), packet.source) else {
        return false;
    };
    match *kind {
        ROUTER_SOLICITATION => advertise_router(io, source),
        NEIGHBOUR_SOLICITATION => {
            if let Some(target) = packet::ipv6(message, 8)
                && is_ours(io, target.into())
            {
                advertise_neighbour(io, source, target);
            }
        }
        ROUTER_ADVERTISEMENT | NEIGHBOUR_ADVERTISEMENT | REDIRECT => {}
        _ => return false,
    }
    true
}

fn advertise_neighbour(io: &mut Io, to: Ipv6Addr, target: Ipv6Addr) {
    /// Flags: a router, answering a solicitation, to be believed (RFC 4861 §4.4).
    const FLAGS: u8 = 0xe0;
    /// The same, not answering anybody in particular.
    const FLAGS_UNSOLICITED: u8 = 0xa0;
    let mut message = [0; 32];
    message[0] = NEIGHBOUR_ADVERTISEMENT;
    message[4] = match to.is_unspecified() {
        true => FLAGS_UNSOLICITED,
        false => FLAGS,
    };
    message[8..24].copy_from_slice(&target.octets());
    message[24] = TARGET_LINK_LAYER;
    message[25] = 1;
    message[26..32].copy_from_slice(&GATEWAY_MAC);
    send(io, target, to, &message);
}

/// Says that there is a router, and that addresses are not to be made up from a prefix of it.
fn advertise_router(io: &mut Io, to: Ipv6Addr) {
    let mut message = [0; 24];
    message[0] = ROUTER_ADVERTISEMENT;
    message[4] = packet::HOP_LIMIT;
    message[6..8].copy_from_slice(&ROUTER_LIFETIME.to_be_bytes());
    message[16] = SOURCE_LINK_LAYER;
    message[17] = 1;
    message[18..24].copy_from_slice(&GATEWAY_MAC);
    send(io, ROUTER_V6, to, &message);
}

fn send(io: &mut Io, from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) {
    /// Where those without an address are reached: all nodes of the link (RFC 4291 §2.7.1).
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let to = match to.is_unspecified() {
        true => ALL_NODES,
        false => to,
    };
    let start = HEADROOM + IPV6_LEN;
    io.buffer[start..start + message.len()].copy_from_slice(message);
    io.send_icmp(from.into(), to.into(), message.len());
}

fn is_ours(io: &Io, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let config = io.policy.config();
            address == config.gateway_v4()
                || config.host == Some(address)
                || io.policy.target(address.into()) == Target::Dns
        }
        IpAddr::V6(address) => [ROUTER_V6, GATEWAY_V6, DNS_V6].contains(&address),
    }
}
