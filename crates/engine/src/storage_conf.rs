//! storage.conf (containers-storage.conf(5)), as far as it says where things are to be: many a home
//! directory is on a network or too small, and its owner has told podman so already.
//!
//! The user's own file (`CONTAINERS_STORAGE_CONF`, or `~/.config/containers/storage.conf`) may say
//! `graphroot`, `runroot` and `rootless_storage_path`; the system's only the last, its other places
//! are root's. `additionalimagestores` of either names stores of others that are read as well (the user's own come first); a
//! place where there is only podman's is left to podman. `driver = "vfs"` of either is heeded, any other means the best that
//! works; `mount_program` says where fuse-overlayfs is, should it be needed. rcon keeps its things in a folder of its own
//! there, beside podman's.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

const SYSTEM: &str = "/etc/containers/storage.conf";

/// Where things are to be, if a file says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// What survives a reboot.
    pub(crate) root: Option<PathBuf>,
    /// What does not.
    pub(crate) runroot: Option<PathBuf>,
    /// podman's name of what makes one tree of layers.
    pub(crate) driver: Option<String>,
    /// fuse-overlayfs, for where the kernel mounts no overlay.
    pub(crate) mount_program: Option<PathBuf>,
    /// Stores of others, of those there are.
    pub(crate) image_stores: Vec<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
struct Conf {
    #[serde(default)]
    storage: Storage,
}

#[derive(Debug, Default, Deserialize)]
struct Storage {
    graphroot: Option<String>,
    runroot: Option<String>,
    rootless_storage_path: Option<String>,
    driver: Option<String>,
    #[serde(default)]
    options: Options,
}

#[derive(Debug, Default, Deserialize)]
struct Options {
    mount_program: Option<String>,
    #[serde(default)]
    additionalimagestores: Vec<String>,
    #[serde(default)]
    overlay: OverlayOptions,
}

#[derive(Debug, Default, Deserialize)]
struct OverlayOptions {
    mount_program: Option<String>,
}

impl Places {
    /// Reads what there is.
    ///
    /// # Errors
    /// For a file that cannot be read or understood.
    pub(crate) fn load() -> Result<Places> {
        let named = std::env::var_os("CONTAINERS_STORAGE_CONF").filter(|v| !v.is_empty());
        let own = named.map(PathBuf::from).or_else(|| {
            let config = rcon_sys::passwd::config_dir()?;
            Some(config.join("containers/storage.conf"))
        });
        let own = own.map(|file| read(&file)).transpose()?.flatten();
        let system = read(Path::new(SYSTEM))?;
        let (own, system) = (own.unwrap_or_default(), system.unwrap_or_default());
        let stores = own.image_stores.iter().chain(&system.image_stores);
        let image_stores = stores.filter_map(|path| crate::paths::image_store(path));
        // Who says where everything is has said how it is kept.
        let settled = own.root.is_some();
        Ok(Places {
            root: own.root.or(system.rootless),
            runroot: own.runroot,
            driver: own.driver.or(system.driver.filter(|_| !settled)),
            image_stores: image_stores.collect(),
            mount_program: own
                .mount_program
                .or(system.mount_program.filter(|_| !settled)),
        })
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    root: Option<PathBuf>,
    runroot: Option<PathBuf>,
    rootless: Option<PathBuf>,
    driver: Option<String>,
    mount_program: Option<PathBuf>,
    image_stores: Vec<PathBuf>,
}

fn read(file: &Path) -> Result<Option<Said>> {
    let wrong = |why: String| Error::Invalid(format!("{}: {why}", file.display()));
    match std::fs::read_to_string(file) {
        Ok(text) => parse(&text).map(Some).map_err(wrong),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        // Others' files are not for us.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(wrong(rcon_sys::errors::in_words(&error))),
    }
}

fn parse(text: &str) -> std::result::Result<Said, String> {
    let conf: Conf = toml::from_str(text).map_err(|e| e.message().to_owned())?;
    let place = |key: &str, value: Option<String>| -> std::result::Result<_, String> {
        let Some(value) = value.filter(|v| !v.is_empty()) else {
            return Ok(None);
        };
        let path = PathBuf::from(expand(&value)).join("rcon");
        match path.is_absolute() {
            true => Ok(Some(path)),
            false => Err(format!("{key} = {value:?} is not an absolute path")),
        }
    };
    let storage = conf.storage;
    let stores = storage.options.additionalimagestores.iter();
    let stores = stores.filter(|store| !store.is_empty()).map(|store| {
        let path = PathBuf::from(expand(store));
        match path.is_absolute() {
            true => Ok(path),
            false => Err(format!(
                "additionalimagestores has {store:?}, which is not an absolute path"
            )),
        }
    });
    let image_stores = stores.collect::<std::result::Result<_, String>>()?;
    let rootless = place("rootless_storage_path", storage.rootless_storage_path)?;
    let program = storage.options.overlay.mount_program;
    let program = program.or(storage.options.mount_program);
    Ok(Said {
        root: place("graphroot", storage.graphroot)?.or_else(|| rootless.clone()),
        runroot: place("runroot", storage.runroot)?,
        rootless,
        driver: storage.driver.filter(|driver| !driver.is_empty()),
        mount_program: program.filter(|p| !p.is_empty()).map(PathBuf::from),
        image_stores,
    })
}

/// `$HOME`, `$USER` and `$UID`, with and without braces.
fn expand(text: &str) -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let mut text = text.to_owned();
    for (name, value) in [
        (
            "HOME",
            rcon_sys::passwd::home_dir().map(|h| h.display().to_string()),
        ),
        ("USER", std::env::var("USER").ok()),
        ("UID", Some(uid)),
    ] {
        let value = value.unwrap_or_default();
        text = text
            .replace(&format!("${{{name}}}"), &value)
            .replace(&format!("${name}"), &value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let said = parse("[storage]\ndriver = 'overlay'\ngraphroot = '/big/$UID/x'\nrunroot = '/run/y'\n[storage.options]\nz = 1").unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(said.root, Some(format!("/big/{uid}/x/rcon").into()));
        assert_eq!(said.runroot, Some("/run/y/rcon".into()));
        assert_eq!(said.driver.as_deref(), Some("overlay"));
        assert_eq!(parse("").unwrap(), Said::default());
        let rootless = parse("[storage]\nrootless_storage_path = '/a'").unwrap();
        assert_eq!(rootless.root, rootless.rootless);
        let stores = parse("[storage.options]\nadditionalimagestores = ['/a', '']").unwrap();
        assert_eq!(stores.image_stores, [PathBuf::from("/a")]);
        for bad in [
            "[storage.options]\nadditionalimagestores = ['a']",
            "[storage]\ngraphroot = 'x'",
            "[storage]\ngraphroot = 1",
            "nonsense",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
