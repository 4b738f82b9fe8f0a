//! The records on disk: finding, listing and locking containers.
//!
//! Each container is a directory under `containers/`, named by its id, with `config.json` and, once it ran, `state.json`. The directory
//! itself carries the lock (flock(2)): whoever starts, removes, renames or repairs a container holds it; nobody holds it
//! while waiting for a container to end. While a monitor lives it alone writes the state, and needs no lock for that but at
//! the end.
//!
//! Names are symbolic links in `container-names/` that point to the id: making one is atomic, and fails when it is there.
//!
//! While a container is given another name it has two, and `containers/.rename-ID` says so: should the command be killed, the
//! next one leaves it the name that is in its record.
//!
//! A container is made as `containers/.ID` and takes its real name when all of it is there. What a creator leaves that was
//! killed in between has a lock that nobody holds, and is removed by the next command that comes along.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::compact::compact;
use crate::error::{Context, Error, Result};
use crate::events::Action;
use crate::files::{self, Durable};
use crate::record::{Config, Container, FORMAT, State};
use crate::{Engine, Paths};

/// The state of a container until it first runs, when a `run` makes it. It is a file of its own because ext4 writes a file
/// out at once when another is renamed over it, which the start would wait for.
pub(crate) const CREATOR: &str = "creator.json";

/// What the file's name begins with that is there while a container is given another name.
const RENAMING: &str = ".rename-";

/// In the directory of a container that is being made with volumes of its own.
pub(crate) const MAKING: &str = "making";

/// Makes the directories everything else expects.
pub(crate) fn prepare(paths: &Paths) -> Result<()> {
    for (dir, runroot) in [
        (paths.containers(), false),
        (paths.names(), false),
        (paths.runroot.join("containers"), true),
    ] {
        if !dir.is_dir() {
            files::make_dir(&dir).map_err(|error| error.in_wrong_place(runroot))?;
        }
    }
    Ok(())
}

/// Whether `text` could be a name.
pub fn valid_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 253
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// Whether `text` is a whole id.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The lock of one container; released when dropped, or when the last process that inherited it ends.
#[derive(Debug)]
pub(crate) struct Lock(pub File);

impl Lock {
    /// Waits for the lock of the container in `dir`; `None` when it is gone.
    pub fn take(dir: &Path) -> Result<Option<Lock>> {
        Lock::acquire(dir, FlockOperation::LockExclusive)
    }

    /// Waits for the lock together with others who want it no more than this; `None` when it is gone.
    pub fn share(dir: &Path) -> Result<Option<Lock>> {
        Lock::acquire(dir, FlockOperation::LockShared)
    }

    /// Takes the lock if nobody has it.
    pub fn try_take(dir: &Path) -> Result<Option<Lock>> {
        Lock::acquire(dir, FlockOperation::NonBlockingLockExclusive)
    }

    fn acquire(dir: &Path, how: FlockOperation) -> Result<Option<Lock>> {
        let file = match File::open(dir) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).on("open", dir),
        };
        match rustix::io::retry_on_intr(|| rustix::fs::flock(&file, how)) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(e).on("lock", dir),
        }
        // It may have been removed while we waited.
        let held = file.metadata().on("look at", dir)?;
        let same =
            fs::metadata(dir).is_ok_and(|now| now.ino() == held.ino() && now.dev() == held.dev());
        Ok(same.then_some(Lock(file)))
    }
}

/// Reads both files of a container; `None` when it is not there.
pub(crate) fn load(dir: &Path) -> Result<Option<Container>> {
    let path = dir.join("config.json");
    let config = match files::read::<Config>(&path) {
        Ok(Some(config)) if config.format <= FORMAT => config,
        Ok(None) => return Ok(None),
        // What a later version wrote may look damaged to us; and what looks right may not be.
        other => {
            known_version(dir, &path)?;
            return other.map(|_| None);
        }
    };
    let state = match files::read::<State>(&dir.join("state.json"))? {
        Some(state) => state,
        // It was removed between the two looks.
        None if matches!(path.try_exists(), Ok(false)) => return Ok(None),
        None if config.by_run == Some(false) => State::default(),
        None => files::read(&dir.join(CREATOR))?.unwrap_or_default(),
    };
    Ok(Some(Container { config, state }))
}

/// Refuses a record of a later version than ours, whatever else may be in it.
fn known_version(dir: &Path, path: &Path) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    match files::read::<Version>(path) {
        Ok(Some(Version { format })) if format > FORMAT => Err(Error::Newer {
            id: dir
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            found: format,
            known: FORMAT,
        }),
        _ => Ok(()),
    }
}

/// Writes what a container was created with.
pub(crate) fn save_config(dir: &Path, config: &Config) -> Result<()> {
    files::replace(dir, "config.json", &compact(config), Durable::Yes)
}

/// Writes the state of a container.
pub(crate) fn save_state(dir: &Path, state: &State, durable: Durable) -> Result<()> {
    files::replace(dir, "state.json", state, durable)
}

/// The id a name stands for.
pub(crate) fn name_holder(paths: &Paths, name: &str) -> Option<String> {
    fs::read_link(paths.names().join(name))
        .ok()?
        .into_os_string()
        .into_string()
        .ok()
}

/// Gives `name` to `id`; false when it is taken.
pub(crate) fn claim_name(paths: &Paths, name: &str, id: &str) -> Result<bool> {
    let link = paths.names().join(name);
    for _ in 0..16 {
        match symlink(id, &link) {
            Ok(()) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).on("create", &link),
        }
        match name_holder(paths, name) {
            // Somebody was killed while giving it another name.
            Some(holder)
                if holder != id
                    && renaming(paths, &holder).exists()
                    && finish_rename(paths, &holder)? => {}
            Some(holder) if holder_exists(paths, &holder)? => return Ok(false),
            Some(holder) => drop_name(paths, name, &holder),
            None => {}
        }
    }
    Ok(false)
}

/// Whether the container a name points to is there or is just being made.
fn holder_exists(paths: &Paths, id: &str) -> Result<bool> {
    if paths.container(id).exists() {
        return Ok(true);
    }
    let unborn = unborn(paths, id);
    if unborn.exists() && Lock::try_take(&unborn)?.is_none() {
        return Ok(true);
    }
    // It may have been born between the two looks.
    Ok(paths.container(id).exists())
}

/// Frees a name, if it is still this container's.
pub(crate) fn drop_name(paths: &Paths, name: &str, id: &str) {
    if name_holder(paths, name).as_deref() == Some(id) {
        let _ = fs::remove_file(paths.names().join(name));
    }
}

/// The file that is there while a container is given another name.
fn renaming(paths: &Paths, id: &str) -> PathBuf {
    paths.containers().join(format!("{RENAMING}{id}"))
}

/// Takes away the name that a container has beside the one in its record; false when somebody is just giving it another.
fn finish_rename(paths: &Paths, id: &str) -> Result<bool> {
    let dir = paths.container(id);
    let lock = Lock::try_take(&dir)?;
    if lock.is_none() && dir.exists() {
        return Ok(false);
    }
    let name = load(&dir)?.map(|container| container.config.name);
    keep_name(paths, id, name.as_deref())?;
    Ok(true)
}

/// Takes away every name of a container but this one, by who holds its lock.
fn keep_name(paths: &Paths, id: &str, name: Option<&str>) -> Result<()> {
    let names = paths.names();
    for entry in fs::read_dir(&names).on("read", &names)?.flatten() {
        let found = entry.file_name();
        let found = found.to_string_lossy();
        if name != Some(&*found) {
            drop_name(paths, &found, id);
        }
    }
    files::remove_file(&renaming(paths, id))
}

/// As [`drop_name`], for a container that is where it was [`unborn`]: the name goes with what is left of it. The kernel takes
/// its time to delete even a link, and moving one is enough to free it.
pub(crate) fn shelve_name(paths: &Paths, name: &str, id: &str) {
    let link = paths.names().join(name);
    if name_holder(paths, name).as_deref() == Some(id)
        && fs::rename(&link, unborn(paths, id).join("name")).is_err()
    {
        let _ = fs::remove_file(link);
    }
}

/// Where a container is while it is being made.
pub(crate) fn unborn(paths: &Paths, id: &str) -> PathBuf {
    paths.containers().join(format!(".{id}"))
}

impl Engine {
    /// The container of that name, id, or unambiguous prefix of an id, as it is now.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`], [`Error::AmbiguousContainer`].
    pub fn container(&self, name_or_id: &str) -> Result<Container> {
        let id = self.resolve(name_or_id)?;
        self.current(&id)?
            .ok_or_else(|| Error::NoSuchContainer(name_or_id.to_string()))
    }

    /// The id that a name, an id or a prefix of one stands for.
    pub(crate) fn resolve(&self, text: &str) -> Result<String> {
        if is_id(text) && self.paths.container(text).is_dir() {
            return Ok(text.to_string());
        }
        if valid_name(text)
            && let Some(id) = name_holder(&self.paths, text)
            && self.paths.container(&id).is_dir()
        {
            return Ok(id);
        }
        if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::NoSuchContainer(text.to_string()));
        }
        let mut found = self.ids()?.into_iter().filter(|id| id.starts_with(text));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(Error::AmbiguousContainer(text.to_string())),
            _ => Err(Error::NoSuchContainer(text.to_string())),
        }
    }

    /// The ids of all containers. What a killed creator left is removed on the way.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let dir = self.paths.containers();
        let mut ids = Vec::new();
        for entry in fs::read_dir(&dir).on("read", &dir)? {
            let name = entry.on("read", &dir)?.file_name();
            let Some(name) = name.to_str() else { continue };
            if is_id(name) {
                ids.push(name.to_string());
            } else if let Some(id) = name.strip_prefix('.').filter(|id| is_id(id)) {
                // Failing is no harm: the next command tries again.
                let _ = self.sweep_remains(id);
            } else if let Some(id) = name.strip_prefix(RENAMING).filter(|id| is_id(id)) {
                let _ = finish_rename(&self.paths, id);
            }
        }
        Ok(ids)
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`Error::NameInUse`], [`Error::BadName`].
    pub fn rename(&self, name_or_id: &str, new: &str) -> Result<()> {
        if !valid_name(new) {
            return Err(Error::BadName(new.to_string()));
        }
        let gone = || Error::NoSuchContainer(name_or_id.to_string());
        let id = self.resolve(name_or_id)?;
        let dir = self.paths.container(&id);
        let _lock = Lock::take(&dir)?.ok_or_else(gone)?;
        let mut config = load(&dir)?.ok_or_else(gone)?.config;
        let renaming = renaming(&self.paths, &id);
        if renaming.exists() {
            keep_name(&self.paths, &id, Some(&config.name))?;
        }
        File::create(&renaming).on("create", &renaming)?;
        if !claim_name(&self.paths, new, &id)? {
            let holder = name_holder(&self.paths, new).unwrap_or_default();
            files::remove_file(&renaming)?;
            return Err(Error::NameInUse {
                name: new.to_string(),
                id: holder,
            });
        }
        let old = std::mem::replace(&mut config.name, new.to_string());
        if let Err(error) = save_config(&dir, &config) {
            drop_name(&self.paths, new, &id);
            files::remove_file(&renaming)?;
            return Err(error);
        }
        drop_name(&self.paths, &old, &id);
        files::remove_file(&renaming)?;
        let state = State::default();
        self.emit_container(&Container { config, state }, Action::Rename);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            root: dir.path().join("root"),
            runroot: dir.path().join("run"),
            wish: rcon_store::Wish::default(),
            image_stores: Vec::new(),
        };
        prepare(&paths).unwrap();
        (dir, paths)
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "web-1", "A.b_c", "0x"] {
            assert!(valid_name(good), "{good}");
        }
        for bad in [
            "",
            "-a",
            ".a",
            "a/b",
            "a b",
            "\u{e9}",
            "..",
            &"a".repeat(254),
        ] {
            assert!(!valid_name(bad), "{bad}");
        }
        assert!(is_id(&"0af".repeat(22)[..64]) && !is_id("abc") && !is_id(&"A".repeat(64)));
    }

    #[test]
    fn a_name_has_one_holder() {
        let (_dir, paths) = paths();
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        fs::create_dir(paths.container(&a)).unwrap();
        assert!(claim_name(&paths, "x", &a).unwrap());
        assert!(!claim_name(&paths, "x", &b).unwrap());
        drop_name(&paths, "x", &b);
        assert_eq!(name_holder(&paths, "x").as_deref(), Some(a.as_str()));
        // The holder is gone without freeing its name.
        fs::remove_dir(paths.container(&a)).unwrap();
        assert!(claim_name(&paths, "x", &b).unwrap());
    }

    #[test]
    fn a_container_in_the_making_keeps_its_name() {
        let (_dir, paths) = paths();
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        fs::create_dir(unborn(&paths, &a)).unwrap();
        let lock = Lock::take(&unborn(&paths, &a)).unwrap().unwrap();
        assert!(claim_name(&paths, "x", &a).unwrap());
        assert!(!claim_name(&paths, "x", &b).unwrap());
        drop(lock);
        assert!(claim_name(&paths, "x", &b).unwrap());
    }

    #[test]
    fn a_rename_that_was_cut_off_leaves_one_name() {
        let (_dir, paths) = paths();
        let mut config = crate::record::test_config("new");
        let id = config.id.clone();
        let dir = paths.container(&id);
        fs::create_dir(&dir).unwrap();
        let cut_off = |name: &str, config: &mut Config| {
            config.name = name.to_string();
            save_config(&dir, config).unwrap();
            for name in ["old", "new"] {
                let _ = symlink(&id, paths.names().join(name));
            }
            fs::write(renaming(&paths, &id), "").unwrap();
        };
        // Before and after the record was written.
        for (kept, other) in [("old", "new"), ("new", "old")] {
            cut_off(kept, &mut config);
            let lock = Lock::take(&dir).unwrap();
            assert!(!claim_name(&paths, other, &"b".repeat(64)).unwrap());
            drop(lock);
            assert!(claim_name(&paths, other, &"b".repeat(64)).unwrap());
            assert_eq!(name_holder(&paths, kept).as_deref(), Some(id.as_str()));
            assert!(!renaming(&paths, &id).exists());
            drop_name(&paths, other, &"b".repeat(64));
        }
        // Also by who gives it another one.
        let engine = Engine::open(paths.clone()).unwrap();
        cut_off("old", &mut config);
        engine.rename("old", "third").unwrap();
        assert_eq!(fs::read_dir(paths.names()).unwrap().count(), 1);
        engine.rename("third", "old").unwrap();
        // The container has gone since.
        cut_off("old", &mut config);
        fs::remove_dir_all(&dir).unwrap();
        assert!(finish_rename(&paths, &id).unwrap());
        assert_eq!(fs::read_dir(paths.names()).unwrap().count(), 0);
        assert!(!renaming(&paths, &id).exists());
    }

    #[test]
    fn a_lock_of_what_is_gone_is_none() {
        let (_dir, paths) = paths();
        let dir = paths.container(&"a".repeat(64));
        assert!(Lock::take(&dir).unwrap().is_none());
        fs::create_dir(&dir).unwrap();
        let held = Lock::take(&dir).unwrap().unwrap();
        assert!(Lock::try_take(&dir).unwrap().is_none());
        drop(held);
        assert!(Lock::try_take(&dir).unwrap().is_some());
    }
}
