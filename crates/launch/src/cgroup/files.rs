//! The files of a cgroup.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rcon_sys::folders::{self, Descent};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::error::reason;
use super::{Error, Result};

/// A value for a file of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The file's name; up to its first dot it is that of its controller.
    pub file: String,
    /// What is written.
    pub value: String,
    /// Where the file need not be: what is wanted holds without it.
    pub optional: bool,
}

impl Setting {
    pub(super) fn new(file: &str, value: impl ToString) -> Setting {
        Setting {
            file: file.to_owned(),
            value: value.to_string(),
            optional: false,
        }
    }

    pub(super) fn optional(file: &str, value: impl ToString) -> Setting {
        Setting {
            optional: true,
            ..Setting::new(file, value)
        }
    }

    pub(super) fn controller(&self) -> &str {
        self.file.split('.').next().unwrap_or_default()
    }
}

pub(super) fn is_denied(error: &io::Error) -> bool {
    [Some(libc::EACCES), Some(libc::EPERM)].contains(&error.raw_os_error())
}

pub(super) fn write_raw(path: &Path, text: &str) -> io::Result<()> {
    // One write: the kernel takes each for a whole value.
    fs::File::options()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    write_raw(path, text).map_err(|error| Error::file("write", path, &error))
}

pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Error::file("read", path, &error))
}

/// Make all settings in the cgroup `dir`.
pub(super) fn apply(dir: &Path, settings: &[Setting]) -> Result<()> {
    for setting in settings {
        let path = dir.join(&setting.file);
        match write_raw(&path, &setting.value) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && setting.optional => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoController {
                    controller: setting.controller().to_owned(),
                    file: setting.file.clone(),
                });
            }
            Err(error) => {
                return Err(Error::Refused {
                    file: setting.file.clone(),
                    value: setting.value.clone(),
                    reason: reason(&error),
                });
            }
        }
    }
    Ok(())
}

/// The number behind `key` in a file of lines `KEY NUMBER`.
pub(super) fn keyed(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    keyed_in(&text, key)
}

pub(super) fn keyed_in(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// The number that a file consists of; `None` for `max` too.
pub(super) fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// One of the numbers in `cgroup.events`.
pub(super) fn event(dir: &Path, key: &str) -> Result<Option<u64>> {
    Ok(keyed_in(&read(&dir.join("cgroup.events"))?, key))
}

/// The processes of `dir` and of all below it.
pub(super) fn collect_pids(dir: &Path, pids: &mut Vec<i32>) {
    // One that goes meanwhile has none.
    let _ = collect(dir, pids);
}

fn collect(dir: &Path, pids: &mut Vec<i32>) -> rustix::io::Result<()> {
    let mut look = |dir: &OwnedFd| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, "cgroup.procs", flags, Mode::empty());
        let text = file.map(|file| io::read_to_string(fs::File::from(file)));
        let text = text.unwrap_or_else(|error| Err(error.into()));
        let text = text.unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    };
    let top = folders::open(CWD, dir)?;
    look(&top);
    let mut levels = vec![folders_in(&top)];
    let mut way = Descent::new(top);
    while let Some(names) = levels.last_mut() {
        let Some(name) = names.pop() else {
            levels.pop();
            way.leave()?;
            continue;
        };
        if let Ok(inner) = folders::open(way.here(), &name) {
            look(&inner);
            levels.push(folders_in(&inner));
            way.enter(inner)?;
        }
    }
    Ok(())
}

/// The names of the folders in one.
fn folders_in(dir: &OwnedFd) -> Vec<CString> {
    let entries = Dir::read_from(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type() == FileType::Directory)
        .map(|entry| entry.file_name().to_owned())
        .filter(|name| name.as_c_str() != c"." && name.as_c_str() != c"..")
        .collect()
}

/// Remove `dir` and all below it; the last process may take a moment to leave.
pub(super) fn remove(dir: &Path, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match is_removed(CWD, dir) {
            Ok(true) => return Ok(()),
            Err(error) => return Err(Error::file("remove", dir, &error.into())),
            Ok(false) if Instant::now() > deadline => return Err(Error::Slow),
            Ok(false) => {}
        }
        match remove_below(dir) {
            Ok(true) => {}
            Ok(false) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(Error::file("remove", dir, &error.into())),
        }
    }
}

/// Remove what can be removed of all below `dir`, the innermost first; whether anything was.
fn remove_below(dir: &Path) -> rustix::io::Result<bool> {
    let top = match folders::open(CWD, dir) {
        Err(Errno::NOENT) => return Ok(true),
        other => other?,
    };
    let mut levels = vec![(folders_in(&top), CString::default())];
    let mut way = Descent::new(top);
    let mut any = false;
    while let Some((names, _)) = levels.last_mut() {
        let Some(name) = names.pop() else {
            let left = levels.pop();
            if way.leave()?.is_some()
                && let Some((_, name)) = left
            {
                any |= is_removed(way.here(), &*name)?;
            }
            continue;
        };
        if is_removed(way.here(), &*name)? {
            any = true;
            continue;
        }
        match folders::open(way.here(), &*name) {
            Ok(inner) => {
                levels.push((folders_in(&inner), name));
                way.enter(inner)?;
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(any)
}

/// Remove a folder; whether it is gone, or something is in it.
fn is_removed(parent: BorrowedFd<'_>, name: impl Arg) -> rustix::io::Result<bool> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        // Of a cgroup it is the former.
        Err(Errno::BUSY | Errno::NOTEMPTY) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_removed_however_deep() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("c");
        fs::create_dir(&dir).unwrap();
        let mut at = folders::open(CWD, &dir).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "a", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&at, "b", Mode::RWXU).unwrap();
            at = folders::open(&at, "a").unwrap();
        }
        fs::write(temp.path().join("c/a/cgroup.procs"), "5\n6\n").unwrap();
        let procs = rustix::fs::openat(
            &at,
            "cgroup.procs",
            OFlags::CREATE | OFlags::WRONLY,
            Mode::RUSR,
        );
        rustix::io::write(procs.unwrap(), b"7\n").unwrap();
        let mut pids = Vec::new();
        collect_pids(&dir, &mut pids);
        assert_eq!(pids, [5, 6, 7]);
        rustix::fs::unlinkat(&at, "cgroup.procs", AtFlags::empty()).unwrap();
        // A folder with a file in it is as good as one with a process.
        assert!(matches!(
            remove(&dir, Duration::from_millis(2)),
            Err(Error::Slow)
        ));
        fs::remove_file(temp.path().join("c/a/cgroup.procs")).unwrap();
        remove(&dir, Duration::from_secs(60)).unwrap();
        assert!(!dir.exists());
    }
}
