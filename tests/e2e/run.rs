//! `run`: a program goes in, its output and its exit code come out.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, leaks};

scenarios!(
    image_goes_too,
    exit_codes,
    output_streams,
    input,
    detached,
    names,
    one_name_for_many,
    id_file,
    removed_at_the_end,
    kept_without_rm,
    created_then_started,
    pulls_what_is_missing,
    pull_policies,
    signals_reach_the_program,
    signals_that_are_kept_from_it,
    first_process_reaps,
    much_output,
    many_at_once,
    watched_while_made,
    no_runtime_folder,
    where_the_time_goes,
    begun_and_not_used,
);

fn where_the_time_goes(t: &mut Rcon) {
    let image = t.pull("busybox");
    let out = t.run(&["--log-level", "debug", "run", "--rm", &image, "true"]);
    out.prints("");
    // In the order in which it happens, whichever process it happens in.
    let mut rest = out.stderr.as_str();
    for step in [
        "begun",
        "command line read",
        "image found",
        "monitor detached",
        "process born",
        "root mounted",
        "program executed",
        "program ended",
        "end written down",
    ] {
        let at = rest.find(&format!(": {step}"));
        rest = &rest[at.unwrap_or_else(|| panic!("no {step:?} in {}", out.story()))..];
    }
    assert!(
        !t.run(&["run", "--rm", &image, "true"])
            .stderr
            .contains("trace")
    );
}

/// What is begun at the first glance at a command line goes when the line says something else, and is told what it says.
fn begun_and_not_used(t: &mut Rcon) {
    let image = t.pull("busybox");
    for (words, code) in [
        (&["run", "--nonsense", &image][..], 125),
        (&["run", "-p", "nonsense", &image], 125),
        (&["run", "--pull=never", "lab.test/missing"], 125),
        (&["run", "--rm", "--network=host", &image, "true"], 0),
        (&["run", "--rm", "--ipc", "host", &image, "true"], 0),
        (&["run", "--rm", &image, "echo", "--network", "host"], 0),
        (&["container", "run", "--rm", &image, "true"], 0),
        (&["run", "--help"], 0),
    ] {
        t.run(words).code(code);
        // A container's monitor may still be clearing up.
        if code == 125 {
            eventually(&format!("nothing is left of {words:?}"), 20, || {
                leaks::processes(&t.dir).is_empty().then_some(())
            });
        }
    }
    let devices = ["sh", "-c", "ls /sys/class/net; ls /proc/sys/net/ipv4/conf"];
    let with = |options: &[&str]| t.ok(&[&["run", "--rm"], options, &[&image], &devices].concat());
    assert_eq!(with(&["--network", "none"]), "lo\nall\ndefault\nlo");
    assert_eq!(with(&["-p", "80"]), "lo\ntap0\nall\ndefault\nlo\ntap0");
    // Sysctls of the network reach its own, and their errors the caller.
    let range = ["--sysctl", "net.ipv4.ip_local_port_range=2000 3000"];
    let out = t.ok(&[
        &["run", "--rm"],
        &range[..],
        &[&image, "cat", "/proc/sys/net/ipv4/ip_local_port_range"],
    ]
    .concat());
    assert_eq!(out, "2000\t3000");
    t.run(&["run", "--rm", "--sysctl", "net.nonsense=1", &image, "true"])
        .code(126)
        .says("net.nonsense");
    t.has_containers(0);
}

fn exit_codes(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--rm", &image, "true"]).prints("").quiet();
    t.run(&["run", "--rm", &image, "false"]).code(1).quiet();
    t.run(&["run", "--rm", &image, "sh", "-c", "exit 42"])
        .code(42)
        .quiet();
    t.run(&["run", "--rm", "--init", &image, "sh", "-c", "kill -9 $$"])
        .code(137)
        .quiet();
    t.run(&["run", "--rm", "--init", &image, "sh", "-c", "kill -TERM $$"])
        .code(143)
        .quiet();
    t.has_containers(0);
}

fn output_streams(t: &mut Rcon) {
    let image = t.pull("busybox");
    let out = t.run(&["run", "--rm", &image, "sh", "-c", "echo one; echo two >&2"]);
    out.prints("one\n");
    assert_eq!(out.stderr, "two\n");
    // Not a line, not text.
    t.run(&["run", "--rm", &image, "printf", r"no newline"])
        .prints("no newline");
    // Standard output closed by its reader: the program gets its own failure, nothing hangs.
    let out = t.run(&["run", "--rm", &image, "sh", "-c", "echo x >&-; echo $?"]);
    out.prints("1\n");
}

fn input(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.feed(b"to nobody", &["run", "--rm", &image, "cat"])
        .prints("");
    t.feed(b"hello\n", &["run", "--rm", "-i", &image, "cat"])
        .prints("hello\n");
    t.feed(b"", &["run", "--rm", "-i", &image, "wc", "-c"])
        .prints("0\n");
    let megabyte = vec![b'x'; 1 << 20];
    t.feed(&megabyte, &["run", "--rm", "-i", &image, "wc", "-c"])
        .prints("1048576\n");
    let out = t.feed(&megabyte, &["run", "--rm", "-i", &image, "cat"]);
    assert!(
        out.ok().len() == 1 << 20,
        "{} bytes came back",
        out.stdout.len()
    );
    // A program that does not read its input ends all the same, while input is still open.
    let running = t.start_with_input(&["run", "--rm", "-i", &image, "true"]);
    running.wait_for(Duration::from_secs(20)).prints("");
}

fn detached(t: &mut Rcon) {
    let image = t.pull("busybox");
    let since = Instant::now();
    let id = t.ok(&["run", "-d", "--name", "sleeper", &image, "sleep", "1000"]);
    assert!(
        since.elapsed() < Duration::from_secs(30),
        "it did not return"
    );
    assert!(
        id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "not an id: {id:?}"
    );
    assert_eq!(t.inspect("sleeper", "{{.Id}}"), id);
    assert_eq!(
        t.inspect(&id[..12], "{{.State.Status}} {{.State.Running}}"),
        "running true"
    );
    t.run(&["rm", "-f", "-t", "0", "sleeper"])
        .prints("sleeper\n")
        .quiet();
    // -d with a program that cannot be started: the error, as in the foreground.
    t.run(&["run", "-d", &image, "nosuch"]).refused(127);
    t.has_containers(0);
}

fn names(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "one", &image, "true"]);
    t.run(&["create", "--name", "one", &image, "true"])
        .refused(125)
        .says("\"one\" is already in use");
    t.run(&["run", "--name", "one", &image, "true"])
        .refused(125)
        .says("is already in use");
    t.run(&["run", "--name", "has space", &image, "true"])
        .refused(125)
        .says("name");
    t.run(&["run", "--name", "-x", &image, "true"]).code(125);
    t.has_containers(1);
    // Without a name it gets one that can be said aloud.
    let id = t.ok(&["create", &image, "true"]);
    let name = t.inspect(&id, "{{.Name}}");
    assert!(
        name.contains('_') && !name.starts_with('/'),
        "not a name: {name:?}"
    );
    t.ok(&["rename", "one", "two"]);
    t.ok(&["create", "--name", "one", &image, "true"]);
    t.run(&["rename", "one", "two"])
        .refused(125)
        .says("already in use");
    t.run(&["rm", "one", "two"]).prints("one\ntwo\n");
}

fn id_file(t: &mut Rcon) {
    let image = t.pull("busybox");
    let file = t.home("cid");
    let file = file.to_str().unwrap();
    let id = t.ok(&["run", "-d", "--cidfile", file, &image, "true"]);
    assert_eq!(fs::read_to_string(file).unwrap().trim_end(), id);
    t.run(&["run", "--rm", "--cidfile", file, &image, "true"])
        .refused(125)
        .says("cid");
    t.has_containers(1);
}

fn removed_at_the_end(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.ok(&[
        "run", "-d", "--rm", "--name", "brief", &image, "sleep", "0.2",
    ]);
    eventually("the container is gone", 20, || {
        t.run(&["inspect", &id])
            .stderr
            .contains("no such")
            .then_some(())
    });
    t.has_containers(0);
    // Its name is free at once when a foreground run has returned.
    for _ in 0..5 {
        t.run(&["run", "--rm", "--name", "brief", &image, "true"])
            .code(0)
            .quiet();
    }
}

fn kept_without_rm(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.named_sh("kept", &image, "echo data > /file; exit 3")
        .code(3);
    assert_eq!(
        t.inspect("kept", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 3"
    );
    t.run(&["start", "-a", "kept"]).code(3);
    t.run(&["rm", "kept"]).prints("kept\n");
}

fn created_then_started(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.ok(&[
        "create",
        "--name",
        "later",
        &image,
        "sh",
        "-c",
        "echo ran; exit 5",
    ]);
    assert_eq!(id.len(), 64);
    assert_eq!(t.inspect("later", "{{.State.Status}}"), "created");
    let out = t.run(&["start", "--attach", "later"]);
    assert_eq!(
        (out.code, out.stdout.as_str()),
        (5, "ran\n"),
        "{}",
        out.story()
    );
    // Started without -a it prints its name, as given.
    t.run(&["start", "later"]).prints("later\n");
    t.run(&["wait", "later"]).prints("5\n");
    // What it wrote stays from start to start.
    t.ok(&[
        "create",
        "--name",
        "counter",
        &image,
        "sh",
        "-c",
        "echo x >> /count; wc -l < /count",
    ]);
    t.run(&["start", "-a", "counter"]).prints("1\n");
    t.run(&["start", "-a", "counter"]).prints("2\n");
}

fn pulls_what_is_missing(t: &mut Rcon) {
    let image = crate::lab::registry::plain().name("busybox");
    let out = t.run(&["run", "--rm", &image, "echo", "fresh"]);
    out.prints("fresh\n").says("Trying to pull");
    t.run(&["run", "--rm", &image, "echo", "there"])
        .prints("there\n")
        .quiet();
}

fn pull_policies(t: &mut Rcon) {
    let image = crate::lab::registry::plain().name("busybox");
    t.run(&["run", "--rm", "--pull", "never", &image, "true"])
        .refused(125)
        .says("image");
    t.run(&["run", "--rm", "--pull=always", "-q", &image, "echo", "x"])
        .prints("x\n");
    t.run(&["run", "--rm", "--pull=newer", "-q", &image, "echo", "x"])
        .prints("x\n");
    t.run(&["run", "--rm", "--pull=missing", &image, "echo", "x"])
        .prints("x\n")
        .quiet();
    t.run(&["run", "--rm", "--pull=sometimes", &image, "true"])
        .refused(125)
        .says("sometimes");
}

/// With `--sig-proxy=false` a signal is the command's own affair: the command ends, and the container goes on.
fn signals_that_are_kept_from_it(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "trap 'echo hit' TERM; echo ready; while :; do sleep 0.05; done";
    let words = [
        "run",
        "--sig-proxy=false",
        "--name",
        "c",
        &image,
        "sh",
        "-c",
    ];
    let running = t.start(&[&words[..], &[script]].concat());
    let said = || t.run(&["logs", "c"]).stdout;
    eventually("the program is ready", 20, || {
        (said() == "ready\n").then_some(())
    });
    running.signal(Signal::SIGTERM);
    let out = running.wait();
    assert_eq!(out.code, 128 + 15, "{}", out.story());
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "running");
    assert_eq!(said(), "ready\n");
    t.run(&["kill", "-s", "TERM", "c"]).prints("c\n");
    eventually("its own signal", 20, || {
        said().contains("hit").then_some(())
    });
    t.ok(&["rm", "-f", "-t", "0", "c"]);
}

fn signals_reach_the_program(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "trap 'echo got TERM; exit 3' TERM; trap 'echo got HUP' HUP; echo ready; while :; do sleep 0.05; done";
    let running = t.start(&[
        "run", "--rm", "--name", "trapper", &image, "sh", "-c", script,
    ]);
    eventually("the program is ready", 20, || {
        t.run(&["logs", "trapper"])
            .stdout
            .contains("ready")
            .then_some(())
    });
    running.signal(Signal::SIGHUP);
    eventually("the first signal", 20, || {
        t.run(&["logs", "trapper"])
            .stdout
            .contains("got HUP")
            .then_some(())
    });
    running.signal(Signal::SIGTERM);
    let out = running.wait();
    assert_eq!(
        (out.code, out.stdout.as_str()),
        (3, "ready\ngot HUP\ngot TERM\n"),
        "{}",
        out.story()
    );
}

fn first_process_reaps(t: &mut Rcon) {
    let image = t.pull("busybox");
    let orphans = "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.4; ps -o pid,stat,comm | grep -c ' Z ' ";
    let out = t.run(&["run", "--rm", "--init", &image, "sh", "-c", orphans]);
    assert_eq!(out.stdout, "0\n", "{}", out.story());
    // With --init the program is not the first process, without it is.
    let first = t.ok(&["run", "--rm", "--init", &image, "sh", "-c", "echo $$"]);
    assert_ne!(first, "1");
    t.run(&["run", "--rm", &image, "sh", "-c", "echo $$"])
        .prints("1\n");
}

fn much_output(t: &mut Rcon) {
    let image = t.pull("busybox");
    let out = t.sh(&[], &image, "seq 1 300000; echo end >&2");
    assert!(
        out.code == 0 && out.stdout.lines().count() == 300_000 && out.stdout.ends_with("300000\n")
    );
    assert_eq!(out.stderr, "end\n");
}

/// Of many who want a name at once one gets it, and of the others nothing is left.
fn one_name_for_many(t: &mut Rcon) {
    let image = t.pull("busybox");
    for round in 0..3 {
        let all: Vec<_> = (0..8)
            .map(|_| t.start(&["create", "--name", "one", &image, "true"]))
            .collect();
        let all: Vec<_> = all.into_iter().map(|running| running.wait()).collect();
        let won = all.iter().filter(|out| out.code == 0).count();
        assert_eq!(won, 1, "round {round}");
        for out in all.iter().filter(|out| out.code != 0) {
            out.refused(125).says("\"one\" is already in use");
        }
        t.has_containers(1);
        t.run(&["rm", "one"]).prints("one\n");
    }
}

fn many_at_once(t: &mut Rcon) {
    let image = t.pull("busybox");
    let running: Vec<_> = (0..12)
        .map(|n| {
            t.start(&[
                "run",
                "--rm",
                &image,
                "sh",
                "-c",
                &format!("echo {n}; exit {n}"),
            ])
        })
        .collect();
    for (n, running) in running.into_iter().enumerate() {
        let out = running.wait();
        assert_eq!(
            (out.code, out.stdout.clone()),
            (n as i32, format!("{n}\n")),
            "{}",
            out.story()
        );
    }
    t.has_containers(0);
}

fn no_runtime_folder(t: &mut Rcon) {
    // As in a job of a build machine: neither a session nor its folder.
    t.set_env("XDG_RUNTIME_DIR", "");
    let image = t.pull("busybox");
    t.run(&["run", "--rm", &image, "echo", "hi"])
        .prints("hi\n")
        .quiet();
    t.ok(&["run", "-d", "--name", "a", &image, "sleep", "100"]);
    t.run(&["exec", "a", "echo", "in"]).prints("in\n");
    t.run(&["rm", "-f", "-t0", "a"]).prints("a\n");
}

/// Every look at the containers clears away what killed commands left, and must know that from what is just being made.
fn watched_while_made(t: &mut Rcon) {
    let image = t.pull("busybox");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (t, done) = (&*t, &done);
        for _ in 0..2 {
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    t.run(&["ps", "-aq"]).code(0);
                }
            });
        }
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..40 {
                t.run(&["run", "--rm", "--name", "c", &image, "true"])
                    .code(0);
            }
        }));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        made.unwrap_or_else(|failure| std::panic::resume_unwind(failure));
    });
    t.has_containers(0);
}

/// `--rmi`: the image goes with the container, unless another needs it.
fn image_goes_too(t: &mut Rcon) {
    let image = t.pull("busybox");
    let run = ["run", "--rmi", "--name", "c", &image, "sh", "-c", "exit 3"];
    t.ok(&["create", "--name", "other", &image]);
    t.run(&run).code(3);
    t.ok(&["image", "exists", &image]);
    t.ok(&["rm", "other"]);
    t.run(&run).code(3);
    t.run(&["image", "exists", &image]).code(1);
    t.has_containers(0);
    t.run(&["run", "-d", "--rmi", &image])
        .refused(125)
        .says("--rmi");
}
