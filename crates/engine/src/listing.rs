//! Many records, read one after the other with as few calls of the kernel as it takes: paths relative to the folder that
//! all are in, no question of their size, one buffer for all. Whatever is unusual about one is left to
//! [`Engine::current`], which also mends it.

use std::fs::File;
use std::os::fd::OwnedFd;

use chrono::{DateTime, Utc};
use rcon_sys::memory::Untouched;
use rustix::fs::{Access, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use crate::error::{Context, Error, Result};
use crate::overview::{Overview, Part};
use crate::record::{Config, Container, FORMAT, State, Status};
use crate::{Engine, ListRequest, Paths, limits, process_ref, records};

/// What a record rarely exceeds.
const ROOM: usize = 64 * 1024;

/// How many of those that are alive are looked at by one call.
const AT_ONCE: usize = 32;

/// What a list can be of.
trait Entry {
    /// What of `config.json` it is made of.
    type Config: DeserializeOwned;

    fn format(config: &Self::Config) -> u32;
    fn by_run(config: &Self::Config) -> Option<bool>;
    fn new(id: String, config: Self::Config, state: State) -> Self;
    fn of(container: Container) -> Self;
    /// What they are sorted by: when they were created, and the beginning of the id.
    fn rank(&self) -> Rank;
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

    fn rank(&self) -> Rank {
        (self.config.created, beginning(&self.config.id))
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

    fn rank(&self) -> Rank {
        (self.created, beginning(&self.id))
    }
}

type Rank = (DateTime<Utc>, Option<[u8; 16]>);

fn beginning(id: &str) -> Option<[u8; 16]> {
    id.as_bytes().first_chunk().copied()
}

/// What was read of a container that says it is alive, with its process and who looks after it.
struct Alive<C> {
    id: String,
    config: C,
    state: State,
    held: [OwnedFd; 2],
}

/// The folder of all containers.
struct Reader {
    dir: OwnedFd,
    /// Where those that run have what is theirs.
    runtime: Option<OwnedFd>,
    buffer: Untouched,
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
            buffer: Untouched::new(ROOM),
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
        let text = match rustix::io::read(&file, &mut self.buffer[..]) {
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
            // It was removed between the two looks.
            Read::Missing if !self.has_config(id) => return None,
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

    fn has_config(&mut self, id: &str) -> bool {
        self.name(id, "config.json");
        let path = self.path.as_str();
        rustix::fs::accessat(&self.dir, path, Access::EXISTS, AtFlags::empty()).is_ok()
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
        let (mut alive, mut doubtful) = (Vec::new(), Vec::new());
        for id in self.ids()? {
            match reader.files::<E>(&id) {
                Some((config, state)) if state.status.is_alive() => match state.hold() {
                    Some(held) => alive.push(Alive {
                        id,
                        config,
                        state,
                        held,
                    }),
                    None => doubtful.push(id),
                },
                Some((config, state)) if state.is_true() && !state.is_ending() => {
                    if !only_alive {
                        all.push(E::new(id, config, state));
                    }
                }
                _ => doubtful.push(id),
            }
            if alive.len() == AT_ONCE {
                self.sort_out(&mut alive, &mut reader, &mut all, &mut doubtful);
            }
        }
        self.sort_out(&mut alive, &mut reader, &mut all, &mut doubtful);
        for id in doubtful {
            match self.current(&id) {
                Ok(Some(container)) => {
                    if !only_alive || container.state.status.is_alive() {
                        all.push(E::of(container));
                    }
                }
                // Removed since we read the directory; or damaged by a crash of the machine, which must not hide the others.
                Ok(None) | Err(Error::Damaged(..)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut order: Vec<_> = all.iter().map(E::rank).zip(0..).collect();
        order.sort_unstable();
        if let Some(last) = last {
            order.drain(..order.len().saturating_sub(last));
        }
        // The records are large: they are moved once, when it is known where to.
        let mut all: Vec<Option<E>> = all.into_iter().map(Some).collect();
        let order = order.into_iter();
        Ok(order
            .filter_map(|(_, at): (_, usize)| all[at].take())
            .collect())
    }

    /// Looks whether those that say so are alive, and so are their monitors.
    fn sort_out<E: Entry>(
        &self,
        alive: &mut Vec<Alive<E::Config>>,
        reader: &mut Reader,
        all: &mut Vec<E>,
        doubtful: &mut Vec<String>,
    ) {
        let held: Vec<&OwnedFd> = alive.iter().flat_map(|alive| &alive.held).collect();
        let ended = process_ref::which_ended(&held);
        for (found, ended) in alive.drain(..).zip(ended.chunks(2)) {
            let mut state = found.state;
            if ended.contains(&true) {
                doubtful.push(found.id);
                continue;
            }
            if state.status == Status::Running && reader.may_have_cgroup(&found.id) {
                limits::look_at(&self.paths, &found.id, &mut state);
            }
            all.push(E::new(found.id, found.config, state));
        }
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
