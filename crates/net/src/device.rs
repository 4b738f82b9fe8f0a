//! The tap: Ethernet frames with a virtio-net header before each.
//!
//! The header, in the machine's byte order, lets both sides leave work undone
//! (linux/virtio_net.h). Towards us the kernel hands
//! over TCP super-frames of up to 64 KiB without checksums; towards the kernel we do the same. On
//! a link that is a memory copy, checksums protect nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rcon_sys::tun::{self, Offload, VNET_HDR_LEN};

use crate::control::Traffic;
use crate::stack::GATEWAY_MAC;
use crate::stack::link::{ETHERNET_LEN, ETHERTYPE_IPV6, Finish, HEADROOM, Link, MAX_PACKET};
use crate::stack::packet::{TCP_CHECKSUM, UDP_CHECKSUM, UDP_LEN};

/// The flag for an open checksum (VIRTIO_NET_HDR_F_NEEDS_CSUM).
const NEEDS_CSUM: u8 = 1;
/// Segmentation of TCP over IPv4 (VIRTIO_NET_HDR_GSO_TCPV4).
const GSO_TCPV4: u8 = 1;
/// Segmentation of TCP over IPv6 (VIRTIO_NET_HDR_GSO_TCPV6).
const GSO_TCPV6: u8 = 4;
/// Segmentation of UDP (VIRTIO_NET_HDR_GSO_UDP_L4).
const GSO_UDP_L4: u8 = 5;
/// What says in the type that TCP uses ECN (VIRTIO_NET_HDR_GSO_ECN).
const GSO_ECN: u8 = 0x80;

/// Room for the longest frame, in bytes.
pub(crate) const FRAME_LEN: usize = HEADROOM + MAX_PACKET;

/// The side of the tap that frames come from.
#[derive(Debug)]
pub(crate) struct Reader {
    tap: OwnedFd,
    vnet_hdr: bool,
}

/// The side of the tap that frames go to.
#[derive(Debug)]
pub(crate) struct Writer {
    tap: OwnedFd,
    vnet_hdr: bool,
    offload: Offload,
    /// The container's hardware address, as last seen.
    container: [u8; 6],
    traffic: Traffic,
}

/// A frame from the container.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// The source hardware address.
    pub(crate) source: [u8; 6],
    pub(crate) ethertype: u16,
    pub(crate) payload: &'a [u8],
    /// The payload of each datagram but the last, where a UDP packet stands for several.
    pub(crate) udp_segment: Option<u16>,
}

/// Takes a tap device into use.
///
/// # Errors
/// What the ioctls of [`tun`] say: the descriptor is no tap.
pub(crate) fn open(tap: OwnedFd) -> io::Result<(Reader, Writer)> {
    let offload = tun::set_offload(&tap)?;
    let vnet_hdr = tun::has_vnet_hdr(&tap)?;
    let writer = Writer {
        tap: tap.try_clone()?,
        vnet_hdr,
        offload,
        container: tun::hardware_address(&tap)?,
        traffic: Traffic::default(),
    };
    Ok((Reader { tap, vnet_hdr }, writer))
}

impl Reader {
    /// Reads one frame into `buffer`, of [`FRAME_LEN`] bytes; gives its length. Without a frame
    /// that is WouldBlock.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = if self.vnet_hdr { 0 } else { VNET_HDR_LEN };
        let length = rustix::io::read(&self.tap, &mut buffer[start..])?;
        buffer[..start].fill(0);
        Ok(start + length)
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}

/// Takes a frame apart; `None` when it is not for us or no frame at all.
pub(crate) fn parse(frame: &[u8]) -> Option<Frame<'_>> {
    let header = frame.get(..VNET_HDR_LEN)?;
    let ethernet = frame.get(VNET_HDR_LEN..HEADROOM)?;
    let destination = &ethernet[..6];
    let group = destination[0] & 1 != 0;
    if !group && destination != GATEWAY_MAC {
        return None;
    }
    let gso_size = u16::from_ne_bytes([header[4], header[5]]);
    let udp_segment = (header[1] & !GSO_ECN == GSO_UDP_L4 && gso_size > 0).then_some(gso_size);
    let mut source = [0; 6];
    source.copy_from_slice(&ethernet[6..12]);
    Some(Frame {
        source,
        ethertype: u16::from_be_bytes([ethernet[12], ethernet[13]]),
        payload: &frame[HEADROOM..],
        udp_segment,
    })
}

/// Puts the virtio-net header into `header`, for a packet of the given EtherType.
fn vnet_header(header: &mut [u8], ethertype: u16, finish: Finish) {
    header.fill(0);
    let mut put = |at: usize, value: usize| {
        header[at..at + 2].copy_from_slice(&(value as u16).to_ne_bytes());
    };
    let open = |start: u16| ETHERNET_LEN + usize::from(start);
    match finish {
        Finish::Whole => return,
        Finish::Checksum { start, offset } => {
            put(6, open(start));
            put(8, usize::from(offset));
        }
        Finish::Segments {
            start,
            payload,
            size,
        } => {
            put(2, open(payload));
            put(4, usize::from(size));
            put(6, open(start));
            put(8, TCP_CHECKSUM);
            header[1] = match ethertype {
                ETHERTYPE_IPV6 => GSO_TCPV6,
                _ => GSO_TCPV4,
            };
        }
        Finish::Datagrams { start, size } => {
            put(2, open(start) + UDP_LEN);
            put(4, usize::from(size));
            put(6, open(start));
            put(8, UDP_CHECKSUM.into());
            header[1] = GSO_UDP_L4;
        }
    }
    header[0] = NEEDS_CSUM;
}

impl Link for Writer {
    fn offloads(&self) -> bool {
        self.offload != Offload::None
    }

    fn cuts_datagrams(&self) -> bool {
        self.offload == Offload::TcpAndUdp
    }

    fn traffic(&self) -> Traffic {
        self.traffic
    }

    fn learn(&mut self, source: [u8; 6]) {
        let group = source[0] & 1 != 0;
        if !group && source != GATEWAY_MAC {
            self.container = source;
        }
    }

    fn send_frame(&mut self, buffer: &mut [u8], ethertype: u16, finish: Finish) {
        if buffer.len() < HEADROOM {
            return;
        }
        let (header, rest) = buffer.split_at_mut(VNET_HDR_LEN);
        vnet_header(header, ethertype, finish);
        rest[..6].copy_from_slice(&self.container);
        rest[6..12].copy_from_slice(&GATEWAY_MAC);
        rest[12..14].copy_from_slice(&ethertype.to_be_bytes());
        let frame: &[u8] = if self.vnet_hdr { buffer } else { rest };
        self.traffic.frames_received += 1;
        self.traffic.bytes_received += frame.len() as u64;
        // A device that is down or out of memory loses frames, as a cable that is pulled does.
        if rustix::io::write(&self.tap, frame).is_err() {
            self.traffic.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::link::ETHERTYPE_IPV4;

    #[test]
    fn headers_are_as_virtio_has_them() {
        let mut header = [0xff; VNET_HDR_LEN];
        vnet_header(&mut header, ETHERTYPE_IPV4, Finish::Whole);
        assert_eq!(header, [0; VNET_HDR_LEN]);
        let checksum = Finish::Checksum {
            start: 20,
            offset: 6,
        };
        vnet_header(&mut header, ETHERTYPE_IPV4, checksum);
        assert_eq!(header, [1, 0, 0, 0, 0, 0, 34, 0, 6, 0]);
        let segments = Finish::Segments {
            start: 40,
            payload: 60,
            size: 1440,
        };
        vnet_header(&mut header, ETHERTYPE_IPV6, segments);
        assert_eq!(header, [1, 4, 74, 0, 0xa0, 0x05, 54, 0, 16, 0]);
        let datagrams = Finish::Datagrams {
            start: 20,
            size: 1400,
        };
        vnet_header(&mut header, ETHERTYPE_IPV4, datagrams);
        assert_eq!(header, [1, 5, 42, 0, 0x78, 0x05, 34, 0, 6, 0]);
    }

    #[test]
    fn frames_for_others_and_stumps_are_passed_over() {
        let mut frame = vec![0; HEADROOM + 20];
        assert_eq!(parse(&frame), None);
        frame[VNET_HDR_LEN..VNET_HDR_LEN + 6].copy_from_slice(&GATEWAY_MAC);
        assert!(parse(&frame).is_some());
        for length in 0..HEADROOM {
            assert_eq!(parse(&frame[..length]), None);
        }
    }
}
