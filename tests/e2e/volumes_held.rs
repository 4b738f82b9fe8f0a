//! Volumes that are removed while containers with them are made: they stay, or were gone before.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};

scenarios!(kept, inherited, gone_before, twice_at_once, swept);

/// Nobody gets past this volume until it is dropped; all others that a container has are looked for in the order of their names.
struct Gate(File);

impl Gate {
    fn new(t: &Rcon, volume: &str) -> Gate {
        let dir = t.root().join("volumes").join(volume);
        if !dir.exists() {
            t.ok(&["volume", "create", volume]);
        }
        let file = File::open(dir).unwrap();
        file.lock().unwrap();
        Gate(file)
    }

    /// Waits until so many wait here.
    fn waited_at(&self, count: usize) {
        let inode = self.0.metadata().unwrap().ino();
        eventually("somebody at the gate", 60, || {
            let table = std::fs::read_to_string("/proc/locks").unwrap_or_default();
            // 1: -> FLOCK ADVISORY WRITE 123 00:1f:4567 0 EOF
            let waiting = table.lines().filter(|line| {
                let words: Vec<_> = line.split_ascii_whitespace().collect();
                let place = words.get(6).filter(|_| words[1] == "->");
                place.and_then(|place| place.rsplit(':').next()?.parse().ok()) == Some(inode)
            });
            (waiting.count() >= count).then_some(())
        });
    }
}

fn is_there(volume: &Path) -> bool {
    volume.join("volume.json").exists() && volume.join("_data").is_dir()
}

fn kept(t: &mut Rcon) {
    let image = t.pull("busybox");
    let make = ["create", "--name", "c", "-v", "a:/a", "-v", "z:/z", &image];
    let a = t.root().join("volumes/a");
    for word in ["rm", "prune"] {
        let gate = Gate::new(t, "z");
        let maker = t.start(&make);
        gate.waited_at(1);
        let remover = match word {
            "rm" => t.start(&["volume", "rm", "a"]),
            _ => t.start(&["volume", "prune", "-f", "--filter", "name=^a$"]),
        };
        std::thread::sleep(Duration::from_millis(300));
        assert!(is_there(&a), "{word}");
        drop(gate);
        maker.wait().code(0);
        match word {
            "rm" => {
                remover.wait().refused(2).says("being used");
            }
            _ => {
                remover.wait().prints("");
            }
        }
        assert!(is_there(&a), "{word}");
        // With its containers it goes all the same.
        t.run(&["volume", "rm", "-f", "a"]).prints("a\n");
        t.has_containers(0);
        t.ok(&["volume", "rm", "z"]);
    }
    // Who is killed over it keeps nothing.
    let gate = Gate::new(t, "z");
    let maker = t.start(&make);
    gate.waited_at(1);
    maker.signal(Signal::SIGKILL);
    maker.wait();
    t.run(&["volume", "rm", "a"]).prints("a\n");
    drop(gate);
    t.ok(&["volume", "rm", "z"]);
}

fn inherited(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "echo mine > /own/f";
    t.run(&[
        "run", "--name", "src", "-v", "/own", &image, "sh", "-c", script,
    ])
    .code(0);
    let gate = Gate::new(t, "z");
    let heir = ["--volumes-from", "src", "-v", "z:/z", &image];
    let maker = t.start(&[&["create", "--name", "heir"], &heir[..], &["cat", "/own/f"]].concat());
    gate.waited_at(1);
    let remover = t.start(&["rm", "-v", "src"]);
    std::thread::sleep(Duration::from_millis(300));
    drop(gate);
    maker.wait().code(0);
    remover.wait().code(0);
    t.run(&["start", "-a", "heir"]).prints("mine\n");
    t.ok(&["rm", "heir"]);
    t.ok(&["volume", "rm", "-a"]);
}

/// What was another container's is not made anew, empty.
fn gone_before(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "src", "-v", "/own", &image, "true"]);
    let gate = Gate::new(t, "0");
    let heir = ["--volumes-from", "src", "-v", "0:/z", &image, "true"];
    let maker = t.start(&[&["create", "--name", "heir"], &heir[..]].concat());
    gate.waited_at(1);
    t.ok(&["rm", "-v", "src"]);
    drop(gate);
    maker.wait().refused(125).says("no such volume");
    t.has_containers(0);
    t.run(&["volume", "ls", "-q"]).prints("0\n");
    t.ok(&["volume", "rm", "0"]);
}

fn twice_at_once(t: &mut Rcon) {
    let image = t.pull("busybox");
    let gate = Gate::new(t, "new");
    let run = ["run", "--rm", "-v", "new:/etc", &image, "ls", "/etc/group"];
    let both = [t.start(&run), t.start(&run)];
    gate.waited_at(2);
    drop(gate);
    for one in both {
        one.wait().prints("/etc/group\n");
    }
    t.ok(&["volume", "rm", "new"]);
}

/// What a removal or a making that was cut short has left goes with the next prune, what is just being made does not.
fn swept(t: &mut Rcon) {
    let image = t.pull("busybox");
    let volumes = t.root().join("volumes");
    let left = volumes.join("left");
    let leave = || {
        let script =
            "mkdir /d/below; echo x > /d/below/f; chown -R 1:1 /d/below; chmod 700 /d/below";
        let script = format!("{script} 2> /dev/null; true");
        let words = ["run", "--rm", "-v", "left:/d", &image, "sh", "-c", &script];
        t.run(&words).code(0);
        std::fs::remove_file(left.join("volume.json")).unwrap();
    };
    for words in [
        &["volume", "prune", "-f"][..],
        &["volume", "prune", "-f", "--filter", "name=other"],
        &["system", "prune", "-f", "--volumes"],
        &["system", "reset", "-f"],
    ] {
        leave();
        t.run(&["volume", "ls", "-q"]).prints("");
        let out = t.run(words);
        out.code(0);
        assert!(!out.stdout.contains("left") && out.stderr.is_empty());
        assert!(!left.exists(), "{words:?}");
        t.pull("busybox");
    }
    // What a container has is not nobody's.
    t.ok(&["create", "--name", "c", "-v", "left:/d", &image]);
    let record = left.join("volume.json");
    let text = std::fs::read(&record).unwrap();
    std::fs::remove_file(&record).unwrap();
    t.run(&["volume", "prune", "-f"]).prints("");
    assert!(left.join("_data").exists());
    std::fs::write(&record, text).unwrap();
    t.ok(&["rm", "c"]);
    t.ok(&["volume", "rm", "left"]);
    // Nor is what is about to be.
    let make = || {
        let data = left.join("_data").display().to_string();
        let words = ["mkdir", "-p", &data].map(String::from);
        assert!(t.command_of(&words).status().unwrap().success());
    };
    make();
    let gate = Gate::new(t, "left");
    t.run(&["volume", "prune", "-f"]).prints("");
    assert!(left.exists());
    drop(gate);
    t.run(&["volume", "prune", "-f"]).prints("");
    assert!(!left.exists());
    // With podman's volumes we have nothing to do.
    make();
    let store = t.root().join("storage.lock");
    std::fs::write(&store, "").unwrap();
    t.run(&["volume", "prune", "-f"]).prints("");
    assert!(left.exists());
    std::fs::remove_file(store).unwrap();
    t.run(&["volume", "prune", "-f"]).prints("");
    assert!(!left.exists());
}
