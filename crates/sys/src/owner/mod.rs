//! The true owners of files that could not be given to them.
//!
//! Where containers have a single id every file belongs to it. Who a file belongs to as the
//! container sees it is kept in the extended attribute [`TRUE_OWNER`], the protocol buffer message
//! of <https://rootlesscontaine.rs>: `Resource { uint32 uid = 1; uint32 gid = 2; }`. We add what a
//! file stands for that is a device to the container: `uint32 type = 3; uint64 rdev = 4;`, which
//! other readers pass over.
//!
//! Links, fifos and sockets take no such attributes, and some file systems have none at all. Their
//! owners are in a file beside the tree ([`SideFile`]).

mod side;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

pub use side::{FileKey, Marks, SideFile};

/// The extended attribute's name.
pub const TRUE_OWNER: &str = "user.rootlesscontainers";

/// Who a file belongs to, and what it is, as its container sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrueOwner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The device that an ordinary file stands for.
    pub device: Option<Device>,
}

/// A device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// A block device, not a character device.
    pub block: bool,
    /// Its number, as the kernel's `dev_t` of user space has it.
    pub number: u64,
}

impl Device {
    /// The type bits of its mode.
    pub fn type_bits(self) -> u32 {
        match self.block {
            true => libc::S_IFBLK,
            false => libc::S_IFCHR,
        }
    }

    fn from_type(bits: u64, number: u64) -> Option<Self> {
        match u32::try_from(bits).ok()? {
            libc::S_IFBLK => Some(true),
            libc::S_IFCHR => Some(false),
            _ => None,
        }
        .map(|block| Self { block, number })
    }
}

impl TrueOwner {
    /// An owner of what is no device.
    pub fn new(uid: u32, gid: u32) -> Self {
        Self {
            uid,
            gid,
            device: None,
        }
    }

    /// Whether this is what a file without any note is: root's.
    pub fn is_root(&self) -> bool {
        *self == Self::default()
    }

    /// The message; fields that are 0 are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Vec::new();
        let kind = self
            .device
            .map_or(0, |device| u64::from(device.type_bits()));
        let number = self.device.map_or(0, |device| device.number);
        let fields = [u64::from(self.uid), u64::from(self.gid), kind, number];
        for (field, mut rest) in (1..).zip(fields) {
            if rest == 0 {
                continue;
            }
            message.push(field << 3);
            while rest >= 0x80 {
                message.push((rest & 0x7f) as u8 | 0x80);
                rest >>= 7;
            }
            message.push(rest as u8);
        }
        message
    }

    /// What a message says; `None` when it is none. Fields of others are passed over.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let mut rest = message;
        let mut fields = [0_u64; 4];
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            match (key >> 3, key & 7) {
                (field @ 1..=4, 0) => {
                    let at = usize::try_from(field - 1).ok()?;
                    fields[at] = varint(&mut rest)?;
                }
                (_, 0) => drop(varint(&mut rest)?),
                (_, 1) => rest = rest.get(8..)?,
                (_, 2) => {
                    let len = usize::try_from(varint(&mut rest)?).ok()?;
                    rest = rest.get(len..)?;
                }
                (_, 5) => rest = rest.get(4..)?,
                _ => return None,
            }
        }
        Some(Self {
            uid: u32::try_from(fields[0]).ok()?,
            gid: u32::try_from(fields[1]).ok()?,
            device: Device::from_type(fields[2], fields[3]),
        })
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (digit, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(digit & 0x7f) << shift;
        if digit & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// What the attribute of `name` in the directory `at` says (a link is not followed).
///
/// # Errors
/// As getxattr(2), but for there being none, or no such attributes.
pub fn noted(at: impl AsFd, name: &std::ffi::OsStr) -> io::Result<Option<TrueOwner>> {
    let folder = format!("/proc/self/fd/{}", at.as_fd().as_raw_fd());
    let mut value = [0; LONGEST];
    let read = rustix::fs::lgetxattr(Path::new(&folder).join(name), TRUE_OWNER, &mut value);
    owner_in(&value, read)
}

/// What the attribute of an open file or directory says.
///
/// # Errors
/// As fgetxattr(2), but for there being none, or no such attributes.
pub fn noted_on(file: impl AsFd) -> io::Result<Option<TrueOwner>> {
    let mut value = [0; LONGEST];
    let read = rustix::fs::fgetxattr(file, TRUE_OWNER, &mut value);
    owner_in(&value, read)
}

/// More bytes than any of our messages has.
const LONGEST: usize = 64;

/// What was read of an attribute; nothing where there is none, or none that we could have written.
fn owner_in(value: &[u8], read: rustix::io::Result<usize>) -> io::Result<Option<TrueOwner>> {
    match read {
        Ok(len) => Ok(TrueOwner::decode(value.get(..len).unwrap_or_default())),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::RANGE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Note the owner of an open file or directory in its attribute; root's is what has none.
///
/// Fails with `ENOTSUP` where the file system keeps no such attributes.
pub fn note_on(file: impl AsFd, owner: TrueOwner) -> rustix::io::Result<()> {
    let done = match owner.is_root() {
        true => rustix::fs::fremovexattr(file, TRUE_OWNER),
        false => rustix::fs::fsetxattr(file, TRUE_OWNER, &owner.encode(), XattrFlags::empty()),
    };
    match done {
        Err(Errno::NODATA) => Ok(()),
        done => done,
    }
}

/// As [`note_on`], of a file that belongs to nobody else yet: fails with `EEXIST` where an owner is noted already.
pub fn note_first_on(file: impl AsFd, owner: TrueOwner) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(file, TRUE_OWNER, &owner.encode(), XattrFlags::CREATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_rootlesscontainers() {
        assert!(TrueOwner::default().encode().is_empty());
        assert_eq!(TrueOwner::new(1, 0).encode(), [0x08, 1]);
        assert_eq!(
            TrueOwner::new(33, 300).encode(),
            [0x08, 33, 0x10, 0xac, 0x02]
        );
        assert_eq!(
            TrueOwner::new(u32::MAX, 0).encode(),
            [0x08, 0xff, 0xff, 0xff, 0xff, 0x0f]
        );
    }

    #[test]
    fn messages_come_back_and_others_do_not() {
        for device in [
            None,
            Some(Device {
                block: false,
                number: 0x103,
            }),
            Some(Device {
                block: true,
                number: 1 << 40,
            }),
        ] {
            let owner = TrueOwner {
                uid: 100_000,
                gid: 7,
                device,
            };
            assert_eq!(TrueOwner::decode(&owner.encode()), Some(owner));
        }
        // A text, a fixed number and a field of somebody else's.
        let foreign = [0x2a, 2, b'h', b'i', 0x35, 1, 2, 3, 4, 0x38, 5, 0x08, 9];
        assert_eq!(TrueOwner::decode(&foreign), Some(TrueOwner::new(9, 0)));
        for bad in [
            &[0x08][..],
            &[0x08, 0x80],
            &[0x2a, 9, 1],
            &[0x0b],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0xff; 11],
        ] {
            assert_eq!(TrueOwner::decode(bad), None, "{bad:?}");
        }
    }
}
