//! `rcon commit`

use std::path::PathBuf;

use clap::Args;
use rcon_engine::CommitRequest;
use rcon_engine::image::{Format, Reference};
use rcon_sys::errors::in_words;

use super::progress::Reporter;
use crate::app::Command;
use crate::containers_conf::Defaults;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::usage::{arity, parse_bool, unknown_flag};

/// The arguments of `commit`.
#[derive(Args, Debug)]
pub struct Commit {
    /// Set the author for the image committed
    #[arg(short = 'a', long)]
    author: Option<String>,
    /// Apply the instruction to the created image: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short = 'c', long, value_name = "stringArray")]
    change: Vec<String>,
    /// Format of the image manifest and metadata: oci or docker (default "oci")
    #[arg(short = 'f', long)]
    format: Option<String>,
    /// File to write the image ID to
    #[arg(short = 'i', long, value_name = "string")]
    iidfile: Option<PathBuf>,
    /// Include container volumes as image volumes
    #[arg(long)]
    include_volumes: bool,
    /// Set commit message for imported image (with --format docker)
    #[arg(short = 'm', long)]
    message: Option<String>,
    /// Pause container during commit (default false)
    #[arg(short = 'p', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    pause: Option<bool>,
    /// Suppress output
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Squash newly built layers into a single new layer
    #[arg(short = 's', long)]
    squash: bool,
    args: Vec<String>,
}

impl Command for Commit {
    const ABOUT: &'static str = "Create new image based on the changed container";
    const USAGE: &'static str = "[options] CONTAINER [IMAGE]";
    const EXAMPLES: &'static [&'static str] = &[
        "commit -q --message \"committing container to image\" -f docker reverent_golick image-committed",
        "commit --change 'CMD [\"sh\"]' --author \"firstName lastName\" ctr image-committed",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, 2)?;
        let after = context.argv.iter().skip_while(|word| *word != "commit");
        let mut after = after.map(|word| word.to_string_lossy());
        if after.any(|word| word.split('=').next() == Some("--config")) {
            // Not the one that every command has.
            return Err(unknown_flag("--config", None, "rcon commit"));
        }
        let usual = match self.format {
            Some(_) => None,
            None => Defaults::load()?.image_default_format,
        };
        let format = match self.format.or(usual).as_deref().unwrap_or("oci") {
            "oci" => Format::Oci,
            "docker" | "v2s2" => Format::Docker,
            other => {
                return Err(Failure::new(format!(
                    "unrecognized image format {other:?}: choose oci or docker"
                )));
            }
        };
        if format == Format::Oci && self.message.as_ref().is_some_and(|m| !m.is_empty()) {
            return Err(Failure::new(
                "messages are only compatible with the docker image format (-f docker)",
            ));
        }
        let name = self
            .args
            .get(1)
            .map(|n| Reference::parse_local(n))
            .transpose()
            .map_err(Failure::new)?;
        let request = CommitRequest {
            name,
            changes: self.change,
            message: self.message,
            author: self.author,
            format,
            squash: self.squash,
            include_volumes: self.include_volumes,
        };
        let engine = context.engine()?;
        let progress = Reporter::new(self.quiet, context);
        let name = &self.args[0];
        let paused = self.pause == Some(true)
            && engine.container(name)?.state.status == rcon_engine::Status::Running;
        if paused {
            engine.pause(name)?;
        }
        let image = engine.commit(name, &request, &progress);
        if paused {
            engine.unpause(name)?;
        }
        let image = image?;
        if let Some(path) = &self.iidfile {
            std::fs::write(path, format!("sha256:{}", image.id)).map_err(|e| {
                Failure::new(format!("cannot write {}: {}", path.display(), in_words(&e)))
            })?;
        }
        output::println(&image.id)?;
        Ok(0)
    }
}
