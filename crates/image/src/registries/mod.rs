//! registries.conf (containers-registries.conf(5)): where short names lead, which registries are
//! mirrored, blocked or insecure.
//!
//! Read are, as podman does it: `CONTAINERS_REGISTRIES_CONF`, or the user's
//! `~/.config/containers/registries.conf`, or `/etc/containers/registries.conf`; then the drop-ins
//! `/etc/containers/registries.conf.d/*.conf` and the user's, in the order of their names, later
//! ones over earlier ones; and the user's recorded short names. Version 1 of the format
//! (`[registries.search]` …) is understood too.
//!
//! Without any word about unqualified names, a short name means Docker Hub.

use crate::reference::{DOCKER_HUB, Given, Reference, canonical_registry};
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

mod files;

/// All files together.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    search: Option<(Vec<String>, PathBuf)>,
    aliases: BTreeMap<String, (String, PathBuf)>,
    registries: BTreeMap<String, Registry>,
    mode: Mode,
    helpers: Option<Vec<String>>,
}

/// What `short-name-mode` says about several unqualified registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// Take none without asking; we never ask, so it is an error.
    Enforcing,
    /// Try one after the other.
    #[default]
    Permissive,
    /// The same, and aliases are not looked at.
    Disabled,
}

/// One `[[registry]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Registry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
    #[serde(default)]
    mirror_by_digest_only: bool,
}

/// One `[[registry.mirror]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: Option<String>,
}

/// One place to try for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What to ask for there.
    pub reference: Reference,
    /// Do without verified TLS there.
    pub insecure: bool,
    /// Is it a mirror? Then the next endpoint is tried whatever fails.
    pub mirror: bool,
}

/// How a name came to its registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It named it, or it went without saying.
    Given,
    /// An alias in this file.
    Alias(PathBuf),
    /// `unqualified-search-registries` in this file.
    Search(PathBuf),
}

impl Registries {
    /// The references a name may stand for when pulling, in the order to try, and why.
    ///
    /// # Errors
    /// A malformed name, or a short one that leads nowhere.
    pub fn candidates(&self, name: &str) -> Result<(Vec<Reference>, Origin)> {
        let name = crate::reference::strip_transport(name)?;
        let given = Given::parse(name)?;
        if !given.is_short() {
            return Ok((vec![given.at(DOCKER_HUB)], Origin::Given));
        }
        Reference::parse(name)?; // what looks like an id is refused here
        if let Some((reference, file)) = self.alias(&given) {
            return Ok((vec![reference], Origin::Alias(file)));
        }
        let Some((search, file)) = &self.search else {
            return Ok((vec![given.at(DOCKER_HUB)], Origin::Given));
        };
        let why = match (search.len(), self.mode) {
            (0, _) => format!(
                "no unqualified-search registries are defined in {:?}",
                file.display().to_string()
            ),
            (2.., Mode::Enforcing) => format!(
                "short-name-mode is enforcing with several registries in {:?}",
                file.display().to_string()
            ),
            _ => {
                let all = search.iter().map(|r| given.at(r)).collect();
                return Ok((all, Origin::Search(file.clone())));
            }
        };
        Err(Error::ShortName {
            name: name.to_owned(),
            why,
        })
    }

    /// What a short name may be called in the store, most likely first.
    pub fn local_candidates(&self, given: &Given) -> Vec<Reference> {
        let mut all = Vec::new();
        let mut push = |r: Reference| {
            if !all.contains(&r) {
                all.push(r);
            }
        };
        if given.is_short() {
            push(given.at(crate::reference::LOCALHOST));
            if let Some((reference, _)) = self.alias(given) {
                push(reference);
            }
            for registry in self.search.iter().flat_map(|(s, _)| s) {
                push(given.at(registry));
            }
        }
        push(given.at(DOCKER_HUB));
        all
    }

    fn alias(&self, given: &Given) -> Option<(Reference, PathBuf)> {
        if self.mode == Mode::Disabled {
            return None;
        }
        let (value, file) = self.aliases.get(&given.path)?;
        let target = Given::parse(value).ok()?;
        let full = Given {
            registry: target.registry,
            path: target.path,
            ..given.clone()
        };
        Some((full.at(DOCKER_HUB), file.clone()))
    }

    /// Where to ask for `reference`: its mirrors, then the registry itself.
    ///
    /// # Errors
    /// The registry is blocked, or a location makes no valid name.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let Some(registry) = self.matching(&reference.to_string()) else {
            return Ok(vec![Endpoint {
                reference: reference.clone(),
                insecure: false,
                mirror: false,
            }]);
        };
        if registry.blocked {
            return Err(Error::Blocked(registry.prefix.clone()));
        }
        let by_digest = reference.digest().is_some();
        let mut all = Vec::new();
        for mirror in &registry.mirror {
            let wanted = match mirror.pull_from_mirror.as_deref() {
                Some("digest-only") => by_digest,
                Some("tag-only") => !by_digest,
                _ => by_digest || !registry.mirror_by_digest_only,
            };
            if wanted {
                all.push(Endpoint {
                    reference: relocate(reference, &registry.prefix, &mirror.location)?,
                    insecure: mirror.insecure,
                    mirror: true,
                });
            }
        }
        all.push(Endpoint {
            reference: relocate(reference, &registry.prefix, &registry.location)?,
            insecure: registry.insecure,
            mirror: false,
        });
        Ok(all)
    }

    /// Is this registry to be spoken to without verified TLS?
    pub fn is_insecure(&self, registry: &str) -> bool {
        self.matching(registry).is_some_and(|r| r.insecure)
    }

    /// Credential helpers of registries.conf, in order; `containers-auth.json` stands for the files.
    pub fn credential_helpers(&self) -> &[String] {
        self.helpers.as_deref().unwrap_or_default()
    }

    /// The registries that are searched for short names.
    pub fn search_registries(&self) -> Vec<String> {
        match &self.search {
            Some((registries, _)) if !registries.is_empty() => registries
                .iter()
                .map(|r| canonical_registry(r.split('/').next().unwrap_or(r)))
                .collect(),
            _ => vec![DOCKER_HUB.to_owned()],
        }
    }

    /// The first registry for short names.
    pub fn first_search(&self) -> Option<&str> {
        Some(self.search.as_ref()?.0.first()?.as_str())
    }

    /// The entry with the longest prefix.
    fn matching(&self, name: &str) -> Option<&Registry> {
        self.registries
            .values()
            .filter(|r| matched(&r.prefix, name).is_some())
            .max_by_key(|r| r.prefix.len())
    }
}

/// How much of `name` (`HOST[:PORT]/path`) a prefix covers.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = name.split(['/', ':']).next().unwrap_or(name);
        return (host.len() > domain.len() && host.ends_with(domain)).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(prefix.len())
}

fn relocate(reference: &Reference, prefix: &str, location: &str) -> Result<Reference> {
    if location.is_empty() {
        return Ok(reference.clone());
    }
    let name = reference.name();
    let Some(covered) = matched(prefix, &name) else {
        return Ok(reference.clone());
    };
    // With a wildcard the location replaces the host, port included.
    let rest = &name[covered..];
    let rest = if prefix.starts_with('*') {
        &rest[rest.find('/').unwrap_or(rest.len())..]
    } else {
        rest
    };
    Ok(reference.moved(&format!("{location}{rest}"))?)
}

/// `HOST[:PORT]` or `HOST[:PORT]/path`.
fn is_location(text: &str) -> bool {
    let host = text.split('/').next().unwrap_or_default();
    let path_ok = Given::parse(&format!(
        "h.io/{}",
        text.split_once('/').map_or("x", |(_, p)| p)
    ));
    let probe = format!("{host}/x");
    !text.contains("://")
        && path_ok.is_ok_and(|g| g.tag.is_none() && g.digest.is_none())
        && Given::parse(&probe).is_ok()
}

/// The registry for `login` without an argument.
pub(crate) fn default_registry() -> String {
    Registries::load()
        .ok()
        .and_then(|r| Some(canonical_registry(r.first_search()?)))
        .unwrap_or_else(|| DOCKER_HUB.to_owned())
}

#[cfg(test)]
mod tests;
