//! fuse-overlayfs, for kernels that mount no overlay for ordinary users.
//!
//! The file system is mounted by us and served by that program, which gets the open device and nothing to
//! mount. So it needs to be in no namespace where the mount is, and it ends by itself when the last
//! namespace with the mount does: nobody has to look after it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::FdFlags;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// What is put together.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// The trees, the top one first.
    pub lower: &'a [PathBuf],
    /// Where writes go, and the work directory on the same file system; without them it is read-only.
    pub upper: Option<(&'a Path, &'a Path)>,
}

/// Opens the device and makes the file system, mounted nowhere yet. Who looks into it waits until it is served.
///
/// To be called in the user namespace of those who are to see the files.
///
/// # Errors
/// Where there is no device, none for us, or a kernel (before 4.18) that mounts it for root alone.
pub fn make() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::openat(CWD, "/dev/fuse", flags, Mode::empty())?;
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let number = device.as_raw_fd().to_string();
    for (key, value) in [
        ("source", "fuse-overlayfs"),
        ("subtype", "fuse-overlayfs"),
        ("fd", &number),
        ("rootmode", "40000"),
        ("user_id", "0"),
        ("group_id", "0"),
    ] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_set_flag(&context, "allow_other")?;
    fsconfig_set_flag(&context, "default_permissions")?;
    fsconfig_create(&context)?;
    let none = MountAttrFlags::empty();
    let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, none)?;
    Ok((device, tree))
}

/// Starts `program`, fuse-overlayfs, to serve `device`.
///
/// To be called in a user namespace with the ids of the files, and in a mount namespace where the file system
/// will never be mounted. The process is nobody's: it ends when the file system does.
///
/// # Errors
/// When it cannot be started.
pub fn serve(program: &Path, layers: Layers<'_>, device: OwnedFd) -> io::Result<()> {
    let mut options = OsString::from("lowerdir=");
    for (at, layer) in layers.lower.iter().enumerate() {
        if at > 0 {
            options.push(":");
        }
        options.push(escaped(layer));
    }
    if let Some((upper, work)) = layers.upper {
        options.push(",upperdir=");
        options.push(escaped(upper));
        options.push(",workdir=");
        options.push(escaped(work));
    }
    rustix::io::fcntl_setfd(&device, FdFlags::empty())?;
    Command::new(program)
        .arg("-f")
        .arg("-o")
        .arg(options)
        .arg(format!("/dev/fd/{}", device.as_raw_fd()))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
}

/// With backslashes before what separates options and layers.
fn escaped(path: &Path) -> OsString {
    let mut text = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        if b"\\:,".contains(&byte) {
            text.push(b'\\');
        }
        text.push(byte);
    }
    OsString::from_vec(text)
}

/// Where the program is, if it is installed.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/local/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(usual)
        .map(|dir| dir.join("fuse-overlayfs"))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_escaped() {
        assert_eq!(escaped(Path::new("/a:b,c\\d")), "/a\\:b\\,c\\\\d");
    }
}
