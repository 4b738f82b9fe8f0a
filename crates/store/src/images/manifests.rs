//! The manifests of an image.
//!
//! An image is its configuration. The same one may come again with another manifest, as when its layers were compressed anew:
//! then all of them are kept, each under its digest, and one is the image's own: the latest that a registry had, since
//! that registry has its blobs. The first one's file is `manifest.json`, that of each other has its digest in its name.

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{ImageRecord, image_path, unique};
use crate::atomic;
use crate::digest::Digest;
use crate::error::{Context, Result};
use crate::store::Store;

/// A manifest that an image came with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Other {
    digest: Digest,
    media_type: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    apart: bool,
}

impl ImageRecord {
    /// Its own manifest, byte for byte.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn manifest(&self) -> Result<Vec<u8>> {
        match self.apart {
            true => self.file(&file_of(&self.manifest_digest)),
            false => self.file("manifest.json"),
        }
    }

    /// The digests of all manifests that it came with, its own first.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(&self.manifest_digest).chain(self.others.iter().map(|other| &other.digest))
    }

    /// The same image, of whose manifests the one with this digest is its own; as it is, if it came with no such.
    #[must_use]
    pub fn seen_by(mut self, digest: &Digest) -> Self {
        if let Some(other) = self.others.iter_mut().find(|o| o.digest == *digest) {
            std::mem::swap(&mut self.manifest_digest, &mut other.digest);
            std::mem::swap(&mut self.media_type, &mut other.media_type);
            std::mem::swap(&mut self.apart, &mut other.apart);
        }
        self
    }

    /// Take on what the same image brings when it comes again.
    fn merge(&mut self, new: &ImageRecord) {
        self.names = unique([&self.names[..], &new.names].concat());
        if !self.digests().any(|digest| *digest == new.manifest_digest) {
            self.others.push(Other {
                digest: new.manifest_digest.clone(),
                media_type: new.media_type.clone(),
                apart: true,
            });
        }
        if !new.repo_digests.is_empty() {
            *self = self.clone().seen_by(&new.manifest_digest);
        }
        self.repo_digests = unique([&self.repo_digests[..], &new.repo_digests].concat());
    }
}

impl Store {
    /// Give what is new of `new` to the image that is here already; `None` if it is not.
    pub(super) fn merge_image(
        &self,
        new: &ImageRecord,
        manifest: &[u8],
    ) -> Result<Option<ImageRecord>> {
        let Some(lock) = self.lock_image(&new.id, FlockOperation::LockExclusive)? else {
            return Ok(None);
        };
        let Some(old) = self.read_record(&new.id)? else {
            return Ok(None);
        };
        if !old.digests().any(|digest| *digest == new.manifest_digest) {
            // On disk before the record speaks of it; one that no record speaks of is in nobody's way.
            let path = format!("{}/{}", image_path(&new.id), file_of(&new.manifest_digest));
            atomic::write(self, &path, manifest)?;
            let what = || format!("cannot write {}", self.path(&path).display());
            rustix::fs::fsync(&lock).context(what)?;
        }
        self.change_record(&new.id, |old| old.merge(new))
    }
}

fn file_of(digest: &Digest) -> String {
    format!("manifest-{}.json", digest.file_name())
}
