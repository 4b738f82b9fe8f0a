//! `rcon import`

use clap::Args;
use rcon_engine::image::{ImportOptions, Reference, Source};

use super::progress::Reporter;
use super::pull;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::usage::arity;

/// The arguments of `import`.
#[derive(Args, Debug)]
pub struct Import {
    /// Set the architecture of the imported image
    #[arg(long)]
    arch: Option<String>,
    /// Apply the instruction to the created image: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short = 'c', long, value_name = "stringArray")]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short = 'm', long)]
    message: Option<String>,
    /// Set the OS of the imported image
    #[arg(long)]
    os: Option<String>,
    /// Suppress output
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Set the variant of the imported image
    #[arg(long)]
    variant: Option<String>,
    args: Vec<String>,
}

impl Command for Import {
    const ABOUT: &'static str = "Import a tarball to create a filesystem image";
    const USAGE: &'static str = "[options] PATH [REFERENCE]";
    const EXAMPLES: &'static [&'static str] = &[
        "import https://example.com/ctr.tar url-image",
        "import --change 'CMD [\"sh\"]' - image-imported < ctr.tar",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, 2)?;
        let name = self
            .args
            .get(1)
            .map(|n| Reference::parse_local(n))
            .transpose()
            .map_err(Failure::new)?;
        let options = ImportOptions {
            changes: self.change,
            message: self.message,
            name,
            platform: pull::platform(None, &self.os, &self.arch, &self.variant)?,
        };
        let engine = context.engine()?;
        let progress = Reporter::new(self.quiet, context);
        let record = engine.import(&Source::parse(&self.args[0]), &options, &progress)?;
        output::println(&format!("sha256:{}", record.id))?;
        Ok(0)
    }
}
