//! `rcon secret create|exists|inspect|ls|rm`

use std::io::Read;

use chrono::Utc;
use clap::Args;
use rcon_engine::{Engine, Error, Secret};
use rcon_sys::errors;
use serde_json::{Value, json};

use super::volume::labels;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome, for_each};
use crate::output::format::{self, Format};
use crate::output::table::Table;
use crate::output::{self, human, json};
use crate::usage::arity;

/// The arguments of `secret create`.
#[derive(Args, Debug)]
pub struct SecretCreate {
    /// Specify secret driver (only "file" is there)
    #[arg(short = 'd', long)]
    driver: Option<String>,
    /// Read secret data from environment variable
    #[arg(long)]
    env: bool,
    /// If a secret with the same name exists, leave it as it is
    #[arg(long)]
    ignore: bool,
    /// Specify labels on the secret
    #[arg(short = 'l', long, value_name = "stringArray")]
    label: Vec<String>,
    /// If a secret with the same name exists, replace it
    #[arg(long)]
    replace: bool,
    args: Vec<String>,
}

impl Command for SecretCreate {
    const ABOUT: &'static str = "Create a new secret";
    const USAGE: &'static str = "[options] NAME FILE|-";
    const EXAMPLES: &'static [&'static str] = &[
        "secret create mysecret /path/to/secret",
        "printf \"secretdata\" | rcon secret create mysecret -",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 2, 2)?;
        if let Some(driver) = self.driver.filter(|d| d != "file") {
            return Err(Failure::new(format!(
                "rcon keeps secrets in files only: the driver {driver:?} is not supported"
            )));
        }
        let [name, source] = [&self.args[0], &self.args[1]];
        if self.ignore && self.replace {
            return Err(Failure::new(
                "--ignore and --replace cannot be used together",
            ));
        }
        if self.ignore
            && let Ok(known) = context.engine()?.secret(name)
            && known.name == *name
        {
            output::println(&known.id)?;
            return Ok(0);
        }
        let text = match (self.env, source.as_str()) {
            (true, variable) => std::env::var_os(variable)
                .ok_or_else(|| {
                    Failure::new(format!(
                        "cannot create store secret data: environment variable {variable} is not set"
                    ))
                })?
                .into_encoded_bytes(),
            (false, "-") => bounded(std::io::stdin()).map_err(|e| {
                Failure::new(format!("cannot read standard input: {}", errors::in_words(&e)))
            })?,
            (false, path) => std::fs::File::open(path)
                .and_then(bounded)
                .map_err(|e| Failure::new(format!("open {path}: {}", errors::in_words(&e))))?,
        };
        let engine = context.engine()?;
        let secret = engine.create_secret(name, &text, labels(&self.label)?, self.replace)?;
        output::println(&secret.id)?;
        Ok(0)
    }
}

/// What is to be read, as far as a secret may go and a bit more, by which it is seen that it is too long.
fn bounded(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let most = rcon_engine::secrets::SECRET_MAX as u64 + 1;
    from.take(most).read_to_end(&mut text)?;
    Ok(text)
}

/// The arguments of `secret exists`.
#[derive(Args, Debug)]
pub struct SecretExists {
    args: Vec<String>,
}

impl Command for SecretExists {
    const ABOUT: &'static str = "Check if a secret exists in local storage";
    const USAGE: &'static str = "SECRET";
    const EXAMPLES: &'static [&'static str] = &["secret exists mysecret"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, 1)?;
        match context.engine()?.secret(&self.args[0]) {
            Ok(_) => Ok(0),
            Err(Error::NoSuchSecret(_)) => Ok(1),
            Err(error) => Err(error.into()),
        }
    }
}

/// The arguments of `secret inspect`.
#[derive(Args, Debug)]
pub struct SecretInspect {
    /// Format inspect output using Go template
    #[arg(short = 'f', long)]
    format: Option<String>,
    /// Print inspect output in human-readable format
    #[arg(long)]
    pretty: bool,
    /// Display the secret
    #[arg(long)]
    showsecret: bool,
    args: Vec<String>,
}

impl Command for SecretInspect {
    const ABOUT: &'static str = "Inspect a secret";
    const USAGE: &'static str = "[options] SECRET [SECRET...]";
    const EXAMPLES: &'static [&'static str] = &[
        "secret inspect mysecret",
        "secret inspect --showsecret mysecret",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, usize::MAX)?;
        let engine = context.engine()?;
        let mut objects = Vec::new();
        let mut missing = Vec::new();
        for name in &self.args {
            match engine.secret(name) {
                Ok(secret) => {
                    let mut object = object(&secret);
                    if self.showsecret {
                        let text = engine.secret_text(&secret)?;
                        object["SecretData"] = String::from_utf8_lossy(&text).into();
                    }
                    objects.push(object);
                }
                Err(error @ Error::NoSuchSecret(_)) => missing.push(error),
                Err(error) => return Err(error.into()),
            }
        }
        let text = match Format::parse(self.format.as_deref()) {
            Format::Default if self.pretty => objects.iter().map(in_words).collect(),
            Format::Default | Format::Json => json::pretty(&Value::Array(objects), 4),
            Format::Lines(text) | Format::Table(text) => {
                format::lines("secret inspect", &text, &objects)?
            }
        };
        output::print(&text)?;
        for_each(
            missing,
            |error| Err(Failure::new(format!("inspecting secret: {error}"))),
            |_| 125,
        )
    }
}

fn object(secret: &Secret) -> Value {
    json!({
        "ID": secret.id,
        "CreatedAt": human::rfc3339(Some(secret.created)),
        "UpdatedAt": human::rfc3339(Some(secret.updated)),
        "Spec": {
            "Name": secret.name,
            "Driver": {"Name": "file", "Options": {}},
            "Labels": secret.labels,
        },
    })
}

fn in_words(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = format!(
        "ID:              {}\nName:              {}\nDriver:            file\nCreated at:        {}\nUpdated at:        {}\n",
        text(&object["ID"]),
        text(&object["Spec"]["Name"]),
        text(&object["CreatedAt"]),
        text(&object["UpdatedAt"])
    );
    if let Some(secret) = object.get("SecretData") {
        out += &format!("Secret:            {}\n", text(secret));
    }
    out
}

/// The arguments of `secret ls`.
#[derive(Args, Debug)]
pub struct SecretLs {
    /// Filter secret output: name, id
    #[arg(short = 'f', long)]
    filter: Vec<String>,
    /// Format secret output using a Go template or JSON
    #[arg(long)]
    format: Option<String>,
    /// Do not print headers
    #[arg(short = 'n', long)]
    noheading: bool,
    /// Print secret IDs only
    #[arg(short = 'q', long)]
    quiet: bool,
    args: Vec<String>,
}

impl Command for SecretLs {
    const ABOUT: &'static str = "List secrets";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &["secret ls", "secret ls --format '{{.Name}}'"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 0, 0)?;
        let mut filters = Vec::new();
        for filter in &self.filter {
            match filter.split_once('=') {
                Some((key @ ("name" | "id"), value)) => filters.push((key, value)),
                _ => return Err(Failure::new(format!("invalid filter {filter:?}"))),
            }
        }
        let mut secrets = context.engine()?.secrets()?;
        secrets.retain(|secret| {
            filters.iter().all(|(key, value)| match *key {
                "name" => rcon_engine::filter::matches_pattern(&secret.name, value),
                _ => secret.id.starts_with(value),
            })
        });
        let now = Utc::now();
        let row = |secret: &Secret| {
            json!({
                "ID": secret.id,
                "Name": secret.name,
                "Driver": "file",
                "CreatedAt": human::ago(secret.created, now),
                "UpdatedAt": human::ago(secret.updated, now),
                "Spec": object(secret)["Spec"],
            })
        };
        let rows: Vec<Value> = secrets.iter().map(row).collect();
        let text = match Format::parse(self.format.as_deref()) {
            Format::Default if self.quiet => {
                secrets.iter().map(|s| format!("{}\n", s.id)).collect()
            }
            Format::Default => {
                let mut table = Table::new();
                if !self.noheading {
                    table.row(["ID", "NAME", "DRIVER", "CREATED", "UPDATED"]);
                }
                for row in &rows {
                    let cell = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                    table.row(["ID", "Name", "Driver", "CreatedAt", "UpdatedAt"].map(cell));
                }
                table.render()
            }
            Format::Json => json::pretty(&Value::Array(secrets.iter().map(object).collect()), 4),
            Format::Lines(text) => format::lines("secret ls", &text, &rows)?,
            Format::Table(text) => {
                let blank =
                    json!({"ID": "", "Name": "", "Driver": "", "CreatedAt": "", "UpdatedAt": ""});
                let own = [("CreatedAt", "CREATED"), ("UpdatedAt", "UPDATED")];
                let headers = format::headers(rows.first().unwrap_or(&blank), &own);
                let headers = (!self.noheading).then_some(&headers);
                format::table("secret ls", &text, &rows, headers)?
            }
        };
        output::print(&text)?;
        Ok(0)
    }
}

/// The arguments of `secret rm`.
#[derive(Args, Debug)]
pub struct SecretRm {
    /// Remove all secrets
    #[arg(short = 'a', long)]
    all: bool,
    /// Do not fail if a secret does not exist
    #[arg(short = 'i', long)]
    ignore: bool,
    args: Vec<String>,
}

impl Command for SecretRm {
    const ABOUT: &'static str = "Remove one or more secrets";
    const USAGE: &'static str = "[options] SECRET [SECRET...]";
    const EXAMPLES: &'static [&'static str] = &["secret rm mysecret1 mysecret2"];

    fn run(self, context: &Context) -> Outcome {
        if self.all && !self.args.is_empty() {
            return Err(Failure::new("`secret rm --all` takes no arguments"));
        }
        if !self.all && self.args.is_empty() {
            return Err(Failure::new("must specify secret or \"--all\""));
        }
        let engine: Engine = context.engine()?;
        let names = match self.all {
            true => engine.secrets()?.into_iter().map(|s| s.id).collect(),
            false => self.args,
        };
        for_each(
            &names,
            |name| match engine.remove_secret(name) {
                Ok(id) => Ok(output::println(&id)?),
                Err(Error::NoSuchSecret(_)) if self.ignore => Ok(()),
                Err(error) => Err(error.into()),
            },
            |_| 125,
        )
    }
}
