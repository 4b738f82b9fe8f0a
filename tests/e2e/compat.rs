//! Everyday lines of podman's users: the same through rcon as through Debian's podman.
//!
//! `tests/compat/CHAPTER.txt` has the lines, `tests/compat/expected/CHAPTER.txt` what podman said to them: standard output,
//! the message of a failure, the exit code. `tests/compat/run` has podman say it again where podman can run. Where rcon
//! means to differ, docs/podman.md says so in its table of lines: only those may, and they must.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::lab::net::free_port;
use crate::lab::program::Running;
use crate::lab::{Mode, Output, Rcon, installed, lab, registry, skip};

macro_rules! chapters {
    ($($name:ident),+ $(,)?) => {$(
        #[test]
        fn $name() {
            chapter(stringify!($name));
        }
    )+};
}

chapters!(
    run, exec, ps, inspect, files, volumes, images, logs, events, everyday
);

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/compat");
const BOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/podman.md");

/// What the environment asks for: `check` or `record` has podman say the lines, beside rcon or alone.
fn asked() -> String {
    std::env::var("RCON_COMPAT").unwrap_or_default()
}

pub fn chapter(name: &str) {
    let Some(user) = lab().user(Mode::ManyIds) else {
        return;
    };
    if let Err(reason) = lab().images("busybox") {
        return skip(&reason);
    }
    let text = fs::read_to_string(Path::new(HERE).join(format!("{name}.txt"))).unwrap();
    if text.contains("| jq") && !installed("jq") {
        return skip("jq is not installed");
    }
    let lines: Vec<&str> = text
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .collect();
    let kept = PathBuf::from(HERE).join(format!("expected/{name}.txt"));
    let asked = asked();
    if !asked.is_empty() {
        let mut world = World::new(Rcon::new(Mode::ManyIds, user), true);
        let said = world.all(&lines);
        world.clear();
        if asked == "record" {
            fs::write(&kept, said.concat()).unwrap();
        }
        let recorded = fs::read_to_string(&kept).unwrap_or_default();
        let faults: String = entries(&recorded)
            .into_iter()
            .zip(&said)
            .filter(|(recorded, said)| recorded != said)
            .map(|(recorded, said)| differences(recorded, said))
            .collect();
        assert!(
            faults.is_empty() && recorded == said.concat(),
            "podman says something else now:\n{faults}"
        );
    }
    let expected = fs::read_to_string(&kept).unwrap_or_else(|e| panic!("{}: {e}", kept.display()));
    let mut world = World::new(Rcon::new(Mode::ManyIds, user), false);
    let said = world.all(&lines);
    let differ = allowed();
    let mut faults = String::new();
    let expected = entries(&expected);
    assert!(
        expected.len() == lines.len(),
        "tests/compat/run --record is due"
    );
    for ((line, said), podmans) in lines.iter().zip(&said).zip(expected) {
        assert!(
            podmans.starts_with(&format!("$ {line}\n")),
            "not recorded: {line}"
        );
        let same = compared(podmans) == compared(said);
        match (same, differ.iter().any(|d| d == line)) {
            (true, false) | (false, true) => {}
            (true, true) => {
                let _ = writeln!(
                    faults,
                    "docs/podman.md says that this differs, and it does not: {line}"
                );
            }
            (false, false) => {
                let _ = writeln!(faults, "{}", differences(podmans, said));
            }
        }
    }
    world.clear();
    world.rcon.finish();
    assert!(
        faults.is_empty(),
        "not as podman (-) says, but as rcon (+):\n{faults}"
    );
}

/// The entries of a recording: what begins with `$ `, up to the exit code in brackets.
fn entries(text: &str) -> Vec<&str> {
    let mut starts: Vec<usize> = Vec::new();
    let mut at = 0;
    let mut ended = true;
    for line in text.split_inclusive('\n') {
        if ended && line.starts_with("$ ") {
            starts.push(at);
        }
        let code = line.trim_end().strip_prefix('[');
        ended = code
            .and_then(|l| l.strip_suffix(']'))
            .is_some_and(|code| code.parse::<i32>().is_ok());
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| &text[*start..end])
        .collect()
}

/// What is compared: of messages it counts that there is one. Their words are podman's where scripts may look for them,
/// which tests of their own see to.
fn compared(entry: &str) -> String {
    let lines = entry.lines().map(|line| match line.strip_prefix("2> ") {
        Some(_) => "2>",
        None => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The lines that may differ: the first column of the tables in the book, in backquotes.
fn allowed() -> Vec<String> {
    let book = fs::read_to_string(BOOK).unwrap_or_default();
    book.lines()
        .filter_map(|l| {
            let cell = l.strip_prefix("| `` ")?.split(" `` |").next()?;
            Some(cell.replace("\\|", "|"))
        })
        .collect()
}

/// What is different, line by line.
fn differences(expected: &str, said: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), said.lines().collect());
    let mut text = String::new();
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    if let Some(head) = a.first() {
        let _ = writeln!(text, "{head}");
    }
    for line in a.iter().skip(same.max(1)) {
        let _ = writeln!(text, "  - {line}");
    }
    for line in b.iter().skip(same.max(1)) {
        let _ = writeln!(text, "  + {line}");
    }
    text
}

/// The text without lengths of time in that unit.
fn times(text: &str, unit: &str) -> String {
    let text = text
        .replace(&format!("Less than a {unit}"), "TIME")
        .replace(&format!("About a {unit}"), "TIME");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(&format!(" {unit}")) {
        let (before, after) = (&rest[..at], &rest[at + 1 + unit.len()..]);
        let digits = before.trim_end_matches(|c: char| c.is_ascii_digit());
        let whole = !after.starts_with(|c: char| c.is_ascii_alphanumeric());
        match digits.len() < before.len() && whole {
            true => out = out + digits + "TIME",
            false => out = out + before + " " + unit,
        }
        rest = after;
    }
    out + rest
}

/// A user with a `podman`: Debian's, or rcon under its name.
struct World {
    rcon: Rcon,
    peer: bool,
    port: String,
    ids: BTreeMap<String, usize>,
}

impl World {
    fn new(mut rcon: Rcon, peer: bool) -> World {
        let bin = rcon.dir.join("bin");
        if !peer {
            let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", rcon.program.display());
            fs::write(bin.join("podman"), script).unwrap();
            fs::set_permissions(bin.join("podman"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = format!(
            "{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            bin.display()
        );
        rcon.set_env("PATH", &path);
        let image = registry::plain().name("busybox");
        rcon.set_env("IMAGE", &image);
        let port = free_port().to_string();
        rcon.set_env("PORT", &port);
        let registry = image.split('/').next().unwrap();
        rcon.write(
            ".config/containers/registries.conf",
            format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n"),
        );
        let world = World {
            rcon,
            peer,
            port,
            ids: BTreeMap::new(),
        };
        let out = world.line("podman pull -q $IMAGE");
        assert!(out.code == 0, "{}", out.story());
        world
    }

    /// Says all lines; an entry for each.
    fn all(&mut self, lines: &[&str]) -> Vec<String> {
        lines
            .iter()
            .map(|line| {
                let out = self.line(line);
                self.ids.clear();
                let mut text = format!("$ {line}\n{}", self.normal(&out.stdout));
                if !text.ends_with('\n') {
                    text += "\\\n";
                }
                // What podman tells of its progress and of its choice of a resolver is no message.
                let stderr = self.normal(&out.stderr);
                for line in stderr.lines().filter(|l| l.starts_with("Error: ")) {
                    let _ = writeln!(text, "2> {line}");
                }
                let _ = writeln!(text, "[{}]", out.code);
                text
            })
            .collect()
    }

    fn line(&self, line: &str) -> Output {
        let words: Vec<String> = match self.peer {
            false => ["sh", "-c", line].map(str::to_owned).to_vec(),
            // Debian's crun does not run where cgroups of both kinds are mounted.
            true => {
                let user = &self.rcon.user;
                let enter = format!(
                    "mount --make-rshared /; mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null; \
                     exec setpriv --reuid {} --regid {} --clear-groups --inh-caps=-all sh -c \"$0\"",
                    user.uid, user.gid
                );
                ["unshare", "--mount", "sh", "-c", &enter, line]
                    .map(str::to_owned)
                    .to_vec()
            }
        };
        let mut command = self.rcon.command_of(&words);
        if self.peer && lab().root {
            use std::os::unix::process::CommandExt;
            command.uid(0).gid(0);
        }
        Running::start(command, Stdio::null()).wait()
    }

    /// The text without what is another each time: ids, places, ports, times; and rcon under podman's name.
    fn normal(&mut self, text: &str) -> String {
        let image = registry::plain().name("busybox");
        let registry = image.split('/').next().unwrap().to_owned();
        let dir = self.rcon.dir.display().to_string();
        let mut text = text
            .replace(&registry, "REGISTRY")
            .replace(&dir, "DIR")
            .replace(&self.rcon.user.name, "USER");
        if !self.peer {
            text = text.replace("rcon", "podman");
        }
        for unit in ["second", "seconds", "minute", "minutes", "ms"] {
            text = times(&text, unit);
        }
        let mut out = String::new();
        let mut word = String::new();
        for letter in text.chars().chain(['\0']) {
            if letter.is_ascii_alphanumeric() {
                word.push(letter);
                continue;
            }
            out += &self.named(&word);
            word.clear();
            if letter != '\0' {
                out.push(letter);
            }
        }
        out
    }

    /// An id as the number of its first mention. The port only where it stands alone: an id may have its digits.
    fn named(&mut self, word: &str) -> String {
        if word == self.port {
            return "PORT".to_owned();
        }
        let hex = word
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !hex || ![12, 64].contains(&word.len()) {
            return word.to_owned();
        }
        let count = self.ids.len();
        let number = *self.ids.entry(word[..12].to_owned()).or_insert(count + 1);
        match word.len() {
            12 => format!("id{number}"),
            _ => format!("ID{number}"),
        }
    }

    /// Leaves nothing behind.
    fn clear(&self) {
        for line in [
            "podman rm -fa -v -t 0",
            "podman rmi -fa",
            "podman volume rm -fa",
            "test ! -e home || rm -rf home",
        ] {
            self.line(line);
        }
        if self.peer {
            // Its files belong to other ids.
            self.line("podman system reset -f; podman unshare rm -rf $HOME/.local");
        }
    }
}
