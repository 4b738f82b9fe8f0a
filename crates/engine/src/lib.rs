//! The engine: what a container is and what happens to it.
//!
//! A container is a directory of small files (see [`record`]), each replaced atomically, guarded by its own lock: there is
//! no daemon, no database and no lock that two containers share. While it runs, one small process of its own watches over
//! it, the *monitor* ([`monitor`]): it holds the terminal or the pipes, writes the log, serves those who attach, keeps the
//! published ports and the network, and writes down how the container ended. Commands talk to it over a socket
//! ([`protocol`]); while it lives it is the only one to write the container's state. Should it die, the next command finds
//! the truth from the processes themselves (`recovery`).
//!
//! [`Engine`] is the face of all this; the methods are in the files named after what they do. Everything may be called only
//! from a program with a single thread: containers are made by forking. Nothing here prints or reads a command line.
//!
//! To read in this order: [`record`] and [`records`] say what a container is on disk; `create`, `start`, [`monitor`] (its
//! `setup`, then `serve`) and `stop` are its life; `recovery` and `remove` its ends. `bundling`, `rootfs` and `worker` are how
//! the crates below are used; each other file is a command's.
//!
//! ```no_run
//! use rcon_engine::{CreateRequest, Engine, ImageRequest, Network, Paths, StartRequest};
//! # fn main() -> rcon_engine::Result<()> {
//! let engine = Engine::open(Paths::detect(None, None)?)?;
//! let (image, name) = engine.ensure_image("docker.io/library/alpine", &ImageRequest::default(), &rcon_engine::Silent)?;
//! let container = engine.create(CreateRequest::new(image, name, Network::default()))?;
//! engine.start(container.id(), &StartRequest::default())?;
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

/// What a list costs is held by a count.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: rcon_sys::counting::Counting = rcon_sys::counting::Counting;

mod accounts;
mod ahead;
pub mod attach;
mod bundling;
pub mod commit;
mod compact;
pub mod copy;
pub mod create;
pub mod diff;
#[cfg(test)]
mod direction;
pub mod doctor;
pub mod error;
pub mod events;
pub mod exec;
mod files;
pub mod filter;
mod given;
pub mod health;
mod hostfiles;
mod image_mounts;
pub mod images;
pub mod info;
mod joining;
pub mod keys;
pub mod lifecycle;
mod limits;
mod listing;
pub mod log;
pub mod login;
pub mod monitor;
pub mod names;
mod outgoing;
pub mod overview;
pub mod paths;
mod ports;
mod process_ref;
pub mod processes;
pub mod protocol;
pub mod record;
pub mod records;
mod recovery;
mod remove;
pub mod requests;
mod reset;
mod rootfs;
pub mod secrets;
mod sharing;
mod start;
mod stop;
mod storage_conf;
pub mod terminal;
mod unshare;
mod userns;
pub mod volumes;
mod worker;

pub use ahead::Early;
pub use attach::Session;
pub use commit::CommitRequest;
pub use copy::{CopyEnd, CopyRequest};
pub use diff::{Change, ChangeKind};
pub use doctor::{Finding, Grade};
pub use error::{Error, Result};
pub use events::{Action, Event, EventFilters, EventRequest};
pub use filter::Filters;
pub use health::{
    HealthChanges, HealthCheck, HealthResult, HealthState, HealthStatus, OnUnhealthy, StartupCheck,
};
pub use image_mounts::ImageMount;
pub use images::RemovedImage;
pub use info::Info;
pub use keys::DetachKeys;
pub use lifecycle::{Health, Lifecycle, LogDriver, LogOptions, RestartPolicy, SdNotify};
pub use limits::{CgroupChoice, CgroupMode};
pub use log::{LogLine, Stream};
pub use overview::Overview;
pub use paths::{Paths, wish_for};
pub use record::{Config, Container, NameOptions, Network, ProcessRef, State, Status, VolumeUse};
pub use requests::{
    CreateRequest, ExecOutcome, ExecRequest, ImageRequest, Inherit, ListRequest, LogRequest,
    Outcome, PullPolicy, RelayOptions, RemoveRequest, StartRequest, Streams, WaitFor, WaitRequest,
};
pub use secrets::{Secret, SecretUse};
pub use sharing::{Place, Sharing};
pub use userns::{Arranged, Arrangement};
pub use volumes::{DamagedVolume, Volume};

pub use rcon_bundle::{self as bundle, ImageConfig, Options};
pub use rcon_image::{self as image, Progress, PullEvent, PullOptions};
pub use rcon_launch::Ahead;
pub use rcon_launch::cgroup::{Manager, controllers, has_systemd};
pub use rcon_net::{self as net, PortMapping, Protocol};
pub use rcon_store::{self as store, ImageRecord};
pub use rcon_sys::descriptors::{is_inherited, take_inherited};
pub use rcon_sys::ids::IdMaps;
pub use rcon_sys::trace;

use rcon_store::Store;

/// A root directory and all that is in it.
#[derive(Debug)]
pub struct Engine {
    paths: Paths,
    maps: IdMaps,
    store: Store,
    /// Where it is for one container whose users are arranged in another way.
    special: Option<IdMaps>,
    /// This process is a monitor, and looks after no container but its own.
    is_monitor: bool,
}

impl Engine {
    /// Opens (and on the first use makes) the directories. Cheap: a few system calls when all is there.
    ///
    /// # Errors
    /// When a directory cannot be made or is not ours.
    pub fn open(paths: Paths) -> Result<Engine> {
        Engine::open_with(paths, IdMaps::detect())
    }

    /// The same, by a command that has begun something [`Early`].
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_after(paths: Paths, early: &Early) -> Result<Engine> {
        Engine::open_with(paths, early.maps.clone())
    }

    fn open_with(paths: Paths, mut maps: IdMaps) -> Result<Engine> {
        records::prepare(&paths)?;
        let mut store = Store::open(&paths.root, &maps)?;
        if let Some(why) = store.refuses_owners(&maps) {
            maps = IdMaps {
                why_single: Some(why),
                ..IdMaps::single()
            };
            store = Store::open(&paths.root, &maps)?;
        }
        let store = store.with_additional(&paths.image_stores)?;
        Ok(Engine {
            paths,
            maps,
            store,
            special: None,
            is_monitor: false,
        })
    }

    /// Where things are.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The ids a container gets.
    pub fn maps(&self) -> &IdMaps {
        &self.maps
    }

    /// Images and snapshots.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// Progress that nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: PullEvent) {}
}
