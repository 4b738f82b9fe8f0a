//! `rcon wait`

use std::time::Duration;

use clap::Args;
use rcon_engine::{WaitFor, WaitRequest};

use super::select::{Selection, is_missing};
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome, for_each, last};
use crate::usage::split_lists;
use crate::{output, times};

/// The arguments of `wait`.
#[derive(Args, Debug)]
pub struct Wait {
    /// Condition to wait on ("stopped"|"exited"|"running"|"healthy"|"unhealthy"|…)
    #[arg(long)]
    condition: Vec<String>,
    /// Ignore if a container does not exist
    #[arg(long)]
    ignore: bool,
    /// Time interval to wait before polling for completion (default "250ms")
    #[arg(short = 'i', long)]
    interval: Option<String>,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    /// Return when the condition is true of one of the containers
    // The other name is that of the notes of podman's release.
    #[arg(long, alias = "return-on-first")]
    exit_first_match: bool,
    names: Vec<String>,
}

impl Command for Wait {
    const ABOUT: &'static str = "Block on one or more containers";
    const USAGE: &'static str = "[options] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] = &[
        "wait ctrID1 ctrID2",
        "wait --condition running ctrID",
        "wait --condition healthy ctrID",
    ];

    fn run(self, context: &Context) -> Outcome {
        let request = WaitRequest {
            conditions: conditions(&split_lists(&self.condition))?,
            interval: self.interval.as_deref().map(interval).transpose()?,
        };
        let engine = context.engine()?;
        let names = Selection {
            names: &self.names,
            latest: self.latest,
            nothing: "\"rcon wait\" requires a name, id, or the \"--latest\" flag",
            ..Selection::default()
        }
        .resolve(&engine)?;
        if self.exit_first_match {
            let code = match engine.wait_for_one(&names, &request) {
                Err(error) if self.ignore && is_missing(&error) => -1,
                code => code?,
            };
            output::println(&code.to_string())?;
            return Ok(0);
        }
        for_each(
            &names,
            |name| match engine.wait(name, &request) {
                Err(error) if self.ignore && is_missing(&error) => Ok(output::println("-1")?),
                Err(error) => Err(error.into()),
                Ok(code) => Ok(output::println(&code.to_string())?),
            },
            last,
        )
    }
}

/// A length of time; a bare number is of milliseconds.
fn interval(word: &str) -> Result<Duration, Failure> {
    let length = match word.parse::<u64>() {
        Ok(number) => Some(Duration::from_millis(number)),
        Err(_) => times::duration(word).and_then(|length| length.to_std().ok()),
    };
    length.ok_or_else(|| Failure::new(format!("time: invalid duration {word:?}")))
}

fn conditions(words: &[String]) -> Result<Vec<WaitFor>, Failure> {
    if words.is_empty() {
        return Ok(vec![WaitFor::Stopped]);
    }
    let one = |word: &String| {
        WaitFor::parse(word).ok_or_else(|| {
            Failure::new(format!("unknown container state: {word}: invalid argument"))
        })
    };
    words.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_podmans() {
        let of =
            |words: &[&str]| conditions(&words.iter().map(|w| w.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&[]).unwrap(), [WaitFor::Stopped]);
        assert_eq!(
            of(&["running", "healthy"]).unwrap(),
            [WaitFor::Running, WaitFor::Healthy]
        );
        assert!(
            of(&["foo"])
                .unwrap_err()
                .message
                .contains("unknown container state")
        );
    }

    #[test]
    fn intervals_are_lengths_of_time() {
        assert_eq!(interval("2s").unwrap(), Duration::from_secs(2));
        assert_eq!(interval("250").unwrap(), Duration::from_millis(250));
        assert!(interval("x").is_err());
    }
}
