//! Tap devices (Documentation/networking/tuntap.rst, linux/if_tun.h).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// The length of the virtio-net header before each frame of a tap with [`has_vnet_hdr`], in bytes
/// (linux/virtio_net.h: struct virtio_net_hdr; the form without num_buffers).
pub const VNET_HDR_LEN: usize = 10;

/// The longest interface name, its terminating zero included (linux/if.h).
const IFNAMSIZ: usize = 16;

/// `struct ifreq` as the tun ioctls use it: a name, and flags or a hardware address.
#[repr(C)]
struct Request {
    name: [u8; IFNAMSIZ],
    data: [u8; 24],
}

impl Request {
    fn empty() -> Request {
        Request {
            name: [0; IFNAMSIZ],
            data: [0; 24],
        }
    }

    /// The first two bytes of the union: `ifr_flags`.
    fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.data[0], self.data[1]])
    }
}

/// The raw ioctls, which nix's macros make public functions of.
mod ioctl {
    use super::Request;

    nix::ioctl_write_ptr_bad!(
        /// Attaches the descriptor to a device, making it if it does not exist.
        tunsetiff,
        libc::TUNSETIFF,
        Request
    );
    nix::ioctl_read_bad!(
        /// The name and flags of the attached device.
        tungetiff,
        libc::TUNGETIFF,
        Request
    );
    nix::ioctl_write_int_bad!(
        /// What frames may come unfinished.
        tunsetoffload,
        libc::TUNSETOFFLOAD
    );
    nix::ioctl_write_int_bad!(
        /// Whether the device outlives its last descriptor.
        tunsetpersist,
        libc::TUNSETPERSIST
    );
    nix::ioctl_read_bad!(
        /// The hardware address of the attached device.
        siocgifhwaddr,
        libc::SIOCGIFHWADDR,
        Request
    );
}

/// What the kernel and we agreed to leave undone on a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Frames are whole: checksums present, nothing longer than the MTU.
    None,
    /// Checksums may be left open and TCP may be in super-frames of up to 64 KiB.
    Tcp,
    /// The same for UDP too (UDP segmentation, kernel 6.2 and later).
    TcpAndUdp,
}

/// Makes a non-blocking tap device in the calling thread's network namespace, or takes one over that
/// is there and that nobody has open. A lasting one outlives its last descriptor.
///
/// Frames carry a virtio-net header where the kernel can do it, none else: the two are told apart
/// later by [`has_vnet_hdr`]. Needs CAP_NET_ADMIN over the network namespace. The hardware
/// address is random and locally administered: the kernel chooses it so.
///
/// # Errors
/// What opening /dev/net/tun (ENOENT, EACCES, ENODEV) or TUNSETIFF (EPERM, EBUSY) says.
pub fn create(name: &str, lasting: bool) -> io::Result<OwnedFd> {
    let tap = open()?;
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI) as u16;
    match attach(&tap, name, flags | libc::IFF_VNET_HDR as u16) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => attach(&tap, name, flags)?,
        result => result?,
    }
    if lasting {
        // SAFETY: the argument of TUNSETPERSIST is a number, and the descriptor is open.
        unsafe { ioctl::tunsetpersist(tap.as_raw_fd(), 1) }?;
    }
    Ok(tap.into())
}

fn open() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
}

fn attach(tap: &File, name: &str, flags: u16) -> io::Result<()> {
    let mut request = Request::empty();
    if name.len() >= IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    request.data[..2].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: `Request` has the layout and size of struct ifreq, and lives through the call.
    unsafe { ioctl::tunsetiff(tap.as_raw_fd(), &request) }?;
    Ok(())
}

/// Whether each frame of the tap has a virtio-net header before it.
///
/// # Errors
/// What TUNGETIFF says; EBADFD when the descriptor is not attached to a device.
pub fn has_vnet_hdr(tap: impl AsFd) -> io::Result<bool> {
    let mut request = Request::empty();
    // SAFETY: `Request` has the layout and size of struct ifreq, and lives through the call.
    unsafe { ioctl::tungetiff(tap.as_fd().as_raw_fd(), &mut request) }?;
    Ok(request.flags() & libc::IFF_VNET_HDR as u16 != 0)
}

/// Tells the kernel what it may leave undone on a tap with virtio-net headers: as much as it knows.
///
/// # Errors
/// What TUNGETIFF says. A kernel without offloads is no error.
pub fn set_offload(tap: impl AsFd) -> io::Result<Offload> {
    let tap = tap.as_fd();
    if !has_vnet_hdr(tap)? {
        return Ok(Offload::None);
    }
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    for (features, offload) in [(tcp | udp, Offload::TcpAndUdp), (tcp, Offload::Tcp)] {
        // SAFETY: the argument of TUNSETOFFLOAD is a number, and the descriptor is open.
        if unsafe { ioctl::tunsetoffload(tap.as_raw_fd(), features as libc::c_int) }.is_ok() {
            return Ok(offload);
        }
    }
    Ok(Offload::None)
}

/// The hardware address of the tap's end in the container, wherever that end is.
///
/// # Errors
/// What SIOCGIFHWADDR on a tun descriptor says.
pub fn hardware_address(tap: impl AsFd) -> io::Result<[u8; 6]> {
    let mut request = Request::empty();
    // SAFETY: `Request` has the layout and size of struct ifreq, and lives through the call.
    unsafe { ioctl::siocgifhwaddr(tap.as_fd().as_raw_fd(), &mut request) }?;
    let mut address = [0; 6];
    // struct sockaddr: the family in two bytes, then the address.
    address.copy_from_slice(&request.data[2..8]);
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_as_large_as_the_kernels() {
        assert_eq!(
            std::mem::size_of::<Request>(),
            std::mem::size_of::<libc::ifreq>()
        );
    }
}
