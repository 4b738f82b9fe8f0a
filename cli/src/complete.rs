//! What a shell offers next: commands, flags, and the names of what there is.
//!
//! The scripts that `rcon completion` prints call `rcon __complete WORDS…`, the last word being the one that is typed. The
//! answer is a candidate a line, with a tab before what it is about; a line `:files` lets the shell offer files too. All of
//! it comes from the table of commands: there is no other list to keep.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Arg;
use rcon_engine::{Engine, ListRequest, Paths, Status};

use crate::app::{self, Entry, NOUNS};
use crate::commands::COMMANDS;
use crate::failure::Outcome;
use crate::output;

/// Commands that make containers: what follows the image belongs to the program.
const RUNNERS: [&str; 4] = ["run", "create", "container run", "container create"];

/// Answers a shell. Nothing that goes wrong is worth a word in the middle of a command line.
///
/// # Errors
/// When nobody reads the answer.
pub fn run(words: &[OsString]) -> Outcome {
    let words: Vec<String> = words
        .iter()
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    let (typed, before) = match words.split_last() {
        Some((typed, before)) => (typed.as_str(), before),
        None => ("", &[][..]),
    };
    let mut text = String::new();
    for (candidate, about) in candidates(typed, before) {
        text += &match about.is_empty() {
            true => format!("{candidate}\n"),
            false => format!("{candidate}\t{about}\n"),
        };
    }
    output::print(&text)?;
    Ok(0)
}

type Candidates = Vec<(String, String)>;

fn candidates(typed: &str, before: &[String]) -> Candidates {
    let root = app::root_definition();
    let globals: Vec<&Arg> = root.get_arguments().collect();
    let mut places = Places::default();
    // What stands before the command.
    let mut rest = before;
    while let Some((word, after)) = rest.split_first() {
        if !word.starts_with('-') {
            break;
        }
        rest = after;
        if let Some((flag, said)) = word.strip_prefix("--").and_then(|w| w.split_once('=')) {
            places.note(flag, said);
        } else if let Some(value) = value_of(&globals, word) {
            match rest.split_first() {
                Some((said, after)) => {
                    places.note(value, said);
                    rest = after;
                }
                None => return files(),
            }
        }
    }
    let Some((first, after)) = rest.split_first() else {
        return match typed.starts_with('-') {
            true => flags(&globals, typed),
            false => commands(typed),
        };
    };
    if first == "oci" {
        return runtime(typed, after);
    }
    let (name, after) = match NOUNS.iter().any(|(noun, _)| noun == first) {
        false => (first.clone(), after),
        true => match after.split_first() {
            Some((second, after)) => (format!("{first} {second}"), after),
            None => return below(first, typed),
        },
    };
    let Some(entry) = app::find(&name) else {
        return Vec::new();
    };
    arguments(entry, &name, typed, after, &places)
}

/// Where things are, if something else was said.
#[derive(Default)]
struct Places {
    root: Option<PathBuf>,
    runroot: Option<PathBuf>,
}

impl Places {
    fn note(&mut self, flag: &str, said: &str) {
        match flag {
            "root" => self.root = Some(said.into()),
            "runroot" => self.runroot = Some(said.into()),
            _ => {}
        }
    }

    fn engine(&self) -> Option<Engine> {
        let paths = Paths::detect(self.root.as_deref(), self.runroot.as_deref()).ok()?;
        // Looking must not make anything.
        paths.root.is_dir().then(|| Engine::open(paths).ok())?
    }
}

fn keep(all: impl IntoIterator<Item = (String, String)>, typed: &str) -> Candidates {
    let mut kept: Candidates = all
        .into_iter()
        .filter(|(candidate, _)| candidate.starts_with(typed))
        .collect();
    kept.sort();
    kept.dedup();
    kept
}

fn words(all: &[&str], typed: &str) -> Candidates {
    keep(all.iter().map(|w| ((*w).to_owned(), String::new())), typed)
}

fn files() -> Candidates {
    vec![(":files".into(), String::new())]
}

/// The commands, and the nouns.
fn commands(typed: &str) -> Candidates {
    let own = COMMANDS
        .iter()
        .filter(|e| !e.names[0].contains(' '))
        .map(|e| (e.names[0].to_owned(), e.about.to_owned()));
    let nouns = NOUNS
        .iter()
        .map(|(n, about)| ((*n).into(), (*about).into()));
    let oci = [("oci".to_owned(), crate::oci::ABOUT.to_owned())];
    keep(own.chain(nouns).chain(oci), typed)
}

/// What `rcon oci` takes: its options, its commands, and theirs.
fn runtime(typed: &str, said: &[String]) -> Candidates {
    let pairs = |all: &mut dyn Iterator<Item = (&'static str, &'static str)>| {
        let all: Candidates = all
            .map(|(word, about)| (word.into(), about.into()))
            .collect();
        keep(all, typed)
    };
    let mut rest = said;
    while let Some((word, after)) = rest.split_first() {
        if !word.starts_with('-') {
            let definition = crate::oci::definition(word);
            let known: Vec<&Arg> = definition.iter().flat_map(|d| d.get_arguments()).collect();
            let wants = after.last().and_then(|last| value_of(&known, last));
            return match typed.starts_with('-') && wants.is_none() {
                true => flags(&known, typed),
                false => files(),
            };
        }
        rest = after;
        if ["--root", "--log", "--log-format"].contains(&word.as_str()) {
            match rest.split_first() {
                Some((_, after)) => rest = after,
                None => return files(),
            }
        }
    }
    match typed.starts_with('-') {
        true => pairs(&mut crate::oci::GLOBALS.into_iter()),
        false => pairs(&mut crate::oci::commands()),
    }
}

/// The commands of a noun.
fn below(noun: &str, typed: &str) -> Candidates {
    let prefix = format!("{noun} ");
    let all = COMMANDS.iter().flat_map(|entry| {
        let names = entry.names.iter();
        names.filter_map(|name| Some((name.strip_prefix(&prefix)?.to_owned(), entry.about.into())))
    });
    keep(all, typed)
}

/// The name of the flag that wants a value and got none in this word.
fn value_of<'a>(flags: &[&'a Arg], word: &str) -> Option<&'a str> {
    let takes = |arg: &&&'a Arg| arg.get_action().takes_values() && !arg.is_require_equals_set();
    let arg = match word.strip_prefix("--") {
        Some(long) => flags.iter().find(|a| a.get_long() == Some(long)),
        None => {
            // Only the last of a cluster of letters can want one.
            let letter = word.strip_prefix('-')?.chars().next_back()?;
            flags.iter().find(|a| a.get_short() == Some(letter))
        }
    };
    arg.filter(takes).and_then(|arg| arg.get_long())
}

fn flags(flags: &[&Arg], typed: &str) -> Candidates {
    let all = flags
        .iter()
        .filter(|arg| !arg.is_positional() && !arg.is_hide_set())
        .filter_map(|arg| {
            let about = arg.get_help().map(ToString::to_string);
            Some((format!("--{}", arg.get_long()?), about.unwrap_or_default()))
        });
    keep(all, typed)
}

fn arguments(
    entry: &Entry,
    name: &str,
    typed: &str,
    said: &[String],
    places: &Places,
) -> Candidates {
    let definition = entry.definition(name);
    let known: Vec<&Arg> = definition.get_arguments().collect();
    let mut positional = 0;
    let mut rest = said;
    while let Some((word, after)) = rest.split_first() {
        rest = after;
        let ended = positional > 0 && (RUNNERS.contains(&name) || is_exec(name));
        if ended || !word.starts_with('-') || word == "-" {
            positional += 1;
        } else if let Some(flag) = value_of(&known, word) {
            match rest.split_first() {
                Some((_, after)) => rest = after,
                None => return value(flag, typed, places),
            }
        }
    }
    if positional > 0 && (RUNNERS.contains(&name) || is_exec(name)) {
        return files();
    }
    if typed.starts_with('-') {
        if let Some((flag, value_typed)) = typed.split_once('=') {
            let found = flag.strip_prefix("--").unwrap_or_default();
            let all = value(found, value_typed, places);
            return all
                .into_iter()
                .map(|(word, about)| match word.starts_with(':') {
                    true => (word, about),
                    false => (format!("{flag}={word}"), about),
                })
                .collect();
        }
        return flags(&known, typed);
    }
    objects(entry, name, typed, positional, places)
}

fn is_exec(name: &str) -> bool {
    name.rsplit(' ').next() == Some("exec")
}

/// Values of a flag.
fn value(flag: &str, typed: &str, places: &Places) -> Candidates {
    match flag {
        "network" => words(&["host", "none", "slirp4netns"], typed),
        "pull" | "policy" => words(&["always", "missing", "never", "newer"], typed),
        "restart" => words(&["always", "no", "on-failure", "unless-stopped"], typed),
        "log-level" => words(
            &["debug", "error", "fatal", "info", "panic", "trace", "warn"],
            typed,
        ),
        "signal" | "stop-signal" => words(
            &[
                "HUP", "INT", "KILL", "QUIT", "STOP", "TERM", "USR1", "USR2", "WINCH",
            ],
            typed,
        ),
        "attach" => words(&["stderr", "stdin", "stdout"], typed),
        "format" => words(&["json"], typed),
        "image-volume" => words(&["anonymous", "ignore", "tmpfs"], typed),
        "secret" => secrets(typed, places),
        "volumes-from" => containers(typed, places, |_| true),
        "volume" => {
            let mut all = volumes(typed, places);
            all.extend(files());
            all
        }
        _ => files(),
    }
}

/// What the argument at that place can be, by the command's usage.
fn objects(entry: &Entry, name: &str, typed: &str, place: usize, places: &Places) -> Candidates {
    let verb = name.rsplit(' ').next().unwrap_or(name);
    if verb == "cp" {
        let names = containers(typed, places, |_| true);
        let mut all: Candidates = names
            .into_iter()
            .map(|(name, about)| (name + ":", about))
            .collect();
        all.extend(files());
        return all;
    }
    let many = entry.usage.contains("...]");
    let has = |word: &str| entry.usage.contains(word) && (place == 0 || many);
    if verb == "inspect" && !name.contains(' ') {
        let mut all = containers(typed, places, |_| true);
        all.extend(images(typed, places));
        return all;
    }
    match () {
        () if has("CONTAINER") => containers(typed, places, |status| match verb {
            "start" => !status.is_alive(),
            "init" => !status.has_process(),
            "stop" => status.has_process(),
            "kill" | "exec" | "attach" | "top" | "pause" | "stats" | "port" => status.is_alive(),
            _ => true,
        }),
        () if has("VOLUME") => volumes(typed, places),
        () if has("SECRET") => secrets(typed, places),
        () if has("IMAGE") && verb != "pull" => images(typed, places),
        () if verb == "completion" => words(&["bash", "fish", "zsh"], typed),
        () => files(),
    }
}

fn containers(typed: &str, places: &Places, wanted: impl Fn(Status) -> bool) -> Candidates {
    let Some(engine) = places.engine() else {
        return Vec::new();
    };
    let all = engine.list(&ListRequest {
        all: true,
        ..ListRequest::default()
    });
    let all = all.unwrap_or_default().into_iter();
    let found = all.filter(|c| wanted(c.state.status)).map(|c| {
        // An id only when it is what is typed.
        let by_id = !typed.is_empty() && c.config.id.starts_with(typed);
        let name = match by_id && !c.config.name.starts_with(typed) {
            true => c.config.short_id().to_owned(),
            false => c.config.name,
        };
        (name, c.config.image_name)
    });
    keep(found, typed)
}

fn images(typed: &str, places: &Places) -> Candidates {
    let Some(engine) = places.engine() else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for image in engine.images().unwrap_or_default() {
        let id = image.id.get(..12).unwrap_or_default().to_owned();
        for name in image.names {
            // As it is typed: docker.io/library/alpine:latest is alpine.
            let short = ["docker.io/library/", "docker.io/", "localhost/"]
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix));
            all.extend(short.map(|short| (short.to_owned(), id.clone())));
            all.push((name, id.clone()));
        }
        if !typed.is_empty() && image.id.starts_with(typed) {
            all.push((id, String::new()));
        }
    }
    keep(all, typed)
}

fn volumes(typed: &str, places: &Places) -> Candidates {
    let engine = places.engine();
    let all = engine.and_then(|engine| engine.volumes().ok());
    let all = all.unwrap_or_default().into_iter();
    keep(all.map(|v| (v.name, String::new())), typed)
}

fn secrets(typed: &str, places: &Places) -> Candidates {
    let engine = places.engine();
    let all = engine.and_then(|engine| engine.secrets().ok());
    let all = all.unwrap_or_default().into_iter();
    keep(all.map(|s| (s.name, String::new())), typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(typed: &str, before: &[&str]) -> Vec<String> {
        let mut all = vec!["--root", "/nonexistent"];
        all.extend(before);
        let before: Vec<String> = all.into_iter().map(String::from).collect();
        let all = candidates(typed, &before).into_iter();
        all.map(|(word, _)| word).collect()
    }

    #[test]
    fn commands_and_flags() {
        assert_eq!(offered("imp", &[]), ["import"]);
        assert_eq!(offered("oc", &[]), ["oci"]);
        assert_eq!(offered("sta", &["oci"]), ["start", "state"]);
        assert_eq!(
            offered("--sys", &["oci", "--root", "/x"]),
            ["--systemd-cgroup"]
        );
        assert_eq!(offered("--bun", &["oci", "create"]), ["--bundle"]);
        assert_eq!(offered("x", &["oci", "run", "--bundle"]), [":files"]);
        assert!(offered("", &[]).contains(&"container".to_string()));
        assert_eq!(offered("exis", &["volume"]), ["exists"]);
        assert_eq!(offered("--log-l", &[]), ["--log-level"]);
        assert_eq!(offered("--pub", &["run"]), ["--publish", "--publish-all"]);
        assert_eq!(offered("h", &["run", "--network"]), ["host"]);
        assert_eq!(offered("--network=n", &["run"]), ["--network=none"]);
        assert_eq!(offered("K", &["kill", "-s"]), ["KILL"]);
        // What follows the image is the program's.
        assert_eq!(offered("--pub", &["run", "-it", "alpine"]), [":files"]);
        assert_eq!(offered("--", &["exec", "-e", "A=1", "c"]), [":files"]);
        assert_eq!(offered("x", &["nosuch"]), Vec::<String>::new());
        assert_eq!(offered("z", &["completion"]), ["zsh"]);
    }
}
