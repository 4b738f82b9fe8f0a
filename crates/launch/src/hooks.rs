//! Hooks: programs of the host's, or of the container's, that are run at points of a container's
//! life (config.md, POSIX-platform hooks).
//!
//! A hook reads the state of the container from its standard input: a file in memory, so that one
//! that does not read it hinders nobody.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use oci_spec::runtime::{Hook, Hooks, Spec};
use rcon_sys::process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::Pid;
use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::request::KnownAs;

/// The points of a container's life that have hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The older name of the next one; before it.
    Prestart,
    /// When the namespaces and mounts are there, in the creator's namespaces.
    CreateRuntime,
    /// At the same point, in the container's namespaces, before it has its root.
    CreateContainer,
    /// Before the program is executed, in the container.
    StartContainer,
    /// When the program is executed, in the creator's namespaces.
    Poststart,
    /// When the container is deleted, in the creator's namespaces.
    Poststop,
}

impl Point {
    /// The name in a specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// The state of a container as other programs are told it (runtime.md, state).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateOf<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a HashMap<String, String>>,
}

impl<'a> StateOf<'a> {
    /// That of the container of `spec` with this status and first process.
    pub fn new(spec: &'a Spec, who: KnownAs<'a>, status: &'a str, pid: Option<i32>) -> Self {
        Self {
            oci_version: spec.version(),
            id: who.id,
            status,
            pid,
            bundle: who.bundle,
            annotations: spec.annotations().as_ref().filter(|all| !all.is_empty()),
        }
    }
}

/// The hooks of `spec` at `point`.
pub(crate) fn at(spec: &Spec, point: Point) -> &[Hook] {
    let hooks = spec.hooks().as_ref();
    hooks
        .and_then(|hooks| list(hooks, point))
        .unwrap_or_default()
}

fn list(hooks: &Hooks, point: Point) -> Option<&[Hook]> {
    let list = match point {
        Point::Prestart => hooks.prestart(),
        Point::CreateRuntime => hooks.create_runtime(),
        Point::CreateContainer => hooks.create_container(),
        Point::StartContainer => hooks.start_container(),
        Point::Poststart => hooks.poststart(),
        Point::Poststop => hooks.poststop(),
    };
    list.as_deref()
}

/// Whether `spec` has any hook.
pub(crate) fn any(spec: &Spec) -> bool {
    spec.hooks()
        .as_ref()
        .is_some_and(|hooks| *hooks != Hooks::default())
}

/// Whether hooks are to be run while the container is made.
pub(crate) fn any_at_creation(spec: &Spec) -> bool {
    [Point::Prestart, Point::CreateRuntime]
        .iter()
        .any(|point| !at(spec, *point).is_empty())
}

/// Run the hooks of `spec` at `point`, one after the other, until one fails.
///
/// A hook without an environment gets `inherited`, or with `None` that of this process.
pub fn run(
    spec: &Spec,
    point: Point,
    state: &StateOf<'_>,
    inherited: Option<&[String]>,
) -> Result<()> {
    for hook in at(spec, point) {
        run_one(hook, state, inherited)
            .map_err(|why| Error::Hook(format!("{} hook {}: {why}", point.name(), shown(hook))))?;
    }
    Ok(())
}

/// As [`run`], every one, whether those before it failed; what went wrong, in words.
pub fn run_all(spec: &Spec, point: Point, state: &StateOf<'_>) -> Vec<String> {
    let failed = |hook: &Hook| {
        let why = run_one(hook, state, None).err()?;
        Some(format!("{} hook {}: {why}", point.name(), shown(hook)))
    };
    at(spec, point).iter().filter_map(failed).collect()
}

fn shown(hook: &Hook) -> std::path::Display<'_> {
    hook.path().display()
}

fn run_one(hook: &Hook, state: &StateOf<'_>, inherited: Option<&[String]>) -> Result<(), String> {
    if !hook.path().is_absolute() {
        return Err("its path is not absolute".to_owned());
    }
    if hook.timeout().is_some_and(|seconds| seconds <= 0) {
        return Err("its timeout is not greater than zero".to_owned());
    }
    let stdin = state_file(state).map_err(|error| error.to_string())?;
    let mut command = Command::new(hook.path());
    let words = hook.args().as_deref().unwrap_or_default();
    if let Some((name, arguments)) = words.split_first() {
        command.arg0(name).args(arguments);
    }
    let environment = match hook.env().as_deref() {
        Some(own) if !own.is_empty() => Some(own),
        _ => inherited,
    };
    if let Some(environment) = environment {
        command.env_clear();
        command.envs(environment.iter().filter_map(|word| word.split_once('=')));
    }
    let mut child = command
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::inherit())
        .spawn()
        .map_err(|error| crate::error::describe(raw(&error)).to_owned())?;
    if let Some(seconds) = hook.timeout()
        && !ends_within(child.id(), seconds)
    {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("it did not end within {seconds} s"));
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(end(status)),
        Err(error) => Err(crate::error::describe(raw(&error)).to_owned()),
    }
}

fn raw(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn end(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("it was ended by signal {signal}"),
        None => format!("it ended with code {}", status.code().unwrap_or(-1)),
    }
}

/// Whether the child `id` ends within so many seconds.
fn ends_within(id: u32, seconds: i64) -> bool {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    let Some(Ok(pidfd)) = pid.map(process::pidfd_open) else {
        // It has ended already, and been reaped by nobody: the wait says how.
        return true;
    };
    let begun = std::time::Instant::now();
    let allowed = Duration::from_secs(seconds.unsigned_abs());
    loop {
        let left = allowed.saturating_sub(begun.elapsed());
        let limit = Timespec::try_from(left).ok();
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut fds, limit.as_ref()) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

fn state_file(state: &StateOf<'_>) -> Result<OwnedFd> {
    let step = || "cannot write the state for a hook".to_owned();
    let text = serde_json::to_vec(state).unwrap_or_default();
    let file = rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC).context(step)?;
    let mut file = File::from(file);
    file.write_all(&text).context(step)?;
    file.rewind().context(step)?;
    Ok(file.into())
}
