//! Which process is whom.
//!
//! Identities are kept in a file that all who answer for a container share, a line each, and a
//! process is marked with the number of its line. The mark is the soft limit for real-time
//! processor time, a number so large that it means "unlimited": the kernel hands it on at every
//! fork and execution, so nobody has to follow how processes come about, and none is ever taken
//! for another.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcon_sys::notify;
use rcon_sys::owner::TrueOwner;
use rustix::fs::FlockOperation;

use super::identity::Identity;

/// The mark of line 0: some twenty thousand centuries.
const BASE: u64 = 0x7263_6f6e_0000_0000;
/// The most lines.
const MOST: usize = 1 << 20;
/// The most bytes: a line may have as many groups as a process, and all are kept in memory.
const MOST_BYTES: u64 = 16 << 20;
/// The most bytes of limits that are read; the kernel's have about 1300.
const MOST_LIMITS: u64 = 8 << 10;

/// The identities that are known.
#[derive(Debug)]
pub(super) struct Table {
    file: File,
    read: u64,
    known: Vec<Identity>,
    /// Some process that we answer for may have a mark: then each is asked for its own.
    pub(super) marks: bool,
}

impl Table {
    /// That of the file at `path`, made if it is missing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create(true).mode(0o600);
        let mut table = Self {
            file: options.open(path)?,
            read: 0,
            known: Vec::new(),
            marks: false,
        };
        table.refresh()?;
        Ok(table)
    }

    fn refresh(&mut self) -> io::Result<()> {
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(self.read))?;
        self.file.read_to_string(&mut text)?;
        // Lines are whole: they are written under the lock. A bad one keeps its number.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let lines = text[..whole].lines();
        self.known
            .extend(lines.map(|line| Identity::parse(line).unwrap_or_default()));
        self.read += whole as u64;
        Ok(())
    }

    /// Who the process of `thread` is, for which we answer; without a mark, root.
    pub(super) fn of(&mut self, thread: i32) -> io::Result<Identity> {
        match self.marks {
            true => self.of_any(thread),
            // A mark comes from us or from a parent, so there is none.
            false => Ok(Identity::default()),
        }
    }

    /// Who any process of the container is.
    pub(super) fn of_any(&mut self, thread: i32) -> io::Result<Identity> {
        self.marked(notify::mark(thread)?)
    }

    /// Whose a process with these limits (proc(5)) is, if not root's.
    pub(super) fn of_limits(&mut self, path: &str) -> Option<TrueOwner> {
        // Below another root it may be a file that the container has put there.
        let mut options = OpenOptions::new();
        let options = options
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let mut limits = String::new();
        let file = options.open(path).ok()?;
        file.take(MOST_LIMITS).read_to_string(&mut limits).ok()?;
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max realtime timeout "))?;
        let mark = line.split_ascii_whitespace().next()?.parse().ok()?;
        let who = self.marked(mark).ok()?;
        let owner = TrueOwner::new(who.user.effective, who.group.effective);
        (!owner.is_root()).then_some(owner)
    }

    fn marked(&mut self, mark: u64) -> io::Result<Identity> {
        let Some(line) = mark.checked_sub(BASE).filter(|line| *line < MOST as u64) else {
            return Ok(Identity::default());
        };
        let line = line as usize;
        if line >= self.known.len() {
            self.refresh()?;
        }
        Ok(self.known.get(line).cloned().unwrap_or_default())
    }

    /// Make the process of `thread` this one.
    pub(super) fn set(&mut self, thread: i32, identity: &Identity) -> io::Result<()> {
        let line = self.number(identity)?;
        self.marks = true;
        notify::set_mark(thread, BASE + line as u64)
    }

    fn number(&mut self, identity: &Identity) -> io::Result<usize> {
        let find = |known: &[Identity]| known.iter().rposition(|known| known == identity);
        if let Some(line) = find(&self.known) {
            return Ok(line);
        }
        let lock = |how| rustix::io::retry_on_intr(|| rustix::fs::flock(&self.file, how));
        lock(FlockOperation::LockExclusive)?;
        let added = self.add(identity);
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        added
    }

    fn add(&mut self, identity: &Identity) -> io::Result<usize> {
        self.refresh()?;
        if let Some(line) = self.known.iter().rposition(|known| known == identity) {
            return Ok(line);
        }
        let line = format!("{}\n", identity.line());
        if self.known.len() >= MOST || self.read + line.len() as u64 > MOST_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // What a full disk or a death has left of a line must not become a part of ours.
        self.file.set_len(self.read)?;
        self.file.write_all(line.as_bytes())?;
        self.refresh()?;
        self.known
            .len()
            .checked_sub(1)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::Four;
    use super::*;

    #[test]
    fn two_holders_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identities");
        let (mut one, mut two) = (Table::open(&path).unwrap(), Table::open(&path).unwrap());
        let user = |id| Identity {
            user: Four::all(id),
            ..Identity::default()
        };
        assert_eq!(one.number(&user(5)).unwrap(), 0);
        assert_eq!(two.number(&user(6)).unwrap(), 1);
        assert_eq!(one.number(&user(6)).unwrap(), 1);
        assert_eq!(two.number(&user(5)).unwrap(), 0);
        assert_eq!(one.known, two.known);
    }
}
