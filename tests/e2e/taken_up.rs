//! kill -9 of a monitor while its container lives: the container does not notice, and the next command gives it another one
//! that goes on with its log, its ports, its health checks, its policy and its end.

use std::fs;
use std::net::TcpListener;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::net::{fetch, free_port};
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon, eventually};

scenarios!(
    log_goes_on,
    of_another_user,
    foreground,
    closed_input,
    closed_output,
    streams_of_its_own,
    terminal,
    attached,
    network_and_ports,
    policy_and_health,
    removes_itself,
    two_at_once
);

fn monitor_of(t: &Rcon, name: &str) -> Pid {
    Pid::from_raw(t.inspect(name, "{{.State.ConmonPid}}").parse().unwrap())
}

/// The monitor by its record alone: asking for it would have another one made.
fn recorded(t: &Rcon, name: &str) -> Option<Pid> {
    let pid = state(t, name)?["monitor"]["pid"].as_i64()?;
    Some(Pid::from_raw(i32::try_from(pid).unwrap()))
}

fn kill_monitor(t: &Rcon, name: &str) -> Pid {
    let monitor = eventually("it is started", 20, || recorded(t, name));
    kill(monitor, Signal::SIGKILL).unwrap();
    eventually("the monitor is dead", 20, || {
        let stat = fs::read_to_string(format!("/proc/{monitor}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    monitor
}

/// Whether the kernel tells how a process ended to who is not its parent (Linux 6.15).
fn ends_are_told() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || {
        parts
            .next()
            .and_then(|n| n.parse::<u32>().ok())
            .unwrap_or(0)
    };
    (next(), next()) >= (6, 15)
}

/// The end is as it should be, or said to be unknown.
#[track_caller]
fn ended_with(t: &Rcon, name: &str, code: i32) {
    let end = t.inspect(
        name,
        "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}",
    );
    match ends_are_told() {
        true => assert_eq!(end.trim_end(), format!("exited {code}")),
        false => assert!(
            end.starts_with(&format!("exited {code}"))
                || end.starts_with("exited 255 the monitor was killed"),
            "{end}"
        ),
    }
}

/// Says something, waits until it is told to go on, says more than a pipe can hold, and ends. While it waits its monitor has
/// nothing in hand.
const COUNT: &str =
    "seq 1 3; until test -e /s/go; do sleep 0.02; done; seq 4 20000; echo end >&2; exit 7";

/// Waits until it has said its first lines.
fn waits(t: &Rcon, name: &str) {
    eventually("it waits", 20, || {
        (t.run(&["logs", name]).stdout == "1\n2\n3\n").then_some(())
    });
}

/// The option for a folder that container and scenario share.
fn shared(t: &Rcon) -> String {
    format!("{}:/s", t.mkdir("shared"))
}

/// Tells the container to go on without the help of any command.
fn go(t: &Rcon) {
    t.write("shared/go", "");
}

#[track_caller]
fn is_whole(log: &str) {
    let lines: Vec<usize> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(
        lines.iter().copied().eq(1..=20_000),
        "{} lines",
        lines.len()
    );
}

fn log_goes_on(t: &mut Rcon) {
    let image = t.pull("busybox");
    let folder = shared(t);
    t.ok(&[
        "run", "-d", "-v", &folder, "--name", "c", &image, "sh", "-c", COUNT,
    ]);
    waits(t, "c");
    let pid = t.inspect("c", "{{.State.Pid}}");
    let old = kill_monitor(t, "c");
    assert_ne!(monitor_of(t, "c"), old);
    // Once more, and this time nobody comes: it writes until there is no more room, and waits.
    kill_monitor(t, "c");
    go(t);
    let stuck = || {
        let call = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let waits = |pid: &str| {
            fs::read_to_string(format!("/proc/{pid}/wchan"))
                .is_ok_and(|call| call.contains("pipe_write"))
        };
        (call.contains("pipe_write") || children.split(' ').any(waits)).then_some(())
    };
    eventually("the pipe is full", 20, stuck);
    // Who looks has another monitor made, and it goes on.
    assert_eq!(
        t.inspect("c", "{{.State.Status}} {{.State.Pid}}"),
        format!("running {pid}")
    );
    let code = t.ok(&["wait", "c"]);
    ended_with(t, "c", 7);
    assert_eq!(code.trim(), t.inspect("c", "{{.State.ExitCode}}"));
    let out = t.run(&["logs", "c"]);
    assert_eq!(out.stderr, "end\n");
    is_whole(out.ok());
    // As ever after.
    t.run(&["start", "-a", "c"]).code(7);
}

fn of_another_user(t: &mut Rcon) {
    let image = t.pull("busybox");
    let user = if t.mode == Mode::ManyIds {
        "1000:1000"
    } else {
        "0"
    };
    let script = "until test -e /tmp/go; do sleep 0.02; done; echo here; exit 3";
    t.ok(&[
        "run", "-d", "-u", user, "--tmpfs", "/tmp", "--name", "c", &image, "sh", "-c", script,
    ]);
    kill_monitor(t, "c");
    t.ok(&["exec", "c", "touch", "/tmp/go"]);
    t.ok(&["wait", "c"]);
    ended_with(t, "c", 3);
    t.run(&["logs", "c"]).prints("here\n");
}

fn foreground(t: &mut Rcon) {
    let image = t.pull("busybox");
    let folder = shared(t);
    let script = format!("echo ready >&2; read word; test $word = hello; {COUNT}");
    let mut running = t.start_with_input(&[
        "run", "-i", "-v", &folder, "--name", "c", &image, "sh", "-c", &script,
    ]);
    eventually("it runs", 20, || {
        (t.run(&["logs", "c"]).stderr == "ready\n").then_some(())
    });
    let old = kill_monitor(t, "c");
    // The command sees to it by itself, and its input goes on.
    eventually("another monitor", 20, || {
        recorded(t, "c").filter(|now| *now != old)
    });
    running.write(b"hello\n");
    waits(t, "c");
    let old = kill_monitor(t, "c");
    eventually("another monitor", 20, || {
        recorded(t, "c").filter(|now| *now != old)
    });
    go(t);
    let out = running.wait();
    ended_with(t, "c", 7);
    assert_eq!(
        out.code.to_string(),
        t.inspect("c", "{{.State.ExitCode}}"),
        "{}",
        out.story()
    );
    is_whole(&out.stdout);
    is_whole(&t.run(&["logs", "c"]).stdout);
}

/// The state as it is written down.
fn state(t: &Rcon, name: &str) -> Option<serde_json::Value> {
    let id = fs::read_link(t.root().join("container-names").join(name)).ok()?;
    let path = t.root().join("containers").join(id).join("state.json");
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Waits until the record says that a standard stream is closed.
fn is_closed(t: &Rcon, standard: usize) {
    eventually("it is closed", 20, || {
        (state(t, "c")?["pipes"][standard] == 0).then_some(())
    });
}

/// Input that has come to its end has done so for every later monitor.
fn closed_input(t: &mut Rcon) {
    let image = t.pull("busybox");
    let folder = shared(t);
    let script = "until test -e /s/go; do sleep 0.02; done; cat; echo end";
    let run = [
        "run", "-i", "-v", &folder, "--name", "c", &image, "sh", "-c", script,
    ];
    let running = t.start(&run);
    is_closed(t, 0);
    // Without the command, which would see to it by itself.
    running.signal(Signal::SIGKILL);
    running.wait();
    let old = kill_monitor(t, "c");
    assert_ne!(monitor_of(t, "c"), old);
    go(t);
    t.ok(&["wait", "c"]);
    ended_with(t, "c", 0);
    t.run(&["logs", "c"]).prints("end\n");
}

/// Output that nobody reads any more is closed, and stays closed.
fn closed_output(t: &mut Rcon) {
    let image = t.pull("busybox");
    let folder = shared(t);
    let script = "trap '' PIPE; until test -e /s/said; do echo x 2>/dev/null || touch /s/said; sleep 0.02; done; \
        until test -e /s/go; do sleep 0.02; done; echo y || exit 8; exit 9";
    for alone in [false, true] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = t.command(&[
            "run", "-i", "-v", &folder, "--name", "c", &image, "sh", "-c", script,
        ]);
        command.stdout(writer).stderr(std::process::Stdio::null());
        command.stdin(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        is_closed(t, 1);
        let said = t.home("shared/said");
        eventually("the program sees it", 20, || said.exists().then_some(()));
        if alone {
            child.kill().unwrap();
        }
        for _ in 0..2 {
            let old = kill_monitor(t, "c");
            if alone {
                t.ok(&["ps"]);
            }
            eventually("another monitor", 20, || {
                recorded(t, "c").filter(|now| *now != old)
            });
        }
        go(t);
        child.wait().unwrap();
        t.ok(&["wait", "c"]);
        ended_with(t, "c", 8);
        t.ok(&["rm", "c"]);
        for name in ["go", "said"] {
            fs::remove_file(t.home("shared").join(name)).unwrap();
        }
    }
}

/// A container that has closed one of its streams keeps the others.
fn streams_of_its_own(t: &mut Rcon) {
    let image = t.pull("busybox");
    let folder = shared(t);
    for (options, closes) in [
        (&[][..], "exec 2>&-"),
        (&["-i"][..], "exec 2>&-"),
        (&["-i"][..], "exec </dev/null 2>/dev/null"),
    ] {
        let script = format!("{closes}; {COUNT}");
        let run = [&["run", "-d", "-v", &folder, "--name", "c"], options].concat();
        t.ok(&[&run[..], &[&image, "sh", "-c", &script]].concat());
        waits(t, "c");
        let old = kill_monitor(t, "c");
        assert_ne!(monitor_of(t, "c"), old);
        go(t);
        t.ok(&["wait", "c"]);
        ended_with(t, "c", 7);
        is_whole(&t.run(&["logs", "c"]).stdout);
        t.ok(&["rm", "c"]);
        fs::remove_file(t.home("shared/go")).unwrap();
    }
}

fn terminal(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "trap 'echo hung up' HUP; echo up; until test -e /go; do sleep 0.02; done; test -t 1 && echo terminal; exit 4";
    let running = t.start(&["run", "-t", "--name", "c", &image, "sh", "-c", script]);
    eventually("it runs", 20, || {
        (t.run(&["logs", "c"]).stdout == "up\r\n").then_some(())
    });
    let old = kill_monitor(t, "c");
    eventually("another monitor", 20, || {
        recorded(t, "c").filter(|now| *now != old)
    });
    t.let_go("c");
    let out = running.wait();
    assert_eq!(out.stdout, "up\r\nterminal\r\n", "{}", out.story());
    ended_with(t, "c", 4);
}

fn attached(t: &mut Rcon) {
    let image = t.pull("busybox");
    let folder = shared(t);
    t.ok(&[
        "run", "-d", "-v", &folder, "--name", "c", &image, "sh", "-c", COUNT,
    ]);
    waits(t, "c");
    let watcher = t.start(&["attach", "--no-stdin", "c"]);
    eventually("somebody watches", 20, || {
        let events = t.run(&["events", "--stream=false", "--filter", "event=attach"]);
        events.stdout.lines().next().map(|_| ())
    });
    let old = kill_monitor(t, "c");
    eventually("another monitor", 20, || {
        recorded(t, "c").filter(|now| *now != old)
    });
    go(t);
    let out = watcher.wait();
    ended_with(t, "c", 7);
    let code = t.inspect("c", "{{.State.ExitCode}}");
    assert_eq!(
        (out.code.to_string(), out.stderr.as_str()),
        (code, "end\n"),
        "{}",
        out.story()
    );
    is_whole(&t.run(&["logs", "c"]).stdout);
}

fn network_and_ports(t: &mut Rcon) {
    let image = t.pull("banner");
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    t.web("web", &["-p", &publish], &image);
    let to = format!("127.0.0.1:{port}");
    let page = || fetch(None, &to).ok().map(drop);
    eventually("the page", 20, page);
    // The network lives on under the next monitor, which has none of its sockets.
    let stats = |t: &Rcon| -> serde_json::Value {
        serde_json::from_str(&t.ok(&["network", "stats", "--format", "json", "web"])).unwrap()
    };
    let net = |t: &Rcon| {
        let stats = stats(t);
        let found = stats["pid"].as_i64().or_else(|| stats[0]["pid"].as_i64());
        Pid::from_raw(i32::try_from(found.unwrap_or_else(|| panic!("{stats}"))).unwrap())
    };
    let first = net(t);
    let noted = |t: &Rcon| {
        let id = t.inspect("web", "{{.Id}}");
        let path = t.root().join("containers").join(id).join("state.json");
        let state: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        state["network"]["pid"].as_i64()
    };
    eventually("the network is noted", 20, || {
        noted(t).filter(|pid| *pid == i64::from(first.as_raw()))
    });
    kill_monitor(t, "web");
    t.ok(&["ps"]);
    page().expect("the page");
    assert_eq!(net(t), first);
    t.run(&["port", "add", "web", "0:81"]).refused(125);
    // Its death is seen, and another takes its place.
    kill(first, Signal::SIGKILL).unwrap();
    eventually("the page again", 20, page);
    let second = net(t);
    assert_ne!(second, first);
    // Both at once.
    eventually("the network is noted", 20, || {
        noted(t).filter(|pid| *pid == i64::from(second.as_raw()))
    });
    kill_monitor(t, "web");
    kill(second, Signal::SIGKILL).unwrap();
    eventually("the page after both", 20, || {
        t.ok(&["ps"]);
        page()
    });
    t.run(&["rm", "-f", "-t", "0", "web"]).code(0);
    TcpListener::bind(("127.0.0.1", port)).unwrap();
}

fn policy_and_health(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "until test -e /go; do sleep 0.02; done; rm /go; exit 1";
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        "--restart",
        "always",
        "--health-cmd",
        "test -e /ok",
        "--health-interval",
        "100ms",
        "--health-retries",
        "1",
        &image,
        "sh",
        "-c",
        script,
    ]);
    eventually("unhealthy", 20, || {
        (t.inspect("c", "{{.State.Health.Status}}") == "unhealthy").then_some(())
    });
    kill_monitor(t, "c");
    t.ok(&["exec", "c", "touch", "/ok"]);
    eventually("healthy", 20, || {
        (t.inspect("c", "{{.State.Health.Status}}") == "healthy").then_some(())
    });
    t.let_go("c");
    eventually("started again", 20, || {
        (t.inspect("c", "{{.State.Status}} {{.RestartCount}}") == "running 1").then_some(())
    });
    t.run(&["stop", "-t", "0", "c"]).code(0);
    ended_with(t, "c", 137);
}

fn removes_itself(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--rm", "--name", "c", &image, "sleep", "1000"]);
    kill_monitor(t, "c");
    t.ok(&["ps"]);
    t.run(&["stop", "-t", "0", "c"]).code(0);
    eventually("it is gone", 20, || {
        t.run(&["ps", "-aq"]).stdout.is_empty().then_some(())
    });
}

fn two_at_once(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    kill_monitor(t, "c");
    let commands: Vec<_> = (0..6)
        .map(|_| t.start(&["inspect", "-f", "{{.State.ConmonPid}}", "c"]))
        .collect();
    let mut monitors: Vec<String> = commands
        .into_iter()
        .map(|c| c.wait().ok().to_owned())
        .collect();
    monitors.dedup();
    assert_eq!(monitors.len(), 1, "{monitors:?}");
    t.run(&["rm", "-f", "-t", "0", "c"]).code(0);
}
