//! `diff`: what a container changed of its image, or a layer of those below it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rcon_store::{Layered, LayeredDescent, Seen, Snapshot, Store, is_opaque};
use rcon_sys::folders::LONGEST_PATH;
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::error::{Context, Error, Result};
use crate::files;

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It is other than below, or what is in it is.
    Changed,
    /// It is not below.
    Added,
    /// It is only below.
    Deleted,
}

/// One file that is not as below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What became of it.
    pub kind: ChangeKind,
    /// Its path, from the root.
    pub path: String,
}

/// What every container changes: places of mounts.
const OWN: [&str; 11] = [
    "/dev",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/run",
    "/run/.containerenv",
    "/run/notify",
    "/run/secrets",
    "/sys",
];

impl Engine {
    /// What a container changed of its image, by path. What lies so deep that no path leads there is left out.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchContainer`]; files that cannot be read.
    pub fn container_changes(&self, name_or_id: &str) -> Result<Vec<Change>> {
        let container = self.container(name_or_id)?;
        let snapshot = self.store.snapshot(container.id())?;
        let Some(snapshot) = snapshot else {
            return Ok(Vec::new());
        };
        let mut changes = self.changes(|store| Ok(store.written(&snapshot)?), &snapshot.lower)?;
        changes.retain(|change| !OWN.contains(&change.path.as_str()));
        Ok(changes)
    }

    /// What the top layer of an image changed of those below, by path.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`]; files that cannot be read.
    pub fn image_changes(&self, name: &str) -> Result<Vec<Change>> {
        let image = self.find_image(name)?;
        let id = crate::names::random_id()?;
        // Should we be killed, it is swept as what is left of a container in the making.
        let (place, _lock) = self.make_place(&id)?;
        // A snapshot knows where the layers lie, and keeps them there.
        let snapshot = self.store.create_snapshot(&id, &image)?;
        let changes = match snapshot.lower.split_first() {
            Some((top, layers)) => self.changes(|_| Ok(top), layers),
            None => Ok(Vec::new()),
        };
        self.discard_snapshot(&id)?;
        files::remove_tree(&place)?;
        changes
    }

    /// What is otherwise in `of` than in `than`, by path: containers, where `containers` says so, or images, where `images` does.
    ///
    /// # Errors
    /// For what is not there; files that cannot be read.
    pub fn differences(
        &self,
        [of, than]: [&str; 2],
        containers: bool,
        images: bool,
    ) -> Result<Vec<Change>> {
        let mut made = Vec::new();
        let mut side = |name: &str| -> Result<(Snapshot, bool)> {
            if containers {
                match self.container(name) {
                    Ok(found) => {
                        let snapshot = self.store.snapshot(found.id())?;
                        let gone = || Error::NoSuchContainer(name.into());
                        return Ok((snapshot.ok_or_else(gone)?, true));
                    }
                    Err(Error::NoSuchContainer(_)) if images => {}
                    Err(error) => return Err(error),
                }
            }
            let image = self.find_image(name)?;
            let id = crate::names::random_id()?;
            // As what is left of a container in the making, should we be killed.
            let (place, lock) = self.make_place(&id)?;
            made.push((id.clone(), place, lock));
            Ok((self.store.create_snapshot(&id, &image)?, false))
        };
        let sides = side(of).and_then(|of| Ok([of, side(than)?]));
        let changes = sides.and_then(|sides| {
            let filter = sides[0].1;
            let mut changes: Vec<Change> = self.in_worker(|store| -> Result<Vec<Change>> {
                let why = || "cannot read the files of the container".to_string();
                let mut trees = Vec::new();
                let mut written = Vec::new();
                for (snapshot, own) in &sides {
                    let upper = own.then(|| store.written(snapshot)).transpose()?;
                    let below = snapshot.lower.iter().map(PathBuf::as_path);
                    let all = upper.as_ref().map(AsRef::as_ref).into_iter().chain(below);
                    trees.push(Layered::open(all).context(why)?);
                    written.push(upper);
                }
                let old = trees.pop().unwrap_or_default();
                compare(trees.pop().unwrap_or_default(), old).context(why)
            })?;
            changes.retain(|change| !filter || !OWN.contains(&change.path.as_str()));
            changes.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(changes)
        });
        let discarded = made.iter().map(|(id, place, _)| {
            self.discard_snapshot(id)?;
            files::remove_tree(place)
        });
        // Each of them, whatever becomes of the others.
        discarded.fold(Ok(()), Result::and)?;
        changes
    }

    fn changes<T: AsRef<Path>>(
        &self,
        upper: impl FnOnce(&Store) -> Result<T>,
        lower: &[PathBuf],
    ) -> Result<Vec<Change>> {
        let mut changes: Vec<Change> = self.in_worker(|store| -> Result<Vec<Change>> {
            let upper = upper(store)?;
            let why = || "cannot read the files of the container".to_string();
            let top = Layered::open([upper.as_ref()]).context(why)?;
            let below = Layered::open(lower.iter().map(PathBuf::as_path)).context(why)?;
            walk(top, below).context(why)
        })?;
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }
}

/// What was found so far, and where one is. What lies so deep that no path leads there is not told of: its name would help
/// nobody, and a container could fill the memory with such names.
struct Changes {
    path: Vec<u8>,
    all: Vec<Change>,
}

impl Changes {
    fn new() -> Self {
        Self {
            path: b"/".to_vec(),
            all: Vec::new(),
        }
    }

    /// Of something in the directory that one is in.
    fn note(&mut self, kind: ChangeKind, name: &OsStr) {
        if self.path.len() + name.len() > LONGEST_PATH {
            return;
        }
        let path = [&self.path[..], name.as_bytes()].concat();
        self.all.push(Change {
            kind,
            path: String::from_utf8_lossy(&path).into_owned(),
        });
    }

    /// Goes into a directory; how to come back.
    fn enter(&mut self, name: &OsStr) -> usize {
        let back = self.path.len();
        self.path.extend_from_slice(name.as_bytes());
        self.path.push(b'/');
        back
    }

    /// Whether anything in the directory can be told of.
    fn is_too_deep(&self) -> bool {
        self.path.len() >= LONGEST_PATH
    }
}

/// What the top layer has otherwise than those below.
fn walk(top: Layered, below: Layered) -> rustix::io::Result<Vec<Change>> {
    let mut changes = Changes::new();
    let mut levels = vec![(look(&top, &below, &mut changes)?, 0)];
    let (mut top, mut below) = (LayeredDescent::new(top), LayeredDescent::new(below));
    while let Some((inner, back)) = levels.last_mut() {
        let Some(name) = inner.pop() else {
            changes.path.truncate(*back);
            levels.pop();
            top.leave()?;
            below.leave()?;
            continue;
        };
        let back = changes.enter(&name);
        if changes.is_too_deep() {
            changes.path.truncate(back);
            continue;
        }
        let (over, under) = (top.here().enter(&name)?, below.here().enter(&name)?);
        levels.push((look(&over, &under, &mut changes)?, back));
        top.enter(over)?;
        below.enter(under)?;
    }
    Ok(changes.all)
}

/// Looks at one directory of the top layer and at the same directory of those below; the directories in it.
fn look(
    top: &Layered,
    below: &Layered,
    changes: &mut Changes,
) -> rustix::io::Result<Vec<OsString>> {
    let hides = top.top().is_some_and(is_opaque);
    for name in below.names()? {
        if top.find(&name)?.is_none() && (hides || top.deletes(&name)?) {
            changes.note(ChangeKind::Deleted, &name);
        }
    }
    let mut inner = Vec::new();
    for name in top.names()? {
        let Some(seen) = top.find(&name)? else {
            continue;
        };
        let kind = match below.find(&name)? {
            Some(_) => ChangeKind::Changed,
            None => ChangeKind::Added,
        };
        changes.note(kind, &name);
        if seen.kind() == FileType::Directory {
            inner.push(name);
        }
    }
    Ok(inner)
}

/// A directory of two trees on the way down.
struct Level {
    names: std::vec::IntoIter<OsString>,
    /// How to come back to the one above.
    back: usize,
    name: OsString,
    /// What it is itself, beside what is in it.
    itself: Option<ChangeKind>,
    /// Something in it is other than it was.
    differs: bool,
}

/// What is otherwise in one tree than in another.
fn compare(new: Layered, old: Layered) -> rustix::io::Result<Vec<Change>> {
    let mut changes = Changes::new();
    let mut levels = vec![Level {
        names: new.names()?.into_iter(),
        back: 0,
        name: OsString::new(),
        itself: None,
        differs: deletions(&new, &old, &mut changes)?,
    }];
    let (mut new, mut old) = (LayeredDescent::new(new), LayeredDescent::new(old));
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            let Some(done) = levels.pop() else { break };
            new.leave()?;
            old.leave()?;
            changes.path.truncate(done.back);
            // A directory is other when anything in it is.
            let kind = done.itself.or(done.differs.then_some(ChangeKind::Changed));
            if let (Some(above), Some(kind)) = (levels.last_mut(), kind) {
                changes.note(kind, &done.name);
                above.differs = true;
            }
            continue;
        };
        let Some(seen) = new.here().find(&name)? else {
            continue;
        };
        let itself = match old.here().find(&name)? {
            None => Some(ChangeKind::Added),
            Some(before) if looks(&before) != looks(&seen) => Some(ChangeKind::Changed),
            Some(_) => None,
        };
        if seen.kind() != FileType::Directory {
            if let Some(kind) = itself {
                changes.note(kind, &name);
                level.differs = true;
            }
            continue;
        }
        let (now, before) = (new.here().enter(&name)?, old.here().enter(&name)?);
        let back = changes.enter(&name);
        levels.push(Level {
            names: now.names()?.into_iter(),
            back,
            name,
            itself,
            differs: deletions(&now, &before, &mut changes)?,
        });
        new.enter(now)?;
        old.enter(before)?;
    }
    Ok(changes.all)
}

/// What is in a directory of the old tree only; whether there is anything.
fn deletions(new: &Layered, old: &Layered, changes: &mut Changes) -> rustix::io::Result<bool> {
    let mut any = false;
    for name in old.names()? {
        if new.find(&name)?.is_none() {
            changes.note(ChangeKind::Deleted, &name);
            any = true;
        }
    }
    Ok(any)
}

/// What tells two files apart: of directories neither size nor time.
fn looks(seen: &Seen<'_>) -> impl PartialEq + use<> {
    let stat = &seen.stat;
    let file = (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    let file = (seen.kind() != FileType::Directory).then_some(file);
    (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev, file)
}
