//! The table of commands, and the way from a command line to the command.
//!
//! The grammar is podman's: `rcon [options] COMMAND …` and `rcon [options] NOUN COMMAND …`. The same command may have several
//! names (`ps`, `container ls`). Options of a command may stand before and after its arguments, but for the commands that
//! run something in a container: there, what follows the image or container belongs to the program.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};

use crate::commands::COMMANDS;
use crate::context::{Context, GlobalArgs};
use crate::failure::{Failure, Outcome};
use crate::{complete, early, help, output, reference, unsupported, usage};

/// A command: its arguments, as said, and what it does.
pub trait Command: Args {
    /// One line on what it does.
    const ABOUT: &'static str;
    /// What follows its name: `[options] IMAGE [COMMAND [ARG...]]`.
    const USAGE: &'static str;
    /// Command lines that show how it is used, without `rcon`.
    const EXAMPLES: &'static [&'static str];

    /// Does it.
    ///
    /// # Errors
    /// Whatever goes wrong, ready to be printed.
    fn run(self, context: &Context) -> Outcome;
}

/// One row of the table of commands.
#[derive(Debug)]
pub struct Entry {
    /// All its names, the usual one first.
    pub names: &'static [&'static str],
    /// [`Command::ABOUT`]
    pub about: &'static str,
    /// [`Command::USAGE`]
    pub usage: &'static str,
    /// [`Command::EXAMPLES`]
    pub examples: &'static [&'static str],
    define: fn(clap::Command) -> clap::Command,
    run: fn(ArgMatches, &Context) -> Outcome,
}

/// The row of a command.
pub const fn entry<C: Command>(names: &'static [&'static str]) -> Entry {
    Entry {
        names,
        about: C::ABOUT,
        usage: C::USAGE,
        examples: C::EXAMPLES,
        define: C::augment_args,
        run: |matches, context| {
            let args = C::from_arg_matches(&matches)
                .map_err(|e| Failure::new(e.to_string().trim_end().to_owned()))?;
            drop(matches);
            args.run(context)
        },
    }
}

impl Entry {
    /// The definition of its arguments, those that go with every command included but hidden.
    pub fn definition(&self, name: &str) -> clap::Command {
        let command = clap::Command::new("rcon")
            .bin_name(format!("rcon {name}"))
            .no_binary_name(true);
        // Global options are accepted after the command, but each help text need not repeat them.
        let command = GlobalArgs::augment_args(command).mut_args(|arg| arg.hide(true));
        finish((self.define)(command))
    }
}

/// What all definitions share: Go's way with flags.
fn finish(command: clap::Command) -> clap::Command {
    let short_help = !command.get_arguments().any(|a| a.get_short() == Some('h'));
    let help = Arg::new("help")
        .long("help")
        .action(ArgAction::Help)
        .help("Print this help");
    command
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true)
        .arg(if short_help { help.short('h') } else { help })
        .mut_args(|arg| match arg.get_action() {
            // `--rm`, `--rm=true`, `--rm=false`.
            ArgAction::SetTrue => arg
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .default_value("false")
                .value_parser(usage::parse_bool),
            // The value is whatever comes next, even if it begins with a dash.
            ArgAction::Set | ArgAction::Append
                if !arg.is_positional() && !arg.is_require_equals_set() =>
            {
                arg.allow_hyphen_values(true)
            }
            _ => arg,
        })
}

/// The definition of what stands before the command.
pub fn root_definition() -> clap::Command {
    let command = clap::Command::new("rcon")
        .about("Run containers as an ordinary user")
        .version(env!("CARGO_PKG_VERSION"))
        .no_binary_name(true)
        .allow_external_subcommands(true)
        .disable_help_subcommand(true)
        .arg(
            Arg::new("version")
                .long("version")
                .short('v')
                .action(ArgAction::Version)
                .help("Print the version"),
        );
    finish(GlobalArgs::augment_args(command))
}

/// The nouns that commands hang on, and what they are about.
pub const NOUNS: [(&str, &str); 7] = [
    ("container", "Manage containers"),
    ("healthcheck", "Manage health checks on containers"),
    ("image", "Manage images"),
    ("network", "Manage networks"),
    ("secret", "Manage secrets"),
    ("system", "Manage rcon"),
    ("volume", "Manage volumes"),
];

/// Runs a command line, the program's name first.
///
/// # Errors
/// Whatever goes wrong, ready to be printed.
pub fn run(argv: Vec<OsString>) -> Outcome {
    if argv.first().is_some_and(crate::oci::is_name) {
        return crate::oci::run(&argv[1..]);
    }
    let said = argv.get(1..).unwrap_or_default();
    let early = early::begin(said);
    let mut root = root_definition();
    let matches = match root.try_get_matches_from_mut(said) {
        Ok(matches) => matches,
        Err(error) => return usage::finish(&error, &root, said, "rcon", help::root),
    };
    let globals =
        GlobalArgs::from_arg_matches(&matches).map_err(|e| Failure::new(e.to_string()))?;
    let Some((first, rest)) = matches.subcommand() else {
        output::print(&help::root())?;
        return Err(Failure::new("missing command 'rcon COMMAND'"));
    };
    let mut rest: Vec<OsString> = rest
        .get_many::<OsString>("")
        .unwrap_or_default()
        .cloned()
        .collect();
    let mut name = first.to_owned();
    match name.as_str() {
        "help" => return help_command(&rest),
        // For the shells' scripts and for who makes the documentation.
        "__complete" => return complete::run(&rest),
        "__docs" => {
            let words = rest.iter().map(|w| w.to_string_lossy().into_owned());
            return reference::run(&words.collect::<Vec<_>>());
        }
        _ => {}
    }
    // It has a grammar of its own.
    if name == "oci" {
        return crate::oci::run(&rest);
    }
    if let Some((noun, _)) = NOUNS.iter().find(|(noun, _)| *noun == name) {
        match rest.first().map(|w| w.to_string_lossy().into_owned()) {
            Some(word) if word == "--help" || word == "-h" => {
                output::print(&help::noun(noun))?;
                return Ok(0);
            }
            Some(word) if word.starts_with('-') => {
                return Err(usage::unknown_flag(&word, None, &format!("rcon {noun}")));
            }
            Some(word) => {
                rest.remove(0);
                name = format!("{noun} {word}");
            }
            None => {
                output::print(&help::noun(noun))?;
                return Err(Failure::new(format!(
                    "missing command 'rcon {noun} COMMAND'"
                )));
            }
        }
    }
    let entry = find(&name).ok_or_else(|| unknown_command(&name))?;
    let mut definition = entry.definition(&name);
    let full_name = format!("rcon {name}");
    match definition.try_get_matches_from_mut(&rest) {
        Ok(matches) => {
            let after =
                GlobalArgs::from_arg_matches(&matches).map_err(|e| Failure::new(e.to_string()))?;
            let context = Context::new(globals.overlaid(after), argv, full_name)?.with_early(early);
            // A monitor is a copy of this process and lives long: what only reading the words needed goes first.
            drop((definition, root, rest));
            (entry.run)(matches, &context)
        }
        Err(error) => usage::finish(&error, &definition, &rest, &full_name, || {
            help::command(entry, &name)
        }),
    }
}

/// The command of that name (`ps`, `container ls`).
pub fn find(name: &str) -> Option<&'static Entry> {
    COMMANDS.iter().find(|entry| entry.names.contains(&name))
}

fn help_command(words: &[OsString]) -> Outcome {
    let name = words
        .iter()
        .map(|w| w.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    let text = match find(&name) {
        Some(entry) => help::command(entry, &name),
        None if NOUNS.iter().any(|(noun, _)| *noun == name) => help::noun(&name),
        None if name == "oci" => crate::oci::help(),
        None if name.is_empty() => help::root(),
        None => return Err(unknown_command(&name)),
    };
    output::print(&text)?;
    Ok(0)
}

fn unknown_command(name: &str) -> Failure {
    if unsupported::COMMANDS.contains(&name) {
        return Failure::new(format!("rcon does not have podman's command `{name}`"))
            .hint(unsupported::instead(name));
    }
    let (prefix, word) = match name.split_once(' ') {
        Some((noun, word)) => (format!("{noun} "), word),
        None => (String::new(), name),
    };
    let mut message = format!("unrecognized command `rcon {name}`\n");
    let near = usage::suggestions(
        word,
        COMMANDS
            .iter()
            .flat_map(|e| e.names)
            .filter_map(|n| n.strip_prefix(&prefix))
            .filter(|n| !n.contains(' ')),
    );
    if !near.is_empty() {
        message += &format!("\nDid you mean this?\n\t{}\n\n", near.join("\n\t"));
    }
    let after = prefix.trim_end();
    let space = if after.is_empty() { "" } else { " " };
    Failure::new(message + &format!("Try 'rcon{space}{after} --help' for more information"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_consistent_and_has_a_help_text() {
        root_definition().debug_assert();
        for entry in COMMANDS {
            for name in entry.names {
                entry.definition(name).debug_assert();
                let text = help::command(entry, name);
                assert!(text.contains(&format!("rcon {name}")), "{text}");
            }
        }
    }

    #[test]
    fn no_name_means_two_things() {
        let mut names: Vec<_> = COMMANDS.iter().flat_map(|e| e.names).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn unknown_commands_are_explained() {
        let failure = unknown_command("psx");
        assert!(
            failure
                .message
                .starts_with("unrecognized command `rcon psx`\n\nDid you mean this?\n\tps"),
            "{failure:?}"
        );
        assert!(
            failure
                .message
                .ends_with("\nTry 'rcon --help' for more information")
        );
        assert!(
            unknown_command("container foo")
                .message
                .ends_with("Try 'rcon container --help' for more information")
        );
        assert!(unknown_command("build").hint.unwrap().contains("buildah"));
    }
}
