//! The folder `/dev` of a container (config-linux.md, default devices).
//!
//! Root makes device nodes. A user namespace cannot, so there those of the host are bound over empty
//! files. Each is looked at before: only the node that its name promises is taken.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rcon_sys::mount;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, chmodat, chownat, fstat, makedev, mknodat, statat, symlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::error::{Context, Error, Result};
use crate::root::{Kind, Root};

/// Name, major and minor number of the nodes that every container has.
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// Put the nodes and links that every container has into the folder `dev`; links and files that
/// are there stay. Nodes are made where this process may, if `make`, and else bound.
pub(crate) fn populate(dev: impl AsFd, make: bool) -> Result<()> {
    let dev = dev.as_fd();
    for (name, major, minor) in NODES {
        let step = || format!("cannot make /dev/{name}");
        if make && made(dev, name, major, minor).context(step)? {
            continue;
        }
        let node = host_node(&Path::new("/dev").join(name), major, minor)?;
        let file = mknodat(dev, name, FileType::RegularFile, Mode::from(0o666), 0);
        unless_there(file).context(step)?;
        mount::attach_to_entry(node, dev, name).context(step)?;
    }
    for (target, name) in LINKS {
        unless_there(symlinkat(target, dev, name))
            .context(|| format!("cannot make /dev/{name}"))?;
    }
    Ok(())
}

fn unless_there(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Whether the node is there now: made, or found as it is to be.
fn made(dev: BorrowedFd<'_>, name: &str, major: u32, minor: u32) -> rustix::io::Result<bool> {
    let number = makedev(major, minor);
    match mknodat(
        dev,
        name,
        FileType::CharacterDevice,
        Mode::from(0o666),
        number,
    ) {
        Ok(()) => {
            chmodat(dev, name, Mode::from(0o666), AtFlags::empty())?;
            Ok(true)
        }
        Err(Errno::EXIST) => {
            let found = statat(dev, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = FileType::from_raw_mode(found.st_mode);
            Ok(kind == FileType::CharacterDevice && found.st_rdev == number)
        }
        // A user namespace, or a security module.
        Err(Errno::PERM) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Make the further node `device` of a specification below `root`.
///
/// Where no node can be made the host's node of the same path and number is bound.
pub(crate) fn add(root: &Root, device: &LinuxDevice, make: bool) -> Result<()> {
    let path = device.path();
    let step = || format!("cannot make {}", path.display());
    let (Some(name), Some(folder)) = (path.file_name(), path.parent()) else {
        return Err(Error::Invalid(format!(
            "{} is no name of a device",
            path.display()
        )));
    };
    let number = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let (major, minor) = (number(device.major()), number(device.minor()));
    let (kind, numbers) = match device.typ() {
        LinuxDeviceType::B => (FileType::BlockDevice, makedev(major, minor)),
        LinuxDeviceType::C | LinuxDeviceType::U => {
            (FileType::CharacterDevice, makedev(major, minor))
        }
        LinuxDeviceType::P => (FileType::Fifo, 0),
        LinuxDeviceType::A => {
            return Err(Error::Invalid(format!(
                "the device {} has no kind: c, b, u and p are the kinds of nodes",
                path.display()
            )));
        }
    };
    if make || kind == FileType::Fifo {
        let folder = root.find_or_create(folder, Kind::Folder).context(step)?;
        let mode = Mode::from(device.file_mode().unwrap_or(0o666) & 0o7777);
        match mknodat(&folder, name, kind, mode, numbers) {
            Ok(()) => {
                chmodat(&folder, name, mode, AtFlags::empty()).context(step)?;
                let uid = Uid::from_raw(device.uid().unwrap_or(0));
                let gid = Gid::from_raw(device.gid().unwrap_or(0));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                return chownat(&folder, name, Some(uid), Some(gid), flags).context(step);
            }
            Err(Errno::EXIST) => {
                let found = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).context(step)?;
                let same = FileType::from_raw_mode(found.st_mode) == kind
                    && (kind == FileType::Fifo || found.st_rdev == numbers);
                return match same {
                    true => Ok(()),
                    false => Err(Errno::EXIST).context(step),
                };
            }
            Err(Errno::PERM) if kind != FileType::Fifo => {}
            Err(error) => return Err(error).context(step),
        }
    }
    let node = open_node(path)?;
    let stat = fstat(&node).context(|| format!("cannot look at {}", path.display()))?;
    if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_rdev != numbers {
        return Err(other_device(path, major, minor));
    }
    let target = root.find_or_create(path, Kind::File).context(step)?;
    mount::attach(node, target).context(step)
}

fn open_node(path: &Path) -> Result<OwnedFd> {
    rustix::mount::open_tree(
        CWD,
        path,
        rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE
            | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .context(|| format!("cannot use the host's {}", path.display()))
}

fn other_device(path: &Path, major: u32, minor: u32) -> Error {
    Error::Invalid(format!(
        "{} of the host is not the device {major}:{minor} that its name promises",
        path.display()
    ))
}

/// A detached mount of the host's character device at `path`, which must have these numbers.
pub(crate) fn host_node(path: &Path, major: u32, minor: u32) -> Result<OwnedFd> {
    let node = open_node(path)?;
    let stat = fstat(&node).context(|| format!("cannot look at {}", path.display()))?;
    let is_it = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == makedev(major, minor);
    if is_it {
        Ok(node)
    } else {
        Err(other_device(path, major, minor))
    }
}
