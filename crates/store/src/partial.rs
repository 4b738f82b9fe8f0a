//! Blobs that are on their way: `partial/ALGORITHM-HEX` holds what has come of a blob so far, so that
//! the next process goes on where one was cut. Who has its lock fetches that blob; others who want
//! it wait for the layer. What is in such a file proves nothing: its digest is checked as if it came
//! from the network.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::stage;
use crate::store::{self, DIRECTORY, Store};

const FOLDER: &str = "partial";

/// What nobody has asked for in this time is removed.
const OLD: Duration = Duration::from_secs(7 * 24 * 3600);

/// A blob that this process is fetching. Dropped, it stays for the next one, if there is anything of it.
#[derive(Debug)]
pub struct Partial<'a> {
    store: &'a Store,
    path: String,
    file: File,
    size: u64,
    beat: SystemTime,
}

impl Store {
    /// Take the fetching of a blob upon oneself; `None` if another process is at it.
    ///
    /// # Errors
    /// When the store cannot be written or locked.
    pub fn partial_blob(&self, digest: &Digest) -> Result<Option<Partial<'_>>> {
        let path = path_of(digest);
        let what = || format!("cannot open {}", self.path(&path).display());
        store::make_folder(self, FOLDER)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        loop {
            let mode = Mode::RUSR | Mode::WUSR;
            let file = rustix::fs::openat(self.dir(), &path, flags, mode).context(what)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(None),
                // A file system without locks: then nobody waits for anybody.
                Ok(()) | Err(Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS) => {}
                Err(error) => return Err(Error::io(what(), error)),
            }
            if stage::is_at(self.dir(), &path, &file) {
                let file = File::from(file);
                let size = file.metadata().context(what)?.len();
                return Ok(Some(Partial {
                    store: self,
                    path,
                    file,
                    size,
                    beat: SystemTime::UNIX_EPOCH,
                }));
            }
        }
    }

    /// When whoever fetches a blob last showed that it goes on; `None` if nobody does.
    pub fn partial_beat(&self, digest: &Digest) -> Option<SystemTime> {
        let path = self.path(&path_of(digest));
        std::fs::symlink_metadata(path).ok()?.modified().ok()
    }

    /// Remove what has come of blobs that nobody is fetching; how many bytes that were.
    pub fn remove_partials(&self) -> u64 {
        self.clear_partials(Duration::ZERO)
    }

    /// The same for what is old.
    pub(crate) fn remove_old_partials(&self) {
        self.clear_partials(OLD);
    }

    fn clear_partials(&self, age: Duration) -> u64 {
        let Ok(dir) = rustix::fs::openat(self.dir(), FOLDER, DIRECTORY, Mode::empty()) else {
            return 0;
        };
        let mut sum = 0;
        for name in stage::names_in(&dir).unwrap_or_default() {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(fd) = rustix::fs::openat(&dir, &name, flags, Mode::empty()) else {
                continue;
            };
            let file = File::from(fd);
            let Ok(meta) = file.metadata() else { continue };
            let is_old = meta
                .modified()
                .is_ok_and(|time| time.elapsed().unwrap_or_default() >= age);
            // Who wants to go on with a younger one must not find it locked.
            if !is_old
                || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
            {
                continue;
            }
            if rustix::fs::unlinkat(&dir, &name, AtFlags::empty()).is_ok() {
                sum += meta.len();
            }
        }
        sum
    }
}

impl Partial<'_> {
    /// Bytes that are here.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Read some of them.
    ///
    /// # Errors
    /// As pread(2).
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// Add what came next.
    ///
    /// # Errors
    /// As pwrite(2).
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.size)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Forget all of it, but keep the others waiting.
    ///
    /// # Errors
    /// As ftruncate(2).
    pub fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.size = 0;
        Ok(())
    }

    /// Show that it goes on, at most once a second.
    pub fn beat(&mut self) {
        let now = SystemTime::now();
        if now
            .duration_since(self.beat)
            .is_ok_and(|t| t.as_secs() >= 1)
        {
            self.beat = now;
            // Others only wait less long without it.
            let _ = self.file.set_modified(now);
        }
    }

    /// It is no longer needed.
    pub fn remove(mut self) {
        self.size = 0;
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if self.size == 0 {
            let _ = rustix::fs::unlinkat(self.store.dir(), &self.path, AtFlags::empty());
        }
    }
}

fn path_of(digest: &Digest) -> String {
    format!("{FOLDER}/{}-{}", digest.algorithm().name(), digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcon_sys::ids::IdMaps;

    #[test]
    fn one_fetches_and_the_next_goes_on() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path(), &IdMaps::single()).unwrap();
        let digest = Digest::sha256(b"blob");
        let mut one = store.partial_blob(&digest).unwrap().unwrap();
        assert!(store.partial_blob(&digest).unwrap().is_none());
        one.append(b"begun").unwrap();
        one.beat();
        assert!(store.partial_beat(&digest).is_some());
        assert_eq!(store.remove_partials(), 0);
        drop(one);
        let two = store.partial_blob(&digest).unwrap().unwrap();
        let mut text = [0; 9];
        assert_eq!((two.size(), two.read_at(&mut text, 0).unwrap()), (5, 5));
        assert_eq!(&text[..5], b"begun");
        two.remove();
        assert!(store.partial_beat(&digest).is_none());
        // Nothing came: nothing stays.
        drop(store.partial_blob(&digest).unwrap().unwrap());
        assert!(store.partial_beat(&digest).is_none());
        let mut three = store.partial_blob(&digest).unwrap().unwrap();
        three.append(b"xyz").unwrap();
        drop(three);
        store.remove_old_partials();
        assert_eq!(store.remove_partials(), 3);
        assert!(store.partial_beat(&digest).is_none());
    }
}
