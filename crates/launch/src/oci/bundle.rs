//! Reading a bundle (bundle.md of the specification).

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use rcon_sys::ids::IdMaps;

use super::error::{Error, On, Result};
use super::{granted, json};
use crate::idmap::ranges;

/// The name of the specification in a bundle.
pub const CONFIG: &str = "config.json";

/// A bundle that has been read.
#[derive(Debug)]
pub struct Loaded {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its specification, with absolute paths.
    pub spec: Spec,
    /// The absolute path of the root filesystem.
    pub rootfs: PathBuf,
    /// The ids of the container.
    pub maps: IdMaps,
    /// What it asks for and does not get, but may do without.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// Read the bundle in the folder `path`; the specification is in `config`, if that is given.
    ///
    /// # Errors
    /// What is missing or contradicts itself, in words.
    pub fn read(path: &Path, config: Option<&Path>) -> Result<Self> {
        let path = fs::canonicalize(path).on("find the bundle", path)?;
        let file = match config {
            Some(file) => file.to_owned(),
            None => path.join(CONFIG),
        };
        let text = fs::read(&file).on("read", &file)?;
        let wrong = |why: String| Error::Bundle(format!("{}: {why}", file.display()));
        let (mut spec, mut warnings): (Spec, _) =
            json::read(&text, "/process").map_err(|error| wrong(error.to_string()))?;
        if spec.version().split('.').next() != Some("1") {
            return Err(wrong(format!(
                "version {:?} of the specification is not supported, only 1.x is",
                spec.version()
            )));
        }
        if spec.process().is_none() {
            return Err(wrong("it has no process".to_owned()));
        }
        let root = spec.root().as_ref().map(|root| path.join(root.path()));
        let root = root.ok_or_else(|| wrong("it has no root".to_owned()))?;
        let rootfs = fs::canonicalize(&root).on("find the root filesystem", &root)?;
        make_absolute(&mut spec, &path);
        let maps = maps(&spec).map_err(wrong)?;
        warnings.extend(granted::hand_on(&mut spec));
        Ok(Self {
            path,
            spec,
            rootfs,
            maps,
            warnings,
        })
    }
}

/// Make the sources of bind mounts absolute, which are relative to the bundle.
fn make_absolute(spec: &mut Spec, bundle: &Path) {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let words = mount.options().as_deref().unwrap_or_default();
        let bind = mount.typ().as_deref() == Some("bind")
            || words.iter().any(|word| word == "bind" || word == "rbind");
        if let Some(source) = mount.source().clone().filter(|_| bind) {
            mount.set_source(Some(bundle.join(source)));
        }
    }
}

/// The user namespace of the container, where that is not ours.
pub(super) fn new_users(spec: &Spec) -> Option<&LinuxNamespace> {
    let namespaces = spec.linux().as_ref()?.namespaces().as_ref()?;
    namespaces
        .iter()
        .find(|namespace| namespace.typ() == LinuxNamespaceType::User)
}

/// Whether it is one that is there already; an empty path is none.
fn joins(namespace: &LinuxNamespace) -> bool {
    let path = namespace.path().as_ref();
    path.is_some_and(|path| !path.as_os_str().is_empty())
}

/// The ids of the container: those of the specification where it has a new user namespace, else ours.
fn maps(spec: &Spec) -> std::result::Result<IdMaps, String> {
    let users = new_users(spec);
    let linux = spec.linux().as_ref();
    let mappings = linux.and_then(|linux| {
        let some = |list: &_| -> Option<Vec<_>> {
            let list: &Option<Vec<_>> = list;
            list.clone().filter(|list| !list.is_empty())
        };
        Some((some(linux.uid_mappings())?, some(linux.gid_mappings())?))
    });
    match (users, mappings) {
        (Some(users), _) if joins(users) => Ok(IdMaps::own()),
        (Some(_), Some((uid, gid))) => IdMaps::given(ranges(&uid), ranges(&gid)),
        (Some(_), None) => {
            Err("a new user namespace needs linux.uidMappings and linux.gidMappings".to_owned())
        }
        (None, Some(_)) => {
            Err("there are id mappings, but no user namespace that they would be for".to_owned())
        }
        (None, None) if !rustix::process::geteuid().is_root() => Err(
            "a container of an ordinary user needs a user namespace: add {\"type\": \"user\"} to \
             linux.namespaces, with linux.uidMappings and linux.gidMappings (`rcon oci spec \
             --rootless` writes such a specification)"
                .to_owned(),
        ),
        (None, None) => Ok(IdMaps::own()),
    }
}
