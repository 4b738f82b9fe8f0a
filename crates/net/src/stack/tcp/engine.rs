//! One TCP connection of the container: smoltcp, but for the bytes that the container sends.
//!
//! smoltcp walks a socket set from end to end for every packet, so each connection has a set of
//! its own; which packets are its own was decided before. The interface has nothing of a
//! connection in it and serves all of them.
//!
//! Where the link finishes segments, smoltcp is led to believe in an MSS of nearly 64 KiB, and
//! the true one of the connection goes with each packet for the kernel to cut by. (smoltcp's own
//! segmentation offload does as much for IPv4, but drops long IPv6 packets in 0.14.)

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::HardwareAddress;

use super::inlet::{Brought, Inlet};
use super::segment::{self, Bare, FIN, Header, RST, SYN};
use crate::stack::link::{Finish, HEADROOM, Link, MAX_PACKET_V4};
use crate::stack::packet::{self, TCP, TCP_CHECKSUM, TCP_LEN};

/// How much a connection may hold in each direction, in bytes, as long as it moves little or too many
/// others move much.
pub(super) const MODEST: usize = 64 * 1024;
/// The same for one that moves much: what a stream at full speed makes use of.
pub(super) const GENEROUS: usize = 1024 * 1024;
/// How many connections have that at a time: what is held for all of them together stays within
/// bounds, and those that only wait take nothing from those that work.
pub(super) const GENEROUS_CONNECTIONS: usize = 64;
/// Beyond so many connections a further one never holds more than [`MODEST`]: address space has
/// bounds too, where the system promises no more than there is (vm.overcommit_memory).
const ROOMY_CONNECTIONS: usize = 4096;
/// Buffers of this size and more come from the system one by one and go back to it.
pub(crate) const SMALLEST_BUFFER: usize = MODEST;
/// How many sockets whose connection has ended are kept for the next.
const KEPT: usize = 16;

/// The size of the send buffer of a connection, with so many others. Only what is used becomes memory.
fn buffer_size(connections: usize) -> usize {
    match connections < ROOMY_CONNECTIONS {
        true => GENEROUS,
        false => MODEST,
    }
}

/// What goes out of the stack, and where it is put together.
pub(crate) struct Wire<'a> {
    pub(crate) link: &'a mut dyn Link,
    pub(crate) buffer: &'a mut [u8],
    pub(crate) now: Instant,
}

/// A set with one socket in it.
struct Single {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    /// The size of the send buffer, in bytes.
    size: usize,
}

impl Single {
    fn new(size: usize) -> Single {
        // What the container sends does not come by here.
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; 1]),
            SocketBuffer::new(vec![0; size]),
        );
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Single {
            sockets,
            handle,
            size,
        }
    }
}

/// What all connections share.
pub(crate) struct Engines {
    interface: Interface,
    mtu: usize,
    /// Sockets for further connections, their buffers hardly touched.
    spare: Vec<Single>,
    /// How many connections may hold much.
    pub(super) generous: usize,
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engines")
            .field("spare", &self.spare.len())
            .finish_non_exhaustive()
    }
}

impl Engines {
    /// For connections over a link with such an MTU; `seed` is a random number.
    pub(crate) fn new(seed: u64, mtu: u16, wire: &mut Wire<'_>) -> Engines {
        let mtu = match wire.link.offloads() {
            true => MAX_PACKET_V4,
            false => usize::from(mtu),
        };
        let mut inlet = Inlet::default();
        let mut device = Device {
            incoming: None,
            link: wire.link,
            buffer: wire.buffer,
            inlet: &mut inlet,
            mss: u16::MAX,
            mtu,
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, wire.now);
        // Every address is ours: the packets were chosen for their connection.
        interface.set_any_ip(true);
        Engines {
            interface,
            mtu,
            spare: Vec::new(),
            generous: 0,
        }
    }

    /// Takes the packet that opens a connection, one of so many; `None` when smoltcp does not take
    /// it for that. The answer is sent by the next [`Engine::send_pending`].
    pub(crate) fn open(
        &mut self,
        syn: &mut [u8],
        connections: usize,
        wire: &mut Wire<'_>,
    ) -> Option<Engine> {
        let header = Header::parse(syn)?;
        let largest = usize::from(u16::MAX) - header.start - TCP_LEN;
        let pretended = wire.link.offloads().then_some(largest as u16);
        let wishes = segment::prepare_syn(syn, pretended)?;
        let size = buffer_size(connections);
        let mut single = match self.spare.iter().position(|single| single.size == size) {
            Some(place) => self.spare.swap_remove(place),
            None => Single::new(size),
        };
        let socket = single.sockets.get_mut::<Socket<'_>>(single.handle);
        socket.listen(header.destination_port).ok()?;
        let mut engine = Engine {
            inlet: Inlet::new(&header, wishes),
            single,
            peer: header,
            mss: wishes.mss,
            mtu: self.mtu,
            seen: None,
            generous: false,
            ring_used: 0,
        };
        engine.pass(&mut self.interface, syn, wire);
        (engine.state() == State::SynReceived).then_some(engine)
    }

    /// Takes back what a connection that is over leaves, whose buffer has hardly been used.
    pub(crate) fn recycle(&mut self, engine: Engine) {
        let mut single = engine.single;
        // Those of another size would wait for a time with so many connections, or so few, to come again.
        self.spare.retain(|spare| spare.size == single.size);
        if self.spare.len() >= KEPT {
            return;
        }
        single.sockets.get_mut::<Socket<'_>>(single.handle).abort();
        self.spare.push(single);
    }
}

/// A connection's TCP.
pub(crate) struct Engine {
    single: Single,
    inlet: Inlet,
    /// The headers of the container's SYN: whom we speak with.
    peer: Header,
    /// The longest payload of a segment towards the container.
    mss: u16,
    mtu: usize,
    /// What the container acknowledged and allowed last.
    seen: Option<(u32, u16)>,
    /// Whether it may hold much.
    generous: bool,
    /// Up to where the ring of the send buffer was filled since it was empty, in bytes.
    ring_used: usize,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn state(&self) -> State {
        self.single
            .sockets
            .get::<Socket<'_>>(self.single.handle)
            .state()
    }

    pub(crate) fn socket(&mut self) -> &mut Socket<'static> {
        let Single {
            sockets, handle, ..
        } = &mut self.single;
        sockets.get_mut::<Socket<'static>>(*handle)
    }

    /// Takes a packet of the connection. `take` gets what it brings, if nothing waits before that,
    /// and says how much it took; the rest waits. True if the container asks whether the outside is there still.
    pub(crate) fn receive(
        &mut self,
        engines: &mut Engines,
        packet: &[u8],
        wire: &mut Wire<'_>,
        take: impl FnOnce(&[u8]) -> usize,
    ) -> bool {
        let interface = &mut engines.interface;
        let Some(header) = Header::parse(packet) else {
            return false;
        };
        let bare = |sequence, control| Bare::of(packet, &header, sequence, control);
        if header.control & (SYN | RST) != 0 {
            let sequence = self.inlet.hide(header.sequence);
            if let Some(bare) = bare(sequence, header.control) {
                self.pass(interface, bare.bytes(), wire);
            }
            return false;
        }
        // Segments of a long transfer acknowledge the same again and again, which smoltcp would
        // take for a sign of loss.
        let seen = Some((header.acknowledgment, header.window));
        if header.payload_len == 0 || seen != self.seen {
            self.seen = seen;
            let end = u32::from(self.has_ended());
            if let Some(bare) = bare(self.inlet.first().wrapping_add(end), header.control & !FIN) {
                self.pass(interface, bare.bytes(), wire);
            }
        }
        if !matches!(
            self.state(),
            State::Established | State::FinWait1 | State::FinWait2
        ) {
            if header.payload_len > 0 || header.control & FIN != 0 {
                self.inlet.remind();
            }
            return false;
        }
        let payload = &packet[packet.len() - header.payload_len..];
        let brought = self.inlet.accept(&header, payload, take);
        match brought {
            Brought::Nothing | Brought::Question => {}
            // At once and for each: that is how the sender notices (RFC 5681 §3.2).
            Brought::Later => self.acknowledge(wire),
            Brought::Whole => {
                if header.control & FIN != 0
                    && let Some(bare) = bare(self.inlet.first(), header.control)
                {
                    self.pass(interface, bare.bytes(), wire);
                }
            }
        }
        brought == Brought::Question
    }

    /// Gives a packet to smoltcp.
    fn pass(&mut self, interface: &mut Interface, packet: &[u8], wire: &mut Wire<'_>) {
        let mut device = Device {
            incoming: Some(packet),
            link: wire.link,
            buffer: wire.buffer,
            inlet: &mut self.inlet,
            mss: self.mss,
            mtu: self.mtu,
        };
        interface.poll_ingress_single(wire.now, &mut device, &mut self.single.sockets);
    }

    /// Whether the container has sent all it will ever send.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(
            self.state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        )
    }

    /// Sends what is to be sent.
    pub(crate) fn send_pending(&mut self, engines: &mut Engines, wire: &mut Wire<'_>) {
        // More than the buffer holds cannot be pending; the bound is for what nobody thought of.
        for _ in 0..self.single.size / usize::from(self.mss).clamp(512, 65535) + 16 {
            let mut device = Device {
                incoming: None,
                link: wire.link,
                buffer: wire.buffer,
                inlet: &mut self.inlet,
                mss: self.mss,
                mtu: self.mtu,
            };
            let result =
                engines
                    .interface
                    .poll_egress(wire.now, &mut device, &mut self.single.sockets);
            if result == PollResult::None {
                break;
            }
        }
        let connected = !matches!(
            self.state(),
            State::Closed | State::Listen | State::SynReceived
        );
        if connected && self.inlet.has_news() {
            self.acknowledge(wire);
        }
    }

    /// Tells the container what we have of it.
    fn acknowledge(&mut self, wire: &mut Wire<'_>) {
        // As smoltcp would say it, which has seen no data.
        let acknowledgment = self.inlet.first().wrapping_add(u32::from(self.has_ended()));
        let sequence = self.inlet.sending();
        let (blocks, count) = self.inlet.blocks();
        let blocks = &blocks[..count];
        if let Some(length) =
            segment::acknowledgment(wire.buffer, &self.peer, sequence, acknowledgment, blocks)
        {
            self.inlet.complete(&mut wire.buffer[HEADROOM..length]);
            let finish = finish(&mut wire.buffer[HEADROOM..length], &*wire.link, self.mss);
            wire.link.send(&mut wire.buffer[..length], finish);
        }
    }

    /// Lets the connection hold much, if that may be.
    pub(crate) fn be_generous(&mut self, engines: &mut Engines) {
        if !self.generous && self.single.size >= GENEROUS && engines.generous < GENEROUS_CONNECTIONS
        {
            engines.generous += 1;
            self.generous = true;
            self.inlet.set_limit(GENEROUS);
        }
    }

    /// Has the connection hold little from now on.
    pub(crate) fn be_modest(&mut self, engines: &mut Engines) {
        if std::mem::take(&mut self.generous) {
            engines.generous -= 1;
            self.inlet.set_limit(MODEST);
        }
    }

    /// Whether it may hold much.
    pub(crate) fn is_generous(&self) -> bool {
        self.generous
    }

    /// How much the connection may take for the container now, in bytes. What holds little takes so much and then
    /// waits until that has gone, for then its ring begins anew where it is memory already.
    pub(crate) fn room(&mut self) -> usize {
        let socket = self.socket();
        let (can_send, waits) = (socket.can_send(), socket.send_queue() > 0);
        if !waits {
            self.ring_used = 0;
        }
        match (can_send, self.generous) {
            (false, _) => 0,
            (true, true) => usize::MAX,
            (true, false) => MODEST.saturating_sub(self.ring_used),
        }
    }

    /// Learns that so many bytes were taken for the container.
    pub(crate) fn took(&mut self, count: usize) {
        self.ring_used = self.ring_used.saturating_add(count);
    }

    /// When there is something to do again by itself.
    pub(crate) fn next_deadline(&mut self, engines: &mut Engines, now: Instant) -> Option<Instant> {
        engines.interface.poll_at(now, &self.single.sockets)
    }

    /// What came from the container and was not taken yet, or the first part of it.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.inlet.waiting()
    }

    /// Takes out so many bytes of what waits.
    pub(crate) fn consume(&mut self, count: usize) {
        self.inlet.consume(count);
    }

    /// How much memory there is for what waits, in bytes.
    pub(crate) fn waiting_capacity(&self) -> usize {
        self.inlet.capacity()
    }

    /// Gives back the memory of the buffers that are empty.
    pub(crate) fn release_memory(&mut self) {
        self.inlet.release_memory();
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
    inlet: &'a mut Inlet,
    mss: u16,
    mtu: usize,
}

impl<'a> Device<'a> {
    fn outgoing(&mut self) -> Outgoing<'_> {
        Outgoing {
            link: self.link,
            buffer: self.buffer,
            inlet: self.inlet,
            mss: self.mss,
        }
    }
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
        Some((Incoming(packet), self.outgoing()))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(self.outgoing())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // The link is memory: what comes is not verified. What goes the kernel verifies: the
        // checksum of IP, and that of TCP unless it computes it itself; see `finish`.
        let mut checksum = ChecksumCapabilities::ignored();
        checksum.ipv4 = Checksum::Tx;
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
    inlet: &'a mut Inlet,
    mss: u16,
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let end = HEADROOM + length;
        let result = f(&mut self.buffer[HEADROOM..end]);
        self.inlet.complete(&mut self.buffer[HEADROOM..end]);
        let finish = finish(&mut self.buffer[HEADROOM..end], self.link, self.mss);
        self.link.send(&mut self.buffer[..end], finish);
        result
    }
}

/// Puts the checksum into a packet; or prepares it for the kernel to do that, and to cut the packet
/// into segments if it needs them.
fn finish(bytes: &mut [u8], link: &dyn Link, mss: u16) -> Finish {
    let Some(header) = Header::parse(bytes) else {
        return Finish::Whole;
    };
    let tcp_len = bytes.len() - header.start;
    let pseudo = packet::pseudo_header_sum(header.source, header.destination, TCP, tcp_len as u32);
    let at = header.start + TCP_CHECKSUM;
    if !link.offloads() {
        bytes[at..at + 2].fill(0);
        let sum = !packet::fold(pseudo + packet::sum(&bytes[header.start..]));
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        return Finish::Whole;
    }
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
