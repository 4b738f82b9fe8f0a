//! `rcon version`

use clap::Args;
use serde_json::json;

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::{self, json};

/// The arguments of `version`.
#[derive(Args, Debug)]
pub struct Version {
    /// Change the output format to JSON or a Go template
    #[arg(short = 'f', long)]
    format: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Command for Version {
    const ABOUT: &'static str = "Display the rcon version information";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &["version --format '{{.Client.Version}}'"];

    fn run(self, context: &Context) -> Outcome {
        if !self.args.is_empty() {
            return Err(Failure::new(format!(
                "`{}` takes no arguments",
                context.name
            )));
        }
        let version = env!("CARGO_PKG_VERSION");
        let arch = rcon_engine::image::Platform::host().architecture;
        let facts = json!({
            "Client": {
                "APIVersion": version,
                "Version": version,
                "GoVersion": "",
                "GitCommit": "",
                "BuiltTime": "",
                "Built": 0,
                "OsArch": format!("linux/{arch}"),
                "Os": "linux",
            },
        });
        let text = match Format::parse(self.format.as_deref()) {
            Format::Default => {
                format!("Client:       rcon\nVersion:      {version}\nOS/Arch:      linux/{arch}\n")
            }
            Format::Json => json::pretty(&facts, 2),
            Format::Lines(text) | Format::Table(text) => format::lines("version", &text, &[facts])?,
        };
        output::print(&text)?;
        Ok(0)
    }
}
