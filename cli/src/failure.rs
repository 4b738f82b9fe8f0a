//! How a command fails: one line on standard error, perhaps a remedy, and the exit code.
//!
//! Exit codes are podman's: 125 for what is our fault or the command line's, 126 and 127 for a program that cannot be run
//! or found in the container, the container's own code otherwise; 141 without a word where the reader of our output went away
//! (`rcon logs -f c | head -1`), which is what it is for programs that SIGPIPE ends.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use rcon_engine::Error;
use rcon_sys::errors::in_words;

use crate::output;

/// The exit code for what went wrong before there was a container.
pub const GENERAL: u8 = 125;

/// The exit code when nobody reads our output any more, as a shell says of a program that SIGPIPE ended.
pub const GONE_READER: u8 = Error::GONE_READER as u8;

/// The exit code after ctrl-c.
pub const INTERRUPTED: u8 = 130;

/// What a command ends with: its exit code, or why it failed.
pub type Outcome = Result<u8, Failure>;

/// A failure on its way to the user.
#[derive(Debug)]
pub struct Failure {
    /// What is printed after `Error: `; empty when all has been said.
    pub message: String,
    /// What is printed after `hint: `.
    pub hint: Option<String>,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    /// A failure with exit code 125.
    pub fn new(message: impl Display) -> Failure {
        Failure {
            message: message.to_string(),
            hint: None,
            code: GENERAL,
        }
    }

    /// The same failure with another exit code.
    pub fn code(self, code: u8) -> Failure {
        Failure { code, ..self }
    }

    /// The same failure with a remedy.
    pub fn hint(self, hint: impl Display) -> Failure {
        Failure {
            hint: Some(hint.to_string()),
            ..self
        }
    }

    /// Ends the command with this code and no word.
    pub fn silent(code: u8) -> Failure {
        Failure {
            message: String::new(),
            hint: None,
            code,
        }
    }

    /// Prints it.
    pub fn report(&self) {
        if self.code == INTERRUPTED && io::stderr().is_terminal() {
            // Below the keys that did it, which the terminal shows.
            let _ = io::stderr().write_all(b"\n");
        }
        if !self.message.is_empty() {
            output::error_line("Error:", &self.message);
        }
        if let Some(hint) = &self.hint {
            output::error_line("hint:", hint);
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let code = u8::try_from(error.exit_code()).unwrap_or(GENERAL);
        if code == GONE_READER {
            return Failure::silent(code);
        }
        Failure {
            message: error.to_string(),
            hint: error.hint(),
            code,
        }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::new(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Failure {
        Failure::new(message)
    }
}

/// For what is written to standard output: a reader that went away ends the command quietly.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(GONE_READER),
            _ => Failure::new(format!("cannot write the output: {}", in_words(&error))),
        }
    }
}

/// Does `act` for each of `items`, printing each failure as it comes; the command fails with the code that `worst` makes
/// of all their codes. After ctrl-c, or when nobody reads the output any more, no further one is begun.
pub fn for_each<T>(
    items: impl IntoIterator<Item = T>,
    mut act: impl FnMut(T) -> Result<(), Failure>,
    worst: impl Fn(&[u8]) -> u8,
) -> Outcome {
    let mut codes = Vec::new();
    for item in items {
        if let Err(failure) = act(item) {
            if failure.message.is_empty() || failure.code == INTERRUPTED {
                return Err(failure);
            }
            failure.report();
            codes.push(failure.code);
        }
    }
    match codes.is_empty() {
        true => Ok(0),
        false => Ok(worst(&codes)),
    }
}

/// The code of the failure that came last.
pub fn last(codes: &[u8]) -> u8 {
    codes.last().copied().unwrap_or_default()
}

/// The code of the gravest failure: 125, then 2 for what is in use, then 1 for what is not there.
pub fn gravest(codes: &[u8]) -> u8 {
    codes.iter().copied().max().unwrap_or_default()
}

/// Does `act` for each of `names`, printing those to which it was done, and each failure; the command fails with the code
/// of the last failure.
pub fn each_named(names: &[String], act: impl Fn(&str) -> Result<(), Failure>) -> Outcome {
    let act = |name: &String| {
        act(name)?;
        Ok(output::println(name)?)
    };
    for_each(names, act, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gone_reader_is_nothing_to_talk_about() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.code, failure.message.as_str()), (141, ""));
        let failure = Failure::from(Error::GoneReader);
        assert_eq!((failure.code, failure.message.as_str()), (141, ""));
        let failure = Failure::from(io::Error::from_raw_os_error(28));
        assert_eq!(
            failure.message,
            "cannot write the output: no space left on device"
        );
    }

    #[test]
    fn each_is_tried() {
        let mut seen = Vec::new();
        let outcome = for_each(
            [1, 2, 3],
            |n| {
                seen.push(n);
                if n == 2 {
                    Err(Failure::new("no").code(7))
                } else {
                    Ok(())
                }
            },
            |codes| codes[0],
        );
        assert_eq!((outcome.ok(), seen), (Some(7), vec![1, 2, 3]));
        let mut tried = 0;
        let outcome = for_each(
            [1, 2],
            |_| {
                tried += 1;
                Err(Error::Interrupted.into())
            },
            last,
        );
        assert_eq!((outcome.unwrap_err().code, tried), (INTERRUPTED, 1));
    }
}
