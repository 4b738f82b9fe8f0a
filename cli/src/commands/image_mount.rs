//! `rcon image mount` and `rcon image unmount`

use clap::Args;
use rcon_engine::ImageMount;
use serde_json::{Value, json};

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome, for_each};
use crate::output::{self, json};

/// The arguments of `image mount`.
#[derive(Args, Debug)]
pub struct Mount {
    /// Mount all images
    #[arg(short = 'a', long)]
    all: bool,
    /// Print the mounted images in specified format (json)
    #[arg(long)]
    format: Option<String>,
    args: Vec<String>,
}

impl Command for Mount {
    const ABOUT: &'static str = "Mount an image's root filesystem (inside of `rcon unshare`)";
    const USAGE: &'static str = "[options] [IMAGE...]";
    const EXAMPLES: &'static [&'static str] = &[
        "unshare sh -c 'cat $(rcon image mount alpine)/etc/os-release'",
        "image mount --all",
        "image mount",
    ];

    fn run(self, context: &Context) -> Outcome {
        if self.all && !self.args.is_empty() {
            return Err(Failure::new(
                "when using the --all switch, you may not pass any image names or IDs",
            ));
        }
        let as_json = match self.format.as_deref() {
            None | Some("") => false,
            Some("json") => true,
            Some(other) => {
                return Err(Failure::new(format!("unknown --format argument: {other}")));
            }
        };
        context.inside_unshare()?;
        let engine = context.engine()?;
        let mut mounts = Vec::new();
        if self.all {
            for image in engine.images()? {
                mounts.push(engine.mount_image(&image.id)?);
            }
        } else if self.args.is_empty() {
            mounts = engine.mounted_images()?;
        } else {
            for name in &self.args {
                mounts.push(engine.mount_image(name)?);
            }
        }
        let text = match (as_json, &self.args[..]) {
            (true, _) => json::pretty(&Value::Array(mounts.iter().map(object).collect()), 1),
            (false, [_]) => mounts
                .iter()
                .map(|m| format!("{}\n", m.path.display()))
                .collect(),
            (false, _) => mounts.iter().map(line).collect(),
        };
        output::print(&text)?;
        Ok(0)
    }
}

fn object(mount: &ImageMount) -> Value {
    json!({
        "id": mount.id,
        "Repositories": mount.names,
        "mountpoint": mount.path.display().to_string(),
    })
}

fn line(mount: &ImageMount) -> String {
    let name = mount.names.first().unwrap_or(&mount.id);
    format!("{name}  {}\n", mount.path.display())
}

/// The arguments of `image unmount`.
#[derive(Args, Debug)]
pub struct Unmount {
    /// Unmount all of the currently mounted images
    #[arg(short = 'a', long)]
    all: bool,
    /// Unmount even if it is in use
    #[arg(short = 'f', long)]
    force: bool,
    args: Vec<String>,
}

impl Command for Unmount {
    const ABOUT: &'static str = "Unmount an image's root filesystem";
    const USAGE: &'static str = "[options] IMAGE [IMAGE...]";
    const EXAMPLES: &'static [&'static str] = &["image unmount imageID", "image unmount --all"];

    fn run(self, context: &Context) -> Outcome {
        if self.all != self.args.is_empty() {
            return Err(Failure::new(match self.all {
                true => "when using the --all switch, you may not pass any image names or IDs",
                false => "image name or ID must be specified",
            }));
        }
        context.inside_unshare()?;
        let engine = context.engine()?;
        let names = match self.all {
            true => engine.mounted_images()?.into_iter().map(|m| m.id).collect(),
            false => self.args,
        };
        for_each(
            &names,
            |name| match engine.unmount_image(name, self.force)? {
                Some(mount) => Ok(output::println(&mount.id)?),
                None => Err(Failure::new(format!("image {name} is not mounted"))),
            },
            |codes| codes[0],
        )
    }
}
