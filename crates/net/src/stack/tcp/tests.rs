//! The whole stack against frames, without a tap and without a network.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::SocketAddr;

use smoltcp::time::Duration;

use super::engine::{GENEROUS, GENEROUS_CONNECTIONS, MODEST};
use super::inlet::{Brought, Inlet};
use super::segment::{ACK, FIN, Header, RST, SYN, Wishes, segment};
use crate::device::Frame;
use crate::exercise::{Bench, OPTIONS, tcp};
use crate::stack::link::HEADROOM;
use crate::stack::packet;
use crate::testing::Random;

/// A stack whose outside takes every connection, or refuses all.
fn bench(refusal: Option<i32>) -> Bench {
    Bench::new(refusal, true).unwrap()
}

/// Opens a connection; gives the sequence number to acknowledge.
fn connect(lab: &mut Bench) -> u32 {
    lab.packet(&tcp(1000, 0, SYN, &OPTIONS, b""));
    lab.turn();
    lab.turn();
    let sent = lab.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0.control, SYN | ACK);
    assert_eq!(sent[0].0.acknowledgment, 1001);
    let next = sent[0].0.sequence.wrapping_add(1);
    lab.packet(&tcp(1001, next, ACK, &[], b""));
    lab.turn();
    next
}

fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    let mut buffer = vec![0; packet::udp_payload_at(to)];
    buffer.extend_from_slice(payload);
    packet::finish_udp(&mut buffer, from, to, payload.len(), false).unwrap();
    buffer.split_off(HEADROOM)
}

#[test]
fn bytes_go_both_ways_and_ends_are_passed_on() {
    let mut lab = bench(None);
    let next = connect(&mut lab);
    let mut outside = lab.streams.borrow_mut().pop().unwrap();

    lab.packet(&tcp(1001, next, ACK, &[], b"hello"));
    lab.turn();
    let mut buffer = [0; 100];
    assert_eq!(outside.read(&mut buffer).unwrap(), 5);
    assert_eq!(lab.sent()[0].0.acknowledgment, 1006);

    outside.write_all(b"good day").unwrap();
    lab.turn();
    let sent = lab.sent();
    assert_eq!(sent[0].1, b"good day");
    assert_eq!(sent[0].0.sequence, next);

    // The container is done; the outside is not.
    lab.packet(&tcp(1006, next.wrapping_add(8), ACK | FIN, &[], b""));
    lab.turn();
    assert_eq!(outside.read(&mut buffer).unwrap(), 0);
    outside.write_all(b"late").unwrap();
    lab.turn();
    assert!(lab.sent().iter().any(|(_, payload)| payload == b"late"));
    drop(outside);
    lab.turn();
    let end = lab.sent();
    assert!(end.iter().any(|(header, _)| header.control & FIN != 0));
    lab.packet(&tcp(1007, next.wrapping_add(13), ACK, &[], b""));
    lab.turn();
    assert_eq!(lab.stack.tcp.flows.len(), 0);
    assert!(lab.stack.tcp.by_name.is_empty());
}

/// Sends so many segments of 40,000 bytes, has them read outside; gives the window that is told then, in bytes.
fn window_after(
    lab: &mut Bench,
    outside: &mut impl Read,
    next: u32,
    segments: u32,
    from: u32,
) -> u32 {
    let mut window = 0;
    let mut taken = vec![0; 40_000];
    for n in 0..segments {
        let sequence = from + n * 40_000;
        lab.packet(&tcp(sequence, next, ACK, &[], &[7; 40_000]));
        lab.turn();
        outside.read_exact(&mut taken).unwrap();
        if let Some((header, _)) = lab.sent().last() {
            // Scaled as our SYN said.
            window = u32::from(header.window) << 5;
        }
    }
    window
}

#[test]
fn who_moves_much_may_hold_much_until_it_rests() {
    let mut lab = bench(None);
    let next = connect(&mut lab);
    let mut outside = lab.streams.borrow_mut().pop().unwrap();
    assert_eq!(
        window_after(&mut lab, &mut outside, next, 1, 1001),
        MODEST as u32
    );
    assert_eq!(
        window_after(&mut lab, &mut outside, next, 4, 41_001),
        GENEROUS as u32
    );
    lab.stack.io.now += Duration::from_secs(3);
    lab.stack.timers();
    lab.turn();
    // What was allowed is not taken back, but is no more than that.
    let window = window_after(&mut lab, &mut outside, next, 1, 201_001);
    assert!(window <= GENEROUS as u32 - 40_000, "{window}");
    // And who rests has given back the right to hold much.
    assert_eq!(lab.stack.tcp.engines.as_ref().unwrap().generous, 0);
}

#[test]
fn a_flood_of_syns_is_answered_with_resets_beyond_the_bound() {
    let mut lab = bench(None);
    lab.stack.io.limits.tcp_flows = 8;
    let ports = 1000..3000u16;
    let (mut taken, mut reset) = (HashSet::new(), 0);
    for port in ports.clone() {
        let from = SocketAddr::new("10.0.2.100".parse().unwrap(), port);
        let to = "192.0.2.1:80".parse().unwrap();
        lab.packet(&segment(from, to, 1000, 0, SYN, &OPTIONS, b""));
        lab.turn();
        lab.turn();
        for (header, _) in lab.sent() {
            assert_eq!(header.acknowledgment, 1001);
            match header.control {
                // Asked again, as nobody answers.
                control if control == SYN | ACK => drop(taken.insert(header.destination_port)),
                control if control == RST | ACK => reset += 1,
                control => panic!("{control:#x}"),
            }
        }
    }
    assert_eq!((taken.len(), reset), (8, ports.len() - 8));
    assert_eq!(lab.stack.tcp.flows.len(), 8);
    assert_eq!(lab.stack.tcp.usage().turned_away as usize, reset);
}

#[test]
fn not_everybody_may_hold_much() {
    let mut lab = bench(None);
    let next = connect(&mut lab);
    let mut outside = lab.streams.borrow_mut().pop().unwrap();
    lab.stack.tcp.engines.as_mut().unwrap().generous = GENEROUS_CONNECTIONS;
    assert_eq!(
        window_after(&mut lab, &mut outside, next, 5, 1001),
        MODEST as u32
    );
    // The other direction goes on with little too.
    let bytes: Vec<u8> = (0..500_000u32).map(|n| (n % 251) as u8).collect();
    let (mut written, mut received) = (0, Vec::new());
    for _ in 0..200 {
        if let Ok(count) = outside.write(&bytes[written..]) {
            written += count;
        }
        lab.turn();
        for (_, payload) in lab.sent() {
            received.extend_from_slice(&payload);
        }
        let acknowledged = next.wrapping_add(received.len() as u32);
        lab.packet(&tcp(201_001, acknowledged, ACK, &[], b""));
    }
    assert!(received == bytes);
}

#[test]
fn what_is_too_much_after_a_rest_is_not_acknowledged() {
    let wishes = Wishes {
        mss: 65000,
        scales: true,
        selective: false,
    };
    let syn = tcp(1000, 0, SYN, &OPTIONS, b"");
    let mut inlet = Inlet::new(&Header::parse(&syn).unwrap(), wishes);
    let mut ours = segment(
        "192.0.2.1:80".parse().unwrap(),
        "10.0.2.100:40000".parse().unwrap(),
        1,
        1001,
        ACK,
        &[],
        b"",
    );
    inlet.set_limit(GENEROUS);
    inlet.complete(&mut ours);
    inlet.set_limit(MODEST);
    let mut sequence = 1001;
    let mut whole = 0;
    for _ in 0..10 {
        let bytes = tcp(sequence, 1, ACK, &[], &[7; 20_000]);
        let header = Header::parse(&bytes).unwrap();
        // The outside takes nothing.
        whole += u32::from(inlet.accept(&header, &[7; 20_000], |_| 0) == Brought::Whole);
        sequence += 20_000;
    }
    assert_eq!(whole, 3);
    assert_eq!(inlet.waiting().len(), MODEST);
}

#[test]
fn a_long_answer_goes_in_super_frames() {
    let mut lab = bench(None);
    let next = connect(&mut lab);
    // The window of the container was 65535; let it be 8 MiB.
    lab.packet(&tcp(1001, next, ACK, &[], b""));
    let outside = lab.streams.borrow_mut().pop().unwrap();
    let mut written = 0;
    let bytes: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    let mut received = Vec::new();
    let mut longest = 0;
    for _ in 0..200 {
        if let Ok(count) = (&outside).write(&bytes[written..]) {
            written += count;
        }
        lab.turn();
        for (_, payload) in lab.sent() {
            longest = longest.max(payload.len());
            received.extend_from_slice(&payload);
        }
        let acknowledged = next.wrapping_add(received.len() as u32);
        lab.packet(&tcp(1001, acknowledged, ACK, &[], b""));
    }
    assert!(received == bytes);
    assert!(longest > 1460, "{longest}");
}

#[test]
fn a_reset_of_either_side_reaches_the_other() {
    let mut lab = bench(None);
    let next = connect(&mut lab);
    lab.packet(&tcp(1001, next, RST, &[], b""));
    lab.turn();
    assert_eq!(lab.stack.tcp.flows.len(), 0);
    let outside = lab.streams.borrow_mut().pop().unwrap();
    assert_eq!((&outside).read(&mut [0; 1]).unwrap(), 0);

    // Data for somebody who has gone: the container is told.
    let next = connect(&mut lab);
    lab.streams.borrow_mut().clear();
    lab.packet(&tcp(1001, next, ACK, &[], b"anybody?"));
    lab.turn();
    assert!(
        lab.sent()
            .iter()
            .any(|(header, _)| header.control & (RST | FIN) != 0)
    );
}

#[test]
fn an_answer_counts_though_the_outside_resets_behind_it() {
    for length in [10, 200_000] {
        let mut lab = bench(None);
        let next = connect(&mut lab);
        let outside = lab.streams.borrow_mut().pop().unwrap();
        outside.set_nonblocking(true).unwrap();
        let request = [1; 3000];
        lab.packet(&tcp(1001, next, ACK, &[], &request));
        lab.turn();
        let answer: Vec<u8> = Random::new(5).bytes(length);
        let mut written = 0;
        let mut outside = Some(outside);
        let (mut received, mut sequence, mut reset) = (Vec::new(), 4001, false);
        for _ in 0..200 {
            // The outside ends when it has written all, without having read anything.
            if let Some(stream) = &mut outside {
                written += stream.write(&answer[written..]).unwrap_or(0);
                if written == length {
                    outside = None;
                }
            }
            // The container goes on sending, as long as it may.
            let acknowledged = next.wrapping_add(received.len() as u32);
            lab.packet(&tcp(sequence, acknowledged, ACK, &[], &request));
            lab.turn();
            for (header, payload) in lab.sent() {
                if header.sequence == next.wrapping_add(received.len() as u32) {
                    received.extend_from_slice(&payload);
                }
                reset |= header.control & RST != 0;
                sequence = sequence.max(header.acknowledgment);
            }
            if reset {
                break;
            }
        }
        assert!(reset && outside.is_none());
        assert!(received == answer, "{} of {length}", received.len());
        assert_eq!(lab.stack.tcp.flows.len(), 0);
    }
}

#[test]
fn refusals_are_told_as_they_happened() {
    let mut lab = bench(Some(libc::ECONNREFUSED));
    lab.packet(&tcp(1000, 0, SYN, &OPTIONS, b""));
    let sent = lab.sent();
    assert_eq!(sent[0].0.control, RST | ACK);
    assert_eq!(sent[0].0.acknowledgment, 1001);

    let mut lab = bench(Some(libc::EHOSTUNREACH));
    lab.packet(&tcp(1000, 0, SYN, &OPTIONS, b""));
    let packets = lab.packets.borrow();
    let answer = packet::Packet::parse_v4(&packets[0]).unwrap();
    assert_eq!(answer.protocol, packet::ICMP);
    assert_eq!(answer.payload[..2], [3, 1]);
    // It quotes the SYN, so that the container knows which connection it was.
    assert_eq!(
        answer.payload[8..36],
        tcp(1000, 0, SYN, &OPTIONS, b"")[..28]
    );
    drop(packets);

    // Out of descriptors: not a word, the container asks again.
    let mut lab = bench(Some(libc::EMFILE));
    lab.packet(&tcp(1000, 0, SYN, &OPTIONS, b""));
    assert!(lab.packets.borrow().is_empty());
    assert_eq!(lab.stack.tcp.flows.len(), 0);
}

#[test]
fn a_syn_asked_again_dials_once() {
    let mut lab = bench(None);
    for _ in 0..5 {
        lab.packet(&tcp(1000, 0, SYN, &OPTIONS, b""));
    }
    assert_eq!(lab.streams.borrow().len(), 1);
    assert_eq!(lab.stack.tcp.flows.len(), 1);
}

#[test]
fn what_lies_beyond_the_window_is_passed_over() {
    let mut lab = bench(None);
    let next = connect(&mut lab);
    // The first window is told without its scale, so it must be known otherwise.
    for offset in [1024 * 1024, 1024 * 1024 - 3, 1_500_000, 2_000_000] {
        lab.packet(&tcp(1001 + offset, next, ACK, &[], b"far away"));
    }
    for offset in (0..1_100_000).step_by(50_000) {
        lab.packet(&tcp(1001 + offset, next, ACK, &[], &[0; 50_000]));
    }
    lab.turn();
    assert_eq!(lab.stack.tcp.flows.len(), 1);
}

#[test]
fn no_segments_of_a_connection_make_it_panic() {
    let mut random = Random::new(21);
    for round in 0..150 {
        let mut lab = bench(None);
        let next = connect(&mut lab);
        let payload = vec![0x5a; 60_000];
        for _ in 0..400 {
            let near = |random: &mut Random, around: u32| {
                let span = [4, 3000, 300_000, 3_000_000, u32::MAX as usize][random.below(5)];
                around
                    .wrapping_add(random.below(span) as u32)
                    .wrapping_sub(span as u32 / 4)
            };
            let sequence = near(&mut random, 1001);
            let acknowledgment = match random.below(2) {
                0 => next,
                _ => near(&mut random, next),
            };
            let control = match random.below(12) {
                0 => random.next() as u8,
                1 => ACK | FIN,
                2 => SYN,
                _ => ACK,
            };
            let longest = [1, 100, 60_000][random.below(3)];
            let length = random.below(longest);
            let options = [&OPTIONS[..], &[]][random.below(2)];
            let bytes = tcp(
                sequence,
                acknowledgment,
                control,
                options,
                &payload[..length],
            );
            lab.packet(&bytes);
            if random.below(3) == 0 {
                lab.turn();
            }
            if random.below(20) == 0 {
                lab.stack.io.now += Duration::from_secs(1);
            }
            if let Some(outside) = lab.streams.borrow().last() {
                let _ = (&*outside).write(&payload[..random.below(60_000)]);
                if round % 2 == 0 {
                    let _ = (&*outside).read(&mut [0; 70_000]);
                }
            }
            lab.packets.borrow_mut().clear();
        }
    }
}

#[test]
fn no_frames_at_all_make_it_panic() {
    let mut random = Random::new(23);
    let mut lab = bench(None);
    connect(&mut lab);
    let seeds = [
        tcp(1001, 1, ACK, &OPTIONS, b"payload"),
        segment(
            "[fd00::100]:1".parse().unwrap(),
            "[2001:db8::1]:2".parse().unwrap(),
            1,
            0,
            SYN,
            &OPTIONS,
            b"",
        ),
        udp("10.0.2.100:4000", "10.0.2.3:53", b"query"),
        udp("[fd00::100]:4000", "[fd00::3]:53", b"query"),
    ];
    for step in 0..100_000 {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..random.below(5) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        bytes.truncate(random.below(bytes.len() + 40));
        let ethertype = [0x0800, 0x86dd, 0x0806, random.next() as u16][random.below(4)];
        lab.stack.frame(&Frame {
            source: [2, 0, 0, 0, 0, 1],
            ethertype,
            payload: &bytes,
            udp_segment: (random.below(4) == 0).then_some(random.next() as u16 | 1),
        });
        if step % 64 == 0 {
            lab.turn();
            lab.streams.borrow_mut().truncate(200);
        }
        lab.packets.borrow_mut().clear();
    }
}

/// Sends until no more is taken, for nobody reads outside; gives the sequence number of what comes next.
fn fill(lab: &mut Bench, next: u32) -> u32 {
    let mut sequence = 1001;
    loop {
        lab.packet(&tcp(sequence, next, ACK, &[], &[7; 10_000]));
        lab.turn();
        let told = lab.sent().last().unwrap().0.acknowledgment;
        if told != sequence + 10_000 {
            return told;
        }
        sequence = told;
    }
}

/// Takes all that is there outside; how much, and whether the end came.
fn take_all(outside: &mut impl Read) -> (u32, bool) {
    let (mut buffer, mut total) = (vec![0; 50_000], 0);
    loop {
        match outside.read(&mut buffer) {
            Ok(0) => return (total, true),
            Ok(count) => total += count as u32,
            Err(_) => return (total, false),
        }
    }
}

#[test]
fn when_the_container_has_ended_all_it_sent_is_delivered_and_nothing_begins() {
    let mut lab = bench(None);
    let next = connect(&mut lab);
    let mut outside = lab.streams.borrow_mut().pop().unwrap();
    let end = fill(&mut lab, next);
    // Another asks for a connection and will not hear of it.
    let from = |port| SocketAddr::new("10.0.2.100".parse().unwrap(), port);
    let syn = |port| {
        let to = "192.0.2.1:80".parse().unwrap();
        segment(from(port), to, 1000, 0, SYN, &OPTIONS, b"")
    };
    lab.packet(&syn(50_000));
    assert_eq!(lab.stack.tcp.flows.len(), 2);
    lab.stack.linger();
    lab.turn();
    assert_eq!(lab.stack.tcp.flows.len(), 1);
    lab.packet(&syn(50_001));
    lab.packet(&udp("10.0.2.100:5000", "192.0.2.1:5000", b"nobody"));
    lab.turn();
    let sent = lab.sent();
    assert!(matches!(&sent[..], [(header, _)] if header.control & RST != 0));
    assert!(lab.datagrams.borrow().is_empty());

    // The end comes while much waits; the rest goes out as it is taken.
    lab.packet(&tcp(end, next, ACK | FIN, &[], b""));
    lab.turn();
    assert_eq!(lab.sent().last().unwrap().0.acknowledgment, end + 1);
    assert_eq!(lab.stack.tcp.flows.len(), 1);
    let mut total = 0;
    loop {
        let (count, ended) = take_all(&mut outside);
        total += count;
        if ended {
            break;
        }
        lab.turn();
    }
    assert_eq!(total, end - 1001);
    // The outside has not ended, and need not.
    assert_eq!(lab.stack.tcp_flows(), 0);
}

/// A container that has ended, whose connection took something and has more to deliver; and the other end of it.
fn taken_once() -> (Bench, impl Read) {
    let mut lab = bench(None);
    let next = connect(&mut lab);
    let mut outside = lab.streams.borrow_mut().pop().unwrap();
    fill(&mut lab, next);
    lab.stack.linger();
    take_all(&mut outside);
    lab.turn();
    (lab, outside)
}

#[test]
fn when_the_container_has_ended_who_takes_nothing_is_not_waited_for() {
    let (mut lab, _outside) = taken_once();
    lab.stack.give_up(false);
    assert_eq!(lab.stack.tcp_flows(), 1);
    lab.sent();
    lab.stack.give_up(false);
    assert_eq!(lab.stack.tcp_flows(), 0);
    // The container's kernel lets go of it.
    let sent = lab.sent();
    assert!(sent.iter().any(|(header, _)| header.control & RST != 0));

    // In the end nobody is.
    let (mut lab, _outside) = taken_once();
    lab.stack.give_up(true);
    assert_eq!(lab.stack.tcp_flows(), 0);
}
