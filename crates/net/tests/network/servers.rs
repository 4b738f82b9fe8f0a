//! What containers and their clients talk to: small servers, each in its thread.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

/// Says the client's address and hangs up.
pub const WHO: u16 = 9000;
/// Reads to the end, then says how many bytes came and what they add up to.
pub const SINK: u16 = 9001;
/// Sends as many bytes of [`pattern`] as asked for in eight bytes.
pub const SOURCE: u16 = 9002;
/// Resets the connection when a byte has come.
pub const RESET: u16 = 9003;
/// Takes so many bytes of [`stretch`] as eight bytes say, and sends as many at the same time; then
/// says how many were right.
pub const BOTH_WAYS: u16 = 9004;
/// Sends datagrams back; to `who` the client's address.
pub const ECHO: u16 = 9010;
/// Another of the kind.
pub const TWIN: u16 = 9027;
/// Answer a byte with a byte and hang up, each one client after another.
pub const BRIEF: [u16; 4] = [9030, 9031, 9032, 9033];
/// Nobody listens here.
pub const NOBODY: u16 = 9;
/// As [`WHO`], on the host's loopback only.
pub const PRIVATE: u16 = 9005;
/// The host's resolver.
pub const RESOLVER: &str = "127.0.0.53";

/// The byte at a place of a long transfer.
pub fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

/// What bytes add up to, so that none may be lost, doubled or exchanged.
pub fn digest(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |sum, byte| {
        sum.wrapping_mul(0x0100_0000_01b3)
            .wrapping_add(u64::from(*byte) + 1)
    })
}

/// The bytes of a very long transfer, from a place on that is a multiple of eight: no eight of them
/// are like any other.
fn stretch(at: u64, chunk: &mut [u8]) {
    for (n, bytes) in (at / 8..).zip(chunk.chunks_mut(8)) {
        let word = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        bytes.copy_from_slice(&word[..bytes.len()]);
    }
}

/// Sends so many of them.
pub fn send_stretch(to: &mut impl Write, length: u64) -> std::io::Result<()> {
    let mut chunk = vec![0; 1 << 16];
    for at in (0..length).step_by(chunk.len()) {
        let size = chunk.len().min((length - at) as usize);
        stretch(at, &mut chunk[..size]);
        to.write_all(&chunk[..size])?;
    }
    Ok(())
}

/// Takes so many of them; gives how many were right before the first that was not.
pub fn receive_stretch(from: &mut impl Read, length: u64) -> std::io::Result<u64> {
    let (mut chunk, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    for at in (0..length).step_by(chunk.len()) {
        let size = chunk.len().min((length - at) as usize);
        from.read_exact(&mut chunk[..size])?;
        stretch(at, &mut right[..size]);
        if chunk[..size] != right[..size] {
            return Ok(at);
        }
    }
    Ok(length)
}

/// Serves all of them at an address, in threads of their own.
pub fn start(address: IpAddr) {
    serve_tcp(address, WHO, who);
    serve_tcp(address, SINK, |mut stream| {
        let (mut sum, mut total, mut buffer) = (0, 0u64, vec![0; 1 << 16]);
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    sum = digest(sum, &buffer[..count]);
                    total += count as u64;
                }
                Err(_) => return,
            }
        }
        let _ = stream.write_all(&[total.to_be_bytes(), sum.to_be_bytes()].concat());
    });
    serve_tcp(address, SOURCE, |mut stream| {
        let mut count = [0; 8];
        if stream.read_exact(&mut count).is_err() {
            return;
        }
        let bytes: Vec<u8> = (0..u64::from_be_bytes(count) as usize)
            .map(pattern)
            .collect();
        let _ = stream.write_all(&bytes);
    });
    serve_tcp(address, RESET, |mut stream| {
        let _ = stream.read(&mut [0; 1]);
        rcon_sys::sockopt::set_reset_on_close(&stream).unwrap();
    });
    serve_tcp(address, BOTH_WAYS, |mut stream| {
        let mut length = [0; 8];
        if stream.read_exact(&mut length).is_err() {
            return;
        }
        let length = u64::from_be_bytes(length);
        let mut reader = stream.try_clone().unwrap();
        let reading = thread::spawn(move || receive_stretch(&mut reader, length));
        if send_stretch(&mut stream, length).is_ok() {
            let right = reading.join().unwrap().unwrap_or(0);
            let _ = stream.write_all(&right.to_be_bytes());
        }
    });
    for port in [ECHO, TWIN] {
        let socket = UdpSocket::bind((address, port)).unwrap();
        thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            while let Ok((count, from)) = socket.recv_from(&mut buffer) {
                let _ = match &buffer[..count] {
                    b"who" => socket.send_to(from.ip().to_string().as_bytes(), from),
                    b"whence" => socket.send_to(from.to_string().as_bytes(), from),
                    other => socket.send_to(other, from),
                };
            }
        });
    }
}

/// Serves [`BRIEF`].
pub fn start_brief(address: IpAddr) {
    for port in BRIEF {
        let listener = TcpListener::bind((address, port)).unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1]);
                let _ = stream.write_all(b"!");
            }
        });
    }
}

/// Serves the client's own address at a port.
pub fn serve_who(address: IpAddr, port: u16) {
    serve_tcp(address, port, who);
}

fn who(mut stream: TcpStream) {
    let address = stream.peer_addr().unwrap().ip().to_string();
    let _ = stream.write_all(address.as_bytes());
}

fn serve_tcp(address: IpAddr, port: u16, serve: fn(TcpStream)) {
    let listener = TcpListener::bind((address, port)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
}

/// Serves names at the resolver's address: 192.0.2.7 for every one, and 40 long texts for those
/// that start with `b`.
pub fn start_resolver() {
    let socket = UdpSocket::bind((RESOLVER, 53)).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&answer(&buffer[..count]), from);
        }
    });
    let listener = TcpListener::bind((RESOLVER, 53)).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut length = [0; 2];
            // Somebody may only have looked whether we are there.
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut query).unwrap();
            let answer = answer(&query);
            let length = (answer.len() as u16).to_be_bytes();
            stream.write_all(&[&length, &answer[..]].concat()).unwrap();
        }
    });
}

fn answer(query: &[u8]) -> Vec<u8> {
    let long = query[13] == b'b';
    let record: Vec<u8> = match long {
        true => [
            &b"\xc0\x0c\0\x10\0\x01\0\0\0\x05\0\xfb\xfa"[..],
            &[b'x'; 250],
        ]
        .concat(),
        false => b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\xc0\0\x02\x07".to_vec(),
    };
    let count = if long { 40 } else { 1 };
    let mut answer = query.to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[7] = count;
    for _ in 0..count {
        answer.extend_from_slice(&record);
    }
    answer
}

/// A query for a name of one label.
pub fn query(label: &str) -> Vec<u8> {
    let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    query.push(label.len() as u8);
    query.extend_from_slice(label.as_bytes());
    query.extend_from_slice(b"\0\0\x01\0\x01");
    query
}

/// Asks the server at an address who we are.
pub fn ask_who(to: SocketAddr) -> String {
    let mut answer = String::new();
    let mut stream = TcpStream::connect(to).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
