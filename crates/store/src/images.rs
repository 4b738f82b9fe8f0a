//! Images: a manifest, a configuration, and a small record of what is needed all the time.
//!
//! `images/ID/` appears by one rename after everything it refers to is on disk. Of its files only
//! `record.json` changes after that, replaced whole under the flock(2) of the directory, and further manifests may come
//! ([`manifests`]). Finding an image by name or id and reading its record is the reading of two small files.

mod manifests;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::layers::LayerHold;
use crate::names;
use crate::platform::Platform;
use crate::stage::{self, Stage};
use crate::store::{DIRECTORY, Store};

/// An image to be put into the store. Its layers must be there.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// The manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// Its digest, as the registry names it.
    pub manifest_digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The configuration, byte for byte. Its SHA-256 digest is the image's id.
    pub config: Vec<u8>,
    /// The diff ids of the layers, lowest first.
    pub layers: Vec<Digest>,
    /// Full names with tags (`docker.io/library/alpine:latest`). Another image that has one of
    /// them loses it.
    pub names: Vec<String>,
    /// Full names with digests (`docker.io/library/alpine@sha256:…`).
    pub repo_digests: Vec<String>,
}

/// An image in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The digest of the configuration in hexadecimal digits.
    pub id: String,
    /// Full names with tags, in the order they were given.
    pub names: Vec<String>,
    /// Full names with digests.
    pub repo_digests: Vec<String>,
    /// The digest of the manifest; there may be others ([`ImageRecord::digests`]).
    pub manifest_digest: Digest,
    /// The media type of the manifest.
    pub media_type: String,
    /// The manifest has a file with its digest in the name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    apart: bool,
    /// Other manifests that it came with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<manifests::Other>,
    /// The diff ids of the layers, lowest first.
    pub layers: Vec<Digest>,
    /// Bytes of all layers unpacked, of the manifest and of the configuration.
    pub size: u64,
    /// When the image was made, as its configuration says.
    pub created: Option<DateTime<Utc>>,
    /// What it runs on, as its configuration says.
    pub platform: Platform,
    /// Mode of the root directory, where a layer sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mode: Option<u32>,
    /// It is in an additional store, and nothing of it can be changed.
    #[serde(skip)]
    pub read_only: bool,
    #[serde(skip)]
    dir: PathBuf,
}

impl ImageRecord {
    /// The configuration, byte for byte.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn config(&self) -> Result<Vec<u8>> {
        self.file("config.json")
    }

    fn file(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.dir.join(name);
        let text = atomic::read(rustix::fs::CWD, &path, atomic::LIMIT);
        text.context(|| format!("cannot read {}", path.display()))
    }
}

/// What we look at in a configuration (image-spec, config.md).
#[derive(Deserialize)]
struct Config {
    created: Option<String>,
    #[serde(flatten)]
    platform: Platform,
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

/// An image that somebody is about to use: whoever wants to remove it waits.
#[derive(Clone, Debug)]
pub struct ImageHold(
    // Of one in an additional store there is none.
    #[expect(dead_code, reason = "the lock is what it is for")] Option<Arc<OwnedFd>>,
);

impl Store {
    /// Put an image into the store, or give one that is there already more names, and the manifest if it is another one.
    ///
    /// Everything of it is on disk before it becomes visible. Fails with
    /// [`Error::LayerMissing`] if a layer is not here (any more), and if the configuration lists
    /// other layers.
    pub fn put_image(&self, new: NewImage) -> Result<ImageRecord> {
        // Where all layers are here already nobody else does.
        self.sweep_once();
        let config: Config =
            serde_json::from_slice(&new.config).map_err(|error| Error::BadJson {
                what: "image configuration".to_owned(),
                why: error.to_string(),
            })?;
        if let Some(rootfs) = config.rootfs
            && rootfs.diff_ids != new.layers
        {
            return Err(Error::BadJson {
                what: "image configuration".to_owned(),
                why: "it does not list the layers of the manifest".to_owned(),
            });
        }
        // Held until the image is there, which then protects them.
        let holds = new
            .layers
            .iter()
            .map(|layer| {
                self.hold_layer(layer)?
                    .ok_or_else(|| Error::LayerMissing(layer.clone()))
            })
            .collect::<Result<Vec<LayerHold>>>()?;
        let mut size = (new.manifest.len() + new.config.len()) as u64;
        let mut root_mode = None;
        for hold in &holds {
            size += hold.meta().size;
            root_mode = hold.meta().root_mode.or(root_mode);
        }
        let id = Digest::sha256(&new.config).hex().to_owned();
        let created = config
            .created
            .and_then(|text| DateTime::parse_from_rfc3339(&text).ok())
            .map(|time| time.to_utc());
        let record = ImageRecord {
            dir: self.path(&image_path(&id)),
            id,
            names: unique(new.names),
            repo_digests: unique(new.repo_digests),
            manifest_digest: new.manifest_digest,
            media_type: new.media_type,
            apart: false,
            others: Vec::new(),
            layers: new.layers,
            size,
            created,
            platform: config.platform,
            root_mode,
            read_only: false,
        };
        let (names, repo_digests) = (record.names.clone(), record.repo_digests.clone());
        let record = self.publish_image(record, &new.manifest, &new.config, &holds)?;
        self.index_names(&record.id, &names, &repo_digests)?;
        Ok(record)
    }

    fn publish_image(
        &self,
        record: ImageRecord,
        manifest: &[u8],
        config: &[u8],
        holds: &[LayerHold],
    ) -> Result<ImageRecord> {
        let path = image_path(&record.id);
        let what = || format!("cannot write {}", self.path(&path).display());
        loop {
            // Another process may put or remove the same image meanwhile: try again then.
            if let Some(merged) = self.merge_image(&record, manifest)? {
                self.settle(holds)?;
                return Ok(merged);
            }
            let mut stage = Stage::new(self, "image")?;
            atomic::write_new(stage.dir(), "manifest.json", manifest).context(what)?;
            atomic::write_new(stage.dir(), "config.json", config).context(what)?;
            atomic::write_new(stage.dir(), "record.json", &to_json(&record)).context(what)?;
            if !self.settle(holds)? {
                rustix::fs::syncfs(self.dir()).context(what)?;
            }
            match stage.publish(&path) {
                Ok(_) => return Ok(record),
                Err(Errno::EXIST | Errno::NOTEMPTY) => continue,
                Err(error) => return Err(Error::io(what(), error)),
            }
        }
    }

    /// Bring new layers to the disk and say so in them; whether there were any, and so all of
    /// the file system is on disk.
    fn settle(&self, holds: &[LayerHold]) -> Result<bool> {
        if holds.iter().all(LayerHold::is_settled) {
            return Ok(false);
        }
        rustix::fs::syncfs(self.dir())
            .context(|| format!("cannot write {} to disk", self.root().display()))?;
        for hold in holds {
            hold.settle()?;
        }
        Ok(true)
    }

    /// Let names that an image was given lead to it, and take them from the records of others.
    fn index_names(&self, id: &str, names: &[String], repo_digests: &[String]) -> Result<()> {
        let mut taken = Vec::new();
        {
            // So that it is not removed, with its names, while we add some. Two locks at once
            // could wait for one another: others come after this one.
            let Some(_lock) = self.lock_image(id, FlockOperation::LockExclusive)? else {
                return Ok(());
            };
            for name in names.iter().chain(repo_digests) {
                let before = names::lookup(self, name)?;
                if before.as_deref() != Some(id) {
                    names::set(self, name, id)?;
                    taken.extend(before.map(|other| (other, name)));
                }
            }
            // Who gives one of them to another image at the same time may have taken it from this record by now.
            self.change_record(id, |own| {
                own.names = unique([&own.names[..], names].concat());
                own.repo_digests = unique([&own.repo_digests[..], repo_digests].concat());
            })?;
        }
        for (other, name) in taken {
            self.update_record(&other, |old| {
                // It got it back meanwhile.
                if matches!(names::lookup(self, name), Ok(Some(id)) if id == other) {
                    return;
                }
                old.names.retain(|have| have != name);
                old.repo_digests.retain(|have| have != name);
            })?;
        }
        Ok(())
    }

    /// All images, in no order, with those of additional stores at the end.
    ///
    /// # Errors
    /// When the store cannot be read, or a record is damaged.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        let mut images = Vec::new();
        for id in self.image_ids()? {
            // Gone meanwhile is gone.
            images.extend(self.own_image_by_id(&id)?);
        }
        images.extend(self.images_of_others()?);
        Ok(images)
    }

    /// The image with this whole id (hexadecimal digits, or with `sha256:` in front).
    ///
    /// # Errors
    /// When the store cannot be read, or the record is damaged.
    pub fn image_by_id(&self, id: &str) -> Result<Option<ImageRecord>> {
        let id = id.strip_prefix("sha256:").unwrap_or(id);
        if !names::is_id(id) {
            return Ok(None);
        }
        match self.own_image_by_id(id)? {
            Some(own) => Ok(Some(own)),
            None => self.image_of_others(id),
        }
    }

    pub(crate) fn own_image_by_id(&self, id: &str) -> Result<Option<ImageRecord>> {
        let Some(mut record) = self.read_record(id)? else {
            return Ok(None);
        };
        self.keep_own_names(&mut record, None)?;
        Ok(Some(record))
    }

    /// The image that has this full name, with a tag or with a digest.
    ///
    /// # Errors
    /// When the store cannot be read, or the record is damaged.
    pub fn image_by_name(&self, name: &str) -> Result<Option<ImageRecord>> {
        match self.own_image_by_name(name)? {
            Some(own) => Ok(Some(own)),
            None => self.image_of_others_by_name(name),
        }
    }

    pub(crate) fn own_image_by_name(&self, name: &str) -> Result<Option<ImageRecord>> {
        let Some(id) = names::lookup(self, name)? else {
            return Ok(None);
        };
        let Some(mut record) = self.read_record(&id)? else {
            return Ok(None);
        };
        if !record
            .names
            .iter()
            .chain(&record.repo_digests)
            .any(|have| have == name)
        {
            // Somebody was killed between the two steps of giving a name.
            return Ok(None);
        }
        self.keep_own_names(&mut record, Some(name))?;
        Ok(Some(record))
    }

    /// The only image whose id begins with `prefix`; more than one is [`Error::Ambiguous`].
    pub fn image_by_prefix(&self, prefix: &str) -> Result<Option<ImageRecord>> {
        let digits = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        if names::is_id(digits) {
            return self.image_by_id(digits);
        }
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let mut found = self.image_ids()?;
        for other in &self.additional {
            found.extend(other.image_ids()?);
        }
        found.retain(|id| id.starts_with(digits));
        found.sort_unstable();
        found.dedup();
        match &found[..] {
            [] => Ok(None),
            [id] => self.image_by_id(id),
            _ => Err(Error::Ambiguous {
                prefix: prefix.to_owned(),
                count: found.len(),
            }),
        }
    }

    /// Give the image one more name; another image that has it loses it.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; when the store cannot be written.
    pub fn tag(&self, id: &str, name: &str) -> Result<ImageRecord> {
        let record = self
            .update_record(id, |record| {
                if !record.names.iter().any(|have| have == name) {
                    record.names.push(name.to_owned());
                }
            })?
            .ok_or_else(|| Error::NoSuchImage(id.to_owned()))?;
        self.index_names(id, &[name.to_owned()], &[])?;
        Ok(record)
    }

    /// Take a name from an image. It keeps its others, or none.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; when the store cannot be written.
    pub fn untag(&self, id: &str, name: &str) -> Result<ImageRecord> {
        names::remove(self, name, id)?;
        self.update_record(id, |record| {
            record.names.retain(|have| have != name);
            record.repo_digests.retain(|have| have != name);
        })?
        .ok_or_else(|| Error::NoSuchImage(id.to_owned()))
    }

    /// The ids of all images.
    pub(crate) fn image_ids(&self) -> Result<Vec<String>> {
        let what = || format!("cannot read {}", self.path("images").display());
        let dir =
            rustix::fs::openat(self.dir(), "images", DIRECTORY, Mode::empty()).context(what)?;
        let found = stage::names_in(dir).context(what)?;
        Ok(found
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .filter(|name| names::is_id(name))
            .collect())
    }

    /// The record as it is on disk.
    pub(crate) fn read_record(&self, id: &str) -> Result<Option<ImageRecord>> {
        let path = format!("{}/record.json", image_path(id));
        let text = match atomic::read(self.dir(), &path, atomic::LIMIT) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Error::io(
                    format!("cannot read {}", self.path(&path).display()),
                    error,
                ));
            }
        };
        let mut record: ImageRecord = serde_json::from_slice(&text)
            .map_err(|error| Error::damaged(&self.path(&path), error))?;
        if record.id != id {
            return Err(Error::damaged(&self.path(&path), "it is of another image"));
        }
        record.dir = self.path(&image_path(id));
        Ok(Some(record))
    }

    /// Drop names that lead to another image by now. `known` was looked up already.
    fn keep_own_names(&self, record: &mut ImageRecord, known: Option<&str>) -> Result<()> {
        let mut kept = Vec::with_capacity(record.names.len());
        for name in std::mem::take(&mut record.names) {
            if known == Some(&name)
                || names::lookup(self, &name)?.as_deref() == Some(record.id.as_str())
            {
                kept.push(name);
            }
        }
        record.names = kept;
        Ok(())
    }

    /// Change a record under its lock; `None` if there is no such image.
    fn update_record(
        &self,
        id: &str,
        change: impl FnOnce(&mut ImageRecord),
    ) -> Result<Option<ImageRecord>> {
        let Some(_lock) = self.lock_image(id, FlockOperation::LockExclusive)? else {
            return Ok(None);
        };
        self.change_record(id, change)
    }

    /// The same for who has the lock.
    fn change_record(
        &self,
        id: &str,
        change: impl FnOnce(&mut ImageRecord),
    ) -> Result<Option<ImageRecord>> {
        let Some(mut record) = self.read_record(id)? else {
            return Ok(None);
        };
        let before = to_json(&record);
        change(&mut record);
        let after = to_json(&record);
        if before != after {
            atomic::write(self, &format!("{}/record.json", image_path(id)), &after)?;
        }
        Ok(Some(record))
    }

    /// Keep an image from being removed as long as the answer is kept; `None` if it is not here (any more). The owner
    /// of an additional store is kept from nothing.
    ///
    /// # Errors
    /// When the store cannot be read or locked.
    pub fn hold_image(&self, id: &str) -> Result<Option<ImageHold>> {
        if let Some(lock) = self.lock_image(id, FlockOperation::LockShared)? {
            return Ok(Some(ImageHold(Some(Arc::new(lock)))));
        }
        let lent = self.image_of_others(id)?;
        Ok(lent.map(|_| ImageHold(None)))
    }

    /// Lock an image of one's own; `None` if there is none. The lock ends with the descriptor.
    pub(crate) fn lock_image(&self, id: &str, how: FlockOperation) -> Result<Option<OwnedFd>> {
        if !names::is_id(id) {
            return Ok(None);
        }
        let path = image_path(id);
        let what = || format!("cannot lock {}", self.path(&path).display());
        match rustix::fs::openat(self.dir(), &path, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io(what(), error)),
            Ok(dir) => {
                stage::lock(&dir, how).context(what)?;
                // Removed while we waited?
                Ok(stage::is_at(self.dir(), &path, &dir).then_some(dir))
            }
        }
    }
}

pub(crate) fn image_path(id: &str) -> String {
    format!("images/{id}")
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Plain structures of strings and numbers: this cannot fail.
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

/// Without repetitions, in the same order.
fn unique(names: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names
        .into_iter()
        .filter(|name| seen.insert(name.clone()))
        .collect()
}
