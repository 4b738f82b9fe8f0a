//! `rcon volume export` and `rcon volume import`

use std::fs::File;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use rcon_sys::errors::in_words;

use crate::app::Command;
use crate::commands::export::into_file;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::usage::arity;

/// The arguments of `volume export`.
#[derive(Args, Debug)]
pub struct VolumeExport {
    /// Write to a specified file (default: stdout, which must be redirected)
    #[arg(short = 'o', long)]
    output: Option<PathBuf>,
    args: Vec<String>,
}

impl Command for VolumeExport {
    const ABOUT: &'static str = "Export volumes";
    const USAGE: &'static str = "[options] VOLUME";
    const EXAMPLES: &'static [&'static str] = &["volume export myvol --output myvol.tar"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, 1)?;
        let engine = context.engine()?;
        let name = engine.volume(&self.args[0])?.name;
        match &self.output {
            Some(path) => into_file(path, |file| engine.export_volume(&name, file))?,
            None if std::io::stdout().is_terminal() => {
                return Err(Failure::new(
                    "cannot redirect to terminal: use -o flag or redirect",
                ));
            }
            None => engine.export_volume(&name, std::io::stdout())?,
        }
        Ok(0)
    }
}

/// The arguments of `volume import`.
#[derive(Args, Debug)]
pub struct VolumeImport {
    args: Vec<String>,
}

impl Command for VolumeImport {
    const ABOUT: &'static str = "Import the contents of a tarball into a volume";
    const USAGE: &'static str = "VOLUME [SOURCE]";
    const EXAMPLES: &'static [&'static str] = &[
        "volume import my_vol /home/user/import.tar",
        "cat ctr.tar | rcon volume import my_vol -",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, 2)?;
        let engine = context.engine()?;
        let name = engine.volume(&self.args[0])?.name;
        match self.args.get(1).map_or("-", String::as_str) {
            "-" => engine.import_volume(&name, std::io::stdin())?,
            path => {
                let file = File::open(path)
                    .map_err(|e| Failure::new(format!("open {path}: {}", in_words(&e))))?;
                engine.import_volume(&name, file)?;
            }
        }
        Ok(0)
    }
}
