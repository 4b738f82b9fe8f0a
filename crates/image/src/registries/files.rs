//! The files, as they are found and read.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Mode, Registries, Registry, is_location};
use crate::reference::Given;
use crate::{Error, Result};
use rcon_sys::errors::in_words;

/// The system's folder.
const SYSTEM: &str = "/etc/containers";

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

impl Registries {
    /// Read what there is.
    ///
    /// # Errors
    /// A file that is there but cannot be read or understood.
    pub fn load() -> Result<Registries> {
        let user = rcon_sys::passwd::config_dir().map(|d| d.join("containers"));
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
        if let Some(cache) = rcon_sys::passwd::cache_dir() {
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
                    why: in_words(&e),
                });
            }
        };
        self.add(&text, file)
    }

    /// Lay one file over what is there.
    pub(super) fn add(&mut self, text: &str, file: &Path) -> Result<()> {
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
