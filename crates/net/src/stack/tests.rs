//! What is kept of flows that nobody uses, and for how long. Time is counted, not waited for.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use rustix::net::{RecvFlags, SendFlags};
use smoltcp::time::Duration;

use super::link::HEADROOM;
use super::packet;
use super::usage::Usage;
use crate::control::Flow;
use crate::exercise::Bench;
use crate::ports::bind::bind;
use crate::ports::mapping::PortMapping;

fn datagram(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut buffer = vec![0; packet::udp_payload_at(to)];
    buffer.extend_from_slice(payload);
    packet::finish_udp(&mut buffer, from, to, payload.len(), false).unwrap();
    buffer.split_off(HEADROOM)
}

/// Lets so much time pass, with turns at its end.
fn pass(bench: &mut Bench, seconds: u64) {
    bench.stack.io.now += Duration::from_secs(seconds);
    for _ in 0..3 {
        bench.turn();
    }
}

fn say(bench: &Bench, message: &[u8]) {
    let datagrams = bench.datagrams.borrow();
    rustix::net::send(&datagrams[0], message, SendFlags::empty()).unwrap();
}

fn usage(bench: &Bench) -> [Usage; 2] {
    [bench.stack.udp.usage(), bench.stack.dns.usage()]
}

/// Has the container send an ICMPv6 message; gives what it is answered, without the IPv6 header.
fn neighbourly(bench: &mut Bench, from: Ipv6Addr, message: &[u8]) -> Vec<Vec<u8>> {
    let to = "ff02::2".parse().unwrap();
    let mut buffer = vec![0; HEADROOM + packet::IPV6_LEN];
    buffer.extend_from_slice(message);
    let length = message.len() as u16;
    packet::finish_ip(
        &mut buffer,
        from.into(),
        to,
        packet::ICMPV6,
        length,
        2,
        false,
    )
    .unwrap();
    // Neighbour discovery believes no one who may be far away (RFC 4861 §7.1.1).
    buffer[HEADROOM + 7] = 255;
    bench.packet(&buffer.split_off(HEADROOM));
    let sent = bench.packets.borrow_mut().split_off(0);
    let hop_limits: Vec<u8> = sent.iter().map(|packet| packet[7]).collect();
    assert!(
        hop_limits.iter().all(|limit| *limit == 255),
        "{hop_limits:?}"
    );
    sent.iter()
        .map(|packet| packet[packet::IPV6_LEN..].to_vec())
        .collect()
}

#[test]
fn router_and_neighbours_are_found() {
    let mut bench = Bench::new(None, true).unwrap();
    let us: Ipv6Addr = "fd00::64".parse().unwrap();
    let mut asked = vec![133, 0, 0, 0, 0, 0, 0, 0];
    let answer = neighbourly(&mut bench, us, &asked);
    // A router for half an hour (RFC 4861 §4.2), whose prefix nobody is to make addresses of.
    assert_eq!(answer.len(), 1);
    assert_eq!((answer[0][0], &answer[0][6..8]), (134, &[7, 8][..]));
    assert_eq!((answer[0].len(), answer[0][16]), (24, 1));

    asked[0] = 135;
    for (target, ours) in [("fd00::2", true), ("fd00::3", true), ("fd00::99", false)] {
        let target: Ipv6Addr = target.parse().unwrap();
        let asked = [&asked[..], &target.octets()].concat();
        let answer = neighbourly(&mut bench, us, &asked);
        assert_eq!(answer.len(), usize::from(ours), "{target}");
        if ours {
            assert_eq!((answer[0][0], answer[0][4]), (136, 0xe0));
            assert_eq!(answer[0][8..24], target.octets());
            assert_eq!(answer[0][24..26], [2, 1]);
        }
    }
    // What claims to be a router or neighbour is heard and changes nothing.
    for kind in [134, 136, 137] {
        let claim = [&[kind][..], &[0; 39]].concat();
        assert!(neighbourly(&mut bench, us, &claim).is_empty());
    }
}

#[test]
fn datagrams_are_remembered_longer_when_they_were_answered() {
    let mut bench = Bench::new(None, true).unwrap();
    let there = |port: u16| {
        let from = format!("10.0.2.100:{port}");
        datagram(&from, "192.0.2.1:7", b"hello")
    };
    bench.packet(&there(1000));
    bench.turn();
    say(&bench, b"hello yourself");
    bench.turn();
    assert_eq!(bench.packets.borrow().len(), 1);
    bench.packet(&there(2000));
    assert_eq!(usage(&bench)[0].now, 2);
    pass(&mut bench, 29);
    assert_eq!(usage(&bench)[0].now, 2);
    // The one that nobody answered is forgotten after 30 seconds, the other after 180.
    pass(&mut bench, 2);
    assert_eq!(usage(&bench)[0].now, 1);
    pass(&mut bench, 140);
    assert_eq!(usage(&bench)[0].now, 1);
    // From the last one on.
    bench.packet(&there(1000));
    pass(&mut bench, 170);
    assert_eq!(usage(&bench)[0].now, 1);
    pass(&mut bench, 11);
    let expected = Usage {
        now: 0,
        opened: 2,
        turned_away: 0,
    };
    assert_eq!(usage(&bench)[0], expected);
}

/// Those who speak through the stack, by what `number` says of them.
fn ports(bench: &Bench, state: &str, number: impl Fn(&Flow) -> u16) -> Vec<u16> {
    let mut flows = Vec::new();
    bench.stack.flows(&mut flows);
    let flows = flows.iter().filter(|flow| flow.state == state);
    let mut ports: Vec<u16> = flows.map(number).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn a_flood_of_datagrams_leaves_those_alone_who_have_answers() {
    let mut bench = Bench::new(None, true).unwrap();
    bench.stack.io.limits.udp_flows = 8;
    let there = |port: u16| datagram(&format!("10.0.2.100:{port}"), "192.0.2.1:7", b"hello");
    for port in 1..=4 {
        bench.packet(&there(port));
        say(&bench, b"hello yourself");
        pass(&mut bench, 1);
    }
    for port in 2001..=2100 {
        bench.packet(&there(port));
    }
    let inside = |flow: &Flow| flow.container.port();
    assert_eq!(ports(&bench, "open", inside), [1, 2, 3, 4]);
    let latest = [2097, 2098, 2099, 2100];
    assert_eq!(ports(&bench, "unanswered", inside), latest);
    let expected = Usage {
        now: 8,
        opened: 104,
        turned_away: 96,
    };
    assert_eq!(usage(&bench)[0], expected);
    // The one of those four that was used again stays.
    bench.packet(&there(2097));
    bench.packet(&there(3000));
    assert_eq!(
        ports(&bench, "unanswered", inside),
        [2097, 2099, 2100, 3000]
    );
}

#[test]
fn a_flood_at_a_published_port_leaves_clients_alone_that_have_answers() {
    let mut bench = Bench::new(None, true).unwrap();
    bench.stack.io.limits.udp_clients = 8;
    let mut listeners = bind(&PortMapping::parse("127.0.0.1::53/udp").unwrap()).unwrap();
    let listener = listeners.sockets.remove(0);
    let address = listener.address;
    bench.stack.publish(listener).unwrap();
    let mut clients = Vec::new();
    let mut come = |bench: &mut Bench| {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"hello", address).unwrap();
        pass(bench, 1);
        let port = client.local_addr().unwrap().port();
        clients.push(client);
        port
    };
    let mut answered = Vec::new();
    for _ in 0..4 {
        let port = come(&mut bench);
        // Clients on the loopback appear as the gateway here.
        let answer = datagram("10.0.2.100:53", &format!("10.0.2.2:{port}"), b"yes");
        bench.packet(&answer);
        answered.push(port);
    }
    let mut flood: Vec<u16> = (0..40).map(|_| come(&mut bench)).collect();
    let mut latest = flood.split_off(36);
    answered.sort_unstable();
    latest.sort_unstable();
    let outside = |flow: &Flow| flow.peer.port();
    assert_eq!(ports(&bench, "open", outside), answered);
    assert_eq!(ports(&bench, "unanswered", outside), latest);
}

#[test]
fn an_error_about_fragments_says_whose_they_were() {
    let mut bench = Bench::new(None, true).unwrap();
    let whole = datagram("10.0.2.100:1000", "127.0.0.1:7", &[7; 100]);
    let (header, payload) = whole.split_at(packet::IPV4_LEN);
    let part = |from: usize, to: usize, more: bool| {
        let mut bytes = header.to_vec();
        let length = (header.len() + to - from) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        let place = (from / 8) as u16 | u16::from(more) << 13;
        bytes[6..8].copy_from_slice(&place.to_be_bytes());
        bytes.extend_from_slice(&payload[from..to]);
        bytes
    };
    bench.packet(&part(0, 64, true));
    bench.packet(&part(64, payload.len(), false));
    let packets = bench.packets.borrow();
    let answer = packet::Packet::parse_v4(&packets[0]).unwrap();
    // Administratively prohibited; then the IP header, and the ports.
    assert_eq!(answer.payload[..2], [3, 13]);
    assert_eq!(answer.payload[28..32], payload[..4]);
}

const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\0\0\x01\0\x01";

fn ask(bench: &mut Bench) {
    bench
        .stack
        .learn_names(Some("nameserver 192.0.2.53"), Some(""));
    bench.packet(&datagram("10.0.2.100:1000", "10.0.2.3:53", QUERY));
}

#[test]
fn a_slow_name_server_is_asked_again_and_heard_all_the_same() {
    let mut bench = Bench::new(None, true).unwrap();
    ask(&mut bench);
    pass(&mut bench, 3);
    pass(&mut bench, 4);
    // Asked twice, by the same socket.
    let datagrams = bench.datagrams.borrow();
    assert_eq!(datagrams.len(), 1);
    let mut buffer = [0; 100];
    for _ in 0..2 {
        let flags = RecvFlags::DONTWAIT;
        let (length, _) = rustix::net::recv(&datagrams[0], &mut buffer[..], flags).unwrap();
        assert_eq!(&buffer[..length], QUERY);
    }
    drop(datagrams);
    let mut answer = QUERY.to_vec();
    answer[2] |= 0x80;
    say(&bench, &answer);
    bench.turn();
    assert_eq!(usage(&bench)[1].now, 0);
    let packets = bench.packets.borrow();
    assert!(packets[0].ends_with(&answer));
}

#[test]
fn a_silent_name_server_is_given_ten_seconds() {
    let mut bench = Bench::new(None, true).unwrap();
    ask(&mut bench);
    for _ in 0..9 {
        pass(&mut bench, 1);
        assert_eq!(usage(&bench)[1].now, 1);
    }
    pass(&mut bench, 1);
    assert_eq!(usage(&bench)[1].now, 0);
    // SERVFAIL (RFC 1035 §4.1.1).
    let packets = bench.packets.borrow();
    let reply = &packets[0][packets[0].len() - QUERY.len()..];
    assert_eq!((reply[2] & 0x80, reply[3] & 0x0f), (0x80, 2));
}
