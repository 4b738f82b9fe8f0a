//! Datagrams on published sockets: who sent them, to which of our addresses, and the way back.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
};

use crate::stack::udp::{MOST_TOGETHER, cannot_be_cut};

/// The host's address that a datagram came to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Local {
    V4(libc::in_addr),
    V6(libc::in6_pktinfo),
    Unknown,
}

/// Receives a datagram: its length, who sent it, and which of our addresses it came to. `None`
/// when there was an error about another one instead.
pub(super) fn receive(
    socket: &OwnedFd,
    room: &mut [u8],
) -> Result<Option<(usize, SocketAddr, Local)>, Errno> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(room)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::empty(),
    );
    let message = match received {
        Ok(message) => message,
        Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut local = Local::Unknown;
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::Ipv4PacketInfo(info) => local = Local::V4(info.ipi_spec_dst),
            ControlMessageOwned::Ipv6PacketInfo(info) => local = Local::V6(info),
            _ => {}
        }
    }
    let Some(sender) = message.address.as_ref().and_then(address) else {
        return Ok(None);
    };
    Ok(Some((message.bytes, sender, local)))
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    storage
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::V6((*v6).into()))
}

/// Who is written to: whom the socket is connected with, or somebody else, from an address of ours.
#[derive(Clone, Copy, Debug)]
pub(super) enum To {
    Peer,
    Client(SocketAddr, Local),
}

/// Sends datagrams, each of `size` bytes but the last: together while `cuts` says that the kernel cuts them apart,
/// which it may turn out not to. One that cannot be sent is lost, as datagrams are.
pub(super) fn send_all(socket: &OwnedFd, payload: &[u8], size: usize, to: To, cuts: &mut bool) {
    let size = size.max(1);
    for some in payload.chunks(size.saturating_mul(MOST_TOGETHER)) {
        if *cuts && some.len() > size {
            match send(socket, some, to, u16::try_from(size).ok()) {
                Err(error) if cannot_be_cut(&error.into()) => *cuts = false,
                _ => continue,
            }
        }
        for payload in some.chunks(size) {
            let _ = send(socket, payload, to, None);
        }
    }
    if payload.is_empty() {
        let _ = send(socket, payload, to, None);
    }
}

/// Sends a datagram, or several, which the kernel cuts by a length (`UDP_SEGMENT`, udp(7)).
fn send(socket: &OwnedFd, payload: &[u8], to: To, cut: Option<u16>) -> Result<usize, Errno> {
    let (address, local) = match to {
        To::Peer => (None, Local::Unknown),
        To::Client(address, local) => (Some(SockaddrStorage::from(address)), local),
    };
    let v4;
    let from = match &local {
        Local::V4(address) => {
            v4 = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: *address,
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            Some(ControlMessage::Ipv4PacketInfo(&v4))
        }
        Local::V6(info) => Some(ControlMessage::Ipv6PacketInfo(info)),
        Local::Unknown => None,
    };
    let cut = cut.as_ref().map(ControlMessage::UdpGsoSegments);
    let control: Vec<ControlMessage<'_>> = from.into_iter().chain(cut).collect();
    let slices = [IoSlice::new(payload)];
    let send = || {
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg(
            socket.as_raw_fd(),
            &slices,
            &control,
            flags,
            address.as_ref(),
        )
    };
    match send() {
        // What an earlier datagram met is told first; this one may be fine.
        Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => send(),
        result => result,
    }
}
