//! `rcon image prune`

use clap::Args;
use rcon_engine::{Engine, ImageRecord};

use super::confirm::confirmed;
use super::images;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, GENERAL, Outcome};
use crate::output;
use crate::usage::arity;

/// The arguments of `image prune`.
#[derive(Args, Debug)]
pub struct ImagePrune {
    /// Remove all images not in use by containers, not just dangling ones
    #[arg(short = 'a', long)]
    all: bool,
    /// Remove only images that meet this: before, id, label, reference, since, until
    #[arg(long)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short = 'f', long)]
    force: bool,
    args: Vec<String>,
}

impl Command for ImagePrune {
    const ABOUT: &'static str = "Remove unused images";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &[
        "image prune",
        "image prune --all --force --filter until=24h",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 0, 0)?;
        let engine = context.engine()?;
        // Whatever is wrong with a filter is said before anything is asked.
        let mut wanted = engine.images()?;
        for filter in &self.filter {
            wanted = images::filtered(&engine, wanted, filter)?;
        }
        let what = match self.all {
            true => "all images without at least one container associated with them",
            false => "all dangling images",
        };
        if !self.force && !confirmed(&format!("This command removes {what}."))? {
            return Ok(0);
        }
        let mut removed = Vec::new();
        let outcome = prune(&engine, self.all, &wanted, &mut removed);
        for id in removed {
            output::println(&id)?;
        }
        outcome
    }
}

/// Removes those of the images `wanted` that no container uses, those without a name or, with `all`, any, as far as they can be;
/// their ids are added to `removed`.
///
/// # Errors
/// When the store cannot be read or written.
pub fn prune(
    engine: &Engine,
    all: bool,
    wanted: &[ImageRecord],
    removed: &mut Vec<String>,
) -> Outcome {
    let mut code = 0;
    engine.prune_images(
        all,
        |image| wanted.iter().any(|w| w.id == image.id),
        |image| match image {
            Ok(image) => removed.extend(image.deleted),
            Err(error) => {
                Failure::from(error).report();
                code = GENERAL;
            }
        },
    )?;
    Ok(code)
}
