//! `rcon save`

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use rcon_engine::Engine;
use rcon_engine::image::{Destination, Format, Output, Reference, SaveOptions, SavedImage};
use rcon_engine::images::own_name;
use rcon_engine::store::Compression;

use super::progress::Reporter;
use crate::app::Command;
use crate::containers_conf::Defaults;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::usage::arity;

/// The arguments of `save`.
#[derive(Args, Debug)]
pub struct Save {
    /// Compress layers when saving to a directory of the docker-dir format
    #[arg(long)]
    compress: bool,
    /// Save image to docker-archive, oci-archive, oci-dir, docker-dir (default "docker-archive")
    #[arg(long)]
    format: Option<String>,
    /// Interpret additional arguments as images not tags and create a multi-image-archive
    #[arg(short = 'm', long)]
    multi_image_archive: bool,
    /// Write to a specified file (default: stdout, which must be redirected)
    #[arg(short = 'o', long)]
    output: Option<PathBuf>,
    /// Suppress the output
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Do not compress the layers of OCI images
    #[arg(long)]
    uncompressed: bool,
    args: Vec<String>,
}

impl Command for Save {
    const ABOUT: &'static str = "Save image(s) to an archive";
    const USAGE: &'static str = "[options] IMAGE [IMAGE...]";
    const EXAMPLES: &'static [&'static str] = &[
        "save --quiet -o myimage.tar imageID",
        "save --format docker-dir -o ubuntu-dir ubuntu",
        "save -m alpine busybox > both.tar",
    ];

    fn run(mut self, context: &Context) -> Outcome {
        arity(&self.args, 1, usize::MAX)?;
        if !self.multi_image_archive && self.args.len() > 1 {
            self.multi_image_archive = Defaults::load()?.multi_image_archive == Some(true);
        }
        let format = self.format.as_deref().unwrap_or("docker-archive");
        if self.compress && format != "docker-dir" {
            return Err(Failure::new(
                "--compress can only be set when --format is 'docker-dir'",
            ));
        }
        if self.multi_image_archive && format == "docker-dir" {
            return Err(Failure::new(
                "--multi-image-archive cannot be used with --format docker-dir",
            ));
        }
        let to = self.destination(format)?;
        let options = SaveOptions {
            compression: match (self.compress, self.uncompressed) {
                (true, _) => Some(Compression::Gzip),
                (false, true) => Some(Compression::None),
                (false, false) => None,
            },
            format: Some(Format::Docker),
            level: None,
        };
        let engine = context.engine()?;
        let images = match self.multi_image_archive {
            true => several(&engine, &self.args)?,
            false => one(&engine, &self.args[0], &self.args[1..])?,
        };
        let progress = Reporter::new(self.quiet, context);
        engine.save(&images, &to, &options, &progress)?;
        Ok(0)
    }
}

impl Save {
    fn destination(&self, format: &str) -> Result<Destination, Failure> {
        let archive = || match &self.output {
            Some(path) => Ok(Output::Path(path.clone())),
            None if std::io::stdout().is_terminal() => Err(Failure::new(
                "refusing to save to terminal. Use -o flag or redirect",
            )),
            None => Ok(Output::Stdout),
        };
        let folder = || {
            self.output.clone().ok_or_else(|| {
                Failure::new(format!(
                    "--format {format} makes a directory: name it with -o"
                ))
            })
        };
        Ok(match format {
            "docker-archive" => Destination::DockerArchive(archive()?, None),
            "oci-archive" => Destination::OciArchive(archive()?, None),
            "oci-dir" => Destination::Oci(folder()?, None),
            "docker-dir" => Destination::Dir(folder()?),
            _ => {
                return Err(Failure::new(
                    "format value must be one of oci-dir oci-archive docker-dir docker-archive",
                ));
            }
        })
    }
}

/// An image, under the name it was asked for by and these.
fn one(engine: &Engine, name: &str, more: &[String]) -> Result<Vec<SavedImage>, Failure> {
    let mut images = Vec::new();
    add(engine, &mut images, name)?;
    for name in more {
        let name = Reference::parse_local(name).map_err(|e| Failure::new(e.to_string()))?;
        if !images[0].names.contains(&name) {
            images[0].names.push(name);
        }
    }
    Ok(images)
}

/// Several images, each under the names it was asked for by.
fn several(engine: &Engine, names: &[String]) -> Result<Vec<SavedImage>, Failure> {
    let mut images = Vec::new();
    for name in names {
        add(engine, &mut images, name)?;
    }
    Ok(images)
}

fn add(engine: &Engine, images: &mut Vec<SavedImage>, name: &str) -> Result<(), Failure> {
    let image = engine.find_image(name)?;
    let name = own_name(&image, name)
        .map(|full| Reference::parse(&full).map_err(|e| Failure::new(e.to_string())))
        .transpose()?;
    match images.iter_mut().find(|i| i.id == image.id) {
        Some(known) => known
            .names
            .extend(name.filter(|n| !known.names.contains(n))),
        None => images.push(SavedImage {
            id: image.id,
            manifest: Some(image.manifest_digest),
            names: Vec::from_iter(name),
        }),
    }
    Ok(())
}
