//! Starting, stopping, killing, waiting, removing, renaming.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, leaks};

scenarios!(
    stop,
    stop_of_the_deaf,
    stopping,
    kill_,
    wait,
    restart,
    rm,
    rm_many,
    unknown,
    wrong_states,
    exit_code_is_kept,
    monitor_dies,
    outlives_the_shell,
);

const TRAP: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";

fn trapper(t: &Rcon, name: &str) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", name, &image, "sh", "-c", TRAP]);
    eventually("the trap is set", 20, || {
        t.run(&["logs", name])
            .stdout
            .contains("ready")
            .then_some(())
    });
}

fn stop(t: &mut Rcon) {
    trapper(t, "c");
    t.run(&["stop", "c"]).prints("c\n").quiet();
    assert_eq!(
        t.inspect("c", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}"),
        "exited 7 0"
    );
    // Stopping what has stopped is no fault.
    t.run(&["stop", "c"]).prints("c\n").quiet();
    t.run(&["start", "c"]).prints("c\n").quiet();
    t.run(&["stop", "--all", "-t", "5"]).code(0);
    t.has_containers(1);
}

fn stop_of_the_deaf(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        "--stop-timeout",
        "100",
        &image,
        "sh",
        "-c",
        "trap '' TERM; while :; do sleep 0.05; done",
    ]);
    let since = Instant::now();
    let out = t.run(&["stop", "-t", "1", "c"]);
    assert_eq!(out.ok(), "c");
    assert!(
        since.elapsed() >= Duration::from_millis(900) && since.elapsed() < Duration::from_secs(60),
        "{}",
        out.story()
    );
    assert_eq!(t.inspect("c", "{{.State.ExitCode}}"), "137");
    // The container's own time to stop, instead of the usual ten seconds.
    t.ok(&[
        "run",
        "-d",
        "--name",
        "d",
        "--stop-timeout",
        "0",
        &image,
        "sh",
        "-c",
        "trap '' TERM; while :; do sleep 0.05; done",
    ]);
    let since = Instant::now();
    t.run(&["stop", "d"]).prints("d\n");
    assert!(since.elapsed() < Duration::from_secs(9));
}

/// A container that has been asked to end says so until it has.
fn stopping(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done";
    t.ok(&["run", "-d", "--name", "c", &image, "sh", "-c", script]);
    eventually("the trap is set", 20, || {
        (t.run(&["logs", "c"]).stdout == "ready\n").then_some(())
    });
    let stop = t.start(&["stop", "-t", "100", "c"]);
    eventually("it is being stopped", 20, || {
        (t.inspect("c", "{{.State.Status}}") == "stopping").then_some(())
    });
    let listed = |words: &[&str]| {
        let words = [&["ps", "--format", "{{.Names}} {{.Status}}"], words].concat();
        t.ok(&words)
    };
    assert_eq!(listed(&[]), "c Stopping");
    assert_eq!(listed(&["--filter", "status=stopping"]), "c Stopping");
    assert_eq!(listed(&["--filter", "status=running"]), "");
    t.run(&["rm", "c"]).refused(2);
    t.run(&["start", "c"]).code(0);
    t.run(&["kill", "c"]).code(0);
    stop.wait().prints("c\n");
    assert_eq!(
        t.inspect("c", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 137"
    );
}

fn kill_(t: &mut Rcon) {
    trapper(t, "c");
    t.run(&["kill", "-s", "TERM", "c"]).prints("c\n").quiet();
    t.run(&["wait", "c"]).prints("7\n");
    t.run(&["start", "c"]).code(0);
    t.run(&["kill", "c"]).prints("c\n");
    t.run(&["wait", "c"]).prints("137\n");
    t.run(&["kill", "c"])
        .refused(125)
        .says("can only kill running containers");
    t.run(&["kill", "-s", "NOSUCH", "c"])
        .refused(125)
        .says("NOSUCH");
    t.run(&["start", "c"]).code(0);
    t.run(&["kill", "--signal", "9", "c"]).code(0);
    t.run(&["wait", "c"]).prints("137\n");
}

fn wait(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&[
        "run",
        "-d",
        "--name",
        "a",
        &image,
        "sh",
        "-c",
        "sleep 0.3; exit 3",
    ]);
    t.ok(&["run", "-d", "--name", "b", &image, "true"]);
    t.run(&["wait", "a", "b"]).prints("3\n0\n");
    t.run(&["wait", "a"]).prints("3\n");
}

fn restart(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        &image,
        "sh",
        "-c",
        "echo up; exec sleep 1000",
    ]);
    let first = t.inspect("c", "{{.State.Pid}}");
    t.run(&["restart", "-t", "0", "c"]).code(0).quiet();
    let second = t.inspect("c", "{{.State.Pid}}");
    assert!(first != second && second != "0", "{first} then {second}");
    eventually("it has started twice", 20, || {
        (t.run(&["logs", "c"]).stdout == "up\nup\n").then_some(())
    });
    // A stopped one is started.
    t.ok(&["stop", "-t", "0", "c"]);
    t.run(&["restart", "c"]).code(0);
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "running");
}

fn rm(t: &mut Rcon) {
    trapper(t, "c");
    let id = t.inspect("c", "{{.Id}}");
    t.run(&["rm", "c"]).refused(2).says(&id).says("running");
    t.run(&["rm", "-f", "c"]).prints("c\n").quiet();
    t.has_containers(0);
    t.run(&["rm", "c"])
        .refused(1)
        .says("no container with name or id \"c\" found");
    t.run(&["rm", "-f", "c"]).code(0);
}

fn rm_many(t: &mut Rcon) {
    let image = t.pull("busybox");
    let ids: Vec<String> = (0..4).map(|_| t.ok(&["create", &image, "true"])).collect();
    // By a prefix of the id, several at once, one of them unknown: the others go all the same.
    let out = t.run(&["rm", &ids[0][..12], "nosuch", &ids[1]]);
    assert!(
        out.code == 1 && out.stdout.lines().count() == 2,
        "{}",
        out.story()
    );
    t.has_containers(2);
    t.run(&["rm", "-a"]).code(0);
    t.has_containers(0);
}

fn unknown(t: &mut Rcon) {
    for command in [
        "start", "stop", "kill", "wait", "logs", "attach", "port", "restart",
    ] {
        t.run(&[command, "nosuch"])
            .refused(125)
            .says("no container with name or id \"nosuch\" found");
    }
    t.run(&["rename", "nosuch", "other"])
        .refused(125)
        .says("nosuch");
    let out = t.run(&["inspect", "nosuch"]);
    out.code(125).says("no such object: \"nosuch\"");
    assert_eq!(out.stdout, "[]\n");
    for command in ["start", "stop", "rm", "wait", "logs", "exec"] {
        t.run(&[command]).code(125).says("Error: ");
    }
}

fn wrong_states(t: &mut Rcon) {
    trapper(t, "c");
    // Starting what runs is no fault, as with podman.
    t.run(&["start", "c"]).prints("c\n");
    t.ok(&["rename", "c", "d"]);
    assert_eq!(t.inspect("d", "{{.State.Status}} {{.Name}}"), "running d");
    t.run(&["stop", "d"]).prints("d\n");
}

fn exit_code_is_kept(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sh", "-c", "exit 255"]);
    t.run(&["wait", "c"]).prints("255\n");
    let out = t.run(&["ps", "-a", "--format", "{{.Status}}"]);
    assert!(out.ok().starts_with("Exited (255) "), "{}", out.story());
    assert_eq!(
        t.inspect(
            "c",
            "{{.State.OOMKilled}} {{.State.Running}} {{.State.Error}}"
        ),
        "false false "
    );
    // A program that cannot be started, in a container that stays: its state says so.
    t.ok(&["create", "--name", "bad", &image, "nosuch"]);
    let out = t.run(&["start", "bad"]);
    assert!(out.code == 125 || out.code == 127, "{}", out.story());
    out.says("nosuch");
    t.run(&["rm", "bad"]).prints("bad\n");
}

fn monitor_dies(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    let init: i32 = t.inspect("c", "{{.State.Pid}}").parse().unwrap();
    // Everything of it but the container itself.
    for pid in leaks::process_ids(&t.dir) {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if pid != init && exe.starts_with(&t.dir) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    // Whatever became of it, the next commands find a state that is true and can clear up.
    let state = t.inspect("c", "{{.State.Status}}");
    let alive = std::path::Path::new(&format!("/proc/{init}/status")).exists();
    assert_eq!(
        state == "running",
        alive,
        "says {state}, but the process is alive: {alive}"
    );
    t.run(&["rm", "-f", "-t", "0", "c"]).code(0);
    eventually("the process is gone", 10, || {
        (!std::path::Path::new(&format!("/proc/{init}")).exists()).then_some(())
    });
}

fn outlives_the_shell(t: &mut Rcon) {
    let image = t.pull("busybox");
    let mut terminal = t.terminal(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    assert_eq!(terminal.wait(), 0, "{}", terminal.story());
    drop(terminal);
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "running");
    t.run(&["exec", "c", "echo", "alive"]).prints("alive\n");
}
