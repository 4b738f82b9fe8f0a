//! Runtimes side by side at one bundle.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::known::{self, Known};
use super::view::{differences, normal};
use crate::lab::bundle::Bundle;
use crate::lab::{Mode, Output, Rcon, installed, lab, skip};

const RUNTIMES: [&str; 3] = ["rcon", "crun", "runc"];

/// Some runtimes at one bundle.
pub struct Table<'a> {
    pub t: &'a Rcon,
    pub b: Bundle,
    pub root: bool,
    pub peers: Vec<&'static str>,
    known: Vec<Known>,
    /// The id of all containers, which nobody else has: cgroups are called by it.
    pub id: String,
    faults: String,
}

/// Gives `work` the bundles of the scenario's user, and once those of root.
pub fn with_tables(t: &Rcon, work: impl Fn(&mut Table<'_>)) {
    let there = |name: &&str| *name == "rcon" || installed(name);
    let all: Vec<_> = RUNTIMES.into_iter().filter(there).collect();
    if all.len() < RUNTIMES.len() {
        skip("crun or runc is not installed");
    }
    let mut faults = String::new();
    for root in [false, true] {
        if root && (!lab().root || t.mode != Mode::ManyIds) {
            continue;
        }
        let b = match root {
            true => Bundle::of_root(t, "peers-of-root"),
            false => Bundle::of_user(t, "peers"),
        };
        let mut table = Table {
            t,
            b,
            root,
            peers: Vec::new(),
            known: known::of(root),
            id: format!("peer-{}-{}", t.user.uid, b_number()),
            faults: String::new(),
        };
        table.b.write();
        for peer in &all {
            let out = table.to_end(peer, &["run", "c"]);
            match out.code {
                0 => table.peers.push(peer),
                _ => skip(&format!("{peer} does not run here: {}", out.stderr.trim())),
            }
        }
        assert_eq!(table.peers.first(), Some(&"rcon"));
        work(&mut table);
        if !table.faults.is_empty() {
            faults += &format!("bundles of root: {root}\n{}", table.faults);
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

/// Another number each time.
fn b_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    std::process::id() * 100 + NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Table<'_> {
    /// A command of a runtime, in a mount namespace where cgroups are of the second version only (Debian's crun runs
    /// nowhere else).
    pub fn command(&self, peer: &str, words: &[&str]) -> Command {
        const ENTER: &str = r#"
            test "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs || mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 99
            uid=$1 gid=$2; shift 2
            test "$uid" != 0 || exec "$@"
            exec setpriv --reuid "$uid" --regid "$gid" --clear-groups --inh-caps=-all "$@""#;
        let state = self.b.dir.join(format!("state-{peer}"));
        let mut all = match peer {
            "rcon" => vec![self.t.program.to_str().unwrap(), "oci"],
            // It would ask systemd for one.
            "crun" if !self.root => vec!["crun", "--cgroup-manager=disabled"],
            _ => vec![peer],
        };
        all.extend(["--root", state.to_str().unwrap()]);
        // The container is called `c` in the scenarios.
        all.extend(words.iter().map(|word| match *word {
            "c" => self.id.as_str(),
            word => word,
        }));
        let mut command = match lab().root {
            false => {
                let mut command = Command::new(all[0]);
                command.args(&all[1..]);
                command
            }
            true => {
                let (uid, gid) = match self.root {
                    true => (0, 0),
                    false => (self.t.user.uid, self.t.user.gid),
                };
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", ENTER, "sh"]);
                command.args([uid.to_string(), gid.to_string()]).args(all);
                command
            }
        };
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.current_dir(&self.b.dir).env_clear();
        command
            .env("PATH", path)
            .env("HOME", self.t.dir.join("home"));
        if !self.root {
            command.env("XDG_RUNTIME_DIR", self.t.dir.join("run"));
        }
        command
    }

    /// Runs a command to its end. What goes on after it may keep its streams: they are files.
    #[track_caller]
    pub fn to_end(&self, peer: &str, words: &[&str]) -> Output {
        let name = |stream: &str| self.t.dir.join(format!("{stream}-{peer}"));
        let paths: [PathBuf; 2] = ["stdout", "stderr"].map(name);
        let [out, err] = paths.clone().map(|path| fs::File::create(path).unwrap());
        let mut command = self.command(peer, words);
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let since = Instant::now();
        let mut child = command.spawn().unwrap();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if since.elapsed() > Duration::from_secs(120) {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{peer} {words:?} does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let [out, err] = paths.map(|path| fs::read(path).unwrap());
        let line = format!("{peer} {}", words.join(" "));
        Output::new(line, status, &out, &err, since.elapsed())
    }

    /// Runs the bundle, changed for this once, by all, and compares what came of it.
    pub fn case(&mut self, case: &str, change: impl FnOnce(&mut Bundle)) {
        let spec = self.b.spec.clone();
        change(&mut self.b);
        self.b.write();
        let run = |peer: &&'static str| {
            let out = self.to_end(peer, &["run", "c"]);
            let mut lines = normal(&out.stdout, &self.b.dir, &self.id);
            lines.push(format!("exit code {}", out.code));
            (*peer, lines, out.stderr)
        };
        let all: Vec<_> = self.peers.iter().map(run).collect();
        self.compare(case, &all);
        self.b.spec = spec;
    }

    /// The first is ours; the others must have the same lines.
    pub fn compare(&mut self, case: &str, all: &[(&'static str, Vec<String>, String)]) {
        let (_, ours, said) = &all[0];
        if std::env::var_os("RCON_TEST_SHOW").is_some() {
            println!("== {case}, of root: {}\n{}", self.root, ours.join("\n"));
        }
        for (peer, theirs, answer) in &all[1..] {
            let found = differences(ours, theirs);
            let meant: Vec<&Known> = self.known.iter().filter(|k| k.is_of(peer, case)).collect();
            let wrong = found.iter().filter(|l| !meant.iter().any(|k| k.holds(l)));
            let wrong: Vec<String> = wrong.map(|line| format!("    {line}\n")).collect();
            if !wrong.is_empty() {
                self.faults += &format!(
                    "{case}: {peer} (-) and rcon (+):\n{}  {peer} says: {}\n  rcon says: {}\n",
                    wrong.concat(),
                    answer.trim(),
                    said.trim(),
                );
            }
            for one in meant.iter().filter(|k| k.is_certain()) {
                if !found.iter().any(|line| one.holds(line)) {
                    self.faults += &format!("{case}: {peer} does not differ in {:?}\n", one.line);
                }
            }
        }
    }
}
