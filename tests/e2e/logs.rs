//! `logs`: what a container printed.

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};

scenarios!(streams, tails, times, follows, of_a_terminal, partial_lines);

fn streams(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&[
        "run",
        "--name",
        "c",
        &image,
        "sh",
        "-c",
        "echo one; echo two >&2; echo three",
    ])
    .code(0);
    let out = t.run(&["logs", "c"]);
    assert_eq!(
        (out.ok(), out.stderr.as_str()),
        ("one\nthree", "two\n"),
        "{}",
        out.story()
    );
    // A second start adds to it.
    t.run(&["start", "-a", "c"]).code(0);
    t.run(&["logs", "c"]).prints("one\nthree\none\nthree\n");
}

fn tails(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--name", "c", &image, "seq", "1", "5000"])
        .code(0);
    t.run(&["logs", "--tail", "2", "c"]).prints("4999\n5000\n");
    t.run(&["logs", "--tail=0", "c"]).prints("");
    let all = t.ok(&["logs", "c"]);
    assert_eq!(all.lines().count(), 5000);
    assert_eq!(t.ok(&["logs", "--tail", "9000", "c"]), all);
}

fn times(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--name", "c", &image, "echo", "now"])
        .code(0);
    let line = t.ok(&["logs", "-t", "c"]);
    let (stamp, text) = line.split_once(' ').expect("a time and a text");
    assert_eq!(text, "now");
    assert!(
        stamp.starts_with("20") && stamp.contains('T') && stamp.contains('.'),
        "not a time: {stamp}"
    );
    t.run(&["logs", "--since", "1h", "c"]).prints("now\n");
    t.run(&["logs", "--since", "2020-01-01T00:00:00Z", "c"])
        .prints("now\n");
    t.run(&["logs", "--since", "2099-01-01T00:00:00Z", "c"])
        .prints("");
    t.run(&["logs", "--since", "nonsense", "c"])
        .refused(125)
        .says("nonsense");
}

fn follows(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "echo first; until test -e /go; do sleep 0.02; done; echo second";
    t.ok(&["run", "-d", "--name", "c", &image, "sh", "-c", script]);
    eventually("the first line", 20, || {
        (t.run(&["logs", "c"]).stdout == "first\n").then_some(())
    });
    let running = t.start(&["logs", "-f", "c"]);
    t.ok(&["exec", "c", "touch", "/go"]);
    // It ends when the container does.
    running.wait().prints("first\nsecond\n");
    t.run(&["logs", "--follow", "c"]).prints("first\nsecond\n");
}

fn of_a_terminal(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&[
        "run",
        "-dt",
        "--name",
        "c",
        &image,
        "sh",
        "-c",
        "test -t 1 && echo terminal",
    ]);
    t.ok(&["wait", "c"]);
    let out = t.run(&["logs", "c"]);
    assert_eq!(out.ok().replace('\r', ""), "terminal", "{}", out.story());
}

fn partial_lines(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&[
        "run",
        "--name",
        "c",
        &image,
        "sh",
        "-c",
        "printf half; sleep 0.2; printf ' whole\\nlast without end'",
    ])
    .code(0);
    let out = t.run(&["logs", "c"]);
    assert_eq!(out.ok(), "half whole\nlast without end", "{}", out.story());
    // One line longer than any buffer.
    t.run(&[
        "run",
        "--name",
        "long",
        &image,
        "sh",
        "-c",
        "head -c 100000 /dev/zero | tr '\\0' x; echo",
    ])
    .code(0);
    let out = t.ok(&["logs", "long"]);
    assert!(
        out.len() == 100_000 && out.bytes().all(|b| b == b'x'),
        "{} bytes",
        out.len()
    );
}
