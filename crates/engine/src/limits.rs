//! The cgroup of a running container: whether it gets one, pausing it, changing its limits, what it uses.
//!
//! Which one it is stands in a small file of its own in the container's runtime folder, `cgroup`. Most often the monitor
//! writes it when it starts the container; where the container had no need of a cgroup then, the command that needs one has
//! one made around its processes. The file goes when the container ends, and the cgroup before it. Whether a container
//! is paused is not written down anywhere: its freezer knows.

use std::fs;

use oci_spec::runtime::LinuxResources;
use rcon_bundle::Resources;
use rcon_launch::cgroup::{self, Cgroup, Limit, Manager, Settings};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::events::Action;
use crate::files::{self, Durable};
use crate::lifecycle::RestartPolicy;
use crate::protocol::{self, Request};
use crate::record::{Config, Container, State, Status};
use crate::records::{self, Lock};
use crate::{Engine, Paths, processes};

/// How often to look for processes that are not in the cgroup yet.
const ROUNDS: u32 = 16;

/// The file in the runtime folder.
pub(crate) const FILE: &str = "cgroup";

/// `--cgroups`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupMode {
    /// Nothing was said: one where it costs nothing or a limit needs it.
    #[default]
    Default,
    /// There must be one.
    Enabled,
    /// None.
    Disabled,
    /// As `Enabled`; our monitor never is in it.
    NoConmon,
    /// Below the one that rcon runs in.
    Split,
}

impl CgroupMode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            CgroupMode::Default => "default",
            CgroupMode::Enabled => "enabled",
            CgroupMode::Disabled => "disabled",
            CgroupMode::NoConmon => "no-conmon",
            CgroupMode::Split => "split",
        }
    }

    /// Reads the word.
    ///
    /// # Errors
    /// In podman's words.
    pub fn parse(text: &str) -> Result<CgroupMode> {
        Ok(match text {
            "enabled" => CgroupMode::Enabled,
            "disabled" => CgroupMode::Disabled,
            "no-conmon" => CgroupMode::NoConmon,
            "split" => CgroupMode::Split,
            _ => {
                return Err(Error::Invalid(format!(
                    "invalid cgroup mode {text:?}: must be one of \"enabled\", \"disabled\", \"no-conmon\" or \"split\""
                )));
            }
        })
    }
}

/// `--cgroups`, `--cgroup-parent`, `--cgroup-manager`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CgroupChoice {
    /// Whether there is to be one.
    pub mode: CgroupMode,
    /// Where it is to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Who is to make it.
    pub manager: Manager,
    /// The most processes when the user says nothing of it (containers.conf), where it can be limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usual_pids: Option<i64>,
}

/// podman's usual limit of processes.
const USUAL_PIDS: i64 = 2048;

impl CgroupChoice {
    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == CgroupChoice::default()
    }
}

/// The cgroup that a container is to have; `None` for none.
///
/// # Errors
/// For what contradicts itself.
pub(crate) fn settings(config: &Config, required: bool) -> Result<Option<Settings>> {
    let choice = &config.cgroup;
    let resources = config.options.resources.to_oci()?;
    if config.options.resources.memory_swappiness.is_some()
        && matches!(cgroup::Host::look(), cgroup::Host::Unified { .. })
    {
        return Err(Error::Invalid(
            "memory swappiness is not supported by cgroups of version 2".into(),
        ));
    }
    if choice.mode == CgroupMode::Disabled {
        return match resources {
            Some(_) => Err(Error::Invalid(
                "cannot specify resource limits when cgroups are disabled: invalid argument".into(),
            )),
            None => Ok(None),
        };
    }
    let (manager, parent) = match choice.mode {
        CgroupMode::Split => (Manager::Cgroupfs, None),
        _ => (choice.manager, choice.parent.clone()),
    };
    Ok(Some(Settings {
        manager,
        resources,
        description: format!("rcon container {}", config.name),
        required: required || choice.mode != CgroupMode::Default || parent.is_some(),
        parent,
        usual_pids: Some(choice.usual_pids.unwrap_or(USUAL_PIDS)),
        ..Settings::named(format!("rcon-{}", config.id))
    }))
}

/// The limits that `changes` takes away of what now is `all`: those it names with nothing.
fn lifted(changes: &Resources, all: &LinuxResources) -> Vec<Limit> {
    let cpu = all.cpu().as_ref();
    let has_quota = cpu.and_then(|cpu| cpu.quota()).is_some_and(|q| q != 0);
    let changes_quota = changes.cpu_quota.is_some() || changes.cpu_period.is_some();
    let none = |text: &Option<String>| text.as_deref() == Some("");
    let named = [
        (changes.memory == Some(0), Limit::Memory),
        (changes.memory_reservation == Some(0), Limit::Reservation),
        (changes_quota && !has_quota, Limit::Quota),
        (changes.cpu_period == Some(0), Limit::Period),
        (changes.cpu_shares == Some(0), Limit::Shares),
        (none(&changes.cpuset_cpus), Limit::Processors),
        (none(&changes.cpuset_mems), Limit::Nodes),
        (changes.blkio_weight == Some(0), Limit::Weight),
    ];
    let named = named.into_iter().filter(|(lifted, _)| *lifted);
    let io = all.block_io().as_ref();
    let disks = io.and_then(|io| io.weight_device().as_ref());
    let disks = disks.into_iter().flatten();
    let disks = disks.filter(|disk| disk.weight() == Some(0));
    named
        .map(|(_, limit)| limit)
        .chain(disks.map(|disk| Limit::DiskWeight(disk.major(), disk.minor())))
        .collect()
}

/// Writes down which cgroup a container has.
pub(crate) fn note(paths: &Paths, id: &str, cgroup: &Cgroup) -> Result<()> {
    files::replace(&paths.runtime(id), FILE, cgroup, Durable::No)
}

/// The cgroup of a running container, if it has one.
pub(crate) fn of(paths: &Paths, id: &str) -> Option<Cgroup> {
    files::read(&paths.runtime(id).join(FILE)).ok().flatten()
}

/// Shows a container that is stopped by its freezer as paused.
pub(crate) fn look(paths: &Paths, container: &mut Container) {
    look_at(paths, &container.config.id, &mut container.state);
}

/// As [`look`], at a state alone.
pub(crate) fn look_at(paths: &Paths, id: &str, state: &mut State) {
    if state.status == Status::Running && of(paths, id).is_some_and(|cgroup| cgroup.is_frozen()) {
        state.status = Status::Paused;
    }
}

/// Removes what a container has while it runs, and its cgroup if one is left of a start that was cut off.
pub(crate) fn discard_runtime(paths: &Paths, id: &str) -> Result<()> {
    finish(paths, id);
    files::remove_tree(&paths.runtime(id))
}

/// Whether something in it was killed for want of memory. To be asked as soon as its processes have ended: systemd takes an
/// empty scope away, and what the kernel counted with it.
pub(crate) fn lacked_memory(paths: &Paths, id: &str) -> bool {
    of(paths, id).is_some_and(|cgroup| cgroup.oom_kills() > 0)
}

/// What the end of a container finds out and leaves behind: whether it was killed for want of memory.
pub(crate) fn finish(paths: &Paths, id: &str) -> bool {
    let Some(cgroup) = of(paths, id) else {
        return false;
    };
    let killed = cgroup.oom_kills() > 0;
    // Programs that `exec` started and that have outlived it; and a frozen process ends with this too.
    let _ = cgroup.kill();
    // What stays is empty, and nothing can be done about it here.
    let _ = cgroup.remove();
    killed
}

impl Engine {
    /// Stops all processes of a container where they are; its full id.
    ///
    /// # Errors
    /// [`Error::StateImproper`] when it does not run; where there is no freezer for it.
    pub fn pause(&self, name_or_id: &str) -> Result<String> {
        let container = self.container(name_or_id)?;
        let improper = || {
            let id = container.id();
            Error::StateImproper(format!("{id:?} is not running, can't pause"))
        };
        if container.state.status != Status::Running {
            return Err(improper());
        }
        let cgroup = self.cgroup_of(&container)?.ok_or_else(improper)?;
        match cgroup.freeze(true) {
            Err(cgroup::Error::Gone) => return Err(improper()),
            done => done.map_err(rcon_launch::Error::from)?,
        }
        Ok(container.config.id)
    }

    /// Lets them go on; its full id.
    ///
    /// # Errors
    /// [`Error::StateImproper`] when it is not paused.
    pub fn unpause(&self, name_or_id: &str) -> Result<String> {
        let container = self.container(name_or_id)?;
        let cgroup = of(&self.paths, container.id());
        let cgroup = cgroup.filter(|_| container.state.status == Status::Paused);
        match cgroup.map(|cgroup| cgroup.freeze(false)) {
            None | Some(Err(cgroup::Error::Gone)) => Err(Error::StateImproper(format!(
                "{:?} is not paused, can't unpause",
                container.id()
            ))),
            Some(done) => {
                done.map_err(rcon_launch::Error::from)?;
                Ok(container.config.id)
            }
        }
    }

    /// Changes the limits of a container, and what `edit` changes of its record, from now on and for its later starts; its
    /// full id. Of what `edit` may change the monitor of a running container learns its restart policy and health checks.
    ///
    /// # Errors
    /// Those of `edit`; limits that do not go together or cannot be had. All is then as it was.
    pub fn update<E: From<Error>>(
        &self,
        name_or_id: &str,
        changes: &Resources,
        edit: impl Fn(&mut Config) -> std::result::Result<(), E>,
    ) -> std::result::Result<String, E> {
        let gone = || Error::NoSuchContainer(name_or_id.to_string());
        let container = self.container(name_or_id)?;
        let mut config = container.config.clone();
        edit(&mut config)?;
        config.lifecycle.coherent()?;
        if config.auto_remove && config.restart != RestartPolicy::No {
            return Err(E::from(Error::Invalid(
                "cannot set a restart policy on a container that will be removed automatically (--rm)"
                    .into(),
            )));
        }
        config.options.resources = config.options.resources.overlaid(changes);
        if container.state.status.has_process()
            && let Some(all) = settings(&config, false)?
            && let Some(resources) = &all.resources
        {
            // Who has no cgroup needs none to be without limits.
            let cgroup = match all.is_required() || of(&self.paths, container.id()).is_some() {
                true => self.cgroup_of(&container)?,
                false => None,
            };
            let limited = match cgroup {
                Some(cgroup) => cgroup
                    .limit(resources)
                    .and_then(|()| cgroup.lift(&lifted(changes, resources))),
                None => Ok(()),
            };
            match limited {
                // It has ended meanwhile: they are those of its next start.
                Ok(()) | Err(cgroup::Error::Gone) => {}
                Err(error) => return Err(Error::from(rcon_launch::Error::from(error)).into()),
            }
        }
        let dir = self.paths.container(container.id());
        let _lock = Lock::take(&dir)?.ok_or_else(gone)?;
        let mut now = records::load(&dir)?.ok_or_else(gone)?.config;
        let before = now.lifecycle.health.clone();
        edit(&mut now)?;
        // Somebody else may have changed others meanwhile.
        now.options.resources = now.options.resources.overlaid(changes);
        records::save_config(&dir, &now)?;
        if now.lifecycle.health != before {
            container.state.wake_monitor();
            protocol::tell(&self.paths.runtime(&now.id), &Request::Renew);
        }
        self.emit_container(&container, Action::Update);
        Ok(now.id)
    }

    /// The cgroup of a running container; made around its processes if it has none. `None` when it does not run any more.
    fn cgroup_of(&self, container: &Container) -> Result<Option<Cgroup>> {
        let id = container.id();
        let gone = || Error::NoSuchContainer(id.to_string());
        let _lock = Lock::take(&self.paths.container(id))?.ok_or_else(gone)?;
        if let Some(cgroup) = of(&self.paths, id) {
            return Ok(Some(cgroup));
        }
        let lives = || container.state.has(container.state.process);
        let Some(first) = container.state.process.filter(|_| lives()) else {
            return Ok(None);
        };
        let mut config = container.config.clone();
        // The limits come by themselves; here only a place is wanted.
        config.options.resources = Resources::default();
        let settings = settings(&config, true)?.ok_or_else(|| {
            Error::Invalid("the container was made without a cgroup (--cgroups=disabled)".into())
        })?;
        // Known before it is made: we may be killed.
        let prepared = cgroup::prepare_noting(&settings, &mut |cgroup| {
            let _ = note(&self.paths, id, cgroup);
        });
        let prepared = prepared.map_err(rcon_launch::Error::from)?;
        let entered = prepared.ok_or_else(gone)?.enter(&[first.pid]);
        let cgroup = match entered {
            Ok(cgroup) => cgroup,
            Err(error) => {
                let _ = files::remove_file(&self.paths.runtime(id).join(FILE));
                return match lives() {
                    true => Err(rcon_launch::Error::from(error).into()),
                    false => Ok(None),
                };
            }
        };
        // The rest follows; until the last of them is in, one that is not may have a child that is not.
        for _ in 0..ROUNDS {
            let inside = cgroup.pids();
            let mut outside = processes::pids(container);
            outside.retain(|pid| !inside.contains(pid));
            if outside.is_empty() {
                break;
            }
            for pid in outside {
                let _ = cgroup.enter(pid);
            }
        }
        let noted = note(&self.paths, id, &cgroup);
        if !lives() {
            // Its monitor may have looked before there was anything to see.
            let _ = cgroup.remove();
            return Ok(None);
        }
        noted.map(|()| Some(cgroup))
    }

    /// The most processes a container may have, as far as that is known.
    pub fn pids_limit(&self, container: &Container) -> Option<i64> {
        let config = &container.config;
        config.options.resources.pids_limit.or_else(|| {
            let usual = config.cgroup.usual_pids.unwrap_or(USUAL_PIDS);
            of(&self.paths, container.id()).map(|_| usual)
        })
    }

    /// The path of a running container's cgroup, if it has one of its own.
    pub fn cgroup_path(&self, container: &Container) -> Option<String> {
        of(&self.paths, container.id()).map(|cgroup| cgroup.path())
    }

    /// What a running container uses now.
    pub fn usage(&self, container: &Container) -> processes::Usage {
        let mut usage = processes::usage(container);
        if let Some(cgroup) = of(&self.paths, container.id()) {
            let counted = cgroup.usage();
            usage.cpu = counted.cpu.unwrap_or(usage.cpu);
            usage.cpu_system = counted.cpu_system.unwrap_or(usage.cpu_system);
            usage.memory = counted.memory.unwrap_or(usage.memory);
            usage.pids = counted.pids.unwrap_or(usage.pids);
            usage.block_read = counted.read.unwrap_or(usage.block_read);
            usage.block_written = counted.written.unwrap_or(usage.block_written);
            if let Some(limit) = counted.memory_limit {
                usage.memory_limit = usage.memory_limit.min(limit);
            }
        }
        usage
    }

    /// What to say to somebody who starts a container that may end with this login session: once a session.
    pub fn logout_hint(&self) -> Option<String> {
        let user = rcon_sys::passwd::current_user_name()?;
        let uid = rustix::process::geteuid();
        // Only systemd takes away what users leave behind.
        if uid.is_root()
            || fs::metadata("/run/systemd/system").is_err()
            || fs::metadata(format!("/var/lib/systemd/linger/{user}")).is_ok()
        {
            return None;
        }
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mine = format!("/user-{}.slice/", uid.as_raw());
        if !own.contains(&mine) {
            return None;
        }
        let said = self.paths.runroot.join("said-lingering");
        let first = fs::File::options()
            .write(true)
            .create_new(true)
            .open(&said)
            .is_ok();
        first.then(|| {
            format!(
                "containers of {user} end with the last login session; `loginctl enable-linger` lets them go on"
            )
        })
    }
}
