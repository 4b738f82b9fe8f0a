//! `rcon stats`

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use chrono::Utc;
use clap::Args;
use rcon_engine::processes::Usage;
use rcon_engine::{Container, Engine, Filters, ListRequest};
use serde_json::{Value, json};

use super::select;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::{self, human};

/// The arguments of `stats`.
#[derive(Args, Debug)]
pub struct Stats {
    /// Show all containers. Only running containers are shown by default
    #[arg(short = 'a', long)]
    all: bool,
    /// Pretty-print container statistics to JSON or using a Go template
    #[arg(long)]
    format: Option<String>,
    /// Time in seconds between stats reports (default 5)
    #[arg(short = 'i', long, value_name = "int")]
    interval: Option<u32>,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    /// Disable resetting the screen between intervals
    #[arg(long)]
    no_reset: bool,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    names: Vec<String>,
}

/// The columns when nothing is said.
const USUAL: &str = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDS}}\t{{.UpTime}}\t{{.AVGCPU}}\n";

const HEADERS: &[(&str, &str)] = &[
    ("ID", "ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemUsageBytes", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET IO"),
    ("BlockIO", "BLOCK IO"),
    ("PIDS", "PIDS"),
    ("UpTime", "CPU TIME"),
    ("AVGCPU", "AVG CPU %"),
];

impl Command for Stats {
    const ABOUT: &'static str = "Display a live stream of container resource usage statistics";
    const USAGE: &'static str = "[options] [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] = &[
        "stats --all --no-stream",
        "stats ctrID",
        "stats --no-stream --format \"table {{.ID}} {{.Name}} {{.MemUsage}}\" ctrID",
    ];

    fn run(mut self, context: &Context) -> Outcome {
        let ways = [self.all, self.latest, !self.names.is_empty()];
        if ways.iter().filter(|way| **way).count() > 1 {
            return Err(Failure::new(
                "--all, --latest and containers cannot be used together",
            ));
        }
        if self.interval == Some(0) {
            return Err(Failure::new("invalid stats interval, must be at least 1"));
        }
        let engine = context.engine()?;
        if self.latest {
            self.names = vec![select::latest(&engine)?];
        }
        // A name that nobody has is said before anything is shown.
        for name in &self.names {
            engine.container(name)?;
        }
        let format = Format::parse(self.format.as_deref());
        let screen = !self.no_reset && format != Format::Json && std::io::stdout().is_terminal();
        let interval = Duration::from_secs(self.interval.unwrap_or(5).into());
        let mut before: HashMap<String, (Instant, Duration)> = HashMap::new();
        loop {
            let rows = self.rows(&engine, &mut before)?;
            let text = self.show(&format, &rows)?;
            if screen && !self.no_stream {
                output::print(&format!("\x1b[2J\x1b[1;1H{text}"))?;
            } else {
                output::print(&text)?;
            }
            // Those that were named have ended: nothing will ever change.
            if self.no_stream || (!self.names.is_empty() && rows.is_empty()) {
                return Ok(0);
            }
            std::thread::sleep(interval);
        }
    }
}

impl Stats {
    /// The containers that are meant and run now.
    fn containers(&self, engine: &Engine) -> Result<Vec<Container>, Failure> {
        let mut list = match self.names.is_empty() {
            true => engine.list(&ListRequest {
                all: false,
                last: None,
                filters: Filters::default(),
            })?,
            false => self
                .names
                .iter()
                .filter_map(|name| engine.container(name).ok())
                .collect(),
        };
        list.retain(|container| container.state.status.is_alive());
        Ok(list)
    }

    fn rows(
        &self,
        engine: &Engine,
        before: &mut HashMap<String, (Instant, Duration)>,
    ) -> Result<Vec<Value>, Failure> {
        let mut rows = Vec::new();
        let mut now = HashMap::new();
        for container in self.containers(engine)? {
            let usage = engine.usage(&container);
            let since_start = container
                .state
                .started
                .and_then(|started| (Utc::now() - started).to_std().ok())
                .unwrap_or_default();
            let average = share(usage.cpu, since_start);
            let moment = Instant::now();
            // Without an earlier look at it, its whole life is what there is.
            let current = match before.get(container.id()) {
                Some((then, used)) => share(usage.cpu.saturating_sub(*used), moment - *then),
                None => average,
            };
            now.insert(container.id().to_owned(), (moment, usage.cpu));
            rows.push(self.row(&container, &usage, current, average));
        }
        *before = now;
        Ok(rows)
    }

    fn row(&self, container: &Container, usage: &Usage, current: f64, average: f64) -> Value {
        let id = match self.no_trunc {
            true => container.id(),
            false => human::short(container.id()),
        };
        let memory = match usage.memory_limit {
            0 => 0.0,
            limit => usage.memory as f64 / limit as f64 * 100.0,
        };
        let pids = match usage.pids {
            0 => "--".to_owned(),
            count => count.to_string(),
        };
        json!({
            "ID": id,
            "ContainerID": container.id(),
            "Name": container.config.name,
            "CPUPerc": percent(current),
            "CPU": current,
            "CPUNano": nanos(usage.cpu),
            "CPUSystemNano": nanos(usage.cpu_system),
            "AVGCPU": percent(average),
            "AvgCPU": average,
            "MemUsage": both(usage.memory, usage.memory_limit, human::decimal),
            "MemUsageBytes": both(usage.memory, usage.memory_limit, human::binary),
            "MemLimit": usage.memory_limit,
            "MemPerc": percent(memory),
            "NetIO": both(usage.net_in, usage.net_out, human::decimal),
            "NetInput": usage.net_in,
            "NetOutput": usage.net_out,
            "BlockIO": both(usage.block_read, usage.block_written, human::decimal),
            "BlockInput": usage.block_read,
            "BlockOutput": usage.block_written,
            "PIDS": pids,
            "PIDs": usage.pids,
            "UpTime": human::go_duration(usage.cpu),
        })
    }

    fn show(&self, format: &Format, rows: &[Value]) -> Result<String, Failure> {
        let headers = || {
            let names = json!(
                HEADERS
                    .iter()
                    .map(|(n, _)| (*n, ""))
                    .collect::<HashMap<_, _>>()
            );
            format::headers(&names, HEADERS)
        };
        match format {
            Format::Json => Ok(output::json::pretty(&json_rows(rows), 4)),
            Format::Lines(text) => format::lines("stats", text, rows),
            Format::Table(text) => format::table("stats", text, rows, Some(&headers())),
            Format::Default => format::table("stats", USUAL, rows, Some(&headers())),
        }
    }
}

/// The rows under the names that podman's JSON has for them.
fn json_rows(rows: &[Value]) -> Value {
    const NAMES: [(&str, &str); 10] = [
        ("id", "ID"),
        ("name", "Name"),
        ("cpu_time", "UpTime"),
        ("cpu_percent", "CPUPerc"),
        ("avg_cpu", "AVGCPU"),
        ("mem_usage", "MemUsage"),
        ("mem_percent", "MemPerc"),
        ("net_io", "NetIO"),
        ("block_io", "BlockIO"),
        ("pids", "PIDS"),
    ];
    let one = |row: &Value| -> Value {
        let pairs = NAMES
            .iter()
            .map(|(new, old)| ((*new).to_owned(), row[*old].clone()));
        Value::Object(pairs.collect())
    };
    rows.iter().map(one).collect()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Per cent of one processor.
fn share(used: Duration, of: Duration) -> f64 {
    match of.is_zero() {
        true => 0.0,
        false => used.as_secs_f64() / of.as_secs_f64() * 100.0,
    }
}

fn percent(value: f64) -> String {
    match value.is_finite() && value >= 0.0 {
        true => format!("{value:.2}%"),
        false => "--".to_owned(),
    }
}

fn both(one: u64, two: u64, words: fn(u64) -> String) -> String {
    match (one, two) {
        (0, 0) => "-- / --".to_owned(),
        (one, two) => format!("{} / {}", words(one), words(two)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_podmans() {
        assert_eq!(percent(1.234), "1.23%");
        assert_eq!(percent(f64::NAN), "--");
        assert_eq!(both(0, 0, human::decimal), "-- / --");
        assert_eq!(
            both(3_092_000, 16_700_000_000, human::decimal),
            "3.092MB / 16.7GB"
        );
        assert_eq!(share(Duration::from_secs(1), Duration::from_secs(4)), 25.0);
        assert_eq!(share(Duration::from_secs(1), Duration::ZERO), 0.0);
    }

    #[test]
    fn json_has_podmans_names() {
        let row = json!({"ID": "a", "Name": "n", "PIDS": "2"});
        let json = json_rows(&[row]);
        assert_eq!(
            (&json[0]["id"], &json[0]["pids"]),
            (&json!("a"), &json!("2"))
        );
        assert_eq!(json[0].as_object().unwrap().len(), 10);
    }
}
