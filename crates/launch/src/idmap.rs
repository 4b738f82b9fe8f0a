//! Bind mounts that show owners through id maps of their own (config.md, mounts: `uidMappings`,
//! `gidMappings`, and the options `idmap` and `ridmap`).
//!
//! They can only be made by who has `CAP_SYS_ADMIN` over the file system itself, so before there are
//! namespaces of the container.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use oci_spec::runtime::{LinuxIdMapping, Spec};
use rcon_sys::ids::{self, IdMaps, IdRange};
use rcon_sys::mount;
use rcon_sys::process::{self, Fork};
use rustix::io::Errno;

use crate::error::{Context, Error, RawError, Result};
use crate::options;

/// The mounts that are made already, by their number in the specification.
#[derive(Debug, Default)]
pub(crate) struct IdMapped(BTreeMap<usize, OwnedFd>);

impl IdMapped {
    /// The detached mount with this number.
    pub(crate) fn take(&mut self, number: usize) -> Option<OwnedFd> {
        self.0.remove(&number)
    }

    /// Adds mounts that were made by others, for those of `spec` with the same places; the last of a place is meant, which
    /// is the one that is seen.
    pub(crate) fn add(&mut self, spec: &Spec, trees: Vec<(PathBuf, OwnedFd)>) {
        for (place, tree) in trees {
            let mounts = spec.mounts().iter().flatten().enumerate();
            let number = mounts
                .filter(|(_, mount)| *mount.destination() == place)
                .last();
            if let Some((number, _)) = number {
                self.0.insert(number, tree);
            }
        }
    }

    /// Take hold of the sources of all bind mounts of `spec`, while this process can still reach them.
    pub(crate) fn open_sources(&mut self, spec: &Spec) -> Result<()> {
        for (number, entry) in spec.mounts().iter().flatten().enumerate() {
            let words = entry.options().as_deref().unwrap_or_default();
            let options = options::parse(words.iter().map(String::as_str))?;
            let kind = entry.typ().as_deref().unwrap_or("bind");
            let source = entry.source().as_deref().filter(|path| path.is_absolute());
            if let (Some(source), true) = (source, kind == "bind" || options.bind.is_some())
                && !self.0.contains_key(&number)
            {
                let step = || {
                    let place = entry.destination().display();
                    format!("cannot mount {} on {place}", source.display())
                };
                let recursive = options.bind.unwrap_or(false);
                let tree = mount::copy_of_path(source, recursive).context(step)?;
                self.0.insert(number, tree);
            }
        }
        Ok(())
    }

    /// All descriptors.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.0.values().map(AsRawFd::as_raw_fd)
    }
}

/// Make the mounts of `spec` that have id maps.
pub(crate) fn prepare(spec: &Spec) -> Result<IdMapped> {
    let mut made = IdMapped::default();
    for (number, mount) in spec.mounts().iter().flatten().enumerate() {
        let words = mount.options().as_deref().unwrap_or_default();
        let own = mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
        // The words are only looked at where one of them can be meant.
        if !own && !words.iter().any(|word| word == "idmap" || word == "ridmap") {
            continue;
        }
        let options = options::parse(words.iter().map(String::as_str))?;
        let place = mount.destination().display();
        let source = mount.source().as_deref();
        let Some(source) = source.filter(|_| options.bind.is_some()) else {
            return Err(Error::Invalid(format!(
                "the mount on {place} is to have id maps, which only bind mounts can have"
            )));
        };
        let linux = spec.linux().as_ref();
        let (uid, gid) = match (mount.uid_mappings(), mount.gid_mappings()) {
            (Some(uid), Some(gid)) => (uid, gid),
            (None, None) => match linux.map(|linux| (linux.uid_mappings(), linux.gid_mappings())) {
                Some((Some(uid), Some(gid))) => (uid, gid),
                _ => {
                    return Err(Error::Invalid(format!(
                        "the mount on {place} is to have the container's id maps, and it has none"
                    )));
                }
            },
            _ => {
                return Err(Error::Invalid(format!(
                    "the mount on {place} has id maps for users or for groups only; it needs both"
                )));
            }
        };
        let recursive = options.bind.unwrap_or(false);
        let tree = tree(source, recursive, options.idmap.unwrap_or(false), uid, gid)?;
        made.0.insert(number, tree);
    }
    Ok(made)
}

fn tree(
    source: &Path,
    recursive: bool,
    all: bool,
    uid: &[LinuxIdMapping],
    gid: &[LinuxIdMapping],
) -> Result<OwnedFd> {
    let step = || format!("cannot mount {} with id maps", source.display());
    let maps = IdMaps::given(ranges(uid), ranges(gid)).map_err(Error::Invalid)?;
    let userns = user_namespace(&maps)?;
    let tree = mount::copy_of_path(source, recursive).context(step)?;
    match mount::map_ids(&tree, &userns, all) {
        Err(Errno::INVAL) => Err(Error::Invalid(format!(
            "{}: its file system does not know id-mapped mounts",
            step()
        ))),
        Err(Errno::PERM) => Err(Error::Invalid(format!(
            "{}: ordinary users cannot have id-mapped mounts",
            step()
        ))),
        result => result.context(step).map(|()| tree),
    }
}

/// The maps of a specification, in our terms.
pub(crate) fn ranges(mappings: &[LinuxIdMapping]) -> Vec<IdRange> {
    let range = |mapping: &LinuxIdMapping| IdRange {
        container: mapping.container_id(),
        host: mapping.host_id(),
        len: mapping.size(),
    };
    mappings.iter().map(range).collect()
}

/// A user namespace that nobody lives in, for its maps.
fn user_namespace(maps: &IdMaps) -> Result<OwnedFd> {
    let step = || "cannot make a user namespace for id maps".to_owned();
    let (waits, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(step)?;
    let child = process::clone(CloneFlags::CLONE_NEWUSER)
        .map_err(|error| Error::Namespaces { errno: error.raw() })?;
    let (pid, pidfd) = match child {
        Fork::Child => {
            drop(go);
            let _ = rustix::io::read(&waits, &mut [0_u8]);
            process::exit_now(0)
        }
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    let made = ids::write_maps(pid, maps)
        .map_err(Error::from)
        .and_then(|()| {
            let path = format!("/proc/{}/ns/user", pid.as_raw_nonzero());
            File::open(path).map(OwnedFd::from).context(step)
        });
    drop(go);
    process::wait_pidfd(&pidfd).context(step)?;
    made
}
