//! What scripts may read, as it was once: `tests/e2e/snapshots/NAME.txt`.
//!
//! A snapshot is what a user sees who types some lines: each line, what it printed, what it said on standard error, its
//! exit code. Where the two kinds of users see something else there is a second file, `NAME.one-id.txt`.
//!
//! `RCON_TEST_SNAPSHOTS=write` writes down what is said now; `git diff` then shows what has changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use super::program::Running;
use super::{Mode, Rcon, registry};

/// Fields whose values are another's on each machine, or at each time.
const VARYING: [&str; 51] = [
    "APIVersion",
    "Backing Filesystem",
    "BlockInput",
    "BlockIO",
    "BlockOutput",
    "CPU",
    "CPUPerc",
    "CgroupPath",
    "ConmonPid",
    "CpuNano",
    "CpuSystemNano",
    "Created",
    "ExitedAt",
    "KernelVersion",
    "MemLimit",
    "MemPerc",
    "MemUsage",
    "PidsLimit",
    "Pid",
    "Size",
    "StartedAt",
    "SystemNano",
    "Ulimits",
    "UpTime",
    "VirtualSize",
    "apparmorEnabled",
    "avg_cpu",
    "cgroupControllers",
    "cgroupManager",
    "cgroupVersion",
    "cpu_percent",
    "cpu_time",
    "cpus",
    "distribution",
    "graphRootAllocated",
    "graphRootUsed",
    "idMappings",
    "ipv6_enabled",
    "kernel",
    "ladder",
    "memFree",
    "memTotal",
    "mem_percent",
    "mem_usage",
    "policy",
    "registriesConf",
    "storageConf",
    "subnets",
    "swapFree",
    "swapTotal",
    "uptime",
];

/// A session of typed lines.
pub struct Session<'a> {
    t: &'a Rcon,
    ids: BTreeMap<String, usize>,
    text: String,
}

impl<'a> Session<'a> {
    /// An empty one.
    pub fn new(t: &'a Rcon) -> Session<'a> {
        Session {
            t,
            ids: BTreeMap::new(),
            text: String::new(),
        }
    }

    /// Types lines of the shell, in which `rcon` is the program.
    pub fn lines(&mut self, lines: &[&str]) -> &mut Self {
        for line in lines {
            let words = ["sh", "-c", line].map(str::to_owned);
            let mut command = self.t.command_of(&words);
            let path = format!("{}/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.t.dir.display());
            command.env("PATH", path);
            command.env("IMAGE", registry::plain().name("busybox"));
            command.env("REGISTRY", &registry::plain().address);
            let out = Running::start(command, Stdio::null()).wait();
            let stdout = self.normal(&out.stdout);
            let stderr = self.normal(&out.stderr);
            let _ = write!(self.text, "$ {line}\n{stdout}");
            if !stdout.is_empty() && !stdout.ends_with('\n') {
                self.text += "\\\n";
            }
            for line in stderr.lines() {
                let _ = writeln!(self.text, "2> {line}");
            }
            if out.code != 0 {
                let _ = writeln!(self.text, "[{}]", out.code);
            }
            self.text.push('\n');
        }
        self
    }

    /// Compares all of it with the file of that name.
    #[track_caller]
    pub fn is(&self, name: &str) {
        let dir = PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/e2e/snapshots"
        ));
        let usual = dir.join(format!("{name}.txt"));
        let own = match self.t.mode {
            Mode::ManyIds => usual.clone(),
            Mode::OneId => dir.join(format!("{name}.one-id.txt")),
        };
        let read = |path: &PathBuf| fs::read_to_string(path).ok();
        let expected = read(&own).or_else(|| read(&usual)).unwrap_or_default();
        if std::env::var("RCON_TEST_SNAPSHOTS").is_ok_and(|how| how == "write") {
            fs::create_dir_all(&dir).unwrap();
            if own != usual && read(&usual).as_ref() == Some(&self.text) {
                let _ = fs::remove_file(&own);
            } else if expected != self.text {
                fs::write(&own, &self.text).unwrap();
            }
            return;
        }
        assert!(
            expected == self.text,
            "{name}: what is printed is not what it was; if it is meant so, \
             RCON_TEST_SNAPSHOTS=write writes it down\n{}",
            differences(&expected, &self.text)
        );
    }

    /// The text without what is another each time.
    fn normal(&mut self, text: &str) -> String {
        let registry = registry::plain().address.clone();
        let uname = rustix::system::uname();
        let host = uname.nodename().to_string_lossy().into_owned();
        let text = text
            .replace(&self.t.dir.display().to_string(), "DIR")
            .replace(&registry, "REGISTRY")
            .replace(env!("CARGO_PKG_VERSION"), "VERSION")
            .replace(&format!("\"{host}\""), "\"HOST\"");
        let text = maps(&text);
        let text = fields(&text);
        let text = moments(&text);
        let text = amounts(&text);
        let text = self.named(&text);
        text.lines()
            .map(|line| blanks(line) + "\n")
            .collect::<String>()
            .trim_end_matches(|c| c == '\n' && !text.ends_with('\n'))
            .to_owned()
    }

    /// With ids as the numbers of their first mention.
    fn named(&mut self, text: &str) -> String {
        let mut out = String::new();
        for word in pieces(text, |c| c.is_ascii_alphanumeric()) {
            let hex = word
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if !hex || ![12, 25, 64].contains(&word.len()) {
                out += word;
                continue;
            }
            let next = self.ids.len() + 1;
            let number = *self.ids.entry(word[..12].to_owned()).or_insert(next);
            let _ = match word.len() {
                12 => write!(out, "id{number}"),
                _ => write!(out, "ID{number}"),
            };
        }
        out
    }
}

/// The text cut where letters that are `inside` and others meet.
fn pieces(text: &str, inside: impl Fn(char) -> bool) -> Vec<&str> {
    let mut all = Vec::new();
    let mut from = 0;
    let mut was = None;
    for (at, letter) in text.char_indices() {
        let is = inside(letter);
        if was.is_some_and(|was| was != is) {
            all.push(&text[from..at]);
            from = at;
        }
        was = Some(is);
    }
    all.push(&text[from..]);
    all
}

/// The ids that layers were unpacked for are the user's.
fn maps(text: &str) -> String {
    let mut parts = text.split("/rcon/layers/");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.find('/').map_or("", |at| &part[at..]);
        text + "/rcon/layers/IDS" + rest
    })
}

/// Without the values of varying fields of JSON, also of lists and objects.
fn fields(text: &str) -> String {
    let mut out = String::new();
    let mut until: Option<String> = None;
    for line in text.split_inclusive('\n') {
        let body = line.trim_start();
        let indent = &line[..line.len() - body.len()];
        if let Some(end) = &until {
            if line.trim_end().trim_end_matches(',') == end {
                until = None;
            }
            continue;
        }
        let key = body
            .strip_prefix('"')
            .and_then(|rest| rest.split_once("\": "));
        match key {
            Some((key, value)) if VARYING.contains(&key) => {
                let value = value.trim_end();
                let end = match value {
                    "[" => Some("]"),
                    "{" => Some("}"),
                    _ => None,
                };
                until = end.map(|end| format!("{indent}{end}"));
                let _ = writeln!(out, "{indent}\"{key}\": ...");
            }
            _ => out += line,
        }
    }
    out
}

/// Without dates and times of day.
fn moments(text: &str) -> String {
    let mut out = String::new();
    let is = |c: char| c.is_ascii_digit() || "-:.T+Z".contains(c);
    let mut skip_zone = false;
    for piece in pieces(text, is) {
        let date = piece.len() >= 10
            && piece.as_bytes()[4] == b'-'
            && piece.as_bytes()[7] == b'-'
            && piece[..4].parse::<u32>().is_ok();
        let time = skip_zone && (piece.contains(':') || piece.starts_with('+'));
        if time && (piece.starts_with('+') || piece.as_bytes()[0].is_ascii_digit()) {
            // The rest of a moment that has begun.
            continue;
        }
        if date {
            out += "MOMENT";
            skip_zone = true;
            continue;
        }
        match (skip_zone, piece) {
            (true, " ") => {}
            (true, piece) => {
                out += piece.strip_prefix(" UTC").unwrap_or(piece);
                skip_zone = false;
            }
            _ => out += piece,
        }
    }
    out
}

/// Without lengths of time, sizes and shares.
fn amounts(text: &str) -> String {
    const TIMES: [&str; 10] = [
        "second", "seconds", "minute", "minutes", "hour", "hours", "years", "months", "weeks",
        "days",
    ];
    const SIZES: [&str; 8] = ["B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB"];
    let text = text
        .replace("Less than a second", "TIME")
        .replace("About a minute", "TIME")
        .replace("About an hour", "TIME");
    let mut out = String::new();
    let all = pieces(&text, |c| c.is_ascii_alphanumeric() || c == '.' || c == '%');
    let mut at = 0;
    while at < all.len() {
        let word = all[at];
        let number = word.parse::<f64>().is_ok();
        let next = (all.get(at + 1) == Some(&" "))
            .then(|| all.get(at + 2))
            .flatten();
        if number && next.is_some_and(|unit| TIMES.contains(unit)) {
            out += "TIME";
            at += 3;
        } else if number && next.is_some_and(|unit| SIZES.contains(unit)) {
            out += "SIZE";
            at += 3;
        } else {
            let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
            let unit = &word[digits.len()..];
            match digits.parse::<f64>() {
                Ok(_) if SIZES.contains(&unit) => out += "SIZE",
                Ok(_) if unit == "%" => out += "SHARE",
                Ok(_) if ["ms", "s"].contains(&unit) => out += "TIME",
                _ => out += word,
            }
            at += 1;
        }
    }
    out
}

/// A line whose columns are two blanks apart; what it begins with stays.
fn blanks(line: &str) -> String {
    let body = line.trim_start();
    let mut out = line[..line.len() - body.len()].to_owned();
    for piece in pieces(body, |c| c == ' ') {
        match piece.len() > 1 && piece.starts_with(' ') {
            true => out += "  ",
            false => out += piece,
        }
    }
    out.trim_end().to_owned()
}

fn differences(expected: &str, now: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), now.lines().collect());
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let tail = a[same..].iter().rev().zip(b[same..].iter().rev());
    let tail = tail.take_while(|(a, b)| a == b).count();
    let mut text = String::new();
    let command = a[..same].iter().rev().find(|line| line.starts_with("$ "));
    let _ = writeln!(text, "{}", command.unwrap_or(&""));
    for line in &a[same..a.len() - tail] {
        let _ = writeln!(text, "- {line}");
    }
    for line in &b[same..b.len() - tail] {
        let _ = writeln!(text, "+ {line}");
    }
    text
}
