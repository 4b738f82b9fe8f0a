//! `rcon image prune`

use std::io::{self, BufRead};

use chrono::Utc;
use clap::Args;
use rcon_engine::{Error, ImageRecord};

use super::images;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::usage::arity;
use crate::{output, times};

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
            wanted = match filter.strip_prefix("until=") {
                Some(moment) => until(wanted, moment)?,
                None => images::filtered(&engine, wanted, filter)?,
            };
        }
        if !self.force && !self.confirmed()? {
            return Ok(0);
        }
        let mut shown = Ok(());
        engine.prune_images(
            self.all,
            |image| wanted.iter().any(|w| w.id == image.id),
            |removed| {
                if let Some(id) = removed.deleted.filter(|_| shown.is_ok()) {
                    shown = output::println(&id);
                }
            },
        )?;
        Ok(shown.map(|()| 0)?)
    }
}

impl ImagePrune {
    fn confirmed(&self) -> Result<bool, Failure> {
        let what = match self.all {
            true => "all images without at least one container associated with them",
            false => "all dangling images",
        };
        output::print(&format!(
            "WARNING! This command removes {what}.\nAre you sure you want to continue? [y/N] "
        ))?;
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|e| Failure::new(format!("cannot read the answer: {e}")))?;
        Ok(answer.trim_start().starts_with(['y', 'Y']))
    }
}

/// The images that were made before a moment.
fn until(images: Vec<ImageRecord>, moment: &str) -> Result<Vec<ImageRecord>, Failure> {
    let moment = times::parse(moment, Utc::now()).ok_or_else(|| {
        Failure::from(Error::Invalid(format!(
            "{moment:?} is not a moment, nor a length of time"
        )))
    })?;
    let before = |image: &ImageRecord| image.created.is_none_or(|t| t < moment);
    Ok(images.into_iter().filter(before).collect())
}
