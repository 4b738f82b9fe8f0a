//! Which namespaces a container has, from its specification (config-linux.md, namespaces): those
//! that are new, and those of others that it joins.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{LinuxNamespaceType, LinuxTimeOffset, Spec};
use rcon_sys::process::{self, Fork};
use rcon_sys::{fdpass, userns};
use rustix::process::Pid;

use crate::ahead;
use crate::error::{Context, Error, RawError, Result};
use crate::{channel, init};

/// The bit of a time namespace, which clone(2) has no flag for.
const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// The namespaces of a container that is about to be made.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// The new ones that clone(2) makes.
    pub(crate) new: CloneFlags,
    /// Whether there is a new time namespace, which a process makes for itself.
    pub(crate) new_time: bool,
    /// Those that are joined.
    joined: Vec<Joined>,
}

#[derive(Debug)]
struct Joined {
    kind: CloneFlags,
    path: PathBuf,
    file: OwnedFd,
}

impl Namespaces {
    /// Those of `spec`; the files of the ones that are joined are opened, and looked at.
    ///
    /// Fails with [`Error::Invalid`] for two of a kind, for a file that is no namespace of its kind,
    /// and without a mount namespace: the container's mounts would be made for the whole machine.
    pub(crate) fn of(spec: &Spec) -> Result<Self> {
        let mut namespaces = Self {
            new: CloneFlags::empty(),
            new_time: false,
            joined: Vec::new(),
        };
        let mut seen = CloneFlags::empty();
        for (kind, path) in listed(spec) {
            if seen.contains(kind) {
                return Err(Error::Invalid(format!(
                    "the specification has two namespaces of the kind {}",
                    name(kind)
                )));
            }
            seen |= kind;
            match path {
                Some(path) => namespaces.joined.extend(open(kind, path)?),
                None if kind == NEWTIME => namespaces.new_time = true,
                None => namespaces.new |= kind,
            }
        }
        if !seen.contains(CloneFlags::CLONE_NEWNS) {
            return Err(Error::Invalid(
                "a container without a mount namespace is not supported: add {\"type\": \"mount\"} \
                 to linux.namespaces"
                    .to_owned(),
            ));
        }
        Ok(namespaces)
    }

    /// Whether the container has a user namespace other than its creator's.
    pub(crate) fn other_users(&self) -> bool {
        self.has(CloneFlags::CLONE_NEWUSER)
    }

    /// Whether the container has a namespace of this kind other than its creator's.
    pub(crate) fn has(&self, kind: CloneFlags) -> bool {
        self.new.contains(kind) || self.joined.iter().any(|joined| joined.kind == kind)
    }

    /// The descriptors of the namespaces that are joined.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.joined.iter().map(|joined| joined.file.as_raw_fd())
    }

    /// Whether the new process cannot be looked into from its birth on: it comes about as a root that
    /// others are already.
    pub(crate) fn is_hidden(&self) -> bool {
        let users = |joined: &Joined| joined.kind == CloneFlags::CLONE_NEWUSER;
        self.joined.iter().any(users)
    }

    /// The namespace of this kind that the new process `pid` has; `None` when it cannot be looked at.
    pub(crate) fn of_process(&self, pid: Pid, kind: CloneFlags) -> Result<Option<OwnedFd>> {
        let step = || format!("cannot open the {} namespace of the container", name(kind));
        if let Some(joined) = self.joined.iter().find(|joined| joined.kind == kind) {
            return joined.file.try_clone().map(Some).context(step);
        }
        let whose = match self.new.contains(kind) {
            true => pid.as_raw_nonzero().to_string(),
            false => "self".to_owned(),
        };
        match File::open(format!("/proc/{whose}/ns/{}", file_name(kind))) {
            Err(error) if error.raw() == libc::EACCES && self.is_hidden() => Ok(None),
            result => result.map(|file| Some(file.into())).context(step),
        }
    }

    /// A copy of this process in the namespaces, but for those in `later`, as a child of this process;
    /// in the cgroup `folder` already where that can be had. With the user namespace `made`, that one is there, and the
    /// network namespace is joined later.
    pub(crate) fn clone_into(
        &self,
        later: CloneFlags,
        folder: Option<BorrowedFd<'_>>,
        made: Option<&OwnedFd>,
    ) -> Result<Fork> {
        let new = self.new - later - made.map_or(CloneFlags::empty(), |_| ahead::KINDS);
        if self.joined.is_empty() && made.is_none() {
            let born = match process::clone_into(new, folder) {
                // Kernels before 5.7, and cgroups that want to be entered by the front door.
                Err(error) if folder.is_some() && error.raw_os_error().is_some() => {
                    process::clone(new)
                }
                other => other,
            };
            return born.map_err(refused);
        }
        // Joining a process id namespace only concerns children, and a user namespace cannot be
        // left again: so a helper joins, and has the new process born as its sibling.
        let step = || "cannot start a process for the container".to_owned();
        let (ours, theirs) = fdpass::pair().context(step)?;
        let helper = match process::fork().context(step)? {
            Fork::Child => {
                drop(ours);
                if let Err(error) = made.map_or(Ok(()), ahead::join).and_then(|()| self.join()) {
                    channel::fail(Some(&theirs), &error);
                }
                match process::clone_sibling(new, folder) {
                    Ok(Fork::Child) => return Ok(Fork::Child),
                    Ok(Fork::Parent { pid, pidfd }) => {
                        channel::tell_born(&theirs, pid, pidfd);
                        process::exit_now(0)
                    }
                    Err(error) => channel::fail(Some(&theirs), &refused(error)),
                }
            }
            Fork::Parent { pidfd, .. } => pidfd,
        };
        drop(theirs);
        let born = channel::hear_born(&ours);
        process::wait_pidfd(&helper).context(step)?;
        let (pid, pidfd) = born?;
        Ok(Fork::Parent { pid, pidfd })
    }

    /// Join: first what our own rights are good for, then what takes those in the user namespace.
    fn join(&self) -> Result<()> {
        if self.is_hidden() {
            init::hide()?;
        }
        let mut later = Vec::new();
        for joined in &self.joined {
            if joined.kind == CloneFlags::CLONE_NEWUSER {
                continue;
            }
            match setns(&joined.file, joined.kind) {
                Err(Errno::EPERM) => later.push(joined),
                result => result.context(|| joining(joined))?,
            }
        }
        let users = |joined: &&Joined| joined.kind == CloneFlags::CLONE_NEWUSER;
        if let Some(joined) = self.joined.iter().find(users) {
            setns(&joined.file, joined.kind).context(|| joining(joined))?;
            userns::become_root(true)
                .context(|| "cannot become root of the user namespace".to_owned())?;
        }
        for joined in later {
            setns(&joined.file, joined.kind).context(|| joining(joined))?;
        }
        Ok(())
    }
}

/// The mount namespace of this process, which must still see the host's proc.
pub(crate) fn own_mounts() -> Result<OwnedFd> {
    let file = File::open("/proc/self/ns/mnt");
    file.map(OwnedFd::from)
        .context(|| "cannot open the mount namespace of the container".to_owned())
}

fn joining(joined: &Joined) -> String {
    let kind = name(joined.kind);
    format!("cannot join the {kind} namespace {}", joined.path.display())
}

fn refused(error: std::io::Error) -> Error {
    match error.raw_os_error() {
        Some(errno) => Error::Namespaces { errno },
        None => Error::Invalid(error.to_string()),
    }
}

/// The kinds of namespaces that a container of `spec` does not share with its creator, as far as the
/// specification tells: those a program that is started in it has to join.
pub(crate) fn kinds(spec: &Spec) -> CloneFlags {
    let own = |kind: CloneFlags, path: &Path| {
        let of = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
        let mine = of(&Path::new("/proc/self/ns").join(file_name(kind)));
        mine.is_ok_and(|mine| of(path).is_ok_and(|other| other == mine))
    };
    listed(spec)
        .filter(|(kind, path)| path.is_none_or(|path| !own(*kind, path)))
        .fold(CloneFlags::empty(), |all, (kind, _)| all | kind)
}

fn listed(spec: &Spec) -> impl Iterator<Item = (CloneFlags, Option<&Path>)> {
    let listed = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_ref());
    listed.into_iter().flatten().map(|namespace| {
        let kind = match namespace.typ() {
            LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
            LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
            LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
            LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
            LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
            LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
            LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            LinuxNamespaceType::Time => NEWTIME,
        };
        let path = namespace.path().as_deref();
        (kind, path.filter(|path| !path.as_os_str().is_empty()))
    })
}

/// The namespace at `path`; `None` when it is the one that this process is in already.
fn open(kind: CloneFlags, path: &Path) -> Result<Option<Joined>> {
    let step = || {
        format!(
            "cannot open the {} namespace {}",
            name(kind),
            path.display()
        )
    };
    let file = File::open(path).context(step)?;
    let meta = file.metadata().context(step)?;
    let own = std::fs::metadata(Path::new("/proc/self/ns").join(file_name(kind)));
    if own.is_ok_and(|own| (own.dev(), own.ino()) == (meta.dev(), meta.ino())) {
        return Ok(None);
    }
    match rcon_sys::process::namespace_kind(&file) {
        Ok(found) if found == kind.bits() => {}
        _ => {
            return Err(Error::Invalid(format!(
                "{} is not a {} namespace",
                path.display(),
                name(kind)
            )));
        }
    }
    Ok(Some(Joined {
        kind,
        path: path.to_owned(),
        file: file.into(),
    }))
}

fn name(kind: CloneFlags) -> &'static str {
    match file_name(kind) {
        "net" => "network",
        "mnt" => "mount",
        name => name,
    }
}

fn file_name(kind: CloneFlags) -> &'static str {
    match kind {
        CloneFlags::CLONE_NEWUSER => "user",
        CloneFlags::CLONE_NEWNS => "mnt",
        CloneFlags::CLONE_NEWPID => "pid",
        CloneFlags::CLONE_NEWNET => "net",
        CloneFlags::CLONE_NEWIPC => "ipc",
        CloneFlags::CLONE_NEWUTS => "uts",
        CloneFlags::CLONE_NEWCGROUP => "cgroup",
        _ => "time",
    }
}

/// Put this process into a new time namespace with the offsets of `spec` (time_namespaces(7)).
///
/// Must see the host's proc, and be able to write its own files there.
pub(crate) fn enter_new_time(spec: &Spec) -> Result<()> {
    let step = || "cannot make a time namespace".to_owned();
    nix::sched::unshare(NEWTIME).context(step)?;
    let linux = spec.linux().as_ref();
    let offsets = linux.and_then(|linux| linux.time_offsets().as_ref());
    let mut text = String::new();
    for (clock, offset) in offsets.into_iter().flatten() {
        text += &offset_line(clock, offset)?;
    }
    if !text.is_empty() {
        std::fs::write("/proc/self/timens_offsets", &text)
            .context(|| format!("cannot set the clocks to {}", text.trim_end()))?;
    }
    // It was made for children; this process moves into it too, while it has one thread.
    let file = File::open("/proc/self/ns/time_for_children").context(step)?;
    setns(&file, NEWTIME).context(step)
}

fn offset_line(clock: &str, offset: &LinuxTimeOffset) -> Result<String> {
    match clock {
        "monotonic" | "boottime" => Ok(format!(
            "{clock} {} {}\n",
            offset.secs().unwrap_or(0),
            offset.nanosecs().unwrap_or(0)
        )),
        _ => Err(Error::Invalid(format!(
            "{clock:?} is no clock of a time namespace: there are monotonic and boottime"
        ))),
    }
}
