//! Owners, modes, times and extended attributes.
//!
//! Of extended attributes an image may set `user.*` and the capabilities of files. It may not set
//! what means something to overlay (`user.overlay.*`) or to rcon (`user.rootlesscontainers`); all
//! others only root could set.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::sched::CloneFlags;
use rcon_sys::owner::{TRUE_OWNER, TrueOwner};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::Policy;
use super::archive::Entry;
use super::pax::Time;
use crate::error::{Error, Result};

/// Give this thread a umask of its own, of nothing, so that modes need no second call; whether
/// that worked. The umask of the process does not change.
pub(super) fn own_umask() -> bool {
    let own = nix::sched::unshare(CloneFlags::CLONE_FS).is_ok();
    if own {
        rustix::process::umask(Mode::empty());
    }
    own
}

/// What somebody is called who owns a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// To be set; nothing if it is 0:0, which everything belongs to that we make.
    pub(super) set: Option<(Uid, Gid)>,
    /// To be noted in an extended attribute.
    pub(super) note: bool,
}

impl Owner {
    /// What to do about the owner of an entry.
    pub(super) fn of(entry: &Entry, policy: &Policy) -> Self {
        let root = (entry.uid, entry.gid) == (0, 0);
        let id = |value: u64| u32::try_from(value).ok().filter(|&id| id != u32::MAX);
        let ids = match (id(entry.uid), id(entry.gid), &policy.shift) {
            (Some(uid), Some(gid), Some(shift)) => shift.uid(uid).zip(shift.gid(gid)),
            (uid, gid, _) => uid.zip(gid),
        };
        let set = match ids {
            Some((uid, gid)) if !root && !policy.single => {
                Some((Uid::from_raw(uid), Gid::from_raw(gid)))
            }
            _ => None,
        };
        Self {
            set,
            note: !root && set.is_none(),
        }
    }
}

/// What came of it.
pub(super) struct Applied {
    /// The owner could not be had.
    pub(super) squashed: bool,
    /// Nor could it be noted.
    pub(super) unnoted: bool,
}

/// What an open file or directory gets besides its times.
pub(super) struct Attributes<'a> {
    pub(super) entry: &'a Entry,
    pub(super) owner: Owner,
    /// The mode it gets at last, if it has another one until then.
    pub(super) mode: Option<u32>,
}

impl Attributes<'_> {
    /// Set them.
    pub(super) fn apply(&self, fd: impl AsFd) -> Result<Applied> {
        let failed = |what: &str, error: Errno| {
            Error::io(
                format!("cannot set {what} of {}", self.entry.shown()),
                error,
            )
        };
        let mut note = self.owner.note;
        if let Some((uid, gid)) = self.owner.set {
            match rustix::fs::fchown(&fd, Some(uid), Some(gid)) {
                Ok(()) => {}
                // An id that is not mapped.
                Err(Errno::INVAL) => note = true,
                Err(error) => return Err(failed("the owner", error)),
            }
        }
        let mut unnoted = false;
        if note {
            let noted = note_owner(&fd, self.entry);
            unnoted = !noted.map_err(|error| failed("the true owner", error))?;
        }
        // After the owner: a change of that takes capabilities away.
        for (name, value) in &self.entry.xattrs {
            set_xattr(&fd, name, value).map_err(|error| failed("an extended attribute", error))?;
        }
        if let Some(mode) = self.mode {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))
                .map_err(|error| failed("the mode", error))?;
        }
        Ok(Applied {
            squashed: note && self.owner.set.is_some(),
            unnoted,
        })
    }
}

/// Give a link, or another thing that is not opened, its owner; whether that could not be had.
pub(super) fn own_at(parent: &OwnedFd, name: &[u8], entry: &Entry, owner: Owner) -> Result<bool> {
    let Some((uid, gid)) = owner.set else {
        // Extended attributes of users are for files and directories only.
        return Ok(false);
    };
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::chownat(parent, name, Some(uid), Some(gid), flags) {
        Ok(()) => Ok(false),
        Err(Errno::INVAL) => Ok(true),
        Err(error) => Err(Error::io(
            format!("cannot set the owner of {}", entry.shown()),
            error,
        )),
    }
}

/// Whether an image may set this attribute.
pub(crate) fn is_allowed(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.")
            && !name.starts_with(b"user.overlay.")
            && !name.starts_with(b"user.fuseoverlayfs.")
            && name != TRUE_OWNER.as_bytes())
}

fn set_xattr(fd: impl AsFd, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    if !is_allowed(name) {
        return Ok(());
    }
    match rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()) {
        // A file system without them, or an id that may not have capabilities: the file works
        // without.
        Err(Errno::NOTSUP | Errno::PERM) => Ok(()),
        other => other,
    }
}

/// Whether that can be done here.
fn note_owner(fd: impl AsFd, entry: &Entry) -> rustix::io::Result<bool> {
    let id = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let value = TrueOwner::new(id(entry.uid), id(entry.gid)).encode();
    match rustix::fs::fsetxattr(fd, TRUE_OWNER, &value, XattrFlags::empty()) {
        Err(Errno::NOTSUP) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Change the mode of a directory in `parent`; links are not followed.
pub(super) fn mode_of_dir(parent: &OwnedFd, name: &[u8], mode: u32) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    // A handle has no other way to it.
    let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
    rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())
}

/// Set the time of an open file or directory.
pub(super) fn times_of(fd: impl AsFd, mtime: Time) -> rustix::io::Result<()> {
    rustix::fs::futimens(fd, &timestamps(mtime))
}

/// Set the time of something in `parent`; links are not followed.
pub(super) fn times_at(parent: &OwnedFd, name: &[u8], mtime: Time) -> rustix::io::Result<()> {
    rustix::fs::utimensat(parent, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// Nobody knows when it was last read: not before it was written.
fn timestamps(mtime: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Bytes as a name.
pub(super) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_set_few_attributes() {
        for name in ["user.mime_type", "security.capability", "user.x"] {
            assert!(is_allowed(name.as_bytes()), "{name}");
        }
        for name in [
            "user.overlay.opaque",
            "user.overlay.redirect",
            "user.rootlesscontainers",
            "trusted.overlay.opaque",
            "security.selinux",
            "security.ima",
            "system.posix_acl_access",
            "",
        ] {
            assert!(!is_allowed(name.as_bytes()), "{name}");
        }
    }
}
