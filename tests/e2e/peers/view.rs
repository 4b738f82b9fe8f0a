//! What programs in containers say, without what is another each time or for each runtime.

use std::fs;
use std::path::Path;

/// The lines of a program's output: namespaces as the host's or new ones, mounts by their places, cgroups without the name
/// that a runtime gives them.
pub fn normal(text: &str, bundle: &Path, id: &str) -> Vec<String> {
    let ours = format!("rcon-{id}");
    let (mut mounts, mut lines) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let line = line.replace(bundle.to_str().unwrap(), "BUNDLE");
        let line = line.replace(&ours, "ID").replace(id, "ID");
        if let Some(rest) = line.strip_prefix("mount ") {
            mounts.push(mount(rest));
        } else if let Some(levels) = line.strip_prefix("NSpid:") {
            lines.push(format!(
                "NSpid: {} levels",
                levels.split_whitespace().count()
            ));
        } else {
            lines.push(namespace(&line).unwrap_or(line));
        }
    }
    mounts.sort();
    lines.extend(mounts);
    lines
}

/// `net:[4026531840]`: whether that is the suite's own.
fn namespace(line: &str) -> Option<String> {
    let (kind, rest) = line.split_once(":[")?;
    rest.strip_suffix(']')?.parse::<u64>().ok()?;
    let own = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
    let whose = match own.to_str() == Some(line) {
        true => "the host's",
        false => "another",
    };
    Some(format!("namespace {kind}: {whose}"))
}

/// A line of mountinfo (proc_pid_mountinfo(5)): the place, what is mounted there and how.
fn mount(line: &str) -> String {
    let fields: Vec<&str> = line.split(' ').collect();
    let dash = fields.iter().position(|field| *field == "-").unwrap();
    let sorted = |words: &str, keep: fn(&str) -> bool| {
        let mut words: Vec<&str> = words.split(',').filter(|word| keep(word)).collect();
        words.sort_unstable();
        words.join(",")
    };
    let options = sorted(fields[5], |_| true);
    let shared = fields[6..dash].iter();
    let shared: Vec<&str> = shared
        .map(|field| field.split(':').next().unwrap())
        .collect();
    let kind = fields[dash + 1];
    let more = match kind {
        "tmpfs" | "devpts" | "mqueue" => sorted(fields[dash + 3], |word| {
            let kept = ["size=", "mode=", "ptmxmode="];
            kept.iter().any(|start| word.starts_with(start))
        }),
        _ => String::new(),
    };
    let root = fields[3];
    format!(
        "mount {} of {kind} {root}: {options} [{more}] {}",
        fields[4],
        shared.join(" ")
    )
}

/// Lines that only one of both has, in their order: `- ` theirs, `+ ` ours.
pub fn differences(ours: &[String], theirs: &[String]) -> Vec<String> {
    let mut left: Vec<&String> = ours.iter().collect();
    let mut found = Vec::new();
    for line in theirs {
        match left.iter().position(|one| *one == line) {
            Some(at) => drop(left.remove(at)),
            None => found.push(format!("- {line}")),
        }
    }
    found.extend(left.into_iter().map(|line| format!("+ {line}")));
    found
}
