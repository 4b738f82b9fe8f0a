//! Hearing of processes that the kernel kills for want of memory while that happens.
//!
//! What it has counted goes with the cgroup, and systemd takes a scope away as soon as it is empty: who only reads the
//! counter at the end may come too late.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::files;

/// `memory.events` of a cgroup of version 2, to be polled for `POLLPRI`.
#[derive(Debug)]
pub struct OomWatch {
    events: File,
    seen: bool,
}

impl OomWatch {
    /// `None` where nothing is counted.
    pub(super) fn new(dir: &Path) -> Option<Self> {
        let events = File::open(dir.join("memory.events")).ok()?;
        let mut watch = Self {
            events,
            seen: false,
        };
        // Only what changes after it was read is an event.
        watch.look().then_some(watch)
    }

    /// Look what has happened; false when the cgroup is gone, and nothing more will be heard.
    pub fn look(&mut self) -> bool {
        let mut text = [0; 1024];
        let read = loop {
            match self.events.read_at(&mut text, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
                Ok(read) => break read,
            }
        };
        let text = String::from_utf8_lossy(&text[..read]);
        self.seen |= files::keyed_in(&text, "oom_kill").is_some_and(|kills| kills > 0);
        true
    }

    /// Whether a process was killed.
    pub fn has_seen(&self) -> bool {
        self.seen
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_seen_and_remembered() {
        let dir = tempfile::tempdir().unwrap();
        assert!(OomWatch::new(dir.path()).is_none());
        let file = dir.path().join("memory.events");
        std::fs::write(&file, "low 0\nmax 3\noom 1\noom_kill 0\n").unwrap();
        let mut watch = OomWatch::new(dir.path()).unwrap();
        assert!(watch.look() && !watch.has_seen());
        std::fs::write(&file, "low 0\nmax 3\noom 1\noom_kill 1\n").unwrap();
        assert!(watch.look() && watch.has_seen());
        std::fs::write(&file, "").unwrap();
        assert!(watch.look() && watch.has_seen());
    }
}
