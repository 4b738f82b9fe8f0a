//! Small files of the host that are read again when they change.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use smoltcp::time::{Duration, Instant};

/// How often a file is looked at, at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// A longer file is taken for an empty one.
const MAX_LEN: u64 = 256 * 1024;

/// A file, and what its content means.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    path: PathBuf,
    parse: fn(&str) -> T,
    value: T,
    looked: Option<Instant>,
    /// What tells one state of the file from another: device, inode, length, time of change.
    state: Option<(u64, u64, u64, i64, i64)>,
}

impl<T> Watched<T> {
    /// A file that has not been looked at yet.
    pub(crate) fn new(path: impl Into<PathBuf>, parse: fn(&str) -> T) -> Watched<T> {
        Watched {
            path: path.into(),
            parse,
            value: parse(""),
            looked: None,
            state: None,
        }
    }

    /// What the file means now; one that cannot be read means what an empty one does.
    pub(crate) fn get(&mut self, now: Instant) -> &T {
        if self.looked.is_none_or(|looked| looked + INTERVAL <= now) {
            self.looked = Some(now);
            self.look();
        }
        &self.value
    }

    fn look(&mut self) {
        let metadata = std::fs::metadata(&self.path);
        let state = metadata.ok().map(|m| {
            let changed = (m.ctime(), m.ctime_nsec());
            (m.dev(), m.ino(), m.len(), changed.0, changed.1)
        });
        if state == self.state {
            return;
        }
        self.state = state;
        let mut bytes = Vec::new();
        let read =
            File::open(&self.path).and_then(|file| file.take(MAX_LEN + 1).read_to_end(&mut bytes));
        if read.is_err() || bytes.len() as u64 > MAX_LEN {
            bytes.clear();
        }
        self.value = (self.parse)(&String::from_utf8_lossy(&bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_seen_and_absence_is_emptiness() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let mut watched = Watched::new(&path, str::len);
        let at = |seconds| Instant::from_secs(seconds);
        assert_eq!(*watched.get(at(0)), 0);
        std::fs::write(&path, "hello").unwrap();
        assert_eq!(*watched.get(at(0)), 0, "looked at a moment ago");
        assert_eq!(*watched.get(at(1)), 5);
        let other = folder.path().join("other");
        std::fs::write(&other, "hello world").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(*watched.get(at(2)), 11);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*watched.get(at(3)), 0);
    }
}
