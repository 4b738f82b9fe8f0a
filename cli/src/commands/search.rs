//! `rcon search`

use std::path::PathBuf;

use clap::Args;
use rcon_engine::image::search::{self, SearchResult};
use rcon_engine::{Error, PullOptions};
use serde_json::{Value, json};

use super::progress::Reporter;
use super::pull::credentials;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::table::Table;
use crate::output::{self, json};
use crate::usage::{arity, parse_bool, split_lists};

/// How much of a description is shown.
const DESCRIPTION: usize = 44;

/// The arguments of `search`.
#[derive(Args, Debug)]
pub struct Search {
    /// Path of the authentication file. Use REGISTRY_AUTH_FILE environment variable to override
    #[arg(long)]
    authfile: Option<PathBuf>,
    /// Pathname of a directory containing TLS certificates and keys
    #[arg(long, value_name = "Pathname")]
    cert_dir: Option<PathBuf>,
    /// List stars, official and automated columns (Docker compatibility)
    #[arg(long)]
    compatible: bool,
    /// Credentials (USERNAME:PASSWORD) to use for authenticating to a registry
    #[arg(long, value_name = "Credentials")]
    creds: Option<String>,
    /// Filter output based on conditions provided: is-automated, is-official, stars
    #[arg(short = 'f', long)]
    filter: Vec<String>,
    /// Change the output format to JSON or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Limit the number of results (default 25)
    #[arg(long, value_name = "int")]
    limit: Option<usize>,
    /// List the tags of the input registry
    #[arg(long)]
    list_tags: bool,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Require HTTPS and verify certificates when contacting registries (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    tls_verify: Option<bool>,
    args: Vec<String>,
}

impl Command for Search {
    const ABOUT: &'static str = "Search registry for image";
    const USAGE: &'static str = "[options] TERM";
    const EXAMPLES: &'static [&'static str] = &[
        "search --filter=is-official --limit 3 alpine",
        "search registry.fedoraproject.org/",
        "search --list-tags docker.io/library/alpine",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, 1)?;
        let term = &self.args[0];
        if term.is_empty() {
            return Err(Failure::new("search requires exactly one argument"));
        }
        if self.list_tags && !self.filter.is_empty() {
            return Err(Failure::new(
                "filters are not applicable to list tags result",
            ));
        }
        let keep = filters(&self.filter)?;
        let options = PullOptions {
            tls_verify: self.tls_verify,
            creds: self.creds.as_deref().map(credentials).transpose()?,
            authfile: self.authfile.clone(),
            cert_dir: self.cert_dir.clone(),
            ..PullOptions::default()
        };
        let limit = self.limit.filter(|&limit| limit > 0).unwrap_or(25);
        let progress = Reporter::new(true, context);
        if self.list_tags {
            let (name, tags) =
                search::list_tags(term, limit, &options, &progress).map_err(Error::from)?;
            output::print(&self.tags(&name, &tags)?)?;
            return Ok(0);
        }
        let mut found = search::search(term, limit, &options, &progress).map_err(Error::from)?;
        found.retain(|result| keep.iter().all(|keep| keep(result)));
        output::print(&self.results(&found)?)?;
        Ok(0)
    }
}

type Keep = Box<dyn Fn(&SearchResult) -> bool>;

fn filters(given: &[String]) -> Result<Vec<Keep>, Failure> {
    let truth = |value: &str| match value {
        "" => Some(true),
        value => parse_bool(value).ok(),
    };
    split_lists(given)
        .iter()
        .map(|filter| -> Result<Keep, Failure> {
            let (key, value) = filter.split_once('=').unwrap_or((filter, ""));
            let bad = || Failure::new(format!("invalid filter {filter:?}"));
            match key {
                "stars" => {
                    let least: u64 = value.parse().map_err(|_| bad())?;
                    Ok(Box::new(move |r| r.stars >= least))
                }
                "is-official" => {
                    let wanted = truth(value).ok_or_else(bad)?;
                    Ok(Box::new(move |r| r.official == wanted))
                }
                "is-automated" => {
                    let wanted = truth(value).ok_or_else(bad)?;
                    Ok(Box::new(move |r| r.automated == wanted))
                }
                _ => Err(bad()),
            }
        })
        .collect()
}

impl Search {
    fn tags(&self, name: &str, tags: &[String]) -> Result<String, Failure> {
        let objects = || -> Vec<Value> {
            let of = |tag: &String| json!({ "Name": name, "Tag": tag });
            tags.iter().map(of).collect()
        };
        match Format::parse(self.format.as_deref()) {
            Format::Json => Ok(json::pretty(&json!([{ "Name": name, "Tags": tags }]), 4)),
            Format::Lines(text) => format::lines("search", &text, &objects()),
            Format::Table(text) => {
                let blank = json!({ "Name": "", "Tag": "" });
                let headers = format::headers(objects().first().unwrap_or(&blank), &[]);
                format::table("search", &text, &objects(), Some(&headers))
            }
            Format::Default => {
                let mut table = Table::new();
                table.row(["NAME", "TAG"].map(str::to_owned));
                for tag in tags {
                    table.row([name.to_owned(), tag.clone()]);
                }
                Ok(table.render())
            }
        }
    }

    fn results(&self, found: &[SearchResult]) -> Result<String, Failure> {
        let objects = || found.iter().map(|r| self.object(r)).collect::<Vec<_>>();
        match Format::parse(self.format.as_deref()) {
            Format::Json => Ok(json::pretty(&Value::Array(objects()), 4)),
            Format::Lines(text) => format::lines("search", &text, &objects()),
            Format::Table(text) => {
                let names = [
                    "Index",
                    "Name",
                    "Description",
                    "Stars",
                    "Official",
                    "Automated",
                    "Tag",
                ];
                let blank = names
                    .iter()
                    .map(|n| ((*n).to_owned(), Value::Null))
                    .collect();
                let blank = Value::Object(blank);
                let headers = format::headers(objects().first().unwrap_or(&blank), &[]);
                format::table("search", &text, &objects(), Some(&headers))
            }
            Format::Default if found.is_empty() => Ok(String::new()),
            Format::Default => {
                let mut table = Table::new();
                let more = self.compatible;
                let mut row = |cells: [String; 5]| {
                    table.row(cells.into_iter().take(if more { 5 } else { 2 }));
                };
                row(["NAME", "DESCRIPTION", "STARS", "OFFICIAL", "AUTOMATED"].map(str::to_owned));
                for result in found {
                    row([
                        result.name.clone(),
                        self.description(result),
                        result.stars.to_string(),
                        ok(result.official).to_owned(),
                        ok(result.automated).to_owned(),
                    ]);
                }
                Ok(table.render())
            }
        }
    }

    fn description(&self, result: &SearchResult) -> String {
        let text = &result.description;
        match self.no_trunc || text.chars().count() <= DESCRIPTION {
            true => text.clone(),
            false => text.chars().take(DESCRIPTION - 3).collect::<String>() + "...",
        }
    }

    fn object(&self, result: &SearchResult) -> Value {
        json!({
            "Index": result.index,
            "Name": result.name,
            "Description": self.description(result),
            "Stars": result.stars,
            "Official": ok(result.official),
            "Automated": ok(result.automated),
            "Tag": "",
        })
    }
}

fn ok(is: bool) -> &'static str {
    if is { "[OK]" } else { "" }
}
