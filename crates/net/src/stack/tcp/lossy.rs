//! Long transfers both ways over a link that loses, doubles and reorders packets. The container is
//! another TCP, the outside a socket pair, and time is counted, not waited for.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::exercise::Bench;
use crate::testing::Random;

/// How much goes in each direction over a good link, and over a bad one, in bytes.
const LONG: usize = 4_000_000;
const SHORT: usize = 400_000;

fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

/// A direction of the link; each fault strikes one packet of so many (0: none).
struct Lossy {
    random: Random,
    faults: usize,
    held: Option<Vec<u8>>,
}

impl Lossy {
    fn new(seed: u64, faults: usize) -> Lossy {
        Lossy {
            random: Random::new(seed),
            faults,
            held: None,
        }
    }

    fn strikes(&mut self) -> bool {
        self.faults > 0 && self.random.below(self.faults) == 0
    }

    /// What arrives when this is sent.
    fn pass(&mut self, packet: Vec<u8>) -> Vec<Vec<u8>> {
        if self.strikes() {
            return Vec::new();
        }
        let mut arrives = vec![packet];
        if self.strikes() {
            arrives.push(arrives[0].clone());
        }
        if self.strikes() && self.held.is_none() {
            self.held = arrives.pop();
        } else {
            arrives.extend(self.held.take());
        }
        arrives
    }
}

/// The container's device.
#[derive(Default)]
struct Card {
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

struct Incoming(Vec<u8>);
struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl phy::Device for Card {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 9000;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

impl phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = vec![0; length];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

fn transfer(length: usize, faults: usize, offloads: bool, outside_begins_to_end: bool) {
    let mut bench = Bench::new(None, offloads).unwrap();
    let mut card = Card::default();
    let mut container = Interface::new(
        Config::new(HardwareAddress::Ip),
        &mut card,
        bench.stack.io.now,
    );
    container.update_ip_addrs(|addresses| {
        let _ = addresses.push(IpCidr::new(IpAddress::v4(10, 0, 2, 100), 24));
    });
    let gateway = std::net::Ipv4Addr::new(10, 0, 2, 2);
    container
        .routes_mut()
        .add_default_ipv4_route(gateway)
        .unwrap();
    let buffer = || SocketBuffer::new(vec![0; 256 * 1024]);
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(Socket::new(buffer(), buffer()));
    let there = (IpAddress::v4(192, 0, 2, 1), 80);
    sockets
        .get_mut::<Socket<'_>>(handle)
        .connect(container.context(), there, 40000)
        .unwrap();

    let (mut out, mut back) = (Lossy::new(5, faults), Lossy::new(7, faults));
    // Sent, received and ended by the container; the same by the outside.
    let (mut sent, mut received) = (0, 0);
    let (mut written, mut read, mut ended, mut outside_ended) = (0, 0, false, false);
    let mut chunk = vec![0; 100_000];
    for turn in 0.. {
        assert!(turn < 3_000_000, "{sent} {received} {written} {read}");
        let now = bench.stack.io.now;
        container.poll(now, &mut card, &mut sockets);
        for packet in card.outgoing.drain(..) {
            for packet in out.pass(packet) {
                bench.packet(&packet);
            }
        }
        bench.turn();
        for packet in bench.packets.borrow_mut().drain(..) {
            card.incoming.extend(back.pass(packet));
        }

        let socket = sockets.get_mut::<Socket<'_>>(handle);
        if socket.can_send() && sent < length {
            sent += socket
                .send(|space| {
                    let count = space.len().min(length - sent);
                    for (n, byte) in space[..count].iter_mut().enumerate() {
                        *byte = pattern(sent + n);
                    }
                    (count, count)
                })
                .unwrap();
        }
        while socket.can_recv() {
            received += socket
                .recv(|bytes| {
                    let whole = bytes
                        .iter()
                        .enumerate()
                        .all(|(n, byte)| *byte == pattern(received + n + 1));
                    assert!(whole, "in, at {received}");
                    (bytes.len(), bytes.len())
                })
                .unwrap();
        }
        // One side ends first, the other when it has heard of it and said everything.
        let heard = received == length && !socket.may_recv();
        if sent == length && (!outside_begins_to_end || heard) && socket.may_send() {
            socket.close();
        }
        if let Some(outside) = bench.streams.borrow_mut().first_mut() {
            let bytes: Vec<u8> = (written..length.min(written + 50_000))
                .map(|at| pattern(at + 1))
                .collect();
            written += outside.write(&bytes).unwrap_or(0);
            match outside.read(&mut chunk) {
                Ok(0) => ended = true,
                Ok(count) => {
                    let whole = chunk[..count]
                        .iter()
                        .enumerate()
                        .all(|(n, byte)| *byte == pattern(read + n));
                    assert!(whole, "out, at {read}");
                    read += count;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            if written == length && !outside_ended && (outside_begins_to_end || ended) {
                outside.shutdown(Shutdown::Write).unwrap();
                outside_ended = true;
            }
        }
        let socket = sockets.get::<Socket<'_>>(handle);
        if ended && matches!(socket.state(), State::TimeWait | State::Closed) {
            break;
        }
    }
    assert_eq!((sent, read), (length, length));
    assert_eq!((written, received), (length, length));
}

#[test]
fn streams_stay_whole_on_a_good_link() {
    transfer(LONG, 0, true, false);
    transfer(LONG, 0, false, true);
}

#[test]
fn streams_stay_whole_when_packets_are_lost_doubled_and_overtaken() {
    for faults in [100, 20] {
        transfer(SHORT, faults, true, false);
        transfer(SHORT, faults, true, true);
        transfer(SHORT, faults, false, false);
    }
}
