//! `diff`: what a container changed of its image, or a layer of those below it.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode};
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

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

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
        let mut changes = self.changes(snapshot.upper, snapshot.lower)?;
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
        let mut layers = snapshot.lower.clone();
        let top = layers.remove(0);
        let changes = self.changes(top, layers);
        self.discard_snapshot(&id)?;
        changes
    }

    fn changes(&self, upper: PathBuf, lower: Vec<PathBuf>) -> Result<Vec<Change>> {
        let mut changes: Vec<Change> = self.in_worker(|_| -> Result<Vec<Change>> {
            let open = |path: &PathBuf| {
                rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()).on("open", path)
            };
            let top = open(&upper)?;
            let below = lower.iter().map(open).collect::<Result<Vec<_>>>()?;
            let mut changes = Vec::new();
            walk(&top, below, Path::new("/"), &mut changes)
                .context(|| "cannot read the files of the container".into())?;
            Ok(changes)
        })?;
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }
}

/// Looks at one directory of the top layer and at the same directory of those below, as far as they have it.
fn walk(
    top: &OwnedFd,
    below: Vec<OwnedFd>,
    path: &Path,
    changes: &mut Vec<Change>,
) -> rustix::io::Result<()> {
    let mut note = |kind, path: &Path| {
        changes.push(Change {
            kind,
            path: path.to_string_lossy().into_owned(),
        });
    };
    let opaque = is_opaque(top);
    let mine = names(top)?;
    if opaque {
        for name in seen(&below)? {
            if !mine.contains(&name) {
                note(ChangeKind::Deleted, &path.join(&name));
            }
        }
    }
    let mut inner = Vec::new();
    for name in mine {
        let stat = rustix::fs::statat(top, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode as RawMode);
        let here = path.join(&name);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            note(ChangeKind::Deleted, &here);
            continue;
        }
        note(
            match is_there(&below, &name) {
                true => ChangeKind::Changed,
                false => ChangeKind::Added,
            },
            &here,
        );
        if kind == FileType::Directory {
            inner.push((name, here));
        }
    }
    for (name, here) in inner {
        let dir = rustix::fs::openat(top, &name, DIRECTORY, Mode::empty())?;
        walk(&dir, entered(&below, &name), &here, changes)?;
    }
    Ok(())
}

fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

/// The names that lower layers show together.
fn seen(below: &[OwnedFd]) -> rustix::io::Result<Vec<OsString>> {
    let mut all: Vec<OsString> = Vec::new();
    for dir in below {
        all.extend(names(dir)?);
    }
    all.sort();
    all.dedup();
    all.retain(|name| is_there(below, name));
    Ok(all)
}

/// Whether a name is seen in lower layers, the top one first.
fn is_there(below: &[OwnedFd], name: &OsString) -> bool {
    for dir in below {
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let kind = FileType::from_raw_mode(stat.st_mode as RawMode);
                return !(kind == FileType::CharacterDevice && stat.st_rdev == 0);
            }
            Err(_) if is_opaque(dir) => return false,
            Err(_) => {}
        }
    }
    false
}

/// The directory of that name in those lower layers whose content is seen through it.
fn entered(below: &[OwnedFd], name: &OsString) -> Vec<OwnedFd> {
    let mut dirs = Vec::new();
    for dir in below {
        match rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()) {
            Ok(inner) => {
                let last = is_opaque(&inner);
                dirs.push(inner);
                if last {
                    break;
                }
            }
            Err(rustix::io::Errno::NOENT) if !is_opaque(dir) => {}
            // A file, or a deletion: nothing below it is seen.
            Err(_) => break,
        }
    }
    dirs
}

fn is_opaque(dir: impl AsFd) -> bool {
    let mut value = [0_u8; 8];
    rustix::fs::fgetxattr(dir, "user.overlay.opaque", &mut value[..])
        .is_ok_and(|len| &value[..len] == b"y")
}
