//! `rcon export`

use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use rcon_engine::Error;
use rcon_sys::errors::in_words;

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::usage::arity;

/// The arguments of `export`.
#[derive(Args, Debug)]
pub struct Export {
    /// Write to a specified file (default: stdout, which must be redirected)
    #[arg(short = 'o', long)]
    output: Option<PathBuf>,
    args: Vec<String>,
}

impl Command for Export {
    const ABOUT: &'static str = "Export container's filesystem contents as a tar archive";
    const USAGE: &'static str = "[options] CONTAINER";
    const EXAMPLES: &'static [&'static str] = &[
        "export ctrID > myCtr.tar",
        "export --output=\"myCtr.tar\" ctrID",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, 1)?;
        let name = &self.args[0];
        let engine = context.engine()?;
        // A file is not made for nothing.
        engine.container(name)?;
        match &self.output {
            Some(path) => into_file(path, |file| engine.export(name, file))?,
            None if std::io::stdout().is_terminal() => {
                return Err(Failure::new(
                    "refusing to export to terminal. Use -o flag or redirect",
                ));
            }
            None => engine.export(name, std::io::stdout())?,
        }
        Ok(0)
    }
}

/// Has an archive written into a file; half of one is not left behind.
///
/// # Errors
/// When the file cannot be made, and what `write` says.
pub fn into_file(
    path: &Path,
    write: impl FnOnce(&File) -> Result<(), Error>,
) -> Result<(), Failure> {
    let file = File::create(path).map_err(|e| {
        Failure::new(format!(
            "cannot create {}: {}",
            path.display(),
            in_words(&e)
        ))
    })?;
    if let Err(error) = write(&file) {
        if file.metadata().is_ok_and(|m| m.is_file()) {
            let _ = std::fs::remove_file(path);
        }
        return Err(error.into());
    }
    Ok(())
}
