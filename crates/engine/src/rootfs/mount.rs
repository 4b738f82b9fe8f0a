//! Mounting layers, and what belongs over them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rcon_store::{Form, Snapshot};
use rcon_sys::mount::{self as mounts, Attributes};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::error::{Context, Result};

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The files of a container that does not run.
pub(crate) fn tree(snapshot: &Snapshot, write: bool) -> Result<OwnedFd> {
    match (&snapshot.form, write) {
        (Form::Fuse { program }, _) => fuse(program, snapshot, write),
        (Form::Copy { .. }, _) => {
            overlay(std::slice::from_ref(&snapshot.merged), None, Path::new(""))
        }
        (Form::Overlay, true) => {
            let upper = Some((&snapshot.upper, &snapshot.work));
            overlay(&snapshot.lower, upper, &snapshot.merged)
        }
        (Form::Overlay, false) => {
            let mut all = vec![snapshot.upper.clone()];
            all.extend(snapshot.lower.iter().cloned());
            overlay(&all, None, &snapshot.merged)
        }
    }
}

/// The same by fuse-overlayfs.
fn fuse(program: &Path, snapshot: &Snapshot, write: bool) -> Result<OwnedFd> {
    let why = || {
        format!(
            "cannot mount the files of the container by {}",
            program.display()
        )
    };
    let (device, tree) = rcon_sys::fuse::make().context(why)?;
    let mut lower = snapshot.lower.clone();
    if !write {
        lower.insert(0, snapshot.upper.clone());
    }
    let layers = rcon_sys::fuse::Layers {
        lower: &lower,
        upper: write.then_some((&snapshot.upper, &snapshot.work)),
    };
    rcon_sys::fuse::serve(program, layers, device).context(why)?;
    // The program stays where the tree will not be mounted: else each would keep the other.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context(why)?;
    Ok(tree)
}

/// Layers (the top one first) as one tree, with what is written into it going to `upper` (and its work directory), if that
/// is given; `stage` is an empty directory to mount on where the kernel cannot do without.
pub(crate) fn overlay(
    lower: &[PathBuf],
    upper: Option<(&PathBuf, &PathBuf)>,
    stage: &Path,
) -> Result<OwnedFd> {
    let open =
        |path: &Path| rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()).on("open", path);
    if let ([only], None) = (lower, upper) {
        return open(only);
    }
    let mount = || -> rustix::io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in lower {
            fsconfig_set_string(context.as_fd(), "lowerdir+", layer)?;
        }
        if let Some((upper, work)) = upper {
            fsconfig_set_string(context.as_fd(), "upperdir", upper)?;
            fsconfig_set_string(context.as_fd(), "workdir", work)?;
        }
        fsconfig_set_flag(context.as_fd(), "userxattr")?;
        fsconfig_create(context.as_fd())?;
        fsmount(
            context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
    };
    let why = || "cannot mount the files of the image".to_string();
    match mount() {
        Ok(tree) => Ok(tree),
        // Before Linux 6.7 layers cannot be given one by one.
        Err(Errno::INVAL) => {
            let layers: Vec<String> = lower.iter().map(|p| p.display().to_string()).collect();
            let mut options = format!("lowerdir={},userxattr", layers.join(":"));
            if let Some((upper, work)) = upper {
                options += &format!(",upperdir={},workdir={}", upper.display(), work.display());
            }
            let options = std::ffi::CString::new(options)
                .map_err(|_| Errno::INVAL)
                .context(why)?;
            let flags = match upper {
                Some(_) => rustix::mount::MountFlags::empty(),
                None => rustix::mount::MountFlags::RDONLY,
            };
            rustix::mount::mount("overlay", stage, "overlay", flags, Some(options.as_c_str()))
                .context(why)?;
            open(stage)
        }
        Err(error) => Err(error).context(why),
    }
}

/// Puts `root` on `stage` and mounts directories and files of the host in it. What is not there any more is left out, as is
/// what has no place in the root yet.
pub(super) fn attach(
    root: OwnedFd,
    stage: &Path,
    binds: &[(PathBuf, PathBuf, bool)],
    why: impl Fn() -> String + Copy,
) -> Result<OwnedFd> {
    let from_here = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    let root = match move_mount(&root, "", CWD, stage, from_here) {
        Ok(()) => root,
        // It lies there already.
        Err(Errno::INVAL) => root,
        Err(error) => return Err(error).context(why),
    };
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for (from, to, read_only) in binds {
        let tree = match mounts::copy_of_path(from, true) {
            Ok(tree) => tree,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error).on("open", from),
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let place = match rustix::fs::openat2(&root, to, flags, Mode::empty(), inside) {
            Ok(place) => place,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(error) => return Err(error).on("open", to),
        };
        if *read_only {
            mounts::set_attributes(&tree, Attributes::MOUNT_ATTR_RDONLY, None, true)
                .on("mount", to)?;
        }
        mounts::attach(&tree, &place).on("mount", to)?;
    }
    Ok(root)
}
