//! Many records, read one after the other with as few calls of the kernel as it takes: paths relative to the folder that
//! all are in, no question of their size, one buffer for all. Whatever is unusual about one is left to
//! [`Engine::current`], which also mends it.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use crate::error::{Context, Error, Result};
use crate::record::{Config, Container, FORMAT, State};
use crate::{Engine, ListRequest, Paths, limits, records};

/// What a record rarely exceeds.
const ROOM: usize = 64 * 1024;

/// The folder of all containers.
struct Reader {
    dir: OwnedFd,
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
            buffer: vec![0; ROOM],
            path: String::new(),
        })
    }

    fn read<T: DeserializeOwned>(&mut self, id: &str, name: &str) -> Read<T> {
        self.path.clear();
        for part in [id, "/", name] {
            self.path.push_str(part);
        }
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
    fn container(&mut self, id: &str) -> Option<Container> {
        let config = match self.read::<Config>(id, "config.json") {
            Read::Value(config) if config.format <= FORMAT => config,
            _ => return None,
        };
        let state = match self.read::<State>(id, "state.json") {
            Read::Value(state) => state,
            Read::Missing if config.by_run == Some(false) => State::default(),
            Read::Missing => match self.read(id, records::CREATOR) {
                Read::Value(state) => state,
                Read::Missing => State::default(),
                Read::Unusual => return None,
            },
            Read::Unusual => return None,
        };
        Some(Container { config, state })
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
        let mut reader = Reader::open(&self.paths)?;
        let mut all = Vec::new();
        for id in self.ids()? {
            let read = reader.container(&id);
            let found = match read.and_then(|container| self.if_true(container)) {
                Some(container) => Ok(Some(container)),
                None => self.current(&id),
            };
            match found {
                Ok(Some(container)) if only_alive && !container.state.status.is_alive() => {}
                Ok(Some(container)) => all.push(container),
                // Removed since we read the directory; or damaged by a crash of the machine, which must not hide the others.
                Ok(None) | Err(Error::Damaged(..)) => {}
                Err(error) => return Err(error),
            }
        }
        // The records are large: they are moved once, when it is known where to.
        all.sort_by_cached_key(|c| (c.config.created, c.config.id.clone()));
        if let Some(last) = request.last {
            all.drain(..all.len().saturating_sub(last));
        }
        let filters = filters.prepare(&all)?;
        all.retain(|c| (everything || c.state.status.is_alive()) && filters.accept(c));
        Ok(all)
    }

    /// The container, if there is nothing about it to be mended.
    fn if_true(&self, mut container: Container) -> Option<Container> {
        let state = &container.state;
        let fine = match state.status.is_alive() {
            true => state.has(state.process) && !state.has_lost_monitor(),
            false => state.is_true() && !state.is_ending(),
        };
        if fine {
            limits::look(&self.paths, &mut container);
        }
        fine.then_some(container)
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

    /// How often memory is asked for to read one record more: 9 were counted.
    const AT_MOST: u64 = 10;

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
        let list = |expected: usize| {
            let request = ListRequest {
                all: true,
                ..ListRequest::default()
            };
            let (list, count) = allocations(|| engine.list(&request).unwrap());
            assert_eq!(list.len(), expected);
            count
        };
        make(0..100);
        list(100);
        let some = list(100);
        make(100..300);
        let each = (list(300) - some) / 200;
        assert!(
            each <= AT_MOST,
            "{each} allocations a record, at most {AT_MOST}"
        );
        assert!(each > 0, "nothing is counted");
    }
}
