//! The reference of all commands: a page of Markdown, or a manual page each, of the same definitions that parse them.

use std::path::Path;

use clap::ArgAction;
use rcon_sys::errors::in_words;

use crate::app::{self, Entry, NOUNS};
use crate::commands::COMMANDS;
use crate::failure::{Failure, Outcome};
use crate::{help, output};

/// `rcon __docs reference` prints the page; `rcon __docs man FOLDER` writes the manual pages.
///
/// # Errors
/// For other words, and where files cannot be written.
pub fn run(words: &[String]) -> Outcome {
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["reference"] => output::print(&markdown())?,
        ["man", folder] => {
            std::fs::create_dir_all(folder).map_err(|e| unwritten(folder, &e))?;
            for (name, page) in manual() {
                let path = Path::new(folder).join(format!("{name}.1"));
                std::fs::write(&path, page).map_err(|e| unwritten(path.display(), &e))?;
            }
        }
        _ => {
            return Err(Failure::new(
                "say `__docs reference` or `__docs man FOLDER`",
            ));
        }
    }
    Ok(0)
}

fn unwritten(path: impl std::fmt::Display, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot write {path}: {}", in_words(error)))
}

/// All commands with their flags.
pub fn markdown() -> String {
    let mut text = String::from(
        "# The commands\n\n\
         Made of the program's own definitions by `rcon __docs reference > docs/cli.md`; a test sees that it is true.\n\n\
         ```text\n",
    );
    text += &help::root();
    text += "```\n";
    for entry in sorted() {
        let name = entry.names[0];
        text += &format!(
            "\n## rcon {name}\n\n```text\n{}```\n",
            help::command(entry, name)
        );
    }
    text + &format!("\n## rcon oci\n\n```text\n{}```\n", crate::oci::help())
}

fn sorted() -> Vec<&'static Entry> {
    let mut all: Vec<&Entry> = COMMANDS.iter().collect();
    all.sort_by_key(|entry| entry.names[0]);
    all
}

/// The manual pages by their names, in the language of man(7).
pub fn manual() -> Vec<(String, String)> {
    let mut pages = vec![("rcon".to_owned(), main_page())];
    for entry in COMMANDS {
        let name = format!("rcon-{}", entry.names[0].replace(' ', "-"));
        pages.push((name, page(entry)));
    }
    pages.push(("rcon-oci".to_owned(), runtime_page()));
    pages
}

/// Text in which nothing is a request.
fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

fn title(name: &str) -> String {
    format!(
        ".TH {} 1 \"\" \"rcon {}\" \"rcon\"\n",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION")
    )
}

fn main_page() -> String {
    let mut text = title("rcon");
    text += ".SH NAME\nrcon \\- run containers as an ordinary user\n";
    text += ".SH SYNOPSIS\n.B rcon\n[options] command\n.SH COMMANDS\n";
    for entry in sorted() {
        let page = format!("rcon-{}", entry.names[0].replace(' ', "-"));
        text += &format!(".TP\n.BR {} (1)\n{}\n", plain(&page), plain(entry.about));
    }
    text += &format!(".TP\n.BR rcon\\-oci (1)\n{}\n", plain(crate::oci::ABOUT));
    for (noun, about) in NOUNS {
        text += &format!(".TP\n.B {noun}\n{}\n", plain(about));
    }
    text + &options(&app::root_definition())
}

/// The page of the OCI runtime, all its commands in one.
fn runtime_page() -> String {
    let mut text = title("rcon-oci");
    text += &format!(
        ".SH NAME\nrcon\\-oci \\- {}\n.SH SYNOPSIS\n.B rcon oci\n[options] command [options] container\n",
        plain(crate::oci::ABOUT)
    );
    text += ".SH OPTIONS\n";
    for (flag, about) in crate::oci::GLOBALS {
        text += &format!(".TP\n\\fB{}\\fR\n{}\n", plain(flag), plain(about));
    }
    for (name, about) in crate::oci::commands() {
        text += &format!(".SH {}\n{}.\n", plain(&name.to_uppercase()), plain(about));
        text += crate::oci::definition(name)
            .map(|definition| options(&definition))
            .unwrap_or_default()
            .strip_prefix(".SH OPTIONS\n")
            .unwrap_or_default();
    }
    text + ".SH SEE ALSO\n.BR rcon (1)\n"
}

fn page(entry: &Entry) -> String {
    let name = entry.names[0];
    let mut text = title(&format!("rcon-{}", name.replace(' ', "-")));
    text += &format!(
        ".SH NAME\n{} \\- {}\n",
        plain(&format!("rcon-{}", name.replace(' ', "-"))),
        plain(entry.about)
    );
    text += ".SH SYNOPSIS\n";
    for name in entry.names {
        text += &format!(".B rcon {}\n{}\n.br\n", plain(name), plain(entry.usage));
    }
    text += &options(&entry.definition(name));
    if !entry.examples.is_empty() {
        text += ".SH EXAMPLES\n.EX\n";
        for example in entry.examples {
            text += &format!("{}\n", plain(&format!("rcon {example}")));
        }
        text += ".EE\n";
    }
    text + ".SH SEE ALSO\n.BR rcon (1)\n"
}

fn options(command: &clap::Command) -> String {
    let mut args: Vec<&clap::Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_positional() && !arg.is_hide_set())
        .collect();
    args.sort_by_key(|arg| arg.get_long().unwrap_or_default());
    let mut text = String::from(".SH OPTIONS\n");
    for arg in args {
        let short = arg.get_short().map_or(String::new(), |s| format!("-{s}, "));
        let long = arg.get_long().unwrap_or_default();
        let value = match arg.get_action() {
            ArgAction::Set | ArgAction::Append if !arg.is_require_equals_set() => " \\fIvalue\\fR",
            _ => "",
        };
        let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
        text += &format!(
            ".TP\n\\fB{}\\fR{value}\n{}\n",
            plain(&format!("{short}--{long}")),
            plain(&about)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_the_docs_is_true() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");
        if std::env::var_os("RCON_WRITE_REFERENCE").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == markdown(),
            "docs/cli.md is not what the program says; write it anew: \
             RCON_WRITE_REFERENCE=1 cargo test -p rcon --bin rcon reference"
        );
    }

    #[test]
    fn there_is_a_page_for_each_command() {
        let pages = manual();
        assert_eq!(pages.len(), COMMANDS.len() + 2);
        let (_, page) = pages.iter().find(|(name, _)| name == "rcon-stop").unwrap();
        assert!(page.contains(".B rcon stop\n"), "{page}");
        assert!(page.contains("\\fB\\-t, \\-\\-time\\fR"), "{page}");
    }
}
