//! The mounts of a specification (config.md, mounts), on a root filesystem that is not to be
//! trusted.
//!
//! Each is made detached, with its attributes, and then put on a place that was found or created
//! inside the root. Nothing is mounted by a path of the container.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::CloneFlags;
use oci_spec::runtime::{Mount, Spec};
use rcon_sys::ids::IdMaps;
use rcon_sys::mount::{self, Attributes, Propagation};
use rustix::fs::{OFlags, statfs};
use rustix::io::Errno;

use crate::ahead;
use crate::channel;
use crate::copyup;
use crate::devices;
use crate::error::{Context, Error, Result};
use crate::giving::Owner;
use crate::idmap::IdMapped;
use crate::namespaces::Namespaces;
use crate::options::{self, Options};
use crate::procfs;
use crate::root::{Kind, Root, is_folder};
use crate::rootfs;

const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The work of mounting for one container.
pub(crate) struct Mounter<'a> {
    spec: &'a Spec,
    root: &'a Root,
    maps: &'a IdMaps,
    namespaces: &'a Namespaces,
    mapped: IdMapped,
    owner: Option<Owner>,
    /// Where the network namespace comes from, as long as this process is not in it.
    network_from: Option<&'a OwnedFd>,
    /// Its proc, while the sysctls in it wait for the network namespace and nothing is mounted over any part of it.
    proc_pending: Option<OwnedFd>,
    sysctls_set: bool,
    dev_populated: bool,
}

impl<'a> Mounter<'a> {
    /// For the container of `spec`, which has `namespaces`, at `root`; `mapped` are the bind mounts
    /// that had to be made outside.
    pub(crate) fn new(
        spec: &'a Spec,
        root: &'a Root,
        maps: &'a IdMaps,
        namespaces: &'a Namespaces,
        mapped: IdMapped,
    ) -> Self {
        Self {
            spec,
            root,
            maps,
            namespaces,
            mapped,
            owner: None,
            network_from: None,
            proc_pending: None,
            sysctls_set: false,
            dev_populated: false,
        }
    }

    /// Whose the files of mounts with the option `rcon.give` become.
    pub(crate) fn giving_to(self, owner: Option<Owner>) -> Self {
        Self { owner, ..self }
    }

    /// The socket through which the network namespace is to come, if it does.
    pub(crate) fn network_from(self, socket: Option<&'a OwnedFd>) -> Self {
        Self {
            network_from: socket,
            ..self
        }
    }

    /// Enter the network namespace, and set the sysctls that waited for it. The later, the more is done while it is being
    /// made.
    fn enter_network(&mut self) -> Result<()> {
        if let Some(socket) = self.network_from.take() {
            ahead::join_network(&channel::wait_netns(socket)?)?;
        }
        match self.proc_pending.take() {
            Some(proc) => self.set_sysctls(&proc),
            None => Ok(()),
        }
    }

    /// Mount everything, set the sysctls, and take away what the container shall not have.
    pub(crate) fn run(mut self) -> Result<()> {
        for (number, mount) in self.spec.mounts().iter().flatten().enumerate() {
            self.mount(number, mount)?;
        }
        if !self.dev_populated && !self.covers_dev() {
            let dev = self
                .root
                .find_or_create(Path::new("/dev"), Kind::Folder)
                .context(|| "cannot open /dev of the container".to_owned())?;
            devices::populate(dev, self.makes_nodes())?;
        }
        self.enter_network()?;
        if !self.sysctls_set && self.has_sysctls() {
            self.set_sysctls(&procfs::private()?)?;
        }
        self.extra_devices()?;
        if let Some(linux) = self.spec.linux() {
            procfs::mask(
                self.root,
                linux.masked_paths().as_deref().unwrap_or_default(),
            )?;
            let paths = linux.readonly_paths().as_deref().unwrap_or_default();
            procfs::make_read_only(self.root, paths)?;
        }
        Ok(())
    }

    /// Whether the specification mounts something of its own on `/dev`.
    fn covers_dev(&self) -> bool {
        let mut mounts = self.spec.mounts().iter().flatten();
        mounts.any(|mount| mount.destination() == Path::new("/dev"))
    }

    fn has(&self, namespace: CloneFlags) -> bool {
        self.namespaces.has(namespace)
    }

    /// Whether device nodes can be made: never in a user namespace.
    fn makes_nodes(&self) -> bool {
        !self.namespaces.other_users()
    }

    fn mount(&mut self, number: usize, entry: &Mount) -> Result<()> {
        let words = entry.options().as_deref().unwrap_or_default();
        let options = options::parse(words.iter().map(String::as_str))?;
        let kind = entry.typ().as_deref().unwrap_or("bind");
        if kind != "proc" && !lies_in_dev(entry) {
            self.enter_network()?;
        }
        if let Some(tree) = self.mapped.take(number) {
            let source = entry.source().as_deref().unwrap_or(Path::new(kind));
            let recursive = options.bind.unwrap_or(false);
            return self.put(tree, source, entry.destination(), recursive, &options);
        }
        if kind == "bind" || options.bind.is_some() {
            let source = entry.source().as_deref().ok_or_else(|| {
                let place = entry.destination().display();
                Error::Invalid(format!("the bind mount on {place} has no source"))
            })?;
            let recursive = options.bind.unwrap_or(false);
            return self.bind(source, entry.destination(), recursive, &options);
        }
        if options.idmap.is_some() {
            return Err(Error::Invalid(format!(
                "the mount on {} is to have id maps, which only bind mounts can have",
                entry.destination().display()
            )));
        }
        match kind {
            "rcon.layers" => self.layers(entry, &options),
            "proc" => self.proc(entry, &options),
            "sysfs" if !self.has(CloneFlags::CLONE_NEWNET) => self.host_tree("/sys", entry),
            "sysfs" => match self.filesystem("sysfs", entry, &options) {
                // Where something hides a part of the host's own /sys.
                Err(Error::Setup {
                    errno: libc::EPERM, ..
                }) => self.host_tree("/sys", entry),
                other => other.map(drop),
            },
            "cgroup" | "cgroup2" => self.cgroup(entry, &options),
            "devpts" => self.devpts(entry, options),
            "mqueue" if !self.has(CloneFlags::CLONE_NEWIPC) => self.bind(
                Path::new("/dev/mqueue"),
                entry.destination(),
                false,
                &options,
            ),
            "tmpfs" if entry.destination() == Path::new("/dev") => {
                let dev = self.filesystem("tmpfs", entry, &options)?;
                self.dev_populated = true;
                devices::populate(dev, self.makes_nodes())
            }
            kind => self.filesystem(kind, entry, &options).map(drop),
        }
    }

    fn proc(&mut self, entry: &Mount, options: &Options) -> Result<()> {
        if !self.has(CloneFlags::CLONE_NEWPID) {
            return self.bind(Path::new("/proc"), entry.destination(), true, options);
        }
        let proc = match self.filesystem("proc", entry, options) {
            // Where a part of the /proc around is covered, as container engines do, the kernel
            // mounts no new one. That one shows more processes, and lets nobody touch them.
            Err(Error::Setup {
                errno: libc::EPERM, ..
            }) => {
                self.bind(Path::new("/proc"), entry.destination(), true, options)?;
                self.enter_network()?;
                self.sysctls_set = true;
                return procfs::set_sysctls_around(self.namespaces, self.sysctls());
            }
            other => other?,
        };
        if self.has_sysctls() {
            self.proc_pending = Some(proc);
            if self.network_from.is_none() {
                return self.enter_network();
            }
        }
        Ok(())
    }

    fn devpts(&self, entry: &Mount, mut options: Options) -> Result<()> {
        // The group of terminals, usually 5, need not be among the container's ids.
        options.data.retain(|(name, value)| {
            let id = value.as_deref().and_then(rcon_sys::passwd::parse_id);
            match (name.as_str(), id) {
                ("gid", Some(id)) => self.maps.to_host_gid(id).is_some(),
                ("uid", Some(id)) => self.maps.to_host_uid(id).is_some(),
                _ => true,
            }
        });
        self.filesystem("devpts", entry, &options).map(drop)
    }

    /// The cgroup file system: that of the second version wherever it can be mounted. On a host
    /// with the first version a container does without.
    fn cgroup(&self, entry: &Mount, options: &Options) -> Result<()> {
        let unified = || statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.f_type == CGROUP2_MAGIC);
        if self.has(CloneFlags::CLONE_NEWCGROUP)
            && self.filesystem("cgroup2", entry, options).is_ok()
        {
            return Ok(());
        }
        if unified() {
            return self.host_tree("/sys/fs/cgroup", entry);
        }
        Ok(())
    }

    /// A read-only copy of a kernel file system of the host with all that is mounted in it.
    fn host_tree(&self, path: &str, entry: &Mount) -> Result<()> {
        let mut options = Options::default();
        options.recursive.0 = Attributes::MOUNT_ATTR_RDONLY
            | Attributes::MOUNT_ATTR_NOSUID
            | Attributes::MOUNT_ATTR_NODEV
            | Attributes::MOUNT_ATTR_NOEXEC;
        options.propagation = Some((Propagation::Slave, true));
        self.bind(Path::new(path), entry.destination(), true, &options)
    }

    /// Mount a new file system of `kind`; a descriptor of its root.
    fn filesystem(&self, kind: &str, entry: &Mount, options: &Options) -> Result<OwnedFd> {
        let place = entry.destination();
        let step = || format!("cannot mount {kind} on {}", place.display());
        let target = self
            .root
            .find_or_create(place, Kind::Folder)
            .context(step)?;
        let attributes = options.attributes.0 | options.recursive.0;
        let source = entry.source().as_deref();
        let filesystem =
            mount::new_filesystem(kind, source, &options.data, attributes).context(step)?;
        if let Some((propagation, _)) = options.propagation
            && propagation != Propagation::Private
        {
            mount::set_attributes(&filesystem, Attributes::empty(), Some(propagation), false)
                .context(step)?;
        }
        if options.copy_up {
            let own_mode = options.data.iter().any(|(name, _)| name == "mode");
            copyup::fill(&target, &filesystem, own_mode)
                .context(|| format!("cannot copy what is in {}", place.display()))?;
        }
        self.give(&filesystem, options, place)?;
        mount::attach(&filesystem, &target).context(step)?;
        Ok(filesystem)
    }

    /// Folders over one another, as the options `lowerdir` name them, the topmost first; what is
    /// written where it may be written goes to memory.
    fn layers(&self, entry: &Mount, options: &Options) -> Result<()> {
        let place = entry.destination();
        let step = || format!("cannot mount layers on {}", place.display());
        let lower = options.data.iter().filter(|(name, _)| name == "lowerdir");
        let lower: Vec<&Path> = lower
            .filter_map(|(_, path)| Some(Path::new(path.as_deref()?)))
            .collect();
        let attributes = options.attributes.0 | options.recursive.0;
        let writable = !attributes.contains(Attributes::MOUNT_ATTR_RDONLY);
        let tree = match (&lower[..], writable) {
            ([], _) => return Err(Error::Invalid(format!("{}: nothing to mount", step()))),
            ([only], false) => mount::copy_of_path(only, false).context(step)?,
            (lower, false) if lower.len() <= rootfs::MOST_AT_ONCE => rootfs::layers(lower)?,
            (lower, _) => {
                let target = self.root.find_or_create(place, Kind::Folder);
                let target = target.context(step)?;
                let memory = mount::new_filesystem("tmpfs", None, &[], Attributes::empty());
                mount::attach(&memory.context(step)?, &target).context(step)?;
                let memory = self.root.find(place).context(step)?;
                rootfs::layers_over(lower, &memory)?;
                let mounted = self.root.find(place).context(step)?;
                mount::copy_of(&mounted, false).context(step)?
            }
        };
        self.put(tree, Path::new("an image"), place, false, options)
    }

    /// Hand the files of a new mount over to the program's user, if they are to be.
    fn give(&self, tree: &OwnedFd, options: &Options, place: &Path) -> Result<()> {
        match &self.owner {
            Some(owner) if options.give => owner.take(tree).context(|| {
                format!(
                    "cannot give the files at {} to the container's user",
                    place.display()
                )
            }),
            _ => Ok(()),
        }
    }

    fn bind(&self, source: &Path, place: &Path, recursive: bool, options: &Options) -> Result<()> {
        let step = || format!("cannot mount {} on {}", source.display(), place.display());
        if !source.is_absolute() {
            return Err(Error::Invalid(format!(
                "the source {} of a bind mount is not an absolute path",
                source.display()
            )));
        }
        let tree = mount::copy_of_path(source, recursive).context(step)?;
        self.put(tree, source, place, recursive, options)
    }

    /// Give the detached `tree`, a copy of `source`, its attributes and put it on `place`.
    fn put(
        &self,
        tree: OwnedFd,
        source: &Path,
        place: &Path,
        recursive: bool,
        options: &Options,
    ) -> Result<()> {
        let step = || format!("cannot mount {} on {}", source.display(), place.display());
        let tree = match &options.part {
            Some(part) => {
                let within = Root::new(tree);
                let part = within
                    .find(Path::new(part))
                    .context(|| format!("cannot find {part} in {}", source.display()))?;
                mount::copy_of(&part, recursive).context(step)?
            }
            None => tree,
        };
        self.give(&tree, options, place)?;
        let kind = match is_folder(&tree).context(step)? {
            true => Kind::Folder,
            false => Kind::File,
        };
        let (propagation, all) = options.propagation.unwrap_or((Propagation::Private, true));
        let (own, below) = (options.attributes.0, options.recursive.0);
        if recursive && (all || !below.is_empty()) {
            let propagation = all.then_some(propagation);
            mount::set_attributes(&tree, below, propagation, true).context(step)?;
        }
        if !recursive || !all || !own.is_empty() {
            let propagation = (!recursive || !all).then_some(propagation);
            let own = if recursive { own } else { own | below };
            mount::set_attributes(&tree, own, propagation, false).context(step)?;
        }
        self.clear(&tree, options).context(step)?;
        let target = self.root.find_or_create(place, kind).context(step)?;
        mount::attach(&tree, &target).context(step)
    }

    /// Take away the attributes that the mount has from its origin and shall not have. Those of a
    /// parent user namespace stay.
    fn clear(&self, tree: &OwnedFd, options: &Options) -> Result<(), Errno> {
        let none = Attributes::empty();
        if self.namespaces.other_users() {
            return Ok(());
        }
        for (cleared, recursive) in [
            (options.recursive_cleared.0, true),
            (options.cleared.0, false),
        ] {
            match mount::replace_attributes(tree, none, cleared, recursive) {
                // This whole process lives in somebody's user namespace.
                Ok(()) | Err(Errno::PERM) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Devices beyond those that every container has.
    fn extra_devices(&self) -> Result<()> {
        let linux = self.spec.linux().as_ref();
        for device in linux
            .and_then(|linux| linux.devices().as_ref())
            .into_iter()
            .flatten()
        {
            devices::add(self.root, device, self.makes_nodes())?;
        }
        Ok(())
    }

    fn sysctls(&self) -> impl Iterator<Item = (&'a String, &'a String)> {
        let linux = self.spec.linux().as_ref();
        linux
            .and_then(|linux| linux.sysctl().as_ref())
            .into_iter()
            .flatten()
    }

    fn has_sysctls(&self) -> bool {
        self.sysctls().next().is_some()
    }

    fn set_sysctls(&mut self, proc: &OwnedFd) -> Result<()> {
        self.sysctls_set = true;
        procfs::set_sysctls(proc, self.namespaces, self.sysctls())
    }
}

/// Whether a mount shows nothing of the network, and is put over no part of proc.
fn lies_in_dev(entry: &Mount) -> bool {
    entry.destination().starts_with("/dev")
        && matches!(entry.typ().as_deref(), Some("tmpfs" | "devpts" | "mqueue"))
}

/// A descriptor of `folder` that can be read, for one that can only be found.
pub(crate) fn readable(folder: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(folder, ".", flags, rustix::fs::Mode::empty())
}
