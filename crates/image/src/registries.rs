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

use crate::error::io_text;
use crate::reference::{DOCKER_HUB, Given, Reference, canonical_registry};
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The system's folder.
const SYSTEM: &str = "/etc/containers";

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

/// One file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Conf {
    unqualified_search_registries: Option<Vec<String>>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    #[serde(default)]
    registry: Vec<Registry>,
    short_name_mode: Option<String>,
    credential_helpers: Option<Vec<String>>,
    #[serde(default)]
    registries: V1,
}

/// The tables of version 1.
#[derive(Debug, Default, Deserialize)]
struct V1 {
    #[serde(default)]
    search: V1List,
    #[serde(default)]
    insecure: V1List,
    #[serde(default)]
    block: V1List,
}

#[derive(Debug, Default, Deserialize)]
struct V1List {
    #[serde(default)]
    registries: Vec<String>,
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
    /// Read what there is.
    ///
    /// # Errors
    /// A file that is there but cannot be read or understood.
    pub fn load() -> Result<Registries> {
        let user = config_dir().map(|d| d.join("containers"));
        let system = Path::new(SYSTEM);
        let mut all = Registries::default();
        match std::env::var_os("CONTAINERS_REGISTRIES_CONF").filter(|v| !v.is_empty()) {
            // Named by the user: it must be there.
            Some(file) => all.add_file(Path::new(&file), true)?,
            None => {
                let own = user.as_ref().map(|u| u.join("registries.conf"));
                match own.filter(|f| f.exists()) {
                    Some(own) => all.add_file(&own, true)?,
                    None => all.add_file(&system.join("registries.conf"), false)?,
                }
            }
        }
        for dir in [Some(system), user.as_deref()].into_iter().flatten() {
            for file in drop_ins(&dir.join("registries.conf.d"))? {
                all.add_file(&file, false)?;
            }
        }
        if let Some(cache) = cache_dir() {
            all.add_file(&cache.join("containers/short-name-aliases.conf"), false)?;
        }
        Ok(all)
    }

    /// Understand the content of one file, on its own.
    ///
    /// # Errors
    /// What is no such file.
    pub fn parse(text: &str, file: &Path) -> Result<Registries> {
        let mut all = Registries::default();
        all.add(text, file)?;
        Ok(all)
    }

    fn add_file(&mut self, file: &Path, must: bool) -> Result<()> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if !must && passes(&e) => return Ok(()),
            Err(e) => {
                return Err(Error::ConfigFile {
                    file: file.to_owned(),
                    why: io_text(&e),
                });
            }
        };
        self.add(&text, file)
    }

    /// Lay one file over what is there.
    fn add(&mut self, text: &str, file: &Path) -> Result<()> {
        let err = |why: String| Error::ConfigFile {
            file: file.to_owned(),
            why,
        };
        let conf: Conf = toml::from_str(text).map_err(|e| err(e.message().to_owned()))?;
        let v1 = conf.registries;
        let search = conf
            .unqualified_search_registries
            .or((!v1.search.registries.is_empty()).then_some(v1.search.registries));
        if let Some(search) = search {
            if let Some(bad) = search.iter().find(|r| !is_location(r)) {
                return Err(err(format!(
                    "invalid unqualified-search-registries entry {bad:?}"
                )));
            }
            self.search = Some((search, file.to_owned()));
        }
        for (name, value) in conf.aliases {
            if value.is_empty() {
                self.aliases.remove(&name);
                continue;
            }
            let full = Given::parse(&value)
                .ok()
                .filter(|g| !g.is_short() && g.tag.is_none() && g.digest.is_none());
            if full.is_none() {
                return Err(err(format!(
                    "invalid alias {name:?} = {value:?}: the value must name registry and repository"
                )));
            }
            self.aliases.insert(name, (value, file.to_owned()));
        }
        if let Some(mode) = conf.short_name_mode {
            self.mode = match mode.as_str() {
                "enforcing" => Mode::Enforcing,
                "permissive" => Mode::Permissive,
                "disabled" => Mode::Disabled,
                other => return Err(err(format!("invalid short-name-mode {other:?}"))),
            };
        }
        if conf.credential_helpers.is_some() {
            self.helpers = conf.credential_helpers;
        }
        for mut registry in conf.registry {
            if registry.prefix.is_empty() {
                registry.prefix.clone_from(&registry.location);
            }
            if registry.prefix.is_empty() {
                return Err(err(
                    "a [[registry]] has neither prefix nor location".to_owned()
                ));
            }
            if registry.location.is_empty() && !registry.prefix.starts_with("*.") {
                registry.location.clone_from(&registry.prefix);
            }
            let places = registry
                .mirror
                .iter()
                .map(|m| &m.location)
                .chain([&registry.location]);
            for place in places.filter(|p| !p.is_empty()) {
                if !is_location(place) {
                    return Err(err(format!("invalid location {place:?} in a [[registry]]")));
                }
            }
            self.registries.insert(registry.prefix.clone(), registry);
        }
        for host in v1.insecure.registries {
            self.v1_entry(host).insecure = true;
        }
        for host in v1.block.registries {
            self.v1_entry(host).blocked = true;
        }
        Ok(())
    }

    fn v1_entry(&mut self, host: String) -> &mut Registry {
        self.registries
            .entry(host.clone())
            .or_insert_with(|| Registry {
                prefix: host.clone(),
                location: host,
                ..Registry::default()
            })
    }

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

/// The drop-ins of a folder, by name.
fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if passes(&e) => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("reading", dir)(e)),
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "conf"))
        .collect();
    files.sort();
    Ok(files)
}

/// Nothing there, or not for us.
fn passes(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}

/// `$XDG_CONFIG_HOME` or `~/.config`.
pub(crate) fn config_dir() -> Option<PathBuf> {
    xdg("XDG_CONFIG_HOME", ".config")
}

fn cache_dir() -> Option<PathBuf> {
    xdg("XDG_CACHE_HOME", ".cache")
}

fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .or_else(|| Some(home()?.join(below_home)))
}

/// The home folder, from the environment or the user data base.
pub(crate) fn home() -> Option<PathBuf> {
    std::env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .or_else(rcon_sys::passwd::home_dir)
}

/// The registry for `login` without an argument.
pub(crate) fn default_registry() -> String {
    Registries::load()
        .ok()
        .and_then(|r| Some(canonical_registry(r.first_search()?)))
        .unwrap_or_else(|| DOCKER_HUB.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Registries {
        let mut all = Registries::default();
        all.add(text, Path::new("/etc/test.conf")).unwrap();
        all
    }

    fn names(conf: &Registries, name: &str) -> Vec<String> {
        let (all, _) = conf.candidates(name).unwrap();
        all.iter().map(Reference::to_string).collect()
    }

    #[test]
    fn short_names() {
        let none = Registries::default();
        assert_eq!(names(&none, "alpine"), ["docker.io/library/alpine:latest"]);
        let conf = conf(
            r#"
            unqualified-search-registries = ["r.example", "docker.io"]
            [aliases]
            "fedora" = "registry.fedoraproject.org/fedora"
            "#,
        );
        assert_eq!(
            names(&conf, "x:1"),
            ["r.example/x:1", "docker.io/library/x:1"]
        );
        assert_eq!(
            names(&conf, "fedora:40"),
            ["registry.fedoraproject.org/fedora:40"]
        );
        assert_eq!(names(&conf, "q.io/fedora"), ["q.io/fedora:latest"]);
        let local = conf.local_candidates(&Given::parse("fedora").unwrap());
        let local: Vec<String> = local.iter().map(Reference::to_string).collect();
        assert_eq!(local[0], "localhost/fedora:latest");
        assert_eq!(local[1], "registry.fedoraproject.org/fedora:latest");
        assert_eq!(local[3], "docker.io/library/fedora:latest");
    }

    #[test]
    fn modes() {
        let many = "unqualified-search-registries = [\"a.io\", \"b.io\"]\nshort-name-mode = ";
        assert!(
            conf(&format!("{many}\"enforcing\""))
                .candidates("x")
                .is_err()
        );
        assert_eq!(
            conf(&format!("{many}\"permissive\""))
                .candidates("x")
                .unwrap()
                .0
                .len(),
            2
        );
        assert!(
            conf("unqualified-search-registries = []")
                .candidates("x")
                .is_err()
        );
        let off = conf("short-name-mode = \"disabled\"\n[aliases]\n\"x\" = \"a.io/x\"");
        assert_eq!(names(&off, "x"), ["docker.io/library/x:latest"]);
    }

    #[test]
    fn mirrors_and_rewrites() {
        let conf = conf(
            r#"
            [[registry]]
            prefix = "docker.io"
            location = "mirror.example:5000/hub"
            [[registry.mirror]]
            location = "127.0.0.1:5000"
            insecure = true
            [[registry.mirror]]
            location = "by-digest.example"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "*.bad.example"
            blocked = true
            [[registry]]
            location = "docker.io/special"
            insecure = true
            "#,
        );
        let ask = |name: &str| {
            let all = conf.endpoints(&Reference::parse(name).unwrap()).unwrap();
            all.iter()
                .map(|e| (e.reference.to_string(), e.insecure, e.mirror))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            ask("alpine"),
            [
                (
                    "127.0.0.1:5000/library/alpine:latest".to_owned(),
                    true,
                    true
                ),
                (
                    "mirror.example:5000/hub/library/alpine:latest".to_owned(),
                    false,
                    false
                ),
            ]
        );
        assert_eq!(
            ask("special/x"),
            [("docker.io/special/x:latest".to_owned(), true, false)]
        );
        assert_eq!(ask("dockerXio/x").len(), 1);
        assert!(
            conf.endpoints(&Reference::parse("a.bad.example/x").unwrap())
                .is_err()
        );
        assert!(
            conf.endpoints(&Reference::parse("bad.example/x").unwrap())
                .is_ok()
        );
        assert!(matched("docker.io", "docker.iox/x").is_none());
    }

    #[test]
    fn version_1() {
        let conf = conf(
            "[registries.search]\nregistries = ['a.io']\n[registries.insecure]\nregistries = ['b.io:5000']\n[registries.block]\nregistries = ['c.io']",
        );
        assert_eq!(names(&conf, "x"), ["a.io/x:latest"]);
        assert!(conf.is_insecure("b.io:5000"));
        assert!(
            conf.endpoints(&Reference::parse("c.io/x").unwrap())
                .is_err()
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "unqualified-search-registries = [\"http://x\"]",
            "[aliases]\n\"x\" = \"noregistry\"",
            "[[registry]]\ninsecure = true",
            "[[registry]]\nlocation = \"a b\"",
            "short-name-mode = \"maybe\"",
            "nonsense",
        ] {
            let mut all = Registries::default();
            assert!(all.add(bad, Path::new("/x")).is_err(), "{bad}");
        }
    }
}
