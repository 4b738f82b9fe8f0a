//! The stack without a tap and without a network, driven by bytes: for property tests and fuzzing.
//!
//! The link is a list of packets, the outside is made of socket pairs, and time passes when told
//! to. Each function takes any bytes; it panics when what must hold does not, and only then.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::LazyLock;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use smoltcp::time::Duration;

use crate::config::Config;
use crate::device::{self, Frame};
use crate::limits::Limits;
use crate::outside::Outside;
use crate::poll::Poller;
use crate::ports::mapping::PortMapping;
use crate::ports::udp::UdpPorts;
use crate::resolv::ResolvConf;
use crate::stack::dns::hosts::Hosts;
use crate::stack::dns::{Dns, message};
use crate::stack::fragments::Fragments;
use crate::stack::link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Finish, HEADROOM, Link, MAX_PACKET};
use crate::stack::packet::Packet;
use crate::stack::policy::Policy;
use crate::stack::tcp::segment::{ACK, FIN, Header, RST, SYN, segment};
use crate::stack::{Io, Stack};

pub(crate) type Packets = Rc<RefCell<Vec<Vec<u8>>>>;
pub(crate) type Streams = Rc<RefCell<Vec<UnixStream>>>;
/// The latest first.
pub(crate) type Datagrams = Rc<RefCell<Vec<OwnedFd>>>;

/// A link that keeps what is sent.
struct Memory {
    packets: Packets,
    offloads: bool,
}

impl Link for Memory {
    fn offloads(&self) -> bool {
        self.offloads
    }

    fn cuts_datagrams(&self) -> bool {
        self.offloads
    }

    fn learn(&mut self, _: [u8; 6]) {}

    fn send_frame(&mut self, buffer: &mut [u8], _: u16, _: Finish) {
        self.packets.borrow_mut().push(buffer[HEADROOM..].to_vec());
    }
}

/// An outside that takes every connection, or refuses all.
struct Pairs {
    streams: Streams,
    datagrams: Datagrams,
    refusal: Option<i32>,
}

impl Pairs {
    /// The other ends of datagram sockets that are kept, so that some have an end and others not.
    const KEPT: usize = 8;

    fn pair(&self, kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
        if let Some(code) = self.refusal {
            return Err(io::Error::from_raw_os_error(code));
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        Ok(socketpair(AddressFamily::UNIX, kind, flags, None)?)
    }
}

impl Outside for Pairs {
    fn stream(&self, _: SocketAddr) -> io::Result<OwnedFd> {
        let (ours, theirs) = self.pair(SocketType::STREAM)?;
        self.streams.borrow_mut().push(UnixStream::from(theirs));
        Ok(ours)
    }

    fn datagram(&self, _: SocketAddr, _: Option<u16>) -> io::Result<OwnedFd> {
        let (ours, theirs) = self.pair(SocketType::DGRAM)?;
        let mut kept = self.datagrams.borrow_mut();
        kept.truncate(Pairs::KEPT);
        kept.insert(0, theirs);
        Ok(ours)
    }

    fn echo(&self, _: IpAddr) -> io::Result<OwnedFd> {
        Err(io::Error::from_raw_os_error(libc::EACCES))
    }
}

/// The stack, and both sides of it.
pub(crate) struct Bench {
    pub(crate) stack: Stack,
    pub(crate) packets: Packets,
    pub(crate) streams: Streams,
    /// The other ends of datagram sockets.
    #[cfg(test)]
    pub(crate) datagrams: Datagrams,
}

pub(crate) const INSIDE: &str = "10.0.2.100:40000";
pub(crate) const OUTSIDE: &str = "192.0.2.1:80";
/// MSS 1460 and a window scale of 7.
pub(crate) const OPTIONS: [u8; 8] = [2, 4, 0x05, 0xb4, 1, 3, 3, 7];
/// The sequence number of the container's SYN.
pub(crate) const INITIAL: u32 = 1000;

impl Bench {
    /// A stack whose outside takes every connection, or refuses them with an error number.
    pub(crate) fn new(refusal: Option<i32>, offloads: bool) -> io::Result<Bench> {
        let (packets, streams) = (Packets::default(), Streams::default());
        let datagrams = Datagrams::default();
        let config = Config {
            ipv6: true,
            ..Config::default()
        };
        let outside = Pairs {
            streams: streams.clone(),
            datagrams: datagrams.clone(),
            refusal,
        };
        let memory = Memory {
            packets: packets.clone(),
            offloads,
        };
        let io = Io::new(
            Box::new(memory),
            Box::new(outside),
            Poller::new()?,
            Policy::new(&config),
            Limits::for_descriptors(1024),
        );
        Ok(Bench {
            stack: Stack::new(io, Dns::new(&[]), UdpPorts::default()),
            packets,
            streams,
            #[cfg(test)]
            datagrams,
        })
    }

    /// Has the container send an IP packet.
    pub(crate) fn packet(&mut self, bytes: &[u8]) {
        let ethertype = match bytes.first().map(|byte| byte >> 4) {
            Some(6) => ETHERTYPE_IPV6,
            _ => ETHERTYPE_IPV4,
        };
        self.stack.frame(&Frame {
            source: [2, 0, 0, 0, 0, 1],
            ethertype,
            payload: bytes,
            udp_segment: None,
        });
    }

    /// Has the stack do what there is to do; a millisecond passes.
    pub(crate) fn turn(&mut self) {
        let mut ready = Vec::new();
        let now = Some(std::time::Duration::ZERO);
        if self.stack.io.poller.wait(&mut ready, now).is_err() {
            return;
        }
        self.stack.io.now += Duration::from_millis(1);
        for event in &ready {
            self.stack.ready(*event);
        }
        self.stack.timers();
        while self.stack.flush() {}
    }

    /// The segments that were sent to the container since the last call, with their payloads.
    pub(crate) fn sent(&mut self) -> Vec<(Header, Vec<u8>)> {
        self.packets
            .borrow_mut()
            .drain(..)
            .filter_map(|bytes| {
                let header = Header::parse(&bytes)?;
                let payload = bytes[bytes.len() - header.payload_len..].to_vec();
                Some((header, payload))
            })
            .collect()
    }
}

/// A segment of the container's, on the connection of [`Bench`].
pub(crate) fn tcp(
    sequence: u32,
    acknowledgment: u32,
    control: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let endpoint = |text: &str| {
        text.parse()
            .unwrap_or_else(|_| SocketAddr::from(([0; 4], 0)))
    };
    segment(
        endpoint(INSIDE),
        endpoint(OUTSIDE),
        sequence,
        acknowledgment,
        control,
        options,
        payload,
    )
}

/// Numbers taken from bytes, zeros when they are used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn long(&mut self) -> u32 {
        u32::from(self.word()) | u32::from(self.word()) << 16
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Any frames, with their virtio-net headers, each preceded by its length in two bytes and the
/// turns that follow it in one.
pub fn frames(data: &[u8]) {
    let Ok(mut bench) = Bench::new(None, data.len().is_multiple_of(2)) else {
        return;
    };
    let mut input = Input(data);
    while !input.is_empty() {
        let length = usize::from(input.word()).min(input.0.len());
        let turns = input.byte() % 4;
        let (bytes, rest) = input.0.split_at(length.min(input.0.len()));
        input.0 = rest;
        bench.stack.io.more_frames = turns == 0;
        if let Some(frame) = device::parse(bytes) {
            bench.stack.frame(&frame);
        }
        for _ in 0..turns {
            bench.turn();
        }
        bench.streams.borrow_mut().truncate(64);
        for packet in bench.packets.borrow_mut().drain(..) {
            assert!(packet.len() <= MAX_PACKET, "{}", packet.len());
        }
    }
}

/// The bytes of a stream at a place: they repeat after a number that nothing else repeats after.
fn stretch(at: usize, length: usize) -> &'static [u8] {
    const PERIOD: usize = 251;
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        (0..PERIOD + (1 << 17))
            .map(|n| (n % PERIOD) as u8)
            .collect()
    });
    &BYTES[at % PERIOD..][..length]
}

/// One TCP connection, with what both sides do chosen by the bytes. The container may break every
/// rule but one: at each place of its stream there is always the same byte. So whatever comes out
/// of either end must be the stream from its beginning, without gaps.
pub fn connection(data: &[u8]) {
    /// How far the container's stream goes at most, in bytes.
    const FAR: usize = 16 << 20;
    let mut input = Input(data);
    let Ok(mut bench) = Bench::new(None, input.byte() & 1 == 0) else {
        return;
    };
    let mut options = OPTIONS.to_vec();
    if input.byte() & 1 != 0 {
        options = (0..input.byte() % 10 * 4).map(|_| input.byte()).collect();
    }
    bench.packet(&tcp(INITIAL, 0, SYN, &options, b""));
    bench.turn();
    bench.turn();
    let mut world = World {
        outside: bench.streams.borrow_mut().pop(),
        first: None,
        acknowledged: 0,
        sent: 0,
        written: 0,
        read: 0,
    };
    world.look(&mut bench);
    world.reply(&mut bench, ACK, 0);
    while !input.is_empty() {
        match input.byte() % 16 {
            // What a good container does.
            0..=2 => {
                let length = usize::from(input.word()).min(60_000);
                let at = world.sent.min(FAR);
                world.send(&mut bench, at, length, ACK);
                world.sent = world.sent.max(at + length);
            }
            3 | 4 => world.reply(&mut bench, ACK, 0),
            5 => world.send(&mut bench, world.sent, 0, ACK | FIN),
            // And what others do.
            6 => {
                let at = (input.long() as usize) % (world.sent + 100_000).min(FAR);
                let length = usize::from(input.word()).min(60_000);
                let control = [ACK, ACK | FIN, ACK | 8, 0][usize::from(input.byte() % 4)];
                world.send(&mut bench, at, length, control);
            }
            7 => world.reply(&mut bench, ACK, input.long()),
            8 => world.reply(&mut bench, input.byte(), u32::from(input.byte())),
            9 if input.byte() % 8 == 0 => world.send(&mut bench, world.sent, 0, RST),
            9 => bench.packet(&tcp(input.long(), 0, SYN, &OPTIONS, b"")),
            // The outside.
            10 | 11 => world.write(input.word()),
            12 => world.read(),
            13 if input.byte() % 8 == 0 => world.outside = None,
            13 => {
                if let Some(outside) = &world.outside {
                    let _ = outside.shutdown(Shutdown::Write);
                }
            }
            14 => bench.stack.io.now += Duration::from_millis(input.word().into()),
            _ => bench.turn(),
        }
        world.look(&mut bench);
        bench.streams.borrow_mut().truncate(8);
    }
    for _ in 0..4 {
        bench.turn();
        world.look(&mut bench);
        world.read();
    }
}

/// Both ends of a connection, as an observer knows them.
struct World {
    outside: Option<UnixStream>,
    /// The sequence number of the first byte towards the container.
    first: Option<u32>,
    /// How much the container has of that stream, without gaps.
    acknowledged: usize,
    /// How much the container has sent.
    sent: usize,
    /// How much the outside wrote and read.
    written: usize,
    read: usize,
}

impl World {
    fn send(&self, bench: &mut Bench, at: usize, length: usize, control: u8) {
        let sequence = INITIAL.wrapping_add(1).wrapping_add(at as u32);
        let payload = stretch(at, length);
        let acknowledgment = self.acknowledgment();
        bench.stack.io.more_frames = length % 2 == 1;
        bench.packet(&tcp(sequence, acknowledgment, control, &[], payload));
    }

    fn acknowledgment(&self) -> u32 {
        self.first
            .unwrap_or(0)
            .wrapping_add(self.acknowledged as u32)
    }

    /// Acknowledges what came, wrongly by so much.
    fn reply(&self, bench: &mut Bench, control: u8, wrong: u32) {
        let sequence = INITIAL.wrapping_add(1).wrapping_add(self.sent as u32);
        let acknowledgment = self.acknowledgment().wrapping_add(wrong);
        bench.packet(&tcp(sequence, acknowledgment, control, &[], b""));
    }

    fn write(&mut self, length: u16) {
        if let Some(mut outside) = self.outside.as_ref() {
            let bytes = stretch(self.written, length.into());
            self.written += outside.write(bytes).unwrap_or(0);
        }
    }

    /// What arrives outside is the container's stream.
    fn read(&mut self) {
        if let Some(mut outside) = self.outside.as_ref() {
            let mut buffer = vec![0; 70_000];
            let count = outside.read(&mut buffer).unwrap_or(0);
            assert!(
                buffer[..count] == *stretch(self.read, count),
                "at {}",
                self.read
            );
            self.read += count;
        }
    }

    /// What arrives inside is what was written outside.
    fn look(&mut self, bench: &mut Bench) {
        for (header, payload) in bench.sent() {
            if format!("{}:{}", header.destination, header.destination_port) != INSIDE {
                continue;
            }
            if header.control & SYN != 0 && self.first.is_none() {
                self.first = Some(header.sequence.wrapping_add(1));
            }
            let Some(first) = self.first else {
                continue;
            };
            if payload.is_empty() || header.control & (SYN | RST) != 0 {
                continue;
            }
            let at = header.sequence.wrapping_sub(first) as usize;
            assert!(at + payload.len() <= self.written, "{at}");
            assert!(payload == stretch(at, payload.len()), "at {at}");
            if at <= self.acknowledged {
                self.acknowledged = self.acknowledged.max(at + payload.len());
            }
        }
    }
}

/// Fragments, each preceded by its length in two bytes.
pub fn fragments(data: &[u8]) {
    let mut fragments = Fragments::default();
    let mut input = Input(data);
    let mut now = smoltcp::time::Instant::ZERO;
    while !input.is_empty() {
        let length = usize::from(input.word()).min(input.0.len());
        let (bytes, rest) = input.0.split_at(length);
        input.0 = rest;
        now += Duration::from_millis(50);
        for packet in [Packet::parse_v4(bytes), Packet::parse_v6(bytes)] {
            if let Some(packet) = packet
                && let Some(whole) = fragments.add(now, &packet)
            {
                assert!(whole.len() <= MAX_PACKET, "{}", whole.len());
            }
        }
    }
}

/// A name query and what is answered to it, and what a name server may answer.
pub fn names(data: &[u8]) {
    let failure = message::failure(data);
    assert!(failure.len() <= data.len().max(12) + 4);
    let hosts = Hosts::parse("192.0.2.7 www www.example.org\n2001:db8::7 www");
    if let Some(question) = message::Question::parse(data) {
        assert!(question.name.len() <= 255);
        if let Some(answer) = hosts.answer(&question) {
            let identifier = message::query_identifier(data).unwrap_or_default();
            assert!(message::is_answer(&answer, identifier));
        }
    }
    message::is_other_servers_business(data);
}

/// What people and files say: published ports, options, resolv.conf, hosts.
pub fn texts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(mappings) = PortMapping::parse(&text) {
        assert!(!mappings.is_empty());
    }
    let mut config = Config::default();
    if config.apply_slirp_options(&text).is_ok() {
        // What was understood is a network one can make.
        assert!(config.cidr.contains(config.container_v4()));
    }
    ResolvConf::parse(&text);
    Hosts::parse(&text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// Bytes with structure: mostly small numbers, at times long runs of anything.
    fn script(random: &mut Random, length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| match random.below(4) {
                0 => random.next() as u8,
                _ => random.below(16) as u8,
            })
            .collect()
    }

    #[test]
    fn whatever_is_done_on_a_connection_the_streams_stay_whole() {
        let mut random = Random::new(31);
        for _ in 0..400 {
            let length = 40 + random.below(600);
            connection(&script(&mut random, length));
        }
    }

    #[test]
    fn a_script_can_move_bytes_both_ways() {
        let mut bench = Bench::new(None, true).unwrap();
        bench.packet(&tcp(INITIAL, 0, SYN, &OPTIONS, b""));
        bench.turn();
        bench.turn();
        let mut world = World {
            outside: bench.streams.borrow_mut().pop(),
            first: None,
            acknowledged: 0,
            sent: 0,
            written: 0,
            read: 0,
        };
        world.look(&mut bench);
        world.reply(&mut bench, ACK, 0);
        for round in 0..10 {
            world.send(&mut bench, round * 50_000, 50_000, ACK);
            world.sent += 50_000;
            world.write(30_000);
            bench.turn();
            world.look(&mut bench);
            world.reply(&mut bench, ACK, 0);
            bench.turn();
            world.read();
        }
        assert_eq!(world.read, 500_000);
        assert_eq!(world.acknowledged, 300_000);
    }

    #[test]
    fn no_bytes_make_anything_panic() {
        let mut random = Random::new(37);
        for _ in 0..2000 {
            let length = random.below(400);
            let bytes = random.bytes(length);
            frames(&bytes);
            fragments(&bytes);
            names(&bytes);
            texts(&bytes);
            let ascii: Vec<u8> = bytes
                .iter()
                .map(|byte| b"0123456789:-/.[]tcpudmask=,"[usize::from(*byte) % 27])
                .collect();
            texts(&ascii);
        }
    }
}
