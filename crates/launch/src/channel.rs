//! The conversation between a caller and the new process, over a pair of sockets.
//!
//! Caller: "go", when the ids are mapped, and the network namespace, where that was begun ahead. New
//! process: "ready", with the files it made for the caller. Caller: "go", to start. The new process
//! executes its program, which closes its socket; so the end of the conversation is success. At every
//! point it may send an error instead, and is gone. With a door the caller's last "go" leaves it there,
//! and who comes to the door is the one that says "go" to start.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rcon_sys::{fdpass, process, stub};
use rustix::process::Pid;

use crate::error::{Error, Result};

const GO: u8 = b'g';
const READY: u8 = b'r';
const ERROR: u8 = b'e';
const HANDED_OVER: u8 = b'h';
const DEVICE: u8 = b'd';
const ORDER: u8 = b'o';
const NETNS: u8 = b'n';

/// The longest message: an error with two texts at their longest.
const MOST: usize = 40 * 1024;

/// Let the other end go on, with a number that it may need.
pub(crate) fn send_go(socket: &OwnedFd, number: u32) -> Result<()> {
    let [a, b, c, d] = number.to_le_bytes();
    fdpass::send_fds(socket, &[GO, a, b, c, d], &[]).map_err(|_| gone())
}

/// Wait to be let go on; an error when the caller is gone or has given up.
pub(crate) fn wait_go(socket: &OwnedFd) -> Result<u32> {
    let mut data = [0; 5];
    match (fdpass::recv_fds(socket, &mut data), data) {
        (Ok((5, _)), [GO, a, b, c, d]) => Ok(u32::from_le_bytes([a, b, c, d])),
        _ => Err(gone()),
    }
}

/// Say, from the process that had it born, who the new process is; if nobody hears it, it goes.
pub(crate) fn tell_born(socket: &OwnedFd, pid: Pid, pidfd: OwnedFd) {
    let number = pid.as_raw_nonzero().get().unsigned_abs();
    if send_ready(socket, number, &[pidfd.as_fd()]).is_err() {
        let _ = process::pidfd_send_signal(&pidfd, libc::SIGKILL);
    }
}

/// Hear who the new process is, from the one that had it born.
pub(crate) fn hear_born(socket: &OwnedFd) -> Result<(Pid, OwnedFd)> {
    let (number, mut fds) = wait_ready(socket)?;
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    Ok((pid.ok_or_else(gone)?, fds.pop().ok_or_else(gone)?))
}

/// Say that everything is set up, with `fds` and a number that says what they are.
pub(crate) fn send_ready(socket: &OwnedFd, number: u32, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let [a, b, c, d] = number.to_le_bytes();
    fdpass::send_fds(socket, &[READY, a, b, c, d], fds).map_err(|_| gone())
}

/// Hand over the calls about owners, as far as there is somebody to answer them, and say who the
/// program is to be: user, group, supplementary groups. `files` are what it takes to answer: the
/// listener, and the mount namespace where the caller cannot get that by itself.
pub(crate) fn send_listener(socket: &OwnedFd, files: &[BorrowedFd<'_>], ids: &[u32]) -> Result<()> {
    let mut message = vec![HANDED_OVER];
    // More groups than a message holds nobody can have given.
    let ids = ids.iter().take((MOST - 1) / 4);
    message.extend(ids.flat_map(|id| id.to_le_bytes()));
    fdpass::send_fds(socket, &message, files).map_err(|_| gone())
}

/// Take them: the listener, if there is one, what came with it, and the ids.
pub(crate) fn wait_listener(
    socket: &OwnedFd,
) -> Result<(Option<OwnedFd>, Option<OwnedFd>, Vec<u32>)> {
    let (data, fds) = receive(socket)?;
    let mut fds = fds.into_iter();
    match &data[..] {
        [HANDED_OVER, ids @ ..] => {
            let words = ids.chunks_exact(4);
            let ids = words.map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]));
            Ok((fds.next(), fds.next(), ids.collect()))
        }
        [ERROR, error @ ..] => Err(Error::decode(error)),
        _ => Err(gone()),
    }
}

/// Hand over the device whose file system is to be served.
pub(crate) fn send_device(socket: &OwnedFd, device: OwnedFd) -> Result<()> {
    fdpass::send_fds(socket, &[DEVICE], &[device.as_fd()]).map_err(|_| gone())
}

/// Take it.
pub(crate) fn wait_device(socket: &OwnedFd) -> Result<OwnedFd> {
    let (data, mut fds) = receive(socket)?;
    match &data[..] {
        [DEVICE] => fds.pop().ok_or_else(gone),
        [ERROR, error @ ..] => Err(Error::decode(error)),
        _ => Err(gone()),
    }
}

/// Hand over the network namespace to live in.
pub(crate) fn send_netns(socket: &OwnedFd, netns: &OwnedFd) -> Result<()> {
    fdpass::send_fds(socket, &[NETNS], &[netns.as_fd()]).map_err(|_| gone())
}

/// Take it; an error when the caller is gone or has given up.
pub(crate) fn wait_netns(socket: &OwnedFd) -> Result<OwnedFd> {
    let mut data = [0];
    match (fdpass::recv_fds(socket, &mut data), data) {
        (Ok((1, mut fds)), [NETNS]) => fds.pop().ok_or_else(gone),
        _ => Err(gone()),
    }
}

/// Say what is to be made.
pub(crate) fn send_order(socket: &OwnedFd, what: &[u8]) -> Result<()> {
    if what.len() >= MOST {
        return Err(gone());
    }
    fdpass::send_fds(socket, &[&[ORDER], what].concat(), &[]).map_err(|_| gone())
}

/// Hear what is to be made.
pub(crate) fn wait_order(socket: &OwnedFd) -> Result<Vec<u8>> {
    match receive(socket)? {
        (mut data, _) if data.first() == Some(&ORDER) => {
            data.remove(0);
            Ok(data)
        }
        _ => Err(gone()),
    }
}

/// Say what went wrong.
pub(crate) fn tell(socket: &OwnedFd, error: &Error) {
    let mut message = vec![ERROR];
    message.extend(error.encode());
    // Nobody may be there to hear it.
    let _ = fdpass::send_fds(socket, &message, &[]);
}

/// Say what went wrong, if there is a socket to say it through, and end this process.
pub(crate) fn fail(socket: Option<&OwnedFd>, error: &Error) -> ! {
    if let Some(socket) = socket {
        tell(socket, error);
    }
    process::exit_now(error.exit_code())
}

/// Wait for the other end to be ready: its number and files, or its error.
pub(crate) fn wait_ready(socket: &OwnedFd) -> Result<(u32, Vec<OwnedFd>)> {
    let (data, fds) = receive(socket)?;
    match &data[..] {
        [READY, number @ ..] => {
            let number = <[u8; 4]>::try_from(number).map_err(|_| gone())?;
            Ok((u32::from_le_bytes(number), fds))
        }
        [ERROR, error @ ..] => Err(Error::decode(error)),
        _ => Err(gone()),
    }
}

/// Wait for the program to be executed, or for the reason why it was not.
pub(crate) fn wait_executed(socket: &OwnedFd, program: &str) -> Result<()> {
    let (data, _) = receive(socket)?;
    match &data[..] {
        [] => Ok(()),
        [ERROR, error @ ..] => Err(Error::decode(error)),
        [stub::FAILED, errno @ ..] => Err(Error::NotExecutable {
            program: program.to_owned(),
            errno: <[u8; 4]>::try_from(errno).map_or(libc::EIO, i32::from_le_bytes),
        }),
        _ => Err(gone()),
    }
}

/// The next message, empty at the end, and its files.
fn receive(socket: &OwnedFd) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    fdpass::recv_message(socket, MOST).map_err(|_| gone())
}

fn gone() -> Error {
    Error::Died("the other side is gone".to_owned())
}
