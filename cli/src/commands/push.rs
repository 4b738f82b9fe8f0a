//! `rcon push`

use std::path::PathBuf;

use clap::Args;
use rcon_engine::image::{Destination, Format, PushOptions};
use rcon_engine::images::own_name;
use rcon_engine::store::Compression;
use rcon_engine::{Error, PullOptions};
use rcon_sys::errors::in_words;

use super::progress::Reporter;
use super::pull::{credentials, retry_delay};
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::usage::{arity, parse_bool};

/// The arguments of `push`.
#[derive(Args, Debug)]
pub struct Push {
    /// Path of the authentication file. Use REGISTRY_AUTH_FILE environment variable to override
    #[arg(long)]
    authfile: Option<PathBuf>,
    /// Pathname of a directory containing TLS certificates and keys
    #[arg(long, value_name = "Pathname")]
    cert_dir: Option<PathBuf>,
    /// Compress layers when pushing to a directory using the 'dir' transport
    #[arg(long)]
    compress: bool,
    /// Compression format to use (gzip, zstd)
    #[arg(long)]
    compression_format: Option<String>,
    /// Compression level to use
    #[arg(long, value_name = "int")]
    compression_level: Option<i32>,
    /// Credentials (USERNAME:PASSWORD) to use for authenticating to a registry
    #[arg(long, value_name = "Credentials")]
    creds: Option<String>,
    /// Write the digest of the pushed image to the specified file
    #[arg(long)]
    digestfile: Option<PathBuf>,
    /// Do not use layers that are there with another compression (as if --compression-format was given)
    #[arg(long)]
    force_compression: bool,
    /// Manifest type (oci, v2s2) to use in the destination (default is manifest type of source)
    #[arg(short = 'f', long)]
    format: Option<String>,
    /// Suppress output information when pushing images
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Number of times to retry in case of failure when performing push (default 5)
    #[arg(long, value_name = "uint")]
    retry: Option<u32>,
    /// Delay between retries in case of push failures
    #[arg(long, value_name = "duration")]
    retry_delay: Option<String>,
    /// Require HTTPS and verify certificates when contacting registries (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    tls_verify: Option<bool>,
    args: Vec<String>,
}

impl Command for Push {
    const ABOUT: &'static str = "Push an image to a specified destination";
    const USAGE: &'static str = "[options] IMAGE [DESTINATION]";
    const EXAMPLES: &'static [&'static str] = &[
        "push localhost:5000/team/app:v1",
        "push app registry.example.com/team/app:v1",
        "push --compression-format zstd app oci-archive:app.tar",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, 2)?;
        let mut options = self.options()?;
        let engine = context.engine()?;
        let image = engine.find_image(&self.args[0])?;
        let to = match self.args.get(1) {
            Some(destination) => destination.clone(),
            None => own_name(&image, &self.args[0]).ok_or_else(|| {
                Failure::new(format!(
                    "{:?} is not the name of an image: it does not say where to push to",
                    self.args[0]
                ))
                .hint("give a destination, as registry.example.com/team/app:v1")
            })?,
        };
        let to = Destination::parse(&to).map_err(Error::from)?;
        match to {
            Destination::Dir(_) if self.compress => {
                options.compression.get_or_insert(Compression::Gzip);
            }
            _ if self.compress => {
                return Err(Failure::new(
                    "--compress can be set only when the destination is of the dir transport",
                ));
            }
            _ => {}
        }
        options.manifest = Some(image.manifest_digest.clone());
        let progress = Reporter::new(self.quiet, context);
        let digest = engine.push(&image.id, &to, &options, &progress)?;
        if let Some(file) = &self.digestfile {
            std::fs::write(file, digest.to_string()).map_err(|e| {
                let why = in_words(&e);
                Failure::new(format!("cannot write {}: {why}", file.display()))
            })?;
        }
        Ok(0)
    }
}

impl Push {
    fn options(&self) -> Result<PushOptions, Failure> {
        let format = match self.format.as_deref() {
            None => None,
            Some("oci") => Some(Format::Oci),
            Some("v2s2" | "docker") => Some(Format::Docker),
            Some(other) => {
                return Err(Failure::new(format!(
                    "unknown format {other:?}. Choose one of the supported formats: 'oci', 'v2s2'"
                )));
            }
        };
        let compression = match self.compression_format.as_deref() {
            None => self.force_compression.then_some(Compression::Gzip),
            Some("gzip") => Some(Compression::Gzip),
            Some("zstd") => Some(Compression::Zstd),
            Some(other) => {
                return Err(Failure::new(format!(
                    "unknown compression format {other:?}. Choose from: gzip, zstd"
                )));
            }
        };
        Ok(PushOptions {
            registry: PullOptions {
                tls_verify: self.tls_verify,
                creds: self.creds.as_deref().map(credentials).transpose()?,
                authfile: self.authfile.clone(),
                cert_dir: self.cert_dir.clone(),
                retries: self.retry,
                retry_delay: self.retry_delay.as_deref().map(retry_delay).transpose()?,
                ..PullOptions::default()
            },
            format,
            compression,
            level: self.compression_level,
            manifest: None,
            piece: None,
        })
    }
}
