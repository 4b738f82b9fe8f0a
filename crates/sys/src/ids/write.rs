//! How maps become those of a process: written by us, or by newuidmap and newgidmap.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;

use super::{IdMaps, IdRange, MapMethod};

/// Why the maps of a process could not be written.
#[derive(Debug, thiserror::Error)]
pub enum IdError {
    /// A map file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// newuidmap or newgidmap could not be run.
    #[error("cannot run {program}: {source}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// newuidmap or newgidmap ran and refused.
    #[error("{program} refused the id map: {message}")]
    Refused {
        /// The program.
        program: String,
        /// What it said.
        message: String,
    },
}

impl IdError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Write { .. } => None,
            Self::Run { .. } => Some("reinstall the package uidmap (shadow-utils)".to_owned()),
            Self::Refused { .. } => Some(
                "check that the ranges in /etc/subuid and /etc/subgid belong to you and that \
                 newuidmap and newgidmap are set-user-id root or have file capabilities"
                    .to_owned(),
            ),
        }
    }
}

/// Give the new user namespace of the child process `pid` its maps.
///
/// newuidmap and newgidmap run side by side. The child must not have been waited for, so that its
/// id is still its own.
///
/// # Errors
/// When newuidmap or newgidmap cannot be run or refuses, or a map file cannot be written.
pub fn write_maps(pid: Pid, maps: &IdMaps) -> Result<(), IdError> {
    write_maps_and(pid, maps, || ())
}

/// The same, and calls `begun` as soon as nothing but the work of others is waited for.
///
/// # Errors
/// As [`write_maps`].
pub fn write_maps_and(pid: Pid, maps: &IdMaps, begun: impl FnOnce()) -> Result<(), IdError> {
    let pid = pid.as_raw_nonzero();
    match &maps.method {
        MapMethod::Newuidmap {
            newuidmap,
            newgidmap,
        } => {
            let uid = start_mapper(newuidmap, pid.get(), &maps.uid);
            let gid = start_mapper(newgidmap, pid.get(), &maps.gid);
            begun();
            // Both are waited for before an error of either is looked at.
            let uid = uid.and_then(|child| finish_mapper(newuidmap, child));
            let gid = gid.and_then(|child| finish_mapper(newgidmap, child));
            uid.and(gid)
        }
        MapMethod::Single => {
            begun();
            write_file(&format!("/proc/{pid}/uid_map"), &map_text(&maps.uid))?;
            write_file(&format!("/proc/{pid}/setgroups"), "deny")?;
            write_file(&format!("/proc/{pid}/gid_map"), &map_text(&maps.gid))
        }
        MapMethod::Direct => {
            begun();
            write_file(&format!("/proc/{pid}/uid_map"), &map_text(&maps.uid))?;
            write_file(&format!("/proc/{pid}/gid_map"), &map_text(&maps.gid))
        }
    }
}

fn map_text(ranges: &[IdRange]) -> String {
    ranges
        .iter()
        .map(|range| format!("{} {} {}\n", range.container, range.host, range.len))
        .collect()
}

fn write_file(path: &str, text: &str) -> Result<(), IdError> {
    // One write: the kernel takes a map whole or not at all.
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| rustix::io::write(&file, text.as_bytes()).map_err(io::Error::from))
        .map(drop)
        .map_err(|source| IdError::Write {
            path: path.to_owned(),
            source,
        })
}

fn start_mapper(program: &Path, pid: i32, ranges: &[IdRange]) -> Result<Child, IdError> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for range in ranges {
        command
            .arg(range.container.to_string())
            .arg(range.host.to_string())
            .arg(range.len.to_string());
    }
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| IdError::Run {
            program: program.display().to_string(),
            source,
        })
}

fn finish_mapper(program: &Path, mut child: Child) -> Result<(), IdError> {
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // What it said only matters when it failed; a failure to read it is not one of the map.
        let _ = stderr.read_to_string(&mut said);
    }
    let status = child.wait().map_err(|source| IdError::Run {
        program: program.display().to_string(),
        source,
    })?;
    if status.success() {
        return Ok(());
    }
    let message = said.trim();
    Err(IdError::Refused {
        program: program.display().to_string(),
        message: if message.is_empty() {
            status.to_string()
        } else {
            message.replace('\n', "; ")
        },
    })
}
