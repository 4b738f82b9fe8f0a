//! Owners of files, as the container sees them: noted in an attribute of the file, or beside.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rcon_sys::notify;
use rcon_sys::owner::{Device, FileKey, SideFile, TRUE_OWNER, TrueOwner};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, XattrFlags, fstat, openat};
use rustix::io::Errno;

use super::alive;
use super::identity::Identity;
use super::locate::{Named, path_of};

/// The bits of a mode that give ids.
pub(super) const GIVES_IDS: u32 = SET_UID | SET_GID;
/// The special bits that a change of the owner takes away.
const SET_UID: u32 = libc::S_ISUID;
const SET_GID: u32 = libc::S_ISGID;
const SET_GID_MARK: u32 = SET_GID | libc::S_IXGRP;

/// The notes of a container.
#[derive(Debug)]
pub(super) struct Files {
    side: SideFile,
    /// The container's root.
    top: OwnedFd,
    /// How many bytes of notes beside there are before those of what is gone are looked for.
    limit: u64,
}

/// Bytes of notes that are added before that, at the least.
const ADDED: u64 = 64 << 10;
/// Bytes of a note, more or less.
const NOTE: u64 = 56;
/// So many more bytes for each file that was looked at the last time, so that looking costs each note little.
const FOR_A_FILE: u64 = 16;
/// How many files are looked at, at the most, and how many more for each note.
const FILES: (u64, u64) = (1 << 20, 64);

/// The file whose status is asked for.
#[derive(Clone, Copy)]
pub(super) enum Meant<'a> {
    /// The one of this name.
    Name(&'a Named),
    /// This one, open.
    Open(BorrowedFd<'a>),
}

/// What is known of a file.
pub(super) struct Known {
    pub(super) stat: Stat,
    pub(super) owner: TrueOwner,
}

impl Files {
    /// The notes of the container whose root is that of this process.
    pub(super) fn new(side: SideFile) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            limit: side.size() + ADDED,
            side,
            top: openat(CWD, "/", flags, Mode::empty())?,
        })
    }

    /// What is noted of an open file.
    pub(super) fn noted_on(&mut self, fd: BorrowedFd<'_>) -> io::Result<Option<TrueOwner>> {
        match attribute_of(fd)? {
            Some(owner) => Ok(Some(owner)),
            None => self.beside(fd),
        }
    }

    /// What is noted of the file called `name`; `None` when nothing is, or it cannot be looked at:
    /// then what the kernel says is right.
    pub(super) fn noted(&mut self, name: &Named) -> io::Result<Option<TrueOwner>> {
        let path = name.path()?;
        if let Some(owner) = attribute(&path, name.follow) {
            return Ok(Some(owner));
        }
        // Most containers have nothing beside.
        self.side.refresh()?;
        if self.side.is_empty() {
            return Ok(None);
        }
        let Ok(fd) = name.pin() else { return Ok(None) };
        self.beside(fd.as_fd())
    }

    fn beside(&mut self, fd: BorrowedFd<'_>) -> io::Result<Option<TrueOwner>> {
        self.side.refresh()?;
        if self.side.is_empty() {
            return Ok(None);
        }
        let key = FileKey::of(fd, c"")?.1;
        Ok(key.and_then(|key| self.side.get(&key)))
    }

    /// Whether there is anything to do for root where it opens a file that it may have to make: a device was made in
    /// this container, or [`Files::notes_all`].
    pub(super) fn watch_creation(&mut self) -> bool {
        self.side.refresh().is_ok() && (self.side.has_devices() || self.side.has_weak())
    }

    /// Whether new files must be noted though they are root's: what is noted of an earlier one
    /// would be taken for theirs.
    pub(super) fn notes_all(&mut self) -> bool {
        self.side.refresh().is_ok() && self.side.has_weak()
    }

    /// All about a pinned file.
    pub(super) fn look(&mut self, fd: BorrowedFd<'_>) -> io::Result<Known> {
        let stat = fstat(fd)?;
        let owner = self.owner(fd, &stat)?;
        Ok(Known { stat, owner })
    }

    /// Whose a pinned file is.
    fn owner(&mut self, fd: BorrowedFd<'_>, stat: &Stat) -> io::Result<TrueOwner> {
        let noted = self.noted_on(fd)?;
        Ok(noted.unwrap_or(TrueOwner::new(stat.st_uid, stat.st_gid)))
    }

    /// Note the owner of a pinned file, which is of this kind.
    pub(super) fn note(
        &mut self,
        fd: BorrowedFd<'_>,
        kind: FileType,
        owner: TrueOwner,
    ) -> io::Result<()> {
        let set = match kind {
            FileType::RegularFile | FileType::Directory => set_attribute(fd, owner),
            _ => Err(Errno::NOTSUP),
        };
        match set {
            Ok(()) if owner.device.is_none() => Ok(()),
            // What stands for a device is known beside too, so that others ask for it.
            Ok(()) | Err(Errno::NOTSUP) => match FileKey::of(fd, c"")?.1 {
                Some(key) if !(owner.is_root() && self.beside(fd)?.is_none()) => {
                    self.side.set(key, owner)?;
                    if self.side.size() >= self.limit {
                        self.tidy();
                    }
                    Ok(())
                }
                // A file system of the kernel's own (a terminal, proc): it would not last anyway.
                _ => Ok(()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Drop the notes of what is gone. Where that fails they stay, and it is tried again when there are more.
    fn tidy(&mut self) {
        let most = FILES.0 + FILES.1 * self.side.len() as u64;
        // We are in the `/proc` of outside.
        let found = std::fs::read("self/mountinfo")
            .and_then(|mounts| alive::search(self.top.as_fd(), &mounts, &self.side, most));
        self.limit = match found {
            Ok(Some(found)) => {
                let there = self.side.compact(&found.marks).unwrap_or(0) as u64;
                self.side.size() + ADDED.max(there * NOTE) + found.files * FOR_A_FILE
            }
            _ => self.side.size() * 2,
        };
    }

    /// Change the owner of the file called `name`, as `who`.
    pub(super) fn chown(
        &mut self,
        fd: BorrowedFd<'_>,
        (uid, gid): (u32, u32),
        who: &Identity,
        powerful: bool,
    ) -> io::Result<()> {
        let stat = fstat(fd)?;
        if stat.st_uid != 0 {
            // Somebody's who is not in this container.
            return Err(Errno::PERM.into());
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        // What is given away is mostly new: then nothing is noted of it, which one call finds out and mends.
        let both = uid != u32::MAX && gid != u32::MAX && (uid, gid) != (0, 0);
        if powerful && both && matches!(kind, FileType::RegularFile | FileType::Directory) {
            take_special_bits(fd, &stat)?;
            if rcon_sys::owner::note_first_on(fd, TrueOwner::new(uid, gid)).is_ok() {
                return Ok(());
            }
        }
        let old = self.owner(fd, &stat)?;
        let or = |id: u32, old: u32| if id == u32::MAX { old } else { id };
        let new = TrueOwner {
            uid: or(uid, old.uid),
            gid: or(gid, old.gid),
            device: old.device,
        };
        let own = who.user.fs == old.uid;
        let free = new.uid == old.uid && (new.gid == old.gid || who.is_in(new.gid)) && own;
        if !powerful && !free {
            return Err(Errno::PERM.into());
        }
        take_special_bits(fd, &stat)?;
        if new == old {
            return Ok(());
        }
        self.note(fd, kind, new)
    }

    /// The owner of what `who` makes in the pinned directory `parent`.
    pub(super) fn owner_of_new(
        &mut self,
        parent: BorrowedFd<'_>,
        who: &Identity,
    ) -> io::Result<TrueOwner> {
        let folder = self.look(parent)?;
        // To the kernel it is root's doing, who may everywhere.
        if !may_write(&folder, who) {
            return Err(Errno::ACCESS.into());
        }
        let mut owner = TrueOwner::new(who.user.fs, who.group.fs);
        if folder.stat.st_mode & SET_GID != 0 {
            owner.gid = folder.owner.gid;
        }
        Ok(owner)
    }
}

/// As the kernel does where the owner of a file changes.
fn take_special_bits(fd: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<()> {
    let mode = stat.st_mode;
    let lost = match mode & SET_GID_MARK == SET_GID_MARK {
        true => SET_UID | SET_GID,
        false => SET_UID,
    };
    if FileType::from_raw_mode(mode) != FileType::RegularFile || mode & lost == 0 {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(mode & 0o7777 & !lost);
    rustix::fs::chmod(path_of(fd).as_str(), mode)
}

/// Whether there is something of this name in a directory.
pub(super) fn exists(parent: BorrowedFd<'_>, name: &[u8]) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Whether the mode of a directory lets `who` make something in it.
fn may_write(folder: &Known, who: &Identity) -> bool {
    let shift = match folder.owner {
        _ if who.user.fs == 0 || who.kept => return true,
        TrueOwner { uid, .. } if uid == who.user.fs => 6,
        TrueOwner { gid, .. } if who.is_in(gid) => 3,
        _ => 0,
    };
    folder.stat.st_mode >> shift & 0o3 == 0o3
}

/// What the attribute of the file at `path` says.
fn attribute(path: &CStr, follow: bool) -> Option<TrueOwner> {
    let mut value = [0; 64];
    let len = match follow {
        true => rustix::fs::getxattr(path, TRUE_OWNER, &mut value),
        false => rustix::fs::lgetxattr(path, TRUE_OWNER, &mut value),
    };
    TrueOwner::decode(value.get(..len.ok()?)?)
}

/// What the attribute of a pinned file says.
fn attribute_of(fd: BorrowedFd<'_>) -> io::Result<Option<TrueOwner>> {
    let mut value = [0; 64];
    match rustix::fs::fgetxattr(fd, TRUE_OWNER, &mut value) {
        Ok(len) => Ok(value.get(..len).and_then(TrueOwner::decode)),
        // It is not open, only named.
        Err(Errno::BADF) => Ok(attribute(&CString::new(path_of(fd))?, true)),
        Err(_) => Ok(None),
    }
}

/// Note an owner in the attribute of a pinned file; root's is what has none.
fn set_attribute(fd: BorrowedFd<'_>, owner: TrueOwner) -> rustix::io::Result<()> {
    match rcon_sys::owner::note_on(fd, owner) {
        // As above.
        Err(Errno::BADF) => {}
        set => return set,
    }
    let path = path_of(fd);
    match owner.is_root() {
        true => match rustix::fs::removexattr(path.as_str(), TRUE_OWNER) {
            Err(Errno::NODATA) => Ok(()),
            removed => removed,
        },
        false => {
            let value = owner.encode();
            rustix::fs::setxattr(path.as_str(), TRUE_OWNER, &value, XattrFlags::empty())
        }
    }
}

/// Tell `thread` the status of a file with its true owner: stat(2).
pub(super) fn tell(thread: i32, file: Meant<'_>, to: u64, owner: TrueOwner) -> io::Result<()> {
    let mut stat = match file {
        Meant::Name(name) => notify::status(&name.path()?, no_follow(name))?,
        Meant::Open(fd) => notify::status_of(fd)?,
    };
    stat.st_uid = owner.uid;
    stat.st_gid = owner.gid;
    if let Some(device) = owner.device {
        stat.st_mode = stat.st_mode & 0o7777 | device.type_bits();
        stat.st_rdev = device.number;
        stat.st_size = 0;
    }
    notify::write_status(thread, to, &stat)
}

/// The same for statx(2).
pub(super) fn tell_x(
    thread: i32,
    file: Meant<'_>,
    (flags, mask, to): (i32, u32, u64),
    owner: TrueOwner,
) -> io::Result<()> {
    const SYNC: i32 = 0x6000;
    let flags = flags & SYNC;
    let mut stat = match file {
        Meant::Name(name) => notify::status_x(&name.path()?, flags | no_follow(name), mask)?,
        Meant::Open(fd) => notify::status_x_of(fd, flags, mask)?,
    };
    stat.stx_uid = owner.uid;
    stat.stx_gid = owner.gid;
    if let Some(device) = owner.device {
        stat.stx_mode = stat.stx_mode & 0o7777 | device.type_bits() as u16;
        stat.stx_rdev_major = rustix::fs::major(device.number);
        stat.stx_rdev_minor = rustix::fs::minor(device.number);
        stat.stx_size = 0;
    }
    notify::write_status_x(thread, to, &stat)
}

fn no_follow(name: &Named) -> i32 {
    match name.follow {
        true => 0,
        false => libc::AT_SYMLINK_NOFOLLOW,
    }
}

/// The names of a file's extended attributes without our own; `None` when that is not among them.
pub(super) fn names_without_ours(name: &Named) -> io::Result<Option<Vec<u8>>> {
    let path = name.path()?;
    let mut buffer = vec![0; 64 * 1024];
    let len = match name.follow {
        true => rustix::fs::listxattr(&path, &mut buffer)?,
        false => rustix::fs::llistxattr(&path, &mut buffer)?,
    };
    let ours = |name: &[u8]| name.strip_suffix(b"\0") == Some(TRUE_OWNER.as_bytes());
    let names = || buffer[..len].split_inclusive(|byte| *byte == 0);
    if !names().any(ours) {
        return Ok(None);
    }
    Ok(Some(
        names()
            .filter(|name| !ours(name))
            .flatten()
            .copied()
            .collect(),
    ))
}

/// The devices that a container has in its `/dev`, which a node that it makes can stand for.
pub(super) fn real_device(device: Device, flags: OFlags) -> io::Result<OwnedFd> {
    let minor = rustix::fs::minor(device.number);
    let path = match (device.block, rustix::fs::major(device.number), minor) {
        (false, 1, 3) => "/dev/null",
        (false, 1, 5) => "/dev/zero",
        (false, 1, 7) => "/dev/full",
        (false, 1, 8) => "/dev/random",
        (false, 1, 9) => "/dev/urandom",
        _ => return Err(Errno::NXIO.into()),
    };
    // Looked at before it is opened: at a fifo in its place we would wait for ever.
    let pinned = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if fstat(&pinned)?.st_rdev != device.number {
        return Err(Errno::NXIO.into());
    }
    let flags = flags - OFlags::CREATE - OFlags::EXCL - OFlags::TRUNC - OFlags::NOFOLLOW;
    let flags = flags | OFlags::CLOEXEC;
    Ok(openat(CWD, path_of(&pinned), flags, Mode::empty())?)
}

/// The mask of `thread` for the modes of what it makes.
pub(super) fn umask(thread: i32) -> u32 {
    // The name in it is the program's own, and need not be a text.
    let status = std::fs::read(format!("{thread}/status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
        .unwrap_or(0o022)
}

/// Whose ids the execution of a file gives, as its mode and owner say; and the file.
pub(super) struct Gain {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) file: (u64, u64),
}

impl Files {
    /// What the execution of the file called `name` gives `who`.
    pub(super) fn gain(&mut self, name: &Named, who: &Identity) -> io::Result<Gain> {
        let fd = name.pin()?;
        let known = self.look(fd.as_fd())?;
        let mode = known.stat.st_mode;
        let file = (known.stat.st_dev, known.stat.st_ino);
        // What belongs to somebody who is not in this container gives nothing, as the kernel has it.
        let ours = known.stat.st_uid == 0 && known.stat.st_gid == 0;
        let marked =
            ours && mode & GIVES_IDS != 0 && FileType::from_raw_mode(mode) == FileType::RegularFile;
        if !marked || who.bound || is_script(fd.as_fd()) {
            return Ok(Gain {
                uid: None,
                gid: None,
                file,
            });
        }
        Ok(Gain {
            uid: (mode & SET_UID != 0).then_some(known.owner.uid),
            gid: (mode & SET_GID_MARK == SET_GID_MARK).then_some(known.owner.gid),
            file,
        })
    }
}

/// Whether the mode of a file says that its execution gives ids.
pub(super) fn gives_ids(name: &Named) -> bool {
    let status = name
        .path()
        .and_then(|path| notify::status(&path, no_follow(name)));
    status.is_ok_and(|status| status.st_mode & GIVES_IDS != 0)
}

/// The mode of a script says nothing.
fn is_script(fd: BorrowedFd<'_>) -> bool {
    let mut start = [0; 2];
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = openat(CWD, path_of(fd), flags, Mode::empty());
    opened.is_ok_and(|file| rustix::io::read(file, &mut start).is_ok_and(|_| start == *b"#!"))
}
