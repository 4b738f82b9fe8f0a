//! Help texts, laid out as podman lays them out.

use clap::{Arg, ArgAction};

use crate::app::{self, Entry, NOUNS};
use crate::commands::COMMANDS;

/// `rcon --help`
pub fn root() -> String {
    let mut rows: Vec<(&str, &str)> = COMMANDS.iter().map(|e| (e.names[0], e.about)).collect();
    rows.retain(|(name, _)| !name.contains(' '));
    rows.extend(NOUNS);
    rows.push(("oci", crate::oci::ABOUT));
    rows.push(("help", "Help about any command"));
    let mut text =
        String::from("Run containers as an ordinary user\n\nUsage:\n  rcon [options] [command]\n");
    text += &list(rows);
    text += &options(&app::root_definition());
    text
}

/// `rcon container --help`
pub fn noun(noun: &str) -> String {
    let about = NOUNS
        .iter()
        .find(|(n, _)| *n == noun)
        .map_or("", |(_, about)| about);
    let prefix = format!("{noun} ");
    let rows = COMMANDS
        .iter()
        .filter_map(|e| {
            Some((
                e.names.iter().find_map(|n| n.strip_prefix(&prefix))?,
                e.about,
            ))
        })
        .collect();
    format!("{about}\n\nUsage:\n  rcon {noun} [command]\n{}", list(rows))
}

/// `rcon COMMAND --help`; `name` is the command as it was called.
pub fn command(entry: &Entry, name: &str) -> String {
    let mut text = format!("{}\n\nUsage:\n  rcon {name} {}\n", entry.about, entry.usage);
    let others: Vec<String> = entry
        .names
        .iter()
        .filter(|n| **n != name)
        .map(|n| format!("rcon {n}"))
        .collect();
    if !others.is_empty() {
        text += &format!("\nAliases:\n  {}\n", others.join(", "));
    }
    if !entry.examples.is_empty() {
        text += "\nExamples:\n";
        for example in entry.examples {
            text += &format!("  rcon {example}\n");
        }
    }
    text + &options(&entry.definition(name))
}

fn list(mut rows: Vec<(&str, &str)>) -> String {
    rows.sort_unstable();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let mut text = String::from("\nAvailable Commands:\n");
    for (name, about) in rows {
        text += &format!("  {name:width$} {about}\n");
    }
    text
}

fn options(command: &clap::Command) -> String {
    let mut rows: Vec<(String, String, String)> = command
        .get_arguments()
        .filter(|a| !a.is_positional() && !a.is_hide_set())
        .map(|arg| {
            let long = arg.get_long().unwrap_or_default();
            let short = arg.get_short().map_or("    ".into(), |s| format!("-{s}, "));
            let kind = kind(arg).map_or(String::new(), |k| format!(" {k}"));
            let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
            (long.to_owned(), format!("  {short}--{long}{kind}"), about)
        })
        .collect();
    rows.sort_unstable();
    let width = rows
        .iter()
        .map(|(_, left, _)| left.len())
        .max()
        .unwrap_or(0);
    let mut text = String::from("\nOptions:\n");
    for (_, left, about) in rows {
        text += format!("{left:width$}   {about}").trim_end();
        text.push('\n');
    }
    text
}

/// What kind of value a flag takes; none for a truth value.
fn kind(arg: &Arg) -> Option<String> {
    if arg.is_require_equals_set() || !arg.get_action().takes_values() {
        return None;
    }
    let name = arg
        .get_value_names()
        .and_then(|n| n.first())
        .map(ToString::to_string);
    // clap makes up a name from the flag's.
    let made_up = arg.get_id().as_str().to_uppercase().replace('-', "_");
    match name {
        Some(name) if name != made_up => Some(name),
        _ if matches!(arg.get_action(), ArgAction::Append) => Some("strings".into()),
        _ => Some("string".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_laid_out_as_podmans() {
        let text = command(app::find("rename").unwrap(), "rename");
        assert!(
            text.starts_with(
                "Rename an existing container\n\nUsage:\n  rcon rename CONTAINER NAME\n"
            ),
            "{text}"
        );
        let text = command(app::find("stop").unwrap(), "container stop");
        assert!(text.contains("\nAliases:\n  rcon stop\n"), "{text}");
        assert!(text.contains("\n  -t, --time uint"), "{text}");
        assert!(text.contains("\n  -a, --all "), "{text}");
        assert!(!text.contains("--runroot"), "{text}");
        let text = root();
        assert!(
            text.contains("\n  ps ")
                && text.contains("\n  container ")
                && text.contains("--runroot string"),
            "{text}"
        );
        assert!(
            noun("container").contains("\n  ls "),
            "{}",
            noun("container")
        );
    }
}
