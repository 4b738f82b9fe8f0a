//! `rcon network stats` and `rcon network flows`: what goes on in the network of a running container.

use std::net::SocketAddr;

use clap::Args;
use rcon_engine::net::control::{Answer, Counts, Direction, Flow, Kind, Request, Stats};
use serde_json::Value;

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::table::Table;
use crate::output::{self, human, json};

/// What both are told.
#[derive(Args, Debug)]
struct Look {
    /// Pretty-print to JSON or using a Go template
    #[arg(long)]
    format: Option<String>,
    names: Vec<String>,
}

impl Look {
    /// Asks the network of the container that is meant.
    fn ask(&self, context: &Context, what: Request) -> Result<Answer, Failure> {
        let [name] = self.names.as_slice() else {
            return Err(Failure::new(format!(
                "accepts 1 arg(s), received {}",
                self.names.len()
            )));
        };
        match context.engine()?.look_at_network(name, what)? {
            Answer::Error(message) => Err(Failure::new(message)),
            answer => Ok(answer),
        }
    }
}

fn other_answer() -> Failure {
    Failure::new("the network of the container speaks another language")
        .hint("it was started by another version of rcon; restart the container")
}

fn value(of: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(of).map_err(Failure::new)
}

/// The arguments of `network stats`.
#[derive(Args, Debug)]
pub struct NetworkStats {
    #[command(flatten)]
    look: Look,
}

impl Command for NetworkStats {
    const ABOUT: &'static str = "Display what went through the network of a container";
    const USAGE: &'static str = "[options] CONTAINER";
    const EXAMPLES: &'static [&'static str] = &["network stats web"];

    fn run(self, context: &Context) -> Outcome {
        let Answer::Stats(stats) = self.look.ask(context, Request::Stats)? else {
            return Err(other_answer());
        };
        let text = match Format::parse(self.look.format.as_deref()) {
            Format::Default => describe(&stats),
            Format::Json => json::pretty(&value(&stats)?, 5),
            Format::Lines(text) => format::lines("network stats", &text, &[value(&stats)?])?,
            Format::Table(text) => {
                let objects = [value(&stats)?];
                let headers = format::headers(&objects[0], &[]);
                format::table("network stats", &text, &objects, Some(&headers))?
            }
        };
        output::print(&text)?;
        Ok(0)
    }
}

fn describe(stats: &Stats) -> String {
    let mut table = Table::new();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    let (tap, flows, limits) = (&stats.tap, &stats.flows, &stats.limits);
    let (opened, away) = (&stats.opened, &stats.turned_away);
    let up = i64::try_from(stats.uptime_ms).unwrap_or(i64::MAX);
    row("PROCESS", stats.pid.to_string());
    row("UP", human::duration(chrono::TimeDelta::milliseconds(up)));
    row("RESTARTS", stats.restarts.to_string());
    let traffic = |bytes, frames| format!("{} in {frames} frames", human::size(bytes, ""));
    row("SENT", traffic(tap.bytes_sent, tap.frames_sent));
    row("RECEIVED", traffic(tap.bytes_received, tap.frames_received));
    row("IGNORED", tap.ignored.to_string());
    row("DROPPED", tap.dropped.to_string());
    for (name, number) in [
        ("TCP", (|counts| counts.tcp) as fn(&Counts) -> u64),
        ("UDP", |counts| counts.udp),
        ("ICMP", |counts| counts.icmp),
        ("DNS", |counts| counts.dns),
        ("TCP IN", |counts| counts.published_tcp),
        ("UDP IN", |counts| counts.published_udp),
    ] {
        let (now, most, all) = (number(flows), number(limits), number(opened));
        let away = match number(away) {
            0 => String::new(),
            away => format!(", {away} turned away"),
        };
        row(name, format!("{now} of {most}, {all} in all{away}"));
    }
    let sandbox = stats.sandbox;
    let given_up: Vec<&str> = [
        (sandbox.no_files, "files"),
        (sandbox.no_capabilities, "capabilities"),
        (sandbox.few_calls, "system calls"),
    ]
    .into_iter()
    .filter_map(|(gone, what)| gone.then_some(what))
    .collect();
    row(
        "WITHOUT",
        match given_up.is_empty() {
            true => "nothing: no sandbox can be had here".into(),
            false => given_up.join(", "),
        },
    );
    table.render()
}

/// The arguments of `network flows`.
#[derive(Args, Debug)]
pub struct NetworkFlows {
    /// Do not print headers
    #[arg(short = 'n', long)]
    noheading: bool,
    #[command(flatten)]
    look: Look,
}

impl Command for NetworkFlows {
    const ABOUT: &'static str = "List who speaks to whom through the network of a container";
    const USAGE: &'static str = "[options] CONTAINER";
    const EXAMPLES: &'static [&'static str] =
        &["network flows web", "network flows --format json web"];

    fn run(self, context: &Context) -> Outcome {
        let Answer::Flows(mut flows) = self.look.ask(context, Request::Flows)? else {
            return Err(other_answer());
        };
        // The busiest first, those that nobody counts last.
        flows.sort_by_key(|flow| std::cmp::Reverse(flow.sent.max(flow.received)));
        let objects = || flows.iter().map(value).collect::<Result<Vec<Value>, _>>();
        let text = match Format::parse(self.look.format.as_deref()) {
            Format::Default => self.describe(&flows),
            Format::Json => json::pretty(&Value::Array(objects()?), 5),
            Format::Lines(text) => format::lines("network flows", &text, &objects()?)?,
            Format::Table(text) => {
                let objects = objects()?;
                let blank = value(&blank())?;
                let headers = format::headers(objects.first().unwrap_or(&blank), &[]);
                let headers = (!self.noheading).then_some(&headers);
                format::table("network flows", &text, &objects, headers)?
            }
        };
        output::print(&text)?;
        Ok(0)
    }
}

impl NetworkFlows {
    fn describe(&self, flows: &[Flow]) -> String {
        let mut table = Table::new();
        if !self.noheading {
            table.row([
                "PROTO",
                "DIR",
                "STATE",
                "CONTAINER",
                "PEER",
                "HOST",
                "SENT",
                "RECEIVED",
                "IDLE",
            ]);
        }
        let bytes = |count: Option<u64>| count.map_or("-".into(), |count| human::size(count, ""));
        for flow in flows {
            let idle = |ms: u64| format!("{}.{}s", ms / 1000, ms % 1000 / 100);
            table.row([
                match flow.kind {
                    Kind::Tcp => "tcp".into(),
                    Kind::Udp => "udp".into(),
                    Kind::Icmp => "icmp".into(),
                    Kind::Dns => "dns".into(),
                },
                match flow.direction {
                    Direction::Out => "out".into(),
                    Direction::In => "in".into(),
                },
                flow.state.clone(),
                flow.container.to_string(),
                flow.peer.to_string(),
                flow.host
                    .map_or("-".into(), |host: SocketAddr| host.to_string()),
                bytes(flow.sent),
                bytes(flow.received),
                flow.idle_ms.map_or("-".into(), idle),
            ]);
        }
        table.render()
    }
}

/// A flow of which only the names of the fields matter.
fn blank() -> Flow {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    Flow {
        kind: Kind::Tcp,
        direction: Direction::Out,
        state: String::new(),
        container: nowhere,
        peer: nowhere,
        host: None,
        sent: None,
        received: None,
        idle_ms: None,
    }
}
