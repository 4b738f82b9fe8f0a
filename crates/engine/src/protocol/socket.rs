//! The sockets at which commands and a monitor meet, and what a command asks there once.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::{MAX_MESSAGE, Reply, Report, Request};
use crate::error::{Context, Error, Result};
use crate::health::HealthStatus;

/// Sends one message; false when the socket is full for now.
pub(crate) fn try_send(socket: &OwnedFd, message: &[u8]) -> io::Result<bool> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match rustix::io::retry_on_intr(|| rustix::net::send(socket, message, flags)) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Receives one message; `Some(0)` is the end, `None` means that there is none for now.
pub(crate) fn try_receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, length)) => return Ok(Some(length.min(buffer.len()))),
            Err(Errno::AGAIN) => return Ok(None),
            // The other side went without reading all of ours; said once, and what it sent before is still there.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The name of the monitor's socket.
pub(crate) const CONTROL: &str = "ctl";
/// The name of the socket at which a container's network is looked at (see [`rcon_net::control`]).
pub(crate) const NET: &str = "net";

/// Listens at `dir/ctl`.
pub(crate) fn listen(dir: &Path) -> io::Result<OwnedFd> {
    listen_at(dir, CONTROL, SocketType::SEQPACKET, 128)
}

/// Listens at `dir/name` for streams.
pub(crate) fn listen_stream(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    listen_at(dir, name, SocketType::STREAM, 16)
}

/// Connects to the monitor listening at `dir/ctl`.
pub(crate) fn connect(dir: &Path) -> io::Result<OwnedFd> {
    connect_at(dir, CONTROL, SocketType::SEQPACKET, SocketFlags::CLOEXEC)
}

/// As [`connect`], but where so many wait to be heard that we would have to wait to become one of them it fails
/// ([`io::ErrorKind::WouldBlock`]).
pub(crate) fn connect_now(dir: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    connect_at(dir, CONTROL, SocketType::SEQPACKET, flags)
}

/// Connects to the stream socket at `dir/name`.
pub(crate) fn connect_stream(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    connect_at(dir, name, SocketType::STREAM, SocketFlags::CLOEXEC)
}

fn listen_at(dir: &Path, name: &str, kind: SocketType, waiting: i32) -> io::Result<OwnedFd> {
    let handle = File::open(dir)?;
    let socket = socket(kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::bind(&socket, &address(&handle, name)?)?;
    rustix::net::listen(&socket, waiting)?;
    Ok(socket)
}

fn connect_at(dir: &Path, name: &str, kind: SocketType, flags: SocketFlags) -> io::Result<OwnedFd> {
    let handle = File::open(dir)?;
    let socket = socket(kind, flags)?;
    let address = address(&handle, name)?;
    rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address))?;
    Ok(socket)
}

fn socket(kind: SocketType, flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
}

/// The path goes by the directory's descriptor, because a socket's may have 107 bytes only.
fn address(dir: &File, name: &str) -> rustix::io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// Waits until the monitor has heard that the command at the other end of `socket` wants to be attached. Should it say
/// something else first, that; [`io::ErrorKind::UnexpectedEof`] when it goes without a word. It is not waited for without
/// end: a monitor of an earlier version says nothing, and one that a machine is too busy for says it later.
pub(crate) fn await_attached(socket: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&limit)))? == 0 {
        return Ok(None);
    }
    let mut buffer = vec![0; MAX_MESSAGE];
    let length = match try_receive(socket, &mut buffer)? {
        Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Some(length) => length,
        None => return Ok(None),
    };
    buffer.truncate(length);
    Ok(match Reply::decode(&buffer) {
        Some(Reply::Attached) => None,
        _ => Some(buffer),
    })
}

/// How long a monitor may take to start a program that waits for it.
const TO_BEGIN: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// Has the monitor listening at `dir/ctl` start the program that waits for that, and waits for what comes of it. Nothing
/// when the monitor goes without a word, or says none: it may be at the end of the container already, and wait for the
/// lock that we hold.
pub(crate) fn ask_to_begin(dir: &Path) -> io::Result<Option<Report>> {
    let socket = connect(dir)?;
    let mut message = Vec::new();
    Request::Begin.encode(&mut message);
    try_send(&socket, &message)?;
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let mut fds = [PollFd::new(&socket, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&TO_BEGIN)))? == 0 {
            return Ok(None);
        }
        let (_, length) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())
        })?;
        match Reply::decode(&buffer[..length]) {
            Some(Reply::Begun(text)) => return Ok(serde_json::from_slice(text).ok()),
            Some(Reply::Exited(_)) | None => return Ok(None),
            Some(_) => {}
        }
    }
}

/// Tells the monitor listening at `dir/ctl` something that has no answer. One that is not there finds it in the record.
pub(crate) fn tell(dir: &Path, what: &Request<'_>) {
    let mut message = Vec::new();
    what.encode(&mut message);
    if let Ok(socket) = connect(dir) {
        let _ = try_send(&socket, &message);
    }
}

/// Asks the monitor listening at `dir/ctl` for a health check, and waits for what comes of it.
pub(crate) fn ask_health(dir: &Path) -> Result<HealthStatus> {
    let why = || "cannot reach the monitor of the container (it may have been killed)".to_string();
    let socket = connect(dir).context(why)?;
    let mut message = Vec::new();
    Request::Health.encode(&mut message);
    try_send(&socket, &message).context(why)?;
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())
        });
        let (_, length) = received.context(why)?;
        match Reply::decode(&buffer[..length]) {
            Some(Reply::Health(status)) => return Ok(status),
            Some(Reply::Exited(_)) | None => {
                return Err(Error::StateImproper(
                    "the container ended while its health was checked".into(),
                ));
            }
            Some(_) => {}
        }
    }
}
