//! What a container wrote, as the top layer of an overlay would have it.
//!
//! With an overlay that is there anyway. Of a whole tree it is found by comparing it with the layers it was
//! made of, without reading more than need be: what the kernel has not touched since (its change time says
//! so, which nobody can set) and looks the same is the same.

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rcon_sys::folders::Descent;
use rcon_sys::owner::{FileKey, SideFile, TrueOwner};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, statat};
use rustix::io::{Errno, Result as Outcome};

use crate::error::{Context, Result};
use crate::flatten::finish;
use crate::layered::{Layered, LayeredDescent, Seen};
use crate::pack::attributes;
use crate::snapshots::{Form, Snapshot, Time};
use crate::stage::{Stage, names_in};
use crate::store::{DIRECTORY, Store};
use crate::unpack::{BESIDE, hide};

/// A tree with what a container added and changed, and the marks of what it deleted.
#[derive(Debug)]
pub struct Written {
    path: PathBuf,
    /// It is made for the occasion, and goes with this object.
    _stage: Option<Stage>,
}

impl Written {
    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Written {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Store {
    /// What the container of a snapshot wrote.
    ///
    /// Call this in a process that is root of a user namespace with the store's id maps.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn written(&self, snapshot: &Snapshot) -> Result<Written> {
        let Form::Copy { since } = snapshot.form else {
            return Ok(Written {
                path: snapshot.upper.clone(),
                _stage: None,
            });
        };
        let what = || "cannot compare the files of the container with its image";
        let stage = Stage::new(self, "written")?;
        let upper = Mode::RWXU;
        rustix::fs::mkdirat(stage.dir(), "upper", upper).context(what)?;
        let out = rustix::fs::openat(stage.dir(), "upper", DIRECTORY, Mode::empty());
        let out = out.context(what)?;
        let tree = rustix::fs::openat(CWD, &snapshot.merged, DIRECTORY, Mode::empty());
        let tree = tree.context(what)?;
        let layers = Layered::open(snapshot.lower.iter().map(PathBuf::as_path)).context(what)?;
        // The owners of what takes no attributes are known by inode, and that is the same, but for directories.
        let path = snapshot.upper.with_file_name(BESIDE);
        let beside = self.path(stage.name()).join(BESIDE);
        let owners = match std::fs::copy(&path, &beside) {
            Ok(_) => Some(SideFile::open(&beside).context(what)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).context(what),
        };
        let mut comparison = Comparison { since, owners };
        comparison.all(tree, layers, out).context(what)?;
        Ok(Written {
            path: self.path(stage.name()).join("upper"),
            _stage: Some(stage),
        })
    }
}

struct Comparison {
    /// When the tree was made.
    since: Time,
    /// The owners that are not on the files, of the layers, of the tree and of what is put out.
    owners: Option<SideFile>,
}

/// A directory on the way down.
struct Level {
    /// What the tree has in it, sorted.
    names: Vec<OsString>,
    /// The first of these that was not looked at yet.
    next: usize,
    /// Something in it is otherwise than below.
    differs: bool,
    /// What it is; nothing at the root.
    itself: Option<Folder>,
}

struct Folder {
    name: OsString,
    stat: Stat,
    /// The directory itself is as below.
    same: bool,
}

impl Level {
    fn of(dir: &OwnedFd, itself: Option<Folder>) -> Outcome<Self> {
        let mut names = names_in(dir)?;
        names.sort();
        Ok(Self {
            names,
            next: 0,
            differs: false,
            itself,
        })
    }
}

/// The same directory of the tree, of the layers, and of what is put out.
type Three = (OwnedFd, Layered, OwnedFd);

impl Comparison {
    /// Whose something is, where that is not on itself.
    fn owner(&self, at: impl AsFd, name: &OsStr) -> Option<TrueOwner> {
        let key = FileKey::of(at, name).ok()?.1?;
        self.owners.as_ref()?.get(&key)
    }

    /// Whether it belongs to whom it belonged to, as far as lists tell.
    fn same_owner(&self, tree: BorrowedFd<'_>, name: &OsStr, before: &Seen<'_>) -> bool {
        let of = |owner: Option<TrueOwner>| owner.unwrap_or_default();
        self.owners.is_none() || of(self.owner(tree, name)) == of(self.owner(before.dir, name))
    }

    /// Put into `out` what `tree` has otherwise than `below`.
    fn all(&mut self, tree: OwnedFd, below: Layered, out: OwnedFd) -> Outcome<()> {
        let mut levels = vec![Level::of(&tree, None)?];
        let (mut tree, mut out) = (Descent::new(tree), Descent::new(out));
        let mut below = LayeredDescent::new(below);
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.names.get(level.next).cloned() {
                level.next += 1;
                let stat = match statat(tree.here(), &name, AtFlags::SYMLINK_NOFOLLOW) {
                    // The container may run.
                    Err(Errno::NOENT) => continue,
                    other => other?,
                };
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    level.differs |=
                        self.file(tree.here(), &name, &stat, below.here(), out.here())?;
                    continue;
                }
                let entered = self.dir(tree.here(), name, &stat, below.here(), out.here())?;
                if let Some((folder, (dir, inner, made))) = entered {
                    levels.push(Level::of(&dir, Some(folder))?);
                    tree.enter(dir)?;
                    below.enter(inner)?;
                    out.enter(made)?;
                }
                continue;
            }
            for name in below.here().names()? {
                if level.names.binary_search(&name).is_err() {
                    hide(out.here(), name.as_bytes())?;
                    level.differs = true;
                }
            }
            let (differs, itself) = (level.differs, level.itself.take());
            levels.pop();
            below.leave()?;
            let (Some(folder), Some(dir), Some(made)) = (itself, tree.leave()?, out.leave()?)
            else {
                break;
            };
            if !differs && folder.same {
                rustix::fs::unlinkat(out.here(), &folder.name, AtFlags::REMOVEDIR)?;
                continue;
            }
            finish(dir.as_fd(), made.as_fd(), &folder.stat)?;
            let owner = self.owner(&dir, OsStr::new(""));
            if let (Some(owner), Some(key)) = (owner, FileKey::of(&made, "")?.1)
                && let Some(list) = &mut self.owners
            {
                list.set(key, owner).map_err(|_| Errno::IO)?;
            }
            if let Some(above) = levels.last_mut() {
                above.differs = true;
            }
        }
        let stat = rustix::fs::fstat(tree.here())?;
        finish(tree.here(), out.here(), &stat)
    }

    /// Put out what is no directory, if it is otherwise than below; whether it is.
    fn file(
        &self,
        tree: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
        below: &Layered,
        out: BorrowedFd<'_>,
    ) -> Outcome<bool> {
        let same = below.find(name)?.is_some_and(|before| {
            is_same(tree, name, stat, &before, self.since) && self.same_owner(tree, name, &before)
        });
        if same {
            return Ok(false);
        }
        match rustix::fs::linkat(tree, name, out, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// A directory, which is to be entered; nothing if it is gone.
    fn dir(
        &self,
        tree: BorrowedFd<'_>,
        name: OsString,
        stat: &Stat,
        below: &Layered,
        out: BorrowedFd<'_>,
    ) -> Outcome<Option<(Folder, Three)>> {
        let dir = match rustix::fs::openat(tree, &name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let before = below.find(&name)?;
        let before = before.as_ref();
        let was_dir = before.is_some_and(|before| before.kind() == FileType::Directory);
        let inner = match was_dir {
            true => below.enter(&name)?,
            false => Layered::default(),
        };
        rustix::fs::mkdirat(out, &name, Mode::RWXU)?;
        let made = rustix::fs::openat(out, &name, DIRECTORY, Mode::empty())?;
        let same = inner.top().is_some_and(|top| {
            before.is_some_and(|before| same_status(stat, &before.stat))
                && (is_before(stat, self.since) || same_attributes(dir.as_fd(), top))
        }) && before.is_some_and(|before| self.same_owner(tree, &name, before));
        let folder = Folder {
            name,
            stat: *stat,
            same,
        };
        Ok(Some((folder, (dir, inner, made))))
    }
}

fn is_before(stat: &Stat, since: Time) -> bool {
    let changed = Time {
        seconds: stat.st_ctime,
        nanoseconds: stat.st_ctime_nsec,
    };
    changed.cmp(&since) == Ordering::Less
}

/// Kind, mode and owner.
fn same_status(now: &Stat, before: &Stat) -> bool {
    (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
}

fn is_same(tree: BorrowedFd<'_>, name: &OsStr, now: &Stat, before: &Seen<'_>, since: Time) -> bool {
    let was = &before.stat;
    let times = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
    if !same_status(now, was) || now.st_size != was.st_size || times(now) != times(was) {
        return false;
    }
    if is_before(now, since) {
        return true;
    }
    match before.kind() {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let open = |dir: BorrowedFd<'_>| rustix::fs::openat(dir, name, flags, Mode::empty());
            let (Ok(a), Ok(b)) = (open(tree), open(before.dir)) else {
                return false;
            };
            same_attributes(a.as_fd(), b.as_fd()) && same_content(a.into(), b.into())
        }
        FileType::Symlink => {
            let target = |dir: BorrowedFd<'_>| rustix::fs::readlinkat(dir, name, Vec::new()).ok();
            target(tree) == target(before.dir)
        }
        _ => now.st_rdev == was.st_rdev,
    }
}

fn same_attributes(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    let ours = |(name, _): &(Vec<u8>, Vec<u8>)| !name.starts_with(b"user.overlay.");
    let of = |fd| {
        let mut all: Vec<_> = attributes(fd).ok()?.into_iter().filter(ours).collect();
        all.sort();
        Some(all)
    };
    of(a) == of(b)
}

fn same_content(mut a: File, mut b: File) -> bool {
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let Ok(count) = a.read(&mut left) else {
            return false;
        };
        if count == 0 {
            return matches!(b.read(&mut right), Ok(0));
        }
        if b.read_exact(&mut right[..count]).is_err() || left[..count] != right[..count] {
            return false;
        }
    }
}
