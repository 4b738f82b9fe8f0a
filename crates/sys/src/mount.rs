//! Mounts by file descriptor: the mount calls of Linux 5.2 and mount_setattr(2) of 5.12.
//!
//! Nothing here takes a path of a container's root filesystem: a mount is made detached, gets its
//! attributes, and is then put on a folder or file that the caller has opened and looked at. So no
//! symbolic link can lead a mount astray.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

pub use rustix::mount::MountAttrFlags as Attributes;

/// How mounts of one place appear in its copies (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Both ways.
    Shared,
    /// From the original only.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and the mount cannot be bound elsewhere.
    Unbindable,
}

/// A new file system of `kind`, not attached anywhere yet.
///
/// `options` are pairs of name and value; a name without value is a flag. Fails with `ENODEV` for
/// an unknown kind, `EPERM` where this user namespace may not mount it, `EINVAL` for an unknown
/// option.
pub fn new_filesystem(
    kind: &str,
    source: Option<&Path>,
    options: &[(String, Option<String>)],
    attributes: Attributes,
) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(source) = source {
        fsconfig_set_string(&context, "source", source)?;
    }
    for (name, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, name.as_str(), value.as_str())?,
            None => fsconfig_set_flag(&context, name.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A copy of the mount at `path`, not attached anywhere yet, with all that is mounted below it
/// when `recursive`.
///
/// Symbolic links of `path` are followed. Fails with `EINVAL` for a copy that would uncover what
/// another user has mounted over (a copy that is not recursive, of a place with mounts below).
pub fn copy_of_path(path: &Path, recursive: bool) -> Result<OwnedFd> {
    open_tree(CWD, path, tree_flags(recursive))
}

/// As [`copy_of_path`], of what the descriptor `of` is open on.
///
/// # Errors
/// As [`copy_of_path`].
pub fn copy_of(of: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    open_tree(of, "", tree_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH)
}

fn tree_flags(recursive: bool) -> OpenTreeFlags {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags
}

/// Put the detached mount `mount` on what `target` is open on.
///
/// # Errors
/// As move_mount(2): without rights over this mount namespace, or where the target is gone.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    move_mount(
        mount,
        "",
        target,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

/// Put the detached mount `mount` on the entry `name` of the folder `folder`, which must be one
/// that nobody else changes: symbolic links are not followed, but the entry is looked up by name.
///
/// # Errors
/// As [`attach`]; `ENOENT` where there is no such entry.
pub fn attach_to_entry(mount: impl AsFd, folder: impl AsFd, name: &str) -> Result<()> {
    move_mount(
        mount,
        "",
        folder,
        name,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// Add attributes to the mount that `mount` is the root of, and to all below it when `recursive`;
/// attributes that it has stay, as a user namespace must keep those of its parent.
///
/// An access time attribute takes the place of the one that was there.
///
/// # Errors
/// As mount_setattr(2).
pub fn set_attributes(
    mount: impl AsFd,
    set: Attributes,
    propagation: Option<Propagation>,
    recursive: bool,
) -> Result<()> {
    let mut clear = Attributes::empty();
    // Relative access times are the value 0 and so need their mask cleared to be set at all.
    let times = Attributes::MOUNT_ATTR_NOATIME | Attributes::MOUNT_ATTR_STRICTATIME;
    if set.intersects(times) {
        clear |= Attributes::MOUNT_ATTR__ATIME;
    }
    change(mount.as_fd(), set, clear, propagation, recursive)
}

/// As [`set_attributes`] without a change of propagation; the attributes in `clear` are taken away,
/// which fails with `EPERM` for those that a parent user namespace has put there.
pub fn replace_attributes(
    mount: impl AsFd,
    set: Attributes,
    mut clear: Attributes,
    recursive: bool,
) -> Result<()> {
    let times = Attributes::MOUNT_ATTR_NOATIME | Attributes::MOUNT_ATTR_STRICTATIME;
    if set.intersects(times) || clear.intersects(times) {
        clear |= Attributes::MOUNT_ATTR__ATIME;
    }
    change(mount.as_fd(), set, clear, None, recursive)
}

/// Show the owners of the files of a detached mount, and of all below it when `recursive`, through
/// the id maps of the user namespace `userns` (MOUNT_ATTR_IDMAP, mount_setattr(2)).
///
/// Needs `CAP_SYS_ADMIN` in the user namespace of the file system (`EPERM`), and a file system that
/// can do it (`EINVAL`).
pub fn map_ids(mount: impl AsFd, userns: impl AsFd, recursive: bool) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(userns.as_fd().as_raw_fd().unsigned_abs()),
    };
    set_attr(mount.as_fd(), &attr, recursive)
}

fn change(
    mount: BorrowedFd<'_>,
    set: Attributes,
    clear: Attributes,
    propagation: Option<Propagation>,
    recursive: bool,
) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: u64::from(set.bits()),
        attr_clr: u64::from(clear.bits()),
        propagation: match propagation {
            None => 0,
            Some(Propagation::Shared) => libc::MS_SHARED,
            Some(Propagation::Slave) => libc::MS_SLAVE,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Unbindable) => libc::MS_UNBINDABLE,
        },
        userns_fd: 0,
    };
    set_attr(mount, &attr, recursive)
}

fn set_attr(mount: BorrowedFd<'_>, attr: &libc::mount_attr, recursive: bool) -> Result<()> {
    let recurse = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: a valid descriptor, a terminated empty path, and a whole mount_attr that outlives
    // the call together with its true size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recurse,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}
