//! What is known of a container, and where it is in its life.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rcon_sys::process;
use rustix::fs::{FlockOperation, flock};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::error::{Error, On, Result};
use super::resctrl::Groups;
use super::{CONFIG, Runtime};
use crate::cgroup::Cgroup;
use crate::request::KnownAs;

const STATE: &str = "state.json";
/// The socket at which the first process waits to be started.
pub(super) const DOOR: &str = "door";

/// What is written down of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The version of its specification.
    pub oci_version: String,
    /// Its id.
    pub id: String,
    /// The absolute path of its bundle.
    pub bundle: PathBuf,
    /// The absolute path of its root filesystem.
    pub rootfs: PathBuf,
    /// Its first process; 0 while there is none yet.
    pub pid: i32,
    /// When that process started, in ticks since boot: it and the number name one process.
    pub start_time: u64,
    /// The cgroup that was made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
    /// Its shares of caches and memory bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<Groups>,
    /// When it was made (RFC 3339).
    pub created: String,
    /// The user id of who made it.
    pub owner: u32,
    /// The annotations of the specification.
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// Its program has not been started.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are stopped by the freezer.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl Status {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container that has been made.
#[derive(Debug)]
pub struct Container {
    pub(super) folder: PathBuf,
    /// What is written down of it.
    pub record: Record,
}

/// The right to change a container; nobody else has it meanwhile.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "it is for being held")] OwnedFd);

impl Lock {
    /// Wait for it.
    pub(super) fn take(folder: &Path) -> Result<Self> {
        let file = File::open(folder).on("open", folder)?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
            .on("lock", folder)?;
        Ok(Self(file.into()))
    }
}

impl Runtime {
    /// The container `id`.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`], and a record that cannot be read.
    pub fn find(&self, id: &str) -> Result<Container> {
        let folder = self.folder(id)?;
        let path = folder.join(STATE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoSuchContainer(id.to_owned()));
            }
            result => result.on("read", &path)?,
        };
        let record = serde_json::from_slice(&text)
            .map_err(|error| Error::Bundle(format!("cannot read {}: {error}", path.display())))?;
        Ok(Container { folder, record })
    }

    /// All containers, by their ids. Those that vanish meanwhile are left out.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Container>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.on("read", &self.root)?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut all: Vec<Container> = names.filter_map(|id| self.find(&id).ok()).collect();
        all.sort_by(|left, right| left.record.id.cmp(&right.record.id));
        Ok(all)
    }
}

impl Container {
    /// Write the record down, wholly or not at all.
    pub(super) fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.record).unwrap_or_default();
        replace(&self.folder.join(STATE), &text)
    }

    /// Where it is in its life.
    pub fn status(&self) -> Status {
        let Record {
            pid, start_time, ..
        } = self.record;
        if pid == 0 {
            return Status::Creating;
        }
        if !alive(pid, start_time) {
            return Status::Stopped;
        }
        // A frozen one can be paused before it was started too: nobody at its door would hear.
        match self.folder.join(DOOR).exists() {
            _ if self.record.cgroup.as_ref().is_some_and(Cgroup::is_frozen) => Status::Paused,
            true => Status::Created,
            false => Status::Running,
        }
    }

    /// Its first process as a file, if that has not ended.
    pub(super) fn process(&self) -> Option<(Pid, OwnedFd)> {
        let pid = Pid::from_raw(self.record.pid)?;
        let pidfd = process::pidfd_open(pid).ok()?;
        // Looked at when the file is there, so that both are the same process.
        alive(self.record.pid, self.record.start_time).then_some((pid, pidfd))
    }

    /// The specification it was made of.
    ///
    /// # Errors
    /// When the copy of it cannot be read.
    pub fn spec(&self) -> Result<Spec> {
        let path = self.folder.join(CONFIG);
        let text = fs::read(&path).on("read", &path)?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::Bundle(format!("cannot read {}: {error}", path.display())))
    }

    /// Who it is to other programs.
    pub(super) fn known_as(&self) -> KnownAs<'_> {
        KnownAs {
            id: &self.record.id,
            bundle: &self.record.bundle,
        }
    }
}

/// Whether the process `pid` that started at `start_time` is there and has not ended.
fn alive(pid: i32, start_time: u64) -> bool {
    // The name in it is the program's own, and need not be a text.
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = String::from_utf8_lossy(&stat)
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X')) && process::start_time(pid) == Some(start_time)
}

/// Put `text` into the file `path`, wholly or not at all.
pub(super) fn replace(path: &Path, text: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(name);
    let written = File::create(&new).and_then(|mut file| file.write_all(text));
    written
        .and_then(|()| fs::rename(&new, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
        .on("write", path)
}
