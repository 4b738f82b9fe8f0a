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
    several,
    just_ending
);

/// Waits until so many have been attached: the event comes when the monitor has heard of it.
pub fn attached(t: &Rcon, count: usize) {
    eventually("they are attached", 60, || {
        let events = t.run(&["events", "--stream=false", "--filter", "event=attach"]);
        (events.stdout.lines().count() >= count).then_some(())
    });
}

fn follows_output(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "until test -e /go; do sleep 0.02; done; echo out; echo err >&2; exit 4";
    t.ok(&["run", "-d", "--name", "c", &image, "sh", "-c", script]);
    let running = t.start(&["attach", "c"]);
    // It is attached before there is anything to see: output before that is the log's.
    attached(t, 1);
    t.let_go("c");
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
    attached(t, 1);
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
    attached(t, 10);
    t.let_go("c");
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

/// One who attaches to a container that is just ending hears how it ended, or that it does not run.
fn just_ending(t: &mut Rcon) {
    let image = t.pull("busybox");
    for round in 0..10 {
        let name = format!("c{round}");
        let script = "until test -e /go; do sleep 0.01; done; exit 7";
        t.ok(&["run", "-d", "--name", &name, &image, "sh", "-c", script]);
        t.ok(&["exec", "-d", &name, "touch", "/go"]);
        let all: Vec<_> = (0..4)
            .map(|_| t.start(&["attach", "--no-stdin", &name]))
            .collect();
        for out in all.into_iter().map(|one| one.wait()) {
            let refused = out.code == 125 && out.stderr.contains("only attach to running");
            assert!(out.code == 7 || refused, "{}", out.story());
        }
    }
}
