//! TCP segments in IP packets, as far as flows are told apart by them (RFC 9293 §3.1).

use std::net::{IpAddr, SocketAddr};

use crate::stack::link::{Finish, HEADROOM};
use crate::stack::packet::{self, Packet, TCP, TCP_CHECKSUM, TCP_LEN, be16, be32};

/// No more data from the sender: a control bit (RFC 9293 §3.1).
pub(crate) const FIN: u8 = 0x01;
/// Synchronize sequence numbers (RFC 9293 §3.1).
pub(crate) const SYN: u8 = 0x02;
/// Reset the connection (RFC 9293 §3.1).
pub(crate) const RST: u8 = 0x04;
/// The acknowledgment field is significant (RFC 9293 §3.1).
pub(crate) const ACK: u8 = 0x10;

/// What the headers of a segment say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) control: u8,
    pub(crate) window: u16,
    /// Where in the packet the TCP header starts.
    pub(crate) start: usize,
    pub(crate) payload_len: usize,
}

impl Header {
    /// Reads the headers of an IP packet; `None` when it holds no TCP segment.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Header> {
        let packet = match bytes.first()? >> 4 {
            4 => Packet::parse_v4(bytes)?,
            _ => Packet::parse_v6(bytes)?,
        };
        Header::of(&packet)
    }

    /// Reads the header of a packet's TCP segment.
    pub(crate) fn of(packet: &Packet<'_>) -> Option<Header> {
        let tcp = packet.payload;
        let data_offset = usize::from(*tcp.get(12)? >> 4) * 4;
        if packet.protocol != TCP || data_offset < TCP_LEN || data_offset > tcp.len() {
            return None;
        }
        Some(Header {
            source: packet.source,
            destination: packet.destination,
            source_port: be16(tcp, 0)?,
            destination_port: be16(tcp, 2)?,
            sequence: be32(tcp, 4)?,
            acknowledgment: be32(tcp, 8)?,
            control: *tcp.get(13)?,
            window: be16(tcp, 14)?,
            start: packet.whole.len() - tcp.len(),
            payload_len: tcp.len() - data_offset,
        })
    }

    /// Whether this asks for a new connection.
    pub(crate) fn opens(&self) -> bool {
        self.control & (SYN | ACK | RST | FIN) == SYN
    }
}

/// Kinds of options (RFC 9293 §3.2, RFC 7323 §2.2, RFC 2018 §2).
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    pub(super) const MAXIMUM_SEGMENT_SIZE: u8 = 2;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const SACK: u8 = 5;
}

/// What a SYN asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// The maximum segment size, or the default of those who say none (RFC 9293 §3.7.1).
    pub(crate) mss: u16,
    /// Whether windows may be scaled.
    pub(crate) scales: bool,
    /// Whether selective acknowledgments are understood (RFC 2018).
    pub(crate) selective: bool,
}

/// Gives `visit` each option of a segment, whole. `None` when they make no sense.
fn for_each_option(bytes: &mut [u8], mut visit: impl FnMut(&mut [u8])) -> Option<()> {
    let header = Header::parse(bytes)?;
    let end = bytes.len() - header.payload_len;
    let mut options = bytes.get_mut(header.start + TCP_LEN..end)?;
    while let Some(kind) = options.first() {
        let length = match *kind {
            option::END => break,
            option::NO_OPERATION => 1,
            _ => usize::from(*options.get(1)?).max(2),
        };
        let (one, rest) = options.split_at_mut_checked(length)?;
        visit(one);
        options = rest;
    }
    Some(())
}

/// Reads what a SYN asks for, and makes it ask for a maximum segment size of `mss`, if that is
/// given. `None` when its options make no sense.
pub(crate) fn prepare_syn(bytes: &mut [u8], mss: Option<u16>) -> Option<Wishes> {
    /// What counts where none is asked for (RFC 9293 §3.7.1).
    const DEFAULT: u16 = 536;
    /// The least that makes sense: Linux's TCP_MIN_SND_MSS.
    const LEAST: u16 = 48;
    let mut wishes = Wishes {
        mss: DEFAULT,
        scales: false,
        selective: false,
    };
    for_each_option(bytes, |one| match *one {
        [option::MAXIMUM_SEGMENT_SIZE, 4, ref mut value @ ..] => {
            if let Some(asked) = be16(value, 0) {
                wishes.mss = asked.max(LEAST);
            }
            if let Some(mss) = mss {
                value.copy_from_slice(&mss.to_be_bytes());
            }
        }
        [option::WINDOW_SCALE, 3, _] => wishes.scales = true,
        [option::SACK_PERMITTED, 2] => wishes.selective = true,
        _ => {}
    })?;
    Some(wishes)
}

/// Puts another window scale where a SYN has one.
pub(crate) fn replace_window_scale(bytes: &mut [u8], with: u8) {
    let _ = for_each_option(bytes, |one| {
        if let [option::WINDOW_SCALE, 3, scale] = one {
            *scale = with;
        }
    });
}

/// Puts another acknowledgment number and window into a segment.
pub(crate) fn acknowledge(bytes: &mut [u8], header: &Header, acknowledgment: u32, window: u16) {
    let tcp = &mut bytes[header.start..];
    tcp[8..12].copy_from_slice(&acknowledgment.to_be_bytes());
    tcp[14..16].copy_from_slice(&window.to_be_bytes());
}

/// The longest headers of IP and TCP together, in bytes: each has its length in a few bits.
const MAX_HEADERS: usize = 60 + 60;

/// The headers of a segment, as a packet of their own.
pub(crate) struct Bare {
    bytes: [u8; MAX_HEADERS],
    length: usize,
}

impl Bare {
    /// The headers of `packet`, with another sequence number and other control bits.
    pub(crate) fn of(packet: &[u8], header: &Header, sequence: u32, control: u8) -> Option<Bare> {
        let length = packet.len() - header.payload_len;
        let mut bytes = [0; MAX_HEADERS];
        let headers = bytes.get_mut(..length)?;
        headers.copy_from_slice(packet.get(..length)?);
        // The length is where it is in either version (RFC 791 §3.1, RFC 8200 §3).
        match header.source {
            IpAddr::V4(_) => headers[2..4].copy_from_slice(&(length as u16).to_be_bytes()),
            IpAddr::V6(_) => {
                let payload = (length - packet::IPV6_LEN) as u16;
                headers[4..6].copy_from_slice(&payload.to_be_bytes());
            }
        }
        let tcp = &mut headers[header.start..];
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        tcp[13] = control;
        Some(Bare { bytes, length })
    }

    /// The packet.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// How many blocks a selective acknowledgment has at most here: as many as fit beside other options
/// (RFC 2018 §3).
pub(crate) const MAX_BLOCKS: usize = 3;

/// Writes an empty acknowledging segment, an answer to `to`, into `buffer`; gives the length of
/// the buffer to send. `blocks` is what came out of order, from and to. The checksum is not there
/// yet.
pub(crate) fn acknowledgment(
    buffer: &mut [u8],
    to: &Header,
    sequence: u32,
    acknowledgment: u32,
    blocks: &[(u32, u32)],
) -> Option<usize> {
    let start = HEADROOM + packet::ip_len(to.source);
    let blocks = &blocks[..blocks.len().min(MAX_BLOCKS)];
    let options = match blocks.len() {
        0 => 0,
        blocks => 4 + 8 * blocks,
    };
    let length = TCP_LEN + options;
    let tcp = buffer.get_mut(start..start + length)?;
    tcp.fill(0);
    if options > 0 {
        let kind = [option::NO_OPERATION, option::NO_OPERATION, option::SACK];
        tcp[TCP_LEN..TCP_LEN + 3].copy_from_slice(&kind);
        tcp[TCP_LEN + 3] = options as u8 - 2;
        for (place, (from, to)) in tcp[TCP_LEN + 4..].chunks_exact_mut(8).zip(blocks) {
            place[..4].copy_from_slice(&from.to_be_bytes());
            place[4..].copy_from_slice(&to.to_be_bytes());
        }
    }
    tcp[0..2].copy_from_slice(&to.destination_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&to.source_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[8..12].copy_from_slice(&acknowledgment.to_be_bytes());
    tcp[12] = (length as u8 / 4) << 4;
    tcp[13] = ACK;
    packet::finish_ip(
        buffer,
        to.destination,
        to.source,
        TCP,
        length as u16,
        TCP_CHECKSUM as u16,
        true,
    )?;
    Some(start + length)
}

/// Writes the reset that answers a segment nobody expected into `buffer` (RFC 9293 §3.10.7.1);
/// gives the length of the buffer to send, and what is left to finish.
pub(crate) fn reset(buffer: &mut [u8], to: &Header, offloads: bool) -> Option<(usize, Finish)> {
    let start = HEADROOM + packet::ip_len(to.source);
    let tcp = buffer.get_mut(start..start + TCP_LEN)?;
    tcp.fill(0);
    tcp[0..2].copy_from_slice(&to.destination_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&to.source_port.to_be_bytes());
    if to.control & ACK != 0 {
        tcp[4..8].copy_from_slice(&to.acknowledgment.to_be_bytes());
        tcp[13] = RST;
    } else {
        let flags = u32::from(to.control & SYN != 0) + u32::from(to.control & FIN != 0);
        let next = to
            .sequence
            .wrapping_add(to.payload_len as u32)
            .wrapping_add(flags);
        tcp[8..12].copy_from_slice(&next.to_be_bytes());
        tcp[13] = RST | ACK;
    }
    tcp[12] = (TCP_LEN as u8 / 4) << 4;
    let finish = packet::finish_ip(
        buffer,
        to.destination,
        to.source,
        TCP,
        TCP_LEN as u16,
        TCP_CHECKSUM as u16,
        offloads,
    )?;
    Some((start + TCP_LEN, finish))
}

/// A whole segment in its packet, as the container would send it. The addresses are of one family.
pub(crate) fn segment(
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    acknowledgment: u32,
    control: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let start = HEADROOM + packet::ip_len(to.ip());
    let mut buffer = vec![0; start + TCP_LEN];
    buffer[start..start + 2].copy_from_slice(&from.port().to_be_bytes());
    buffer[start + 2..start + 4].copy_from_slice(&to.port().to_be_bytes());
    buffer[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
    buffer[start + 8..start + 12].copy_from_slice(&acknowledgment.to_be_bytes());
    buffer[start + 12] = ((TCP_LEN + options.len()) as u8 / 4) << 4;
    buffer[start + 13] = control;
    buffer[start + 14..start + 16].copy_from_slice(&65535u16.to_be_bytes());
    buffer.extend_from_slice(options);
    buffer.extend_from_slice(payload);
    let length = (buffer.len() - start) as u16;
    let checksum = TCP_CHECKSUM as u16;
    let _ = packet::finish_ip(
        &mut buffer,
        from.ip(),
        to.ip(),
        TCP,
        length,
        checksum,
        false,
    );
    buffer.split_off(HEADROOM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    const OPTIONS: [u8; 12] = [1, 1, 2, 4, 0x05, 0xb4, 4, 2, 3, 3, 7, 0];

    #[test]
    fn a_syn_is_read_and_asks_for_what_we_can() {
        for (from, to) in [
            ("10.0.2.100:1", "192.0.2.1:2"),
            ("[fd00::100]:1", "[2001:db8::1]:2"),
        ] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let mut syn = segment(from, to, 7, 0, SYN, &OPTIONS, b"");
            let wishes = |mss, scales| {
                Some(Wishes {
                    mss,
                    scales,
                    selective: scales,
                })
            };
            assert_eq!(prepare_syn(&mut syn, Some(60000)), wishes(1460, true));
            assert_eq!(prepare_syn(&mut syn, None), wishes(60000, true));
            replace_window_scale(&mut syn, 5);
            assert_eq!(syn[syn.len() - 2], 5);
            let mut bare = segment(from, to, 7, 0, SYN, &[], b"");
            assert_eq!(prepare_syn(&mut bare, Some(60000)), wishes(536, false));
            assert!(Header::parse(&syn).unwrap().opens());
            let mut cut = segment(from, to, 7, 0, SYN, &[1, 2, 9, 9], b"");
            assert_eq!(prepare_syn(&mut cut, None), None);
        }
    }

    #[test]
    fn headers_are_packets_of_their_own() {
        for (from, to) in [
            ("10.0.2.100:1", "192.0.2.1:2"),
            ("[fd00::100]:1", "[2001:db8::1]:2"),
        ] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let whole = segment(from, to, 7, 9, ACK | FIN, &OPTIONS, b"payload");
            let header = Header::parse(&whole).unwrap();
            let bare = Bare::of(&whole, &header, 5, ACK).unwrap();
            let seen = Header::parse(bare.bytes()).unwrap();
            assert_eq!((seen.sequence, seen.control), (5, ACK));
            assert_eq!((seen.payload_len, seen.acknowledgment), (0, 9));
        }
    }

    #[test]
    fn resets_fit_what_they_answer() {
        let (from, to) = (
            "10.0.2.100:1".parse().unwrap(),
            "192.0.2.1:2".parse().unwrap(),
        );
        let mut buffer = vec![0; 200];
        let mut answer = |bytes: &[u8]| {
            let header = Header::parse(bytes).unwrap();
            let (length, _) = reset(&mut buffer, &header, false).unwrap();
            Header::parse(&buffer[HEADROOM..length]).unwrap()
        };
        let answer_to_syn = answer(&segment(from, to, 7, 0, SYN, &OPTIONS, b""));
        assert_eq!(answer_to_syn.control, RST | ACK);
        assert_eq!(
            (answer_to_syn.sequence, answer_to_syn.acknowledgment),
            (0, 8)
        );
        assert_eq!(answer_to_syn.source_port, 2);
        let answer_to_data = answer(&segment(from, to, 7, 99, ACK, &[], b"hello"));
        assert_eq!(answer_to_data.control, RST);
        assert_eq!(answer_to_data.sequence, 99);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = Random::new(9);
        let (from, to) = (
            "10.0.2.100:1".parse().unwrap(),
            "192.0.2.1:2".parse().unwrap(),
        );
        let whole = segment(from, to, 7, 0, SYN, &OPTIONS, b"payload");
        let mut buffer = vec![0; 200];
        for _ in 0..200_000 {
            let mut bytes = whole.clone();
            for _ in 0..random.below(6) {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            }
            bytes.truncate(random.below(bytes.len() + 1));
            if let Some(header) = Header::parse(&bytes) {
                reset(&mut buffer, &header, true);
            }
            prepare_syn(&mut bytes, Some(1000));
            replace_window_scale(&mut bytes, 3);
        }
    }
}
