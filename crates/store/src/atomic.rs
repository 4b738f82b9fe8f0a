//! Small files, read whole and replaced whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Result};
use crate::stage;
use crate::store::Store;

/// The most that a file of the store that is read whole may have, in bytes.
pub(crate) const LIMIT: u64 = 64 << 20;

/// Read `path`, which must be a regular file of at most `limit` bytes.
pub(crate) fn read(dir: impl AsFd, path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::openat(
        dir,
        path.as_ref(),
        flags,
        Mode::empty(),
    )?);
    let mut text = Vec::with_capacity(4096);
    file.take(limit + 1).read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::from(Errno::FBIG));
    }
    Ok(text)
}

/// Replace the file `path` of the store: whoever reads it sees the old or the new text, whole.
///
/// On disk before it is visible, so that this holds after a power cut, too.
pub(crate) fn write(store: &Store, path: &str, text: &[u8]) -> Result<()> {
    let shown = || format!("cannot write {}", store.path(path).display());
    let (temp, mut file) = new_file(store).context(shown)?;
    let written = file
        .write_all(text)
        .and_then(|()| Ok(rustix::fs::fdatasync(&file)?))
        .and_then(|()| Ok(rustix::fs::renameat(store.dir(), &temp, store.dir(), path)?));
    if written.is_err() {
        // The name is ours alone; what cannot be removed now, the next sweep removes.
        let _ = rustix::fs::unlinkat(store.dir(), &temp, AtFlags::empty());
    }
    written.context(shown)
}

/// A new, locked file in `tmp/`, and its name.
fn new_file(store: &Store) -> io::Result<(String, File)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    loop {
        let temp = format!("tmp/file-{}", unique());
        let file = File::from(rustix::fs::openat(store.dir(), &temp, flags, mode)?);
        stage::lock_file(&file)?;
        // Until it was locked it looked abandoned, and a sweep may have taken it: then another.
        if stage::is_at(store.dir(), &temp, &file) {
            return Ok((temp, file));
        }
    }
}

/// Write a new file in a directory that nobody else uses yet.
pub(crate) fn write_new(dir: impl AsFd, path: &str, text: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let fd = rustix::fs::openat(dir, path, flags, mode)?;
    File::from(fd).write_all(text)
}

/// A part of a name that no other process and no other call comes up with.
pub(crate) fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let pid = rustix::process::getpid().as_raw_nonzero();
    format!("{:x}{:08x}-{pid}-{count}", now.tv_sec, now.tv_nsec)
}
