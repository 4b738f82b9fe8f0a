//! `attach`: the terminal or the pipes of a container that runs, from elsewhere.

use nix::sys::signal::Signal;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};

scenarios!(
    follows_output,
    gives_input,
    ends_with_its_exit_code,
    leaves_it_running,
    refusals,
    several
);

fn follows_output(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "until test -e /go; do sleep 0.02; done; echo out; echo err >&2; exit 4";
    t.ok(&["run", "-d", "--name", "c", &image, "sh", "-c", script]);
    let running = t.start(&["attach", "c"]);
    // Both are attached before there is anything to see: output before that is the log's.
    std::thread::sleep(std::time::Duration::from_millis(300));
    t.ok(&["exec", "c", "touch", "/go"]);
    let out = running.wait();
    assert_eq!(
        (out.code, out.stdout.as_str(), out.stderr.as_str()),
        (4, "out\n", "err\n"),
        "{}",
        out.story()
    );
}

fn gives_input(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "-i", "--name", "c", &image, "cat"]);
    t.feed(b"typed\n", &["attach", "c"]).prints("typed\n");
    t.run(&["wait", "c"]).prints("0\n");
    t.run(&["logs", "c"]).prints("typed\n");
}

fn ends_with_its_exit_code(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "-i", "--name", "c", &image, "sh"]);
    t.feed(b"exit 17\n", &["attach", "c"]).code(17);
}

fn leaves_it_running(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    let running = t.start(&["attach", "--no-stdin", "--sig-proxy=false", "c"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.signal(Signal::SIGTERM);
    running.wait();
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "running");
}

fn refusals(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["attach", "nosuch"])
        .refused(125)
        .says("no container with name or id \"nosuch\" found");
    t.ok(&["create", "--name", "c", &image, "true"]);
    t.run(&["attach", "c"])
        .refused(125)
        .says("you can only attach to running containers");
}

fn several(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "until test -e /go; do sleep 0.02; done; seq 1 20000";
    t.ok(&["run", "-d", "--name", "c", &image, "sh", "-c", script]);
    let watchers: Vec<_> = (0..10)
        .map(|_| t.start(&["attach", "--no-stdin", "c"]))
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(300));
    t.ok(&["exec", "c", "touch", "/go"]);
    // One who comes late, perhaps too late, sees the rest, and never half a line.
    let late = t.run(&["attach", "--no-stdin", "c"]);
    assert!(
        late.code == 0 || late.stderr.contains("running containers"),
        "{}",
        late.story()
    );
    for watcher in watchers {
        let out = watcher.wait();
        assert!(
            out.ok().lines().count() == 20_000,
            "{} lines",
            out.stdout.lines().count()
        );
    }
    eventually("it has ended", 20, || {
        (t.inspect("c", "{{.State.Status}}") == "exited").then_some(())
    });
}
