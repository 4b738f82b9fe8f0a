//! A clock that jumps, and a clock that somebody else has: containers, their ends and their logs are not led astray.
//!
//! The wall clock is in records and logs, and nothing but what is shown depends on it: a jump is the same as records
//! whose times are all later, or earlier, than they should be, and that is how these scenarios make it. Who lives is told
//! by what is unique to a process, and how long by the clock since boot; a time namespace has another one of these.

use std::fs;
use std::process::Stdio;

use chrono::{DateTime, Duration, FixedOffset};

use crate::lab::program::Running;
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, lab};

scenarios!(set_back, set_forward, another_boot_time);

/// Moves every time in the container's records and log.
fn shift(t: &Rcon, name: &str, by: Duration) {
    let dir = t.root().join("containers").join(t.inspect(name, "{{.Id}}"));
    let moved = |text: &str| -> Option<String> {
        let time: DateTime<FixedOffset> = DateTime::parse_from_rfc3339(text).ok()?;
        Some((time + by).to_rfc3339())
    };
    for file in ["config.json", "state.json"] {
        let path = dir.join(file);
        let mut value: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for (_, field) in value.as_object_mut().unwrap() {
            if let Some(text) = field.as_str().and_then(moved) {
                *field = text.into();
            }
        }
        // As its monitor would: another file in its place.
        let fresh = dir.join("shifted");
        fs::write(&fresh, value.to_string()).unwrap();
        std::os::unix::fs::chown(&fresh, Some(t.user.uid), Some(t.user.gid)).unwrap();
        fs::rename(fresh, path).unwrap();
    }
    let path = dir.join("log");
    let text = fs::read_to_string(&path).unwrap();
    let lines = text.lines().map(|line| {
        let (time, rest) = line.split_once(' ').unwrap();
        format!("{} {rest}\n", moved(time).unwrap())
    });
    fs::write(&path, lines.collect::<String>()).unwrap();
}

const SCRIPT: &str =
    "echo before; until test -e /go; do sleep 0.02; done; rm /go; echo after; exit 6";

fn jump(t: &Rcon, by: Duration) {
    let image = t.pull("busybox");
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        "--timeout",
        "3600",
        "--health-cmd",
        "true",
        "--health-interval",
        "100ms",
        &image,
        "sh",
        "-c",
        SCRIPT,
    ]);
    eventually("its word", 20, || {
        (t.ok(&["logs", "c"]) == "before").then_some(())
    });
    let pid = t.inspect("c", "{{.State.Pid}}");
    shift(t, "c", by);
    let shown = t.ok(&["ps", "--format", "{{.Names}} {{.Status}} {{.RunningFor}}"]);
    assert!(
        shown.starts_with("c Up ") && !shown.contains('-'),
        "{shown}"
    );
    assert_eq!(
        t.inspect("c", "{{.State.Status}} {{.State.Pid}}"),
        format!("running {pid}")
    );
    t.run(&["exec", "c", "echo", "here"]).prints("here\n");
    // Checks go on by a clock that does not jump.
    let checked = || t.inspect("c", "{{len .State.Health.Log}}");
    eventually("health checks", 20, || (checked() == "5").then_some(()));
    let follower = t.start(&["logs", "-f", "c"]);
    t.let_go("c");
    t.run(&["wait", "c"]).prints("6\n");
    follower.wait().prints("before\nafter\n");
    t.run(&["logs", "c"]).prints("before\nafter\n");
    t.run(&["logs", "--tail", "1", "c"]).prints("after\n");
    let shown = t.ok(&["ps", "-a", "--format", "{{.Status}}"]);
    assert!(
        shown.starts_with("Exited (6) ") && !shown.contains('-'),
        "{shown}"
    );
    t.ok(&["events", "--stream=false"]);
    // An end in the future is no reason not to start again, nor not to be removed.
    shift(t, "c", by);
    t.run(&["start", "c"]).prints("c\n");
    t.let_go("c");
    t.run(&["wait", "c"]).prints("6\n");
    shift(t, "c", by);
    t.run(&["container", "prune", "-f"]).code(0);
    t.has_containers(0);
}

fn set_back(t: &mut Rcon) {
    jump(t, Duration::days(2));
}

fn set_forward(t: &mut Rcon) {
    jump(t, Duration::days(-2));
}

fn another_boot_time(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    let before = t.inspect("c", "{{.State.Pid}} {{.State.ConmonPid}}");
    if !lab().root {
        return;
    }
    let elsewhere = |args: &[&str]| {
        let ready = t.command(args);
        let mut command = std::process::Command::new("unshare");
        command.args([
            "--time",
            "--fork",
            "--boottime",
            "500000",
            "--monotonic",
            "500000",
            "--",
        ]);
        command.args([
            "setpriv",
            "--clear-groups",
            "--reuid",
            &t.user.uid.to_string(),
        ]);
        command.args(["--regid", &t.user.gid.to_string(), "--"]);
        command.arg(ready.get_program()).args(ready.get_args());
        command.env_clear();
        for (name, value) in ready.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.current_dir(ready.get_current_dir().unwrap());
        Running::start(command, Stdio::null()).wait()
    };
    if !std::path::Path::new("/proc/self/ns/time").exists() || elsewhere(&["version"]).code != 0 {
        return;
    }
    // Before Linux 6.9 only the time of its start tells a process from others, which is another one there.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || {
        parts
            .next()
            .and_then(|n| n.parse::<u32>().ok())
            .unwrap_or(0)
    };
    if (next(), next()) < (6, 9) {
        return;
    }
    let format = "{{.State.Pid}} {{.State.ConmonPid}}";
    elsewhere(&["inspect", "-f", format, "c"]).prints(&format!("{before}\n"));
    elsewhere(&["exec", "c", "echo", "here"]).prints("here\n");
    assert_eq!(t.inspect("c", format), before);
    elsewhere(&["stop", "-t", "0", "c"]).code(0);
    assert_eq!(
        t.inspect("c", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 137"
    );
}
