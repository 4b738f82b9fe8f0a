//! Volumes by themselves: making, looking up, filling and emptying them, without a container.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use chrono::Utc;
use rcon_bundle::{Source, UserMount};
use rcon_store::TreeForm;
use rustix::fs::{CWD, Mode, OFlags};

use super::{Volume, kind};
use crate::error::{Context, Error, Result};
use crate::events::{Action, Event};
use crate::files::{self, Durable};
use crate::record::Container;
use crate::records::{self, Lock};
use crate::rootfs::notes::Notes;
use crate::rootfs::place::Place;
use crate::{Engine, ListRequest, RemoveRequest, names};

/// How often containers that come to use a volume meanwhile are removed with it.
const ATTEMPTS: u32 = 5;

impl Engine {
    /// Makes an empty volume; without a name, one is made up. What the volume gets from an image, it gets where it is mounted
    /// first.
    ///
    /// # Errors
    /// [`Error::VolumeExists`] for a name that is taken; a name that is none.
    pub fn create_volume(
        &self,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<Volume> {
        kind::check(&options)?;
        let name = match name {
            Some(name) if records::valid_name(name) => name.to_string(),
            Some(name) => return Err(Error::BadName(name.to_string())),
            None => names::random_id()?,
        };
        let dir = self.volume_dir(&name);
        let _lock = self.lock_volume(&name)?;
        if dir.join("volume.json").exists() {
            return Err(Error::VolumeExists(name));
        }
        // An attempt that was cut short is begun anew.
        rcon_store::remove_tree(&self.volume_data(&name));
        self.make_volume_data(&name)?;
        let volume = Volume {
            name,
            created: Utc::now(),
            anonymous: false,
            labels,
            fresh: true,
            unowned: false,
            options,
        };
        self.give_volume(&volume)?;
        self.save_volume(&volume, Durable::Yes)?;
        self.emit(&Event::volume(&volume.name, Action::Create));
        Ok(volume)
    }

    /// The directory that will be mounted: everybody may look into it, as into what images have.
    pub(crate) fn make_volume_data(&self, name: &str) -> Result<()> {
        let data = self.volume_data(name);
        files::make_dir(&data)?;
        rustix::fs::chmod(&data, Mode::from_raw_mode(0o755)).on("change", &data)
    }

    /// A volume by its name, or by the beginning of it that no other has.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`]; a beginning that several have.
    pub fn volume(&self, name: &str) -> Result<Volume> {
        if records::valid_name(name)
            && let Some(volume) = files::read(&self.volume_dir(name).join("volume.json"))?
        {
            return Ok(volume);
        }
        let all = self.volumes()?;
        let mut found = all
            .into_iter()
            .filter(|v| !name.is_empty() && v.name.starts_with(name));
        match (found.next(), found.next()) {
            (Some(volume), None) => Ok(volume),
            (Some(_), Some(_)) => Err(Error::Invalid(format!(
                "more than one result for volume name {name:?}: volume already exists"
            ))),
            _ => Err(Error::NoSuchVolume(name.to_string())),
        }
    }

    /// The names of the volumes that containers use.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn used_volumes(&self) -> Result<BTreeSet<String>> {
        let all = self.list(&ListRequest {
            all: true,
            ..ListRequest::default()
        })?;
        let uses = all.into_iter().flat_map(|c| c.config.volumes);
        Ok(uses.map(|v| v.name).collect())
    }

    /// Removes a volume; with `force`, the containers that use it too.
    ///
    /// # Errors
    /// As [`Engine::remove_volume`].
    pub fn force_remove_volume(&self, name: &str, timeout: Option<u32>) -> Result<String> {
        let name = match self.volume(name) {
            Err(Error::Damaged(..)) => name.to_string(),
            found => found?.name,
        };
        let request = RemoveRequest {
            force: true,
            volumes: false,
            timeout,
        };
        for _ in 0..ATTEMPTS {
            for container in self.volume_users(&name)? {
                self.remove_found(&container, &request)?;
            }
            match self.remove_volume(&name) {
                // Another container has it by now.
                Err(Error::VolumeInUse(..)) => {}
                removed => return removed.map(|()| name),
            }
        }
        self.remove_volume(&name).map(|()| name)
    }

    /// The volumes and bind mounts of a container, for another one: `NAME[:ro|rw|z|Z]`.
    ///
    /// # Errors
    /// When there is no such container, or the option is none.
    pub fn mounts_of(&self, text: &str) -> Result<Vec<UserMount>> {
        let (name, option) = text.split_once(':').unwrap_or((text, ""));
        let access = match option {
            "" | "z" | "Z" => None,
            "ro" | "rw" => Some(option),
            _ => {
                return Err(Error::Invalid(format!(
                    "invalid options {option:?}, can only specify 'ro', 'rw', and 'z'"
                )));
            }
        };
        let container = self.container(name).map_err(|error| {
            Error::Invalid(format!(
                "looking up container {name:?} for volumes-from: {error}"
            ))
        })?;
        let config = container.config;
        let mut mounts: Vec<UserMount> = config
            .options
            .mounts
            .iter()
            .filter(|m| matches!(m.source, Source::Bind(_) | Source::Image(_)))
            .cloned()
            .collect();
        for volume in &config.volumes {
            let options = config
                .options
                .mounts
                .iter()
                .find(|m| m.destination == volume.destination)
                .map(|m| m.options.clone());
            let usual = ["rw", "rprivate", "nosuid", "nodev", "rbind"];
            mounts.push(UserMount {
                source: Source::Volume(volume.name.clone()),
                destination: volume.destination.clone(),
                options: options.unwrap_or_else(|| usual.map(String::from).to_vec()),
                ..UserMount::default()
            });
        }
        if let Some(access) = access {
            for mount in &mut mounts {
                mount.options.retain(|o| o != "ro" && o != "rw");
                mount.options.push(access.to_string());
            }
        }
        Ok(mounts)
    }

    /// Writes the content of a volume to `out` as an archive.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`]; files that cannot be read; an `out` that cannot be written.
    pub fn export_volume(&self, name: &str, out: impl AsFd) -> Result<()> {
        let data = self.volume_files(&self.volume(name)?)?;
        let out = out
            .as_fd()
            .try_clone_to_owned()
            .context(|| "cannot write the archive".into())?;
        self.in_worker(|_| -> Result<()> {
            let dir = open(&data)?;
            let mut out = std::io::BufWriter::with_capacity(128 * 1024, std::fs::File::from(out));
            rcon_store::write_tree(&dir, TreeForm::Whole, &[], &mut out)
                .map_err(Error::from)
                .and_then(|()| out.flush().context(|| "cannot write the archive".into()))
                .map_err(Error::or_gone_reader)
        })
    }

    /// Adds the files of an archive to a volume.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`]; an archive that cannot be read; a full disk.
    pub fn import_volume(&self, name: &str, archive: impl Read) -> Result<()> {
        let volume = self.volume(name)?;
        let name = volume.name.clone();
        let data = self.volume_files(&volume)?;
        self.in_worker(|_| -> Result<()> {
            let archive = rcon_store::decompress(archive)
                .context(|| "cannot read the archive".to_string())?;
            let place = Place {
                root: open(&data)?,
                base: PathBuf::new(),
                inside: true,
                owner: None,
                notes: self.maps.is_single().then(Notes::on_files),
                overwrite: true,
            };
            place
                .unpack(archive, None)
                .context(|| format!("cannot import into volume {name}"))
        })?;
        if !volume.fresh {
            return Ok(());
        }
        // What it has now is what it is to have.
        let dir = self.volume_dir(&name);
        let gone = || Error::NoSuchVolume(name.clone());
        let _lock = Lock::take(&dir)?.ok_or_else(gone)?;
        let now = files::read::<Volume>(&dir.join("volume.json"))?.ok_or_else(gone)?;
        let volume = Volume {
            fresh: false,
            unowned: false,
            ..now
        };
        files::replace(&dir, "volume.json", &volume, Durable::Yes)
    }

    /// Bytes of what a container wrote, and of that with its image.
    ///
    /// # Errors
    /// As [`Engine::sizes`].
    pub fn container_size(&self, container: &Container) -> Result<(u64, u64)> {
        let id = &container.config.id;
        let (written, _) = self.sizes(std::slice::from_ref(id), &[])?;
        let written = written.get(id).copied().unwrap_or(0);
        let image = self.store.image_by_id(&container.config.image_id)?;
        Ok((written, written + image.map_or(0, |image| image.size)))
    }

    /// Bytes of what containers wrote, by their ids, and of volumes, by their names.
    ///
    /// # Errors
    /// When the directories cannot be read.
    pub fn sizes(
        &self,
        containers: &[String],
        volumes: &[String],
    ) -> Result<(BTreeMap<String, u64>, BTreeMap<String, u64>)> {
        if containers.is_empty() && volumes.is_empty() {
            return Ok(Default::default());
        }
        self.in_worker(|store| -> Result<_> {
            let of = |id: &String| {
                let size = store.snapshot_size(id).map_or(0, |size| size.bytes);
                (id.clone(), size)
            };
            let of_volume = |name: &String| {
                let size = open(&self.volume_data(name))
                    .ok()
                    .and_then(|dir| rcon_store::tree_size(&dir).ok());
                (name.clone(), size.map_or(0, |size| size.bytes))
            };
            Ok((
                containers.iter().map(of).collect(),
                volumes.iter().map(of_volume).collect(),
            ))
        })
    }
}

fn open(path: &PathBuf) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).on("open", path)
}
