//! Setting up the links, addresses, routes and rules of a network namespace in one message.
//!
//! rtnetlink(7) takes any number of requests in one datagram and works through them before
//! sendmsg(2) returns. A [`Batch`] collects requests and sends them so: two system calls for a
//! whole network. Refused requests are reported by the kernel even if no acknowledgement was
//! asked for; only the last request asks for one, which marks the end.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

mod moving;

pub use moving::{Address, Found, addresses, link};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The length of struct nlmsghdr, in bytes (linux/netlink.h).
const HEADER_LEN: usize = 16;
/// Every request and attribute starts at a multiple of this (linux/netlink.h: NLMSG_ALIGNTO).
const ALIGN: usize = 4;
/// The index of the loopback device: the first device of every network namespace.
pub const LOOPBACK: u32 = 1;

/// A refused request.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct NetlinkError {
    /// What was asked.
    pub what: String,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// Requests that are sent together.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Request {
    start: usize,
    what: &'static str,
    /// Whether a refusal of this one does not matter.
    optional: bool,
}

/// What to change on a link.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// The interface index.
    pub index: u32,
    /// A new MTU, in bytes.
    pub mtu: Option<u32>,
    /// A new length of the transmit queue, in packets.
    pub tx_queue_len: Option<u32>,
    /// A new hardware address.
    pub address: Option<[u8; 6]>,
    /// Whether the link has no multicast flag afterwards.
    pub no_multicast: bool,
    /// Whether the kernel makes no link-local IPv6 address of its own (IN6_ADDR_GEN_MODE_NONE).
    pub no_link_local: bool,
}

/// A route; everything else about it is the kernel's default.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The interface index.
    pub index: u32,
    /// The destination `0/0` of this family, through the gateway if there is one.
    pub ipv6: bool,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The routing table; 254 is the main one.
    pub table: u8,
    /// Whether the destinations count as this host's own (RTN_LOCAL).
    pub local: bool,
}

/// The main routing table (linux/rtnetlink.h: RT_TABLE_MAIN).
pub const MAIN_TABLE: u8 = 254;

impl Batch {
    /// No requests yet.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Brings a link up, with the changes that are named.
    pub fn link_up(&mut self, link: Link) {
        if link.no_link_local {
            // Within one request the kernel would bring the link up first, and make the address.
            self.no_link_local(link.index);
        }
        let mut flags = libc::IFF_UP as u32;
        let mut change = flags;
        if link.no_multicast {
            change |= libc::IFF_MULTICAST as u32;
        }
        flags &= change;
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&link.index.to_ne_bytes());
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        body[12..16].copy_from_slice(&change.to_ne_bytes());
        self.begin("bring a link up", libc::RTM_NEWLINK, 0, &body);
        if let Some(mtu) = link.mtu {
            self.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
        }
        if let Some(length) = link.tx_queue_len {
            self.attribute(libc::IFLA_TXQLEN, &length.to_ne_bytes());
        }
        if let Some(address) = link.address {
            self.attribute(libc::IFLA_ADDRESS, &address);
        }
        self.end();
    }

    /// Has the kernel make no link-local IPv6 address for a link that comes up. A kernel without
    /// IPv6 does not know what that is, and need not.
    fn no_link_local(&mut self, index: u32) {
        /// linux/if_link.h
        const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
        /// linux/if_link.h
        const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        self.begin("configure a link", libc::RTM_NEWLINK, 0, &body);
        self.nested(libc::IFLA_AF_SPEC, |batch| {
            batch.nested(libc::AF_INET6 as u16, |batch| {
                batch.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        });
        self.end();
        self.optional();
    }

    /// Gives a link an address; IPv6 addresses are usable without duplicate detection.
    ///
    /// The kernel makes the route by which packets for an IPv6 address come in only a moment
    /// later, in a worker: see [`Batch::local_route`].
    pub fn address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
        broadcast: Option<Ipv4Addr>,
    ) {
        let flags = match address {
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => libc::IFA_F_NODAD as u8,
        };
        let mut body = [0; 8];
        body[0] = family(address.is_ipv6());
        body[1] = prefix;
        body[2] = flags;
        body[3] = libc::RT_SCOPE_UNIVERSE;
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        self.begin("add an address", libc::RTM_NEWADDR, CREATE, &body);
        self.ip_attribute(libc::IFA_LOCAL, address);
        self.ip_attribute(libc::IFA_ADDRESS, address);
        if let Some(broadcast) = broadcast {
            self.ip_attribute(libc::IFA_BROADCAST, broadcast.into());
        }
        self.end();
    }

    /// Adds a default route.
    pub fn default_route(&mut self, route: Route) {
        let mut body = [0; 12];
        body[0] = family(route.ipv6);
        body[4] = route.table;
        body[5] = libc::RTPROT_BOOT;
        body[6] = match route.local {
            true if !route.ipv6 => libc::RT_SCOPE_HOST,
            _ => libc::RT_SCOPE_UNIVERSE,
        };
        body[7] = match route.local {
            true => libc::RTN_LOCAL,
            false => libc::RTN_UNICAST,
        };
        self.begin("add a route", libc::RTM_NEWROUTE, CREATE, &body);
        self.attribute(libc::RTA_OIF, &route.index.to_ne_bytes());
        if let Some(gateway) = route.gateway {
            self.ip_attribute(libc::RTA_GATEWAY, gateway);
        }
        self.end();
    }

    /// Has packets for an address of the link's own come in.
    pub fn local_route(&mut self, index: u32, address: IpAddr) {
        let mut body = [0; 12];
        body[0] = family(address.is_ipv6());
        body[1] = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        body[4] = libc::RT_TABLE_LOCAL;
        body[5] = libc::RTPROT_BOOT;
        body[6] = libc::RT_SCOPE_HOST;
        body[7] = libc::RTN_LOCAL;
        self.begin("add a local route", libc::RTM_NEWROUTE, CREATE, &body);
        self.attribute(libc::RTA_OIF, &index.to_ne_bytes());
        self.ip_attribute(libc::RTA_DST, address);
        self.end();
    }

    /// Sends packets with a firewall mark to a routing table.
    pub fn mark_rule(&mut self, ipv6: bool, mark: u32, table: u8, priority: u32) {
        /// linux/fib_rules.h
        const FRA_PRIORITY: u16 = 6;
        /// linux/fib_rules.h
        const FRA_FWMARK: u16 = 10;
        /// linux/fib_rules.h
        const FR_ACT_TO_TBL: u8 = 1;
        let mut body = [0; 12];
        body[0] = family(ipv6);
        body[4] = table;
        body[7] = FR_ACT_TO_TBL;
        self.begin("add a routing rule", libc::RTM_NEWRULE, CREATE, &body);
        self.attribute(FRA_PRIORITY, &priority.to_ne_bytes());
        self.attribute(FRA_FWMARK, &mark.to_ne_bytes());
        self.end();
    }

    /// Fixes the hardware address of a neighbour, so that it is never asked for.
    pub fn neighbour(&mut self, index: u32, address: IpAddr, hardware: [u8; 6]) {
        let mut body = [0; 12];
        body[0] = family(address.is_ipv6());
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..10].copy_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
        self.begin(
            "add a neighbour",
            libc::RTM_NEWNEIGH,
            CREATE | libc::NLM_F_REPLACE as u16,
            &body,
        );
        self.ip_attribute(libc::NDA_DST, address);
        self.attribute(libc::NDA_LLADDR, &hardware);
        self.end();
    }

    /// Replaces a link's queueing discipline, where the kernel has the one named.
    pub fn queueing(&mut self, index: u32, name: &str) {
        /// linux/pkt_sched.h
        const TC_H_ROOT: u32 = 0xffff_ffff;
        let mut body = [0; 20];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[12..16].copy_from_slice(&TC_H_ROOT.to_ne_bytes());
        self.begin(
            "set a queueing discipline",
            libc::RTM_NEWQDISC,
            CREATE | libc::NLM_F_REPLACE as u16,
            &body,
        );
        let mut kind = name.as_bytes().to_vec();
        kind.push(0);
        self.attribute(libc::TCA_KIND, &kind);
        self.end();
        self.optional();
    }

    /// Lets the last request be refused without that being an error.
    pub fn optional(&mut self) {
        if let Some(request) = self.requests.last_mut() {
            request.optional = true;
        }
    }

    /// Sends everything to the kernel, in the calling thread's network namespace.
    ///
    /// # Errors
    /// The first request that was refused; the others have been tried all the same.
    pub fn send(mut self) -> Result<(), NetlinkError> {
        let Some(last) = self.requests.last() else {
            return Ok(());
        };
        let flags_at = last.start + 6;
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16
            | u16::from_ne_bytes([self.bytes[flags_at], self.bytes[flags_at + 1]]);
        self.bytes[flags_at..flags_at + 2].copy_from_slice(&flags.to_ne_bytes());
        self.exchange()
    }

    /// Sends what there is, as it is; the socket that the answers come by.
    fn start(&self) -> Result<OwnedFd, NetlinkError> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            None,
        )
        .map_err(transport)?;
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&socket, &self.bytes, SendFlags::empty(), &kernel)
            .map_err(transport)?;
        Ok(socket)
    }

    fn exchange(&self) -> Result<(), NetlinkError> {
        let socket = self.start()?;
        let mut refused = None;
        loop {
            // An error report quotes the refused request; a few fit at a time.
            let mut buffer = [0; 8192];
            let (length, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())
                .map_err(transport)?;
            if self.read_reports(&buffer[..length], &mut refused) {
                return refused.map_or(Ok(()), Err);
            }
        }
    }

    /// Reads reports of the kernel; true when the last request's is among them.
    fn read_reports(&self, mut bytes: &[u8], refused: &mut Option<NetlinkError>) -> bool {
        let mut done = false;
        while let Some(report) = Report::read(bytes) {
            bytes = bytes.get(align(report.length)..).unwrap_or(&[]);
            let Some(code) = report.error else { continue };
            let index = report.sequence as usize;
            done |= index + 1 == self.requests.len();
            if let Some(request) = self.requests.get(index)
                && code != 0
                && !request.optional
                && refused.is_none()
            {
                *refused = Some(NetlinkError {
                    what: request.what.into(),
                    source: io::Error::from_raw_os_error(code.saturating_neg()),
                });
            }
        }
        done
    }

    fn begin(&mut self, what: &'static str, kind: u16, flags: u16, body: &[u8]) {
        let start = self.bytes.len();
        let sequence = self.requests.len() as u32;
        let flags = flags | libc::NLM_F_REQUEST as u16;
        self.requests.push(Request {
            start,
            what,
            optional: false,
        });
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(body);
        self.pad();
    }

    fn end(&mut self) {
        let start = self.requests.last().map_or(0, |request| request.start);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        // struct nlattr: its length with these four bytes, its type.
        let length = (value.len() + 4) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Batch)) {
        let start = self.bytes.len();
        self.attribute(kind | libc::NLA_F_NESTED as u16, &[]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn ip_attribute(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }
}

fn transport(source: rustix::io::Errno) -> NetlinkError {
    NetlinkError {
        what: "talk to the kernel's network configuration".into(),
        source: source.into(),
    }
}

/// Make what does not exist.
const CREATE: u16 = libc::NLM_F_CREATE as u16;

/// One message from the kernel.
struct Report {
    length: usize,
    sequence: u32,
    /// The error of an NLMSG_ERROR, as a negative number; 0 is an acknowledgement.
    error: Option<i32>,
}

impl Report {
    fn read(bytes: &[u8]) -> Option<Report> {
        let word = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
        let length = u32::from_ne_bytes(word(0)?) as usize;
        let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
        let sequence = u32::from_ne_bytes(word(8)?);
        if length < HEADER_LEN || length > bytes.len() {
            return None;
        }
        let error = if kind == libc::NLMSG_ERROR as u16 {
            Some(i32::from_ne_bytes(word(HEADER_LEN)?))
        } else {
            None
        };
        Some(Report {
            length,
            sequence,
            error,
        })
    }
}

fn family(ipv6: bool) -> u8 {
    match ipv6 {
        true => libc::AF_INET6 as u8,
        false => libc::AF_INET as u8,
    }
}

fn align(length: usize) -> usize {
    length.next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_laid_out_as_the_kernel_reads_them() {
        let mut batch = Batch::new();
        batch.link_up(Link {
            index: 2,
            mtu: Some(65520),
            no_link_local: true,
            ..Link::default()
        });
        batch.address(2, "10.0.2.100".parse().unwrap(), 24, None);
        let length =
            |at: usize| u32::from_ne_bytes(batch.bytes[at..at + 4].try_into().unwrap()) as usize;
        // Header 16, body 16, then AF_SPEC 4 + AF_INET6 4 + mode 8; or MTU 8.
        assert_eq!(length(0), 16 + 16 + 4 + 4 + 8);
        let second = batch.requests[1].start;
        assert_eq!(second, length(0));
        assert_eq!(length(second), 16 + 16 + 8);
        let third = batch.requests[2].start;
        assert_eq!(length(third), batch.bytes.len() - third);
    }

    #[test]
    fn reports_name_the_refused_request() {
        let mut batch = Batch::new();
        batch.queueing(2, "fq_codel");
        batch.mark_rule(false, 100, 100, 100);
        let report = |sequence: u32, error: i32| {
            let mut bytes = Vec::new();
            bytes.extend_from_slice(&20u32.to_ne_bytes());
            bytes.extend_from_slice(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
            bytes.extend_from_slice(&0u16.to_ne_bytes());
            bytes.extend_from_slice(&sequence.to_ne_bytes());
            bytes.extend_from_slice(&0u32.to_ne_bytes());
            bytes.extend_from_slice(&error.to_ne_bytes());
            bytes
        };
        let mut refused = None;
        assert!(!batch.read_reports(&report(0, -libc::ENOENT), &mut refused));
        assert!(refused.is_none(), "an optional request may be refused");
        assert!(batch.read_reports(&report(1, -libc::EPERM), &mut refused));
        assert_eq!(refused.unwrap().what, "add a routing rule");
        let mut refused = None;
        assert!(batch.read_reports(&report(1, 0), &mut refused));
        assert!(refused.is_none());
        assert!(!batch.read_reports(&[1, 2, 3], &mut refused));
    }
}
