//! The seam between frames and flows: where IP packets for the container go.

use rcon_sys::tun::VNET_HDR_LEN;

use crate::control::Traffic;

/// The length of an Ethernet header, in bytes (IEEE 802.3).
pub(crate) const ETHERNET_LEN: usize = 14;
/// The room before each IP packet for what the link puts there, in bytes: the header of
/// <linux/virtio_net.h> and Ethernet's.
pub(crate) const HEADROOM: usize = VNET_HDR_LEN + ETHERNET_LEN;
/// The longest IPv4 packet, in bytes: its total length has 16 bits (RFC 791 §3.1).
pub(crate) const MAX_PACKET_V4: usize = 65535;
/// The longest IP packet, in bytes: IPv6 does not count its header (RFC 8200 §3).
pub(crate) const MAX_PACKET: usize = 40 + 65535;

/// The EtherType of IPv4 (RFC 894).
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
/// The EtherType of ARP (RFC 826).
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
/// The EtherType of IPv6 (RFC 2464).
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;

/// What is left for the kernel to do to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// Nothing.
    Whole,
    /// The checksum: the sum of the pseudo-header stands at `offset` from `start`, and the rest of
    /// the packet from `start` on is to be added. Both count from the packet's first byte.
    Checksum {
        /// Where the transport header starts.
        start: u16,
        /// Where in the transport header the checksum is.
        offset: u16,
    },
    /// The checksum of TCP, and cutting into segments with `size` bytes of payload each.
    Segments {
        /// Where the TCP header starts.
        start: u16,
        /// Where the payload starts.
        payload: u16,
        /// The maximum segment size.
        size: u16,
    },
    /// The checksum of UDP, and cutting into datagrams with `size` bytes of payload each.
    Datagrams {
        /// Where the UDP header starts.
        start: u16,
        /// The length of each payload but the last.
        size: u16,
    },
}

/// Where IP packets for the container go: the tap, or what a test puts in its place.
pub(crate) trait Link {
    /// Whether the other side finishes what [`Finish`] leaves; otherwise packets must be whole and
    /// no longer than the MTU.
    fn offloads(&self) -> bool;

    /// Whether it finishes [`Finish::Datagrams`] too.
    fn cuts_datagrams(&self) -> bool {
        false
    }

    /// Remembers the hardware address that the container sends from, to send to it.
    fn learn(&mut self, source: [u8; 6]);

    /// Sends the payload in `buffer[HEADROOM..]` in a frame of the given EtherType. A frame that
    /// cannot be sent is lost, as on any link.
    fn send_frame(&mut self, buffer: &mut [u8], ethertype: u16, finish: Finish);

    /// What was sent so far, and what was lost.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    /// Sends the IP packet in `buffer[HEADROOM..]`.
    fn send(&mut self, buffer: &mut [u8], finish: Finish) {
        let ethertype = match buffer.get(HEADROOM).map(|byte| byte >> 4) {
            Some(4) => ETHERTYPE_IPV4,
            Some(6) => ETHERTYPE_IPV6,
            _ => return,
        };
        self.send_frame(buffer, ethertype, finish);
    }
}
