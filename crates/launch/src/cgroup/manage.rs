//! Having a cgroup made: which of the ways is open, and going it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxPids, LinuxResources};

use super::error::Lack;
use super::host::{self, Host, MOUNT};
use super::{Cgroup, Dirs, Error, Manager, Result, Settings, files, legacy, scope, unified};

/// The cgroup inside a scope that is ours: what systemd made it will set to its own liking again.
pub(super) const INNER: &str = "container";

/// Where processes go that are in the way of controllers.
const ASIDE: &str = "rcon-aside";

/// A cgroup, or the way to one, for processes that do not exist yet.
#[derive(Debug)]
pub struct Prepared {
    way: Way,
    resources: Option<LinuxResources>,
    usual_pids: Option<i64>,
}

#[derive(Debug)]
enum Way {
    /// There it is.
    Made(Cgroup, Option<OwnedFd>),
    /// systemd makes it around a process.
    Scope(Box<Settings>),
}

/// Find the way to the cgroup of `settings` and go it as far as it goes without a process; `None`
/// when there can be none and none is needed.
///
/// Costs next to nothing where there is none to be had.
///
/// # Errors
/// A limit, or a cgroup that is required, that cannot be had.
pub fn prepare(settings: &Settings) -> Result<Option<Prepared>> {
    prepare_noting(settings, &mut |_| ())
}

/// As [`prepare`]; `note` hears of a cgroup right before it is made, so that nobody can be killed in between and leave one
/// that is known nowhere. What systemd makes ends by itself.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_noting(
    settings: &Settings,
    note: &mut dyn FnMut(&Cgroup),
) -> Result<Option<Prepared>> {
    if settings.name.is_empty()
        || settings.name.contains(['/', '\0', '\n'])
        || settings.name == ".."
    {
        return Err(Error::BadPath(settings.name.clone()));
    }
    let host = Host::look();
    let resources = settings.resources.clone();
    let way = match &host {
        Host::Unified { own } => match choose(settings, own) {
            Some(Manager::Systemd) => Some(Way::Scope(Box::new(settings.clone()))),
            Some(_) => Some(delegated(settings, own, note)?),
            None => None,
        },
        Host::Legacy(dirs) if settings.manager != Manager::Systemd => {
            in_legacy(settings, dirs, note)?
        }
        Host::Legacy(_) | Host::Missing => None,
    };
    match way {
        Some(way) => {
            let said = resources.as_ref().is_some_and(|all| all.pids().is_some());
            Ok(Some(Prepared {
                way,
                resources,
                usual_pids: settings.usual_pids.filter(|limit| *limit > 0 && !said),
            }))
        }
        None if settings.is_required() => {
            Err(Error::Unavailable(match (&host, settings.manager) {
                (Host::Unified { .. }, Manager::Cgroupfs) => Lack::Delegation,
                _ => host.lack(),
            }))
        }
        None => Ok(None),
    }
}

/// Who makes it; `None` if nobody can, or nobody should without need.
fn choose(settings: &Settings, own: &Path) -> Option<Manager> {
    let below = |parent: &Option<String>| match parent {
        Some(parent) if parent.starts_with('/') => {
            nearest(&host::beneath(Path::new(MOUNT), parent))
        }
        Some(parent) => nearest(&own.join(parent)),
        None => own.to_path_buf(),
    };
    let writable = || host::is_writable(&below(&settings.parent));
    match settings.manager {
        // Both are meant seriously enough to fail with their own words, if at all.
        Manager::Systemd => Some(Manager::Systemd),
        Manager::Cgroupfs => writable().then_some(Manager::Cgroupfs),
        Manager::Auto => {
            let slice = settings
                .parent
                .as_deref()
                .is_some_and(|p| p.ends_with(".slice"));
            if !slice && host::is_delegated(&below(&settings.parent)) {
                return Some(Manager::Cgroupfs);
            }
            // It takes systemd some milliseconds, and a scope ends when the user's last session
            // does: nothing to do to a container that needs none.
            if settings.is_required() && scope::is_reachable() {
                return Some(Manager::Systemd);
            }
            (settings.is_required() && writable()).then_some(Manager::Cgroupfs)
        }
    }
}

/// The first folder on the way up that exists.
fn nearest(dir: &Path) -> PathBuf {
    let found = dir.ancestors().find(|dir| dir.is_dir());
    found.unwrap_or(Path::new(MOUNT)).to_path_buf()
}

/// A folder of ours, with the controllers it needs.
fn delegated(settings: &Settings, own: &Path, note: &mut dyn FnMut(&Cgroup)) -> Result<Way> {
    let parent = match &settings.parent {
        Some(parent) if parent.starts_with('/') => host::beneath(Path::new(MOUNT), parent),
        Some(parent) => own.join(parent),
        None => own.to_path_buf(),
    };
    let needed = needed(settings.resources.as_ref())?;
    let top = nearest(&parent);
    let mut steps: Vec<&Path> = parent.ancestors().take_while(|dir| *dir != top).collect();
    steps.reverse();
    let mut above = top.as_path();
    for dir in steps.iter().copied() {
        enable(above, &needed)?;
        make(dir)?;
        above = dir;
    }
    enable(above, &needed)?;
    let dir = parent.join(&settings.name);
    let mut cgroup = Cgroup {
        dirs: Dirs::Unified(dir.clone()),
        scope: None,
        foreign: dir.is_dir(),
    };
    note(&cgroup);
    cgroup.foreign = !make(&dir)?;
    let handle = File::open(&dir).map_err(|error| Error::file("open", &dir, &error));
    match handle {
        Ok(handle) => Ok(Way::Made(cgroup, Some(handle.into()))),
        Err(error) => {
            let _ = cgroup.remove();
            Err(error)
        }
    }
}

/// Whether it was not there before.
fn make(dir: &Path) -> Result<bool> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::file("make the cgroup", dir, &error)),
    }
}

/// The controllers that the limits need, with a setting that needs each.
fn needed(resources: Option<&LinuxResources>) -> Result<Vec<(String, String)>> {
    let Some(resources) = resources else {
        return Ok(Vec::new());
    };
    let mut needed: Vec<(String, String)> = Vec::new();
    for setting in unified::settings(resources)? {
        let name = setting.controller().to_owned();
        if !setting.optional && name != "cgroup" && needed.iter().all(|(known, _)| *known != name) {
            needed.push((name, setting.file));
        }
    }
    Ok(needed)
}

/// Let the cgroups below `dir` have the controllers in `needed`, and as many of the usual ones as
/// can be had for nothing.
fn enable(dir: &Path, needed: &[(String, String)]) -> Result<()> {
    let words = |file: &str| -> Vec<String> {
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let (available, enabled) = (words("cgroup.controllers"), words("cgroup.subtree_control"));
    let control = dir.join("cgroup.subtree_control");
    // Some controllers a cgroup with processes of its own can hand down, and no process can enter those below it then
    // (cgroup-v2, threads). The root of all is none of these.
    let mut full = dir.join("cgroup.type").exists() && !words("cgroup.procs").is_empty();
    for (name, file) in needed {
        if enabled.contains(name) {
            continue;
        }
        if !available.contains(name) {
            return Err(Error::NoController {
                controller: name.clone(),
                file: file.clone(),
            });
        }
        if full {
            clear(dir)?;
            full = false;
        }
        let word = format!("+{name}");
        match files::write_raw(&control, &word) {
            Ok(()) => {}
            // A cgroup with processes of its own cannot hand controllers down.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                clear(dir)?;
                files::write(&control, &word)?;
            }
            Err(error) if files::is_denied(&error) => {
                return Err(Error::Unavailable(Lack::Delegation));
            }
            Err(error) => return Err(Error::file("write", &control, &error)),
        }
    }
    for name in ["memory", "pids", "cpu", "io"] {
        if !full
            && available.iter().any(|known| known == name)
            && !enabled.iter().any(|known| known == name)
        {
            let _ = files::write_raw(&control, &format!("+{name}"));
        }
    }
    Ok(())
}

/// Move the processes of `dir` into a leaf below it, until none is left.
fn clear(dir: &Path) -> Result<()> {
    let leaf = dir.join(ASIDE);
    make(&leaf)?;
    let (from, to) = (dir.join("cgroup.procs"), leaf.join("cgroup.procs"));
    // Each round may find the children of those that were moved by the one before.
    for _ in 0..16 {
        let text = files::read(&from)?;
        let mut pids = text
            .lines()
            .filter_map(|line| line.parse::<i32>().ok())
            .peekable();
        if pids.peek().is_none() {
            return Ok(());
        }
        for pid in pids {
            match files::write_raw(&to, &pid.to_string()) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(Error::file("move a process to", &to, &error));
                }
                _ => {}
            }
        }
    }
    Err(Error::Slow)
}

/// A cgroup of the first version.
fn in_legacy(
    settings: &Settings,
    own: &std::collections::BTreeMap<String, PathBuf>,
    note: &mut dyn FnMut(&Cgroup),
) -> Result<Option<Way>> {
    if !host::may_make(own) {
        return Ok(None);
    }
    let mut parents = own.clone();
    if let Some(parent) = &settings.parent {
        for (name, dir) in &mut parents {
            *dir = match parent.starts_with('/') {
                true => host::beneath(&Path::new(MOUNT).join(name), parent),
                false => dir.join(parent),
            };
        }
    }
    let foreign = parents
        .values()
        .any(|dir| dir.join(&settings.name).exists());
    let dirs = parents
        .iter()
        .map(|(name, dir)| (name.clone(), dir.join(&settings.name)));
    let mut cgroup = Cgroup {
        dirs: Dirs::Legacy(dirs.collect()),
        scope: None,
        foreign,
    };
    note(&cgroup);
    cgroup.dirs = Dirs::Legacy(legacy::make(&parents, &settings.name)?);
    Ok(Some(Way::Made(cgroup, None)))
}

impl Prepared {
    /// The folder that a process can be born in (`CLONE_INTO_CGROUP`), if it is there already.
    pub fn folder(&self) -> Option<BorrowedFd<'_>> {
        match &self.way {
            Way::Made(_, handle) => handle.as_ref().map(AsFd::as_fd),
            Way::Scope(_) => None,
        }
    }

    /// Put `pids` into it (those that are in it already stay), and set its limits. The first must be
    /// there; others may have ended meanwhile. On failure nothing of it is left.
    ///
    /// # Errors
    /// When systemd refuses, a limit cannot be set, or a process cannot be moved.
    pub fn enter(self, pids: &[i32]) -> Result<Cgroup> {
        let Prepared {
            way,
            resources,
            usual_pids,
        } = self;
        let (cgroup, born) = match way {
            Way::Made(cgroup, handle) => (cgroup, handle.is_some()),
            // The rest follows one by one: systemd takes all that it is told or none.
            Way::Scope(settings) => (in_scope(&settings, pids)?, true),
        };
        let set = resources
            .as_ref()
            .map_or(Ok(()), |resources| cgroup.limit(resources))
            .and_then(|()| {
                let here = if born { cgroup.pids() } else { Vec::new() };
                pids.iter()
                    .filter(|pid| !here.contains(pid))
                    .try_for_each(|pid| match cgroup.enter(*pid) {
                        Err(_) if Some(pid) != pids.first() && is_gone(*pid) => Ok(()),
                        other => other,
                    })
            });
        if let (Ok(()), Some(limit)) = (&set, usual_pids) {
            let mut most = LinuxPids::default();
            most.set_limit(limit);
            let mut resources = LinuxResources::default();
            resources.set_pids(Some(most));
            // Nobody asked for it: where this cannot be limited it is not.
            let _ = cgroup.limit(&resources);
        }
        match set {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                for pid in pids {
                    // Our own processes, which are not to die with it, go back where we are.
                    let _ = leave(*pid);
                }
                let _ = files_gone(&cgroup);
                Err(error)
            }
        }
    }

    /// Undo what [`prepare`] did.
    pub fn abandon(self) {
        if let Way::Made(cgroup, _) = self.way {
            let _ = files_gone(&cgroup);
        }
    }
}

/// Whether there is no such process any more.
fn is_gone(pid: i32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// Move `pid` to our own cgroup.
fn leave(pid: i32) -> Result<()> {
    if let Host::Unified { own } = Host::look() {
        files::write(&own.join("cgroup.procs"), &pid.to_string())?;
    }
    Ok(())
}

/// Remove it if it is empty; its processes are somebody else's care.
fn files_gone(cgroup: &Cgroup) -> Result<()> {
    if cgroup.foreign {
        return Ok(());
    }
    cgroup
        .paths()
        .values()
        .try_for_each(|dir| files::remove(dir, std::time::Duration::ZERO))
}

/// A scope of systemd around the first of `pids`, and in it a cgroup of ours.
fn in_scope(settings: &Settings, pids: &[i32]) -> Result<Cgroup> {
    let first = *pids.first().ok_or(Error::Gone)?;
    let unit = format!("{}.scope", settings.name);
    let wanted = scope::Scope {
        unit: &unit,
        slice: settings.parent.as_deref(),
        description: &settings.description,
        pids: &[first],
    };
    scope::start(&wanted)?;
    let path = super::of_process(first)?;
    let dir = host::beneath(Path::new(MOUNT), &path);
    if !path.ends_with(&unit) {
        return Err(Error::Systemd(format!(
            "the process is in {path} afterwards"
        )));
    }
    let inner = dir.join(INNER);
    make(&inner)?;
    // By descent the container's processes may have become more while systemd moved them.
    let (from, to) = (dir.join("cgroup.procs"), inner.join("cgroup.procs"));
    for _ in 0..16 {
        let text = files::read(&from)?;
        let mut left = text
            .lines()
            .filter_map(|line| line.parse::<i32>().ok())
            .peekable();
        if left.peek().is_none() {
            break;
        }
        for pid in left {
            match files::write_raw(&to, &pid.to_string()) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(Error::file("move a process to", &to, &error));
                }
                _ => {}
            }
        }
    }
    enable(&dir, &needed(settings.resources.as_ref())?)?;
    Ok(Cgroup {
        dirs: Dirs::Unified(inner),
        scope: Some(unit),
        foreign: false,
    })
}
