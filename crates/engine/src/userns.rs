//! `--userns keep-id`, `nomap` and `auto`, `--uidmap` and `--gidmap`, `--subuidname` and `--subgidname`: containers whose users
//! are arranged in another way than usual.
//!
//! The kernel gives ordinary users no way to show the owners of a disk through another map. So for such an arrangement the
//! layers of an image are unpacked once more, beside the usual ones, with the owners that it gives them; all that is done
//! from outside to the files of such a container is done by who is root over all ids, who translates
//! ([`rcon_sys::shift`]).

use std::fs;

use rcon_bundle::Options;
use rcon_store::{ImageRecord, Snapshot, Store};
use rcon_sys::ids::{IdMaps, IdRange};
use rcon_sys::passwd;
use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::error::{Error, Result};
use crate::record::Config;
use crate::records::{self, Lock};

/// A run of ids: the first in the container, the first among those that usual containers have, how many.
pub type Run = (u32, u32, u32);

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Arrangement {
    /// The usual one: the user is root.
    #[default]
    Usual,
    /// `keep-id`: the user has its own id, or these ones.
    KeepId {
        /// `uid=`
        uid: Option<u32>,
        /// `gid=`
        gid: Option<u32>,
    },
    /// `nomap`: the user is nobody in the container.
    NoMap,
    /// `auto`: ids that no other container has, this many.
    Auto {
        /// `size=`
        size: Option<u32>,
    },
    /// `--uidmap`, `--gidmap`.
    Maps {
        /// Of users.
        uid: Vec<Run>,
        /// Of groups.
        gid: Vec<Run>,
    },
    /// `--subuidname`, `--subgidname`.
    Subordinate {
        /// Whose users.
        users: String,
        /// Whose groups.
        groups: String,
    },
}

/// How the users of a container are arranged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arranged {
    /// Its users.
    pub uid: Vec<Run>,
    /// Its groups.
    pub gid: Vec<Run>,
    /// Nobody else has these ids while it is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// The user of the host is to be known in it by name, with these ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<(u32, u32)>,
}

/// How many ids `auto` gives where nothing is said.
const AUTO: u32 = 1024;

impl Engine {
    /// What an arrangement comes to. As long as the lock is held nobody else is given the same ids.
    ///
    /// # Errors
    /// podman's, as root; when there are not so many ids.
    pub(crate) fn arrange(
        &self,
        wanted: &Arrangement,
        options: &mut Options,
    ) -> Result<(Option<Arranged>, Option<Lock>)> {
        let rootless = !rustix::process::geteuid().is_root();
        let only_rootless = |name: &str| match rootless {
            true => Ok(()),
            false => Err(Error::Invalid(format!(
                "{name} is only supported in rootless mode"
            ))),
        };
        if self.maps.is_single() && *wanted != Arrangement::Usual {
            // Says so.
            self.maps_of(&self.all_but_own())?;
        }
        let mut lock = None;
        let arranged = match wanted {
            Arrangement::Usual => return Ok((None, None)),
            Arrangement::KeepId { uid, gid } => {
                only_rootless("keep-id")?;
                let uid = uid.unwrap_or_else(|| rustix::process::getuid().as_raw());
                let gid = gid.unwrap_or_else(|| rustix::process::getgid().as_raw());
                if options.user.as_deref().is_none_or(str::is_empty) {
                    options.user = Some(format!("{uid}:{gid}"));
                }
                if (uid, gid) == (0, 0) {
                    return Ok((None, None));
                }
                Arranged {
                    uid: kept(uid, further(&self.maps.uid)),
                    gid: kept(gid, further(&self.maps.gid)),
                    alone: false,
                    caller: Some((uid, gid)),
                }
            }
            Arrangement::NoMap => {
                only_rootless("nomap")?;
                self.all_but_own()
            }
            Arrangement::Auto { size } => {
                let size = size.unwrap_or(AUTO);
                lock = Lock::take(&self.paths.containers())?;
                let start = self.free_run(size)?;
                Arranged {
                    uid: vec![(0, start, size)],
                    gid: vec![(0, start, size)],
                    alone: true,
                    caller: None,
                }
            }
            Arrangement::Maps { uid, gid } => Arranged {
                uid: uid.clone(),
                gid: gid.clone(),
                alone: false,
                caller: None,
            },
            Arrangement::Subordinate { users, groups } => {
                for (name, file, kind) in [
                    (users, "/etc/subuid", "subuid"),
                    (groups, "/etc/subgid", "subgid"),
                ] {
                    self.may_use(name, file, kind)?;
                }
                self.all_but_own()
            }
        };
        self.maps_of(&arranged)?;
        Ok((Some(arranged), lock))
    }

    /// The subordinate ids, and not the user's own.
    fn all_but_own(&self) -> Arranged {
        Arranged {
            uid: vec![(0, 1, further(&self.maps.uid))],
            gid: vec![(0, 1, further(&self.maps.gid))],
            alone: false,
            caller: None,
        }
    }

    /// Whether the ids that a file gives to `name` are the user's to map.
    fn may_use(&self, name: &str, file: &str, kind: &str) -> Result<()> {
        let text = fs::read_to_string(file).unwrap_or_default();
        let has = text
            .lines()
            .any(|line| line.split(':').next() == Some(name));
        if !has {
            return Err(Error::Invalid(format!(
                "no {kind} ranges found for user {name:?} in {file}"
            )));
        }
        let own = passwd::current_user_name();
        let number = rustix::process::getuid().as_raw().to_string();
        match own.as_deref() == Some(name) || name == number {
            true => Ok(()),
            false => Err(Error::Remote {
                message: format!("the ids that {file} gives to {name} are not yours to map"),
                code: 125,
                hint: Some("give your own name: newuidmap maps nobody else's ids".into()),
            }),
        }
    }

    /// The first of `size` ids that no container has which has its ids alone. Call it with the lock.
    fn free_run(&self, size: u32) -> Result<u32> {
        let most = further(&self.maps.uid).min(further(&self.maps.gid));
        let mut taken: Vec<(u32, u32)> = Vec::new();
        for id in self.ids()? {
            let dir = self.paths.container(&id);
            if let Ok(Some(container)) = records::load(&dir)
                && let Some(arranged) = container.config.arranged.filter(|a| a.alone)
            {
                taken.extend(arranged.uid.iter().map(|run| (run.1, run.2)));
            }
        }
        taken.sort_unstable();
        let mut start = 1_u32;
        for (first, len) in taken {
            if start.saturating_add(size) <= first {
                break;
            }
            start = start.max(first.saturating_add(len));
        }
        match size > 0 && start.saturating_add(size) <= most.saturating_add(1) {
            true => Ok(start),
            false => Err(Error::Remote {
                message: format!(
                    "there are no {size} ids left for --userns auto: of {most} subordinate ids {} are taken by other containers",
                    start - 1
                ),
                code: 125,
                hint: Some(
                    "remove containers that are not needed, ask for fewer (--userns auto:size=N), or have more in /etc/subuid \
                     and /etc/subgid"
                        .into(),
                ),
            }),
        }
    }

    fn maps_of(&self, arranged: &Arranged) -> Result<IdMaps> {
        let runs = |runs: &[Run]| -> Vec<IdRange> {
            let run = |&(container, host, len): &Run| IdRange {
                container,
                host,
                len,
            };
            runs.iter().map(run).collect()
        };
        let maps =
            self.maps
                .rearranged(&runs(&arranged.uid), &runs(&arranged.gid))
                .map_err(|why| Error::Remote {
                    message: format!("the users of the container cannot be arranged so: {why}"),
                    code: 125,
                    hint: self.maps.is_single().then(|| {
                        "rcon doctor says what it takes to have subordinate ids".to_owned()
                    }),
                })?;
        if maps.to_host_uid(0).is_none() || maps.to_host_gid(0).is_none() {
            return Err(Error::Invalid(
                "a container needs a user 0 and a group 0, by which it is set up".into(),
            ));
        }
        Ok(maps)
    }

    /// The same engine, for a container whose users are arranged in another way; `None` for all others.
    ///
    /// # Errors
    /// When these ids are not there any more.
    pub(crate) fn arranged_for(&self, config: &Config) -> Result<Option<Engine>> {
        let Some(arranged) = &config.arranged else {
            return Ok(None);
        };
        let special = self.maps_of(arranged)?;
        Ok(Some(Engine {
            paths: self.paths.clone(),
            maps: self.maps.clone(),
            store: Store::open_for(&self.paths.root, &self.maps, &special)?
                .with_additional(&self.paths.image_stores)?,
            special: Some(special),
            is_monitor: self.is_monitor,
        }))
    }

    /// The ids of a container.
    pub fn maps_for(&self, config: &Config) -> IdMaps {
        let special = config.arranged.as_ref().map(|a| self.maps_of(a));
        match special {
            Some(Ok(maps)) => maps,
            _ => self.container_maps().clone(),
        }
    }

    /// The ids of the containers that this engine is for.
    pub(crate) fn container_maps(&self) -> &IdMaps {
        self.special.as_ref().unwrap_or(&self.maps)
    }

    /// The store of the containers that this engine is for, opened by who is root over all ids.
    pub(crate) fn open_store(&self) -> Result<Store> {
        let own = match &self.special {
            Some(special) => Store::open_for(&self.paths.root, &self.maps, special)?,
            None => Store::open(&self.paths.root, &self.maps)?,
        };
        Ok(own.with_additional(&self.paths.image_stores)?)
    }

    /// Makes the snapshot of a container; layers that lie with other owners only, here or in an additional store, are
    /// unpacked for it first.
    ///
    /// # Errors
    /// As [`Store::create_snapshot`].
    pub(crate) fn make_snapshot(&self, id: &str, image: &ImageRecord) -> Result<Snapshot> {
        if self.special.is_none() {
            match self.store.create_snapshot(id, image) {
                Err(rcon_store::Error::OtherIds) if !self.maps.is_single() || image.read_only => {}
                Err(rcon_store::Error::OthersLayer { .. }) => {}
                other => return Ok(other?),
            }
        }
        self.store.make_layers_folder()?;
        let made = self.in_worker(|store| -> Result<()> {
            let layers = image.layers.iter();
            let held = layers.map(|layer| store.take_layer_from_others(layer));
            let held = held.collect::<std::result::Result<Vec<_>, _>>()?;
            store.create_snapshot(id, image)?;
            drop(held);
            Ok(())
        });
        made?;
        let gone = || Error::Invalid(format!("the root file system of container {id} is missing"));
        self.store.snapshot(id)?.ok_or_else(gone)
    }
}

/// How many ids there are beyond the user's own.
fn further(ranges: &[IdRange]) -> u32 {
    let all: u64 = ranges.iter().map(|range| u64::from(range.len)).sum();
    u32::try_from(all.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// All ids, with the user's own as `id`.
fn kept(id: u32, most: u32) -> Vec<Run> {
    let below = id.min(most);
    let mut runs = vec![(0, 1, below), (id, 0, 1)];
    if most > id {
        runs.push((id + 1, id + 1, most - id));
    }
    runs.retain(|run| run.2 > 0);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_id_is_kept() {
        assert_eq!(
            kept(1000, 65536),
            [(0, 1, 1000), (1000, 0, 1), (1001, 1001, 64536)]
        );
        assert_eq!(kept(70000, 65536), [(0, 1, 65536), (70000, 0, 1)]);
        assert_eq!(kept(0, 10), [(0, 0, 1), (1, 1, 10)]);
        assert_eq!(kept(10, 10), [(0, 1, 10), (10, 0, 1)]);
    }
}
