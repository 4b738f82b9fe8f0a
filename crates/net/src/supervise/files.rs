//! The host's files that names come from, looked at for the network process, which has none.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::channel::Content;
use crate::resolv::{HOST_HOSTS, HOST_RESOLV_CONF};

/// What tells one state of a file from another: device, inode, length, time of change; `None` is
/// a file that is not there.
type State = Option<(u64, u64, u64, i64, i64)>;

/// What was seen of the files last.
#[derive(Debug, Default)]
pub(super) struct Files {
    resolv_conf: State,
    hosts: State,
}

/// What has become of a file.
#[derive(Debug)]
pub(super) enum Look {
    Same,
    Gone,
    New(File),
}

impl Files {
    /// Takes the files as they are now for known: a process that starts reads them itself.
    pub(super) fn remember(&mut self) {
        self.resolv_conf = state(Path::new(HOST_RESOLV_CONF));
        self.hosts = state(Path::new(HOST_HOSTS));
    }

    /// What has become of resolv.conf and hosts since the last time.
    pub(super) fn look(&mut self) -> (Look, Look) {
        (
            look(Path::new(HOST_RESOLV_CONF), &mut self.resolv_conf),
            look(Path::new(HOST_HOSTS), &mut self.hosts),
        )
    }
}

fn state(path: &Path) -> State {
    let metadata = std::fs::metadata(path).ok()?;
    // A pipe or a device could hold up whoever reads it.
    metadata.is_file().then(|| {
        let (seconds, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
        (
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            seconds,
            nanoseconds,
        )
    })
}

fn look(path: &Path, known: &mut State) -> Look {
    let now = state(path);
    if now == *known {
        return Look::Same;
    }
    let open = || {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .ok()
    };
    let file = now.and_then(|_| open());
    // One that cannot be opened now perhaps can be the next time.
    *known = file.as_ref().and(now);
    file.map_or(Look::Gone, Look::New)
}

/// How the network process is told.
pub(super) fn content(look: &Look) -> Content {
    match look {
        Look::Same => Content::Same,
        Look::Gone => Content::Gone,
        Look::New(_) => Content::Sent,
    }
}

/// What goes along.
pub(super) fn descriptor(look: &Look) -> Option<BorrowedFd<'_>> {
    match look {
        Look::New(file) => Some(file.as_fd()),
        Look::Same | Look::Gone => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_once_for_each_of_its_states() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let mut known = None;
        assert!(matches!(look(&path, &mut known), Look::Same));
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert!(matches!(look(&path, &mut known), Look::New(_)));
        assert!(matches!(look(&path, &mut known), Look::Same));
        // Replaced by another, as programs do that write it.
        let other = folder.path().join("other");
        std::fs::write(&other, "nameserver 192.0.2.2\n").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(matches!(look(&path, &mut known), Look::New(_)));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(look(&path, &mut known), Look::Gone));
        // Where there is a directory there is no file.
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(look(&path, &mut known), Look::Same));
    }
}
