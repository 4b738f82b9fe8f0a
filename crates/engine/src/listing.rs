//! Many records, read one after the other with as few calls of the kernel as it takes: paths relative to the folder that
//! all are in, no question of their size, one buffer for all. Whatever is unusual about one is left to
//! [`Engine::current`], which also mends it.

use std::fs::File;
use std::os::fd::OwnedFd;

use chrono::{DateTime, Utc};
use rustix::fs::{Access, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use crate::error::{Context, Error, Result};
use crate::overview::{Overview, Part};
use crate::record::{Config, Container, FORMAT, State, Status};
use crate::{Engine, ListRequest, Paths, limits, records};

/// What a record rarely exceeds.
const ROOM: usize = 64 * 1024;

/// What a list can be of.
trait Entry {
    /// What of `config.json` it is made of.
    type Config: DeserializeOwned;

    fn format(config: &Self::Config) -> u32;
    fn by_run(config: &Self::Config) -> Option<bool>;
    fn new(id: String, config: Self::Config, state: State) -> Self;
    fn of(container: Container) -> Self;
    fn created(&self) -> DateTime<Utc>;
    fn id(&self) -> &str;
    fn state(&self) -> &State;
}

impl Entry for Container {
    type Config = Config;

    fn format(config: &Config) -> u32 {
        config.format
    }

    fn by_run(config: &Config) -> Option<bool> {
        config.by_run
    }

    fn new(_: String, config: Config, state: State) -> Container {
        Container { config, state }
    }

    fn of(container: Container) -> Container {
        container
    }

    fn created(&self) -> DateTime<Utc> {
        self.config.created
    }

    fn id(&self) -> &str {
        &self.config.id
    }

    fn state(&self) -> &State {
        &self.state
    }
}

impl Entry for Overview {
    type Config = Part;

    fn format(config: &Part) -> u32 {
        config.format
    }

    fn by_run(config: &Part) -> Option<bool> {
        config.by_run
    }

    fn new(id: String, config: Part, state: State) -> Overview {
        Overview::new(id, config, state)
    }

    fn of(container: Container) -> Overview {
        Overview::from(&container)
    }

    fn created(&self) -> DateTime<Utc> {
        self.created
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn state(&self) -> &State {
        &self.state
    }
}

/// The folder of all containers.
struct Reader {
    dir: OwnedFd,
    /// Where those that run have what is theirs.
    runtime: Option<OwnedFd>,
    buffer: Vec<u8>,
    path: String,
}

/// A file of a record.
enum Read<T> {
    Value(T),
    Missing,
    /// It is for others to say what is wrong with it.
    Unusual,
}

impl Reader {
    fn open(paths: &Paths) -> Result<Reader> {
        let path = paths.containers();
        Ok(Reader {
            dir: File::open(&path).on("open", &path)?.into(),
            runtime: File::open(paths.runtime("")).ok().map(OwnedFd::from),
            buffer: vec![0; ROOM],
            path: String::new(),
        })
    }

    fn name(&mut self, id: &str, name: &str) {
        self.path.clear();
        for part in [id, "/", name] {
            self.path.push_str(part);
        }
    }

    fn read<T: DeserializeOwned>(&mut self, id: &str, name: &str) -> Read<T> {
        self.name(id, name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.dir, self.path.as_str(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Read::Missing,
            Err(_) => return Read::Unusual,
        };
        // Files are replaced whole, so less than there is room for is all.
        let text = match rustix::io::read(&file, &mut self.buffer) {
            Ok(count) if count < ROOM => &self.buffer[..count],
            _ => return Read::Unusual,
        };
        serde_json::from_slice(text).map_or(Read::Unusual, Read::Value)
    }

    /// A container as its files have it, if nothing is unusual about it.
    fn files<E: Entry>(&mut self, id: &str) -> Option<(E::Config, State)> {
        let config = match self.read::<E::Config>(id, "config.json") {
            Read::Value(config) if E::format(&config) <= FORMAT => config,
            _ => return None,
        };
        let state = match self.read::<State>(id, "state.json") {
            Read::Value(state) => state,
            Read::Missing if E::by_run(&config) == Some(false) => State::default(),
            Read::Missing => match self.read(id, records::CREATOR) {
                Read::Value(state) => state,
                Read::Missing => State::default(),
                Read::Unusual => return None,
            },
            Read::Unusual => return None,
        };
        Some((config, state))
    }

    /// Whether a container may have a cgroup.
    fn may_have_cgroup(&mut self, id: &str) -> bool {
        self.name(id, limits::FILE);
        let Some(dir) = &self.runtime else {
            return true;
        };
        let path = self.path.as_str();
        let found = rustix::fs::accessat(dir, path, Access::EXISTS, AtFlags::empty());
        found != Err(Errno::NOENT)
    }
}

impl Engine {
    /// The containers, oldest first.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self, request: &ListRequest) -> Result<Vec<Container>> {
        let filters = &request.filters;
        let everything = request.all || request.last.is_some() || filters.names_states();
        // Some filters speak of other containers than those that are shown.
        let only_alive = !everything && filters.is_empty();
        let mut all = self.entries::<Container>(only_alive, request.last)?;
        let filters = filters.prepare(&all)?;
        all.retain(|c| (everything || c.state.status.is_alive()) && filters.accept(c));
        Ok(all)
    }

    /// As [`Engine::list`] without filters, of each as much as fits into a line: that is quickly had.
    ///
    /// # Errors
    /// As [`Engine::list`].
    pub fn overview(&self, all: bool, last: Option<usize>) -> Result<Vec<Overview>> {
        self.entries(!all && last.is_none(), last)
    }

    /// Those that are alive, or all; of these the `last` ones.
    fn entries<E: Entry>(&self, only_alive: bool, last: Option<usize>) -> Result<Vec<E>> {
        let mut reader = Reader::open(&self.paths)?;
        let mut all = Vec::new();
        for id in self.ids()? {
            let read = reader.files::<E>(&id);
            let found = match read.and_then(|read| self.if_true(&id, read, &mut reader)) {
                Some((config, state)) => Ok(Some(E::new(id, config, state))),
                None => self.current(&id).map(|found| found.map(E::of)),
            };
            match found {
                Ok(Some(entry)) if only_alive && !entry.state().status.is_alive() => {}
                Ok(Some(entry)) => all.push(entry),
                // Removed since we read the directory; or damaged by a crash of the machine, which must not hide the others.
                Ok(None) | Err(Error::Damaged(..)) => {}
                Err(error) => return Err(error),
            }
        }
        // The records are large: they are moved once, when it is known where to.
        all.sort_by_cached_key(|entry| {
            let beginning = entry.id().as_bytes().first_chunk::<16>().copied();
            (entry.created(), beginning)
        });
        if let Some(last) = last {
            all.drain(..all.len().saturating_sub(last));
        }
        Ok(all)
    }

    /// What was read of a container, if there is nothing about it to be mended.
    fn if_true<C>(
        &self,
        id: &str,
        (config, mut state): (C, State),
        reader: &mut Reader,
    ) -> Option<(C, State)> {
        let fine = match state.status.is_alive() {
            true => state.has(state.process) && !state.has_lost_monitor(),
            false => state.is_true() && !state.is_ending(),
        };
        if fine && state.status == Status::Running && reader.may_have_cgroup(id) {
            limits::look_at(&self.paths, id, &mut state);
        }
        fine.then_some((config, state))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcon_sys::counting::allocations;

    use super::*;
    use crate::compact::compact;
    use crate::paths::Paths;
    use crate::record::test_config;

    /// How often memory is asked for to read one record more, all of it and what a list shows: 8 and 6 were counted.
    const AT_MOST: [u64; 2] = [9, 7];

    #[test]
    fn a_record_costs_few_allocations() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(Paths {
            root: dir.path().join("root"),
            runroot: dir.path().join("run"),
            wish: rcon_store::Wish::default(),
            image_stores: Vec::new(),
        })
        .unwrap();
        let make = |numbers: std::ops::Range<u32>| {
            for number in numbers {
                let mut config = test_config(&format!("c{number}"));
                config.id = format!("{number:064x}");
                config.by_run = Some(false);
                let home = engine.paths().container(&config.id);
                fs::create_dir(&home).unwrap();
                fs::write(home.join("config.json"), compact(&config).to_string()).unwrap();
            }
        };
        let list = || {
            let request = ListRequest {
                all: true,
                ..ListRequest::default()
            };
            let (list, whole) = allocations(|| engine.list(&request).unwrap());
            let (short, brief) = allocations(|| engine.overview(true, None).unwrap());
            let ids = list.iter().map(|c| &c.config.id);
            assert!(ids.eq(short.iter().map(|c| &c.id)));
            [whole, brief]
        };
        make(0..100);
        list();
        let some = list();
        make(100..300);
        let many = list();
        for (at, most) in AT_MOST.into_iter().enumerate() {
            let each = (many[at] - some[at]) / 200;
            assert!(each <= most, "{each} allocations a record, at most {most}");
            assert!(each > 0, "nothing is counted");
        }
    }
}
