//! `rcon logs`

use std::io::{self, BufWriter, Write};

use chrono::{DateTime, Local, Utc};
use clap::Args;
use rcon_engine::{Engine, LogLine, LogRequest, Stream};

use super::select::Selection;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::human;
use crate::times;

/// The arguments of `logs`.
#[derive(Args, Debug)]
pub struct Logs {
    /// Follow log output. The default is false
    #[arg(short = 'f', long)]
    follow: bool,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    /// Output the container name in the log
    #[arg(short = 'n', long)]
    names: bool,
    /// Show logs since TIMESTAMP
    #[arg(long)]
    since: Option<String>,
    /// Output the specified number of LINES at the end of the logs. Defaults to -1, which prints all lines
    #[arg(long, value_name = "int")]
    tail: Option<i64>,
    /// Output the timestamps in the log
    #[arg(short = 't', long)]
    timestamps: bool,
    /// Show logs until TIMESTAMP
    #[arg(long)]
    until: Option<String>,
    containers: Vec<String>,
}

impl Command for Logs {
    const ABOUT: &'static str = "Fetch the logs of one or more containers";
    const USAGE: &'static str = "[options] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static [&'static str] = &[
        "logs --tail 2 mywebserver",
        "logs --follow=true --since 10m ctrID",
        "logs --names ctrID1 ctrID2",
    ];

    fn run(self, context: &Context) -> Outcome {
        let now = Utc::now();
        let moment =
            |flag: &str, text: &Option<String>| -> Result<Option<DateTime<Utc>>, Failure> {
                let Some(text) = text else { return Ok(None) };
                let unreadable = || {
                    Failure::new(format!(
                        "parsing --{flag} {text:?}: unable to interpret time value"
                    ))
                };
                // A length of time is one ago, but for the end, which is still to come.
                let ahead = times::duration(text).filter(|_| flag == "until");
                ahead
                    .and_then(|length| now.checked_add_signed(length))
                    .or_else(|| times::parse(text, now))
                    .map(Some)
                    .ok_or_else(unreadable)
            };
        let request = LogRequest {
            follow: self.follow,
            tail: self.tail.and_then(|n| u64::try_from(n).ok()),
            since: moment("since", &self.since)?,
            until: moment("until", &self.until)?,
        };
        let engine = context.engine()?;
        let names = Selection {
            names: &self.containers,
            latest: self.latest,
            nothing: "specify at least one container name or ID to log",
            ..Selection::default()
        }
        .resolve(&engine)?;
        // One that is not there spoils it all, before anything is printed.
        let mut containers = Vec::new();
        for name in &names {
            containers.push(engine.container(name)?.config);
        }
        let show = |id: &str, name: &str| {
            // Of one container there is nothing to tell apart.
            let prefix = match (names.len(), self.names) {
                (0 | 1, _) => String::new(),
                (_, true) => format!("{name} "),
                (_, false) => format!("{} ", human::short(id)),
            };
            show(
                &engine,
                id,
                &request,
                &Printer {
                    prefix,
                    timestamps: self.timestamps,
                },
            )
        };
        if !self.follow || containers.len() == 1 {
            for config in &containers {
                show(&config.id, &config.name)?;
            }
            return Ok(0);
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = containers
                .iter()
                .map(|config| scope.spawn(|| show(&config.id, &config.name)))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Failure::new("reading a log failed")))
            })
        })?;
        Ok(0)
    }
}

/// How the lines of one container are printed.
struct Printer {
    prefix: String,
    timestamps: bool,
}

fn show(engine: &Engine, id: &str, request: &LogRequest, printer: &Printer) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout());
    let mut err = BufWriter::new(io::stderr());
    let mut last = None;
    let mut fresh = [true; 2];
    engine.logs(id, request, &mut |line: &LogLine<'_>| {
        let at = usize::from(line.stream == Stream::Stderr);
        // In the order they were written, should both go to the same place.
        if last.is_some_and(|last| last != line.stream) {
            out.flush()?;
            err.flush()?;
        }
        last = Some(line.stream);
        let writer: &mut dyn Write = match line.stream {
            Stream::Stdout => &mut out,
            Stream::Stderr => &mut err,
        };
        if fresh[at] {
            writer.write_all(printer.prefix.as_bytes())?;
            if printer.timestamps {
                write!(writer, "{} ", timestamp(line.time))?;
            }
        }
        writer.write_all(line.text)?;
        fresh[at] = !line.partial;
        if !line.partial {
            writer.write_all(b"\n")?;
        }
        if request.follow {
            writer.flush()
        } else {
            Ok(())
        }
    })?;
    out.flush()?;
    err.flush()?;
    Ok(())
}

/// With nanoseconds and the local zone (RFC 3339).
fn timestamp(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local)
        .to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}
