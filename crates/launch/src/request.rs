//! What a caller asks for and what it gets back.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use rcon_sys::ids::IdMaps;
use rustix::process::Pid;

use crate::accounts::Accounts;
use crate::ahead::Ahead;
use crate::cgroup::{Cgroup, Settings};
use crate::emulate::Emulation;
use crate::error::NetworkFailure;

/// Set-up of the network from inside: gives back files for the caller, or says why it failed.
pub type InNetns<'a> = Box<dyn FnOnce() -> Result<Vec<OwnedFd>, NetworkFailure> + 'a>;

/// Writes down a cgroup.
pub type NoteCgroup<'a> = Box<dyn FnMut(&Cgroup) + 'a>;

/// A container to be made.
pub struct Request<'a> {
    /// The OCI runtime specification: process, mounts, namespaces, limits.
    ///
    /// `root.path` and the id mappings in the spec are not looked at: there are `rootfs` and `maps`
    /// for them.
    pub spec: &'a Spec,
    /// The root filesystem.
    pub rootfs: Rootfs,
    /// The ids of the container, when it has a user namespace of its own.
    pub maps: &'a IdMaps,
    /// The user as people write it, `NAME|UID[:GROUP|GID]`, looked up inside the root filesystem.
    ///
    /// The empty text is the user and group of the spec; a user who is in the passwd file of the
    /// container gets its supplementary groups too, unless a group is given. `None` is exactly what
    /// the spec says, whatever the files of the container say.
    pub user: Option<String>,
    /// Supplementary groups (names or ids) beside those of the user and of the spec.
    pub group_add: Vec<String>,
    /// Keep the supplementary groups of the caller instead of all others.
    pub keep_groups: bool,
    /// Where standard input, output and error go.
    pub stdio: Stdio,
    /// The caller is not the container's root: what is only for the caller is opened before this process becomes that.
    pub open_first: bool,
    /// What the container's files say of users beside what they say already.
    pub accounts: Option<Accounts>,
    /// Mounts of the spec that are made already: detached, and put at these places.
    pub trees: Vec<(PathBuf, OwnedFd)>,
    /// Runs in the new process right after its birth, in the new user and network namespaces and
    /// before the ids are mapped, while the caller maps them; the files it gives are passed on as
    /// [`Running::passed`].
    pub in_netns: Option<InNetns<'a>>,
    /// Put a process of our own first, which passes signals on to the program and reaps orphans.
    pub init: bool,
    /// Create the working directory when it is missing.
    pub create_cwd: bool,
    /// Files that the program gets as descriptors 3, 4, ...
    pub preserve_fds: Vec<OwnedFd>,
    /// The cgroup it is to be in, with its limits; `None` leaves it in ours. The limits in the spec
    /// are looked at through [`Settings::of_spec`] only.
    pub cgroup: Option<Settings>,
    /// Hears of the cgroup right before it is made, so that no death leaves one that nobody knows.
    pub note_cgroup: Option<NoteCgroup<'a>>,
    /// With a single id: have owners and users made up where the kernel has none.
    pub emulation: Option<Emulation>,
    /// Who the container is to the programs outside that the specification names: hooks, and the
    /// listener of a seccomp filter. Without it a specification that has them is refused.
    pub known_as: Option<KnownAs<'a>>,
    /// Where to wait for the start, after [`crate::Created::leave`]: at this listening socket, whose first
    /// visitor is to call [`crate::start`], instead of for [`crate::Created::start`].
    pub door: Option<OwnedFd>,
    /// Give the container a session keyring of its own.
    pub keyring: bool,
    /// The host name is only a suggestion: where a filter around forbids to set one, that of
    /// around stays.
    pub any_host_name: bool,
    /// Its user and network namespaces, begun already with `maps`; then there is no `in_netns`. The
    /// specification has them as new ones.
    pub ahead: Option<Ahead>,
    /// Give its mount namespace out as [`Running::mounts`].
    pub keep_mounts: bool,
    /// It may wait for long before its program is started ([`Created::hold`](crate::Created::hold)): what its
    /// caller has open is nothing to it.
    pub waits: bool,
}

impl<'a> Request<'a> {
    /// A container of `spec` with its root filesystem, ids and streams, and nothing beside.
    pub fn new(spec: &'a Spec, rootfs: Rootfs, maps: &'a IdMaps, stdio: Stdio) -> Self {
        Self {
            spec,
            rootfs,
            maps,
            user: None,
            group_add: Vec::new(),
            keep_groups: false,
            stdio,
            open_first: false,
            accounts: None,
            trees: Vec::new(),
            in_netns: None,
            init: false,
            create_cwd: false,
            preserve_fds: Vec::new(),
            cgroup: None,
            note_cgroup: None,
            emulation: None,
            known_as: None,
            door: None,
            keyring: true,
            any_host_name: false,
            keep_mounts: false,
            ahead: None,
            waits: false,
        }
    }
}

/// The identity of a container to programs outside (runtime.md, state).
#[derive(Clone, Copy, Debug)]
pub struct KnownAs<'a> {
    /// Its id.
    pub id: &'a str,
    /// The absolute path of its bundle.
    pub bundle: &'a Path,
}

/// What becomes the root of the container.
#[derive(Clone, Debug)]
pub enum Rootfs {
    /// A folder, with all that is mounted in it; writes go to the folder itself.
    Dir(PathBuf),
    /// Layers on top of one another, mounted by the new process in its own namespaces.
    Overlay {
        /// The read-only layers, the topmost first.
        lower: Vec<PathBuf>,
        /// Takes the writes.
        upper: PathBuf,
        /// The work folder of overlayfs, on the file system of `upper`.
        work: PathBuf,
        /// Never wait for the disk: for containers that do not outlive a crash of the machine.
        volatile: bool,
    },
    /// The same by fuse-overlayfs, where the kernel mounts no overlay for ordinary users.
    Fuse(FuseOverlay),
}

/// Layers that fuse-overlayfs puts together.
#[derive(Clone, Debug)]
pub struct FuseOverlay {
    /// The program.
    pub program: PathBuf,
    /// The read-only layers, the topmost first.
    pub lower: Vec<PathBuf>,
    /// Takes the writes.
    pub upper: PathBuf,
    /// The work folder, on the file system of `upper`.
    pub work: PathBuf,
}

/// The standard streams of a program.
#[derive(Debug)]
pub enum Stdio {
    /// These files. They belong to the new process then and are closed in the caller.
    Fds {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A new terminal, made in the container's own devpts; the caller gets its master.
    Terminal {
        /// Its size, where it is known.
        size: Option<Size>,
    },
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

/// What of a running container its owner holds.
#[derive(Debug)]
pub struct Running {
    /// The first process of the container, as this process's namespace numbers it.
    pub pid: Pid,
    /// The same, as a file that names it for ever.
    pub pidfd: OwnedFd,
    /// Its user namespace.
    pub userns: OwnedFd,
    /// Its network namespace, when that is not its creator's.
    pub netns: Option<OwnedFd>,
    /// The files that `in_netns` gave.
    pub passed: Vec<OwnedFd>,
    /// Its mount namespace, if it was to be kept: the kernel takes its time to take mounts down, which the end of the first
    /// process waits for unless somebody else has it.
    pub mounts: Option<OwnedFd>,
    /// The master of its terminal.
    pub console: Option<OwnedFd>,
    /// Its cgroup, if it has one of its own. Whoever sees the container's end removes it.
    pub cgroup: Option<Cgroup>,
}

/// A program to be started in a running container.
pub struct ExecRequest<'a> {
    /// The specification of the container: which namespaces it has, its seccomp filter.
    pub spec: &'a Spec,
    /// Arguments, environment, working directory, capabilities and limits of the program.
    pub process: &'a Process,
    /// The user, as in [`Request::user`].
    pub user: Option<String>,
    /// Supplementary groups, as in [`Request::group_add`].
    pub group_add: Vec<String>,
    /// As in [`Request::keep_groups`].
    pub keep_groups: bool,
    /// Where standard input, output and error go.
    pub stdio: Stdio,
    /// Whether the container's seccomp filter holds for the program.
    pub seccomp: bool,
    /// Who the container is, as in [`Request::known_as`].
    pub known_as: Option<KnownAs<'a>>,
    /// Files that the program gets as descriptors 3, 4, ...
    pub preserve_fds: Vec<OwnedFd>,
    /// The cgroup of the container, if it has one of its own.
    pub cgroup: Option<&'a Cgroup>,
    /// With a single id: have owners and users made up where the kernel has none.
    pub emulation: Option<Emulation>,
}

/// The container that a program is to be started in.
#[derive(Debug)]
pub struct Target {
    /// Its first process.
    pub pid: Pid,
    /// The same as a file; it must be that of `pid`.
    pub pidfd: OwnedFd,
}

/// A program that was started in a running container. It is a child of the caller.
#[derive(Debug)]
pub struct ExecChild {
    /// Its process id.
    pub pid: Pid,
    /// The same as a file.
    pub pidfd: OwnedFd,
    /// The master of its terminal.
    pub console: Option<OwnedFd>,
}
