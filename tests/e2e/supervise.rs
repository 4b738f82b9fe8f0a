//! What the monitor does for its container: time limits, files with numbers, waiting; and what becomes of all that when the
//! monitor is stopped or everything dies at once.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::attach::attached;
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon, eventually, leaks};

scenarios!(
    time_limit,
    numbers_in_files,
    orphans_are_reaped,
    stopped_monitor,
    monitor_that_sleeps,
    deaf_to_every_signal,
    all_dies_at_once,
    number_of_another,
    cleanup,
    waits_for_conditions,
    policy_is_changed,
);

fn time_limit(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&[
        "run",
        "--name",
        "c",
        "--timeout",
        "1",
        &image,
        "sleep",
        "1000",
    ])
    .code(255);
    assert_eq!(
        t.inspect("c", "{{.State.ExitCode}} {{.Config.Timeout}}"),
        "255 1"
    );
    t.sh(&["--timeout", "100"], &image, "exit 3").code(3);
}

fn numbers_in_files(t: &mut Rcon) {
    let image = t.pull("busybox");
    let dir = t.mkdir("numbers");
    let path = |name: &str| format!("{dir}/{name}");
    let (pid, monitor, id) = (path("pid"), path("monitor"), path("id"));
    t.sleeper(
        "c",
        &[
            "--pidfile",
            &pid,
            "--conmon-pidfile",
            &monitor,
            "--cidfile",
            &id,
        ],
        &image,
    );
    let read = |path: &str| fs::read_to_string(path).unwrap();
    assert_eq!(read(&pid), t.inspect("c", "{{.State.Pid}}"));
    assert_eq!(read(&monitor), t.inspect("c", "{{.State.ConmonPid}}"));
    assert_eq!(read(&id), t.inspect("c", "{{.Id}}"));
    assert_eq!(
        t.inspect(
            "c",
            "{{.PidFile}} {{.ConmonPidFile}} {{.HostConfig.ContainerIDFile}}"
        ),
        format!("{pid} {monitor} {id}")
    );
    // Each start writes them anew.
    let before = read(&pid);
    t.ok(&["restart", "-t", "0", "c"]);
    assert!(read(&pid) != before && read(&pid) == t.inspect("c", "{{.State.Pid}}"));
}

fn orphans_are_reaped(t: &mut Rcon) {
    let image = t.pull("busybox");
    let count = if t.mode == Mode::ManyIds { 10_000 } else { 300 };
    let script = format!(
        "i=0; while [ $i -lt {count} ]; do (: & :); i=$((i+1)); done; echo done; exec sleep 1000"
    );
    t.ok(&[
        "run", "-d", "--init", "--name", "c", &image, "sh", "-c", &script,
    ]);
    eventually("all have been made", 110, || {
        (t.ok(&["logs", "c"]) == "done").then_some(())
    });
    eventually("none is left", 60, || {
        let list = t.ok(&["exec", "c", "ps", "-o", "stat,args"]);
        (!list.lines().any(|l| l.starts_with('Z'))).then_some(())
    });
    t.ok(&["rm", "-f", "-t", "0", "c"]);
}

fn monitor_of(t: &Rcon, name: &str) -> Pid {
    Pid::from_raw(t.inspect(name, "{{.State.ConmonPid}}").parse().unwrap())
}

fn stopped_monitor(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    kill(monitor_of(t, "c"), Signal::SIGSTOP).unwrap();
    // What needs no monitor goes on.
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "running");
    t.run(&["exec", "c", "echo", "here"]).prints("here\n");
    // What needs it has it go on.
    t.run(&["stop", "-t", "0", "c"]).prints("c\n").quiet();
    assert_eq!(
        t.inspect("c", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 137"
    );
    // An end that it could not see is seen by the next command.
    t.ok(&["start", "c"]);
    let pid: i32 = t.inspect("c", "{{.State.Pid}}").parse().unwrap();
    kill(monitor_of(t, "c"), Signal::SIGSTOP).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    eventually("the truth", 20, || {
        (t.inspect("c", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137").then_some(())
    });
}

/// `RCON_TEST_SLEEP=30` is the long form, in seconds.
fn monitor_that_sleeps(t: &mut Rcon) {
    let image = t.pull("busybox");
    let count = "until test -e /go; do sleep 0.02; done; seq 1 20000; exit 3";
    t.ok(&["run", "-d", "--name", "c", &image, "sh", "-c", count]);
    let watcher = t.start(&["attach", "--no-stdin", "c"]);
    attached(t, 1);
    let monitor = monitor_of(t, "c");
    kill(monitor, Signal::SIGSTOP).unwrap();
    t.let_go("c");
    let seconds = std::env::var("RCON_TEST_SLEEP").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(1.0);
    std::thread::sleep(Duration::from_secs_f64(seconds));
    // It waits for room in its pipe, or has ended, and no other monitor took this one's place.
    assert_eq!(monitor_of(t, "c"), monitor);
    kill(monitor, Signal::SIGCONT).unwrap();
    let out = watcher.wait();
    assert_eq!(out.code, 3, "{}", out.story());
    let log = t.run(&["logs", "c"]).stdout;
    let lines = log.lines().map(|line| line.parse::<usize>().unwrap());
    assert!(lines.eq(1..=20_000));
    // So has who was attached before: the monitor had heard of it.
    assert_eq!(out.stdout, log);
    assert_eq!(
        t.inspect("c", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 3"
    );
}

fn deaf_to_every_signal(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "for n in $(seq 1 64); do trap '' $n 2>/dev/null; done; echo deaf; while :; do sleep 1; done";
    t.ok(&["run", "-d", "--name", "c", &image, "sh", "-c", script]);
    eventually("it is deaf", 20, || {
        (t.ok(&["logs", "c"]) == "deaf").then_some(())
    });
    for signal in [
        "HUP", "INT", "QUIT", "TERM", "USR1", "ABRT", "SEGV", "RTMIN+3",
    ] {
        t.run(&["kill", "-s", signal, "c"]).code(0);
    }
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "running");
    // A command in the foreground passes on what it gets, and stays.
    let running = t.start(&["attach", "--no-stdin", "c"]);
    attached(t, 1);
    t.run(&["stop", "-t", "1", "c"]).prints("c\n");
    assert_eq!(running.wait().code, 137);
    assert_eq!(
        t.inspect("c", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 137"
    );
    t.ok(&["start", "c"]);
    t.run(&["rm", "-f", "-t", "0", "c"]).code(0);
}

fn all_dies_at_once(t: &mut Rcon) {
    let image = t.pull("busybox");
    for name in ["a", "b"] {
        t.ok(&[
            "run",
            "-d",
            "--name",
            name,
            "-P",
            &image,
            "sh",
            "-c",
            "echo up; exec sleep 1000",
        ]);
        eventually("it is up", 20, || {
            (t.ok(&["logs", name]) == "up").then_some(())
        });
    }
    t.named_sh("ended", &image, "echo last words; exit 9")
        .code(9);
    t.ok(&[
        "run", "-d", "--rm", "--name", "gone", &image, "sleep", "1000",
    ]);
    leaks::kill_all(&t.dir);
    // As a machine leaves it that went down: another boot, and an empty runtime folder.
    fs::remove_dir_all(t.dir.join("run/rcon")).unwrap();
    let id = fs::read_link(t.root().join("container-names/b")).unwrap();
    let path = t.root().join("containers").join(id).join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["boot_id"] = "an earlier one".into();
    fs::write(&path, state.to_string()).unwrap();

    t.run(&["ps", "-q"]).prints("").quiet();
    t.has_containers(3);
    assert!(
        t.inspect("a", "{{.State.Error}}")
            .contains("monitor was killed")
    );
    assert!(
        t.inspect("b", "{{.State.Error}}")
            .contains("machine went down")
    );
    for name in ["a", "b"] {
        assert_eq!(
            t.inspect(name, "{{.State.Status}} {{.State.ExitCode}}"),
            "exited 255"
        );
        t.run(&["logs", name]).prints("up\n");
    }
    assert_eq!(t.inspect("ended", "{{.State.ExitCode}}"), "9");
    t.run(&["logs", "ended"]).prints("last words\n");
    t.run(&["start", "a"]).prints("a\n");
    t.run(&["exec", "a", "echo", "again"]).prints("again\n");
}

/// The number of a container's process, and of its monitor, has been given to somebody else since: who is neither taken for it
/// nor signalled.
fn number_of_another(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    leaks::kill_all(&t.dir);
    let words = [
        "sh",
        "-c",
        "trap 'echo hit' TERM HUP USR1; echo up; cat >/dev/null; echo end",
    ];
    let command = t.command_of(&words.map(str::to_owned));
    let mut bystander = crate::lab::program::Running::start(command, std::process::Stdio::piped());
    let id = fs::read_link(t.root().join("container-names/c")).unwrap();
    let path = t.root().join("containers").join(id).join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for part in ["process", "monitor"] {
        assert!(state[part]["pid"].is_number(), "{state}");
        state[part]["pid"] = bystander.pid().into();
    }
    fs::write(&path, state.to_string()).unwrap();
    t.run(&["kill", "-s", "USR1", "c"]).code(125);
    t.run(&["stop", "-t", "1", "c"]).code(0);
    assert_eq!(
        t.inspect("c", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}"),
        "exited 255 0"
    );
    t.run(&["exec", "c", "true"]).refused(255);
    t.run(&["start", "c"]).prints("c\n");
    t.ok(&["rm", "-f", "-t", "0", "c"]);
    bystander.close_input();
    let out = bystander.wait();
    assert_eq!(out.stdout, "up\nend\n", "{}", out.story());
}

fn cleanup(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--name", "c", &image, "true"]).code(0);
    t.run(&["container", "cleanup", "c"]).prints("c\n");
    t.has_containers(1);
    t.ok(&["run", "-d", "--name", "d", &image, "sleep", "1000"]);
    t.run(&["container", "cleanup", "d"])
        .refused(125)
        .says("refusing to clean up");
    t.run(&["container", "cleanup", "--rm", "c"]).code(0);
    t.has_containers(1);
}

fn waits_for_conditions(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&[
        "create",
        "--name",
        "c",
        "--health-cmd",
        "test -e /ok",
        "--health-interval",
        "100ms",
        &image,
        "sleep",
        "1000",
    ]);
    t.run(&["wait", "--condition", "created", "c"])
        .prints("-1\n");
    let running = t.start(&["wait", "--condition", "running", "-i", "10ms", "c"]);
    t.ok(&["start", "c"]);
    running.wait().prints("-1\n");
    let healthy = t.start(&["wait", "--condition=healthy", "c"]);
    t.ok(&["exec", "c", "touch", "/ok"]);
    healthy.wait().prints("-1\n");
    t.ok(&["exec", "c", "rm", "/ok"]);
    t.run(&["wait", "--condition=unhealthy,exited", "c"])
        .prints("-1\n");
    let ended = t.start(&["wait", "c"]);
    t.ok(&["stop", "-t", "0", "c"]);
    ended.wait().prints("137\n");
    let removed = t.start(&["wait", "--condition=removing", "c"]);
    t.ok(&["rm", "c"]);
    removed.wait();
    let script = "until test -e /go; do sleep 0.02; done; exit 9";
    for name in ["slow", "quick"] {
        t.ok(&["run", "-d", "--name", name, &image, "sh", "-c", script]);
    }
    let first = t.start(&["wait", "--exit-first-match", "slow", "quick"]);
    t.let_go("quick");
    first.wait().prints("9\n");
    t.ok(&["rm", "-f", "-t", "0", "slow", "quick"]);
    t.run(&["wait", "--condition", "asleep", "c"])
        .refused(125)
        .says("unknown container state");
}

/// `update --restart` holds for a container that runs already.
fn policy_is_changed(t: &mut Rcon) {
    let image = t.pull("busybox");
    let dir = t.mkdir("dir");
    let bind = format!("{dir}:/v");
    let script = "until test -e /v/end; do sleep 0.05; done; exit 3";
    t.ok(&[
        "run", "-d", "--name", "c", "-v", &bind, &image, "sh", "-c", script,
    ]);
    t.run(&["update", "--restart", "nosuch", "c"])
        .refused(125)
        .says("not a valid restart policy");
    t.ok(&["update", "--restart", "on-failure:2", "c"]);
    assert_eq!(
        t.inspect(
            "c",
            "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"
        ),
        "on-failure 2"
    );
    t.write("dir/end", "");
    eventually("it was started twice more", 60, || {
        (t.inspect(
            "c",
            "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}",
        ) == "2 exited 3")
            .then_some(())
    });
    // And the other way round.
    t.ok(&["update", "--restart", "always", "c"]);
    std::fs::remove_file(format!("{dir}/end")).unwrap();
    t.ok(&["start", "c"]);
    t.ok(&["update", "--restart", "no", "c"]);
    t.write("dir/end", "");
    t.run(&["wait", "c"]).prints("3\n");
    assert_eq!(
        t.inspect("c", "{{.State.Status}} {{.RestartCount}}"),
        "exited 0"
    );
    t.ok(&["create", "--rm", "--name", "brief", &image, "true"]);
    t.run(&["update", "--restart", "always", "brief"])
        .refused(125)
        .says("--rm");
}
