//! Content by digest: `blobs/sha256/HEX`.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Context, Error, Result};
use crate::stage;
use crate::store::{self, Store};

/// A blob on its way into the store. Dropped without [`BlobWriter::commit`] it is gone.
#[derive(Debug)]
pub struct BlobWriter<'a> {
    store: &'a Store,
    name: String,
    file: File,
    hasher: Hasher,
    size: u64,
}

impl Store {
    /// Whether the blob is here.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        rustix::fs::statat(self.dir(), blob_path(digest), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The blob, open for reading; `None` if it is not here.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>> {
        let path = blob_path(digest);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(self.dir(), &path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io(
                format!("cannot open {}", self.path(&path).display()),
                error,
            )),
        }
    }

    /// The content of a blob of at most `limit` bytes, checked against its digest.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_blob(digest)? else {
            return Ok(None);
        };
        let what = || format!("blob {digest}");
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .context(|| format!("cannot read {}", what()))?;
        if bytes.len() as u64 > limit {
            return Err(Error::SizeMismatch {
                what: what(),
                expected: limit,
                actual: bytes.len() as u64,
            });
        }
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        verify(what(), digest, hasher.finish())?;
        Ok(Some(bytes))
    }

    /// Begin to write a blob.
    pub fn blob_writer(&self, algorithm: Algorithm) -> Result<BlobWriter<'_>> {
        let (name, file) = stage::new_file(self)?;
        Ok(BlobWriter {
            store: self,
            name,
            file,
            hasher: Hasher::new(algorithm),
            size: 0,
        })
    }

    /// Write a whole blob, under its SHA-256 digest.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::sha256(bytes);
        if !self.has_blob(&digest) {
            let mut writer = self.blob_writer(Algorithm::Sha256)?;
            writer.write_all(bytes).context(|| "cannot write a blob")?;
            writer.commit(&digest)?;
        }
        Ok(digest)
    }

    /// Remove a blob; no error if it is not here.
    pub fn remove_blob(&self, digest: &Digest) -> Result<()> {
        let path = blob_path(digest);
        match rustix::fs::unlinkat(self.dir(), &path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::io(
                format!("cannot remove {}", self.path(&path).display()),
                error,
            )),
        }
    }
}

impl BlobWriter<'_> {
    /// How many bytes were written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Make it visible if it has the digest that it should have. On disk when this returns.
    pub fn commit(mut self, expected: &Digest) -> Result<()> {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256));
        verify(format!("blob {expected}"), expected, hasher.finish())?;
        let path = blob_path(expected);
        let what = || format!("cannot write {}", self.store.path(&path).display());
        store::make_folder(
            self.store,
            &format!("blobs/{}", expected.algorithm().name()),
        )?;
        rustix::fs::fdatasync(&self.file).context(what)?;
        let dir = self.store.dir();
        rustix::fs::renameat(dir, &self.name, dir, &path).context(what)
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        // After a commit the name is gone.
        let _ = rustix::fs::unlinkat(self.store.dir(), &self.name, AtFlags::empty());
    }
}

/// Compare digests; of different algorithms they are never the same.
pub(crate) fn verify(what: String, expected: &Digest, actual: Digest) -> Result<()> {
    if *expected == actual {
        return Ok(());
    }
    Err(Error::DigestMismatch {
        what,
        expected: expected.clone(),
        actual,
    })
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcon_sys::ids::IdMaps;

    #[test]
    fn only_right_blobs_become_visible() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path(), &IdMaps::single()).unwrap();
        let digest = Digest::sha256(b"hello");
        let mut writer = store.blob_writer(Algorithm::Sha256).unwrap();
        writer.write_all(b"hellO").unwrap();
        assert!(matches!(
            writer.commit(&digest),
            Err(Error::DigestMismatch { .. })
        ));
        assert!(!store.has_blob(&digest));
        assert_eq!(store.put_blob(b"hello").unwrap(), digest);
        assert_eq!(store.read_blob(&digest, 10).unwrap().unwrap(), b"hello");
        assert!(store.read_blob(&digest, 4).is_err());
        assert_eq!(
            std::fs::read_dir(temp.path().join("tmp")).unwrap().count(),
            0
        );
        store.remove_blob(&digest).unwrap();
        store.remove_blob(&digest).unwrap();
        assert!(store.open_blob(&digest).unwrap().is_none());
    }

    #[test]
    fn damaged_blobs_are_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path(), &IdMaps::single()).unwrap();
        let digest = store.put_blob(b"hello").unwrap();
        std::fs::write(store.path(&blob_path(&digest)), "hellO").unwrap();
        assert!(store.read_blob(&digest, 1 << 20).is_err());
    }
}
