//! `rcon wait`

use clap::Args;
use rcon_engine::WaitFor;

use super::select::{Selection, is_missing};
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome, for_each};
use crate::output;
use crate::usage::split_lists;

/// The arguments of `wait`.
#[derive(Args, Debug)]
pub struct Wait {
    /// Condition to wait on ("stopped"|"exited"|"running")
    #[arg(long)]
    condition: Vec<String>,
    /// Ignore if a container does not exist
    #[arg(long)]
    ignore: bool,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    names: Vec<String>,
}

impl Command for Wait {
    const ABOUT: &'static str = "Block on one or more containers";
    const USAGE: &'static str = "[options] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] =
        &["wait ctrID1 ctrID2", "wait --condition running ctrID"];

    fn run(self, context: &Context) -> Outcome {
        let what = condition(&split_lists(&self.condition))?;
        let engine = context.engine()?;
        let names = Selection {
            names: &self.names,
            latest: self.latest,
            nothing: "\"rcon wait\" requires a name, id, or the \"--latest\" flag",
            ..Selection::default()
        }
        .resolve(&engine)?;
        for_each(
            &names,
            |name| match engine.wait(name, what) {
                Err(error) if self.ignore && is_missing(&error) => Ok(output::println("-1")?),
                Err(error) => Err(error.into()),
                Ok(code) => Ok(output::println(&code.to_string())?),
            },
            |codes| codes[codes.len() - 1],
        )
    }
}

fn condition(words: &[String]) -> Result<WaitFor, Failure> {
    match words {
        [] => Ok(WaitFor::Stopped),
        [word] => match word.as_str() {
            "stopped" | "exited" => Ok(WaitFor::Stopped),
            "running" => Ok(WaitFor::Running),
            "configured" | "created" | "paused" | "stopping" | "unknown" | "removing"
            | "healthy" | "unhealthy" => Err(Failure::new(format!(
                "rcon cannot wait for the condition {word:?} yet"
            ))),
            _ => Err(Failure::new(format!(
                "unknown container state: {word}: invalid argument"
            ))),
        },
        _ => Err(Failure::new("rcon waits for one condition only")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions() {
        let of =
            |words: &[&str]| condition(&words.iter().map(|w| w.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&[]).unwrap(), WaitFor::Stopped);
        assert_eq!(of(&["running"]).unwrap(), WaitFor::Running);
        assert!(
            of(&["foo"])
                .unwrap_err()
                .message
                .contains("unknown container state")
        );
        assert!(of(&["healthy"]).is_err() && of(&["stopped", "running"]).is_err());
    }
}
