//! `rcon load`

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use rcon_engine::image::Source;

use super::progress::Reporter;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;

/// The arguments of `load`.
#[derive(Args, Debug)]
pub struct Load {
    /// Read from specified archive file (default: stdin)
    #[arg(short = 'i', long)]
    input: Option<PathBuf>,
    /// Suppress the output
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Pathname of signature policy file
    #[arg(long, hide = true)]
    signature_policy: Option<PathBuf>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Command for Load {
    const ABOUT: &'static str = "Load image(s) from a tar archive";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &["load --input image.tar", "load < image.tar.zst"];

    fn run(self, context: &Context) -> Outcome {
        if !self.args.is_empty() {
            return Err(Failure::new(format!(
                "`{}` takes no arguments",
                context.name
            )));
        }
        let source = match self.input {
            Some(path) => Source::Path(path),
            None if std::io::stdin().is_terminal() => {
                return Err(Failure::new(
                    "cannot read from terminal, use command-line redirection or the --input flag",
                ));
            }
            None => Source::Stdin,
        };
        let engine = context.engine()?;
        let progress = Reporter::new(self.quiet, context);
        for image in engine.load(&source, self.signature_policy.as_deref(), &progress)? {
            let names = match image.names.is_empty() {
                true => vec![format!("sha256:{}", image.record.id)],
                false => image.names,
            };
            for name in names {
                output::println(&format!("Loaded image: {name}"))?;
            }
        }
        Ok(0)
    }
}
