//! What the monitor does for its container: time limits, notices to systemd, files handed on, and what becomes of all that
//! when the monitor is stopped or everything dies at once.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Output, Rcon, eventually, leaks};

scenarios!(
    time_limit,
    numbers_in_files,
    files_are_handed_on,
    sockets_are_handed_on,
    ready_by_the_monitor,
    ready_by_the_program,
    ready_when_healthy,
    orphans_are_reaped,
    stopped_monitor,
    monitor_that_sleeps,
    deaf_to_every_signal,
    all_dies_at_once,
    older_records,
    records_of_before,
    records_of_the_future,
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
    t.run(&[
        "run",
        "--rm",
        "--timeout",
        "100",
        &image,
        "sh",
        "-c",
        "exit 3",
    ])
    .code(3);
}

fn numbers_in_files(t: &mut Rcon) {
    let image = t.pull("busybox");
    let dir = t.mkdir("numbers");
    let path = |name: &str| format!("{dir}/{name}");
    let (pid, monitor, id) = (path("pid"), path("monitor"), path("id"));
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        "--pidfile",
        &pid,
        "--conmon-pidfile",
        &monitor,
        "--cidfile",
        &id,
        &image,
        "sleep",
        "1000",
    ]);
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

/// Runs a command by the shell, with redirections that this program would not make itself.
#[track_caller]
fn by_shell(t: &Rcon, line: &str, args: &[&str]) -> Output {
    let program = t.program.to_str().unwrap();
    let words: Vec<String> = [&["sh", "-c", line, program][..], args]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
    crate::lab::program::Running::start(t.command_of(&words), std::process::Stdio::null()).wait()
}

fn files_are_handed_on(t: &mut Rcon) {
    let image = t.pull("busybox");
    let file = t.write("given", "from a file\n");
    let line = format!("exec \"$0\" \"$@\" 3<{file} 5<{file}");
    let open = "ls /proc/self/fd | grep -c . >/dev/null; cat <&3";
    by_shell(
        t,
        &line,
        &[
            "run",
            "--rm",
            "--preserve-fds",
            "1",
            &image,
            "sh",
            "-c",
            open,
        ],
    )
    .prints("from a file\n");
    // What was not asked for does not get in.
    by_shell(
        t,
        &line,
        &[
            "run",
            "--rm",
            "--preserve-fds",
            "1",
            &image,
            "sh",
            "-c",
            "cat <&5",
        ],
    )
    .says("bad file descriptor");
    by_shell(
        t,
        &line,
        &[
            "run",
            "--rm",
            "--preserve-fd",
            "5",
            &image,
            "sh",
            "-c",
            "cat <&5",
        ],
    )
    .prints("from a file\n");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    by_shell(
        t,
        &line,
        &["exec", "--preserve-fds", "1", "c", "sh", "-c", "cat <&3"],
    )
    .prints("from a file\n");
    by_shell(
        t,
        "exec \"$0\" \"$@\"",
        &["run", "--preserve-fds", "1", &image, "true"],
    )
    .refused(125)
    .says("is not available");
    t.ok(&["rm", "-f", "-t", "0", "c"]);
    t.has_containers(0);
}

fn sockets_are_handed_on(t: &mut Rcon) {
    let image = t.pull("busybox");
    let file = t.write("given", "a socket stands here\n");
    let line = format!("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec \"$0\" \"$@\" 3<{file}");
    let show = "echo $$ $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES; cat <&3";
    by_shell(t, &line, &["run", "--rm", &image, "sh", "-c", show])
        .prints("1 1 1 web\na socket stands here\n");
    // They are for the process that is named, and for nobody else.
    let line = format!("LISTEN_PID=1 LISTEN_FDS=1 exec \"$0\" \"$@\" 3<{file}");
    by_shell(
        t,
        &line,
        &["run", "--rm", &image, "sh", "-c", "echo $LISTEN_FDS."],
    )
    .prints(".\n");
}

/// A socket as systemd's, which every command from now on is told of.
fn manager(t: &mut Rcon) -> UnixDatagram {
    let path = t.dir.join("tmp/notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    t.set_env("NOTIFY_SOCKET", path.to_str().unwrap());
    socket
}

fn next(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let count = manager.recv(&mut buffer).expect("a notice");
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

fn ready_by_the_monitor(t: &mut Rcon) {
    let image = t.pull("busybox");
    let manager = manager(t);
    let script = "echo .$NOTIFY_SOCKET; exec sleep 1000";
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        "--sdnotify",
        "conmon",
        &image,
        "sh",
        "-c",
        script,
    ]);
    let monitor = t.inspect("c", "{{.State.ConmonPid}}");
    assert_eq!(next(&manager), format!("MAINPID={monitor}\nREADY=1"));
    eventually("its word", 20, || {
        (t.ok(&["logs", "c"]) == ".").then_some(())
    });
    t.ok(&["run", "--rm", "--sdnotify", "ignore", &image, "true"]);
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 64]).is_err());
    fs::remove_file(t.dir.join("tmp/notify")).unwrap();
}

fn ready_by_the_program(t: &mut Rcon) {
    let image = t.pull("busybox");
    let manager = manager(t);
    // Also one who is not the owner of the socket.
    let user = if t.mode == Mode::ManyIds { "1000" } else { "0" };
    let words = [
        "run", "-d", "--name", "c", "-u", user, &image, "sleep", "1000",
    ];
    t.ok(&words);
    let monitor = t.inspect("c", "{{.State.ConmonPid}}");
    assert_eq!(next(&manager), format!("MAINPID={monitor}"));
    // The program finds a socket that it may write to.
    let test = "tr '\\0' '\\n' </proc/1/environ | grep ^NOTIFY; test -S /run/notify/notify -a -w /run/notify/notify && echo fine";
    t.run(&["exec", "c", "sh", "-c", test])
        .prints("NOTIFY_SOCKET=/run/notify/notify\nfine\n");
    // What it says there is passed on, but for who the main process is.
    let id = t.inspect("c", "{{.Id}}");
    let folder = fs::File::open(t.dir.join(format!("run/rcon/containers/{id}/notify"))).unwrap();
    // The path itself is too long for a socket's.
    let inner = format!("/proc/self/fd/{}/notify", folder.as_raw_fd());
    let program = UnixDatagram::unbound().unwrap();
    program
        .send_to(b"MAINPID=1\nREADY=1\nSTATUS=serving", inner)
        .unwrap();
    assert_eq!(next(&manager), "READY=1\nSTATUS=serving");
    fs::remove_file(t.dir.join("tmp/notify")).unwrap();
}

fn ready_when_healthy(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--sdnotify", "healthy", &image, "true"])
        .refused(125)
        .says("requires a healthcheck");
    let manager = manager(t);
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        "--sdnotify",
        "healthy",
        "--health-cmd",
        "test -e /ok",
        "--health-interval",
        "100ms",
        &image,
        "sleep",
        "1000",
    ]);
    assert!(next(&manager).starts_with("MAINPID="));
    t.ok(&["exec", "c", "touch", "/ok"]);
    assert_eq!(next(&manager), "READY=1");
    fs::remove_file(t.dir.join("tmp/notify")).unwrap();
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
    eventually("somebody watches", 20, || {
        let events = t.run(&["events", "--stream=false", "--filter", "event=attach"]);
        events.stdout.lines().next().map(|_| ())
    });
    let monitor = monitor_of(t, "c");
    kill(monitor, Signal::SIGSTOP).unwrap();
    t.ok(&["exec", "c", "touch", "/go"]);
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
    // Who attaches sees all from when the monitor has heard of it, which may be within a line: this monitor may have been
    // stopped before it had.
    let seen: Vec<usize> = out.stdout.lines().map(|l| l.parse().unwrap()).collect();
    let whole = seen.get(1..).unwrap_or_default();
    assert!(whole.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert!(seen.last().is_none_or(|last| *last == 20_000));
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
    eventually("it is attached", 20, || {
        let events = t.run(&["events", "--stream=false", "--filter", "event=attach"]);
        events.stdout.lines().next().map(|_| ())
    });
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
    t.run(&[
        "run",
        "--name",
        "ended",
        &image,
        "sh",
        "-c",
        "echo last words; exit 9",
    ])
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

/// What the records of the first version had.
const CONFIG: [&str; 17] = [
    "format",
    "id",
    "name",
    "created",
    "image_id",
    "image_name",
    "image_digest",
    "image_config",
    "options",
    "network",
    "ports",
    "names",
    "auto_remove",
    "restart",
    "volumes",
    "create_command",
    "",
];
const STATE: [&str; 9] = [
    "status",
    "process",
    "monitor",
    "boot_id",
    "started",
    "finished",
    "exit_code",
    "error",
    "ports",
];

fn older_records(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&[
        "run",
        "--name",
        "old",
        &image,
        "sh",
        "-c",
        "echo then; exit 4",
    ])
    .code(4);
    let id = t.inspect("old", "{{.Id}}");
    let dir = t.root().join("containers").join(&id);
    for (name, keys) in [("config.json", &CONFIG[..]), ("state.json", &STATE[..])] {
        let path = dir.join(name);
        let text = fs::read(&path).unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let map = value.as_object_mut().unwrap();
        map.retain(|key, _| keys.contains(&key.as_str()));
        assert!(map.len() >= keys.len() - 1, "{map:?}");
        // Of a later version than ours, what we do not know.
        map.insert("of_the_future".into(), true.into());
        fs::write(&path, value.to_string()).unwrap();
    }
    assert_eq!(
        t.inspect(
            "old",
            "{{.State.Status}} {{.State.ExitCode}} {{.HostConfig.RestartPolicy.Name}}"
        ),
        "exited 4 no"
    );
    t.run(&["ps", "-a"]).shows("Exited (4)");
    t.run(&["logs", "old"]).prints("then\n");
    t.run(&["start", "-a", "old"]).code(4).shows("then");
    t.run(&["rm", "old"]).prints("old\n");
}

/// The records of a container as version 1 of them first had all its fields, with another id.
const CONFIG_1: &str = include_str!("fixtures/records-1/config.json");
const STATE_1: &str = include_str!("fixtures/records-1/state.json");

fn records_of_before(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "old", &image, "true"]);
    let (id, image_id) = (t.inspect("old", "{{.Id}}"), t.inspect("old", "{{.Image}}"));
    let dir = t.root().join("containers").join(&id);
    let put = |name: &str, text: &str| {
        let text = text.replace("@ID@", &id).replace("@IMAGE@", &image_id);
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        std::os::unix::fs::chown(&path, Some(t.user.uid), Some(t.user.gid)).unwrap();
    };
    // Its volume, as that version named it.
    let config: serde_json::Value = serde_json::from_str(CONFIG_1).unwrap();
    t.ok(&[
        "volume",
        "create",
        config["volumes"][0]["name"].as_str().unwrap(),
    ]);
    put("config.json", CONFIG_1);
    put("state.json", STATE_1);
    put(
        "log",
        "2026-11-24T18:00:00.000000000+00:00 stdout F of old\n",
    );
    t.run(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"])
        .shows("old Exited (4)");
    let shown = "{{.Config.Hostname}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.Memory}} {{.Config.Labels.a}} \
        {{.Config.StopSignal}} {{.State.ExitCode}} {{(index .Mounts 0).Destination}}";
    assert_eq!(t.inspect("old", shown), "host no 0 b 10 4 /data");
    t.run(&["logs", "old"]).prints("of old\n");
    t.run(&["start", "-a", "old"]).code(4).shows("now host");
    t.run(&["rename", "old", "older"]).code(0);
    t.run(&["rm", "-v", "older"]).prints("older\n");
    t.has_containers(0);
}

fn records_of_the_future(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "new", &image, "true"]);
    let id = t.inspect("new", "{{.Id}}");
    let path = t.root().join("containers").join(&id).join("config.json");
    let now = fs::read(&path).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&now).unwrap();
    value["format"] = 2.into();
    // One that could be read, and one that could not.
    let readable = value.to_string();
    value["options"] = "something else".into();
    for text in [readable, value.to_string()] {
        fs::write(&path, &text).unwrap();
        for args in [
            &["ps", "-a"][..],
            &["inspect", "new"],
            &["start", "new"],
            &["rm", "-f", "new"],
            &["rm", "-f", "-a"],
            &["container", "prune", "-f"],
            &["rmi", "-f", &image],
            &["system", "prune", "-a", "-f"],
        ] {
            let out = t.run(args);
            assert!(
                out.code != 0 && out.stderr.contains("newer version of rcon"),
                "{}",
                out.story()
            );
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    // Nothing of it is lost for who can read it.
    fs::write(&path, now).unwrap();
    t.run(&["start", "-a", "new"]).code(0);
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
    let first = t.start(&["wait", "--return-on-first", "slow", "quick"]);
    t.ok(&["exec", "quick", "touch", "/go"]);
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
