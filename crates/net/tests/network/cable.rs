//! A bad cable between a container's device and the process that serves it.
//!
//! The process is given another device, in a namespace where nothing else is; between the two,
//! frames are carried by hand, with their virtio-net headers, so that offloads are as ever.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sched::CloneFlags;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use rcon_sys::netlink::{Batch, Link};
use rcon_sys::process::{self, Fork};
use rcon_sys::{sockopt, tun};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::lab::{self, Child};

/// Room for any frame with its headers.
const FRAME_LEN: usize = 10 + 14 + 40 + 65535;
/// How many frames are taken from one side before the other has its turn.
const BATCH: usize = 16;

/// Puts a cable to the container's device: each of its faults strikes one frame of so many, in
/// either direction. Gives its other end, and the process that it is made of.
pub fn bad_cable(container: &OwnedFd, faults: u64) -> (OwnedFd, Child) {
    let (ours, theirs) = rcon_sys::fdpass::pair().unwrap();
    match process::clone(CloneFlags::CLONE_NEWNET).unwrap() {
        Fork::Child => {
            drop(ours);
            lab::work(|| {
                let tap = tun::create("tap0", false).unwrap();
                rcon_sys::fdpass::send_fds(&theirs, b"tap", &[tap.as_fd()]).unwrap();
                drop((tap, theirs));
                tun::set_offload(container).unwrap();
                carry(container, &frames_of_the_device(), faults);
            })
        }
        Fork::Parent { pidfd, .. } => {
            drop(theirs);
            let (_, mut taps) = rcon_sys::fdpass::recv_fds(&ours, &mut [0; 8]).unwrap();
            let tap = taps.pop().expect("the cable has no other end");
            (tap, Child::of(pidfd))
        }
    }
}

/// A socket for all frames of the device of this namespace.
fn frames_of_the_device() -> OwnedFd {
    let mut batch = Batch::new();
    batch.link_up(Link {
        index: 2,
        mtu: Some(65520),
        tx_queue_len: Some(1000),
        no_multicast: true,
        no_link_local: true,
        ..Link::default()
    });
    batch.send().unwrap();
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let all = SockProtocol::EthAll;
    let socket = socket::socket(AddressFamily::Packet, SockType::Raw, flags, all).unwrap();
    let card = nix::ifaddrs::getifaddrs()
        .unwrap()
        .filter(|interface| interface.interface_name == "tap0")
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .unwrap();
    socket::bind(socket.as_raw_fd(), &card).unwrap();
    sockopt::set_packet_vnet_hdr(&socket).unwrap();
    let room = rustix::net::sockopt::set_socket_recv_buffer_size;
    room(&socket, 8 << 20).unwrap();
    socket
}

/// Carries frames until one of the devices has gone.
fn carry(container: &OwnedFd, network: &OwnedFd, faults: u64) {
    let seed = crate::asked_for("RCON_TEST_SEED").unwrap_or(0);
    let (mut out, mut back) = (
        Direction::new(5 + 8 * seed, faults),
        Direction::new(7 + 8 * seed, faults),
    );
    let write = |fd: &OwnedFd, frame: &[u8]| {
        // Without room it is lost: one more fault.
        let _ = rustix::io::write(fd, frame);
    };
    let send = |fd: &OwnedFd, frame: &[u8]| {
        let _ = socket::send(fd.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT);
    };
    loop {
        let mut fds = [container, network].map(|fd| PollFd::new(fd, PollFlags::IN));
        poll(&mut fds, None).unwrap();
        let goes_on = out.run(container, |frame| send(network, frame))
            && back.run(network, |frame| write(container, frame));
        if !goes_on {
            return;
        }
    }
}

/// One direction.
struct Direction {
    random: u64,
    faults: u64,
    held: Option<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Direction {
    fn new(seed: u64, faults: u64) -> Direction {
        Direction {
            random: seed,
            faults,
            held: None,
            buffer: vec![0; FRAME_LEN],
        }
    }

    fn strikes(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.is_multiple_of(self.faults)
    }

    /// Passes on some of what there is to read; false when that was the end.
    fn run(&mut self, from: &OwnedFd, mut to: impl FnMut(&[u8])) -> bool {
        for _ in 0..BATCH {
            let length = match rustix::io::read(from, &mut self.buffer) {
                Ok(length) => length,
                Err(Errno::AGAIN) => return true,
                // One of the devices has gone.
                Err(_) => return false,
            };
            // Lost; kept until the next has passed; doubled.
            if self.strikes() {
                continue;
            }
            if self.strikes() && self.held.is_none() {
                self.held = Some(self.buffer[..length].to_vec());
                continue;
            }
            to(&self.buffer[..length]);
            if self.strikes() {
                to(&self.buffer[..length]);
            }
            if let Some(held) = self.held.take() {
                to(&held);
            }
        }
        true
    }
}
