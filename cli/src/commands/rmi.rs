//! `rcon rmi`

use clap::Args;
use rcon_engine::Error;

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, GENERAL, INTERRUPTED, Outcome, for_each, gravest};
use crate::output;

/// The arguments of `rmi`.
#[derive(Args, Debug)]
pub struct Rmi {
    /// Remove all images
    #[arg(short = 'a', long)]
    all: bool,
    /// Force removal of the image, and of the containers that use it
    #[arg(short = 'f', long)]
    force: bool,
    /// Do not remove dangling images (none are, but the one that is named)
    #[arg(long)]
    no_prune: bool,
    /// Ignore errors if a specified image does not exist
    #[arg(short = 'i', long)]
    ignore: bool,
    names: Vec<String>,
}

impl Command for Rmi {
    const ABOUT: &'static str = "Removes one or more images from local storage";
    const USAGE: &'static str = "[options] IMAGE [IMAGE...]";
    const EXAMPLES: &'static [&'static str] = &["rmi imageID", "rmi --force alpine"];

    fn run(self, context: &Context) -> Outcome {
        // Removing an image never takes another one with it.
        let _ = self.no_prune;
        if self.names.is_empty() && !self.all {
            return Err(Failure::new("image name or ID must be specified"));
        }
        if !self.names.is_empty() && self.all {
            return Err(Failure::new(
                "when using the --all switch, you may not pass any images names or IDs",
            ));
        }
        let engine = context.engine()?;
        // All names of an image, one by one: the last takes the image with it.
        let names = match self.all {
            false => self.names,
            true => {
                let all = |image: rcon_engine::ImageRecord| match image.names.is_empty() {
                    true => vec![image.id],
                    false => image.names,
                };
                let images = engine.images()?.into_iter();
                // Of the additional stores nothing is removed.
                images
                    .filter(|image| !image.read_only)
                    .flat_map(all)
                    .collect()
            }
        };
        for_each(
            &names,
            |name| {
                let removed = match engine.remove_image(name, self.force) {
                    Err(Error::NoSuchImage(_)) if self.ignore || self.force => return Ok(()),
                    Err(error) => {
                        let code = exit_code(&error);
                        return Err(Failure::from(error).code(code));
                    }
                    Ok(removed) => removed,
                };
                let mut text = String::new();
                for name in &removed.untagged {
                    text += &format!("Untagged: {name}\n");
                }
                if let Some(id) = &removed.deleted {
                    text += &format!("Deleted: {id}\n");
                }
                Ok(output::print(&text)?)
            },
            gravest,
        )
    }
}

/// 1 for an image that is not there, 2 for one in use, 125 for all else (podman-rmi(1)) but ctrl-c.
fn exit_code(error: &Error) -> u8 {
    match error {
        Error::NoSuchImage(_) => 1,
        Error::ImageInUse { .. } => 2,
        Error::Interrupted => INTERRUPTED,
        _ => GENERAL,
    }
}
