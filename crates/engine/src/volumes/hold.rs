//! Making, using and removing volumes at the same time.
//!
//! The directory of a volume carries a lock (flock(2)). Who makes a container holds the locks of its volumes from before it
//! looks whether they are there until the container can be seen by all: a volume that is whole together with others who use
//! it, one that has to be made or filled alone. Who removes a volume holds its lock alone, and it is then that counts who
//! uses it. So a volume is either kept, or gone before a container is made with it; and of who is killed no lock stays.
//!
//! Several are taken in the order of their names: nobody waits in a circle. Nobody waits for anything else with one in hand.

use std::collections::BTreeMap;
use std::fs;

use chrono::Utc;
use rcon_store::Snapshot;

use super::Volume;
use crate::Engine;
use crate::error::{Context, Error, Result};
use crate::events::{Action, Event};
use crate::files::{self, Durable};
use crate::record::{Config, VolumeUse};
use crate::records::{self, Lock};

/// How often a volume that is removed again and again under our hands is made.
const ATTEMPTS: u32 = 64;

impl Engine {
    /// Makes the volumes of a new container that are not there yet, but for those of `there`, which must be. None of them can
    /// be removed as long as the locks are held, which is to be until the container can be seen.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`]; files that cannot be written.
    pub(crate) fn make_volumes(
        &self,
        config: &Config,
        there: &[String],
        snapshot: &Snapshot,
    ) -> Result<Vec<Lock>> {
        let mut volumes: Vec<&VolumeUse> = config.volumes.iter().collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        volumes.dedup_by(|later, first| later.name == first.name);
        let hold = |volume: &VolumeUse| self.hold(volume, there.contains(&volume.name), snapshot);
        volumes.into_iter().map(hold).collect()
    }

    /// The lock of a volume that is whole; if need be it is made or filled before.
    fn hold(&self, volume: &VolumeUse, must_be_there: bool, snapshot: &Snapshot) -> Result<Lock> {
        let dir = self.volume_dir(&volume.name);
        let read = || files::read::<Volume>(&dir.join("volume.json"));
        // What is only this container's is not there yet.
        if !volume.anonymous
            && let Some(lock) = Lock::share(&dir)?
            && read()?.is_some_and(|volume| !volume.fresh)
        {
            return Ok(lock);
        }
        let gone = || Error::NoSuchVolume(volume.name.clone());
        let lock = match must_be_there {
            true => Lock::take(&dir)?.ok_or_else(gone)?,
            false => self.lock_volume(&volume.name)?,
        };
        // Another may have made it while we waited.
        let before = read()?;
        if must_be_there && before.is_none() {
            return Err(gone());
        }
        if before.as_ref().is_none_or(|before| before.fresh) {
            self.make_volume(volume, before, snapshot)?;
        }
        Ok(lock)
    }

    /// The lock of a volume that is there or is to be, which nobody else has.
    pub(super) fn lock_volume(&self, name: &str) -> Result<Lock> {
        let dir = self.volume_dir(name);
        for _ in 0..ATTEMPTS {
            files::make_dir(&dir)?;
            if let Some(lock) = Lock::take(&dir)? {
                return Ok(lock);
            }
        }
        Err(Error::Invalid(format!(
            "the volume {name} is removed again and again"
        )))
    }

    /// Makes a volume, or fills one that is fresh, by who holds its lock alone.
    fn make_volume(
        &self,
        volume: &VolumeUse,
        before: Option<Volume>,
        snapshot: &Snapshot,
    ) -> Result<()> {
        let mut unowned = before
            .as_ref()
            .is_none_or(|before| before.owner().is_none());
        let mut filled = false;
        if before.as_ref().is_some_and(Volume::is_elsewhere) {
            unowned = false;
            self.make_volume_data(&volume.name)?;
        } else if volume.copy && before.as_ref().is_none_or(|before| !before.is_given()) {
            filled = self.fill_volume(volume, snapshot)?;
            unowned &= !filled;
        } else {
            self.make_volume_data(&volume.name)?;
            self.give_to_root(&self.volume_data(&volume.name))?;
        }
        let is_new = before.is_none();
        let record = match before {
            Some(before) => Volume {
                fresh: false,
                unowned,
                ..before
            },
            None => Volume {
                name: volume.name.clone(),
                created: Utc::now(),
                anonymous: volume.anonymous,
                labels: BTreeMap::new(),
                fresh: false,
                unowned,
                options: BTreeMap::new(),
            },
        };
        self.give_volume(&record)?;
        // What is filled is not on the disk yet, and its record is not to be there before; what goes with its container
        // need not be.
        let durable = match filled || record.anonymous {
            true => Durable::No,
            false => Durable::Yes,
        };
        self.save_volume(&record, durable)?;
        if is_new {
            self.emit(&Event::volume(&record.name, Action::Create));
        }
        Ok(())
    }

    /// The containers whose records name a volume, whatever has become of them. Nothing is mended on the way: that may take
    /// locks of other volumes.
    pub(super) fn noted_users(&self, name: &str) -> Result<Vec<String>> {
        let dir = self.paths.containers();
        let mut users = Vec::new();
        for entry in fs::read_dir(&dir).on("read", &dir)? {
            let entry = entry.on("read", &dir)?;
            if !entry.file_name().to_str().is_some_and(records::is_id) {
                continue;
            }
            match records::load(&entry.path()) {
                Ok(Some(container)) => {
                    let config = container.config;
                    if config.volumes.iter().any(|volume| volume.name == name) {
                        users.push(config.id);
                    }
                }
                // Removed since we read the directory; or damaged by a crash of the machine: then it cannot be started.
                Ok(None) | Err(Error::Damaged(..)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(users)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Paths;
    use crate::record::test_config;

    fn engine(dir: &tempfile::TempDir) -> Engine {
        Engine::open(Paths {
            root: dir.path().join("root"),
            runroot: dir.path().join("run"),
            wish: rcon_store::Wish::default(),
            image_stores: Vec::new(),
        })
        .unwrap()
    }

    #[test]
    fn a_volume_stays_while_a_container_with_it_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(&dir);
        let none = BTreeMap::new();
        let make = || engine.create_volume(Some("data"), none.clone(), none.clone());
        make().unwrap();
        let mut config = test_config("c");
        config.by_run = Some(false);
        config.volumes.push(VolumeUse {
            name: "data".into(),
            destination: "/data".into(),
            anonymous: false,
            copy: true,
        });
        let home = engine.paths.container(&config.id);
        // Whether the container comes about or its maker is killed: who removes the volume has waited for that.
        for comes_about in [true, false] {
            let held = Lock::share(&engine.volume_dir("data")).unwrap().unwrap();
            let removed = std::thread::scope(|scope| {
                let remover = scope.spawn(|| engine.remove_volume("data"));
                std::thread::sleep(Duration::from_millis(100));
                assert!(engine.volume("data").is_ok());
                if comes_about {
                    fs::create_dir(&home).unwrap();
                    records::save_config(&home, &config).unwrap();
                }
                drop(held);
                remover.join().unwrap()
            });
            match comes_about {
                true => assert!(matches!(removed, Err(Error::VolumeInUse(..)))),
                false => removed.unwrap(),
            }
            assert_eq!(engine.volume("data").is_ok(), comes_about);
            let _ = fs::remove_dir_all(&home);
        }
        make().unwrap();
    }

    #[test]
    fn who_waits_for_a_volume_that_is_removed_makes_another() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(&dir);
        let home = engine.volume_dir("data");
        let held = engine.lock_volume("data").unwrap();
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| engine.lock_volume("data"));
            std::thread::sleep(Duration::from_millis(50));
            fs::remove_dir(&home).unwrap();
            drop(held);
            let lock = maker.join().unwrap().unwrap();
            assert!(home.is_dir());
            assert!(Lock::try_take(&home).unwrap().is_none());
            drop(lock);
        });
    }
}
