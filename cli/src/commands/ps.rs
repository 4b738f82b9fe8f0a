//! `rcon ps`

use std::cmp::Ordering;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use rcon_engine::{Container, Engine, ListRequest, Overview};
use serde_json::{Value, json};

use super::ps_fields::{blank, command, fields, object, pid, ports, status};
use super::ps_namespaces as namespaces;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::table::Table;
use crate::output::{self, human, json};

/// The arguments of `ps`.
#[derive(Args, Debug, Default)]
pub struct Ps {
    /// Show all the containers, default is only running containers
    #[arg(short = 'a', long)]
    all: bool,
    /// Show containers in storage that rcon does not control, of which there are none
    #[arg(long)]
    external: bool,
    /// Filter output based on conditions given
    #[arg(short = 'f', long)]
    filter: Vec<String>,
    /// Pretty-print containers to JSON or using a Go template
    #[arg(long)]
    format: Option<String>,
    /// Print the n last created containers (all states) (default -1)
    #[arg(short = 'n', long, value_name = "int")]
    last: Option<i64>,
    /// Show the latest container created (all states)
    #[arg(short = 'l', long)]
    latest: bool,
    /// Display the extended information
    #[arg(long)]
    no_trunc: bool,
    /// Do not print headers
    #[arg(long)]
    noheading: bool,
    /// Display namespace information
    #[arg(long)]
    ns: bool,
    /// Print the ID and name of the pod the containers are associated with, which is none
    #[arg(short = 'p', long)]
    pod: bool,
    /// Print the numeric IDs of the containers only
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Display the total file sizes
    #[arg(short = 's', long)]
    size: bool,
    /// Sort output by: command, created, id, image, names, runningfor, size, status
    #[arg(long, value_name = "choice", value_parser = sort_key)]
    sort: Option<String>,
    /// Look at the processes themselves, as rcon always does
    #[arg(long)]
    sync: bool,
    /// Watch the ps output on an interval in seconds
    #[arg(short = 'w', long, value_name = "uint")]
    watch: Option<u32>,
    #[arg(hide = true)]
    args: Vec<String>,
}

const COLUMNS: [&str; 7] = [
    "CONTAINER ID",
    "IMAGE",
    "COMMAND",
    "CREATED",
    "STATUS",
    "PORTS",
    "NAMES",
];

const HEADERS: [(&str, &str); 4] = [
    ("ID", "CONTAINER ID"),
    ("RunningFor", "CREATED"),
    ("CreatedHuman", "CREATED"),
    ("PodName", "PODNAME"),
];

impl Command for Ps {
    const ABOUT: &'static str = "List containers";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &[
        "ps -a",
        "ps -a --format \"{{.ID}}  {{.Image}}  {{.Labels}}  {{.Mounts}}\"",
        "ps --filter name=web --sort names",
    ];

    fn run(self, context: &Context) -> Outcome {
        if !self.args.is_empty() {
            return Err(Failure::new(format!(
                "`{}` takes no arguments",
                context.name
            )));
        }
        if self.latest && (self.all || self.last.is_some_and(|n| n >= 0)) {
            return Err(Failure::new(
                "--last, --all and --latest cannot be used together",
            ));
        }
        if self.ns && self.size {
            return Err(Failure::new(
                "the size and namespace options cannot be used together",
            ));
        }
        if self.external && (self.latest || self.last.is_some_and(|n| n >= 0) || self.ns) {
            return Err(Failure::new(
                "--external cannot be used with --last, --latest or --ns",
            ));
        }
        let Some(seconds) = self.watch.filter(|seconds| *seconds > 0) else {
            return self.show(context);
        };
        loop {
            // The screen is cleared, as podman does.
            output::print("\x1b[2J\x1b[1;1H")?;
            self.show(context)?;
            std::thread::sleep(Duration::from_secs(seconds.into()));
        }
    }
}

impl Ps {
    fn show(&self, context: &Context) -> Outcome {
        let request = ListRequest {
            all: self.all,
            last: match self.latest {
                true => Some(1),
                false => self.last.and_then(|n| usize::try_from(n).ok()),
            },
            filters: super::select::filters(&self.filter)?,
        };
        let engine = context.engine()?;
        let by_size = self.sort.as_deref() == Some("size");
        let sized = self.size || by_size;
        let table = matches!(Format::parse(self.format.as_deref()), Format::Default);
        let mut rows: Vec<Row> = match table && !sized && request.filters.is_empty() {
            true => {
                let found = engine.overview(request.all, request.last)?.into_iter();
                found.map(|short| Row { short, whole: None }).collect()
            }
            false => engine.list(&request)?.into_iter().map(Row::from).collect(),
        };
        let sizes = if sized {
            sizes(&engine, &rows)?
        } else {
            Sizes::new()
        };
        let size = |row: &Row| sizes.get(&row.short.id).map(|size| size.1);
        match &self.sort {
            // They come in the order in which they were created.
            None => {}
            Some(key) => rows.sort_by(|a, b| match by_size {
                true => size(a).cmp(&size(b)),
                false => order(key, &a.short, &b.short),
            }),
        }
        output::print(&self.render(&rows, &sizes, Utc::now())?)?;
        Ok(0)
    }
}

/// A container of the list: what its line says, and where that is not enough all of it.
struct Row {
    short: Overview,
    whole: Option<Box<Container>>,
}

impl From<Container> for Row {
    fn from(container: Container) -> Row {
        Row {
            short: Overview::from(&container),
            whole: Some(Box::new(container)),
        }
    }
}

fn sizes(engine: &Engine, rows: &[Row]) -> Result<Sizes, Failure> {
    let ids: Vec<String> = rows.iter().map(|row| row.short.id.clone()).collect();
    let images = engine.images()?;
    let (written, _) = engine.sizes(&ids, &[])?;
    let whole = rows.iter().filter_map(|row| row.whole.as_deref());
    let size = |c: &Container| {
        let image = images.iter().find(|i| i.id == c.config.image_id);
        let written = written.get(c.id()).copied().unwrap_or(0);
        let size = (written, written + image.map_or(0, |i| i.size));
        (c.config.id.clone(), size)
    };
    Ok(whole.map(size).collect())
}

/// What each container wrote, and that with its image.
type Sizes = std::collections::BTreeMap<String, (u64, u64)>;

impl Ps {
    fn render(&self, listed: &[Row], sizes: &Sizes, now: DateTime<Utc>) -> Result<String, Failure> {
        let containers = || listed.iter().filter_map(|row| row.whole.as_deref());
        let size = |id: &str| match sizes.get(id) {
            Some((written, all)) if self.size => format!(
                "{} (virtual {})",
                human::size(*written, ""),
                human::size(*all, "")
            ),
            _ => String::new(),
        };
        let rows = || {
            containers()
                .map(|c| {
                    let mut row = fields(c, !self.no_trunc, now);
                    row["Size"] = size(c.id()).into();
                    if self.ns {
                        namespaces::add(&mut row, pid(&c.state));
                    }
                    row
                })
                .collect::<Vec<_>>()
        };
        let id = |row: &Row| match self.no_trunc {
            true => row.short.id.clone(),
            false => human::short(&row.short.id).to_owned(),
        };
        match Format::parse(self.format.as_deref()) {
            Format::Default if self.quiet => Ok(listed.iter().map(|row| id(row) + "\n").collect()),
            Format::Default if self.ns => {
                let rows = listed
                    .iter()
                    .map(|row| (id(row), row.short.name.clone(), pid(&row.short.state)));
                Ok(namespaces::table(rows, !self.noheading))
            }
            Format::Default => {
                let mut table = Table::new();
                if !self.noheading {
                    let pods = ["POD ID", "PODNAME"].into_iter().filter(|_| self.pod);
                    let more = self.size.then_some("SIZE");
                    table.row(COLUMNS.into_iter().chain(pods).chain(more));
                }
                for row in listed {
                    let c = &row.short;
                    let more = self.size.then(|| size(&c.id));
                    let row = [
                        id(row),
                        c.image_name.clone(),
                        command(&c.words, !self.no_trunc),
                        human::ago(c.created, now),
                        status(&c.state, now),
                        ports(c.ports()),
                        c.name.clone(),
                    ];
                    let pods = [String::new(), String::new()];
                    let pods = pods.into_iter().filter(|_| self.pod);
                    table.row(row.into_iter().chain(pods).chain(more));
                }
                Ok(table.render())
            }
            Format::Json => {
                let object = |c| {
                    let mut object = object(c, now);
                    if let Some((written, all)) = sizes.get(c.id()).filter(|_| self.size) {
                        object["Size"] = json!({"rootFsSize": all, "rwSize": written});
                    }
                    if self.ns {
                        object["Namespaces"] = namespaces::object(pid(&c.state));
                    }
                    object
                };
                let objects = containers().map(object).collect();
                Ok(json::pretty(&Value::Array(objects), 2))
            }
            Format::Lines(text) => format::lines("ps", &text, &rows()),
            Format::Table(text) => {
                let rows = rows();
                let headers = rows.first().map(|row| format::headers(row, &HEADERS));
                let blank = || format::headers(&fields(&blank(), true, now), &HEADERS);
                let headers = (!self.noheading).then(|| headers.unwrap_or_else(blank));
                format::table("ps", &text, &rows, headers.as_ref())
            }
        }
    }
}

fn sort_key(text: &str) -> Result<String, String> {
    match text {
        "command" | "created" | "id" | "image" | "names" | "runningfor" | "size" | "status" => {
            Ok(text.into())
        }
        _ => Err(format!(
            "{text:?} is not a valid value.  Choose from: \"command, created, id, image, names, runningfor, size, status\""
        )),
    }
}

fn order(key: &str, a: &Overview, b: &Overview) -> Ordering {
    match key {
        "command" => command(&a.words, false).cmp(&command(&b.words, false)),
        "id" => a.id.cmp(&b.id),
        "image" => a.image_name.cmp(&b.image_name),
        "names" => a.name.cmp(&b.name),
        "runningfor" => a.state.started.cmp(&b.state.started),
        "status" => a.state.status.as_str().cmp(b.state.status.as_str()),
        _ => a.created.cmp(&b.created),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use rcon_engine::{PortMapping, Status};

    use super::*;

    fn container(now: DateTime<Utc>) -> Container {
        let mut c = blank();
        c.config.id = "2b8ffd109ec9d26396f80071fba95d521402dac16ca8ca02c822f5ddaca9c379".into();
        c.config.name = "web".into();
        c.config.image_name = "localhost/bb:1".into();
        c.config.created = now - TimeDelta::seconds(130);
        c.config.options.command = ["sh", "-c", "echo hi; echo err >&2"]
            .map(String::from)
            .to_vec();
        c.config.ports = PortMapping::parse("8080:80").unwrap();
        c.state.status = Status::Exited;
        c.state.exit_code = 3;
        c.state.finished = Some(now - TimeDelta::seconds(3));
        c
    }

    #[test]
    fn the_table_is_podmans() {
        let now = Utc::now();
        let text = Ps::default()
            .render(&[container(now).into()], &Sizes::new(), now)
            .unwrap();
        assert_eq!(
            text,
            "CONTAINER ID  IMAGE           COMMAND               CREATED        STATUS                    PORTS                 NAMES\n\
             2b8ffd109ec9  localhost/bb:1  sh -c echo hi; ec...  2 minutes ago  Exited (3) 3 seconds ago  0.0.0.0:8080->80/tcp  web\n"
        );
        let text = Ps::default().render(&[], &Sizes::new(), now).unwrap();
        assert_eq!(
            text,
            "CONTAINER ID  IMAGE       COMMAND     CREATED     STATUS      PORTS       NAMES\n"
        );
        let quiet = Ps {
            quiet: true,
            ..Ps::default()
        };
        assert_eq!(
            quiet
                .render(&[container(now).into()], &Sizes::new(), now)
                .unwrap(),
            "2b8ffd109ec9\n"
        );
    }

    #[test]
    fn templates_see_podmans_fields() {
        let now = Utc::now();
        let of = |text: &str| {
            let ps = Ps {
                format: Some(text.into()),
                ..Ps::default()
            };
            ps.render(&[container(now).into()], &Sizes::new(), now)
                .unwrap()
        };
        assert_eq!(
            of("{{.ID}} {{.Names}} {{.Status}}"),
            "2b8ffd109ec9 web Exited (3) 3 seconds ago\n"
        );
        assert_eq!(
            of("{{.Ports}}|{{.Command}}|{{.ExitCode}}|{{.Pid}}"),
            "0.0.0.0:8080->80/tcp|sh -c echo hi; ec...|3|0\n"
        );
        assert_eq!(
            of("table {{.ID}} {{.Names}}"),
            "CONTAINER ID  NAMES\n2b8ffd109ec9  web\n"
        );
        let none = Ps {
            format: Some("table {{.ID}} {{.ImageID}}".into()),
            ..Ps::default()
        };
        assert_eq!(
            none.render(&[], &Sizes::new(), now).unwrap(),
            "CONTAINER ID  IMAGE ID\n"
        );
    }

    #[test]
    fn json_has_podmans_keys() {
        let now = Utc::now();
        let object = object(&container(now), now);
        assert_eq!(object["State"], "exited");
        assert_eq!(object["Names"], json!(["web"]));
        assert_eq!(object["Ports"][0]["host_port"], 8080);
        assert_eq!(object["Exited"], true);
        assert_eq!(object["StartedAt"], -62_135_596_800_i64);
    }
}
