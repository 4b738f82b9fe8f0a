//! Which containers a command is about: those named, the latest, all, those of a filter or of a file.

use std::path::{Path, PathBuf};

use rcon_engine::{Container, Engine, Error, Filters, ListRequest};
use rcon_sys::errors::in_words;

use crate::failure::Failure;

/// What was said about which containers.
#[derive(Debug)]
pub struct Selection<'a> {
    /// Names, ids and prefixes of ids.
    pub names: &'a [String],
    /// `--all`
    pub all: bool,
    /// `--latest`
    pub latest: bool,
    /// `--cidfile`
    pub cidfiles: &'a [PathBuf],
    /// `--filter`
    pub filters: &'a [String],
    /// Which of all containers `--all` means.
    pub of_all: Option<fn(&Container) -> bool>,
    /// What is said when nothing is selected.
    pub nothing: &'a str,
}

impl Default for Selection<'_> {
    fn default() -> Self {
        Selection {
            names: &[],
            all: false,
            latest: false,
            cidfiles: &[],
            filters: &[],
            of_all: None,
            nothing: "you must provide at least one name or id",
        }
    }
}

impl Selection<'_> {
    /// Names of containers, not necessarily of existing ones.
    ///
    /// # Errors
    /// When nothing or too much was said.
    pub fn resolve(&self, engine: &Engine) -> Result<Vec<String>, Failure> {
        let mut names = self.names.to_vec();
        for path in self.cidfiles {
            names.push(in_file(path)?);
        }
        if self.all || !self.filters.is_empty() {
            if !names.is_empty() {
                return Err(Failure::new(match self.all {
                    true => "no arguments are needed with --all",
                    false => "--filter and names cannot be used together",
                }));
            }
            if self.latest {
                return Err(Failure::new("--all and --latest cannot be used together"));
            }
            let request = ListRequest {
                all: true,
                last: None,
                filters: filters(self.filters)?,
            };
            let of_all = self.of_all.filter(|_| self.filters.is_empty());
            let list = engine.list(&request)?;
            return Ok(list
                .into_iter()
                .filter(|c| of_all.is_none_or(|f| f(c)))
                .map(|c| c.config.id)
                .collect());
        }
        if self.latest {
            if !names.is_empty() {
                return Err(Failure::new(
                    "--latest and containers cannot be used together",
                ));
            }
            return Ok(vec![latest(engine)?]);
        }
        match names.is_empty() {
            true => Err(Failure::new(self.nothing)),
            false => Ok(names),
        }
    }
}

/// The conditions of `--filter`: a length of time in `until` is one ago.
///
/// # Errors
/// As [`Filters::parse`].
pub fn filters(words: &[String]) -> Result<Filters, Failure> {
    let words: Vec<String> = words
        .iter()
        .map(|word| match word.strip_prefix("until=") {
            Some(moment) => match crate::times::parse(moment, chrono::Utc::now()) {
                Some(time) => format!("until={}", time.to_rfc3339()),
                None => word.clone(),
            },
            None => word.clone(),
        })
        .collect();
    Ok(Filters::parse(&words)?)
}

/// The id in a file that `--cidfile` of another command made.
///
/// # Errors
/// When it cannot be read.
pub fn in_file(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::new(format!(
            "reading CIDFile: open {}: {}",
            path.display(),
            in_words(&e)
        ))
    })?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The id of the container that was created last.
///
/// # Errors
/// When there is none.
pub fn latest(engine: &Engine) -> Result<String, Failure> {
    let list = engine.list(&ListRequest {
        all: true,
        last: Some(1),
        filters: Filters::default(),
    })?;
    list.into_iter()
        .next_back()
        .map(|c| c.config.id)
        .ok_or_else(|| Failure::new("no containers to be found"))
}

/// The name in the first argument, or the latest container; the other arguments are left.
///
/// # Errors
/// `nothing` when no container is said.
pub fn one(
    engine: &Engine,
    args: &mut Vec<String>,
    is_latest: bool,
    nothing: &str,
) -> Result<String, Failure> {
    match is_latest {
        true => latest(engine),
        false if args.is_empty() => Err(Failure::new(nothing)),
        false => Ok(args.remove(0)),
    }
}

/// Stops containers, all at once: each may take its time. The results are in the order of the names.
pub fn stop_all(engine: &Engine, names: &[String], timeout: Option<u32>) -> Vec<Result<(), Error>> {
    const AT_ONCE: usize = 64;
    let stop = |name: &String| engine.stop(name, timeout);
    if let [name] = names {
        return vec![stop(name)];
    }
    let mut results = Vec::new();
    for some in names.chunks(AT_ONCE) {
        let ended: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = some
                .iter()
                .map(|name| scope.spawn(move || stop(name).is_ok()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or(false))
                .collect()
        });
        // What failed may need another process, which cannot be made beside threads; and the failure is wanted.
        results.extend(
            some.iter()
                .zip(ended)
                .map(|(name, ended)| if ended { Ok(()) } else { stop(name) }),
        );
    }
    results
}

/// Whether the failure is that there is no such container, for `--ignore`.
pub fn is_missing(error: &Error) -> bool {
    matches!(error, Error::NoSuchContainer(_))
}
