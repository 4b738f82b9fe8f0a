//! kill -9 at any moment of what changes the store: it is whole after each, and the next try succeeds.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::chance::moments;
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, lab, leaks, registry};

scenarios!(pull, load, remove, save, commit);

/// Moments that a command is killed at; which stage that is differs from machine to machine.
const MOMENTS: [u64; 7] = [0, 4, 12, 30, 60, 110, 200];

/// Starts a command and kills it; then no process of it is left, and the store is whole.
#[track_caller]
fn kill_at(t: &Rcon, milliseconds: u64, args: &[&str]) {
    let running = t.start(args);
    std::thread::sleep(Duration::from_millis(milliseconds));
    running.signal(Signal::SIGKILL);
    running.wait();
    eventually("no process is left", 10, || {
        leaks::processes(&t.dir).is_empty().then_some(())
    });
    t.run(&["system", "check"]).prints("").code(0);
}

fn pull(t: &mut Rcon) {
    let image = registry::plain().name("large");
    for moment in moments(MOMENTS) {
        kill_at(t, moment, &["pull", "-q", &image]);
    }
    t.run(&["pull", "-q", &image]).code(0);
    t.run(&["run", "--rm", &image, "wc", "-c", "/large/data"])
        .prints("50331648 /large/data\n");
    t.run(&["system", "check"]).prints("").code(0);
}

fn load(t: &mut Rcon) {
    let bytes = fs::read(lab().cache.join("archive/docker.tar")).unwrap();
    let path = t.write("docker.tar", bytes);
    for moment in moments(MOMENTS) {
        kill_at(t, moment, &["load", "-q", "-i", &path]);
    }
    t.run(&["load", "-q", "-i", &path]).code(0);
    t.run(&["run", "--rm", "lab.test/busybox:archived", "echo", "hi"])
        .prints("hi\n");
}

fn remove(t: &mut Rcon) {
    for (at, moment) in moments(MOMENTS).into_iter().enumerate() {
        let image = t.pull("tall");
        match at % 2 {
            0 => kill_at(t, moment / 4, &["rmi", "-f", &image]),
            _ => kill_at(t, moment / 4, &["image", "prune", "-a", "-f"]),
        }
        let image = t.pull("tall");
        t.run(&["run", "--rm", &image, "echo", "hi"]).prints("hi\n");
    }
    // What the dead left half removed goes with the next one.
    t.run(&["rmi", "-a", "-f"]).code(0);
    t.pull("busybox");
    let tmp = t.root().join("tmp");
    eventually("nothing half removed is left", 10, || {
        leaks::files(&tmp).is_empty().then_some(())
    });
}

fn save(t: &mut Rcon) {
    let image = t.pull("large");
    let path = t.write("out.tar", "the old one");
    for moment in moments([0, 5, 20, 60]) {
        kill_at(t, moment, &["save", "-q", "-o", &path, &image]);
        // A file is replaced when the new one is whole.
        let text = fs::read(&path).unwrap();
        assert!(text == b"the old one" || text.len() > 50_000_000);
    }
    t.run(&["save", "-q", "-o", &path, &image]).code(0);
    t.run(&["load", "-q", "-i", &path]).code(0);
}

fn commit(t: &mut Rcon) {
    let image = t.pull("odd");
    let write =
        "dd if=/dev/zero of=/big bs=64k count=200 2>/dev/null; echo kept >/odd/kept; rm /odd/keep";
    t.run(&["run", "--name", "c", &image, "sh", "-c", write])
        .code(0);
    for (at, moment) in moments(MOMENTS).into_iter().enumerate() {
        let squash = if at % 2 == 0 {
            "--squash=false"
        } else {
            "--squash"
        };
        kill_at(t, moment, &["commit", "-q", squash, "c", "new"]);
    }
    t.run(&["commit", "-q", "c", "new"]).code(0);
    t.run(&["run", "--rm", "new", "cat", "/odd/kept"])
        .prints("kept\n");
    t.run(&["rm", "c"]).code(0);
    t.run(&["rmi", "-a", "-f"]).code(0);
    t.run(&["image", "prune", "-f"]).code(0);
    t.run(&["system", "check"]).prints("").code(0);
}
