//! `rcon system df`, `rcon system prune`, `rcon system reset`

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::Utc;
use clap::Args;
use rcon_engine::store::Digest;
use rcon_engine::{Container, Engine, Error, ImageRecord, ListRequest, Volume, bundle};
use serde_json::{Value, json};

use super::confirm::confirmed;
use super::{container_prune, image_prune, images, volume};
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, GENERAL, Outcome};
use crate::output::format::{self, Format};
use crate::output::table::Table;
use crate::output::{self, human, json};
use crate::usage::arity;

/// What there is, with sizes.
struct Stock {
    images: Vec<ImageRecord>,
    /// The sizes of their layers.
    layers: HashMap<Digest, u64>,
    containers: Vec<Container>,
    volumes: Vec<Volume>,
    written: BTreeMap<String, u64>,
    kept: BTreeMap<String, u64>,
}

impl Stock {
    fn take(engine: &Engine) -> Result<Stock, Failure> {
        let images = engine.images()?;
        let distinct: HashSet<&Digest> = images.iter().flat_map(|image| &image.layers).collect();
        let mut layers = HashMap::new();
        for layer in distinct {
            let meta = engine.store().layer_meta(layer).map_err(Error::from)?;
            layers.insert(layer.clone(), meta.map_or(0, |meta| meta.size));
        }
        let containers = engine.list(&ListRequest {
            all: true,
            ..ListRequest::default()
        })?;
        let volumes = engine.volumes()?;
        let ids: Vec<String> = containers.iter().map(|c| c.config.id.clone()).collect();
        let names: Vec<String> = volumes.iter().map(|v| v.name.clone()).collect();
        let (written, kept) = engine.sizes(&ids, &names)?;
        Ok(Stock {
            images,
            layers,
            containers,
            volumes,
            written,
            kept,
        })
    }

    fn uses(&self, volume: &Volume) -> usize {
        let uses = |c: &&Container| c.config.volumes.iter().any(|v| v.name == volume.name);
        self.containers.iter().filter(uses).count()
    }

    fn users(&self, image: &ImageRecord) -> usize {
        let uses = |c: &&Container| c.config.image_id == image.id;
        self.containers.iter().filter(uses).count()
    }

    /// A row a kind: total, active, bytes, bytes that could be given back.
    fn rows(&self) -> [(&'static str, usize, usize, u64, u64); 3] {
        let images = |active: bool| {
            let all = self.images.iter();
            let some = all.filter(move |i| !active || self.users(i) > 0);
            (some.clone().count(), unique(some, &self.layers))
        };
        let (count, bytes) = images(false);
        let (active, used) = images(true);
        let running = |c: &&Container| c.state.status.has_process();
        let size = |c: &Container| self.written.get(c.id()).copied().unwrap_or(0);
        let written: u64 = self.containers.iter().map(size).sum();
        let alive: u64 = self.containers.iter().filter(running).map(size).sum();
        let volume_size = |v: &Volume| self.kept.get(&v.name).copied().unwrap_or(0);
        let kept: u64 = self.volumes.iter().map(volume_size).sum();
        let in_use = self.volumes.iter().filter(|v| self.uses(v) > 0);
        let busy: u64 = in_use.clone().map(volume_size).sum();
        [
            ("Images", count, active, bytes, bytes - used.min(bytes)),
            (
                "Containers",
                self.containers.len(),
                self.containers.iter().filter(running).count(),
                written,
                written - alive,
            ),
            (
                "Local Volumes",
                self.volumes.len(),
                in_use.count(),
                kept,
                kept - busy,
            ),
        ]
    }
}

/// Bytes of some images, layers that several have counted once.
fn unique<'a>(images: impl Iterator<Item = &'a ImageRecord>, layers: &HashMap<Digest, u64>) -> u64 {
    let mut seen = HashSet::new();
    let mut total: u64 = 0;
    for image in images {
        total = total.saturating_add(image.size);
        for layer in image.layers.iter().filter(|layer| !seen.insert(*layer)) {
            total = total.saturating_sub(layers.get(layer).copied().unwrap_or(0));
        }
    }
    total
}

/// The arguments of `system df`.
#[derive(Args, Debug)]
pub struct SystemDf {
    /// Pretty-print images using a Go template
    #[arg(long)]
    format: Option<String>,
    /// Show detailed information on disk usage
    #[arg(short = 'v', long)]
    verbose: bool,
    args: Vec<String>,
}

impl Command for SystemDf {
    const ABOUT: &'static str = "Show disk usage of images, containers and volumes";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &["system df", "system df -v"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 0, 0)?;
        if self.verbose && self.format.is_some() {
            return Err(Failure::new("cannot combine --format and --verbose flags"));
        }
        let engine = context.engine()?;
        let stock = Stock::take(&engine)?;
        if self.verbose {
            output::print(&verbose(&stock))?;
            return Ok(0);
        }
        let percent = |part: u64, all: u64| match all {
            0 => 0,
            all => part * 100 / all,
        };
        let rows: Vec<Value> = stock
            .rows()
            .iter()
            .map(|(kind, total, active, bytes, free)| {
                json!({
                    "Type": kind,
                    "Total": total,
                    "Active": active,
                    "Size": human::size(*bytes, ""),
                    "Reclaimable": format!("{} ({}%)", human::size(*free, ""), percent(*free, *bytes)),
                    "RawSize": bytes,
                    "RawReclaimable": free,
                })
            })
            .collect();
        let text = match Format::parse(self.format.as_deref()) {
            Format::Default => {
                let mut table = Table::new();
                table.row(["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
                for row in &rows {
                    table.row(
                        ["Type", "Total", "Active", "Size", "Reclaimable"].map(|name| {
                            row[name]
                                .as_str()
                                .map_or_else(|| row[name].to_string(), str::to_owned)
                        }),
                    );
                }
                table.render()
            }
            Format::Json => json::pretty(&Value::Array(rows), 5),
            Format::Lines(text) => format::lines("system df", &text, &rows)?,
            Format::Table(text) => {
                let headers = format::headers(&rows[0], &[]);
                format::table("system df", &text, &rows, Some(&headers))?
            }
        };
        output::print(&text)?;
        Ok(0)
    }
}

fn verbose(stock: &Stock) -> String {
    let now = Utc::now();
    let mut images = Table::new();
    images.row([
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "CONTAINERS",
    ]);
    for image in &stock.images {
        let name = image.names.first().map_or("<none>:<none>", String::as_str);
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
        images.row([
            repository.to_owned(),
            tag.to_owned(),
            human::short(&image.id).to_owned(),
            image
                .created
                .map_or_else(String::new, |t| human::duration(now - t)),
            human::size(image.size, ""),
            stock.users(image).to_string(),
        ]);
    }
    let mut containers = Table::new();
    containers.row([
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "LOCAL VOLUMES",
        "SIZE",
        "CREATED",
        "STATUS",
        "NAMES",
    ]);
    for c in &stock.containers {
        containers.row([
            c.config.short_id().to_owned(),
            human::short(&c.config.image_id).to_owned(),
            bundle::display(&c.config.argv()),
            c.config.volumes.len().to_string(),
            human::size(stock.written.get(c.id()).copied().unwrap_or(0), ""),
            human::duration(now - c.config.created),
            c.state.status.to_string(),
            c.config.name.clone(),
        ]);
    }
    let mut volumes = Table::new();
    volumes.row(["VOLUME NAME", "LINKS", "SIZE"]);
    for v in &stock.volumes {
        volumes.row([
            v.name.clone(),
            stock.uses(v).to_string(),
            human::size(stock.kept.get(&v.name).copied().unwrap_or(0), ""),
        ]);
    }
    format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}",
        images.render(),
        containers.render(),
        volumes.render()
    )
}

/// The arguments of `system prune`.
#[derive(Args, Debug)]
pub struct SystemPrune {
    /// Remove all unused data
    #[arg(short = 'a', long)]
    all: bool,
    /// Remove only what meets this: label, until
    #[arg(long)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short = 'f', long)]
    force: bool,
    /// Prune volumes
    #[arg(long)]
    volumes: bool,
    args: Vec<String>,
}

impl Command for SystemPrune {
    const ABOUT: &'static str = "Remove unused data";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &["system prune", "system prune --all --volumes"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 0, 0)?;
        let filters = super::select::filters(&self.filter)?;
        let volumes = volume::Filter::parse(&self.filter)?;
        let engine = context.engine()?;
        // Whatever is wrong with a filter is said before anything is asked or removed.
        let mut wanted = engine.images()?;
        for filter in &self.filter {
            wanted = images::filtered(&engine, wanted, filter)?;
        }
        if !self.force && !confirmed(&self.warning())? {
            return Ok(0);
        }
        let before = total(&Stock::take(&engine)?);
        // What cannot be removed is said, and keeps nothing else.
        let mut code = pruned("Deleted Containers", |removed| {
            container_prune::prune(&engine, filters, removed)
        })?;
        if self.volumes {
            code = code.max(pruned("Deleted Volumes", |removed| {
                volume::prune(&engine, &volumes, removed)
            })?);
        }
        code = code.max(pruned("Deleted Images", |removed| {
            image_prune::prune(&engine, self.all, &wanted, removed)
        })?);
        let after = total(&Stock::take(&engine)?);
        output::println(&format!(
            "Total reclaimed space: {}",
            human::size(before.saturating_sub(after), "")
        ))?;
        Ok(code)
    }
}

impl SystemPrune {
    fn warning(&self) -> String {
        let mut text = String::from("This command removes:\n\t- all stopped containers\n");
        if self.volumes {
            text += "\t- all volumes not used by at least one container\n";
        }
        text + match self.all {
            true => "\t- all images without at least one container associated with them\n",
            false => "\t- all dangling images\n",
        }
    }
}

fn total(stock: &Stock) -> u64 {
    stock.rows().iter().map(|(_, _, _, bytes, _)| bytes).sum()
}

/// Does `prune`, and shows what was removed, however it ended.
fn pruned(title: &str, prune: impl FnOnce(&mut Vec<String>) -> Outcome) -> Outcome {
    let mut removed = Vec::new();
    let outcome = prune(&mut removed);
    if !removed.is_empty() {
        output::println(title)?;
    }
    for line in removed {
        output::println(&line)?;
    }
    outcome
}

/// The arguments of `system reset`.
#[derive(Args, Debug)]
pub struct SystemReset {
    /// Do not prompt for confirmation
    #[arg(short = 'f', long)]
    force: bool,
    args: Vec<String>,
}

impl Command for SystemReset {
    const ABOUT: &'static str = "Remove all containers, images, volumes and secrets";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &["system reset"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 0, 0)?;
        let engine = context.engine()?;
        let warning = format!(
            "This will remove:\n        - all containers\n        - all images\n        - all volumes\n        - all secrets\nin {}.",
            engine.paths().root.display()
        );
        if !self.force && !confirmed(&warning)? {
            return Ok(0);
        }
        // What cannot be removed is said, and keeps nothing else.
        let mut code = 0;
        engine.reset(|error| {
            Failure::from(error).report();
            code = GENERAL;
        })?;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(layers: &[&str], size: u64) -> ImageRecord {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let layers: Vec<String> = layers.iter().copied().map(digest).collect();
        let record = json!({
            "id": "ab".repeat(32), "names": [], "repo_digests": [], "manifest_digest": digest("0"),
            "media_type": "", "layers": layers, "size": size, "created": null,
            "platform": {"os": "linux", "architecture": "amd64"},
        });
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn layers_that_several_images_have_count_once() {
        let images = [image(&["a", "b"], 35), image(&["a", "c"], 27)];
        let layers = images.iter().flat_map(|image| image.layers.clone());
        let layers: HashMap<Digest, u64> = layers.zip([10, 20, 10, 12]).collect();
        assert_eq!(unique(images.iter(), &layers), 52);
        assert_eq!(unique(images[1..].iter(), &layers), 27);
    }
}
