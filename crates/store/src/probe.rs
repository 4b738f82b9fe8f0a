//! Does overlay work here?
//!
//! Whether a user namespace may mount an overlay on this kernel and this file system cannot be
//! read off anything: so one is mounted, in a namespace of its own, and used. That it worked is
//! remembered in the store, for this kernel and this file system.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rcon_sys::ids::IdMaps;
use rcon_sys::userns;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::{Context, Result};
use crate::stage::Stage;
use crate::store::{DIRECTORY, Store};
use crate::unpack::hide;

/// Whether containers can have an overlay as their root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// It was tried and worked.
    pub works: bool,
    /// Why it does not, and what to do about it; for people.
    pub reason: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    kernel: String,
    file_system: String,
}

const MEMORY: &str = "overlay.json";

impl Store {
    /// Whether overlay works in a user namespace, on the file system of this store.
    ///
    /// Tried once; after that the reading of one small file. Forks when it tries, so the caller
    /// must have one thread.
    ///
    /// # Errors
    /// When the store cannot be written, or there can be no namespaces.
    pub fn probe_overlay(&self) -> Result<Overlay> {
        let here = self.here()?;
        let known = atomic::read(self.dir(), MEMORY, atomic::LIMIT)
            .ok()
            .and_then(|text| serde_json::from_slice::<Memory>(&text).ok());
        let works = Overlay {
            works: true,
            reason: None,
        };
        if known.as_ref() == Some(&here) {
            return Ok(works);
        }
        if let Some(reason) = self.try_overlay(&here)? {
            return Ok(Overlay {
                works: false,
                reason: Some(reason),
            });
        }
        // Where this cannot be written it is tried again the next time.
        if let Ok(text) = serde_json::to_vec(&here) {
            let _ = atomic::write(self, MEMORY, &text);
        }
        Ok(works)
    }

    /// This kernel and this file system.
    pub(crate) fn here(&self) -> Result<Memory> {
        let stat = rustix::fs::fstatvfs(self.dir())
            .context(|| format!("cannot look at {}", self.root().display()))?;
        let kind = rustix::fs::fstatfs(self.dir())
            .context(|| format!("cannot look at {}", self.root().display()))?;
        let names = rustix::system::uname();
        Ok(Memory {
            kernel: names.release().to_string_lossy().into_owned(),
            file_system: format!("{:x}-{:x}", kind.f_type, stat.f_fsid),
        })
    }

    /// Mount one and use it; why it does not work, if it does not.
    fn try_overlay(&self, here: &Memory) -> Result<Option<String>> {
        let said = self.tried(exercise)?;
        Ok(said.map(|failed| match failed {
            Failed::Step(step, number) => explain(&step, number, &here.kernel),
            Failed::Before(why) => why,
        }))
    }

    /// The same with fuse-overlayfs.
    pub(crate) fn try_fuse(&self, program: &Path) -> Result<Option<String>> {
        let said = self.tried(|dir| exercise_fuse(program, dir))?;
        Ok(said.map(|failed| match failed {
            Failed::Step(step, number) => {
                let why = crate::error::Why(&io::Error::from_raw_os_error(number)).to_string();
                match &*step {
                    "device" => format!("fuse-overlayfs cannot use /dev/fuse ({why})"),
                    step => format!("fuse-overlayfs does not work ({step}: {why})"),
                }
            }
            Failed::Before(why) => why,
        }))
    }

    /// Have `exercise` try something in a user namespace, in a directory with what it needs.
    fn tried(
        &self,
        exercise: impl FnOnce(&Path) -> std::result::Result<(), (&'static str, io::Error)>,
    ) -> Result<Option<Failed>> {
        let stage = Stage::new(self, "overlay")?;
        let what = || format!("cannot make folders in {}", self.path("tmp").display());
        for folder in ["lower", "lower/sub", "upper", "work", "merged"] {
            rustix::fs::mkdirat(stage.dir(), folder, Mode::RWXU).context(what)?;
        }
        atomic::write_new(stage.dir(), "lower/sub/file", b"below").context(what)?;
        let path = self.path(stage.name());
        let ran = userns::run(&IdMaps::single(), |out| {
            let answer = exercise(&path);
            let number = match &answer {
                Ok(()) => 0,
                Err((_, error)) => error.raw_os_error().unwrap_or(libc::EIO),
            };
            let step = answer.err().map_or("", |(step, _)| step);
            i32::from(write!(out, "{number} {step}").is_err())
        });
        let (status, said) = match ran {
            Ok(result) => result,
            Err(error) => {
                return Ok(Some(Failed::Before(format!(
                    "a user namespace cannot be made here: {}",
                    crate::error::Why(&error)
                ))));
            }
        };
        let said = String::from_utf8_lossy(&said);
        Ok(match said.split_once(' ') {
            Some(("0", _)) if status.success() => None,
            Some((number, step)) => {
                let number = number.parse().unwrap_or(libc::EIO);
                Some(Failed::Step(step.to_owned(), number))
            }
            None => Some(Failed::Before(
                "the trial mount in a user namespace could not be set up".to_owned(),
            )),
        })
    }
}

/// Why a trial was none.
enum Failed {
    /// It came as far as this, and got this error number.
    Step(String, i32),
    /// It did not come to anything.
    Before(String),
}

/// Mount an overlay and do in it what containers do.
fn exercise(dir: &Path) -> Result<(), (&'static str, io::Error)> {
    let at = |step: &'static str| move |error: io::Error| (step, error);
    let merged = dir.join("merged");
    std::env::set_current_dir(dir).map_err(at("mount"))?;
    rustix::mount::mount(
        "overlay",
        "merged",
        "overlay",
        MountFlags::empty(),
        c"lowerdir=lower,upperdir=upper,workdir=work,userxattr",
    )
    .map_err(|error| ("mount", error.into()))?;
    rustix::fs::setxattr(dir.join("upper"), "user.rcon", b"x", XattrFlags::empty())
        .map_err(|error| ("mark", error.into()))?;
    use_tree(&merged)
}

/// Have fuse-overlayfs make one, and do the same in it.
fn exercise_fuse(program: &Path, dir: &Path) -> Result<(), (&'static str, io::Error)> {
    let (device, tree) = rcon_sys::fuse::make().map_err(|error| ("device", error))?;
    // Of the two forms that deletions have in layers it knows one; which it is depends on the file system.
    fs::create_dir(dir.join("over")).map_err(|error| ("layers", error))?;
    let over = rustix::fs::openat(CWD, dir.join("over"), DIRECTORY, Mode::empty());
    over.and_then(|over| hide(&over, b"hidden"))
        .map_err(|error| ("layers", error.into()))?;
    fs::write(dir.join("lower/hidden"), "").map_err(|error| ("layers", error))?;
    let layers = rcon_sys::fuse::Layers {
        lower: &[dir.join("over"), dir.join("lower")],
        upper: Some((&dir.join("upper"), &dir.join("work"))),
    };
    rcon_sys::fuse::serve(program, layers, device).map_err(|error| ("start", error))?;
    // Without attributes it lets nobody but root in (acl(5)), and knows no inode again.
    rustix::fs::setxattr(dir.join("upper"), "user.rcon", b"x", XattrFlags::empty())
        .map_err(|error| ("mark", error.into()))?;
    let merged = format!("/proc/self/fd/{}", tree.as_raw_fd());
    if fs::exists(format!("{merged}/hidden")).map_err(|error| ("start", error))? {
        return Err(("deletions of layers", Errno::NOTSUP.into()));
    }
    use_tree(Path::new(&merged))
}

fn use_tree(merged: &Path) -> Result<(), (&'static str, io::Error)> {
    let at = |step: &'static str| move |error: io::Error| (step, error);
    // Copying up, whiteouts and replaced directories each need something else of the file system.
    fs::write(merged.join("sub/file"), "above").map_err(at("write"))?;
    fs::remove_file(merged.join("sub/file")).map_err(at("remove"))?;
    fs::remove_dir(merged.join("sub")).map_err(at("remove"))?;
    fs::create_dir(merged.join("sub")).map_err(at("mark"))?;
    if fs::exists(merged.join("sub/file")).map_err(at("read"))? {
        return Err(("mark", Errno::NOTSUP.into()));
    }
    // As places to mount on are made.
    let mode = Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(CWD, merged.join("new"), FileType::RegularFile, mode, 0)
        .map_err(|error| ("create", error.into()))
}

fn explain(step: &str, number: i32, kernel: &str) -> String {
    let why = crate::error::Why(&io::Error::from_raw_os_error(number)).to_string();
    match (step, number) {
        ("mount", libc::ENODEV) => "the kernel has no overlay file system; as root: modprobe \
                                    overlay"
            .to_owned(),
        ("mount", libc::EPERM | libc::EACCES) if before(kernel, (5, 11)) => format!(
            "kernel {kernel} does not allow overlay in user namespaces; version 5.11 and later do"
        ),
        ("mount", libc::EPERM | libc::EACCES) => format!(
            "mounting an overlay in a user namespace is forbidden here ({why}); a security \
             policy (AppArmor, SELinux, a container) is the likely cause"
        ),
        ("mount", libc::EINVAL) => "overlay does not work on this file system (network file \
                                    systems, and overlay itself, cannot be written through it); \
                                    give --root on a local disk"
            .to_owned(),
        ("mark", _) => format!(
            "this file system keeps no extended attributes of users ({why}); give --root on \
             another one"
        ),
        _ => format!("a trial of overlay in a user namespace failed ({step}: {why})"),
    }
}

fn before(kernel: &str, version: (u32, u32)) -> bool {
    let mut numbers = kernel
        .split(|letter: char| !letter.is_ascii_digit())
        .map_while(|digits| digits.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) < version,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        assert!(before("5.10.0-28-amd64", (5, 11)));
        assert!(before("4.18", (5, 11)));
        assert!(!before("5.11", (5, 11)));
        assert!(!before("6.1.0", (5, 11)));
        assert!(!before("strange", (5, 11)));
    }

    #[test]
    fn refusals_have_a_remedy() {
        assert!(explain("mount", libc::EPERM, "5.10.1").contains("5.11"));
        assert!(explain("mount", libc::ENODEV, "6.1").contains("modprobe overlay"));
        assert!(explain("mount", libc::EINVAL, "6.1").contains("--root"));
        assert!(explain("mark", libc::ENOTSUP, "6.1").contains("--root"));
    }
}
