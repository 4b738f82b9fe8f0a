//! Messages with open files over a Unix socket (`SCM_RIGHTS`, unix(7)).
//!
//! Both ends should be sequenced-packet sockets ([`pair`]), so that one send is one receive.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};

/// The most files one message carries here.
pub const MAX_FDS: usize = 32;

/// Two connected sequenced-packet sockets, both close-on-exec.
///
/// # Errors
/// As socketpair(2): without descriptors, or memory.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Send `data` with `fds` as one message.
///
/// Fails with `EINVAL` for more than [`MAX_FDS`] files, and with `EPIPE` (never a signal) when
/// the other end is closed. An empty `data` cannot be told from the end of the stream.
pub fn send_fds(socket: impl AsFd, data: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    if fds.len() > MAX_FDS {
        return Err(Errno::INVAL);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    let sent = retry_on_intr(|| {
        sendmsg(
            &socket,
            &[IoSlice::new(data)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    })?;
    if sent == data.len() {
        Ok(())
    } else {
        Err(Errno::MSGSIZE)
    }
}

/// Receive one message into `data`; its length and the files that came with it, close-on-exec.
///
/// Length 0 is the end of the stream. Files beyond [`MAX_FDS`] are closed by the kernel.
///
/// # Errors
/// As recvmsg(2).
pub fn recv_fds(socket: impl AsFd, data: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        recvmsg(
            &socket,
            &mut [IoSliceMut::new(data)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((received.bytes, fds))
}

/// Receive one message of at most `most` bytes, what is longer cut off; an empty one is the end of the stream. Takes no more
/// memory than the message has.
///
/// For a socket that nobody else reads from at the same time.
///
/// # Errors
/// As recvmsg(2).
pub fn recv_message(socket: impl AsFd, most: usize) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let look = RecvFlags::PEEK | RecvFlags::TRUNC;
    let (_, length) = retry_on_intr(|| recv(&socket, &mut [0_u8; 0][..], look))?;
    let mut data = vec![0; length.min(most)];
    let (received, fds) = recv_fds(socket, &mut data)?;
    data.truncate(received);
    Ok((data, fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length() {
        let (left, right) = pair().unwrap();
        send_fds(&left, b"hello", &[left.as_fd()]).unwrap();
        send_fds(&left, b"hello", &[]).unwrap();
        let (data, fds) = recv_message(&right, 100).unwrap();
        assert_eq!((&data[..], fds.len()), (&b"hello"[..], 1));
        assert_eq!(recv_message(&right, 3).unwrap().0, b"hel");
        drop((left, fds));
        assert!(recv_message(&right, 100).unwrap().0.is_empty());
    }

    #[test]
    fn files_cross() {
        let (left, right) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send_fds(&left, b"hello", &[writer.as_fd(), left.as_fd()]).unwrap();
        drop(writer);
        let mut data = [0; 16];
        let (len, fds) = recv_fds(&right, &mut data).unwrap();
        assert_eq!((&data[..len], fds.len()), (&b"hello"[..], 2));
        rustix::io::write(&fds[0], b"x").unwrap();
        drop(fds);
        let mut byte = [0; 2];
        assert_eq!(rustix::io::read(&reader, &mut byte).unwrap(), 1);
        assert_eq!(rustix::io::read(&reader, &mut byte).unwrap(), 0);
    }

    #[test]
    fn the_end_is_length_zero_and_sending_to_it_an_error() {
        let (left, right) = pair().unwrap();
        drop(right);
        assert_eq!(send_fds(&left, b"x", &[]), Err(Errno::PIPE));
        assert_eq!(recv_fds(&left, &mut [0; 4]).unwrap().0, 0);
    }
}
