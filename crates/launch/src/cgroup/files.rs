//! The files of a cgroup.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

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
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for below in folders(dir) {
        collect_pids(&below, pids);
    }
}

fn folders(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Remove `dir` and all below it; the last process may take a moment to leave.
pub(super) fn remove(dir: &Path, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() != Some(libc::EBUSY) => {
                return Err(Error::file("remove", dir, &error));
            }
            Err(_) if Instant::now() > deadline => return Err(Error::Slow),
            Err(_) => {}
        }
        let below = folders(dir);
        if below.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        for dir in below {
            remove(&dir, deadline.saturating_duration_since(Instant::now()))?;
        }
    }
}
