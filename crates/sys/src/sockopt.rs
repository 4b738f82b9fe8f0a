//! Socket options that nix and rustix lack.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Lets an IPv6 socket bind to addresses that are not this host's (IPV6_TRANSPARENT, ipv6(7)).
///
/// # Errors
/// EPERM without CAP_NET_RAW or CAP_NET_ADMIN over the socket's network namespace.
pub fn set_ipv6_transparent(socket: impl AsFd) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1)
}

/// Makes closing a TCP socket reset the connection at once (SO_LINGER of zero seconds, socket(7)).
///
/// # Errors
/// What setsockopt(2) says of a descriptor that is no socket.
pub fn set_reset_on_close(socket: impl AsFd) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO))?;
    Ok(())
}

/// Takes [`set_reset_on_close`] back: what was sent is delivered when the socket is closed.
///
/// # Errors
/// What setsockopt(2) says of a descriptor that is no socket.
pub fn set_deliver_on_close(socket: impl AsFd) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(socket, None)?;
    Ok(())
}

/// Has each frame of a packet socket come and go with a virtio-net header before it, as on a tap with
/// [`crate::tun::has_vnet_hdr`] (PACKET_VNET_HDR, packet(7)).
///
/// # Errors
/// What setsockopt(2) says of a descriptor that is no packet socket of raw frames.
pub fn set_packet_vnet_hdr(socket: impl AsFd) -> io::Result<()> {
    /// linux/if_packet.h
    const PACKET_VNET_HDR: libc::c_int = 15;
    set_int(socket, libc::SOL_PACKET, PACKET_VNET_HDR, 1)
}

/// What a TCP socket has moved so far (struct tcp_info in linux/tcp.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpUse {
    /// Bytes that were sent to the other end.
    pub sent: u64,
    /// Bytes that came from the other end.
    pub received: u64,
    /// Milliseconds since there was something in either direction.
    pub idle_ms: u32,
}

/// What a connected TCP socket has moved so far, as the kernel counts it.
///
/// # Errors
/// What getsockopt(2) says of a descriptor that is no TCP socket; a kernel before 4.19, which does
/// not count what was sent, gives what was confirmed.
pub fn tcp_use(socket: impl AsFd) -> io::Result<TcpUse> {
    /// Where the fields are: eight single bytes, then words, then counters of eight bytes.
    const LAST_DATA_SENT: usize = 44;
    const LAST_DATA_RECEIVED: usize = 52;
    const BYTES_ACKED: usize = 120;
    const BYTES_RECEIVED: usize = 128;
    const BYTES_SENT: usize = 200;
    const BYTES_SENT_AGAIN: usize = 208;
    let mut info = [0_u8; 216];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `info`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
    let counter = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&info[at..at + 8]);
        u64::from_ne_bytes(bytes)
    };
    Ok(TcpUse {
        sent: match length as usize >= info.len() {
            true => counter(BYTES_SENT).saturating_sub(counter(BYTES_SENT_AGAIN)),
            false => counter(BYTES_ACKED),
        },
        received: counter(BYTES_RECEIVED),
        idle_ms: word(LAST_DATA_SENT).min(word(LAST_DATA_RECEIVED)),
    })
}

fn set_int(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the value is a c_int that lives through the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_a_connection_moved_is_counted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(&[7; 1000]).unwrap();
        far.read_exact(&mut [0; 1000]).unwrap();
        far.write_all(&[7; 300]).unwrap();
        near.read_exact(&mut [0; 300]).unwrap();
        let used = tcp_use(&near).unwrap();
        assert_eq!((used.sent, used.received), (1000, 300));
        assert!(tcp_use(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
