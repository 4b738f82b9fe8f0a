//! `state`, `list`, `ps`, `features` and `spec`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use rcon_launch::oci::{self, Container, Runtime, Status};
use rcon_sys::errors::in_words;
use serde_json::{Value, json};

use super::Command;
use super::globals::Globals;
use crate::failure::{Failure, Outcome};
use crate::output;

fn pretty(value: &Value) -> Outcome {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    output::println(&text)?;
    Ok(0)
}

/// `rcon oci state`
#[derive(Args, Debug)]
pub struct State {
    /// The id of the container
    id: String,
}

impl Command for State {
    fn run(self, runtime: &Runtime, _: &Globals) -> Outcome {
        pretty(&shape(&runtime.find(&self.id)?))
    }
}

/// What is told of a container (runtime.md, state), and what runc tells beside it.
fn shape(container: &Container) -> Value {
    let record = &container.record;
    let status = container.status();
    let mut shape = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": if status == Status::Stopped { 0 } else { record.pid },
        "status": status,
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": owner(record.owner),
    });
    if !record.annotations.is_empty() {
        shape["annotations"] = json!(record.annotations);
    }
    shape
}

fn owner(uid: u32) -> String {
    let table = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    rcon_sys::passwd::users(&table)
        .find(|user| user.uid == uid)
        .map_or_else(|| uid.to_string(), |user| user.name)
}

/// `rcon oci list`
#[derive(Args, Debug)]
pub struct List {
    /// "table" or "json"
    #[arg(short, long, default_value = "table")]
    format: String,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

impl Command for List {
    fn run(self, runtime: &Runtime, _: &Globals) -> Outcome {
        let all = runtime.list()?;
        if self.quiet {
            for container in &all {
                output::println(&container.record.id)?;
            }
            return Ok(0);
        }
        let shapes: Vec<Value> = all.iter().map(shape).collect();
        match self.format.as_str() {
            "json" => pretty(&Value::Array(shapes)),
            "table" => {
                let columns = ["id", "pid", "status", "bundle", "created", "owner"];
                let text = |shape: &Value, key: &str| match &shape[key] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let mut rows = vec![columns.map(str::to_uppercase)];
                rows.extend(
                    shapes
                        .iter()
                        .map(|shape| columns.map(|key| text(shape, key))),
                );
                output::print(&aligned(&rows))?;
                Ok(0)
            }
            other => Err(Failure::new(format!("invalid format option {other:?}"))),
        }
    }
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| {
        rows.iter()
            .map(|row| row[at].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: String = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}   "))
            .collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// `rcon oci ps`
#[derive(Args, Debug)]
pub struct Ps {
    /// "table" or "json"
    #[arg(short, long, default_value = "table")]
    format: String,
    /// The id of the container
    id: String,
    /// Options of ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Command for Ps {
    fn run(self, runtime: &Runtime, _: &Globals) -> Outcome {
        let processes = runtime.processes(&self.id)?;
        match self.format.as_str() {
            "json" => {
                output::println(&json!(processes).to_string())?;
                return Ok(0);
            }
            "table" => {}
            other => return Err(Failure::new(format!("invalid format option {other:?}"))),
        }
        let options = match self.options.is_empty() {
            true => vec!["-ef".to_owned()],
            false => self.options,
        };
        let ps = std::process::Command::new("ps")
            .args(options)
            .output()
            .map_err(|error| Failure::new(format!("cannot run ps: {}", in_words(&error))))?;
        if !ps.status.success() {
            let said = String::from_utf8_lossy(&ps.stderr);
            return Err(Failure::new(format!("ps: {}", said.trim_end())));
        }
        let table = String::from_utf8_lossy(&ps.stdout);
        let mut lines = table.lines();
        let head = lines.next().unwrap_or_default();
        let column = head
            .split_ascii_whitespace()
            .position(|word| word == "PID")
            .ok_or_else(|| Failure::new("ps prints no column PID with these options"))?;
        output::println(head)?;
        for line in lines {
            let pid = line.split_ascii_whitespace().nth(column);
            let pid = pid.and_then(|word| word.parse::<i32>().ok());
            if pid.is_some_and(|pid| processes.contains(&pid)) {
                output::println(line)?;
            }
        }
        Ok(0)
    }
}

/// `rcon oci features`
#[derive(Args, Debug)]
pub struct Features {}

impl Command for Features {
    fn run(self, _: &Runtime, _: &Globals) -> Outcome {
        pretty(&oci::features())
    }
}

/// `rcon oci spec`
#[derive(Args, Debug)]
pub struct Spec {
    /// The folder of the bundle (default: the current one)
    #[arg(short, long)]
    bundle: Option<PathBuf>,
    /// For a container of an ordinary user
    #[arg(long)]
    rootless: bool,
}

impl Command for Spec {
    fn run(self, _: &Runtime, _: &Globals) -> Outcome {
        let path = self.bundle.unwrap_or_default().join(oci::CONFIG);
        let ids = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let spec = oci::template(self.rootless.then_some(ids));
        let text = serde_json::to_string_pretty(&spec).unwrap_or_default();
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{text}"));
        written.map_err(|error| {
            let why = in_words(&error);
            Failure::new(format!("cannot write {}: {why}", path.display()))
        })?;
        Ok(0)
    }
}
