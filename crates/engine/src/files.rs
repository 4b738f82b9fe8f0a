//! Small files, replaced whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rcon_store::Removal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Context, Error, Result};

/// Whether a file must survive a crash of the machine once the call has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    /// Synchronised before it takes its name.
    Yes,
    /// Written back when the kernel likes: what it says is of no use after a crash.
    No,
}

/// Puts `value` in the place of `dir/name`. Readers see the old or the new file, never a part. Only one process at a time
/// may do this to one file (the container's lock, or being its monitor, sees to that).
pub(crate) fn replace(
    dir: &Path,
    name: &str,
    value: &impl Serialize,
    durable: Durable,
) -> Result<()> {
    let path = dir.join(name);
    let fresh = dir.join(format!("{name}.new"));
    let text = serde_json::to_vec(value)
        .map_err(|e| Error::Invalid(format!("cannot encode {}: {e}", path.display())))?;
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&text)?;
        if durable == Durable::Yes {
            file.sync_all()?;
        }
        fs::rename(&fresh, &path)?;
        if durable == Durable::Yes {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    };
    let result = write().on("write", &path);
    if result.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    result
}

/// Writes `value` into the new file `dir/name`, of a directory that nobody looks into yet.
pub(crate) fn write_new(dir: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let path = dir.join(name);
    let text = serde_json::to_vec(value)
        .map_err(|e| Error::Invalid(format!("cannot encode {}: {e}", path.display())))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .on("create", &path)?;
    file.write_all(&text).on("write", &path)
}

/// Brings `dir/name` to the disk, with the directory it is in and that one's own name.
pub(crate) fn sync(dir: &Path, name: &str) -> io::Result<()> {
    File::open(dir.join(name))?.sync_all()?;
    File::open(dir)?.sync_all()?;
    match dir.parent() {
        Some(above) => File::open(above)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads what [`replace`] wrote; `None` when there is no such file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| Error::Damaged(path.display().to_string(), e.to_string())),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(e).on("read", path),
    }
}

/// Makes a directory that only its owner can enter, and those above it; one that is there is left as it is.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    match fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
    {
        Ok(()) => Ok(()),
        Err(e) => Err(e).on("create", path),
    }
}

/// Removes a file that need not be there.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).on("remove", path),
        _ => Ok(()),
    }
}

/// Removes a tree of our own files that need not be there. Containers write into some of them.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    if rcon_store::remove_tree(path) == Removal::Whole {
        return Ok(());
    }
    // What is in the way says why.
    match fs::remove_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).on("remove", path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read::<Vec<u32>>(&dir.path().join("a")).unwrap(), None);
        replace(dir.path(), "a", &vec![1], Durable::No).unwrap();
        replace(dir.path(), "a", &vec![2, 3], Durable::Yes).unwrap();
        assert_eq!(
            read::<Vec<u32>>(&dir.path().join("a")).unwrap(),
            Some(vec![2, 3])
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join("a"), "[1").unwrap();
        assert!(matches!(
            read::<Vec<u32>>(&dir.path().join("a")),
            Err(Error::Damaged(..))
        ));
    }
}
