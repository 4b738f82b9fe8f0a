//! The cgroup of a container: its limits, its freezer, its counters, its end.
//!
//! An ordinary user gets one in one of two ways. Where the cgroup that we run in is delegated to us
//! it is made below it, and the new process is born in it. Elsewhere the user's systemd makes a
//! transient scope, over D-Bus, and delegates that. The super-user of a host with the first
//! version of cgroups gets one in each of its hierarchies. Where none of this is possible there is
//! no cgroup: a container without limits runs nevertheless, and a limit is an error that says what
//! is missing.
//!
//! ```no_run
//! # use rcon_launch::cgroup::{self, Settings};
//! # fn main() -> Result<(), cgroup::Error> {
//! # let (pid, resources) = (1, Default::default());
//! let settings = Settings { resources: Some(resources), ..Settings::named("rcon-0123") };
//! if let Some(prepared) = cgroup::prepare(&settings)? {
//!     let group = prepared.enter(&[pid])?;
//!     group.freeze(true)?;
//! }
//! # Ok(()) }
//! ```

mod bus;
mod devices;
mod error;
mod files;
mod host;
mod legacy;
mod lift;
mod manage;
mod oom;
mod scope;
mod unified;
mod usage;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

pub(crate) use error::reason;
pub use error::{Error, Lack};
pub use host::{Host, controllers, missing};
pub use lift::Limit;
pub use manage::{Prepared, prepare, prepare_noting};
pub use oom::OomWatch;
pub use scope::is_reachable as has_systemd;
pub use usage::Usage;

use files::{read, write};

/// The result of this module's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How long processes may take to be frozen, or gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who makes cgroups (`--cgroup-manager`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// Whoever can: ourselves in a cgroup that was delegated to us, else systemd.
    #[default]
    Auto,
    /// systemd, as a transient scope.
    Systemd,
    /// Ourselves, as folders of the cgroup file system.
    Cgroupfs,
}

/// The cgroup that a container is to have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Who is to make it.
    pub manager: Manager,
    /// The slice (systemd) or the folder (cgroupfs) to make it in; a folder counts from the root of
    /// the cgroup file system if it begins with a slash, else from our own cgroup.
    pub parent: Option<String>,
    /// The name of the folder, or of the scope without `.scope`.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// The limits.
    pub resources: Option<LinuxResources>,
    /// It is an error when there can be none, even if nothing is limited.
    pub required: bool,
    /// The most processes and threads, where that can be set and `resources` says nothing of it.
    pub usual_pids: Option<i64>,
}

impl Settings {
    /// A cgroup with that name, without limits, where that costs nothing.
    pub fn named(name: impl Into<String>) -> Settings {
        Settings {
            name: name.into(),
            ..Settings::default()
        }
    }

    /// The cgroup of a specification's `linux.cgroupsPath` and `linux.resources`: for cgroupfs a
    /// path, for systemd `SLICE:PREFIX:NAME`. `id` names it where the specification does not.
    ///
    /// # Errors
    /// [`Error::BadPath`] for what is neither.
    pub fn of_spec(spec: &oci_spec::runtime::Spec, id: &str, manager: Manager) -> Result<Settings> {
        let linux = spec.linux().as_ref();
        let path = linux
            .and_then(|linux| linux.cgroups_path().as_ref())
            .map(|path| path.to_string_lossy().into_owned())
            .filter(|path| !path.is_empty());
        let resources = linux.and_then(|linux| linux.resources().clone());
        let mut settings = Settings {
            manager,
            resources,
            description: format!("container {id}"),
            required: path.is_some(),
            ..Settings::named(format!("rcon-{id}"))
        };
        let Some(path) = path else {
            return Ok(settings);
        };
        let bad = || Error::BadPath(path.clone());
        let words: Vec<&str> = path.split(':').collect();
        if let [slice, prefix, name] = words[..] {
            if manager == Manager::Cgroupfs || name.is_empty() || path.contains('/') {
                return Err(bad());
            }
            settings.manager = Manager::Systemd;
            settings.parent = Some(slice.to_owned()).filter(|slice| !slice.is_empty());
            settings.name = match prefix {
                "" => name.to_owned(),
                prefix => format!("{prefix}-{name}"),
            };
            return Ok(settings);
        }
        if manager == Manager::Systemd {
            return Err(bad());
        }
        let place = Path::new(&path);
        let climbs = place.components().any(|part| part.as_os_str() == "..");
        let name = place.file_name().and_then(|name| name.to_str());
        settings.name = name.filter(|_| !climbs).ok_or_else(bad)?.to_owned();
        settings.manager = Manager::Cgroupfs;
        settings.parent = place
            .parent()
            .map(|parent| parent.to_string_lossy().into_owned())
            .filter(|parent| !parent.is_empty());
        Ok(settings)
    }

    /// Whether doing without is an error.
    pub fn is_required(&self) -> bool {
        self.required || self.resources.as_ref().is_some_and(limits_anything)
    }
}

/// Whether anything is limited; devices only by whom they can be, since an ordinary user's container can make none anyway.
pub(crate) fn limits_anything(resources: &LinuxResources) -> bool {
    let rules = resources.devices().as_ref();
    if rules.is_some_and(|rules| rules.iter().any(|rule| !rule.allow())) && devices::can_be_kept() {
        return true;
    }
    let mut rest = resources.clone();
    rest.set_devices(None);
    rest != LinuxResources::default() && !unified::settings(&rest).is_ok_and(|list| list.is_empty())
}

/// A cgroup that exists. It is written down and read again as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    dirs: Dirs,
    /// The scope of systemd that it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// Other containers may lie in it too: it was there before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    foreign: bool,
}

/// Where it is in the file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Dirs {
    /// The one folder of the second version.
    Unified(PathBuf),
    /// One for each controller of the first.
    Legacy(BTreeMap<String, PathBuf>),
}

impl Cgroup {
    /// Its path below the cgroup file system, as `/proc/PID/cgroup` has it.
    pub fn path(&self) -> String {
        let (dir, root) = match &self.dirs {
            Dirs::Unified(dir) => (dir, Path::new(host::MOUNT).to_path_buf()),
            Dirs::Legacy(dirs) => match dirs.iter().next() {
                Some((name, dir)) => (dir, Path::new(host::MOUNT).join(name)),
                None => return String::new(),
            },
        };
        let path = dir.strip_prefix(root).unwrap_or(dir);
        format!("/{}", path.display())
    }

    /// The folders, by controller for the first version and without a name for the second.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        match &self.dirs {
            Dirs::Unified(dir) => BTreeMap::from([(String::new(), dir.clone())]),
            Dirs::Legacy(dirs) => dirs.clone(),
        }
    }

    /// The scope of systemd that it lies in, if systemd made it.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The one at `[CONTROLLER:]PATH` below it; with the first version one for each controller that is named, or for all.
    ///
    /// # Errors
    /// When there is none.
    pub fn below(&self, words: &[String]) -> Result<Cgroup> {
        let mut all = self.clone();
        all.foreign = true;
        for word in words {
            let none = || Error::Unsupported(format!("the container has no cgroup {word:?}"));
            let (names, path) = word.split_once(':').unwrap_or(("", word));
            let climbs = Path::new(path)
                .components()
                .any(|part| part.as_os_str() == "..");
            let dirs: Vec<&mut PathBuf> = match &mut all.dirs {
                Dirs::Unified(dir) if names.is_empty() => vec![dir],
                Dirs::Unified(_) => Vec::new(),
                Dirs::Legacy(dirs) => dirs
                    .iter_mut()
                    .filter(|(known, _)| names.is_empty() || names.split(',').any(|n| n == *known))
                    .map(|(_, dir)| dir)
                    .collect(),
            };
            if climbs || dirs.is_empty() {
                return Err(none());
            }
            for dir in dirs {
                *dir = host::beneath(dir, path);
                if !dir.is_dir() {
                    return Err(none());
                }
            }
        }
        Ok(all)
    }

    /// The folder that knows its processes.
    fn main(&self) -> Option<&Path> {
        match &self.dirs {
            Dirs::Unified(dir) => Some(dir),
            Dirs::Legacy(dirs) => ["freezer", "pids", "memory"]
                .iter()
                .find_map(|name| dirs.get(*name))
                .or_else(|| dirs.values().next())
                .map(PathBuf::as_path),
        }
    }

    /// Set limits; what `resources` does not name stays as it is.
    ///
    /// # Errors
    /// [`Error::NoController`] when the host keeps that controller to itself, [`Error::Refused`]
    /// for a value the kernel does not take.
    pub fn limit(&self, resources: &LinuxResources) -> Result<()> {
        self.or_gone(|| match &self.dirs {
            Dirs::Unified(dir) => {
                unified::check_memory(dir, resources)?;
                files::apply(dir, &unified::settings(resources)?)?;
                devices::apply(dir, &devices::rules(resources)?)
            }
            Dirs::Legacy(dirs) => legacy::apply(dirs, resources),
        })
    }

    /// What fails because the cgroup is not there any more fails with [`Error::Gone`].
    fn or_gone<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let is_gone = || self.main().is_some_and(|dir| !dir.exists());
        work().map_err(|error| if is_gone() { Error::Gone } else { error })
    }

    /// Give it to a user of the host: the folder, and those of its files that can be given with it. One of the first version is
    /// not given away, and what this process may not give stays as it is (config-linux.md, cgroup ownership).
    pub(crate) fn give(&self, uid: u32) {
        let Dirs::Unified(dir) = &self.dirs else {
            return;
        };
        let usual = || "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned();
        let files = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_else(|_| usual());
        for name in [""].into_iter().chain(files.lines()) {
            let _ = std::os::unix::fs::chown(dir.join(name), Some(uid), None);
        }
    }

    /// Move a process into it.
    ///
    /// # Errors
    /// When neither we nor systemd may; [`Error::Gone`] when the process or the cgroup is.
    pub fn enter(&self, pid: i32) -> Result<()> {
        self.or_gone(|| self.take_in(pid))
    }

    fn take_in(&self, pid: i32) -> Result<()> {
        match &self.dirs {
            Dirs::Unified(dir) => {
                let file = dir.join("cgroup.procs");
                match files::write_raw(&file, &pid.to_string()) {
                    Ok(()) => Ok(()),
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(Error::Gone),
                    // From a login session, which is not ours to move processes out of.
                    Err(error) if files::is_denied(&error) && scope::is_reachable() => {
                        match scope::unit_of(dir) {
                            Some((unit, below)) => scope::attach(&unit, &below, pid),
                            None => Err(Error::file("move a process to", &file, &error)),
                        }
                    }
                    Err(error) => Err(Error::file("move a process to", &file, &error)),
                }
            }
            Dirs::Legacy(dirs) => dirs
                .values()
                .try_for_each(|dir| write(&dir.join("cgroup.procs"), &pid.to_string())),
        }
    }

    /// Stop all of its processes where they are, or let them go on; done when it returns.
    ///
    /// # Errors
    /// When there is no freezer, or a process cannot be stopped in time; [`Error::Gone`] when the cgroup is.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        self.or_gone(|| self.set_frozen(frozen))
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let done: Box<dyn Fn() -> Result<bool>> = match &self.dirs {
            Dirs::Unified(dir) => {
                let file = dir.join("cgroup.freeze");
                if !file.exists() {
                    return Err(Error::NoFreezer);
                }
                write(&file, if frozen { "1" } else { "0" })?;
                Box::new(move || Ok(files::event(dir, "frozen")? == Some(u64::from(frozen))))
            }
            Dirs::Legacy(dirs) => {
                let dir = dirs.get("freezer").ok_or(Error::NoFreezer)?;
                let word = if frozen { "FROZEN" } else { "THAWED" };
                Box::new(move || {
                    let file = dir.join("freezer.state");
                    // Said again each time: a process that was just being born may have slipped through.
                    write(&file, word)?;
                    Ok(read(&file)?.trim() == word)
                })
            }
        };
        while !done()? {
            if Instant::now() > deadline {
                // Whoever stands still already goes on.
                let _ = match &self.dirs {
                    Dirs::Unified(dir) if frozen => write(&dir.join("cgroup.freeze"), "0"),
                    Dirs::Legacy(dirs) if frozen => match dirs.get("freezer") {
                        Some(dir) => write(&dir.join("freezer.state"), "THAWED"),
                        None => Ok(()),
                    },
                    _ => Ok(()),
                };
                return Err(Error::Slow);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether its processes are stopped.
    pub fn is_frozen(&self) -> bool {
        match &self.dirs {
            Dirs::Unified(dir) => read(&dir.join("cgroup.freeze")).is_ok_and(|t| t.trim() == "1"),
            Dirs::Legacy(dirs) => dirs.get("freezer").is_some_and(|dir| {
                read(&dir.join("freezer.state")).is_ok_and(|text| text.trim() != "THAWED")
            }),
        }
    }

    /// Its processes, and those of the cgroups that the container made in it.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        if let Some(dir) = self.main() {
            files::collect_pids(dir, &mut pids);
        }
        pids
    }

    /// Kill every process in it.
    ///
    /// # Errors
    /// When they cannot be signalled.
    pub fn kill(&self) -> Result<()> {
        if let Dirs::Unified(dir) = &self.dirs
            && files::write_raw(&dir.join("cgroup.kill"), "1").is_ok()
        {
            return Ok(());
        }
        // Frozen, they cannot have children faster than we kill them.
        let frozen = self.freeze(true).is_ok();
        for pid in self.pids() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if frozen {
            self.freeze(false)?;
        }
        Ok(())
    }

    /// How often the kernel killed a process in it for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let (file, key) = match &self.dirs {
            Dirs::Unified(dir) => (dir.join("memory.events"), "oom_kill"),
            Dirs::Legacy(dirs) => match dirs.get("memory") {
                Some(dir) => (dir.join("memory.oom_control"), "oom_kill"),
                None => return 0,
            },
        };
        files::keyed(&file, key).unwrap_or(0)
    }

    /// Hear of such a kill as it happens; `None` where that cannot be heard (version 1, where the cgroup stays until it is
    /// removed by us).
    pub fn watch_oom(&self) -> Option<OomWatch> {
        match &self.dirs {
            Dirs::Unified(dir) => OomWatch::new(dir),
            Dirs::Legacy(_) => None,
        }
    }

    /// What it has used, and may use.
    pub fn usage(&self) -> Usage {
        match &self.dirs {
            Dirs::Unified(dir) => usage::unified(dir),
            Dirs::Legacy(dirs) => usage::legacy(dirs),
        }
    }

    /// Whether it is still there.
    pub fn exists(&self) -> bool {
        self.main().is_some_and(Path::exists)
    }

    /// Remove it, with what the container made in it; it must have no process any more.
    ///
    /// # Errors
    /// When a process is still in it after a while.
    pub fn remove(&self) -> Result<()> {
        if self.foreign {
            return Ok(());
        }
        self.paths()
            .values()
            .try_for_each(|dir| files::remove(dir, PATIENCE))
    }
}

/// The cgroup of the second version that the process `pid` is in.
pub(crate) fn of_process(pid: i32) -> Result<String> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).map_err(|e| Error::file("read", Path::new(&path), &e))?;
    host::unified_path(&text).ok_or(Error::Gone)
}

#[cfg(test)]
mod tests;
