//! Sockets in other network namespaces.
//!
//! A socket stays in the namespace it was made in, so a thread goes there, makes it, and hands it out.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

/// Runs `work` in the network namespace of process `pid`, or right here.
pub fn inside<T: Send>(pid: Option<u32>, work: impl FnOnce() -> T + Send) -> T {
    let Some(pid) = pid else { return work() };
    let thread = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let namespace =
                    File::open(format!("/proc/{pid}/ns/net")).expect("a network namespace");
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("entering a network namespace");
                work()
            })
            .join()
    });
    thread.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Opens a connection from the namespace of process `pid`, or from here.
pub fn connect(pid: Option<u32>, to: impl ToSocketAddrs) -> std::io::Result<TcpStream> {
    let to: SocketAddr = to.to_socket_addrs()?.next().expect("an address");
    let stream = inside(pid, || {
        TcpStream::connect_timeout(&to, Duration::from_secs(5))
    })?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// Fetches `http://TO/` from the namespace of process `pid`, or from here; the body of a 200.
pub fn fetch(pid: Option<u32>, to: &str) -> std::io::Result<String> {
    let mut stream = connect(pid, to)?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {to}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(format!("not a 200: {answer:?}"))),
    }
}

/// The first connection to a listener, which must come before long.
#[track_caller]
pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    super::eventually("a connection", 60, || listener.accept().ok()).0
}

/// The same of a socket in a file; what comes by it must come before long, too.
#[track_caller]
pub fn accept_local(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let (stream, _) = super::eventually("a connection", 60, || listener.accept().ok());
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
}

/// A TCP port of this machine that nobody listens on now and that no other call has given out. It is none of those that the
/// kernel gives to clients (`net.ipv4.ip_local_port_range` begins at 32768): one of them could have it at any moment.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 17_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Several suites may run at once, and look at the same ports.
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + ((u32::from(start) + u32::from(next)) % u32::from(COUNT)) as u16;
        if std::net::TcpListener::bind(("0.0.0.0", port)).is_ok()
            && std::net::UdpSocket::bind(("0.0.0.0", port)).is_ok()
        {
            return port;
        }
    }
    panic!("there is no free port");
}
