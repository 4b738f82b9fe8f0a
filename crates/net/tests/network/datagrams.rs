//! Datagrams to the outside, and what they have in common with those to published ports.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use rcon_net::Config;

use super::lab::{HOST_V4, HOST_V6};
use super::servers::{self, ECHO, NOBODY, TWIN};
use super::{PATIENCE, host, inside, with_ipv6};

pub fn udp(to: SocketAddr) -> UdpSocket {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(to).unwrap();
    socket
}

pub fn exchange(socket: &UdpSocket, message: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    socket.send(message).unwrap();
    let count = socket
        .recv(&mut buffer)
        .unwrap_or_else(|error| panic!("{} bytes: {error}", message.len()));
    buffer.truncate(count);
    buffer
}

/// One endpoint in the container is one on the host, whomever it speaks to, and no other's.
fn assert_seen_as_one(address: &str) {
    let bind = || {
        let socket = udp(host(address, ECHO));
        let near = socket.local_addr().unwrap();
        drop(socket);
        let socket = UdpSocket::bind(near).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (one, other) = (bind(), bind());
    let ask = |socket: &UdpSocket, port: u16| {
        let to = host(address, port);
        let mut buffer = [0; 100];
        socket.send_to(b"whence", to).unwrap();
        let (count, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from, to);
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    for _ in 0..3 {
        let seen = ask(&one, ECHO);
        assert_eq!(ask(&one, TWIN), seen);
        assert_ne!(ask(&other, TWIN), seen);
        assert_eq!(ask(&other, ECHO), ask(&other, TWIN));
    }
}

/// Datagrams that come all at once, and between them such as do not go well with others, come back in their order.
pub fn exchange_bursts(socket: &UdpSocket) {
    let message = |number: usize, length: usize| -> Vec<u8> {
        (0..length)
            .map(|at| servers::pattern(at + 7 * number))
            .collect()
    };
    for burst in 0..3 {
        let lengths = [800, 800, 800, 799, 0, 1, 1, 1, 3000, 800, 801, 800, 800];
        let all: Vec<_> = (0..2 * lengths.len())
            .map(|number| message(number, lengths[number % lengths.len()]))
            .collect();
        for message in &all {
            socket.send(message).unwrap();
        }
        // And by one call, as fast as can be.
        let cut: Vec<u8> = message(burst, 19_500);
        setsockopt(socket, sockopt::UdpGsoSegment, &1000).unwrap();
        socket.send(&cut).unwrap();
        setsockopt(socket, sockopt::UdpGsoSegment, &0).unwrap();
        let mut buffer = vec![0; 70_000];
        let expected = all.iter().map(Vec::as_slice).chain(cut.chunks(1000));
        for (number, expected) in expected.enumerate() {
            let count = socket.recv(&mut buffer).unwrap();
            assert!(buffer[..count] == *expected, "{number}: {count} bytes");
        }
    }
}

pub fn udp_goes_out() {
    for mtu in [65520, 1500] {
        let config = Config { mtu, ..with_ipv6() };
        inside(&config, || {
            for (address, longest) in [(HOST_V4, 65507), (HOST_V6, 65527)] {
                let socket = udp(host(address, ECHO));
                assert_eq!(exchange(&socket, b"who"), address.as_bytes());
                for length in [0, 1, 1472, 1473, 9000, 65000, longest] {
                    let message: Vec<u8> = (0..length).map(servers::pattern).collect();
                    assert!(exchange(&socket, &message) == message, "{length}");
                }
                exchange_bursts(&socket);
                assert_seen_as_one(address);
                let socket = udp(host(address, NOBODY));
                socket.send(b"anybody?").unwrap();
                let error = socket.recv(&mut [0; 10]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
        });
    }
}
