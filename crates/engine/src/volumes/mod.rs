//! Named and anonymous volumes: directories under `volumes/NAME/_data` that outlive containers.
//!
//! A new volume gets what the image has at the place where it is mounted first, with its owners: that is done by root of the
//! containers' ids, as is removing it. `volume.json` is written when the volume is whole; one without is unfinished and is
//! filled again, or swept by a prune. Who may make, use and remove one at the same time says `hold.rs`.

mod copy;
mod hold;
mod kind;
mod manage;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rcon_store::{Removal, Snapshot};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::events::{Action, Event};
use crate::files::{self, Durable};
use crate::record::{Config, VolumeUse};
use crate::records::{self, Lock};
use crate::{Engine, ListRequest, names};

/// A file of podman's store: should we be led there by `--root`, directories without our records are podman's volumes.
const OF_PODMAN: &str = "storage.lock";

/// A volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Volume {
    /// Its name; 64 hexadecimal digits for an anonymous one.
    pub name: String,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// Made for one container.
    pub anonymous: bool,
    /// `--label`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Made by itself and never mounted: it gets what the image has where it is mounted first.
    #[serde(default)]
    pub fresh: bool,
    /// It becomes that user's whose container has it first: the image has nothing at its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unowned: bool,
    /// `--opt`: what it is made of instead of its own directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// A volume that cannot be used, since nobody knows what its record said.
#[derive(Debug)]
pub struct DamagedVolume {
    /// Its name.
    pub name: String,
    /// What is wrong: [`Error::Damaged`].
    pub error: Error,
}

/// The volumes a container is to have: those the user named or asked for, and those the image declares.
pub(crate) fn uses(wanted: Vec<rcon_bundle::VolumeUse>) -> Result<Vec<VolumeUse>> {
    wanted
        .into_iter()
        .map(|wanted| {
            let anonymous = wanted.name.is_none();
            let name = match wanted.name {
                Some(name) if records::valid_name(&name) => name,
                Some(name) => return Err(Error::BadName(name)),
                None => names::random_id()?,
            };
            Ok(VolumeUse {
                name,
                destination: wanted.destination,
                anonymous,
                copy: wanted.copy,
            })
        })
        .collect()
}

impl Engine {
    /// All volumes by name, but for those whose records are damaged.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        Ok(self.volumes_and_damaged()?.0)
    }

    /// All volumes by name; and those whose records are damaged, which must not hide the others. Their files may be whole: they are kept until somebody removes them by name and force.
    ///
    /// # Errors
    /// As [`Engine::volumes`].
    pub fn volumes_and_damaged(&self) -> Result<(Vec<Volume>, Vec<DamagedVolume>)> {
        let mut volumes = Vec::new();
        let mut damaged = Vec::new();
        for name in self.volume_names()? {
            match files::read::<Volume>(&self.volume_dir(&name).join("volume.json")) {
                Ok(volume) => volumes.extend(volume),
                Err(error @ Error::Damaged(..)) => damaged.push(DamagedVolume { name, error }),
                Err(error) => return Err(error),
            }
        }
        Ok((volumes, damaged))
    }

    /// The names of all volumes there are, in whatever state.
    pub(crate) fn volume_names(&self) -> Result<Vec<String>> {
        let dir = self.paths.volumes();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).on("read", &dir),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.on("read", &dir)?;
            let name = entry.file_name().into_string();
            names.extend(name.ok().filter(|name| records::valid_name(name)));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes a volume that no container uses, and none that is just being made.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`], [`Error::VolumeInUse`].
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        let gone = || Error::NoSuchVolume(name.to_string());
        let dir = self.volume_dir(name);
        if !records::valid_name(name) || !dir.is_dir() {
            return Err(gone());
        }
        let used = |users: Vec<String>| match users.is_empty() {
            true => Ok(()),
            false => Err(Error::VolumeInUse(name.to_string(), users.join(", "))),
        };
        // What is wrong with containers is mended with this, so that one that has ended with --rm keeps nothing.
        used(self.volume_users(name)?)?;
        let _lock = Lock::take(&dir)?.ok_or_else(gone)?;
        used(self.noted_users(name)?)?;
        self.discard_volume(name, None)
    }

    /// Removes what is left of volumes whose making or removal was cut short, which are in no list. What keeps one from being
    /// removed is given to `failed`.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn sweep_volumes(&self, mut failed: impl FnMut(Error)) -> Result<()> {
        if self.paths.root.join(OF_PODMAN).exists() {
            return Ok(());
        }
        for name in self.volume_names()? {
            if let Err(error) = self.sweep_volume(&name) {
                failed(error);
            }
        }
        Ok(())
    }

    fn sweep_volume(&self, name: &str) -> Result<()> {
        let dir = self.volume_dir(name);
        let record = dir.join("volume.json");
        let is_unfinished = || matches!(record.try_exists(), Ok(false));
        // A link to another place is somebody's own doing.
        if !fs::symlink_metadata(&dir).is_ok_and(|dir| dir.is_dir()) || !is_unfinished() {
            return Ok(());
        }
        // Who is about to make or remove it has the lock.
        let Some(_lock) = Lock::try_take(&dir)? else {
            return Ok(());
        };
        match is_unfinished() && self.noted_users(name)?.is_empty() {
            true => self.clear_volume(&dir, None),
            false => Ok(()),
        }
    }

    /// The directory that is mounted.
    pub fn volume_data(&self, name: &str) -> PathBuf {
        self.volume_dir(name).join("_data")
    }

    fn volume_dir(&self, name: &str) -> PathBuf {
        self.paths.volumes().join(name)
    }

    /// Writes the record of a new volume, by who holds its lock.
    fn save_volume(&self, volume: &Volume, durable: Durable) -> Result<()> {
        files::replace(
            &self.volume_dir(&volume.name),
            "volume.json",
            volume,
            durable,
        )?;
        if durable == Durable::No {
            return Ok(());
        }
        let dir = self.paths.volumes();
        fs::File::open(&dir)
            .and_then(|dir| dir.sync_all())
            .on("write", &dir)
    }

    fn volume_users(&self, name: &str) -> Result<Vec<String>> {
        let all = self.list(&ListRequest {
            all: true,
            ..ListRequest::default()
        })?;
        let users = all
            .into_iter()
            .filter(|c| c.config.volumes.iter().any(|v| v.name == name));
        Ok(users.map(|c| c.config.id).collect())
    }

    /// Gives a volume what the image has at its place, if it has anything there.
    fn fill_volume(&self, volume: &VolumeUse, snapshot: &Snapshot) -> Result<bool> {
        let data = self.volume_data(&volume.name);
        let what = format!("cannot fill the volume {}", volume.name);
        let destination = volume.destination.clone();
        let done = self.in_worker(|store| {
            // An attempt that was cut short is begun anew.
            rcon_store::remove_tree(&data);
            let tree = crate::rootfs::tree(snapshot, false)?;
            let root = store.shift().and_then(|shift| shift.root().ok());
            let root = root.unwrap_or((0, 0));
            copy::copy_from(&tree, Path::new(&destination), &data, root)
        });
        done.map_err(|e| match e {
            Error::Remote {
                message,
                code,
                hint,
            } => Error::Remote {
                message: format!("{what}: {message}"),
                code,
                hint,
            },
            other => other,
        })
    }

    /// Gives a new directory to the root of a container whose users are arranged in another way.
    fn give_to_root(&self, data: &Path) -> Result<()> {
        if self.special.is_none() {
            return Ok(());
        }
        self.in_worker(|store| -> Result<()> {
            let root = store.shift().and_then(|shift| shift.root().ok());
            let (uid, gid) = root.unwrap_or((0, 0));
            std::os::unix::fs::chown(data, Some(uid), Some(gid)).on("change", data)
        })
    }

    /// Removes the volumes that were made for this container alone.
    pub(crate) fn discard_anonymous_volumes(
        &self,
        config: &Config,
        userns: Option<&OwnedFd>,
    ) -> Result<()> {
        for volume in config.volumes.iter().filter(|volume| volume.anonymous) {
            let Some(_lock) = Lock::take(&self.volume_dir(&volume.name))? else {
                continue;
            };
            // Others may have it by --volumes-from.
            let users = self.noted_users(&volume.name)?;
            if users.iter().all(|id| *id == config.id) {
                self.discard_volume(&volume.name, userns)?;
            }
        }
        Ok(())
    }

    /// By who holds its lock.
    fn discard_volume(&self, name: &str, userns: Option<&OwnedFd>) -> Result<()> {
        let dir = self.volume_dir(name);
        // Unfinished from here on, in case we are cut short.
        files::remove_file(&dir.join("volume.json"))?;
        self.emit(&Event::volume(name, Action::Remove));
        self.clear_volume(&dir, userns)
    }

    /// Removes the files of a volume that has no record any more, or none yet, by who holds its lock.
    fn clear_volume(&self, dir: &Path, userns: Option<&OwnedFd>) -> Result<()> {
        if rcon_store::remove_tree(dir) == Removal::Whole {
            return Ok(());
        }
        self.as_root(userns, "cannot remove all files of the volume", || {
            rcon_store::remove_tree(dir) == Removal::Whole
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_without_a_name_get_one() {
        let wanted = |name: Option<&str>, destination: &str| rcon_bundle::VolumeUse {
            destination: destination.into(),
            name: name.map(str::to_string),
            copy: true,
            from_image: false,
        };
        let uses = uses(vec![wanted(Some("data"), "/a"), wanted(None, "/b")]).unwrap();
        assert_eq!((uses[0].name.as_str(), uses[0].anonymous), ("data", false));
        assert!(uses[1].anonymous && records::is_id(&uses[1].name));
        assert!(super::uses(vec![wanted(Some("../x"), "/a")]).is_err());
    }
}
