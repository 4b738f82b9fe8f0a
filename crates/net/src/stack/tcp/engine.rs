//! One TCP connection of the container, terminated by smoltcp.
//!
//! Each connection has an interface and a socket set of its own: smoltcp walks a set from end to
//! end for every packet, so a shared one would cost each packet time for every connection. The
//! interface speaks plain IP; which frames are its own was decided before.
//!
//! Where the link finishes segments, smoltcp is led to believe in an MSS of nearly 64 KiB, and
//! the true one of the connection goes with each packet for the kernel to cut by. (smoltcp's own
//! segmentation offload does as much for IPv4, but drops long IPv6 packets in 0.14.)

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::HardwareAddress;

use super::segment;
use crate::stack::link::{Finish, HEADROOM, Link, MAX_PACKET_V4};
use crate::stack::packet::{self, TCP, TCP_CHECKSUM, TCP_LEN};

/// The buffers of a connection, in bytes, by how many connections there are when it is made: few
/// get what one stream at full speed makes use of, and many together stay within bounds. Only
/// what is used becomes memory.
const BUFFERS: [(usize, usize); 3] = [
    (32, 1024 * 1024),
    (256, 256 * 1024),
    (usize::MAX, SMALLEST_BUFFER),
];
/// Buffers of this size and more come from the system one by one and go back to it.
pub(crate) const SMALLEST_BUFFER: usize = 64 * 1024;

/// The size of each of the two buffers of a connection, with so many others.
fn buffer_size(connections: usize) -> usize {
    BUFFERS
        .iter()
        .find(|(below, _)| connections < *below)
        .map_or(SMALLEST_BUFFER, |(_, size)| *size)
}

/// What a new connection needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// A random number, for the initial sequence number.
    pub(crate) seed: u64,
    /// The MTU of the tap, in bytes.
    pub(crate) mtu: u16,
    /// How many other connections there are.
    pub(crate) connections: usize,
}

/// A connection's TCP.
pub(crate) struct Engine {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    /// The initial sequence number of the container.
    initial: u32,
    /// How many bytes were taken out, modulo 2^32.
    taken: u32,
    /// The size of each buffer, in bytes.
    size: usize,
    /// The longest payload of a segment towards the container.
    mss: u16,
    mtu: usize,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Takes the packet that opens a connection; `None` when smoltcp does not take it for that.
    /// The answer is sent by the next [`Engine::send_pending`].
    pub(crate) fn open(
        syn: &mut [u8],
        settings: Settings,
        now: Instant,
        link: &mut dyn Link,
        buffer: &mut [u8],
    ) -> Option<Engine> {
        let header = segment::Header::parse(syn)?;
        let mtu = match link.offloads() {
            true => MAX_PACKET_V4,
            false => usize::from(settings.mtu),
        };
        let largest = usize::from(u16::MAX) - header.start - TCP_LEN;
        let mss = match link.offloads() {
            true => segment::replace_mss(syn, largest as u16)?,
            false => u16::MAX,
        };
        let mut device = Device {
            incoming: None,
            link,
            buffer,
            mss,
            mtu,
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = settings.seed;
        let mut interface = Interface::new(config, &mut device, now);
        // Every address is ours: the packets were chosen for this connection.
        interface.set_any_ip(true);

        let size = buffer_size(settings.connections);
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; size]),
            SocketBuffer::new(vec![0; size]),
        );
        socket.set_nagle_enabled(false);
        // What came is acknowledged at the end of the turn, with all that came in it.
        socket.set_ack_delay(None);
        socket.listen(header.destination_port).ok()?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let mut engine = Engine {
            interface,
            sockets,
            handle,
            initial: header.sequence,
            taken: 0,
            size,
            mss,
            mtu,
        };
        engine.receive(syn, now, device.link, device.buffer);
        (engine.state() == State::SynReceived).then_some(engine)
    }

    pub(crate) fn state(&self) -> State {
        self.sockets.get::<Socket<'_>>(self.handle).state()
    }

    pub(crate) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut::<Socket<'static>>(self.handle)
    }

    /// Takes a packet of the connection.
    pub(crate) fn receive(
        &mut self,
        packet: &[u8],
        now: Instant,
        link: &mut dyn Link,
        buffer: &mut [u8],
    ) {
        // The first window is told without its scale, and smoltcp takes it back with one: what
        // lies beyond the buffer must not come that far.
        let Some(header) = segment::Header::parse(packet) else {
            return;
        };
        let end = header.sequence.wrapping_add(header.payload_len as u32);
        let edge = self
            .initial
            .wrapping_add(1)
            .wrapping_add(self.taken)
            .wrapping_add(self.size as u32);
        let beyond = end.wrapping_sub(edge).cast_signed() > 0;
        if beyond && header.payload_len > 0 {
            return;
        }
        let mut device = Device {
            incoming: Some(packet),
            link,
            buffer,
            mss: self.mss,
            mtu: self.mtu,
        };
        self.interface
            .poll_ingress_single(now, &mut device, &mut self.sockets);
    }

    /// Sends what is to be sent.
    pub(crate) fn send_pending(&mut self, now: Instant, link: &mut dyn Link, buffer: &mut [u8]) {
        let mut device = Device {
            incoming: None,
            link,
            buffer,
            mss: self.mss,
            mtu: self.mtu,
        };
        // More than the buffer holds cannot be pending; the bound is for what nobody thought of.
        for _ in 0..self.size / usize::from(self.mss).clamp(512, 65535) + 16 {
            let result = self
                .interface
                .poll_egress(now, &mut device, &mut self.sockets);
            if result == PollResult::None {
                break;
            }
        }
    }

    /// When there is something to do again by itself.
    pub(crate) fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        self.interface.poll_at(now, &self.sockets)
    }

    /// Takes out what came from the container, as far as `take` takes it.
    pub(crate) fn take<R>(&mut self, take: impl FnOnce(&[u8]) -> (usize, R)) -> Option<R> {
        let mut count = 0;
        let result = self.socket().recv(|bytes| {
            let (taken, result) = take(bytes);
            count = taken;
            (taken, result)
        });
        self.taken = self.taken.wrapping_add(count as u32);
        result.ok()
    }

    /// Gives back the memory of the send buffer, if that is empty.
    pub(crate) fn release_memory(&mut self) {
        let socket = self.socket();
        if socket.send_queue() == 0 {
            let _ = socket.send(|unused| {
                rcon_sys::memory::discard(unused);
                (0, ())
            });
        }
    }
}

/// smoltcp's device: the one packet that came, and the link.
struct Device<'a> {
    incoming: Option<&'a [u8]>,
    link: &'a mut dyn Link,
    buffer: &'a mut [u8],
    mss: u16,
    mtu: usize,
}

impl phy::Device for Device<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((
            Incoming(packet),
            Outgoing {
                link: self.link,
                buffer: self.buffer,
                mss: self.mss,
            },
        ))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing {
            link: self.link,
            buffer: self.buffer,
            mss: self.mss,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        let mut checksum = ChecksumCapabilities::ignored();
        // The link is memory: what comes is not verified. What goes the kernel verifies.
        checksum.ipv4 = Checksum::Tx;
        if !self.link.offloads() {
            checksum.tcp = Checksum::Tx;
        }
        capabilities.checksum = checksum;
        capabilities
    }
}

struct Incoming<'a>(&'a [u8]);

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Outgoing<'a> {
    link: &'a mut dyn Link,
    buffer: &'a mut [u8],
    mss: u16,
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let end = HEADROOM + length;
        let result = f(&mut self.buffer[HEADROOM..end]);
        let finish = match self.link.offloads() {
            true => leave_open(&mut self.buffer[HEADROOM..end], self.mss),
            false => Finish::Whole,
        };
        self.link.send(&mut self.buffer[..end], finish);
        result
    }
}

/// Prepares a packet for the kernel to finish: its checksum, and segments if it needs them.
fn leave_open(bytes: &mut [u8], mss: u16) -> Finish {
    let Some(header) = segment::Header::parse(bytes) else {
        return Finish::Whole;
    };
    let tcp_len = bytes.len() - header.start;
    let pseudo = packet::pseudo_header_sum(header.source, header.destination, TCP, tcp_len as u32);
    let at = header.start + TCP_CHECKSUM;
    bytes[at..at + 2].copy_from_slice(&packet::fold(pseudo).to_be_bytes());
    let start = header.start as u16;
    if header.payload_len > usize::from(mss) {
        Finish::Segments {
            start,
            payload: (bytes.len() - header.payload_len) as u16,
            size: mss,
        }
    } else {
        Finish::Checksum {
            start,
            offset: TCP_CHECKSUM as u16,
        }
    }
}
