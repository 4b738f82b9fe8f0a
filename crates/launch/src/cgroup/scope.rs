//! Transient scopes of systemd (org.freedesktop.systemd1(5)).

use std::path::Path;
use std::time::{Duration, Instant};

use super::bus::{Bus, Call, Value};
use super::{Error, Result};

/// How long systemd may take to forget a scope.
const PATIENCE: Duration = Duration::from_secs(5);

const PATH: &str = "/org/freedesktop/systemd1";
const NAME: &str = "org.freedesktop.systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";

/// A scope to be made.
pub(super) struct Scope<'a> {
    /// Its name.
    pub unit: &'a str,
    /// The slice it is to be in; else systemd's own choice for it.
    pub slice: Option<&'a str>,
    /// What it is, for people.
    pub description: &'a str,
    /// The processes that are to be in it.
    pub pids: &'a [i32],
}

/// Whether there is a systemd that may make scopes for us, and a bus to ask it on. Asks nothing.
pub fn is_reachable() -> bool {
    super::host::has_systemd() && !Bus::addresses().is_empty()
}

fn call(member: &'static str, signature: &'static str, body: Vec<Value>) -> Call {
    Call {
        path: PATH,
        destination: NAME,
        interface: INTERFACE,
        member,
        signature,
        body,
    }
}

/// Have systemd make the scope; its processes are in it when this returns.
pub(super) fn start(scope: &Scope<'_>) -> Result<()> {
    let mut bus = connect()?;
    // Signals are sent to those only who asked for them, and the job may be done before its number
    // is heard of.
    bus.match_signal(INTERFACE, "JobRemoved")?;
    bus.call(&call("Subscribe", "", Vec::new()))?;
    let text = |text: &str| Value::Text(text.to_owned());
    let mut properties = vec![
        (
            "Description",
            Value::Variant("s", Box::new(text(scope.description))),
        ),
        ("Delegate", Value::Variant("b", Box::new(Value::Bool(true)))),
        (
            "DefaultDependencies",
            Value::Variant("b", Box::new(Value::Bool(false))),
        ),
        // The container's own limit is set below it, and by it alone.
        (
            "TasksMax",
            Value::Variant("t", Box::new(Value::Long(u64::MAX))),
        ),
        (
            "CollectMode",
            Value::Variant("s", Box::new(text("inactive-or-failed"))),
        ),
    ];
    if let Some(slice) = scope.slice {
        properties.push(("Slice", Value::Variant("s", Box::new(text(slice)))));
    }
    let pids = scope
        .pids
        .iter()
        .map(|pid| Value::Number(pid.unsigned_abs()));
    properties.push((
        "PIDs",
        Value::Variant("au", Box::new(Value::Array(4, pids.collect()))),
    ));
    let properties = properties
        .into_iter()
        .map(|(name, value)| Value::Struct(vec![text(name), value]))
        .collect();
    let body = vec![
        text(scope.unit),
        text("replace"),
        Value::Array(8, properties),
        Value::Array(8, Vec::new()),
    ];
    let start = call("StartTransientUnit", "ssa(sv)a(sa(sv))", body);
    let deadline = Instant::now() + PATIENCE;
    let answer = loop {
        match bus.call(&start) {
            // The scope of the container's life before this one: systemd is about to forget it.
            Err(Error::Systemd(words))
                if words.contains("already") && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => break other?,
        }
    };
    let job = answer
        .first()
        .cloned()
        .ok_or_else(|| Error::Systemd("it answered without a job".to_owned()))?;
    // id, job, unit, result
    let done = bus.wait_signal("JobRemoved", |texts| texts.first() == Some(&job))?;
    match done.get(2).map(String::as_str) {
        Some("done") => Ok(()),
        other => Err(Error::Systemd(format!(
            "the job for {} ended with {:?}",
            scope.unit,
            other.unwrap_or("nothing")
        ))),
    }
}

/// The unit of systemd that the cgroup `dir` is in, and its place in there.
pub(super) fn unit_of(dir: &Path) -> Option<(String, String)> {
    let is_unit = |name: &str| name.ends_with(".scope") || name.ends_with(".service");
    let unit = dir.ancestors().find(|dir| {
        let name = dir.file_name().and_then(|name| name.to_str());
        name.is_some_and(is_unit)
    })?;
    let below = dir.strip_prefix(unit).ok()?;
    let name = unit.file_name()?.to_str()?.to_owned();
    Some((name, below.to_str()?.to_owned()))
}

/// Have systemd move a process into a cgroup of the scope.
pub(super) fn attach(unit: &str, below: &str, pid: i32) -> Result<()> {
    let body = vec![
        Value::Text(unit.to_owned()),
        Value::Text(format!("/{below}")),
        Value::Array(4, vec![Value::Number(pid.unsigned_abs())]),
    ];
    connect()?.call(&call("AttachProcessesToUnit", "ssau", body))?;
    Ok(())
}

/// A bus on which systemd can be asked: that of the user, or of the system for the super-user.
fn connect() -> Result<Bus> {
    let mut last = Error::Unavailable(super::error::Lack::Bus);
    for address in Bus::addresses() {
        let opened = Bus::open(&address).and_then(|mut bus| {
            // Any session bus would let us in, but not all know of systemd.
            bus.call(&call("GetDefaultTarget", "", Vec::new()))?;
            Ok(bus)
        });
        match opened {
            Ok(bus) => return Ok(bus),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_found_in_paths() {
        let unit = |path: &str| unit_of(Path::new(path));
        let user = "/sys/fs/cgroup/user.slice/user@1.service";
        assert_eq!(
            unit(&format!("{user}/app.slice/a.scope/rcon-1")).unwrap(),
            ("a.scope".to_owned(), "rcon-1".to_owned())
        );
        assert_eq!(
            unit(&format!("{user}/rcon-1.scope/container")).unwrap(),
            ("rcon-1.scope".to_owned(), "container".to_owned())
        );
        assert!(unit("/sys/fs/cgroup/mine").is_none());
    }
}
