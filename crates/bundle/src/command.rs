//! What is run: the image's entrypoint and command, and the user's.

use crate::{Error, ImageConfig, Options};

/// The command of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// All arguments, the program first.
    pub args: Vec<String>,
    /// The part without the entrypoint, which `ps` shows and `inspect` calls `Cmd`.
    pub shown: Vec<String>,
    /// The entrypoint in force.
    pub entrypoint: Vec<String>,
}

/// Combines them as podman does: the user's entrypoint replaces the image's *and* silences the image's command, the user's
/// command replaces the image's.
///
/// # Errors
/// [`Error::NoCommand`] when nothing is left to run; a NUL byte in an argument cannot be passed to a program.
pub fn command(image: &ImageConfig, options: &Options) -> Result<Command, Error> {
    let given = options.entrypoint.as_deref();
    let mut entrypoint = given.unwrap_or(&image.entrypoint).to_vec();
    if entrypoint == [""] {
        entrypoint.clear();
    }
    let shown = shown(given, options.command.clone(), image.cmd.clone());
    let args = [entrypoint.clone(), shown.clone()].concat();
    if args.is_empty() {
        return Err(Error::NoCommand);
    }
    if let Some(bad) = args.iter().find(|a| a.contains('\0')) {
        return Err(Error::value(format!(
            "invalid argument {bad:?}: it holds a NUL byte"
        )));
    }
    Ok(Command {
        args,
        shown,
        entrypoint,
    })
}

/// The part of a command without the entrypoint: what the user says, or the image, which the user's entrypoint silences.
pub fn shown(
    entrypoint: Option<&[String]>,
    command: Vec<String>,
    image: Vec<String>,
) -> Vec<String> {
    match command.is_empty() && entrypoint.is_none_or(<[String]>::is_empty) {
        true => image,
        false => command,
    }
}

/// A command as `ps` shows it in one line; cutting it to the width of a column is left to the table.
///
/// Line breaks and other control characters become blanks, so that a command can neither break the table nor speak to the
/// terminal.
pub fn display(words: &[String]) -> String {
    words
        .join(" ")
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|w| w.to_string()).collect()
    }

    fn run(
        image: (&[&str], &[&str]),
        entrypoint: Option<&[&str]>,
        given: &[&str],
    ) -> Result<(String, String), Error> {
        let image = ImageConfig {
            entrypoint: words(image.0),
            cmd: words(image.1),
            ..ImageConfig::default()
        };
        let options = Options {
            entrypoint: entrypoint.map(words),
            command: words(given),
            ..Options::default()
        };
        command(&image, &options).map(|c| (c.args.join("|"), c.shown.join("|")))
    }

    #[test]
    fn combines_as_podman_does() {
        let both: (&[&str], &[&str]) = (&["env", "X=1"], &["cat", "a b"]);
        for (image, entrypoint, given, args, shown) in [
            (both, None, &[][..], "env|X=1|cat|a b", "cat|a b"),
            (both, None, &["y"], "env|X=1|y", "y"),
            (both, Some(&[][..]), &[], "cat|a b", "cat|a b"),
            (both, Some(&[""]), &["y"], "y", "y"),
            (both, Some(&["q"]), &[], "q", ""),
            (both, Some(&["q", "r"]), &["y"], "q|r|y", "y"),
            ((&[], &["sh"]), None, &[], "sh", "sh"),
            ((&["e"], &[]), None, &[], "e", ""),
        ] {
            assert_eq!(
                run(image, entrypoint, given).unwrap(),
                (args.to_string(), shown.to_string())
            );
        }
    }

    #[test]
    fn something_must_be_run() {
        assert_eq!(run((&[], &[]), None, &[]).unwrap_err(), Error::NoCommand);
        assert_eq!(
            run((&["e"], &["c"]), Some(&[""]), &[]).unwrap_err(),
            Error::NoCommand
        );
        assert!(run((&[], &[]), None, &["a\0b"]).is_err());
    }

    #[test]
    fn shows_in_one_line() {
        assert_eq!(
            display(&words(&["sh", "-c", "a\nb\x1b[1m"])),
            "sh -c a b [1m"
        );
    }
}
