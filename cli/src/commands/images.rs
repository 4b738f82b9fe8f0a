//! `rcon images`

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use clap::Args;
use rcon_engine::{Engine, Error, ImageRecord};
use serde_json::{Value, json};

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::table::Table;
use crate::output::{self, human, json};
use crate::usage::{arity, parse_bool};

/// The arguments of `images`.
#[derive(Args, Debug, Default)]
pub struct Images {
    /// Show all images (there are no intermediate ones to hide)
    #[arg(short = 'a', long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output: before, containers, dangling, digest, id, intermediate, label, manifest, readonly, reference, since, until
    #[arg(short = 'f', long)]
    filter: Vec<String>,
    /// Change the output format to JSON or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Display the image name history
    #[arg(long)]
    history: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Do not print column headings
    #[arg(short = 'n', long)]
    noheading: bool,
    /// Display only image IDs
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Sort by repository, size, tag, created, id (default "created")
    #[arg(long)]
    sort: Option<String>,
    args: Vec<String>,
}

impl Command for Images {
    const ABOUT: &'static str = "List images in local storage";
    const USAGE: &'static str = "[options] [IMAGE]";
    const EXAMPLES: &'static [&'static str] = &[
        "images --format json",
        "images --sort repository --format \"table {{.ID}} {{.Repository}} {{.Tag}}\"",
        "images --filter dangling=true",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 0, 1)?;
        if !self.args.is_empty() && self.all {
            return Err(Failure::new("cannot specify an image and --all"));
        }
        if let Some(key) = &self.sort
            && !["tag", "created", "id", "repository", "size"].contains(&key.as_str())
        {
            return Err(Failure::new(format!(
                "{key:?} is not a valid field for sorting. Choose from: tag, created, id, repository, size"
            )));
        }
        let engine = context.engine()?;
        let mut images = engine.images()?;
        for filter in &self.filter {
            images = filtered(&engine, images, filter)?;
        }
        let mut rows = rows(images);
        if let Some(pattern) = self.args.first() {
            rows.retain(|row| row.is_called(pattern));
        }
        sort(&mut rows, self.sort.as_deref());
        output::print(&self.render(&engine, &rows, Utc::now())?)?;
        Ok(0)
    }
}

/// One line: an image under one of its names.
#[derive(Clone, Debug)]
struct Row {
    image: ImageRecord,
    repository: String,
    tag: String,
}

const NONE: &str = "<none>";

fn rows(images: Vec<ImageRecord>) -> Vec<Row> {
    let rows = |image: ImageRecord| -> Vec<Row> {
        let nameless = || match image.repo_digests.first().and_then(|d| d.split_once('@')) {
            Some((repository, _)) => repository.to_owned(),
            None => NONE.into(),
        };
        if image.names.is_empty() {
            return vec![Row {
                repository: nameless(),
                tag: NONE.into(),
                image: image.clone(),
            }];
        }
        let row = |name: &String| {
            let (repository, tag) = split_name(name);
            Row {
                image: image.clone(),
                repository: repository.into(),
                tag: tag.into(),
            }
        };
        image.names.iter().map(row).collect()
    };
    images.into_iter().flat_map(rows).collect()
}

/// `repository` and `tag`; a colon before a slash is a port's.
fn split_name(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, NONE),
    }
}

impl Row {
    /// Whether a user who says `pattern` means this name: whole, or its last parts, with or without tag, `*` for anything.
    fn is_called(&self, pattern: &str) -> bool {
        let (repository, tag) = split_name(pattern);
        let has_tag = tag == NONE || glob(tag, &self.tag);
        let tails = self
            .repository
            .match_indices('/')
            .map(|(at, _)| &self.repository[at + 1..]);
        let named = std::iter::once(self.repository.as_str())
            .chain(tails)
            .any(|tail| glob(repository, tail));
        has_tag && named || pattern.len() >= 12 && self.image.id.starts_with(pattern)
    }
}

/// Whether `text` is what `pattern` describes: `*` is any run of characters, `?` any one.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// What an image must meet.
type Condition<'a> = Box<dyn Fn(&ImageRecord) -> Result<bool, Failure> + 'a>;

/// The images that meet a `--filter`.
///
/// # Errors
/// For one that is none.
pub fn filtered(
    engine: &Engine,
    images: Vec<ImageRecord>,
    filter: &str,
) -> Result<Vec<ImageRecord>, Failure> {
    let (key, value) = filter.split_once('=').ok_or_else(|| Failure::new(format!("invalid image filter {filter:?}: must be in the format \"filter=value or filter!=value\"")))?;
    let (key, negated) = key
        .strip_suffix('!')
        .map_or((key, false), |key| (key, true));
    let keep: Condition<'_> = match key {
        "dangling" => {
            let wanted = crate::usage::parse_bool(value).map_err(|_| {
                Failure::new(format!("non-boolean value {value:?} for dangling filter"))
            })?;
            Box::new(move |i| Ok(i.names.is_empty() == wanted))
        }
        "reference" => {
            Box::new(move |i| Ok(rows(vec![i.clone()]).iter().any(|row| row.is_called(value))))
        }
        "digest" => Box::new(move |i| Ok(i.digests().any(|d| d.to_string().starts_with(value)))),
        "id" => Box::new(move |i| Ok(i.id.starts_with(value))),
        "label" => {
            let (name, wanted) = value
                .split_once('=')
                .map_or((value, None), |(n, w)| (n, Some(w)));
            Box::new(move |i| {
                let config = config(i)?;
                let found = config["config"]["Labels"].get(name).and_then(Value::as_str);
                Ok(found.is_some_and(|found| wanted.is_none_or(|w| w == found)))
            })
        }
        "until" => {
            let moment = crate::times::parse(value, Utc::now()).ok_or_else(|| {
                Failure::from(Error::Invalid(format!(
                    "{value:?} is not a moment, nor a length of time"
                )))
            })?;
            Box::new(move |i| Ok(i.created.is_none_or(|t| t < moment)))
        }
        "readonly" | "intermediate" | "manifest" | "containers" => {
            let wanted = parse_bool(value).map_err(|_| {
                Failure::new(format!("non-boolean value {value:?} for {key} filter"))
            })?;
            Box::new(move |i| {
                let is = match key {
                    "readonly" => i.read_only,
                    "containers" => !engine.image_users(&i.id)?.is_empty(),
                    // None lies between others here, nor is a list.
                    _ => false,
                };
                Ok(wanted == is)
            })
        }
        "before" | "since" | "after" => {
            let other = engine.find_image(value)?.created;
            let before = key == "before";
            Box::new(move |i| {
                Ok(if before {
                    i.created < other
                } else {
                    i.created > other
                })
            })
        }
        _ => return Err(Failure::new(format!("unsupported image filter {key:?}"))),
    };
    let mut kept = Vec::new();
    for image in images {
        if keep(&image)? != negated {
            kept.push(image);
        }
    }
    Ok(kept)
}

/// The configuration of an image.
///
/// # Errors
/// When it cannot be read.
pub fn config(image: &ImageRecord) -> Result<Value, Failure> {
    let bytes = image.config().map_err(Error::from)?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Failure::new(format!(
            "the configuration of image {} cannot be read: {e}",
            image.id
        ))
    })
}

fn sort(rows: &mut [Row], key: Option<&str>) {
    match key {
        Some("repository") => {
            rows.sort_by(|a, b| (&a.repository, &a.tag).cmp(&(&b.repository, &b.tag)))
        }
        Some("tag") => rows.sort_by(|a, b| a.tag.cmp(&b.tag)),
        Some("id") => rows.sort_by(|a, b| a.image.id.cmp(&b.image.id)),
        Some("size") => rows.sort_by_key(|r| r.image.size),
        // The newest first.
        _ => rows.sort_by_key(|row| Reverse(row.image.created)),
    }
}

impl Images {
    fn render(&self, engine: &Engine, rows: &[Row], now: DateTime<Utc>) -> Result<String, Failure> {
        let id = |row: &Row| match self.no_trunc {
            true => format!("sha256:{}", row.image.id),
            false => human::short(&row.image.id).to_owned(),
        };
        let objects = || {
            rows.iter()
                .map(|row| fields(engine, row, &id(row), now))
                .collect::<Result<Vec<_>, _>>()
        };
        match Format::parse(self.format.as_deref()) {
            Format::Default if self.quiet => {
                // An image with several names is one image.
                let mut ids: Vec<String> = rows.iter().map(id).collect();
                let mut seen = std::collections::HashSet::new();
                ids.retain(|id| seen.insert(id.clone()));
                Ok(ids.into_iter().map(|id| id + "\n").collect())
            }
            Format::Default => Ok(self.table(rows, id, now)),
            Format::Json => {
                let objects: Result<Vec<_>, _> =
                    rows.iter().map(|row| object(engine, row)).collect();
                Ok(json::pretty(&Value::Array(objects?), 4))
            }
            Format::Lines(text) => format::lines("images", &text, &objects()?),
            Format::Table(text) => {
                let objects = objects()?;
                let own = [
                    ("ID", "IMAGE ID"),
                    ("CreatedSince", "CREATED"),
                    ("Created", "CREATED"),
                    ("ReadOnly", "R/O"),
                ];
                let names = [
                    "ID",
                    "Repository",
                    "Tag",
                    "Digest",
                    "Created",
                    "CreatedSince",
                    "CreatedAt",
                    "Size",
                    "History",
                    "ReadOnly",
                ];
                let blank = names.iter().map(|n| (n.to_string(), Value::Null)).collect();
                let headers =
                    format::headers(objects.first().unwrap_or(&Value::Object(blank)), &own);
                format::table(
                    "images",
                    &text,
                    &objects,
                    (!self.noheading).then_some(&headers),
                )
            }
        }
    }

    fn table(&self, rows: &[Row], id: impl Fn(&Row) -> String, now: DateTime<Utc>) -> String {
        let mut table = Table::new();
        let columns = [
            ("REPOSITORY", true),
            ("TAG", true),
            ("DIGEST", self.digests),
            ("IMAGE ID", true),
            ("CREATED", true),
            ("SIZE", true),
            ("HISTORY", self.history),
            ("R/O", rows.iter().any(|row| row.image.read_only)),
        ];
        let mut add = |cells: [String; 8]| {
            table.row(
                cells
                    .into_iter()
                    .zip(columns)
                    .filter(|(_, (_, on))| *on)
                    .map(|(cell, _)| cell),
            );
        };
        if !self.noheading {
            add(columns.map(|(name, _)| name.to_owned()));
        }
        for row in rows {
            add([
                row.repository.clone(),
                row.tag.clone(),
                row.image.manifest_digest.to_string(),
                id(row),
                created_since(row, now),
                human::size(row.image.size, " "),
                history(row),
                row.image.read_only.to_string(),
            ]);
        }
        table.render()
    }
}

fn created_since(row: &Row, now: DateTime<Utc>) -> String {
    human::ago(row.image.created.unwrap_or(DateTime::UNIX_EPOCH), now)
}

/// The names it was given, the latest first.
fn history(row: &Row) -> String {
    row.image
        .names
        .iter()
        .rev()
        .cloned()
        .collect::<Vec<_>>()
        .join(", ")
}

/// An image as `--format json` shows it.
fn object(engine: &Engine, row: &Row) -> Result<Value, Failure> {
    let image = &row.image;
    let created = image.created.unwrap_or(DateTime::UNIX_EPOCH);
    let mut object = json!({
        "Id": image.id,
        "ParentId": "",
        "RepoTags": null,
        "RepoDigests": crate::inspection::image::repo_digests(image),
        "Size": image.size,
        "SharedSize": 0,
        "VirtualSize": image.size,
        "Labels": config(image)?["config"]["Labels"],
        "Containers": engine.image_users(&image.id)?.len(),
        "Names": image.names,
        "Digest": image.manifest_digest.to_string(),
        "History": image.names.iter().rev().collect::<Vec<_>>(),
        "Created": created.timestamp(),
        "CreatedAt": created.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    });
    if image.read_only {
        object["ReadOnly"] = true.into();
    }
    Ok(object)
}

/// An image as templates see it.
fn fields(engine: &Engine, row: &Row, id: &str, now: DateTime<Utc>) -> Result<Value, Failure> {
    let mut object = object(engine, row)?;
    let created = DateTime::from_timestamp(row.image.created.map_or(0, |t| t.timestamp()), 0)
        .unwrap_or_default();
    let own = [
        ("ID", json!(id)),
        ("Repository", json!(row.repository)),
        ("Tag", json!(row.tag)),
        ("Created", json!(created_since(row, now))),
        ("CreatedSince", json!(created_since(row, now))),
        ("CreatedAt", json!(human::moment(created))),
        ("CreatedTime", json!(human::moment(created))),
        ("Size", json!(human::size(row.image.size, " "))),
        ("History", json!(history(row))),
        ("RepoTags", json!(row.image.names)),
        ("Dangling", json!(row.image.names.is_empty())),
        ("ReadOnly", json!(row.image.read_only)),
    ];
    if let Some(map) = object.as_object_mut() {
        map.extend(own.map(|(name, value)| (name.to_owned(), value)));
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_tag() {
        assert_eq!(
            split_name("localhost:5000/a/b:1"),
            ("localhost:5000/a/b", "1")
        );
        assert_eq!(split_name("localhost:5000/a"), ("localhost:5000/a", NONE));
        assert_eq!(split_name("alpine"), ("alpine", NONE));
    }

    #[test]
    fn patterns() {
        assert!(
            glob("al*ne", "alpine")
                && glob("*", "")
                && glob("a?c", "abc")
                && glob("a*b*c", "aXbYc")
        );
        assert!(!glob("al*ne", "alpin") && !glob("a", "ab") && !glob("?", ""));
    }

    fn image(value: Value) -> ImageRecord {
        let digest = format!("sha256:{}", "0".repeat(64));
        let mut record = json!({
            "id": "ab".repeat(32), "names": [], "repo_digests": [], "manifest_digest": digest,
            "media_type": "", "layers": [], "size": 1_997_963, "created": "2026-11-23T19:26:05Z",
            "platform": {"os": "linux", "architecture": "amd64"},
        });
        record
            .as_object_mut()
            .unwrap()
            .extend(value.as_object().unwrap().clone());
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn the_table_is_podmans() {
        let rows = rows(vec![
            image(json!({"names": ["localhost/bb:1", "localhost/other:latest"]})),
            image(json!({"id": "cd".repeat(32)})),
        ]);
        let now = "2026-11-23T21:26:10Z".parse().unwrap();
        let id = |row: &Row| human::short(&row.image.id).to_owned();
        assert_eq!(
            Images::default().table(&rows, id, now),
            "REPOSITORY       TAG         IMAGE ID      CREATED      SIZE\n\
             localhost/bb     1           abababababab  2 hours ago  2 MB\n\
             localhost/other  latest      abababababab  2 hours ago  2 MB\n\
             <none>           <none>      cdcdcdcdcdcd  2 hours ago  2 MB\n"
        );
        assert_eq!(
            Images::default().table(&[], id, now),
            "REPOSITORY  TAG         IMAGE ID    CREATED     SIZE\n"
        );
    }

    #[test]
    fn users_call_images_by_parts_of_their_names() {
        let rows = rows(vec![image(
            json!({"names": ["docker.io/library/alpine:3"]}),
        )]);
        for pattern in [
            "alpine",
            "library/alpine",
            "docker.io/library/alpine:3",
            "alp*",
            "alpine:3",
            "abababababab",
        ] {
            assert!(rows[0].is_called(pattern), "{pattern}");
        }
        for pattern in ["alpine:4", "pine", "other/alpine"] {
            assert!(!rows[0].is_called(pattern), "{pattern}");
        }
    }
}
