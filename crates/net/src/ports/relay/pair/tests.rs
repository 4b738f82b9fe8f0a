use super::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

fn pair() -> (OwnedFd, UnixStream) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    let theirs = UnixStream::from(theirs);
    theirs.set_nonblocking(true).unwrap();
    (ours, theirs)
}

fn news(side: Side) -> (Ready, Side) {
    let ready = Ready {
        token: crate::poll::Token::only(crate::poll::Kind::RelayClient),
        readable: true,
        writable: true,
        hung_up: true,
        urgent: false,
        failed: false,
    };
    (ready, side)
}

#[test]
fn bulk_goes_through_whole_while_the_receiver_stalls() {
    bulk(Pipes::default());
}

#[test]
fn bulk_goes_through_whole_without_pipes() {
    bulk(Pipes::refused());
}

fn bulk(mut pipes: Pipes) {
    let (client, mut user) = pair();
    let (server, mut service) = pair();
    let mut relay = Pair::new(client, server);
    let mut buffer = vec![0; 4096];
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let (mut sent, mut received) = (0, Vec::new());
    let mut chunk = vec![0; 10_000];
    while received.len() < bytes.len() {
        if let Ok(count) = user.write(&bytes[sent..]) {
            sent += count;
        }
        if sent == bytes.len() {
            let _ = user.shutdown(std::net::Shutdown::Write);
        }
        for (ready, side) in [news(Side::Client), news(Side::Server)] {
            relay.ready(&ready, side).unwrap();
        }
        let turn = relay.turn(&mut pipes, &mut buffer).unwrap();
        assert_ne!(turn, Turn::Over);
        if let Ok(count) = service.read(&mut chunk) {
            received.extend_from_slice(&chunk[..count]);
        }
    }
    assert!(received == bytes);
    // The client's end was passed on; the other direction lives.
    assert_eq!(service.read(&mut chunk).unwrap(), 0);
    service.write_all(b"answer").unwrap();
    drop(service);
    for (ready, side) in [news(Side::Client), news(Side::Server)] {
        relay.ready(&ready, side).unwrap();
    }
    assert_eq!(relay.turn(&mut pipes, &mut buffer), Ok(Turn::Over));
    // The last end is told by closing.
    drop(relay);
    assert_eq!(user.read(&mut chunk).unwrap(), 6);
    assert_eq!(user.read(&mut chunk).unwrap(), 0);
}

/// Two ends of a TCP connection.
fn tcp() -> (OwnedFd, TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    for stream in [&ours, &theirs] {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    (ours.into(), theirs)
}

#[test]
fn nothing_is_kept_back_for_an_end_that_does_not_come() {
    let (client, mut user) = tcp();
    let (server, mut service) = tcp();
    let mut relay = Pair::new(client, server);
    let mut buffer = vec![0; 4096];
    let mut chunk = [0; 16];
    user.write_all(b"last").unwrap();
    // An end is announced, and is not there yet.
    for (ready, side) in [news(Side::Client), news(Side::Server)] {
        relay.ready(&ready, side).unwrap();
    }
    relay.turn(&mut Pipes::default(), &mut buffer).unwrap();
    assert_eq!(service.read(&mut chunk).unwrap(), 4);
    user.write_all(b"really").unwrap();
    user.shutdown(std::net::Shutdown::Write).unwrap();
    let (ready, side) = news(Side::Client);
    relay.ready(&ready, side).unwrap();
    relay.turn(&mut Pipes::default(), &mut buffer).unwrap();
    assert_eq!(service.read(&mut chunk).unwrap(), 6);
    assert_eq!(service.read(&mut chunk).unwrap(), 0);
}

/// A relay whose server has answered and closed before it read all that the client had sent.
fn with_hasty_server(answer: &[u8]) -> (Pair, TcpStream) {
    let (client, mut user) = tcp();
    let (server, mut service) = tcp();
    let mut relay = Pair::new(client, server);
    user.write_all(&[1; 3000]).unwrap();
    for (ready, side) in [news(Side::Client), news(Side::Server)] {
        relay.ready(&calm(ready), side).unwrap();
    }
    let turn = relay.turn(&mut Pipes::default(), &mut [0; 4096]);
    assert_eq!(turn, Ok(Turn::Waiting));
    service.write_all(answer).unwrap();
    drop(service);
    (relay, user)
}

/// News of a side that goes on.
fn calm(ready: Ready) -> Ready {
    Ready {
        hung_up: false,
        ..ready
    }
}

fn assert_answered_and_reset(mut relay: Pair, mut user: TcpStream, answer: &[u8]) {
    let mut turns = 0;
    let error = loop {
        match relay.turn(&mut Pipes::default(), &mut [0; 4096]) {
            Ok(Turn::More) => turns += 1,
            other => break other,
        }
        assert!(turns < 10);
    };
    assert_eq!(error, Err(Errno::CONNRESET));
    relay.reset();
    drop(relay);
    let mut got = vec![0; answer.len()];
    user.read_exact(&mut got).unwrap();
    assert_eq!(got, answer);
    let error = user.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_answer_counts_though_the_server_resets_behind_it() {
    for length in [6, 20_000] {
        let answer = vec![7; length];
        // The failure comes by itself.
        let (mut relay, user) = with_hasty_server(&answer);
        let (ready, side) = news(Side::Server);
        let failed = Ready {
            failed: true,
            ..ready
        };
        relay.ready(&failed, side).unwrap();
        assert_answered_and_reset(relay, user, &answer);
        // Or it is met by what the client goes on sending.
        let (mut relay, mut user) = with_hasty_server(&answer);
        user.write_all(&[1; 3000]).unwrap();
        let (ready, side) = news(Side::Client);
        relay.ready(&calm(ready), side).unwrap();
        assert_answered_and_reset(relay, user, &answer);
    }
}

#[test]
fn nothing_is_left_to_do_when_both_sides_have_failed() {
    let (mut relay, user) = with_hasty_server(b"answer");
    rustix::net::sockopt::set_socket_linger(&user, Some(std::time::Duration::ZERO)).unwrap();
    drop(user);
    let failed = |side| {
        let (ready, side) = news(side);
        let failed = Ready {
            failed: true,
            ..ready
        };
        (failed, side)
    };
    let (ready, side) = failed(Side::Server);
    relay.ready(&ready, side).unwrap();
    let (ready, side) = failed(Side::Client);
    assert!(relay.ready(&ready, side).is_err());
}
