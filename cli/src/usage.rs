//! Command lines that are wrong, in podman's words.
//!
//! clap finds what is wrong; the messages scripts and people know are those of podman's flag parser.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::{Failure, Outcome};
use crate::{output, unsupported};

/// What becomes of a command line that clap did not accept: help and version are printed, the rest is explained.
///
/// # Errors
/// The explanation.
pub fn finish(
    error: &clap::Error,
    definition: &clap::Command,
    said: &[OsString],
    name: &str,
    help: impl FnOnce() -> String,
) -> Outcome {
    match error.kind() {
        ErrorKind::DisplayHelp => output::print(&help())?,
        ErrorKind::DisplayVersion => {
            output::println(&format!("rcon version {}", env!("CARGO_PKG_VERSION")))?
        }
        _ => return Err(explain(error, definition, said, name)),
    }
    Ok(0)
}

fn explain(
    error: &clap::Error,
    definition: &clap::Command,
    said: &[OsString],
    name: &str,
) -> Failure {
    let arg = text(error, ContextKind::InvalidArg);
    let value = text(error, ContextKind::InvalidValue);
    match error.kind() {
        ErrorKind::UnknownArgument => match arg {
            Some(flag) if flag.starts_with('-') => unknown_flag(&flag, Some(said), name),
            _ => Failure::new(format!("`{name}` takes no arguments")),
        },
        ErrorKind::InvalidValue
            if value.as_deref().is_none_or(str::is_empty) && ends_with_flag(said) =>
        {
            see(format!("flag needs an argument: {}", last_flag(said)), name)
        }
        ErrorKind::NoEquals | ErrorKind::WrongNumberOfValues => {
            see(format!("flag needs an argument: {}", last_flag(said)), name)
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = value.unwrap_or_default();
            let why = why(error, &value);
            let flag = arg.map_or(String::new(), |a| flag_names(definition, &a));
            see(
                format!("invalid argument {value:?} for {flag:?} flag: {why}"),
                name,
            )
        }
        ErrorKind::InvalidUtf8 => see("the command line has text that is not UTF-8".into(), name),
        _ => see(
            error
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .into(),
            name,
        ),
    }
}

/// Why a value was refused; what Rust's number parsers say is said as Go's say it.
fn why(error: &clap::Error, value: &str) -> String {
    match std::error::Error::source(error).map(ToString::to_string) {
        Some(why) if why.contains("digit") => format!("parsing {value:?}: invalid syntax"),
        Some(why) if why.contains("is not in") || why.contains("number too") => {
            format!("parsing {value:?}: value out of range")
        }
        Some(why) => why,
        None if value.is_empty() => "it is empty".into(),
        None => "invalid value".into(),
    }
}

/// A flag nobody knows, or one of podman's that rcon does not have. `said` is the command line after the command's name.
pub fn unknown_flag(flag: &str, said: Option<&[OsString]>, name: &str) -> Failure {
    let bare = flag.split('=').next().unwrap_or(flag);
    if unsupported::is_podmans(name, bare) {
        return Failure::new(format!("rcon does not support podman's flag {bare}"))
            .hint(format!("`{name} --help` lists the flags that it has"));
    }
    if flag.starts_with("--") {
        return see(format!("unknown flag: {bare}"), name);
    }
    let letter = flag.chars().nth(1).unwrap_or('-');
    // What is left of the cluster of letters, as in `-fq`.
    let cluster = said
        .unwrap_or_default()
        .iter()
        .map(|w| w.to_string_lossy())
        .find(|w| w.starts_with('-') && !w.starts_with("--") && w.contains(letter));
    let rest = cluster
        .and_then(|w| w.find(letter).map(|at| w[at..].to_owned()))
        .unwrap_or_else(|| letter.into());
    see(
        format!("unknown shorthand flag: '{letter}' in -{rest}"),
        name,
    )
}

fn see(message: String, name: &str) -> Failure {
    Failure::new(format!("{message}\nSee '{name} --help'"))
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    }
}

/// Whether the last word is a flag, and nothing is given to it.
fn ends_with_flag(said: &[OsString]) -> bool {
    let last = said.last().map(|word| word.as_encoded_bytes());
    last.is_some_and(|last| last.starts_with(b"-") && !last.ends_with(b"="))
}

/// The flag that stands last on the command line, as the flag parser of Go names one without its value.
fn last_flag(said: &[OsString]) -> String {
    let last = said
        .last()
        .map(|w| w.to_string_lossy().into_owned())
        .unwrap_or_default();
    match last.strip_prefix('-') {
        Some(letters) if !letters.starts_with('-') => {
            let letter = letters.chars().last().unwrap_or('-');
            format!("'{letter}' in -{letter}")
        }
        _ => last,
    }
}

/// `-t, --time` for what clap shows as `--time <uint>`.
fn flag_names(definition: &clap::Command, shown: &str) -> String {
    let long = shown
        .split([' ', '=', '['])
        .next()
        .unwrap_or(shown)
        .trim_start_matches('-');
    let arg = definition
        .get_arguments()
        .find(|a| a.get_long() == Some(long));
    match arg.and_then(clap::Arg::get_short) {
        Some(short) => format!("-{short}, --{long}"),
        None => format!("--{long}"),
    }
}

/// A truth value as Go reads it.
///
/// # Errors
/// In words, for anything else.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("parsing {text:?}: invalid syntax")),
    }
}

/// The candidates that `word` may have been meant for: those it begins, and those two letters away.
pub fn suggestions<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut near: Vec<&str> = candidates
        .filter(|c| c.starts_with(word) || distance(&word.to_lowercase(), c) <= 2)
        .collect();
    near.sort_unstable();
    near.dedup();
    near
}

/// How many letters must be put in, taken out or changed to make one word of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Refuses more or fewer arguments than a command takes.
///
/// # Errors
/// podman's message.
pub fn arity(args: &[String], least: usize, most: usize) -> Result<(), Failure> {
    let given = args.len();
    if (least..=most).contains(&given) {
        return Ok(());
    }
    Err(Failure::new(match () {
        () if least == most => format!("accepts {least} arg(s), received {given}"),
        () if most == usize::MAX => {
            format!("requires at least {least} arg(s), only received {given}")
        }
        () if least == 0 => format!("accepts at most {most} arg(s), received {given}"),
        () => format!("accepts between {least} and {most} arg(s), received {given}"),
    }))
}

/// The items of flags whose values are lists with commas; an item in double quotes may have commas of its own (RFC 4180).
pub fn split_lists(values: &[String]) -> Vec<String> {
    let mut items = Vec::new();
    for value in values {
        let mut item = String::new();
        let mut quoted = false;
        let mut letters = value.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '"' if quoted && letters.peek() == Some(&'"') => {
                    letters.next();
                    item.push('"');
                }
                '"' if quoted => quoted = false,
                '"' if item.is_empty() => quoted = true,
                ',' if !quoted => items.push(std::mem::take(&mut item)),
                _ => item.push(letter),
            }
        }
        items.push(item);
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &[&str]) -> Vec<OsString> {
        words.iter().map(Into::into).collect()
    }

    fn complaint(command: &str, words: &[&str]) -> String {
        let mut definition = crate::app::find(command).unwrap().definition(command);
        let words = said(words);
        let error = definition.try_get_matches_from_mut(&words).unwrap_err();
        explain(&error, &definition, &words, &format!("rcon {command}")).message
    }

    #[test]
    fn complaints_are_podmans() {
        for (command, words, message) in [
            (
                "run",
                &["--foo", "x"][..],
                "unknown flag: --foo\nSee 'rcon run --help'",
            ),
            (
                "run",
                &["--foo=1", "x"],
                "unknown flag: --foo\nSee 'rcon run --help'",
            ),
            (
                "run",
                &["-y", "x"],
                "unknown shorthand flag: 'y' in -y\nSee 'rcon run --help'",
            ),
            (
                "rm",
                &["-fq"],
                "unknown shorthand flag: 'q' in -q\nSee 'rcon rm --help'",
            ),
            (
                "run",
                &["--name"],
                "flag needs an argument: --name\nSee 'rcon run --help'",
            ),
            (
                "run",
                &["-p"],
                "flag needs an argument: 'p' in -p\nSee 'rcon run --help'",
            ),
            (
                "run",
                &["--cidfile", "", "x"],
                "invalid argument \"\" for \"--cidfile\" flag: it is empty\nSee 'rcon run --help'",
            ),
            (
                "run",
                &["--rm=foo", "x"],
                "invalid argument \"foo\" for \"--rm\" flag: parsing \"foo\": invalid syntax\nSee 'rcon run --help'",
            ),
        ] {
            assert_eq!(complaint(command, words), message);
        }
        assert!(
            complaint("stop", &["-t", "x", "y"])
                .starts_with("invalid argument \"x\" for \"-t, --time\" flag: ")
        );
        assert!(complaint("logs", &["--tail", "foo"]).contains("parsing \"foo\": invalid syntax"));
        assert!(
            complaint("stop", &["-t", "-1", "y"]).contains("parsing \"-1\": value out of range")
        );
        assert!(complaint("run", &["--pod", "x", "y"]).contains("--pod"));
    }

    #[test]
    fn what_follows_the_image_is_the_programs() {
        let matches = crate::app::find("run").unwrap().definition("run");
        let words = [
            "--rm", "-it", "alpine", "ls", "-t", "--rm", "--nope", "--", "-x",
        ];
        let matches = matches.try_get_matches_from(words).unwrap();
        let rest: Vec<&String> = matches.get_many::<String>("args").unwrap().collect();
        assert_eq!(rest, ["alpine", "ls", "-t", "--rm", "--nope", "--", "-x"]);
        assert!(matches.get_flag("tty") && matches.get_flag("interactive"));
    }

    #[test]
    fn flags_may_follow_arguments_elsewhere() {
        let matches = crate::app::find("rm").unwrap().definition("rm");
        let matches = matches
            .try_get_matches_from(["a", "-f", "b", "--volumes=false"])
            .unwrap();
        assert!(matches.get_flag("force") && !matches.get_flag("volumes"));
    }

    #[test]
    fn the_last_of_a_flag_counts_and_values_may_have_dashes() {
        let matches = crate::app::find("run").unwrap().definition("run");
        let matches = matches
            .try_get_matches_from(["--name", "a", "--name", "-b", "-e", "-x", "img"])
            .unwrap();
        assert_eq!(matches.get_one::<String>("name").unwrap(), "-b");
        assert_eq!(
            matches
                .get_many::<String>("env")
                .unwrap()
                .collect::<Vec<_>>(),
            ["-x"]
        );
    }

    #[test]
    fn lists_are_split() {
        let split = |v: &[&str]| split_lists(&v.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        assert_eq!(split(&["a,b", "c"]), ["a", "b", "c"]);
        assert_eq!(split(&["\"a,b\",c", "x=\"y"]), ["a,b", "c", "x=\"y"]);
        assert_eq!(split(&["\"a\"\"b\""]), ["a\"b"]);
    }

    #[test]
    fn words_that_are_near() {
        assert_eq!(suggestions("psx", ["ps", "rm", "pull"].into_iter()), ["ps"]);
        assert_eq!(
            suggestions("re", ["restart", "rm", "run"].into_iter()),
            ["restart", "rm", "run"]
        );
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn numbers_of_arguments() {
        let args = |n: usize| vec![String::new(); n];
        assert!(arity(&args(2), 1, usize::MAX).is_ok());
        for (n, least, most, message) in [
            (
                0,
                1,
                usize::MAX,
                "requires at least 1 arg(s), only received 0",
            ),
            (1, 2, 2, "accepts 2 arg(s), received 1"),
            (2, 0, 1, "accepts at most 1 arg(s), received 2"),
            (0, 1, 2, "accepts between 1 and 2 arg(s), received 0"),
        ] {
            assert_eq!(arity(&args(n), least, most).unwrap_err().message, message);
        }
    }
}
