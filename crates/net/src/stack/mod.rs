//! The host's side of the network: what becomes of each frame from the container.
//!
//! ```text
//! tap ─► frame ─► ARP, neighbour discovery ──► answered here
//!                 IP ─► fragments put together ─► TCP  ─► a flow: smoltcp ◄─► host socket
//!                                                 UDP  ─► name server, published port, or a
//!                                                         flow ◄─► host socket
//!                                                 ICMP ─► echo ◄─► host ping socket
//! ```
//!
//! Between frames and flows stands the trait [`link::Link`], between flows and sockets the trait
//! [`crate::outside::Outside`]; tests put their own on either side.

pub(crate) mod dns;
pub(crate) mod echo;
pub(crate) mod fragments;
mod icmp;
pub(crate) mod link;
mod neighbours;
pub(crate) mod packet;
pub(crate) mod policy;
pub(crate) mod tcp;
#[cfg(test)]
mod tests;
pub(crate) mod udp;
pub(crate) mod usage;

use std::io;
use std::net::{IpAddr, SocketAddr};

use rcon_sys::memory::Untouched;
use smoltcp::time::Instant;

use crate::control::{self, Counts};
use crate::device;
use crate::limits::Limits;
use crate::outside::Outside;
use crate::poll::{Kind, Poller, Ready, Token};
use crate::ports::bind::Listener;
use crate::ports::inner::InnerSockets;
use crate::ports::udp::UdpPorts;
use crate::timers::Timers;
use dns::Dns;
use echo::Echoes;
use fragments::Fragments;
use link::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Finish, HEADROOM, Link};
use packet::Packet;
use policy::Policy;
use tcp::Tcp;
use udp::Udp;
use usage::Usage;

/// The hardware address of the gateway, and of all that the container talks to: locally
/// administered, as libslirp's.
pub const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];

/// What every part of the stack works with.
pub(crate) struct Io {
    pub(crate) link: Box<dyn Link>,
    pub(crate) outside: Box<dyn Outside>,
    pub(crate) poller: Poller,
    pub(crate) timers: Timers,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    /// The time of this turn of the loop.
    pub(crate) now: Instant,
    /// Whether another frame of the container's comes right after this one.
    pub(crate) more_frames: bool,
    /// Where packets for the container are put together.
    pub(crate) buffer: Untouched,
}

impl Io {
    pub(crate) fn new(
        link: Box<dyn Link>,
        outside: Box<dyn Outside>,
        poller: Poller,
        policy: Policy,
        limits: Limits,
    ) -> Io {
        Io {
            link,
            outside,
            poller,
            timers: Timers::default(),
            policy,
            limits,
            now: Instant::ZERO,
            more_frames: false,
            buffer: Untouched::new(device::FRAME_LEN + udp::LONGEST),
        }
    }

    /// What TCP writes to.
    fn wire(&mut self) -> tcp::engine::Wire<'_> {
        tcp::engine::Wire {
            link: &mut *self.link,
            buffer: &mut self.buffer,
            now: self.now,
        }
    }

    /// Sends the UDP payload that is in the buffer already, at [`packet::udp_payload_at`].
    pub(crate) fn send_udp(&mut self, from: SocketAddr, to: SocketAddr, payload_len: usize) {
        self.send_udp_cut(from, to, payload_len, payload_len);
    }

    /// Sends the datagrams that are in the buffer already, if there are any.
    pub(crate) fn send_load(&mut self, load: &mut udp::Load, from: SocketAddr, to: SocketAddr) {
        if let Some((length, size)) = load.leave() {
            self.send_udp_cut(from, to, length, size);
        }
    }

    /// Sends what is in the buffer, cut into datagrams of `size` bytes.
    fn send_udp_cut(&mut self, from: SocketAddr, to: SocketAddr, length: usize, size: usize) {
        let offloads = self.link.offloads();
        if let Some((end, mut finish)) =
            packet::finish_udp(&mut self.buffer, from, to, length, offloads)
        {
            if let (Finish::Checksum { start, .. }, true) = (finish, length > size) {
                let size = size as u16;
                finish = Finish::Datagrams { start, size };
            }
            self.link.send(&mut self.buffer[..end], finish);
        }
    }

    /// Sends the ICMP message of a length that is in the buffer already, behind the IP header.
    fn send_icmp(&mut self, from: IpAddr, to: IpAddr, length: usize) {
        /// Where the checksum is in ICMP (RFC 792, RFC 4443 §2.1).
        const CHECKSUM: u16 = 2;
        let protocol = match to {
            IpAddr::V4(_) => packet::ICMP,
            IpAddr::V6(_) => packet::ICMPV6,
        };
        let Ok(length) = u16::try_from(length) else {
            return;
        };
        let buffer = &mut self.buffer;
        if let Some(finish) = packet::finish_ip(buffer, from, to, protocol, length, CHECKSUM, false)
        {
            let end = HEADROOM + packet::ip_len(to) + usize::from(length);
            self.link.send(&mut buffer[..end], finish);
        }
    }
}

/// Everything the container talks to.
pub(crate) struct Stack {
    pub(crate) io: Io,
    tcp: Tcp,
    udp: Udp,
    echoes: Echoes,
    dns: Dns,
    ports: UdpPorts,
    fragments: Fragments,
    ignored: u64,
    /// The container has ended.
    lingering: bool,
}

impl Stack {
    pub(crate) fn new(io: Io, dns: Dns, ports: UdpPorts) -> Stack {
        Stack {
            io,
            tcp: Tcp::default(),
            udp: Udp::default(),
            echoes: Echoes::default(),
            dns,
            ports,
            fragments: Fragments::default(),
            ignored: 0,
            lingering: false,
        }
    }

    /// The container has ended: connections end with the last of what it has sent, and there are no others.
    pub(crate) fn linger(&mut self) {
        self.lingering = true;
        self.tcp.linger(&mut self.io);
    }

    /// Lets go of all that is no connection: of what comes after the end of the container nobody would hear.
    pub(crate) fn forget_datagrams(&mut self) {
        self.udp = Udp::default();
        self.echoes = Echoes::default();
        self.dns = Dns::new(&[]);
        self.ports = UdpPorts::default();
        self.fragments = Fragments::default();
    }

    /// How many connections there are.
    pub(crate) fn tcp_flows(&self) -> u64 {
        self.tcp.usage().now
    }

    /// Resets the connections of a container that has ended which have delivered nothing since the last time, or all.
    pub(crate) fn give_up(&mut self, all: bool) {
        self.tcp.give_up(all);
        self.tcp.flush(&mut self.io);
    }

    /// Serves a published UDP port.
    pub(crate) fn publish(&mut self, listener: Listener) -> io::Result<()> {
        self.ports.add(&self.io, listener)
    }

    /// Serves a published UDP port no longer.
    pub(crate) fn withdraw(&mut self, address: SocketAddr) {
        self.ports.remove(&mut self.io, address);
    }

    /// Whether there is what [`Stack::set_inner_sockets`] gives.
    pub(crate) fn has_inner_sockets(&self) -> bool {
        self.ports.has_inner_sockets()
    }

    /// Lets clients of UDP ports on the host's loopback appear as the container.
    pub(crate) fn set_inner_sockets(&mut self, inner: InnerSockets) {
        self.ports.set_inner_sockets(inner);
    }

    /// Takes the texts of the host's resolv.conf and hosts; none is as before.
    pub(crate) fn learn_names(&mut self, resolv_conf: Option<&str>, hosts: Option<&str>) {
        self.dns.learn(&mut self.io, resolv_conf, hosts);
    }

    /// Whether somebody should look whether these texts have changed; asks once.
    pub(crate) fn wants_names(&mut self) -> bool {
        self.dns.wants_names()
    }

    /// How many frames were of no protocol that is spoken here.
    pub(crate) fn ignored(&self) -> u64 {
        self.ignored
    }

    /// A number of each kind of flows, but for connections to published TCP ports.
    pub(crate) fn counts(&self, number: impl Fn(Usage) -> u64) -> Counts {
        Counts {
            tcp: number(self.tcp.usage()),
            udp: number(self.udp.usage()),
            icmp: number(self.echoes.usage()),
            dns: number(self.dns.usage()),
            published_tcp: 0,
            published_udp: number(self.ports.usage()),
        }
    }

    /// Who speaks to whom.
    pub(crate) fn flows(&self, flows: &mut Vec<control::Flow>) {
        self.tcp.list(flows);
        self.udp.list(self.io.now, flows);
        self.echoes.list(self.io.now, flows);
        self.dns.list(flows);
        self.ports.flows(self.io.now, flows);
    }

    /// Takes a frame from the container.
    pub(crate) fn frame(&mut self, frame: &device::Frame<'_>) {
        self.io.link.learn(frame.source);
        match frame.ethertype {
            ETHERTYPE_IPV4 => {
                if let Some(packet) = Packet::parse_v4(frame.payload) {
                    self.packet(&packet, frame.udp_segment);
                }
            }
            ETHERTYPE_IPV6 if self.io.policy.config().has_ipv6() => {
                if let Some(packet) = Packet::parse_v6(frame.payload) {
                    self.packet(&packet, frame.udp_segment);
                }
            }
            ETHERTYPE_ARP => neighbours::arp(&mut self.io, frame.payload),
            _ => self.ignored += 1,
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, udp_segment: Option<u16>) {
        // Neighbour discovery may speak from the unspecified address, everything else may not.
        if packet.protocol == packet::ICMPV6
            && packet.fragment.is_none()
            && neighbours::ndp(&mut self.io, packet)
        {
            return;
        }
        if !self.io.policy.is_container(packet.source) {
            return;
        }
        if packet.fragment.is_none() {
            return self.transport(packet, udp_segment);
        }
        // Only datagrams are ever sent in fragments by those who mean well.
        if packet.protocol == packet::UDP
            && let Some(payload) = self.fragments.add(self.io.now, packet)
        {
            let datagram = Packet {
                payload: &payload,
                fragment: None,
                ..*packet
            };
            let Some((from, to)) = datagram.endpoints() else {
                return;
            };
            // Errors quote the start of what was sent, which is not in the fragment that came last.
            let start = icmp::quote_udp(from, to);
            let datagram = Packet {
                whole: &start,
                ..datagram
            };
            self.transport(&datagram, None);
        }
    }

    fn transport(&mut self, packet: &Packet<'_>, udp_segment: Option<u16>) {
        let io = &mut self.io;
        match packet.protocol {
            packet::TCP => self.tcp.segment(io, &mut self.dns, packet),
            _ if self.lingering => {}
            packet::UDP => {
                let Some(datagram) = udp::Datagram::parse(packet) else {
                    return;
                };
                if self.ports.reply(io, &datagram, udp_segment) {
                    return;
                }
                if io.policy.target(packet.destination) == policy::Target::Dns
                    && datagram.destination.port() == dns::PORT
                {
                    self.dns.query(io, &datagram);
                } else {
                    self.udp.datagram(io, packet, &datagram, udp_segment);
                }
            }
            packet::ICMP | packet::ICMPV6 => self.echoes.message(io, packet),
            _ => icmp::unreachable(io, icmp::Reason::Protocol, packet.whole),
        }
    }

    /// Takes an event of a descriptor.
    pub(crate) fn ready(&mut self, ready: Ready) {
        let io = &mut self.io;
        match ready.token.kind {
            Kind::Tcp => self.tcp.ready(io, ready),
            Kind::Udp => self.udp.ready(io, ready.token.key),
            Kind::Echo => self.echoes.ready(io, ready.token.key),
            Kind::Dns => self.dns.ready(io, ready.token.key),
            Kind::UdpPort => self.ports.ready(io, ready.token.key),
            Kind::UdpInner => self.ports.inner_ready(io, ready.token.key),
            _ => {}
        }
    }

    /// Does what is due.
    pub(crate) fn timers(&mut self) {
        while let Some(Token { kind, key }) = self.io.timers.due(self.io.now) {
            let io = &mut self.io;
            match kind {
                Kind::Tcp => self.tcp.timer(io, key),
                Kind::Udp => self.udp.timer(io, key),
                Kind::Echo => self.echoes.timer(io, key),
                Kind::Dns => self.dns.timer(io, key),
                Kind::UdpPort => self.ports.timer(io, key),
                _ => {}
            }
        }
    }

    /// Ends a turn of the loop: flows that had something to do send what came of it. True when
    /// some have more to do than fits into one turn.
    pub(crate) fn flush(&mut self) -> bool {
        self.udp.flush(&mut self.io);
        self.ports.flush();
        self.tcp.flush(&mut self.io)
    }
}
