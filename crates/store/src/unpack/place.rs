//! What each entry of an archive becomes.
//!
//! Everything is made new (`O_EXCL` and its like), in a directory that was resolved before. What
//! is in the way is removed, never written through; only a directory may stay for a directory.

use std::collections::HashSet;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::archive::{Archive, Entry};
use super::attributes::{self, Attributes, Owner};
use super::beside::Beside;
use super::header::Kind;
use super::name::Name;
use super::tree::Tree;
use super::{Policy, whiteout};
use crate::error::{Error, Result};

/// Bytes that device nodes may take that are remembered for the sake of hard links to them, roughly.
const DEVICES: usize = 1 << 20;

/// The special bits: set-user-id, set-group-id, sticky.
const SPECIAL: u32 = 0o7000;

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) content: u64,
    pub(super) files: u64,
    pub(super) skipped: u64,
    pub(super) squashed: u64,
    pub(super) root_mode: Option<u32>,
    pub(super) replaced: bool,
}

struct Placer<'a> {
    tree: Tree<'a>,
    policy: Policy,
    /// Modes given to calls that make things are taken as they are.
    exact_modes: bool,
    devices: HashSet<Vec<u8>>,
    /// What [`DEVICES`] leaves for more of them.
    devices_left: usize,
    beside: Option<Beside<'a>>,
    counts: Counts,
}

/// Write all entries of an archive into `root`.
pub(super) fn all<R: BufRead>(
    archive: &mut Archive<R>,
    root: BorrowedFd<'_>,
    policy: Policy,
    exact_modes: bool,
) -> Result<Counts> {
    all_in(archive, Tree::new(root), policy, exact_modes)
}

/// The same for a tree that is there already.
pub(super) fn all_in<R: BufRead>(
    archive: &mut Archive<R>,
    tree: Tree<'_>,
    policy: Policy,
    exact_modes: bool,
) -> Result<Counts> {
    let beside = policy.beside.then(|| Beside::new(tree.root()));
    let mut placer = Placer {
        tree,
        policy,
        beside,
        exact_modes,
        devices: HashSet::new(),
        devices_left: DEVICES,
        counts: Counts::default(),
    };
    while let Some(entry) = archive.next()? {
        placer.place(archive, &entry)?;
    }
    placer.tree.finish()?;
    placer.counts.replaced = placer.tree.cleared();
    Ok(placer.counts)
}

impl Placer<'_> {
    /// Note whose something is where it cannot be noted on it.
    fn note_beside(&mut self, at: impl AsFd, name: &[u8], entry: &Entry) -> Result<()> {
        match &mut self.beside {
            Some(list) => list.note(at, name, entry),
            None => Ok(()),
        }
    }

    fn place<R: BufRead>(&mut self, archive: &mut Archive<R>, entry: &Entry) -> Result<()> {
        let name = Name::parse(&entry.name).map_err(|why| entry.bad(why))?;
        let Some((dir, last)) = name.split() else {
            return self.root(entry);
        };
        if let Some(request) = whiteout::request(last).map_err(|why| entry.bad(why))? {
            self.counts.skipped += u64::from(request == whiteout::Request::Ignore);
            self.counts.files += u64::from(request != whiteout::Request::Ignore);
            return whiteout::apply(&mut self.tree, dir, request);
        }
        if entry.kind == Kind::Device {
            self.skip_device(&name);
            return Ok(());
        }
        let parent = self.tree.parent(dir)?;
        let owner = Owner::of(entry, &self.policy);
        let squashed = match entry.kind {
            Kind::File => self.file(archive, entry, &name, &parent, last, owner)?,
            Kind::Dir => self.dir(entry, &name, &parent, last, owner)?,
            Kind::Link => return self.link(entry, &name, &parent, last),
            _ => self.unopened(entry, &name, &parent, last, owner)?,
        };
        self.counts.squashed += u64::from(squashed);
        self.counts.files += 1;
        Ok(())
    }

    /// Leave out a device node, or a further name of one.
    fn skip_device(&mut self, name: &Name) {
        self.counts.skipped += 1;
        let cost = name.bytes().len() + 80;
        if cost <= self.devices_left && self.devices.insert(name.bytes().to_vec()) {
            self.devices_left -= cost;
        }
    }

    /// Make something; if a thing is in the way it goes, and it is tried once more.
    fn make<T>(
        &mut self,
        entry: &Entry,
        name: &Name,
        parent: &OwnedFd,
        last: &[u8],
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T> {
        let made = match make() {
            Err(Errno::EXIST) => {
                self.tree.clear_way(parent, last, name.bytes())?;
                make()
            }
            other => other,
        };
        made.map_err(|error| cannot_make(entry, error))
    }

    fn file<R: BufRead>(
        &mut self,
        archive: &mut Archive<R>,
        entry: &Entry,
        name: &Name,
        parent: &OwnedFd,
        last: &[u8],
        owner: Owner,
    ) -> Result<bool> {
        // Writing, and a change of the owner, take the special bits away; and attributes need a
        // mode that lets us write.
        let later = entry.mode & SPECIAL != 0
            || !self.exact_modes
            || owner.note
            || !entry.xattrs.is_empty();
        let mode = if later { 0o600 } else { entry.mode };
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.make(entry, name, parent, last, || {
            rustix::fs::openat(parent, last, flags, Mode::from_raw_mode(mode))
        })?;
        self.counts.content += fill(archive, entry, name.bytes(), &file)?;
        let attributes = Attributes {
            entry,
            owner,
            mode: later.then_some(entry.mode),
        };
        let applied = attributes.apply(&file)?;
        if applied.unnoted {
            self.note_beside(&file, b"", entry)?;
        }
        attributes::times_of(&file, entry.mtime).map_err(|error| {
            Error::io(format!("cannot set the time of {}", entry.shown()), error)
        })?;
        Ok(applied.squashed)
    }

    fn dir(
        &mut self,
        entry: &Entry,
        name: &Name,
        parent: &OwnedFd,
        last: &[u8],
        owner: Owner,
    ) -> Result<bool> {
        // It must let us in until the end, and hand its group to nobody.
        let later = entry.mode & SPECIAL != 0 || entry.mode & 0o700 != 0o700 || !self.exact_modes;
        let mode = Mode::from_raw_mode(if later { 0o700 } else { entry.mode });
        let mkdir = || rustix::fs::mkdirat(parent, last, mode);
        let mut was_there = false;
        match mkdir() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let kind =
                    Tree::kind_of(parent, last).map_err(|error| cannot_make(entry, error))?;
                if kind == FileType::Directory {
                    was_there = true;
                } else {
                    let fresh = whiteout::is_one(parent, last);
                    self.tree.clear_way(parent, last, name.bytes())?;
                    mkdir().map_err(|error| cannot_make(entry, error))?;
                    if fresh {
                        let dir = self.open_dir(entry, parent, last, OFlags::PATH)?;
                        whiteout::make_opaque(&dir)
                            .map_err(|error| whiteout::refused(name.bytes(), error))?;
                    }
                }
            }
            Err(error) => return Err(cannot_make(entry, error)),
        }
        let mut squashed = false;
        if owner.note || owner.set.is_some() || !entry.xattrs.is_empty() || was_there {
            // Another entry may have given it to somebody else.
            let owner = match owner {
                Owner {
                    set: None,
                    note: false,
                } if was_there && !self.policy.single => Owner {
                    set: Some(self.policy.root()),
                    note: false,
                },
                owner => owner,
            };
            let dir = self.open_dir(entry, parent, last, OFlags::RDONLY)?;
            let applied = Attributes {
                entry,
                owner,
                mode: None,
            }
            .apply(&dir)?;
            if applied.unnoted {
                self.note_beside(&dir, b"", entry)?;
            }
            squashed = applied.squashed;
        }
        let mode = (later || was_there).then_some(entry.mode);
        self.tree.finish_later(name.bytes(), entry.mtime, mode)?;
        Ok(squashed)
    }

    fn open_dir(
        &self,
        entry: &Entry,
        parent: &OwnedFd,
        last: &[u8],
        how: OFlags,
    ) -> Result<OwnedFd> {
        let flags = how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, last, flags, Mode::empty())
            .map_err(|error| cannot_make(entry, error))
    }

    /// Symbolic links and fifos.
    fn unopened(
        &mut self,
        entry: &Entry,
        name: &Name,
        parent: &OwnedFd,
        last: &[u8],
        owner: Owner,
    ) -> Result<bool> {
        if entry.kind == Kind::Symlink {
            if entry.link.is_empty() || entry.link.contains(&0) {
                return Err(entry.bad("it is a symbolic link to nothing"));
            }
            self.make(entry, name, parent, last, || {
                rustix::fs::symlinkat(&entry.link[..], parent, last)
            })?;
        } else {
            let mode = Mode::from_raw_mode(entry.mode & !SPECIAL);
            self.make(entry, name, parent, last, || {
                rustix::fs::mknodat(parent, last, FileType::Fifo, mode, 0)
            })?;
            if !self.exact_modes {
                // It is ours and new; nothing is there to follow.
                rustix::fs::chmodat(parent, last, mode, AtFlags::empty())
                    .map_err(|error| cannot_make(entry, error))?;
            }
        }
        let squashed = attributes::own_at(parent, last, entry, owner)?;
        if owner.note {
            self.note_beside(parent, last, entry)?;
        }
        attributes::times_at(parent, last, entry.mtime).map_err(|error| {
            Error::io(format!("cannot set the time of {}", entry.shown()), error)
        })?;
        Ok(squashed)
    }

    fn link(&mut self, entry: &Entry, name: &Name, parent: &OwnedFd, last: &[u8]) -> Result<()> {
        let target = Name::parse(&entry.link)
            .map_err(|_| entry.bad("it is a hard link to something outside of the layer"))?;
        if self.devices.contains(target.bytes()) {
            self.skip_device(name);
            return Ok(());
        }
        let (from_dir, from) = target
            .split()
            .ok_or_else(|| entry.bad("it is a hard link to the root directory"))?;
        let missing = || entry.bad("it is a hard link to something that is not in the layer");
        let source = self.tree.existing(from_dir).map_err(|_| missing())?;
        let stat = |dir: &OwnedFd, name: &[u8]| {
            rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()
        };
        let there = stat(&source, from).ok_or_else(missing)?;
        if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
            return Err(entry.bad("it is a hard link to a directory"));
        }
        if stat(parent, last).is_some_and(|have| have.st_ino == there.st_ino) {
            // It is there, perhaps as the target itself, which must not be cleared away.
            return Ok(());
        }
        // Without following the target: a link to a symbolic link is just that.
        self.make(entry, name, parent, last, || {
            rustix::fs::linkat(&*source, from, parent, last, AtFlags::empty())
        })?;
        self.counts.files += 1;
        Ok(())
    }

    /// The entry of the root directory itself.
    fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Dir {
            return Err(entry.bad("it would replace the root directory"));
        }
        let owner = Owner::of(entry, &self.policy);
        let root = self.tree.root();
        let applied = Attributes {
            entry,
            owner,
            mode: None,
        }
        .apply(root)?;
        if applied.unnoted {
            self.note_beside(root, b"", entry)?;
        }
        self.tree.finish_later(b"", entry.mtime, Some(entry.mode))?;
        self.counts.root_mode = Some(entry.mode);
        self.counts.squashed += u64::from(applied.squashed);
        self.counts.files += 1;
        Ok(())
    }
}

/// Write the data of a file; how many bytes of it the archive has.
fn fill<R: BufRead>(
    archive: &mut Archive<R>,
    entry: &Entry,
    name: &[u8],
    file: &OwnedFd,
) -> Result<u64> {
    let failed = |error: Errno| Error::io(format!("cannot write {}", entry.shown()), error);
    let Some(map) = &entry.map else {
        archive.content(name, 0, entry.size, |mut piece| {
            while !piece.is_empty() {
                let count =
                    rustix::io::retry_on_intr(|| rustix::io::write(file, piece)).map_err(failed)?;
                piece = &piece[count..];
            }
            Ok(())
        })?;
        return Ok(entry.size);
    };
    let mut sum = 0;
    for region in map {
        let mut offset = region.offset;
        archive.content(name, offset, region.len, |mut piece| {
            while !piece.is_empty() {
                let count = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, piece, offset))
                    .map_err(failed)?;
                piece = &piece[count..];
                offset += count as u64;
            }
            Ok(())
        })?;
        sum += region.len;
    }
    rustix::fs::ftruncate(file, entry.size).map_err(failed)?;
    Ok(sum)
}

fn cannot_make(entry: &Entry, error: Errno) -> Error {
    match error {
        Errno::NAMETOOLONG => entry.bad("its name is too long for this file system"),
        _ => Error::io(format!("cannot make {}", entry.shown()), error),
    }
}
