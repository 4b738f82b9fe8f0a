//! `diff`: what a container changed of its image, or a layer of those below it.

use std::path::{Path, PathBuf};

use rcon_store::{Layered, Store, is_opaque};
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::error::{Context, Result};

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
        // A snapshot knows where the layers lie, and keeps them there.
        let snapshot = self.store.create_snapshot(&id, &image)?;
        let changes = match snapshot.lower.split_first() {
            Some((top, layers)) => self.changes(|_| Ok(top), layers),
            None => Ok(Vec::new()),
        };
        self.discard_snapshot(&id)?;
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
