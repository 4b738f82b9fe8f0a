//! Commands that are cut off: ctrl-c, signals, sudden death. Nothing half-made stays.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::fake::{Fake, Fault};
use crate::lab::scenario::scenarios;
use crate::lab::tar::{Entry, Image, layer};
use crate::lab::{Rcon, eventually, leaks, registry};

scenarios!(
    pull_by_ctrl_c,
    pull_by_signal,
    pull_killed,
    run_while_pulling,
    run_by_ctrl_c,
    client_killed,
    client_killed_early
);

fn stalled() -> Fake {
    let noise: Vec<u8> = (0..400_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect();
    let image = Image::of(&[layer(&[Entry::Dir("d"), Entry::File("d/data", &noise)])]);
    Fake::start(image, Fault::Stall(500_000))
}

fn wait_for_blob(fake: &Fake) {
    eventually("the layer is being fetched", 30, || {
        (fake
            .requests()
            .iter()
            .filter(|r| r.contains("/blobs/"))
            .count()
            >= 2)
            .then_some(())
    });
    // Some of it has arrived and is being unpacked.
    std::thread::sleep(Duration::from_millis(200));
}

#[track_caller]
fn nothing_left(t: &Rcon) {
    eventually("no process is left", 20, || {
        leaks::processes(&t.dir).is_empty().then_some(())
    });
    t.run(&["images", "-a", "-q"]).prints("");
    t.has_containers(0);
    let left = leaks::stored(&t.root());
    assert!(left.is_empty(), "left behind: {left:#?}");
}

fn pull_by_ctrl_c(t: &mut Rcon) {
    let fake = stalled();
    let mut terminal = t.terminal(&["pull", &fake.name()]);
    wait_for_blob(&fake);
    let since = Instant::now();
    terminal.send("\x03");
    let code = terminal.wait();
    assert!(
        code != 0 && since.elapsed() < Duration::from_secs(20),
        "code {code} after {:?}",
        since.elapsed()
    );
    assert!(terminal.is_restored(), "the terminal is not as it was");
    assert!(
        !terminal.story().contains("panicked"),
        "{}",
        terminal.story()
    );
    drop(terminal);
    nothing_left(t);
    t.pull("busybox");
}

fn pull_by_signal(t: &mut Rcon) {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let fake = stalled();
        let running = t.start(&["pull", "-q", &fake.name()]);
        wait_for_blob(&fake);
        running.signal(signal);
        let out = running.wait_for(Duration::from_secs(20));
        assert!(out.code != 0 && out.stdout.is_empty(), "{}", out.story());
        nothing_left(t);
    }
}

fn pull_killed(t: &mut Rcon) {
    let fake = stalled();
    let running = t.start(&["pull", "-q", &fake.name()]);
    wait_for_blob(&fake);
    running.signal(Signal::SIGKILL);
    running.wait().code(137);
    eventually("no process is left", 20, || {
        leaks::processes(&t.dir).is_empty().then_some(())
    });
    t.run(&["images", "-a", "-q"]).prints("");
    // What was left in the middle is no hindrance, and the next pull clears it away.
    let image = t.pull("busybox");
    t.run(&["run", "--rm", &image, "true"]).code(0);
    eventually("nothing half-made is left", 20, || {
        leaks::files(&t.root().join("tmp")).is_empty().then_some(())
    });
}

fn run_while_pulling(t: &mut Rcon) {
    let fake = stalled();
    let running = t.start(&["run", "--rm", "--name", "c", &fake.name(), "true"]);
    wait_for_blob(&fake);
    running.signal(Signal::SIGINT);
    let out = running.wait_for(Duration::from_secs(20));
    assert!(out.code != 0 && out.stdout.is_empty(), "{}", out.story());
    nothing_left(t);
    let image = registry::plain().name("busybox");
    t.run(&["run", "--rm", "--name", "c", "-q", &image, "true"])
        .code(0);
}

fn run_by_ctrl_c(t: &mut Rcon) {
    let image = t.pull("busybox");
    // Without a terminal of its own the program gets the signal that the client gets.
    let mut terminal = t.terminal(&[
        "run",
        "--rm",
        &image,
        "sh",
        "-c",
        "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done",
    ]);
    terminal.expect("ready");
    terminal.send("\x03");
    terminal.expect("caught");
    assert_eq!(terminal.wait(), 5, "{}", terminal.story());
    assert!(terminal.is_restored());
    t.has_containers(0);
    // With one, it gets the key.
    let mut terminal = t.terminal(&[
        "run",
        "--rm",
        "-it",
        &image,
        "sh",
        "-c",
        "trap 'echo caught; exit 6' INT; echo ready; while :; do sleep 0.05; done",
    ]);
    terminal.expect("ready");
    terminal.send("\x03");
    terminal.expect("caught");
    assert_eq!(terminal.wait(), 6, "{}", terminal.story());
    assert!(terminal.is_restored());
    t.has_containers(0);
}

fn client_killed(t: &mut Rcon) {
    let image = t.pull("busybox");
    let running = t.start(&[
        "run",
        "--rm",
        "--name",
        "c",
        &image,
        "sh",
        "-c",
        "until test -e /go; do sleep 0.02; done; exit 3",
    ]);
    eventually("it runs", 20, || {
        t.run(&["ps", "-q"]).stdout.lines().next().map(drop)
    });
    running.signal(Signal::SIGKILL);
    drop(running);
    // As with podman the container goes on, can be used, and goes away when it ends.
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "running");
    t.let_go("c");
    eventually("it is gone", 20, || {
        t.run(&["ps", "-aq"]).stdout.is_empty().then_some(())
    });
}

fn client_killed_early(t: &mut Rcon) {
    let image = t.pull("busybox");
    let started = Instant::now();
    t.run(&["run", "--rm", &image, "true"]).code(0);
    let whole = started.elapsed();
    for step in 0..16 {
        let running = t.start(&["run", "--rm", "--name", "c", &image, "true"]);
        std::thread::sleep(whole * step / 12);
        running.signal(Signal::SIGKILL);
        drop(running);
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let (listed, running) = (t.run(&["ps", "-a"]), leaks::processes(&t.dir));
            if listed.ok().lines().count() == 1 && running.is_empty() {
                break;
            }
            let story = || {
                format!(
                    "step {step} of 12, {whole:?}\n{}\n{running:#?}",
                    listed.story()
                )
            };
            assert!(Instant::now() < end, "something is left after {}", story());
            std::thread::sleep(Duration::from_millis(20));
        }
        t.run(&["run", "--rm", "--name", "c", &image, "true"])
            .code(0);
    }
}
