//! `init`: a container is set up, with its namespaces, mounts, network and ports, and its program is started later.

use std::fs;
use std::net::TcpStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};

scenarios!(
    from_init_to_the_end,
    attached_before_it_starts,
    ended_before_it_starts,
    refusals,
    program_that_cannot_be,
    monitor_is_killed,
    many,
);

const STATE: &str = "{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}";

fn from_init_to_the_end(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "echo ran >>/log; until test -e /go; do sleep 0.02; done; exit 3";
    let health = [
        "--health-cmd",
        "test -e /ok",
        "--health-interval",
        "100ms",
        "--restart",
        "on-failure:1",
    ];
    let create = ["create", "--name", "c", "-p", "80"];
    t.ok(&[&create[..], &health, &[&image, "sh", "-c", script]].concat());
    let waits = t.start(&["wait", "--condition", "initialized", "c"]);
    t.run(&["init", "c"]).prints("c\n").quiet();
    waits.wait().prints("-1\n");
    assert_eq!(t.inspect("c", STATE), "initialized false 0");
    // All is there but the program.
    let pid: i32 = t.inspect("c", "{{.State.Pid}}").parse().unwrap();
    assert!(pid > 0 && fs::metadata(format!("/proc/{pid}")).is_ok());
    assert!(!t.inspect("c", "{{.State.ConmonPid}}").is_empty());
    let port = t.ok(&["port", "c", "80"]);
    let port: u16 = port.rsplit_once(':').unwrap().1.parse().unwrap();
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    t.run(&["ps", "-q"]).prints("");
    t.run(&["ps", "-a"]).shows("Initialized");
    t.run(&[
        "ps",
        "--filter",
        "status=initialized",
        "--format",
        "{{.Names}} {{.State}}",
    ])
    .prints("c Initialized\n");
    // Nothing has run.
    assert!(!t.ok(&["diff", "c"]).contains("/log"));
    t.run(&["cp", "c:/etc", "-"])
        .refused(125)
        .says("is initialized");
    assert_eq!(t.inspect("c", "{{.State.Health.Status}}"), "");
    t.run(&["start", "c"]).prints("c\n").quiet();
    assert_eq!(t.inspect("c", STATE), "running true 0");
    assert_eq!(t.inspect("c", "{{.State.Pid}}"), pid.to_string());
    t.run(&["start", "c"]).code(0);
    t.run(&["exec", "c", "cat", "/log"]).prints("ran\n");
    eventually("its health is checked", 60, || {
        (t.inspect("c", "{{.State.Health.Status}}") == "unhealthy").then_some(())
    });
    // It is a container as any other: its policy starts it again, and its end is known.
    t.let_go("c");
    eventually("it has ended twice", 60, || {
        (t.inspect(
            "c",
            "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}",
        ) == "exited 3 1")
            .then_some(())
    });
    // Also one that ran before can be set up; how it ended is known until it runs again.
    t.run(&["init", "c"]).code(0);
    assert_eq!(t.inspect("c", STATE), "initialized false 3");
    t.run(&["start", "-a", "c"]).code(3);
    let events = t.ok(&["events", "--stream=false", "--format", "{{.Status}}"]);
    let seen: Vec<&str> = events
        .lines()
        .filter(|word| ["init", "start", "died"].contains(word))
        .collect();
    assert_eq!(seen[..3], ["init", "start", "died"], "{events}");
    t.ok(&["rm", "-f", "c"]);
}

fn attached_before_it_starts(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&[
        "create",
        "-i",
        "--name",
        "c",
        &image,
        "sh",
        "-c",
        "echo first; cat; exit 4",
    ]);
    t.ok(&["init", "c"]);
    let out = t.feed(b"typed\n", &["start", "-a", "-i", "c"]);
    assert_eq!(
        (out.code, out.stdout.as_str()),
        (4, "first\ntyped\n"),
        "{}",
        out.story()
    );
    t.run(&["logs", "c"]).prints("first\ntyped\n");
}

fn ended_before_it_starts(t: &mut Rcon) {
    let image = t.pull("busybox");
    // Without waiting for the time that its program would have had.
    let always = ["--restart", "always", "--stop-timeout", "1000"];
    let create = ["create", "--name", "c"];
    t.ok(&[&create[..], &always, &[&image, "sleep", "1000"]].concat());
    t.ok(&["init", "c"]);
    t.run(&["stop", "c"]).prints("c\n").quiet();
    assert_eq!(t.inspect("c", STATE), "exited false 137");
    t.ok(&["init", "c"]);
    t.run(&["restart", "c"]).code(0);
    assert_eq!(t.inspect("c", STATE), "running true 0");
    t.ok(&["stop", "-t", "0", "c"]);
    // As podman has it, no force is needed to remove one that has not run.
    t.ok(&["init", "c"]);
    t.run(&["rm", "c"]).prints("c\n").quiet();
    t.has_containers(0);
    t.ok(&["create", "--rm", "--name", "c", &image, "sleep", "1000"]);
    t.ok(&["init", "c"]);
    t.ok(&["stop", "c"]);
    t.has_containers(0);
}

fn refusals(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["init"])
        .refused(125)
        .says("at least one name or id");
    t.run(&["init", "nosuch"])
        .refused(125)
        .says("no container with name or id");
    t.ok(&["create", "--name", "c", &image, "sleep", "1000"]);
    t.ok(&["init", "c"]);
    t.run(&["container", "init", "c"])
        .refused(125)
        .says("has already been created in runtime");
    t.run(&["kill", "c"])
        .refused(125)
        .says("is in state initialized");
    t.run(&["attach", "c"])
        .refused(125)
        .says("you can only attach to running containers");
    t.run(&["exec", "c", "true"]).code(255);
    t.run(&["pause", "c"])
        .refused(125)
        .says("is not running, can't pause");
    t.run(&["container", "cleanup", "c"])
        .refused(125)
        .says("refusing to clean up");
    t.ok(&["start", "c"]);
    t.run(&["init", "c"])
        .refused(125)
        .says("has already been created in runtime");
    t.ok(&["rm", "-f", "-t", "0", "c"]);
}

fn program_that_cannot_be(t: &mut Rcon) {
    let image = t.pull("busybox");
    let container = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}";
    t.ok(&[
        "create", "--rm", "--name", "c", "-p", "80", &image, "nosuch",
    ]);
    let init = t.run(&["init", "c"]);
    if init.code == 0 {
        t.run(&["start", "c"]).refused(127).says("nosuch");
    } else {
        init.refused(127).says("nosuch");
    }
    // It is as it was before it was set up.
    assert_eq!(t.inspect("c", container).trim_end(), "created 0");
    t.ok(&["rm", "c"]);
}

fn monitor_is_killed(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&[
        "create", "--name", "c", "-p", "80", &image, "sh", "-c", "exit 6",
    ]);
    for state in ["created false 0", "exited false 6"] {
        t.ok(&["init", "c"]);
        let [monitor, pid] = ["{{.State.ConmonPid}}", "{{.State.Pid}}"]
            .map(|field| t.inspect("c", field).parse::<i32>().unwrap());
        kill(Pid::from_raw(monitor), Signal::SIGKILL).unwrap();
        // What waits for its word goes with it, and the container is what it was.
        eventually("it has ended", 20, || {
            (t.inspect("c", STATE) == state).then_some(())
        });
        eventually("its process is gone", 20, || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
        t.run(&["start", "-a", "c"]).code(6);
    }
}

fn many(t: &mut Rcon) {
    let image = t.pull("busybox");
    for name in ["a", "b", "c"] {
        t.ok(&["create", "--name", name, &image, "sleep", "1000"]);
    }
    t.ok(&["init", "a"]);
    // Those that are set up already are left alone.
    let out = t.ok(&["init", "--all"]);
    assert_eq!(out.lines().count(), 2, "{out}");
    t.ok(&["start", "--all"]);
    assert_eq!(t.ok(&["ps", "-q"]).lines().count(), 3);
    t.ok(&["stop", "-t", "0", "--all"]);
    t.ok(&["init", "--latest"]);
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "initialized");
    t.ok(&["stop", "--all"]);
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "exited");
}
