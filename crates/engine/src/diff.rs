//! `diff`: what a container changed of its image, or a layer of those below it.

use std::path::{Path, PathBuf};

use rcon_store::{Layered, Seen, Snapshot, Store, is_opaque};
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
    /// What a container changed of its image, by path.
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
                let mut changes = Vec::new();
                compare(&trees[0], &trees[1], Path::new("/"), &mut changes).context(why)?;
                Ok(changes)
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
            let mut changes = Vec::new();
            walk(&top, &below, Path::new("/"), &mut changes).context(why)?;
            Ok(changes)
        })?;
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }
}

/// Looks at one directory of the top layer and at the same directory of those below.
fn walk(
    top: &Layered,
    below: &Layered,
    path: &Path,
    changes: &mut Vec<Change>,
) -> rustix::io::Result<()> {
    let mut note = |kind, path: &Path| {
        changes.push(Change {
            kind,
            path: path.to_string_lossy().into_owned(),
        });
    };
    let hides = top.top().is_some_and(is_opaque);
    for name in below.names()? {
        if top.find(&name)?.is_none() && (hides || top.deletes(&name)?) {
            note(ChangeKind::Deleted, &path.join(&name));
        }
    }
    let mut inner = Vec::new();
    for name in top.names()? {
        let Some(seen) = top.find(&name)? else {
            continue;
        };
        let here = path.join(&name);
        let kind = match below.find(&name)? {
            Some(_) => ChangeKind::Changed,
            None => ChangeKind::Added,
        };
        note(kind, &here);
        if seen.kind() == FileType::Directory {
            inner.push((name, here));
        }
    }
    for (name, here) in inner {
        walk(&top.enter(&name)?, &below.enter(&name)?, &here, changes)?;
    }
    Ok(())
}

/// Looks at one directory of a tree and at the same directory of another.
fn compare(
    new: &Layered,
    old: &Layered,
    path: &Path,
    changes: &mut Vec<Change>,
) -> rustix::io::Result<()> {
    let change = |kind, name: &std::ffi::OsStr| Change {
        kind,
        path: path.join(name).to_string_lossy().into_owned(),
    };
    for name in old.names()? {
        if new.find(&name)?.is_none() {
            changes.push(change(ChangeKind::Deleted, &name));
        }
    }
    for name in new.names()? {
        let Some(seen) = new.find(&name)? else {
            continue;
        };
        let before = old.find(&name)?;
        let so_far = changes.len();
        if seen.kind() == FileType::Directory {
            let inner = path.join(&name);
            compare(&new.enter(&name)?, &old.enter(&name)?, &inner, changes)?;
        }
        let look = |seen: &Seen<'_>| {
            let stat = &seen.stat;
            let file = (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
            let file = (seen.kind() != FileType::Directory).then_some(file);
            (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev, file)
        };
        match before {
            None => changes.push(change(ChangeKind::Added, &name)),
            // A directory is other when anything in it is.
            Some(before) if look(&before) != look(&seen) || changes.len() > so_far => {
                changes.push(change(ChangeKind::Changed, &name));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
