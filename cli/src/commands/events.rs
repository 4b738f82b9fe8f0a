//! `rcon events`

use std::io;

use chrono::{DateTime, Utc};
use clap::Args;
use rcon_engine::events::Kind;
use rcon_engine::{Event, EventFilters, EventRequest};
use serde_json::{Map, Value, json};

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::{self, human};
use crate::times;
use crate::usage::parse_bool;

/// The arguments of `events`.
#[derive(Args, Debug)]
pub struct Events {
    /// Filter output: container, event, image, label, type, volume
    #[arg(short = 'f', long, value_name = "stringArray")]
    filter: Vec<String>,
    /// Format the output as JSON or with a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not truncate the output (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    no_trunc: Option<bool>,
    /// Show all events created since timestamp
    #[arg(long)]
    since: Option<String>,
    /// Stream events and do not exit when returning the last known event (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    stream: Option<bool>,
    /// Show all events until timestamp
    #[arg(long)]
    until: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Command for Events {
    const ABOUT: &'static str = "Show what happened to containers, images and volumes";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &[
        "events",
        "events --filter event=died --since 10m --stream=false",
        "events --format '{{.Time}} {{.Name}} {{.Status}}'",
    ];

    fn run(self, context: &Context) -> Outcome {
        if !self.args.is_empty() {
            return Err(Failure::new(format!(
                "`{}` takes no arguments",
                context.name
            )));
        }
        let now = Utc::now();
        let moment =
            |name: &str, text: &Option<String>| -> Result<Option<DateTime<Utc>>, Failure> {
                text.as_deref()
                    .map(|text| {
                        // A length of time is one ago, but for the end, which is still to come.
                        let ahead = times::duration(text).filter(|_| name == "until");
                        let ahead = ahead.and_then(|length| now.checked_add_signed(length));
                        ahead.or_else(|| times::parse(text, now)).ok_or_else(|| {
                            Failure::new(format!("--{name} {text:?} is no time"))
                                .hint("write 10m (ago), 2026-11-23T19:26:53 or seconds since 1970")
                        })
                    })
                    .transpose()
            };
        let request = EventRequest {
            since: moment("since", &self.since)?,
            until: moment("until", &self.until)?,
            stream: self.stream.unwrap_or(true),
            filters: EventFilters::parse(&self.filter)?,
        };
        let format = Format::parse(self.format.as_deref());
        if let Format::Lines(text) | Format::Table(text) = &format {
            // A template that cannot be is refused at once, not with the first event.
            format::render(
                "events",
                text,
                &fields(&Event::volume("", rcon_engine::Action::Create)),
            )?;
        }
        let cut = self.no_trunc == Some(false);
        let mut refused = None;
        let ended = context.engine()?.events(&request, &mut |event| {
            let line = match &format {
                Format::Default => words(event, cut),
                Format::Json => object(event).to_string(),
                Format::Lines(text) | Format::Table(text) => {
                    match format::render("events", text, &fields(event)) {
                        Ok(line) => line,
                        Err(failure) => {
                            refused = Some(failure);
                            return Err(io::ErrorKind::Other.into());
                        }
                    }
                }
            };
            output::print(line.trim_end_matches('\n'))?;
            output::print("\n")
        })?;
        if let Some(failure) = refused {
            return Err(failure);
        }
        ended?;
        Ok(0)
    }
}

/// An event as podman says it in one line.
fn words(event: &Event, cut: bool) -> String {
    let id = if cut {
        human::short(&event.id)
    } else {
        &event.id
    };
    let start = format!(
        "{} {} {}",
        human::moment(event.time),
        event.kind,
        event.action
    );
    match event.kind {
        Kind::Container => {
            let mut text = format!("{start} {id} (image={}, name={}", event.image, event.name);
            if let Some(health) = &event.health_status {
                text += &format!(", health_status={health}");
            }
            for (name, value) in &event.attributes {
                text += &format!(", {name}={value}");
            }
            text + ")"
        }
        Kind::Image | Kind::Secret => format!("{start} {id} {}", event.name),
        Kind::Volume => format!("{start} {}", event.name),
        Kind::System => start,
    }
}

/// An event as `--format json` shows it: what it does not have is left out.
fn object(event: &Event) -> Value {
    let mut map = Map::new();
    let mut text = |name: &str, value: &str| {
        if !value.is_empty() {
            map.insert(name.into(), value.into());
        }
    };
    text("ID", &event.id);
    text("Image", &event.image);
    text("Name", &event.name);
    text("Status", event.action.as_str());
    text("Time", &human::rfc3339(Some(event.time)));
    text("Type", event.kind.as_str());
    text("HealthStatus", event.health_status.as_deref().unwrap_or(""));
    if let Some(code) = event.exit_code {
        map.insert("ContainerExitCode".into(), code.into());
    }
    let attributes = match event.attributes.is_empty() {
        true => Value::Null,
        false => json!(event.attributes),
    };
    map.insert("Attributes".into(), attributes);
    Value::Object(map)
}

/// An event as templates see it.
fn fields(event: &Event) -> Value {
    json!({
        "ID": event.id,
        "Image": event.image,
        "Name": event.name,
        "Status": event.action.as_str(),
        "Time": human::moment(event.time),
        "TimeNano": event.time.timestamp_nanos_opt().unwrap_or_default(),
        "Type": event.kind.as_str(),
        "HealthStatus": event.health_status.as_deref().unwrap_or(""),
        "ContainerExitCode": event.exit_code.unwrap_or_default(),
        "Attributes": event.attributes,
        "PodID": "",
        "Network": "",
    })
}

#[cfg(test)]
mod tests {
    use rcon_engine::Action;

    use super::*;

    #[test]
    fn lines_and_json() {
        let mut event = Event::image_id("0123456789abcdef", Action::Pull, "localhost/x:latest");
        event.time = DateTime::from_timestamp(1_795_462_013, 5).unwrap();
        let line = words(&event, true);
        assert!(
            line.ends_with(" image pull 0123456789ab localhost/x:latest"),
            "{line}"
        );
        event.kind = Kind::Container;
        event.image = "i".into();
        let event = event.with("a", "b").health("healthy").exited(3);
        let line = words(&event, false);
        assert!(line.ends_with(
            " container pull 0123456789abcdef (image=i, name=localhost/x:latest, health_status=healthy, a=b)"
        ));
        let object = object(&event);
        assert_eq!(object["Time"], "2026-11-23T19:26:53.000000005Z");
        assert_eq!(object["ContainerExitCode"], 3);
        assert_eq!(object["Attributes"]["a"], "b");
    }
}
