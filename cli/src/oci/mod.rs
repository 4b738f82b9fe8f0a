//! `rcon oci`: the commands of an OCI runtime on bundles, with runc's grammar, for engines that call one
//! (`podman --runtime`), and for people with a bundle.
//!
//! Global options stand before the command, as runc has them. Called by the name `rcon-oci` or
//! `rcon-runtime` (a link to the program) rcon is nothing but this.

mod create;
mod exec;
mod globals;
mod life;
mod relay;
mod show;
mod update;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;

use clap::Args;
use rcon_launch::oci::{self, Runtime};

use self::globals::Globals;
use crate::failure::{Failure, Outcome};
use crate::output;

/// A command of the runtime.
trait Command: Args {
    /// Does it.
    fn run(self, runtime: &Runtime, globals: &Globals) -> Outcome;
}

/// One row of the table of commands.
struct Entry {
    name: &'static str,
    about: &'static str,
    define: fn(clap::Command) -> clap::Command,
    run: fn(&clap::ArgMatches, &Runtime, &Globals) -> Outcome,
}

const fn entry<C: Command>(name: &'static str, about: &'static str) -> Entry {
    Entry {
        name,
        about,
        define: C::augment_args,
        run: |matches, runtime, globals| {
            C::from_arg_matches(matches)
                .map_err(|error| Failure::new(error.to_string().trim_end().to_owned()))?
                .run(runtime, globals)
        },
    }
}

const COMMANDS: &[Entry] = &[
    entry::<create::Create>("create", "Make a container of a bundle"),
    entry::<life::Start>("start", "Start the program of a container that was made"),
    entry::<show::State>("state", "Print the state of a container"),
    entry::<life::Kill>("kill", "Send a signal to the first process of a container"),
    entry::<life::Delete>("delete", "Delete a container"),
    entry::<create::Run>("run", "Make a container and run its program"),
    entry::<exec::Exec>("exec", "Run another program in a container"),
    entry::<show::Ps>("ps", "Print the processes of a container"),
    entry::<show::List>("list", "List containers"),
    entry::<update::Pause>("pause", "Stop all processes of a container where they are"),
    entry::<update::Resume>("resume", "Let the processes of a paused container go on"),
    entry::<update::Update>("update", "Change the limits of a container"),
    entry::<show::Features>("features", "Print what this runtime can do"),
    entry::<show::Spec>("spec", "Write a specification to begin with"),
];

/// What runc has and rcon does not.
const MISSING: [&str; 3] = ["checkpoint", "restore", "events"];

/// Whether a program of this name is the runtime alone.
pub fn is_name(program: &OsString) -> bool {
    let name = Path::new(program)
        .file_name()
        .and_then(|name| name.to_str());
    matches!(name, Some("rcon-oci" | "rcon-runtime"))
}

/// The code of an `exec` that fails, which no program has that it could be mistaken for.
const EXEC_FAILED: u8 = 255;

/// Runs a command line, without the words that lead here. Every failure has the code 1, of `exec` 255, as runc
/// has them, but for the code of a program.
///
/// # Errors
/// Whatever goes wrong, ready to be printed.
pub fn run(words: &[OsString]) -> Outcome {
    let code = |failure: Failure| match failure.code {
        crate::failure::GENERAL => failure.code(1),
        _ => failure,
    };
    let (globals, rest) = Globals::take(words).map_err(code)?;
    let code = |failure: Failure| match rest.first() {
        Some(word) if word == "exec" && failure.code == crate::failure::GENERAL => {
            failure.code(EXEC_FAILED)
        }
        _ => code(failure),
    };
    let result = dispatch(&globals, rest);
    globals.log_trace();
    if let Err(failure) = &result {
        globals.log_failure(failure);
    }
    result.map_err(code)
}

/// So many of the descriptors, from 3 on, that this process was started with.
fn inherited(count: u32) -> Result<Vec<OwnedFd>, Failure> {
    rcon_sys::descriptors::inherited_fds(3, count).map_err(|error| {
        let why = rcon_sys::errors::in_words(&error);
        Failure::new(format!(
            "cannot pass on {count} descriptors (--preserve-fds): {why}"
        ))
    })
}

fn dispatch(globals: &Globals, rest: &[OsString]) -> Outcome {
    let Some((first, rest)) = rest.split_first() else {
        output::print(&help())?;
        return Ok(0);
    };
    let name = first.to_string_lossy();
    if name == "help" {
        output::print(&help())?;
        return Ok(0);
    }
    let Some(entry) = COMMANDS.iter().find(|entry| entry.name == name) else {
        if MISSING.contains(&name.as_ref()) {
            return Err(Failure::new(format!(
                "rcon oci does not have the command `{name}`"
            )));
        }
        return Err(Failure::new(format!("no such command: {name}"))
            .hint("`rcon oci --help` lists the commands"));
    };
    let definition = clap::Command::new("rcon")
        .bin_name(format!("rcon oci {name}"))
        .about(entry.about)
        .no_binary_name(true)
        .args_override_self(true)
        .disable_version_flag(true);
    match (entry.define)(definition).try_get_matches_from(rest) {
        Ok(matches) => (entry.run)(&matches, &globals.runtime()?, globals),
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            output::print(&error.to_string())?;
            Ok(0)
        }
        Err(error) => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
            Err(Failure::new(text))
        }
    }
}

/// What the commands of the runtime are, for whoever lists commands.
pub const ABOUT: &str = "Be an OCI runtime: make and run containers of bundles";

/// The options before the command, and what they are about.
pub const GLOBALS: [(&str, &str); 7] = [
    ("--root", "Where the state of containers is kept"),
    ("--log", "Where failures are written down too"),
    ("--log-format", "How: \"text\" or \"json\""),
    ("--debug", "Say more"),
    ("--systemd-cgroup", "Have systemd make the cgroups"),
    ("--help", "Print this help"),
    ("--version", "Print the version"),
];

/// The commands of the runtime and what they do.
pub fn commands() -> impl Iterator<Item = (&'static str, &'static str)> {
    COMMANDS.iter().map(|entry| (entry.name, entry.about))
}

/// The definition of a command of the runtime.
pub fn definition(name: &str) -> Option<clap::Command> {
    let entry = COMMANDS.iter().find(|entry| entry.name == name)?;
    Some((entry.define)(clap::Command::new("rcon")))
}

/// `rcon oci --help`
pub fn help() -> String {
    let mut text =
        "Make and run containers of OCI bundles, with the commands of runc\n\nUsage:\n  \
        rcon oci [options] COMMAND [options] CONTAINER\n\nCommands:\n"
            .to_owned();
    for entry in COMMANDS {
        text += &format!("  {:<10}{}\n", entry.name, entry.about);
    }
    text + "\nOptions:\n\
        \x20 --root DIR           Where the state of containers is kept\n\
        \x20 --log FILE           Where failures are written down too\n\
        \x20 --log-format FORMAT  How: \"text\" or \"json\"\n\
        \x20 --debug              Say more\n\
        \x20 --systemd-cgroup     Have systemd make the cgroups\n\
        \x20 -h, --help           Print this help\n\
        \x20 -v, --version        Print the version\n"
}

fn version() -> String {
    format!(
        "rcon-oci version {}\nspec: {}\n",
        env!("CARGO_PKG_VERSION"),
        oci::SPEC_VERSION
    )
}

impl From<oci::Error> for Failure {
    fn from(error: oci::Error) -> Failure {
        let failure = Failure::new(&error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Hooks that failed when it was too late to give up.
fn warn(failures: &[String]) {
    for failure in failures {
        output::error_line("Warning:", failure);
    }
}
