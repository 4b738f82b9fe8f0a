//! Layers that are not there yet: unpacked in `tmp/`, and moved to their place once their digest is the right one.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rcon_sys::process::boot_id;
use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::{LayerHold, LayerMeta, META, RECIPE};
use crate::atomic;
use crate::digest::{Algorithm, Digest};
use crate::error::{Context, Error, Result};
use crate::stage::{self, Stage};
use crate::store::{self, DIRECTORY, Store};
use crate::unpack::recipe::{self, Recorder};
use crate::unpack::{self, Policy, Unpacked};

/// A layer that is being unpacked. Dropped without [`LayerStage::commit`] it is gone.
#[derive(Debug)]
pub struct LayerStage<'a> {
    store: &'a Store,
    stage: Stage,
    root: OwnedFd,
    algorithm: Algorithm,
    unpacked: Option<Unpacked>,
}

impl Store {
    /// Begin to unpack a layer whose diff id is a SHA-256 digest, as nearly all are.
    ///
    /// Call this in a process that is root of a user namespace with the store's id maps.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn stage_layer(&self) -> Result<LayerStage<'_>> {
        self.stage_layer_with(Algorithm::Sha256)
    }

    /// Begin to unpack a layer whose diff id is of the given kind.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn stage_layer_with(&self, algorithm: Algorithm) -> Result<LayerStage<'_>> {
        self.sweep_once();
        let stage = Stage::new(self, "layer")?;
        let what = || "cannot make a folder for a layer";
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(stage.dir(), "fs", mode).context(what)?;
        let root = rustix::fs::openat(stage.dir(), "fs", DIRECTORY, Mode::empty()).context(what)?;
        rustix::fs::fchmod(&root, mode).context(what)?;
        if let Some(shift) = self.shift() {
            let (uid, gid) = shift.root().context(what)?;
            let owner = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(&root, Some(owner.0), Some(owner.1)).context(what)?;
        }
        Ok(LayerStage {
            store: self,
            stage,
            root,
            algorithm,
            unpacked: None,
        })
    }

    /// Unpack a layer that lies with the owners of other containers, here or in an additional store, for those of this
    /// store. Nothing is done if it is here already.
    ///
    /// Call this in a process that is root of a user namespace with the ids of both.
    ///
    /// # Errors
    /// As [`LayerHold::write_archive`], [`LayerStage::unpack`] and [`LayerStage::commit`];
    /// [`Error::LayerMissing`] when it is nowhere, [`Error::Unreadable`] when its owner keeps it from others.
    pub fn take_layer_from_others(&self, diff_id: &Digest) -> Result<LayerHold> {
        if let Some(here) = self.hold_layer(diff_id)? {
            return Ok(here);
        }
        let theirs = self.hold_layer_anywhere(diff_id)?;
        let theirs = theirs.ok_or_else(|| Error::LayerMissing(diff_id.clone()))?;
        let lender = match theirs.lent {
            true => self.elsewhere(diff_id).map(|(other, _)| other),
            false => None,
        };
        let what = || "cannot make a pipe";
        let (pipe, end) = io::pipe().context(what)?;
        let writer = std::thread::Builder::new()
            .name("layer".to_owned())
            .spawn(move || {
                let mut out = io::BufWriter::with_capacity(1 << 17, end);
                let count = theirs.write_archive(&mut out)?;
                out.flush().map_err(Error::Stream)?;
                Ok(count)
            })
            .context(|| "cannot start a thread")?;
        let mut stage = self.stage_layer_with(diff_id.algorithm())?;
        let unpacked = stage.unpack(pipe);
        let written = writer.join().unwrap_or_else(|_| {
            Err(Error::NotReproducible {
                layer: diff_id.clone(),
                why: "the thread that read it broke down".to_owned(),
            })
        });
        match written {
            // It wrote to nobody any more.
            Err(Error::Stream(_)) if unpacked.is_err() => {}
            // Their owner keeps them from us.
            Err(Error::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied && lender.is_some() =>
            {
                return Err(lender.map_or_else(
                    || Error::LayerMissing(diff_id.clone()),
                    |other| other.unreadable(diff_id, source),
                ));
            }
            written => drop(written?),
        }
        unpacked?;
        stage.commit(diff_id)
    }
}

impl LayerStage<'_> {
    /// Unpack an uncompressed archive, in one pass and in bounded memory.
    ///
    /// `tar` is read to its end on this thread, which also computes the digest; another one
    /// writes the files. After an error the stage can only be dropped.
    pub fn unpack(&mut self, tar: impl Read) -> Result<Unpacked> {
        let policy = Policy {
            single: self.store.is_single(),
            beside: true,
            shift: self.store.shift().cloned(),
        };
        let what = || "cannot make a file for a layer";
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let dir = self.stage.dir();
        let recipe = rustix::fs::openat(dir, RECIPE, flags, mode).context(what)?;
        let recorder = Recorder::new(recipe.into(), recipe::LIMIT).context(what)?;
        let root = self.root.as_fd();
        let unpacked = unpack::unpack(tar, root, policy, self.algorithm, Some(recorder))?;
        if !unpacked.recorded {
            rustix::fs::unlinkat(dir, RECIPE, AtFlags::empty()).context(what)?;
        }
        self.unpacked = Some(unpacked.clone());
        Ok(unpacked)
    }

    /// Make the layer visible if it has the digest it should have.
    ///
    /// If another process was faster its layer is taken, and this one dropped. The layer stays
    /// as long as the result is kept, and after that as long as an image refers to it.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`]; when the store cannot be written.
    pub fn commit(mut self, expected: &Digest) -> Result<LayerHold> {
        let Some(unpacked) = self.unpacked.take() else {
            return Err(Error::Archive {
                entry: "layer".to_owned(),
                why: "it was not unpacked".to_owned(),
            });
        };
        let diff_id = unpacked.diff_id;
        // Digests of different algorithms are never the same.
        if *expected != diff_id {
            return Err(Error::DigestMismatch {
                what: "layer".to_owned(),
                expected: expected.clone(),
                actual: diff_id,
            });
        }
        let meta = LayerMeta {
            diff_id,
            size: unpacked.size,
            content: unpacked.content,
            files: unpacked.files,
            root_mode: unpacked.root_mode,
            replaced: unpacked.replaced || !unpacked.recorded,
            boot: boot_id().to_owned(),
        };
        let what = || format!("cannot finish layer {expected}");
        let text = serde_json::to_vec_pretty(&meta)
            .map_err(|error| Error::io(what(), io::Error::from(error)))?;
        atomic::write_new(self.stage.dir(), META, &text).context(what)?;
        store::make_folder(self.store, &format!("layers/{}", self.store.map_key()))?;
        let path = self.store.layer_path(expected);
        loop {
            match self.stage.publish(&path) {
                Ok(dir) => {
                    // From exclusive to shared without a moment between.
                    stage::lock(&dir, FlockOperation::LockShared).context(what)?;
                    return Ok(LayerHold {
                        dir,
                        meta,
                        lent: false,
                    });
                }
                Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                Err(error) => return Err(Error::io(what(), error)),
            }
            if let Some(hold) = self.store.hold_own_layer(expected)? {
                return Ok(hold);
            }
            // It was there before a power cut, and may be half written.
            drop(Stage::take(self.store, &path)?);
        }
    }
}
