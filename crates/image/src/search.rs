//! Searching registries.

use crate::pull::{self, PullOptions};
use crate::reference::{DOCKER_HUB, Reference};
use crate::registries::{Endpoint, Registries};
use crate::registry::Client;
use crate::{Error, Progress, PullEvent, Result, work};

/// Where Docker Hub is searched.
const DOCKER_HUB_INDEX: &str = "index.docker.io";

/// One repository that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchResult {
    /// The registry.
    pub index: String,
    /// The full name, without tag.
    pub name: String,
    /// What its owners say of it.
    pub description: String,
    /// How many users like it.
    pub stars: u64,
    /// Is it one of the registry's own?
    pub official: bool,
    /// Was it built by the registry?
    pub automated: bool,
}

/// Search for repositories: in the registry that `term` begins with, or in all that stand for short
/// names. At most `limit` of each.
///
/// # Errors
/// When no registry could be searched; of several, those that fail are warned of.
pub fn search(
    term: &str,
    limit: usize,
    opts: &PullOptions,
    progress: &dyn Progress,
) -> Result<Vec<SearchResult>> {
    let registries = Registries::load()?;
    let (named, rest) = split(term);
    if rest.contains("://") || (named.is_none() && rest.is_empty()) {
        return Err(Error::invalid(
            format!("search term {term:?}"),
            "it is none",
        ));
    }
    let places = match named {
        Some(registry) => vec![registry.to_owned()],
        None => registries.search_registries(),
    };
    work::run(async {
        let (mut all, mut failed) = (Vec::new(), Vec::new());
        for registry in &places {
            match one(&registries, registry, rest, limit, opts, progress).await {
                Ok(found) => all.extend(found),
                Err(e @ Error::Interrupted) => return Err(e),
                Err(e) => failed.push(e),
            }
        }
        if all.is_empty() && !failed.is_empty() {
            return Err(match failed.len() {
                1 => failed.remove(0),
                _ => Error::Several(failed),
            });
        }
        for error in failed {
            progress.event(PullEvent::Warning(error.to_string()));
        }
        Ok(all)
    })
}

/// The tags of a repository, at most `limit`; and its full name.
///
/// # Errors
/// A name that is none, and what the registry says.
pub fn list_tags(
    name: &str,
    limit: usize,
    opts: &PullOptions,
    progress: &dyn Progress,
) -> Result<(String, Vec<String>)> {
    let registries = Registries::load()?;
    let (references, _) = registries.candidates(name)?;
    work::run(async {
        let mut failed = Vec::new();
        for reference in references {
            match tags_of(&registries, &reference, opts, progress).await {
                Ok(mut tags) => {
                    tags.truncate(limit);
                    return Ok((reference.name(), tags));
                }
                Err(e @ Error::Interrupted) => return Err(e),
                Err(e) => failed.push(e),
            }
        }
        Err(match failed.len() {
            1 => failed.remove(0),
            _ => Error::Several(failed),
        })
    })
}

async fn tags_of(
    registries: &Registries,
    reference: &Reference,
    opts: &PullOptions,
    progress: &dyn Progress,
) -> Result<Vec<String>> {
    // Mirrors may lack some; the registry itself comes last.
    let endpoint = registries.endpoints(reference)?.pop();
    let endpoint = endpoint.ok_or(Error::Interrupted)?;
    let there = &endpoint.reference;
    let settings = pull::settings(&endpoint, opts, &opts.patience(), progress)?;
    let client = Client::connect(
        there.registry(),
        Some(there.repository()),
        &settings,
        progress,
    );
    client.await?.tags(there).await
}

async fn one(
    registries: &Registries,
    registry: &str,
    term: &str,
    limit: usize,
    opts: &PullOptions,
    progress: &dyn Progress,
) -> Result<Vec<SearchResult>> {
    let hub = registry == DOCKER_HUB;
    let host = if hub { DOCKER_HUB_INDEX } else { registry };
    // A repository of no meaning: credentials and settings are those of the registry.
    let probe = Reference::parse(&format!("{registry}/search"))?;
    if registries.endpoints(&probe).is_err() {
        return Err(Error::Blocked(registry.to_owned()));
    }
    let endpoint = Endpoint {
        reference: probe,
        insecure: registries.is_insecure(registry),
        mirror: false,
    };
    let settings = pull::settings(&endpoint, opts, &opts.patience(), progress)?;
    let client = Client::connect_to_search(host, &settings, progress).await?;
    // Docker Hub finds no `library/alpine`.
    let asked = if hub {
        term.trim_start_matches("library/")
    } else {
        term
    };
    let found = match client.search(asked, limit).await? {
        Some(found) => found,
        None => client.catalog(term, limit).await?,
    };
    let results = found.into_iter().take(limit).filter(|f| !f.name.is_empty());
    Ok(results
        .map(|found| {
            let below = match found.name.contains('/') || !hub {
                true => found.name,
                false => format!("library/{}", found.name),
            };
            // What a registry says is shown on a terminal.
            let clean = |text: String| crate::registry::clean(&text);
            SearchResult {
                index: registry.to_owned(),
                name: clean(format!("{registry}/{below}")),
                description: clean(found.description.unwrap_or_default()),
                stars: found.star_count.unwrap_or(0),
                official: found.is_official.unwrap_or(false),
                automated: found.is_automated.unwrap_or(false),
            }
        })
        .collect())
}

/// The registry that a term begins with, and the rest.
fn split(term: &str) -> (Option<&str>, &str) {
    match term.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), rest)
        }
        _ => (None, term),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms() {
        assert_eq!(split("alpine"), (None, "alpine"));
        assert_eq!(split("library/alpine"), (None, "library/alpine"));
        assert_eq!(split("quay.io/podman/x"), (Some("quay.io"), "podman/x"));
        assert_eq!(split("localhost:5000/"), (Some("localhost:5000"), ""));
    }
}
