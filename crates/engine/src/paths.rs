//! Where rcon keeps its things.
//!
//! `root` survives a reboot (images, containers, volumes, logs); `runroot` does not (sockets and the small files that are
//! mounted into running containers). Both follow the XDG base directories; a machine without XDG_RUNTIME_DIR (cron, CI, su)
//! still gets a runtime directory that only its owner can reach.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rcon_store::Wish;

use crate::error::{Context, Error, Result};
use crate::storage_conf::Places;

/// The two directories everything is under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Images, containers, volumes and logs: `$XDG_DATA_HOME/rcon`, else `~/.local/share/rcon`, or what
    /// storage.conf says, or `--root`.
    pub root: PathBuf,
    /// What only matters while the machine is up: `$XDG_RUNTIME_DIR/rcon`, or what storage.conf says, or `--runroot`.
    pub runroot: PathBuf,
    /// How containers are to get one tree of their layers, as storage.conf or `STORAGE_DRIVER` says it.
    pub wish: Wish,
    /// Stores of others whose images are seen as well, as storage.conf or an option names them; nothing is written there.
    pub image_stores: Vec<PathBuf>,
}

impl Paths {
    /// Finds the directories; the arguments are `--root` and `--runroot`. Nothing is created but the fallback in `/tmp`.
    ///
    /// # Errors
    /// When there is no home directory to fall back on, or the fallback runtime directory belongs to somebody else.
    pub fn detect(root: Option<&Path>, runroot: Option<&Path>) -> Result<Paths> {
        let uid = rustix::process::geteuid().as_raw();
        let said = Places::load()?;
        let mut wish = Wish::default();
        if let Some(driver) = std::env::var("STORAGE_DRIVER")
            .ok()
            .filter(|d| !d.is_empty())
        {
            wish_for(&mut wish, &driver)?;
        } else if said.driver.as_deref() == Some(VFS) {
            wish.copies = true;
        }
        wish.program = said.mount_program;
        let image_stores = said.image_stores;
        let root = match root.map(absolute).transpose()?.or(said.root) {
            Some(path) => path,
            None => match variable("XDG_DATA_HOME") {
                Some(data) => data.join("rcon"),
                None => rcon_sys::passwd::home_dir()
                    .ok_or_else(|| {
                        Error::Invalid("there is no home directory: set HOME or use --root".into())
                    })?
                    .join(".local/share/rcon"),
            },
        };
        let runroot = match runroot.map(absolute).transpose()?.or(said.runroot) {
            Some(path) => path,
            None => match runtime_dir(uid) {
                Some(dir) => dir.join("rcon"),
                None => fallback(uid)?,
            },
        };
        let mut paths = Paths {
            root,
            runroot,
            wish,
            image_stores,
        };
        if let Ok(options) = std::env::var("STORAGE_OPTS") {
            for option in options.split(',').filter(|option| !option.is_empty()) {
                paths.storage_option(option)?;
            }
        }
        Ok(paths)
    }

    /// Takes in a storage option: `NAME=VALUE`, with the driver's name in front or without.
    ///
    /// # Errors
    /// For options that are not known, and stores that are none.
    pub fn storage_option(&mut self, option: &str) -> Result<()> {
        let (name, value) = option.split_once('=').ok_or_else(|| {
            Error::Invalid(format!("storage option {option:?} is not NAME=VALUE"))
        })?;
        let plain = ["overlay.", "overlay2.", "vfs.", "."];
        let plain = plain.iter().find_map(|driver| name.strip_prefix(driver));
        match plain.unwrap_or(name) {
            "mount_program" => {
                self.wish.program = Some(absolute(Path::new(value))?);
                self.wish.fuse = true;
            }
            "imagestore" | "additionalimagestore" => {
                for path in value.split(',').filter(|path| !path.is_empty()) {
                    let path = absolute(Path::new(path))?;
                    let store = image_store(&path).ok_or(rcon_store::Error::NoStore(path))?;
                    self.image_stores.push(store);
                }
            }
            _ => {
                return Err(Error::Invalid(format!(
                    "the storage option {name:?} is not supported, choose from: overlay.mount_program, overlay.imagestore"
                )));
            }
        }
        Ok(())
    }

    /// Where the containers are.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// One symbolic link per name; it points to the id.
    pub fn names(&self) -> PathBuf {
        self.root.join("container-names")
    }

    /// The lasting directory of one container.
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// The runtime directory of one container.
    pub fn runtime(&self, id: &str) -> PathBuf {
        self.runroot.join("containers").join(id)
    }

    /// Where the volumes are.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }
}

/// podman's name for copies.
const VFS: &str = "vfs";

/// What a storage driver, as it was asked for, comes to.
///
/// # Errors
/// For drivers that only root can have.
pub fn wish_for(wish: &mut Wish, driver: &str) -> Result<()> {
    match driver {
        "overlay" => wish.copies = false,
        VFS => wish.copies = true,
        _ => {
            return Err(Error::Invalid(format!(
                "the storage driver {driver:?} is not supported, choose from: overlay, vfs"
            )));
        }
    }
    Ok(())
}

/// The store of rcon at a place that was named: there, or beside podman's as everything else of ours.
pub(crate) fn image_store(path: &Path) -> Option<PathBuf> {
    [path.to_owned(), path.join("rcon")]
        .into_iter()
        .find(|path| rcon_store::Store::is_at(path))
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).on("find", path)
}

/// The user's runtime directory, if there is one and it is the user's.
pub(crate) fn runtime_dir(uid: u32) -> Option<PathBuf> {
    let ours = |p: &PathBuf| fs::metadata(p).is_ok_and(|m| m.is_dir() && m.uid() == uid);
    variable("XDG_RUNTIME_DIR")
        .filter(ours)
        .or_else(|| Some(PathBuf::from(format!("/run/user/{uid}"))).filter(ours))
}

/// `/tmp/rcon-UID`, made by us or refused: anybody may have made something of that name before.
fn fallback(uid: u32) -> Result<PathBuf> {
    let path = PathBuf::from(format!("/tmp/rcon-{uid}"));
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => return Ok(path),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => {
            let failed: Result<PathBuf> = Err(e).on("create", &path);
            return failed.map_err(|error| error.in_wrong_place(true));
        }
    }
    let meta = fs::symlink_metadata(&path).on("look at", &path)?;
    if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o077 != 0 {
        return Err(Error::Invalid(format!(
            "{} exists but is not a directory that only you can use: set XDG_RUNTIME_DIR or use --runroot",
            path.display()
        )));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_win_and_become_absolute() {
        let paths = Paths::detect(Some(Path::new("/a/b")), Some(Path::new("c"))).unwrap();
        assert_eq!(paths.root, Path::new("/a/b"));
        assert!(paths.runroot.is_absolute() && paths.runroot.ends_with("c"));
        assert_eq!(paths.container("x"), Path::new("/a/b/containers/x"));
    }
}
