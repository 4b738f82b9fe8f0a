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
