//! Mounting what becomes the root of the container.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::sched::CloneFlags;
use oci_spec::runtime::Spec;
use rcon_sys::mount::{self, Attributes, Propagation};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount as mount_old, mount_change};

use crate::channel;
use crate::error::{Context, Error, RawError, Result};
use crate::namespaces::Namespaces;
use crate::request::{FuseOverlay, Rootfs};
use crate::root::Root;

/// Cut the mounts of this new mount namespace off from those they are copies of, as far as `spec`
/// wants them cut off (`rootfsPropagation`); they are left behind with the old root anyway, but what
/// is bound from them keeps it.
pub(crate) fn isolate(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    let linux = spec.linux().as_ref();
    let word = linux.and_then(|linux| linux.rootfs_propagation().as_deref());
    if !namespaces.new.contains(CloneFlags::CLONE_NEWNS) {
        return Ok(());
    }
    let kind = match word.unwrap_or_default() {
        // From another user namespace nothing ever gets back.
        "shared" | "rshared" if !namespaces.other_users() => MountPropagationFlags::SHARED,
        "private" | "rprivate" => MountPropagationFlags::PRIVATE,
        _ => MountPropagationFlags::DOWNSTREAM,
    };
    match mount_change("/", kind | MountPropagationFlags::REC) {
        Err(Errno::PERM) => Err(Error::Namespaces { errno: libc::EPERM }),
        // The root is no mount of its own, as after chroot(2): then it propagates nothing either.
        _ => Ok(()),
    }
}

/// A root filesystem whose parts are within reach, whoever this process becomes.
pub(crate) enum Opened<'a> {
    Fuse(&'a FuseOverlay),
    Dir(&'a Path),
    Overlay(Layers),
}

/// The folders of an overlay.
pub(crate) struct Layers {
    lower: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
    /// The folder that `upper` is in, by that name.
    above: OwnedFd,
    name: OsString,
    volatile: bool,
}

/// Open the parts of `rootfs`.
pub(crate) fn open(rootfs: &Rootfs) -> Result<Opened<'_>> {
    let open =
        |path: &Path| folder(path).context(|| format!("cannot open the layer {}", path.display()));
    Ok(match rootfs {
        Rootfs::Fuse(layers) => Opened::Fuse(layers),
        Rootfs::Dir(path) => Opened::Dir(path),
        Rootfs::Overlay {
            lower,
            upper,
            work,
            volatile,
        } => {
            let (Some(above), Some(name)) = (upper.parent(), upper.file_name()) else {
                return Err(Error::Invalid(format!(
                    "{} cannot take what a container writes",
                    upper.display()
                )));
            };
            Opened::Overlay(Layers {
                lower: lower.iter().map(|path| open(path)).collect::<Result<_>>()?,
                upper: open(upper)?,
                work: open(work)?,
                above: open(above)?,
                name: name.to_owned(),
                volatile: *volatile,
            })
        }
    })
}

/// Mount the root filesystem in the mount namespace of this process; its root folder.
///
/// The working directory of this process may have changed afterwards. `socket` leads to the caller.
pub(crate) fn mount(opened: Opened<'_>, socket: &OwnedFd) -> Result<Root> {
    match opened {
        Opened::Fuse(layers) => fuse(layers, socket),
        Opened::Dir(path) => bind(path),
        Opened::Overlay(layers) => overlay(&layers),
    }
}

fn bind(path: &Path) -> Result<Root> {
    let step = || format!("cannot use {} as the root filesystem", path.display());
    let target = folder(path).context(step)?;
    let tree = mount::copy_of_path(path, true).context(step)?;
    // What the host mounts in it later is not the container's business.
    mount::set_attributes(&tree, Attributes::empty(), Some(Propagation::Private), true)
        .context(step)?;
    keep_to_ourselves(path).context(step)?;
    mount::attach(&tree, &target).context(step)?;
    Ok(Root::new(tree))
}

/// Make the mount that `path` is in private, so that what is mounted there does not show up
/// elsewhere.
fn keep_to_ourselves(path: &Path) -> rustix::io::Result<()> {
    let path = std::fs::canonicalize(path)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    for place in path.ancestors() {
        match mount_change(place, MountPropagationFlags::PRIVATE) {
            // Only the root of a mount can be told.
            Err(Errno::INVAL) => {}
            other => return other,
        }
    }
    Ok(())
}

/// As many layers as [`layers`] takes: a string for fsconfig(2) has at most 255 bytes.
pub(crate) const MOST_AT_ONCE: usize = 50;

/// The folders `lower` over one another, the topmost first, read-only and not attached anywhere yet. No more than
/// [`MOST_AT_ONCE`].
///
/// The working directory of this process may have changed afterwards.
pub(crate) fn layers(lower: &[&Path]) -> Result<OwnedFd> {
    let (_open, names) = open_layers(lower)?;
    let data = [
        ("lowerdir".to_owned(), Some(names)),
        ("userxattr".to_owned(), None),
    ];
    mount::new_filesystem("overlay", None, &data, Attributes::MOUNT_ATTR_RDONLY).map_err(|error| {
        Error::Overlay {
            errno: error.raw_os_error(),
        }
    })
}

/// Mount the folders `lower` over one another on the folder `scratch`, in which writes go to two new
/// folders.
///
/// The working directory of this process may have changed afterwards.
pub(crate) fn layers_over(lower: &[&Path], scratch: &OwnedFd) -> Result<()> {
    let (_open, names) = open_layers(lower)?;
    let mut options = format!("lowerdir={names},userxattr");
    let mut kept = Vec::new();
    for (name, option) in [("upper", "upperdir"), ("work", "workdir")] {
        let step = || "cannot make a place for what is written".to_owned();
        rustix::fs::mkdirat(scratch, name, Mode::from(0o755)).context(step)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let made = openat(scratch, name, flags, Mode::empty()).context(step)?;
        options.push_str(&format!(",{option}={}", made.as_raw_fd()));
        kept.push(made);
    }
    let options = std::ffi::CString::new(options)
        .map_err(|_| Error::Invalid("a layer has an impossible name".to_owned()))?;
    let place = scratch.as_raw_fd().to_string();
    let flags = MountFlags::empty();
    mount_old(
        "overlay",
        Path::new(&place),
        "overlay",
        flags,
        options.as_c_str(),
    )
    .map_err(|error| Error::Overlay {
        errno: error.raw_os_error(),
    })
}

/// Opens layers; with them their names in `/proc/self/fd`, which is the working directory then.
fn open_layers(lower: &[&Path]) -> Result<(Vec<OwnedFd>, String)> {
    let open =
        |path: &&Path| folder(path).context(|| format!("cannot open the layer {}", path.display()));
    let open: Vec<OwnedFd> = lower.iter().map(open).collect::<Result<_>>()?;
    rustix::process::chdir("/proc/self/fd").context(|| "cannot enter /proc/self/fd".to_owned())?;
    let names: Vec<String> = open.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    Ok((open, names.join(":")))
}

/// Mount layers as an overlay over the folder `upper`, which nobody needs in this namespace.
///
/// The layers are named by the numbers of open descriptors, relative to `/proc/self/fd`: the
/// options of mount(2) must fit one page, and four bytes a layer leave room for more layers than
/// overlayfs takes (500) however long their paths are; nor do colons and commas in paths matter.
/// And the container's mount table shows no path of the host.
fn overlay(layers: &Layers) -> Result<Root> {
    let names: Vec<String> = layers
        .lower
        .iter()
        .map(|fd| fd.as_raw_fd().to_string())
        .collect();
    let mut options = format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        names.join(":"),
        layers.upper.as_raw_fd(),
        layers.work.as_raw_fd()
    );
    if layers.volatile {
        options.push_str(",volatile");
    }
    rustix::process::chdir("/proc/self/fd").context(|| "cannot enter /proc/self/fd".to_owned())?;
    let options = std::ffi::CString::new(options)
        .map_err(|_| Error::Invalid("a layer has an impossible name".to_owned()))?;
    let place = Path::new(&layers.above.as_raw_fd().to_string()).join(&layers.name);
    mount_old(
        "overlay",
        &place,
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .map_err(|error| Error::Overlay { errno: error.raw() })?;
    // By its name again, which now leads to the mount on top of the folder.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(&layers.above, &layers.name, flags, Mode::empty())
        .map(Root::new)
        .context(|| "cannot open the mounted root filesystem".to_owned())
}

/// Mount what the caller will have served to us.
fn fuse(layers: &FuseOverlay, socket: &OwnedFd) -> Result<Root> {
    let step = || "cannot mount the layers by fuse-overlayfs".to_owned();
    let (device, tree) = rcon_sys::fuse::make().context(step)?;
    channel::send_device(socket, device)?;
    let target = folder(&layers.upper).context(step)?;
    mount::attach(&tree, &target).context(step)?;
    Ok(Root::new(tree))
}

/// The caller's part: start the program that serves `device`, with the ids of `userns`.
pub(crate) fn serve(layers: &FuseOverlay, userns: &OwnedFd, device: OwnedFd) -> Result<()> {
    let step = || format!("cannot start {}", layers.program.display());
    let work = |_: &mut dyn std::io::Write| {
        let parts = rcon_sys::fuse::Layers {
            lower: &layers.lower,
            upper: Some((&layers.upper, &layers.work)),
        };
        match rcon_sys::fuse::serve(&layers.program, parts, device) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        }
    };
    let (status, _) = rcon_sys::userns::run_in(userns.as_fd(), work).context(step)?;
    match status.code() {
        Some(0) => Ok(()),
        code => Err(Errno::from_raw_os_error(code.unwrap_or(libc::EIO))).context(step),
    }
}

fn folder(path: &Path) -> rustix::io::Result<OwnedFd> {
    openat(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Make `root` the root of this process's mount namespace and leave the old one.
pub(crate) fn pivot(root: &Root) -> Result<()> {
    let step = || "cannot change to the root filesystem of the container".to_owned();
    let old = folder(Path::new("/")).context(step)?;
    rustix::process::fchdir(root.fd()).context(step)?;
    // The old root ends up on top of the new one at the same place, and goes from there.
    rustix::process::pivot_root(".", ".").context(step)?;
    rustix::process::fchdir(&old).context(step)?;
    // Where it is shared, what goes from here would go from the host too.
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change(".", slave).context(step)?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).context(step)?;
    rustix::process::chdir("/").context(step)
}

/// Give `root`, which is this process's root by now, the propagation that `spec` asks for. What is
/// mounted below has one of its own, from its options.
pub(crate) fn propagate(spec: &Spec, root: &Root) -> Result<()> {
    let linux = spec.linux().as_ref();
    let word = linux.and_then(|linux| linux.rootfs_propagation().as_deref());
    let propagation = match word.unwrap_or_default() {
        "" => return Ok(()),
        "private" | "rprivate" => Propagation::Private,
        "slave" | "rslave" => Propagation::Slave,
        "shared" | "rshared" => Propagation::Shared,
        "unbindable" | "runbindable" => Propagation::Unbindable,
        other => {
            return Err(Error::Invalid(format!(
                "{other:?} is not a propagation of mounts"
            )));
        }
    };
    mount::set_attributes(root.fd(), Attributes::empty(), Some(propagation), false)
        .context(|| "cannot set the propagation of the root filesystem".to_owned())
}
