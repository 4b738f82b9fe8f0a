//! Sockets in the container's network namespace, for the thread outside of it.
//!
//! A thread that has joined the namespace makes them on request; whoever is in the same process
//! can use them. Joining and leaving on each occasion is not possible: the way back needs
//! privilege over the host's namespace.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// The stack of the thread, in bytes: it makes system calls and nothing else.
const STACK: usize = 64 * 1024;

/// What makes sockets in the container's namespace.
#[derive(Debug)]
pub(crate) struct InnerSockets {
    requests: SyncSender<SocketAddr>,
    sockets: Receiver<io::Result<OwnedFd>>,
}

impl InnerSockets {
    /// Starts the thread, which calls `join` first: that brings it into the namespace.
    ///
    /// # Errors
    /// What `join` says, or that there can be no thread.
    pub(crate) fn start(
        join: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<InnerSockets> {
        let (requests, receiver) = sync_channel(1);
        let (sender, sockets) = sync_channel(1);
        let (joined, outcome) = sync_channel(1);
        thread::Builder::new()
            .name("inner".into())
            .stack_size(STACK)
            .spawn(move || {
                let result = join();
                let failed = result.is_err();
                let _ = joined.send(result);
                if failed {
                    return;
                }
                // Ends when nobody can ask any more.
                for to in receiver {
                    if sender.send(datagram(to)).is_err() {
                        return;
                    }
                }
            })?;
        outcome.recv().unwrap_or_else(|_| Err(gone()))?;
        Ok(InnerSockets { requests, sockets })
    }

    /// A datagram socket, connected to an address of the container and bound to that same one.
    pub(crate) fn datagram(&self, to: SocketAddr) -> io::Result<OwnedFd> {
        self.requests.send(to).map_err(|_| gone())?;
        self.sockets.recv().unwrap_or_else(|_| Err(gone()))
    }
}

fn datagram(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    // To an address of one's own one speaks from that address.
    rustix::net::connect(&socket, &to)?;
    Ok(socket)
}

fn gone() -> io::Error {
    io::Error::other("the thread in the container's network namespace has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_come_from_the_thread_and_failures_too() {
        let inner = InnerSockets::start(|| Ok(())).unwrap();
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = inner.datagram(server.local_addr().unwrap()).unwrap();
        let socket = std::net::UdpSocket::from(socket);
        assert_eq!(
            socket.peer_addr().unwrap().port(),
            server.local_addr().unwrap().port()
        );
        let refused = || Err(io::ErrorKind::PermissionDenied.into());
        let error = InnerSockets::start(refused).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
