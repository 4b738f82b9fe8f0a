//! `rcon system check`

use clap::Args;
use rcon_engine::store::CheckOptions;

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::usage::arity;

/// The arguments of `system check`.
#[derive(Args, Debug)]
pub struct SystemCheck {
    /// Remove damaged images even if containers use them (with --repair)
    #[arg(short = 'f', long)]
    force: bool,
    /// Skip time-consuming checks. The default is to include time-consuming checks
    #[arg(short = 'q', long)]
    quick: bool,
    /// Remove inconsistent images and layers, so that they can be pulled again
    #[arg(short = 'r', long)]
    repair: bool,
    args: Vec<String>,
}

impl Command for SystemCheck {
    const ABOUT: &'static str = "Perform consistency checks on image and container storage";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &["system check", "system check --repair"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 0, 0)?;
        if self.force && !self.repair {
            return Err(Failure::new("--force is only of use with --repair"));
        }
        let found = context.engine()?.check_store(CheckOptions {
            quick: self.quick,
            repair: self.repair,
            force: self.force,
        })?;
        let mut left = 0;
        for damage in &found {
            let end = match damage.repaired {
                true => " (removed)",
                false => "",
            };
            left += usize::from(!damage.repaired);
            output::println(&format!(
                "{} {}: {}{end}",
                damage.kind, damage.id, damage.why
            ))?;
        }
        if left == 0 {
            return Ok(0);
        }
        let failure = Failure::new(format!("damage detected in local storage: {left} found"));
        Err(match self.repair {
            true => failure.hint("containers use what is left: remove them, or use --force"),
            false => failure
                .hint("`rcon system check --repair` removes what is damaged; pull it again then"),
        })
    }
}
