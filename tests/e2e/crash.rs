//! Sudden deaths: `kill -9` at random moments of commands that change containers, of the command, of its monitor and network,
//! or of all at once. After each, what is left must be true, complete and usable.
//!
//! `RCON_TEST_CRASHES=200` makes it the long form, `RCON_TEST_SEED` another series of moments.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::cgroups::Delegated;
use crate::lab::chance::{self, Dice};
use crate::lab::net::free_port;
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, leaks};

scenarios!(campaign);

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Command,
    /// One of ours, whichever: command, monitor, network.
    Any,
    /// The monitor of the container that runs, which lives on.
    Monitor,
    /// All of ours.
    All,
}

struct Campaign<'a> {
    t: &'a Rcon,
    image: String,
    port: String,
    seed: u64,
    round: u64,
    what: String,
    victim: Victim,
    /// Those of the container that the command works on.
    namespaces: Vec<String>,
}

impl Campaign<'_> {
    fn story(&self) -> String {
        format!(
            "seed {}, round {}: {:?} killed in `{}`",
            self.seed, self.round, self.victim, self.what
        )
    }

    /// One command, cut off `after` its beginning.
    fn strike(&mut self, words: &[&str], after: Duration, dice: &mut Dice) {
        self.what = words.join(" ");
        let running = self.t.start(words);
        let pid = running.pid();
        let moment = Instant::now() + after;
        // Looking for victims takes time too.
        let others = match self.victim {
            Victim::Command | Victim::Monitor => Vec::new(),
            Victim::Any | Victim::All => leaks::process_ids(&self.t.dir),
        };
        std::thread::sleep(moment.saturating_duration_since(Instant::now()));
        let die = |pid: i32| {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        };
        match self.victim {
            Victim::Command => die(pid),
            Victim::Monitor => {
                if let Some((_, monitor)) = self.recorded() {
                    die(monitor);
                }
            }
            Victim::Any if others.is_empty() => die(pid),
            Victim::Any => die(others[dice.below(others.len() as u64) as usize]),
            Victim::All => {
                for _ in 0..3 {
                    for pid in leaks::process_ids(&self.t.dir) {
                        die(pid);
                    }
                }
            }
        }
        // A command whose monitor is gone may wait for what does not come: it is the command that is tested, not this.
        if !matches!(self.victim, Victim::Any | Victim::Monitor) {
            die(pid);
        }
        let _ = running.wait();
    }

    /// The process and the monitor of the container that the commands work on, by its record alone.
    fn recorded(&self) -> Option<(i32, i32)> {
        let root = self.t.root();
        let id = std::fs::read_link(root.join("container-names/work")).ok()?;
        let text = std::fs::read(root.join("containers").join(id).join("state.json")).ok()?;
        let state: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let pid = |who: &str| i32::try_from(state[who]["pid"].as_i64()?).ok();
        Some((pid("process")?, pid("monitor")?))
    }

    /// What must be true after each blow.
    fn check(&self) {
        let t = self.t;
        let list = t.run(&["ps", "-a", "--format", "{{.Names}} {{.State}} {{.Pid}}"]);
        assert!(
            list.code == 0 && list.stderr.is_empty(),
            "{}\n{}",
            self.story(),
            list.story()
        );
        // What was acknowledged is there, with its end and its log.
        let kept = t.run(&[
            "inspect",
            "--format",
            "{{.State.Status}} {{.State.ExitCode}}",
            "kept",
        ]);
        assert!(
            kept.stdout == "exited 7\n",
            "{}\n{}",
            self.story(),
            kept.story()
        );
        let log = t.run(&["logs", "kept"]);
        assert!(log.stdout == "kept\n", "{}\n{}", self.story(), log.story());
        // A container that lives has a monitor that lives, and a log that goes on.
        if list.stdout.contains("work running ") {
            let recorded = self.recorded();
            // It may have ended since.
            let still = || {
                let list = t.run(&["ps", "--format", "{{.Names}}"]);
                list.stdout.lines().any(|name| name == "work")
            };
            assert!(recorded.is_some() || !still(), "{}", self.story());
            let lives = |pid: i32| {
                std::fs::read_to_string(format!("/proc/{pid}/stat"))
                    .is_ok_and(|stat| !stat.contains(") Z "))
            };
            let alone =
                recorded.is_some_and(|(process, monitor)| lives(process) && !lives(monitor));
            assert!(!alone, "{}", self.story());
            let log = t.run(&["logs", "work"]);
            let mut last = 0;
            for line in log.stdout.lines() {
                let number: u32 = line.parse().unwrap_or_else(|_| panic!("{}", log.story()));
                assert!(
                    number > last || number == 1,
                    "{}\n{}",
                    self.story(),
                    log.story()
                );
                last = number;
            }
        }
        // Nobody has a name twice.
        let mut names: Vec<&str> = list
            .stdout
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert!(count == names.len(), "{}\n{}", self.story(), list.story());
        // Who is said to run does.
        for line in list
            .stdout
            .lines()
            .filter(|line| line.contains(" running "))
        {
            let name = line.split(' ').next().unwrap();
            let out = t.run(&["exec", name, "true"]);
            assert!(
                out.code == 0
                    || out.stderr.contains("no such container")
                    || out.stderr.contains("running"),
                "{}\n{}",
                self.story(),
                out.story()
            );
        }
    }

    /// All can be removed, and nothing is left, the port included.
    fn sweep(&self) {
        let t = self.t;
        // Names that cannot be the beginning of the id of what is kept.
        for name in ["work", "made"] {
            let out = t.run(&["rm", "-f", "-v", "-t", "0", name]);
            assert!(out.code == 0, "{}\n{}", self.story(), out.story());
        }
        let list = t.run(&["ps", "-a", "--format", "{{.Names}}"]);
        let others: Vec<&str> = list.stdout.lines().filter(|name| *name != "kept").collect();
        for name in others {
            t.run(&["rm", "-f", "-v", "-t", "0", name]).code(0);
        }
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let mut left = leaks::processes(&t.dir);
            if left.is_empty() {
                left.extend(leaks::in_namespaces(&t.dir, &self.namespaces));
            }
            left.extend(t.cgroup.iter().flat_map(Delegated::containers));
            left.extend(leaks::locks(&t.root()));
            left.extend(leaks::locks(&t.dir.join("run")));
            left.extend(leaks::half_written(&t.root().join("containers")));
            left.extend(leaks::mounts(&t.dir));
            left.extend(leaks::runtime_files(&t.dir.join("run")));
            left.extend(leaks::files(&t.dir.join("tmp")));
            let names = std::fs::read_dir(t.root().join("container-names")).unwrap();
            let names: Vec<_> = names.flatten().map(|e| e.file_name()).collect();
            let folders = |part: &str| {
                let list = std::fs::read_dir(t.root().join(part));
                let list = list.into_iter().flatten().flatten();
                list.map(|e| e.file_name()).collect::<Vec<_>>()
            };
            let (containers, snapshots) = (folders("containers"), folders("snapshots"));
            let volumes = folders("volumes");
            if left.is_empty()
                && names.len() == 1
                && containers.len() == 1
                && snapshots.len() == 1
                && volumes.is_empty()
            {
                break;
            }
            assert!(
                Instant::now() < end,
                "{}\nleft: {left:#?}\nnames: {names:?}\ncontainers: {containers:?}\nsnapshots: {snapshots:?}\nvolumes: {volumes:?}",
                self.story()
            );
            // What takes a lock to be removed is removed by the next command.
            t.run(&["ps", "-a"]).code(0);
            std::thread::sleep(Duration::from_millis(20));
        }
        t.run(&["system", "check"]).prints("").code(0);
        eventually("the port is free", 10, || {
            TcpListener::bind(format!("127.0.0.1:{}", self.port)).ok()
        });
        // And all is as it was before.
        let out = t.run(&[
            "run",
            "--rm",
            "--name",
            "c",
            "-p",
            &self.publish(),
            &self.image,
            "echo",
            "fine",
        ]);
        assert!(
            out.code == 0 && out.stdout == "fine\n",
            "{}\n{}",
            self.story(),
            out.story()
        );
    }

    fn publish(&self) -> String {
        format!("127.0.0.1:{}:80", self.port)
    }
}

fn campaign(t: &mut Rcon) {
    t.cgroup = Delegated::new(&t.user);
    let image = t.pull("busybox");
    t.named_sh("kept", &image, "echo kept; exit 7").code(7);
    let port = free_port().to_string();
    let started = Instant::now();
    t.ok(&["run", "--rm", &image, "true"]);
    let whole = started.elapsed();
    let seed = chance::seed();
    let rounds = chance::asked_for("RCON_TEST_CRASHES").unwrap_or(12);
    let mut dice = Dice::new();
    let mut campaign = Campaign {
        t,
        image: image.clone(),
        port,
        seed,
        round: 0,
        what: String::new(),
        victim: Victim::Command,
        namespaces: Vec::new(),
    };
    let publish = campaign.publish();
    for round in 0..rounds {
        campaign.round = round;
        campaign.victim = match dice.below(5) {
            0 | 1 => Victim::Command,
            2 => Victim::Any,
            3 => Victim::Monitor,
            _ => Victim::All,
        };
        let count = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";
        let sleeper = [
            "run", "-d", "--name", "work", "-p", &publish, &image, "sh", "-c", count,
        ];
        let kind = round % 12;
        campaign.namespaces.clear();
        // What the command works on is there first.
        if (3..=11).contains(&kind) {
            t.ok(&sleeper);
            if let Some((process, _)) = campaign.recorded() {
                let own = leaks::namespaces_of(std::process::id().cast_signed());
                campaign.namespaces = leaks::namespaces_of(process);
                campaign.namespaces.retain(|name| !own.contains(name));
            }
        }
        let words: Vec<&str> = match kind {
            0 => sleeper.to_vec(),
            1 => vec![
                "run", "--rm", "--name", "work", "-p", &publish, &image, "true",
            ],
            2 => vec!["create", "--name", "made", "-v", "/data", &image, "true"],
            3 => vec!["stop", "-t", "0", "work"],
            4 => vec!["rm", "-f", "-t", "0", "work"],
            5 => vec!["exec", "work", "sh", "-c", "echo here; sleep 0.05"],
            6 => vec!["restart", "-t", "0", "work"],
            7 => vec!["commit", "-q", "work", "localhost/committed:1"],
            8 => vec!["kill", "work"],
            9 => vec!["pause", "work"],
            10 => vec!["rename", "work", "made"],
            _ => {
                campaign.victim = Victim::Monitor;
                vec!["logs", "--tail", "1", "work"]
            }
        };
        let after = whole.mul_f64(dice.below(1300) as f64 / 1000.0);
        campaign.strike(&words, after, &mut dice);
        campaign.check();
        campaign.sweep();
    }
    t.run(&["rmi", "-f", "localhost/committed:1"]);
    // Layers of a commit that was killed are kept until somebody clears up.
    // One that is still on its way out holds on to its own until the next time.
    eventually("layers of killed commits are collected", 20, || {
        t.run(&["image", "prune", "-f"]).code(0);
        let left = std::fs::read_dir(t.root().join("tmp")).unwrap().count();
        (left == 0).then_some(())
    });
    t.run(&["rm", "kept"]).code(0);
}
