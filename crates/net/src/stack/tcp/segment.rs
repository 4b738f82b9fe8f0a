//! TCP segments in IP packets, as far as flows are told apart by them (RFC 9293 §3.1).

use std::net::IpAddr;

use crate::stack::link::{Finish, HEADROOM};
use crate::stack::packet::{self, Packet, TCP, TCP_CHECKSUM, TCP_LEN, be16, be32};

/// Control bits.
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
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
            start: packet.whole.len() - tcp.len(),
            payload_len: tcp.len() - data_offset,
        })
    }

    /// Whether this asks for a new connection.
    pub(crate) fn opens(&self) -> bool {
        self.control & (SYN | ACK | RST | FIN) == SYN
    }
}

/// Puts another maximum segment size into a packet with SYN; gives the one that was there, or the
/// default of those who say none (RFC 9293 §3.7.1). `None` when the options make no sense.
pub(crate) fn replace_mss(bytes: &mut [u8], with: u16) -> Option<u16> {
    /// Kinds of options (RFC 9293 §3.2).
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const MAXIMUM_SEGMENT_SIZE: u8 = 2;
    const DEFAULT: u16 = 536;
    /// The least that makes sense: Linux's TCP_MIN_SND_MSS.
    const LEAST: u16 = 48;
    let header = Header::parse(bytes)?;
    let end = bytes.len() - header.payload_len;
    let mut options = bytes.get_mut(header.start + TCP_LEN..end)?;
    while let Some(kind) = options.first() {
        let length = match *kind {
            END => break,
            NO_OPERATION => 1,
            _ => usize::from(*options.get(1)?),
        };
        if *kind == MAXIMUM_SEGMENT_SIZE && length == 4 {
            let value = be16(options, 2)?;
            options[2..4].copy_from_slice(&with.to_be_bytes());
            return Some(value.max(LEAST));
        }
        options = options.get_mut(length.max(1)..)?;
    }
    Some(DEFAULT)
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

#[cfg(test)]
pub(crate) fn segment(
    from: std::net::SocketAddr,
    to: std::net::SocketAddr,
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
    packet::finish_ip(
        &mut buffer,
        from.ip(),
        to.ip(),
        TCP,
        length,
        checksum,
        false,
    )
    .unwrap();
    buffer.split_off(HEADROOM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    const OPTIONS: [u8; 8] = [1, 1, 2, 4, 0x05, 0xb4, 1, 0];

    #[test]
    fn the_mss_is_replaced_where_it_is() {
        for (from, to) in [
            ("10.0.2.100:1", "192.0.2.1:2"),
            ("[fd00::100]:1", "[2001:db8::1]:2"),
        ] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let mut syn = segment(from, to, 7, 0, SYN, &OPTIONS, b"");
            assert_eq!(replace_mss(&mut syn, 60000), Some(1460));
            assert_eq!(replace_mss(&mut syn, 1), Some(60000));
            let mut bare = segment(from, to, 7, 0, SYN, &[], b"");
            assert_eq!(replace_mss(&mut bare, 60000), Some(536));
            assert!(Header::parse(&syn).unwrap().opens());
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
            replace_mss(&mut bytes, 1000);
        }
    }
}
