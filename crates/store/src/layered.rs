//! Layers seen as the one tree that an overlay of them would show.

mod descent;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, Result};

use crate::store::DIRECTORY;
use crate::unpack::{OPAQUE, OPAQUE_XATTR, PREFIX, WHITEOUT_XATTR};

pub use descent::LayeredDescent;

/// fuse-overlayfs has a mark of its own where it cannot set the kernel's, and a file beside it ([`OPAQUE`]).
const FUSE_OPAQUE_XATTR: &str = "user.fuseoverlayfs.opaque";

/// One directory as several layers have it. May be none: then nothing is in it.
#[derive(Debug, Default)]
pub struct Layered {
    /// The top one first; none below one that hides what is below it.
    dirs: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    dir: OwnedFd,
    /// Which layer it is of, from the top.
    layer: usize,
    /// Regular files in it may be whiteouts.
    marked: bool,
    /// Its file system has no attributes to mark anything with: files with certain names are the marks.
    by_name: bool,
}

/// Where a name is.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The directory of the layer whose entry is seen.
    pub dir: BorrowedFd<'a>,
    /// Of the entry; a link is not followed.
    pub stat: Stat,
}

impl Seen<'_> {
    /// What it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

impl Layered {
    /// The roots of `layers`, the top one first.
    ///
    /// # Errors
    /// When one of them cannot be opened.
    pub fn open<'a>(layers: impl IntoIterator<Item = &'a Path>) -> Result<Self> {
        let mut all = Self::default();
        for (number, layer) in layers.into_iter().enumerate() {
            let dir = rustix::fs::openat(CWD, layer, DIRECTORY, Mode::empty())?;
            if all.push(dir, number) {
                break;
            }
        }
        Ok(all)
    }

    /// The directory itself, of the topmost layer that has it.
    pub fn top(&self) -> Option<BorrowedFd<'_>> {
        self.dirs.first().map(|part| part.dir.as_fd())
    }

    /// Whether it hides what is below.
    fn push(&mut self, dir: OwnedFd, layer: usize) -> bool {
        let by_name = has_no_attributes(&dir);
        let part = Part {
            marked: !by_name && has_mark(&dir, OPAQUE_XATTR, b"x"),
            by_name,
            dir,
            layer,
        };
        let hides = is_opaque(&part.dir);
        self.dirs.push(part);
        hides
    }

    /// All names that are seen, sorted.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn names(&self) -> Result<Vec<OsString>> {
        // The topmost that has a name decides about it.
        let mut all: BTreeMap<OsString, bool> = BTreeMap::new();
        for part in &self.dirs {
            let mut mine = Vec::new();
            let mut deleted = Vec::new();
            for entry in Dir::read_from(&part.dir)? {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if [".", "..", OPAQUE].iter().any(|odd| name == *odd) {
                    continue;
                }
                let deletes = name.as_bytes().strip_prefix(PREFIX);
                if let Some(hidden) = deletes.filter(|_| part.by_name) {
                    deleted.push(OsStr::from_bytes(hidden).to_owned());
                    continue;
                }
                let suspicious = match entry.file_type() {
                    FileType::Directory | FileType::Symlink | FileType::Fifo => false,
                    FileType::RegularFile => part.marked,
                    _ => true,
                };
                if !all.contains_key(name) {
                    let seen = !suspicious || part.find(name)?.is_some_and(|(_, hides)| !hides);
                    mine.push((name.to_owned(), seen));
                }
            }
            all.extend(mine);
            for name in deleted {
                all.entry(name).or_insert(false);
            }
        }
        Ok(all.into_iter().filter(|e| e.1).map(|e| e.0).collect())
    }

    /// What is seen under a name.
    ///
    /// # Errors
    /// When a directory cannot be looked into.
    pub fn find(&self, name: &OsStr) -> Result<Option<Seen<'_>>> {
        for part in &self.dirs {
            if let Some((stat, hides)) = part.find(name)? {
                let dir = part.dir.as_fd();
                return Ok((!hides).then_some(Seen { dir, stat }));
            }
        }
        Ok(None)
    }

    /// Whether the topmost layer that has this name has it as a deletion.
    ///
    /// # Errors
    /// When a directory cannot be looked into.
    pub fn deletes(&self, name: &OsStr) -> Result<bool> {
        for part in &self.dirs {
            if let Some((_, hides)) = part.find(name)? {
                return Ok(hides);
            }
        }
        Ok(false)
    }

    /// The directory of that name, of those layers whose content is seen through it.
    ///
    /// # Errors
    /// When there is no such directory, or it cannot be opened.
    pub fn enter(&self, name: &OsStr) -> Result<Self> {
        let mut inner = Self::default();
        for part in &self.dirs {
            match rustix::fs::openat(&part.dir, name, DIRECTORY, Mode::empty()) {
                Ok(dir) => {
                    if inner.push(dir, part.layer) || part.deletes_by_name(name)?.is_some() {
                        break;
                    }
                }
                Err(Errno::NOENT) if part.deletes_by_name(name)?.is_some() => break,
                Err(Errno::NOENT) => {}
                // A file, or a deletion: nothing below it is seen.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(inner)
    }
}

impl Part {
    /// The entry of that name, and whether it is a deletion.
    fn find(&self, name: &OsStr) -> Result<Option<(Stat, bool)>> {
        let stat = match rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(self.deletes_by_name(name)?.map(|stat| (stat, true))),
            other => other?,
        };
        let hides = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => stat.st_rdev == 0,
            FileType::RegularFile if self.marked && stat.st_size == 0 => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&self.dir, name, flags, Mode::empty())
                    .is_ok_and(|file| has_mark(&file, WHITEOUT_XATTR, b""))
            }
            _ => false,
        };
        Ok(Some((stat, hides)))
    }

    /// The mark that deletes this name, where names are marks.
    fn deletes_by_name(&self, name: &OsStr) -> Result<Option<Stat>> {
        if !self.by_name {
            return Ok(None);
        }
        let mark = [PREFIX, name.as_bytes()].concat();
        match rustix::fs::statat(&self.dir, mark, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a directory of a layer hides what lower layers have in it.
pub fn is_opaque(dir: impl AsFd) -> bool {
    has_mark(&dir, OPAQUE_XATTR, b"y")
        || has_mark(&dir, FUSE_OPAQUE_XATTR, b"y")
        || rustix::fs::statat(&dir, OPAQUE, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Whether the file system keeps no extended attributes of users.
fn has_no_attributes(dir: impl AsFd) -> bool {
    let asked = rustix::fs::fgetxattr(dir, OPAQUE_XATTR, &mut [0_u8; 16][..]);
    asked == Err(Errno::NOTSUP)
}

/// Whether a file has the attribute, beginning with `value`.
pub(crate) fn has_mark(file: impl AsFd, attribute: &str, value: &[u8]) -> bool {
    let mut buffer = [0_u8; 16];
    rustix::fs::fgetxattr(file, attribute, &mut buffer[..])
        .is_ok_and(|len| buffer[..len].starts_with(value))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::XattrFlags;

    use super::*;

    #[test]
    fn the_top_decides() {
        let temp = tempfile::tempdir().unwrap();
        let at = |path: &str| temp.path().join(path);
        for dir in ["top/d", "top/o", "low/d", "low/o", "low/f"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        for file in [
            "low/d/a",
            "low/d/b",
            "low/o/hidden",
            "low/gone",
            "top/d/b",
            "top/f",
        ] {
            fs::write(at(file), file).unwrap();
        }
        if rustix::fs::setxattr(at("top/o"), OPAQUE_XATTR, b"y", XattrFlags::empty()).is_err() {
            return; // No such attributes on this file system.
        }
        // The form that needs no device.
        fs::write(at("top/gone"), "").unwrap();
        rustix::fs::setxattr(at("top/gone"), WHITEOUT_XATTR, b"y", XattrFlags::empty()).unwrap();
        rustix::fs::setxattr(at("top"), OPAQUE_XATTR, b"x", XattrFlags::empty()).unwrap();
        let (top, low) = (at("top"), at("low"));
        let all = Layered::open([top.as_path(), low.as_path()]).unwrap();
        assert_eq!(all.names().unwrap(), ["d", "f", "o"]);
        assert!(all.find(OsStr::new("gone")).unwrap().is_none());
        assert_eq!(
            all.enter(OsStr::new("d")).unwrap().names().unwrap(),
            ["a", "b"]
        );
        let inner = all.enter(OsStr::new("o")).unwrap();
        assert!(inner.names().unwrap().is_empty() && inner.top().is_some());
        assert!(all.enter(OsStr::new("f")).unwrap().top().is_none());
        let file = all.find(OsStr::new("f")).unwrap().unwrap();
        assert_eq!(file.kind(), FileType::RegularFile);
    }

    #[test]
    fn a_file_marks_what_takes_no_attributes() {
        let temp = tempfile::tempdir().unwrap();
        let at = |path: &str| temp.path().join(path);
        for dir in ["top/d", "low/d"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        for file in ["low/d/hidden", "top/d/seen", "top/d/.wh..wh..opq"] {
            fs::write(at(file), "").unwrap();
        }
        let (top, low) = (at("top"), at("low"));
        let all = Layered::open([top.as_path(), low.as_path()]).unwrap();
        let inner = all.enter(OsStr::new("d")).unwrap();
        assert_eq!(inner.names().unwrap(), ["seen"]);
        assert!(inner.find(OsStr::new("hidden")).unwrap().is_none());
    }

    #[test]
    fn names_are_marks_where_there_are_no_others() {
        let temp = tempfile::tempdir().unwrap();
        let at = |path: &str| temp.path().join(path);
        for dir in ["top/d", "top/again", "low/d", "low/again", "low/gone-dir"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        for file in [
            "top/.wh.gone",
            "top/.wh.gone-dir",
            "top/.wh.again",
            "top/.wh.late",
            "top/late",
            "top/d/.wh.a",
            "low/gone",
            "low/late",
            "low/d/a",
            "low/d/b",
            "low/again/hidden",
        ] {
            fs::write(at(file), file).unwrap();
        }
        let part = |path: &str, layer| Part {
            layer,
            dir: rustix::fs::openat(CWD, at(path), DIRECTORY, Mode::empty()).unwrap(),
            marked: false,
            by_name: true,
        };
        let all = Layered {
            dirs: vec![part("top", 0), part("low", 1)],
        };
        let name = OsStr::new;
        assert_eq!(all.names().unwrap(), ["again", "d", "late"]);
        assert!(all.find(name("gone")).unwrap().is_none());
        assert!(all.deletes(name("gone")).unwrap() && !all.deletes(name("late")).unwrap());
        assert!(all.find(name(&"x".repeat(255))).unwrap().is_none());
        assert!(all.enter(name("gone-dir")).unwrap().top().is_none());
        assert_eq!(all.enter(name("again")).unwrap().dirs.len(), 1);
        // What is below is asked in the same way, whatever this file system has.
        let inner = all.enter(name("d")).unwrap();
        assert_eq!(inner.dirs.len(), 2);
    }
}
