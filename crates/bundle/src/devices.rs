//! The host's devices, for `--privileged` and `--device`.
//!
//! Nobody makes device nodes in a user namespace, so a privileged container gets the host's own, bound one by one, each with
//! the rights it has for the user. What every container has anyway (null, zero, …) and what belongs to the container's own
//! terminal is left out.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::{Device, Error};

/// Directories of `/dev` that are mounts or views of a process's own.
const NOT_DEVICES: &[&str] = &["pts", "shm", "fd", "mqueue", "hugepages"];

/// Devices that the container has from elsewhere.
const OWN: &[&str] = &[
    "console", "ptmx", "tty", "null", "zero", "full", "random", "urandom",
];

/// How deep `/dev` is searched; real trees are three deep (`/dev/bus/usb/001/002` is five with the file).
const DEPTH: usize = 5;

/// Finds the device nodes below `dev`, sorted.
pub(crate) fn find(dev: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    search(dev, DEPTH, true, &mut found);
    found.sort();
    found
}

/// The nodes that a `--device` means: itself, or all below a directory; each with its place in the container.
pub(crate) fn of(device: &Device) -> Result<Vec<(PathBuf, String)>, Error> {
    let source = &device.source;
    let found = fs::metadata(source).map_err(|e| {
        let why = rcon_sys::errors::in_words(&e);
        Error::value(format!("stat {}: {why}", source.display()))
    })?;
    let kind = found.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        return Ok(vec![(source.clone(), device.destination.clone())]);
    }
    if !kind.is_dir() {
        return Err(Error::value(format!(
            "{} is not a device",
            source.display()
        )));
    }
    let mut nodes = Vec::new();
    search(source, DEPTH, false, &mut nodes);
    nodes.sort();
    if nodes.is_empty() {
        return Err(Error::value(format!(
            "there are no devices in {}",
            source.display()
        )));
    }
    let placed = nodes.into_iter().map(|node| {
        let rest = node.strip_prefix(source).unwrap_or(&node);
        let place = Path::new(&device.destination).join(rest);
        (node.clone(), place.display().to_string())
    });
    Ok(placed.collect())
}

fn search(dir: &Path, depth: usize, top: bool, found: &mut Vec<PathBuf>) {
    // A directory that cannot be read holds nothing that could be used.
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let left_out = |list: &[&str]| top && list.iter().any(|n| name == *n);
        // The kind of the entry itself: links (/dev/core, /dev/stdin) lead elsewhere.
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && depth > 0 && !left_out(NOT_DEVICES) {
            search(&entry.path(), depth - 1, false, found);
        } else if (kind.is_char_device() || kind.is_block_device()) && !left_out(OWN) {
            found.push(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_out_what_the_container_has() {
        for device in find(Path::new("/dev")) {
            assert!(OWN.iter().all(|o| device != Path::new("/dev").join(o)));
            assert!(!device.starts_with("/dev/pts") && !device.starts_with("/dev/fd"));
        }
        assert!(find(Path::new("/nonexistent")).is_empty());
    }
}
