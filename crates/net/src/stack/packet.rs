//! IP packets, UDP and what they have in common: taken apart without trust, put together in place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::link::{Finish, HEADROOM};

/// ICMP (RFC 792). These numbers of protocols are IANA's.
pub(crate) const ICMP: u8 = 1;
/// TCP (RFC 9293).
pub(crate) const TCP: u8 = 6;
/// UDP (RFC 768).
pub(crate) const UDP: u8 = 17;
/// The fragment header (RFC 8200 §4.5).
const IPV6_FRAGMENT: u8 = 44;
/// ICMPv6 (RFC 4443).
pub(crate) const ICMPV6: u8 = 58;

/// The length of an IPv4 header without options, in bytes (RFC 791 §3.1).
pub(crate) const IPV4_LEN: usize = 20;
/// The length of an IPv6 header, in bytes (RFC 8200 §3).
pub(crate) const IPV6_LEN: usize = 40;
/// The length of a UDP header, in bytes (RFC 768).
pub(crate) const UDP_LEN: usize = 8;
/// The length of a TCP header without options, in bytes (RFC 9293 §3.1).
pub(crate) const TCP_LEN: usize = 20;
/// Where the checksum is in a TCP header, in bytes (RFC 9293 §3.1).
pub(crate) const TCP_CHECKSUM: usize = 16;
/// Where the checksum is in a UDP header, in bytes (RFC 768).
pub(crate) const UDP_CHECKSUM: u16 = 6;
/// The time to live of packets of our own, in hops (RFC 1340's recommendation).
pub(crate) const HOP_LIMIT: u8 = 64;

/// An IP packet from the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// What the payload is; of a fragment, what the whole is.
    pub(crate) protocol: u8,
    /// The packet from its first byte to its last, without what the frame has after it; of one that came in fragments,
    /// its headers.
    pub(crate) whole: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) fragment: Option<Fragment>,
}

/// Which part of a packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) identification: u32,
    /// Where its payload is in the whole one, in bytes.
    pub(crate) offset: u16,
    /// Whether others come behind it.
    pub(crate) more: bool,
}

impl<'a> Packet<'a> {
    /// Takes an IPv4 packet apart; `None` when it is none.
    pub(crate) fn parse_v4(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let first = *bytes.first()?;
        let header_len = usize::from(first & 0x0f) * 4;
        let total_len = usize::from(be16(bytes, 2)?);
        if first >> 4 != 4 || header_len < IPV4_LEN || total_len < header_len {
            return None;
        }
        let whole = bytes.get(..total_len)?;
        let flags = be16(bytes, 6)?;
        let fragment = Fragment {
            identification: be16(bytes, 4)?.into(),
            offset: (flags & 0x1fff).checked_mul(8)?,
            more: flags & 0x2000 != 0,
        };
        Some(Packet {
            source: ipv4(bytes, 12)?.into(),
            destination: ipv4(bytes, 16)?.into(),
            protocol: *bytes.get(9)?,
            whole,
            payload: whole.get(header_len..)?,
            fragment: (fragment.more || fragment.offset > 0).then_some(fragment),
        })
    }

    /// Takes an IPv6 packet apart; `None` when it is none. Of the extension headers only that of
    /// fragments is understood: programs send no others unasked.
    pub(crate) fn parse_v6(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let payload_len = usize::from(be16(bytes, 4)?);
        if bytes.first()? >> 4 != 6 {
            return None;
        }
        let whole = bytes.get(..IPV6_LEN + payload_len)?;
        let mut packet = Packet {
            source: ipv6(bytes, 8)?.into(),
            destination: ipv6(bytes, 24)?.into(),
            protocol: *bytes.get(6)?,
            whole,
            payload: whole.get(IPV6_LEN..)?,
            fragment: None,
        };
        if packet.protocol == IPV6_FRAGMENT {
            let header = packet.payload.get(..8)?;
            let flags = be16(header, 2)?;
            packet.protocol = header[0];
            packet.payload = &packet.payload[8..];
            packet.fragment = Some(Fragment {
                identification: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                offset: flags & 0xfff8,
                more: flags & 1 != 0,
            });
        }
        Some(packet)
    }

    /// The ports at the start of a TCP or UDP payload, with the addresses: source, destination.
    pub(crate) fn endpoints(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((
            SocketAddr::new(self.source, be16(self.payload, 0)?),
            SocketAddr::new(self.destination, be16(self.payload, 2)?),
        ))
    }
}

/// Where the payload of a UDP packet between two addresses goes in a buffer.
pub(crate) fn udp_payload_at(to: SocketAddr) -> usize {
    HEADROOM + ip_len(to.ip()) + UDP_LEN
}

/// Puts the headers of a UDP packet before its payload, which is in the buffer already, at
/// [`udp_payload_at`], and is `length` bytes long. Gives the length of the buffer to send and what
/// is left to finish. `None` when the two are not of one family or the packet would be too long.
pub(crate) fn finish_udp(
    buffer: &mut [u8],
    from: SocketAddr,
    to: SocketAddr,
    length: usize,
    offloads: bool,
) -> Option<(usize, Finish)> {
    let start = ip_len(to.ip());
    let udp_len = u16::try_from(UDP_LEN + length).ok()?;
    let udp = buffer.get_mut(HEADROOM + start..HEADROOM + start + usize::from(udp_len))?;
    udp[0..2].copy_from_slice(&from.port().to_be_bytes());
    udp[2..4].copy_from_slice(&to.port().to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    let finish = finish_ip(
        buffer,
        from.ip(),
        to.ip(),
        UDP,
        udp_len,
        UDP_CHECKSUM,
        offloads,
    )?;
    Some((HEADROOM + start + usize::from(udp_len), finish))
}

/// Puts an IP header before a transport payload of `length` bytes, and the checksum into it at
/// `checksum`, counted from the transport header: whole, or for the kernel to finish.
pub(crate) fn finish_ip(
    buffer: &mut [u8],
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    length: u16,
    checksum: u16,
    offloads: bool,
) -> Option<Finish> {
    put_ip_header(buffer.get_mut(HEADROOM..)?, from, to, protocol, length)?;
    let start = ip_len(to);
    let transport = buffer.get_mut(HEADROOM + start..HEADROOM + start + usize::from(length))?;
    let at = usize::from(checksum);
    // ICMP over IPv4 has no pseudo-header (RFC 792), everything else does.
    let pseudo = match protocol {
        ICMP => 0,
        _ => pseudo_header_sum(from, to, protocol, u32::from(length)),
    };
    transport.get_mut(at..at + 2)?.fill(0);
    let finish = if offloads && protocol != ICMP && protocol != ICMPV6 {
        transport[at..at + 2].copy_from_slice(&fold(pseudo).to_be_bytes());
        Finish::Checksum {
            start: start as u16,
            offset: checksum,
        }
    } else {
        // In UDP, 0 stands for no checksum (RFC 768); the other zero is sent in its place.
        let sum = match !fold(pseudo + sum(transport)) {
            0 if protocol == UDP => 0xffff,
            sum => sum,
        };
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        Finish::Whole
    };
    Some(finish)
}

fn put_ip_header(
    header: &mut [u8],
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    length: u16,
) -> Option<()> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = header.get_mut(..IPV4_LEN)?;
            let total = length.checked_add(IPV4_LEN as u16)?;
            header.fill(0);
            header[0] = 0x45;
            header[2..4].copy_from_slice(&total.to_be_bytes());
            // Atomic, so the identification means nothing (RFC 6864 §4.1): don't fragment.
            header[6] = 0x40;
            header[8] = HOP_LIMIT;
            header[9] = protocol;
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let checksum = !fold(sum(header));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = header.get_mut(..IPV6_LEN)?;
            header.fill(0);
            header[0] = 0x60;
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header[6] = protocol;
            // Neighbour discovery demands 255, and nothing else minds it (RFC 4861 §6.1).
            header[7] = match protocol {
                ICMPV6 => 255,
                _ => HOP_LIMIT,
            };
            header[8..24].copy_from_slice(&from.octets());
            header[24..40].copy_from_slice(&to.octets());
        }
        _ => return None,
    }
    Some(())
}

/// The length of the IP header we send to such an address.
pub(crate) fn ip_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => IPV4_LEN,
        IpAddr::V6(_) => IPV6_LEN,
    }
}

/// The sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1), not folded.
pub(crate) fn pseudo_header_sum(from: IpAddr, to: IpAddr, protocol: u8, length: u32) -> u64 {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    address(from) + address(to) + u64::from(protocol) + u64::from(length)
}

/// The sum of 16-bit words in network order, an odd last byte padded with zero (RFC 1071), not
/// folded.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    // Words of 32 bits add up to the same once folded, and half as many additions do it.
    let mut chunks = bytes.chunks_exact(4);
    let mut total: u64 = 0;
    for chunk in &mut chunks {
        total += u64::from(u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    let mut last = [0; 4];
    let rest = chunks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_be_bytes(last))
}

/// Folds a sum to the 16 bits of one's complement arithmetic.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The 16 bits in network order at a place, if there.
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The 32 bits in network order at a place, if there.
pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// The IPv4 address at a place, if there.
pub(crate) fn ipv4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    be32(bytes, at).map(Ipv4Addr::from)
}

/// The IPv6 address at a place, if there.
pub(crate) fn ipv6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let bytes: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn a_udp_packet_comes_back_as_it_was_made() {
        for (from, to) in [
            ("10.0.2.3:53", "10.0.2.100:4000"),
            ("[fd00::3]:53", "[fd00::100]:4000"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            for offloads in [false, true] {
                let mut buffer = vec![0xee; 4096];
                let at = udp_payload_at(to);
                buffer[at..at + 5].copy_from_slice(b"hello");
                let (length, finish) = finish_udp(&mut buffer, from, to, 5, offloads).unwrap();
                let bytes = &buffer[HEADROOM..length];
                let packet = match from {
                    SocketAddr::V4(_) => Packet::parse_v4(bytes).unwrap(),
                    SocketAddr::V6(_) => Packet::parse_v6(bytes).unwrap(),
                };
                assert_eq!(packet.endpoints(), Some((from, to)));
                assert_eq!(packet.protocol, UDP);
                assert_eq!(&packet.payload[UDP_LEN..], b"hello");
                let pseudo = pseudo_header_sum(from.ip(), to.ip(), UDP, 13);
                if offloads {
                    assert!(matches!(finish, Finish::Checksum { offset: 6, .. }));
                    assert_eq!(be16(packet.payload, 6), Some(fold(pseudo)));
                } else {
                    assert_eq!(finish, Finish::Whole);
                    assert_eq!(fold(pseudo + sum(packet.payload)), 0xffff);
                }
                if from.is_ipv4() {
                    assert_eq!(fold(sum(&bytes[..IPV4_LEN])), 0xffff);
                }
            }
        }
    }

    #[test]
    fn the_sum_is_that_of_rfc_1071() {
        // The example of RFC 1071 §3.
        assert_eq!(
            fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])),
            0xddf2
        );
        assert_eq!(fold(sum(&[0x12])), 0x1200);
        assert_eq!(fold(sum(&[0x12, 0x34, 0x56])), 0x1234 + 0x5600);
    }

    #[test]
    fn too_long_a_packet_is_not_made() {
        let from = "10.0.2.3:53".parse().unwrap();
        let to = "10.0.2.100:53".parse().unwrap();
        let mut buffer = vec![0; HEADROOM + 70000];
        assert!(finish_udp(&mut buffer, from, to, 65507, true).is_some());
        assert!(finish_udp(&mut buffer, from, to, 65508, true).is_none());
        let other = "[fd00::1]:53".parse().unwrap();
        assert!(finish_udp(&mut buffer, other, to, 5, true).is_none());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = Random::new(3);
        for _ in 0..200_000 {
            let length = random.below(80);
            let mut bytes = random.bytes(length);
            if let Some(first) = bytes.first_mut() {
                *first = [0x45, 0x46, 0x60, 0x4f, *first][random.below(5)];
            }
            let packets = [Packet::parse_v4(&bytes), Packet::parse_v6(&bytes)];
            for packet in packets.into_iter().flatten() {
                packet.endpoints();
                assert!(packet.whole.len() <= bytes.len());
                assert!(packet.payload.len() < packet.whole.len());
            }
        }
    }
}
