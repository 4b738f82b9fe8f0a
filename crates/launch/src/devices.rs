//! The folder `/dev` of a container (config-linux.md, default devices).
//!
//! A user namespace cannot make device nodes, so those of the host are bound over empty files.
//! Each is looked at before: only the node that its name promises is taken.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rcon_sys::mount;
use rustix::fs::{CWD, FileType, Mode, fstat, makedev, mknodat, symlinkat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

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
/// are there stay.
pub(crate) fn populate(dev: impl AsFd) -> Result<()> {
    let dev = dev.as_fd();
    let unless_there = |result| match result {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    };
    for (name, major, minor) in NODES {
        let step = || format!("cannot make /dev/{name}");
        let node = host_node(&Path::new("/dev").join(name), major, minor)?;
        let made = mknodat(dev, name, FileType::RegularFile, Mode::from(0o666), 0);
        unless_there(made).context(step)?;
        mount::attach_to_entry(node, dev, name).context(step)?;
    }
    for (target, name) in LINKS {
        unless_there(symlinkat(target, dev, name))
            .context(|| format!("cannot make /dev/{name}"))?;
    }
    Ok(())
}

/// A detached mount of the host's character device at `path`, which must have these numbers.
pub(crate) fn host_node(path: &Path, major: u32, minor: u32) -> Result<OwnedFd> {
    let node = rustix::mount::open_tree(
        CWD,
        path,
        rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE
            | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .context(|| format!("cannot use the host's {}", path.display()))?;
    let stat = fstat(&node).context(|| format!("cannot look at {}", path.display()))?;
    let is_it = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == makedev(major, minor);
    if is_it {
        Ok(node)
    } else {
        Err(Error::Invalid(format!(
            "{} of the host is not the device {major}:{minor} that its name promises",
            path.display()
        )))
    }
}
