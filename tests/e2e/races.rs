//! Several commands at once on one container: whoever comes second finds what the first has left, or is told in words why it
//! cannot do what it was to do. What is left is true, complete and usable.
//!
//! `RCON_TEST_RACES=300` makes it the long form, `RCON_TEST_SEED` another series of meetings.

use std::cell::RefCell;
use std::time::Duration;

use crate::lab::cgroups::Delegated;
use crate::lab::chance::{self, Dice};
use crate::lab::scenario::scenarios;
use crate::lab::{Output, Rcon, eventually, leaks};

scenarios!(campaign);

/// What is done to the container `c`.
const COMMANDS: [&str; 25] = [
    "start c",
    "start c",
    "stop -t 0 c",
    "stop -t 5 c",
    "restart -t 0 c",
    "restart -t 0 c",
    "kill c",
    "kill -s TERM c",
    "rm c",
    "rm -f -t 0 c",
    "rm -f -t 0 c",
    "rename c d",
    "rename c e",
    "commit -q c localhost/raced:1",
    "exec c true",
    "exec c sleep 0.05",
    "pause c",
    "unpause c",
    "init c",
    "update --restart on-failure:2 c",
    "diff c",
    "cp c:/etc/passwd -",
    "export c",
    "container cleanup c",
    "logs c",
];

/// What waits for it to end, or to say more.
const WAITING: [&str; 5] = [
    "wait c",
    "logs -f c",
    "attach --no-stdin c",
    "start -a c",
    "exec c sleep 1000",
];

/// How it is beforehand.
#[derive(Clone, Copy, Debug)]
enum Before {
    Created,
    Running,
    /// It ends by itself, about now.
    Ending,
    Exited,
    /// Its program waits to be started.
    SetUp,
    /// It fails, and is started again.
    Failing,
    /// It ends by itself, about now, and is removed with that.
    Vanishing,
}

struct Campaign<'a> {
    t: &'a Rcon,
    image: String,
    story: String,
    /// Of what was said, which does not keep us from going on.
    complaints: RefCell<Vec<String>>,
}

impl Campaign<'_> {
    fn begin(&self, before: Before) {
        let (t, image) = (self.t, self.image.as_str());
        let with = |options: &[&str], script: &str| {
            t.ok(&[options, &["--name", "c", image, "sh", "-c", script]].concat());
        };
        let lasts = "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done";
        match before {
            Before::Created => with(&["create"], lasts),
            Before::Running => with(&["run", "-d", "-p", "127.0.0.1::80"], lasts),
            Before::Ending => with(&["run", "-d"], "sleep 0.03; exit 4"),
            Before::Exited => with(&["run", "-d"], "exit 5"),
            Before::SetUp => {
                with(&["create"], lasts);
                t.ok(&["init", "c"]);
            }
            Before::Vanishing => with(&["run", "-d", "--rm"], "sleep 0.03; exit 4"),
            Before::Failing => with(&["run", "-d", "--restart", "always"], "sleep 0.02; exit 6"),
        }
    }

    /// Whether a command did what it was to do; if not it has said why.
    fn said(&self, out: &Output) -> bool {
        let odd = ["os error", "panicked", "No such file", "is damaged"];
        let words = out.stderr.as_str();
        // Programs that were ended say nothing, and their codes are theirs.
        let ended = [3, 4, 5, 6, 137, 143, 255].contains(&out.code);
        let fine = !odd.iter().any(|odd| words.contains(odd))
            && (out.code == 0 || !words.is_empty() || ended);
        if !fine {
            let complaint = format!("{}\n{}", self.story, out.story());
            self.complaints.borrow_mut().push(complaint);
        }
        out.code == 0
    }

    /// The names of what is there, which are the same in every place; one may be about to remove itself.
    fn names(&self) -> Vec<String> {
        let t = self.t;
        eventually(&format!("one list of names: {}", self.story), 20, || {
            let list = t.run(&["ps", "-a", "--format", "{{.Names}}"]);
            assert!(
                list.code == 0 && list.stderr.is_empty(),
                "{}\n{}",
                self.story,
                list.story()
            );
            let mut names: Vec<String> = list.stdout.lines().map(str::to_owned).collect();
            let known = |name: &String| t.run(&["inspect", "-f", "{{.Name}}", name]).stdout;
            let links = std::fs::read_dir(t.root().join("container-names")).unwrap();
            let mut links: Vec<String> = links
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            links.sort();
            let same = names == links && names.iter().all(|name| known(name).trim_end() == name);
            same.then_some(names)
        })
    }

    /// Nothing is left of it.
    fn sweep(&self) {
        let t = self.t;
        for name in self.names() {
            let out = t.run(&["rm", "-f", "-t", "0", &name]);
            assert!(out.code == 0, "{}\n{}", self.story, out.story());
        }
    }

    fn is_clean(&self) {
        let t = self.t;
        let left = || {
            let folders = |part: &str| {
                let list = std::fs::read_dir(t.root().join(part));
                let list = list.into_iter().flatten().flatten();
                list.map(|entry| entry.path().display().to_string())
                    .collect::<Vec<_>>()
            };
            [
                leaks::processes(&t.dir),
                leaks::mounts(&t.dir),
                leaks::runtime_files(&t.dir.join("run")),
                folders("containers"),
                folders("container-names"),
                folders("snapshots"),
                t.cgroup.iter().flat_map(Delegated::containers).collect(),
            ]
            .concat()
        };
        let mut last = Vec::new();
        for _ in 0..500 {
            last = left();
            if last.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{}\nleft: {last:#?}", self.story);
    }
}

fn campaign(t: &mut Rcon) {
    t.cgroup = Delegated::new(&t.user);
    let image = t.pull("busybox");
    let seed = chance::seed();
    let rounds = chance::asked_for("RCON_TEST_RACES").unwrap_or(25);
    let mut dice = Dice::new();
    let mut campaign = Campaign {
        t,
        image,
        story: String::new(),
        complaints: RefCell::default(),
    };
    for round in 0..rounds {
        let before = [
            Before::Created,
            Before::Running,
            Before::Running,
            Before::Ending,
            Before::Exited,
            Before::SetUp,
            Before::Failing,
            Before::Vanishing,
        ][dice.below(8) as usize];
        let mut lines: Vec<&str> = (0..2 + dice.below(2))
            .map(|_| COMMANDS[dice.below(COMMANDS.len() as u64) as usize])
            .collect();
        let waiting = (dice.below(3) == 0).then(|| WAITING[dice.below(5) as usize]);
        campaign.story = format!("seed {seed}, round {round}: {before:?}, {lines:?}, {waiting:?}");
        campaign.begin(before);
        lines.extend(waiting);
        let pauses = lines.contains(&"pause c");
        let all: Vec<_> = lines
            .iter()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let running = t.start(&words);
                std::thread::sleep(Duration::from_micros(dice.below(3000)));
                // What is paused with the container goes on when that ends.
                let waits = Some(*line) == waiting || pauses && line.starts_with("exec");
                (running, waits)
            })
            .collect();
        let (waiting, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, waits)| *waits);
        let outs: Vec<Output> = others.into_iter().map(|(other, _)| other.wait()).collect();
        for out in &outs {
            let renamed = lines.iter().any(|line| line.starts_with("rename"));
            if campaign.said(out) && out.line.contains(" rm ") && !renamed {
                let names = campaign.names();
                assert!(names.is_empty(), "{}\nleft: {names:?}", campaign.story);
            }
        }
        campaign.names();
        campaign.sweep();
        for (running, _) in waiting {
            campaign.said(&running.wait());
        }
        campaign.is_clean();
    }
    let complaints = campaign.complaints.take();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let out = t.run(&["rmi", "-f", "localhost/raced:1"]);
    assert!(out.code <= 1, "{}", out.story());
    eventually("layers of commits are collected", 20, || {
        t.run(&["image", "prune", "-f"]).code(0);
        let left = std::fs::read_dir(t.root().join("tmp")).unwrap().count();
        (left == 0).then_some(())
    });
}
