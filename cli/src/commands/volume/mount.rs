//! `rcon volume mount|unmount`: where the files of a volume are, for a look inside of `rcon unshare`.
//!
//! A volume is a directory, which needs no mounting; outside of the user namespace of the containers its files have owners
//! that keep their user out.

use clap::Args;

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Outcome, for_each};
use crate::output;
use crate::usage::arity;

/// The arguments of `volume mount`.
#[derive(Args, Debug)]
pub struct VolumeMount {
    names: Vec<String>,
}

impl Command for VolumeMount {
    const ABOUT: &'static str = "Print where the files of volumes are, inside of `rcon unshare`";
    const USAGE: &'static str = "NAME [NAME...]";
    const EXAMPLES: &'static [&'static str] = &["unshare rcon volume mount myvol"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.names, 1, usize::MAX)?;
        context.inside_unshare()?;
        let engine = context.engine()?;
        for_each(
            &self.names,
            |name| {
                let path = engine.volume_files(&engine.volume(name)?)?;
                Ok(output::println(&path.display().to_string())?)
            },
            |_| 125,
        )
    }
}

/// The arguments of `volume unmount`.
#[derive(Args, Debug)]
pub struct VolumeUnmount {
    names: Vec<String>,
}

impl Command for VolumeUnmount {
    const ABOUT: &'static str = "Take back `volume mount`, which leaves nothing to be done";
    const USAGE: &'static str = "NAME [NAME...]";
    const EXAMPLES: &'static [&'static str] = &["unshare rcon volume unmount myvol"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.names, 1, usize::MAX)?;
        context.inside_unshare()?;
        let engine = context.engine()?;
        for_each(
            &self.names,
            |name| Ok(output::println(&engine.volume(name)?.name)?),
            |_| 125,
        )
    }
}
