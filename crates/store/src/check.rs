//! Is everything what it was? Contents are hashed again, references followed.
//!
//! Mending takes away what is damaged, so that it can be fetched again: a layer that is not what its
//! digest says, images that lack a layer or whose files are damaged, names that lead nowhere. What a
//! container uses stays unless that is asked for.

use std::io;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::images::image_path;
use crate::names;
use crate::remove::Removal;
use crate::stage::{self, Stage};
use crate::store::Store;

/// How to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Do not read the files of layers.
    pub quick: bool,
    /// Remove what is damaged.
    pub repair: bool,
    /// Also what containers use.
    pub force: bool,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// `layer`, `image`, `name` or `container`.
    pub kind: &'static str,
    /// Which one.
    pub id: String,
    /// What is wrong.
    pub why: String,
    /// It is gone now.
    pub repaired: bool,
}

impl Store {
    /// Look at everything there is. Call this in a process that is root of a user namespace with the
    /// store's id maps.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    pub fn check(&self, opts: CheckOptions) -> Result<Vec<Damage>> {
        let mut found = Vec::new();
        self.check_layers(opts, &mut found)?;
        self.check_images(opts, &mut found)?;
        self.check_names(opts, &mut found)?;
        self.check_snapshots(&mut found)?;
        Ok(found)
    }

    fn check_layers(&self, opts: CheckOptions, found: &mut Vec<Damage>) -> Result<()> {
        for digest in self.own_layers()? {
            let why = match self.hold_own_layer(&digest)? {
                // Removed meanwhile.
                None if stage::kind_at(self.dir(), self.layer_path(&digest)).is_err() => continue,
                // Unpacked before a power cut and never finished: the next pull does it again.
                None => Some("it was never finished".to_owned()),
                Some(_) if opts.quick => None,
                // A thing replaced in its own archive cannot be compared with it.
                Some(hold) if !hold.can_be_checked() => None,
                Some(hold) => match hold.write_archive(&mut io::sink()) {
                    Ok(_) => None,
                    Err(Error::NotReproducible { why, .. }) => Some(why),
                    Err(error) => Some(error.to_string()),
                },
            };
            let Some(why) = why else { continue };
            let used = self
                .notes()?
                .iter()
                .any(|(_, n)| n.layers.contains(&digest));
            let repaired = opts.repair && (!used || opts.force) && self.take_layer(&digest)?;
            found.push(Damage {
                kind: "layer",
                id: digest.to_string(),
                why,
                repaired,
            });
        }
        Ok(())
    }

    /// The layers under this store's id map.
    fn own_layers(&self) -> Result<Vec<Digest>> {
        let path = format!("layers/{}", self.map_key());
        if rustix::fs::statat(self.dir(), &path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_err() {
            return Ok(Vec::new());
        }
        let names = self.list(&path)?;
        Ok(names
            .iter()
            .filter_map(|name| crate::gc::digest_of(name))
            .collect())
    }

    fn take_layer(&self, digest: &Digest) -> Result<bool> {
        let taken = Stage::take(self, &self.layer_path(digest))?;
        Ok(taken.is_some_and(|stage| {
            stage.remove();
            true
        }))
    }

    fn check_images(&self, opts: CheckOptions, found: &mut Vec<Damage>) -> Result<()> {
        for id in self.image_ids()? {
            let Some(why) = self.wrong_with_image(&id)? else {
                continue;
            };
            if stage::kind_at(self.dir(), image_path(&id)).is_err() {
                // Removed meanwhile.
                continue;
            }
            let used = self.notes()?.iter().any(|(_, note)| note.image_id == id);
            let mut repaired = false;
            if opts.repair && (!used || opts.force) {
                repaired = match self.remove_image(&id) {
                    Ok(_) => true,
                    // Its record is damaged as well.
                    Err(_) => match Stage::take(self, &image_path(&id))? {
                        Some(stage) => stage.remove() == Removal::Whole,
                        None => false,
                    },
                };
            }
            found.push(Damage {
                kind: "image",
                id,
                why,
                repaired,
            });
        }
        Ok(())
    }

    fn wrong_with_image(&self, id: &str) -> Result<Option<String>> {
        let record = match self.read_record(id) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(Some("its record is missing".to_owned())),
            Err(error) => return Ok(Some(error.to_string())),
        };
        match record.config() {
            Ok(bytes) if Digest::sha256(&bytes).hex() == id => {}
            Ok(_) => return Ok(Some("its configuration has another digest".to_owned())),
            Err(error) => return Ok(Some(error.to_string())),
        }
        for expected in record.digests() {
            match record.clone().seen_by(expected).manifest() {
                Ok(bytes) if Digest::of(expected.algorithm(), &bytes) == *expected => {}
                Ok(_) => return Ok(Some("its manifest has another digest".to_owned())),
                Err(error) => return Ok(Some(error.to_string())),
            }
        }
        for layer in &record.layers {
            let here = self.has_layer(layer) || self.has_under_other_ids(layer);
            if !here && self.elsewhere(layer).is_none() {
                return Ok(Some(format!("layer {layer} is missing")));
            }
        }
        Ok(None)
    }

    fn check_names(&self, opts: CheckOptions, found: &mut Vec<Damage>) -> Result<()> {
        for file in self.list("names")? {
            let path = format!("names/{file}");
            let id = crate::atomic::read(self.dir(), &path, 256).ok();
            let id = id.and_then(|text| Some(String::from_utf8(text).ok()?.trim_end().to_owned()));
            let leads = id.is_some_and(|id| {
                names::is_id(&id) && matches!(self.read_record(&id), Ok(Some(_)))
            });
            if leads {
                continue;
            }
            let gone = opts.repair
                && rustix::fs::unlinkat(self.dir(), &path, rustix::fs::AtFlags::empty()).is_ok();
            found.push(Damage {
                kind: "name",
                id: file,
                why: "it leads to no image".to_owned(),
                repaired: gone,
            });
        }
        Ok(())
    }

    /// Containers are for their owner to remove.
    fn check_snapshots(&self, found: &mut Vec<Damage>) -> Result<()> {
        for (id, note) in self.notes()? {
            let missing = note.layers.iter().find(|layer| {
                !matches!(
                    stage::kind_at(self.dir(), self.tree_of(&note, layer)),
                    Ok(rustix::fs::FileType::Directory)
                )
            });
            if let Some(layer) = missing {
                found.push(Damage {
                    kind: "container",
                    id,
                    why: format!("layer {layer} is missing"),
                    repaired: false,
                });
            }
        }
        Ok(())
    }
}
