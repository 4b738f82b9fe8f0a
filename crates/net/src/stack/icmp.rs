//! Errors told by ICMP (RFC 792) and ICMPv6 (RFC 4443).

use std::io;
use std::net::IpAddr;

use super::Io;
use super::link::HEADROOM;
use super::packet::{self, IPV4_LEN, Packet};

/// Destination unreachable (RFC 792).
const UNREACHABLE_V4: u8 = 3;
/// Destination unreachable (RFC 4443 §3.1).
const UNREACHABLE_V6: u8 = 1;
/// Parameter problem (RFC 4443 §3.4).
const PARAMETER_PROBLEM_V6: u8 = 4;
/// The header before the quoted packet, in bytes (RFC 792; RFC 4443 §3).
const HEADER_LEN: usize = 8;
/// How much of the offending packet is quoted, in bytes: IPv4 errors stay within 576 (RFC 1812
/// §4.3.2.3); more than the headers serves nobody here.
const QUOTE_LEN: usize = 128;

/// Why a packet did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There is no way to the network.
    Network,
    /// There is nobody at the address.
    Host,
    /// Nobody speaks the protocol.
    Protocol,
    /// Nobody has the port.
    Port,
    /// Communication administratively prohibited (RFC 1812 §5.2.7.1, RFC 4443 §3.1).
    Prohibited,
}

impl Reason {
    /// The reason that a socket's error stands for; `None` for those that say nothing about the
    /// destination.
    pub(crate) fn of(error: &io::Error) -> Option<Reason> {
        match error.raw_os_error()? {
            libc::ENETUNREACH | libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT | libc::ENETDOWN => {
                Some(Reason::Network)
            }
            libc::EHOSTUNREACH | libc::EHOSTDOWN => Some(Reason::Host),
            libc::ECONNREFUSED => Some(Reason::Port),
            libc::ENOPROTOOPT => Some(Reason::Protocol),
            libc::EACCES | libc::EPERM => Some(Reason::Prohibited),
            _ => None,
        }
    }

    /// Type and code.
    fn code(self, ipv6: bool) -> (u8, u8) {
        match (ipv6, self) {
            (false, Reason::Network) => (UNREACHABLE_V4, 0),
            (false, Reason::Host) => (UNREACHABLE_V4, 1),
            (false, Reason::Protocol) => (UNREACHABLE_V4, 2),
            (false, Reason::Port) => (UNREACHABLE_V4, 3),
            (false, Reason::Prohibited) => (UNREACHABLE_V4, 13),
            (true, Reason::Network) => (UNREACHABLE_V6, 0),
            (true, Reason::Prohibited) => (UNREACHABLE_V6, 1),
            (true, Reason::Host) => (UNREACHABLE_V6, 3),
            (true, Reason::Port) => (UNREACHABLE_V6, 4),
            (true, Reason::Protocol) => (PARAMETER_PROBLEM_V6, 1),
        }
    }
}

/// Tells the container why a packet of its own, given whole, did not arrive.
pub(crate) fn unreachable(io: &mut Io, reason: Reason, offending: &[u8]) {
    let packet = match offending.first().map(|byte| byte >> 4) {
        Some(4) => Packet::parse_v4(offending),
        _ => Packet::parse_v6(offending),
    };
    let Some(packet) = packet else { return };
    // Nothing is said about what went to a group (RFC 1122 §3.2.2).
    if packet.destination.is_multicast() {
        return;
    }
    // A host that refuses says so itself; about the way there, the gateway knows.
    let from = match reason {
        Reason::Port | Reason::Protocol => packet.destination,
        _ => io.policy.gateway(packet.source),
    };
    let (kind, code) = reason.code(packet.source.is_ipv6());
    let start = HEADROOM + packet::ip_len(packet.source);
    let quoted = &offending[..offending.len().min(QUOTE_LEN)];
    let message = &mut io.buffer[start..start + HEADER_LEN + quoted.len()];
    message[..HEADER_LEN].fill(0);
    message[0] = kind;
    message[1] = code;
    if kind == PARAMETER_PROBLEM_V6 {
        // The pointer: where the next-header field is.
        message[7] = 6;
    }
    message[HEADER_LEN..].copy_from_slice(quoted);
    io.send_icmp(from, packet.source, HEADER_LEN + quoted.len());
}

/// The start of a UDP packet that was sent, as an error quotes it: its IP and UDP headers.
pub(crate) fn quote_udp(from: std::net::SocketAddr, to: std::net::SocketAddr) -> Vec<u8> {
    let length = packet::ip_len(to.ip()) + packet::UDP_LEN;
    let mut buffer = vec![0; HEADROOM + length];
    packet::finish_udp(&mut buffer, from, to, 0, false);
    buffer.split_off(HEADROOM)
}

/// The start of an ICMP echo request that was sent, as an error quotes it.
pub(crate) fn quote_echo(from: IpAddr, to: IpAddr, header: [u8; 8]) -> Vec<u8> {
    let start = HEADROOM + packet::ip_len(to);
    let mut buffer = vec![0; start];
    buffer.extend_from_slice(&header);
    let protocol = match to {
        IpAddr::V4(_) => packet::ICMP,
        IpAddr::V6(_) => packet::ICMPV6,
    };
    packet::finish_ip(&mut buffer, from, to, protocol, 8, 2, false);
    buffer.split_off(HEADROOM)
}

const _: () = assert!(QUOTE_LEN >= IPV4_LEN + 8);
