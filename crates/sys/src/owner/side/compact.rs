//! Dropping the entries of files that are gone.
//!
//! Nobody says when a file goes. So whoever has a reason looks for all that are there and marks their entries ([`Marks`]);
//! then the file is written anew beside itself and takes its own place, so that after a crash it is the old or the new
//! one. Whoever has the old one open sees that it has no name any more, and takes the new one.

use std::collections::HashSet;
use std::io::{self, Write};

use rustix::fs::{FlockOperation, OFlags};

use super::{FUSE, FileKey, Known, Noted, SideFile, UNBORN, add_line, open_in};

/// Which entries are of something that was found, by a search of all that is there ([`SideFile::mark`]).
#[derive(Debug, Default)]
pub struct Marks {
    keys: HashSet<FileKey>,
    /// Inodes of what was found, of that without a time of birth, and of all.
    inodes: [HashSet<u64>; 2],
    /// Not all that processes answer for was looked at.
    served: bool,
}

impl Marks {
    /// Some of what a process answers for (FUSE) is not looked at: all that may be of that is there.
    pub fn keep_served(&mut self) {
        self.served = true;
    }

    /// By the rule of [`Known::get`].
    fn has(&self, key: &FileKey) -> bool {
        let inodes = &self.inodes[usize::from(key.is_weak())];
        let unseen = self.served && key.born == (UNBORN, FUSE);
        self.keys.contains(key) || inodes.contains(&key.inode) || unseen
    }
}

impl SideFile {
    /// Note that this file is there.
    pub fn mark(&self, key: FileKey, marks: &mut Marks) {
        if self.known.owners.contains_key(&key) {
            marks.keys.insert(key);
        }
        if self.known.inodes[1].contains_key(&key.inode) {
            marks.inodes[1].insert(key.inode);
            if key.is_weak() {
                marks.inodes[0].insert(key.inode);
            }
        }
    }

    /// Whether there is an entry of this inode, so that it is worth asking which file it is.
    pub fn has_inode(&self, inode: u64) -> bool {
        self.known.inodes[1].contains_key(&inode)
    }

    /// Drop the entries of what `marks` did not find, nor did those of the time before: a single search may miss what is
    /// moved meanwhile. How many entries are left that were found.
    ///
    /// # Errors
    /// When it cannot be read or written; then it is as it was.
    pub fn compact(&mut self, marks: &Marks) -> io::Result<usize> {
        self.lock(FlockOperation::LockExclusive)?;
        let done = self.refresh().and_then(|()| self.drop_missing(marks));
        self.unlock();
        done
    }

    fn drop_missing(&mut self, marks: &Marks) -> io::Result<usize> {
        let Some((folder, name)) = &self.place else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let is_there = |key: &FileKey, noted: &Noted| noted.stays || marks.has(key);
        let all = self.known.owners.iter();
        let kept = all.filter(|(key, noted)| is_there(key, noted) || !self.missed.contains(*key));
        let mut kept: Vec<(FileKey, Noted)> = kept.map(|(key, noted)| (*key, *noted)).collect();
        kept.sort_by_key(|(_, noted)| (!noted.stays, noted.number));
        let (mut text, mut known) = (String::new(), Known::default());
        let mut held = false;
        for (key, noted) in &kept {
            if !noted.stays && !held && known.count > 0 {
                hold(&mut text, &mut known);
            }
            held |= !noted.stays;
            add_line(&mut text, *key, noted.owner);
            known.take_in(*key, noted.owner);
        }
        if !held && known.count > 0 {
            hold(&mut text, &mut known);
        }
        // Little would be gained.
        if (text.len() as u64) < self.read / 4 * 3 {
            let mut fresh = name.clone();
            fresh.push(".new");
            let mut file = open_in(folder, &fresh, OFlags::CREATE | OFlags::TRUNC)?;
            file.write_all(text.as_bytes())?;
            file.sync_data()?;
            rustix::fs::renameat(folder, &fresh, folder, name)?;
            // The lock goes with the old one.
            self.file = Some(file);
            self.read = text.len() as u64;
            self.partial.clear();
            self.torn = false;
            self.known = known;
        }
        let all = self.known.owners.iter();
        let missed = all.filter(|(key, noted)| !is_there(key, noted));
        self.missed = missed.map(|(key, _)| *key).collect();
        Ok(self.len() - self.missed.len())
    }
}

fn hold(text: &mut String, known: &mut Known) {
    text.push_str("=\n");
    known.hold();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::TrueOwner;

    #[test]
    fn what_is_gone_is_dropped_the_second_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owners");
        let key = |inode| FileKey {
            inode,
            born: (1, 0),
        };
        let owner = |uid| TrueOwner::new(uid, 0);
        let size = || std::fs::metadata(&path).unwrap().len();
        // One of a layer, which stays.
        std::fs::write(&path, "1 1.0 7 0 0 0\n=\n").unwrap();
        let mut one = SideFile::open(&path).unwrap();
        let mut two = SideFile::open(&path).unwrap();
        for inode in 2..1000 {
            one.set(key(inode), owner(5)).unwrap();
        }
        two.refresh().unwrap();
        two.set(key(3), owner(6)).unwrap();
        let before = size();
        let marks = |side: &SideFile| {
            let mut marks = Marks::default();
            for inode in [2, 3, 5000] {
                side.mark(key(inode), &mut marks);
            }
            marks
        };
        assert_eq!(one.compact(&marks(&one)).unwrap(), 3);
        assert_eq!((size(), one.len()), (before, 999));
        // Between the two something new.
        two.set(key(2000), owner(8)).unwrap();
        assert_eq!(one.compact(&marks(&one)).unwrap(), 3);
        assert!(size() < 200 && one.size() == size());
        assert!(!dir.path().join("owners.new").exists());
        for side in [&mut one, &mut two, &mut SideFile::read(&path).unwrap()] {
            side.refresh().unwrap();
            let all = [1, 2, 3, 4, 2000].map(|inode| side.get(&key(inode)));
            let wanted = [Some(7), Some(5), Some(6), None, Some(8)];
            assert_eq!(all, wanted.map(|uid| uid.map(owner)));
        }
        // Whoever has the old file writes into the new one.
        let mut late = SideFile::open(&path).unwrap();
        for inode in 3000..3100 {
            one.set(key(inode), owner(9)).unwrap();
        }
        one.compact(&Marks::default()).unwrap();
        one.compact(&Marks::default()).unwrap();
        assert_eq!(one.len(), 1);
        late.set(key(4000), owner(4)).unwrap();
        one.refresh().unwrap();
        assert_eq!(one.get(&key(4000)), Some(owner(4)));
        assert_eq!(one.get(&key(1)), Some(owner(7)));
    }
}
