//! `rcon ps`

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use rcon_engine::{Container, Filters, ListRequest, Network, PortMapping, Status, bundle};
use serde_json::{Value, json};

use super::ps_namespaces as namespaces;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::table::{Table, ellipsis};
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
            filters: Filters::parse(&self.filter)?,
        };
        let engine = context.engine()?;
        let mut containers = engine.list(&request)?;
        let by_size = self.sort.as_deref() == Some("size");
        let mut sizes = Sizes::new();
        if self.size || by_size {
            let ids: Vec<String> = containers.iter().map(|c| c.config.id.clone()).collect();
            let images = engine.images()?;
            let (written, _) = engine.sizes(&ids, &[])?;
            for c in &containers {
                let image = images.iter().find(|i| i.id == c.config.image_id);
                let written = written.get(c.id()).copied().unwrap_or(0);
                let size = (written, written + image.map_or(0, |i| i.size));
                sizes.insert(c.config.id.clone(), size);
            }
        }
        sort(&mut containers, self.sort.as_deref());
        if by_size {
            containers.sort_by_key(|c| sizes.get(c.id()).map(|size| size.1));
        }
        output::print(&self.render(&containers, &sizes, Utc::now())?)?;
        Ok(0)
    }
}

/// What each container wrote, and that with its image.
type Sizes = std::collections::BTreeMap<String, (u64, u64)>;

impl Ps {
    fn render(
        &self,
        containers: &[Container],
        sizes: &Sizes,
        now: DateTime<Utc>,
    ) -> Result<String, Failure> {
        let size = |c: &Container| match sizes.get(c.id()) {
            Some((written, all)) if self.size => format!(
                "{} (virtual {})",
                human::size(*written, ""),
                human::size(*all, "")
            ),
            _ => String::new(),
        };
        let rows = || {
            containers
                .iter()
                .map(|c| {
                    let mut row = fields(c, !self.no_trunc, now);
                    row["Size"] = size(c).into();
                    if self.ns {
                        namespaces::add(&mut row, pid(c));
                    }
                    row
                })
                .collect::<Vec<_>>()
        };
        let id = |c: &Container| {
            if self.no_trunc {
                c.config.id.clone()
            } else {
                c.config.short_id().to_owned()
            }
        };
        match Format::parse(self.format.as_deref()) {
            Format::Default if self.quiet => Ok(containers.iter().map(|c| id(c) + "\n").collect()),
            Format::Default if self.ns => {
                let rows = containers
                    .iter()
                    .map(|c| (id(c), c.config.name.clone(), pid(c)));
                Ok(namespaces::table(rows, !self.noheading))
            }
            Format::Default => {
                let mut table = Table::new();
                if !self.noheading {
                    let pods = ["POD ID", "PODNAME"].into_iter().filter(|_| self.pod);
                    let more = self.size.then_some("SIZE");
                    table.row(COLUMNS.into_iter().chain(pods).chain(more));
                }
                for c in containers {
                    let more = self.size.then(|| size(c));
                    let row = [
                        id(c),
                        c.config.image_name.clone(),
                        command(c, !self.no_trunc),
                        human::ago(c.config.created, now),
                        status(c, now),
                        ports(c.ports()),
                        c.config.name.clone(),
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
                        object["Namespaces"] = namespaces::object(pid(c));
                    }
                    object
                };
                let objects = containers.iter().map(object).collect();
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

/// A container that is nobody's, for the names of the fields.
fn blank() -> Container {
    Container {
        config: rcon_engine::Config {
            format: rcon_engine::record::FORMAT,
            id: String::new(),
            name: String::new(),
            created: DateTime::UNIX_EPOCH,
            image_id: String::new(),
            image_name: String::new(),
            image_digest: String::new(),
            image_config: rcon_engine::ImageConfig::default(),
            options: rcon_engine::Options::default(),
            sharing: rcon_engine::Sharing::default(),
            arranged: None,
            network: Network::None,
            ports: Vec::new(),
            names: rcon_engine::NameOptions::default(),
            auto_remove: false,
            restart: rcon_engine::RestartPolicy::No,
            lifecycle: rcon_engine::Lifecycle::default(),
            cgroup: rcon_engine::CgroupChoice::default(),
            volumes: Vec::new(),
            secrets: Vec::new(),
            create_command: Vec::new(),
            by_run: None,
        },
        state: rcon_engine::State::default(),
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

fn sort(containers: &mut [Container], key: Option<&str>) {
    match key {
        Some("command") => containers.sort_by_key(|c| command(c, false)),
        Some("id") => containers.sort_by(|a, b| a.config.id.cmp(&b.config.id)),
        Some("image") => containers.sort_by(|a, b| a.config.image_name.cmp(&b.config.image_name)),
        Some("names") => containers.sort_by(|a, b| a.config.name.cmp(&b.config.name)),
        Some("runningfor") => containers.sort_by_key(|c| c.state.started),
        Some("status") => containers.sort_by_key(|c| c.state.status.as_str()),
        _ => containers.sort_by_key(|c| c.config.created),
    }
}

/// The user's words after the image or the image's own, without the entry point.
fn words(c: &Container) -> Vec<String> {
    bundle::command(&c.config.image_config, &c.config.options)
        .map_or_else(|_| c.config.options.command.clone(), |c| c.shown)
}

fn command(c: &Container, cut: bool) -> String {
    let text = bundle::display(&words(c));
    if cut { ellipsis(&text, 17) } else { text }
}

/// `Up 2 minutes`, `Exited (0) 3 seconds ago`, `Created`, …
pub fn status(c: &Container, now: DateTime<Utc>) -> String {
    let since =
        |time: Option<DateTime<Utc>>| time.map_or_else(String::new, |t| human::duration(now - t));
    match c.state.status {
        Status::Running => {
            let up = since(c.state.started);
            match c.state.health {
                Some(health) => format!("Up {up} ({})", health.status.as_str()),
                None => format!("Up {up}"),
            }
        }
        Status::Paused => "Paused".into(),
        Status::Exited => format!(
            "Exited ({}) {} ago",
            c.state.exit_code,
            since(c.state.finished)
        ),
        Status::Created => "Created".into(),
        Status::Initialized => "Initialized".into(),
        Status::Stopping => "Stopping".into(),
    }
}

/// As [`status`], with the `ago` that podman says of this field.
fn state(c: &Container, now: DateTime<Utc>) -> String {
    match c.state.status {
        Status::Running => status(c, now) + " ago",
        _ => status(c, now),
    }
}

/// `0.0.0.0:8080->80/tcp, 0.0.0.0:9000-9002->9000-9002/tcp`
fn ports(ports: &[PortMapping]) -> String {
    let mut sorted: Vec<&PortMapping> = ports.iter().collect();
    sorted.sort_by_key(|p| (p.protocol.to_string(), p.host_port));
    let run = |first: u16, range: u16| match range {
        0 | 1 => first.to_string(),
        _ => format!("{first}-{}", first.saturating_add(range - 1)),
    };
    let one = |p: &&PortMapping| {
        let inside = format!("{}/{}", run(p.container_port, p.range), p.protocol);
        match (p.host_port, p.host_ip) {
            // Chosen when it starts.
            (0, _) => inside,
            (port, None) => format!("0.0.0.0:{}->{inside}", run(port, p.range)),
            (port, Some(std::net::IpAddr::V6(ip))) => {
                format!("[{ip}]:{}->{inside}", run(port, p.range))
            }
            (port, Some(ip)) => format!("{ip}:{}->{inside}", run(port, p.range)),
        }
    };
    sorted.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn mounts(c: &Container) -> Vec<&str> {
    let users = c
        .config
        .options
        .mounts
        .iter()
        .map(|m| m.destination.as_str());
    let volumes = c.config.volumes.iter().map(|v| v.destination.as_str());
    let mut all: Vec<&str> = users.collect();
    for destination in volumes {
        if !all.contains(&destination) {
            all.push(destination);
        }
    }
    all
}

fn pid(c: &Container) -> i32 {
    match (c.state.status.has_process(), c.state.process) {
        (true, Some(process)) => process.pid,
        _ => 0,
    }
}

/// A container as `--format json` shows it.
fn object(c: &Container, now: DateTime<Utc>) -> Value {
    let ended = !c.state.status.is_alive() && c.state.finished.is_some();
    let labels = c.config.labels();
    let ports: Vec<Value> = c
        .ports()
        .iter()
        .map(|p| {
            json!({
                "host_ip": p.host_ip.map_or_else(String::new, |ip| ip.to_string()),
                "container_port": p.container_port,
                "host_port": p.host_port,
                "range": p.range,
                "protocol": p.protocol.to_string(),
            })
        })
        .collect();
    json!({
        "AutoRemove": c.config.auto_remove,
        "Command": words(c),
        "CreatedAt": human::ago(c.config.created, now),
        "Exited": ended,
        "ExitedAt": human::unix(c.state.finished.filter(|_| ended)),
        "ExitCode": c.state.exit_code,
        "Id": c.config.id,
        "Image": c.config.image_name,
        "ImageID": c.config.image_id,
        "IsInfra": false,
        "Labels": if labels.is_empty() { Value::Null } else { json!(labels) },
        "Mounts": mounts(c),
        "Names": [c.config.name],
        "Namespaces": {},
        "Networks": [],
        "Pid": pid(c),
        "Pod": "",
        "PodName": "",
        "Ports": if ports.is_empty() { Value::Null } else { Value::Array(ports) },
        "Size": null,
        "StartedAt": human::unix(c.state.started),
        "Restarts": c.state.restarts,
        "State": c.state.status.as_str(),
        "Status": status(c, now),
        "Created": c.config.created.timestamp(),
    })
}

/// A container as templates see it: podman's reporter gives most fields in words.
fn fields(c: &Container, cut: bool, now: DateTime<Utc>) -> Value {
    let mut object = object(c, now);
    let cut_id = |id: &str| {
        if cut {
            human::short(id).to_owned()
        } else {
            id.to_owned()
        }
    };
    let labels = c.config.labels();
    let own = [
        ("ID", json!(cut_id(&c.config.id))),
        ("ImageID", json!(cut_id(&c.config.image_id))),
        ("Names", json!(c.config.name)),
        ("Command", json!(command(c, cut))),
        ("Created", json!(human::moment(c.config.created))),
        ("CreatedAt", json!(human::moment(c.config.created))),
        ("CreatedHuman", json!(human::ago(c.config.created, now))),
        ("RunningFor", json!(human::ago(c.config.created, now))),
        ("State", json!(state(c, now))),
        ("Ports", json!(ports(c.ports()))),
        ("Networks", json!("")),
        ("Labels", json!(labels)),
        ("Size", json!("")),
    ];
    if let Some(map) = object.as_object_mut() {
        map.extend(own.map(|(name, value)| (name.to_owned(), value)));
    }
    object
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

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
            .render(&[container(now)], &Sizes::new(), now)
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
            quiet.render(&[container(now)], &Sizes::new(), now).unwrap(),
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
            ps.render(&[container(now)], &Sizes::new(), now).unwrap()
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

    #[test]
    fn ports_are_listed() {
        let mut all = PortMapping::parse("127.0.0.1:5353:53/udp").unwrap();
        all.extend(PortMapping::parse("9000-9002:9000-9002").unwrap());
        all.extend(PortMapping::parse("[::1]:8080:80").unwrap());
        assert_eq!(
            ports(&all),
            "[::1]:8080->80/tcp, 0.0.0.0:9000-9002->9000-9002/tcp, 127.0.0.1:5353->53/udp"
        );
    }
}
