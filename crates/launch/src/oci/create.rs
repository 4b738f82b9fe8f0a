//! Making a container, and running one to its end.

use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rcon_sys::{descriptors, fdpass, process};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use super::error::{Error, On, Result};
use super::record::{Container, DOOR, Lock, Record, replace};
use super::resctrl::Groups;
use super::{CONFIG, Loaded, Runtime};
use crate::cgroup::{Manager, Settings};
use crate::hooks::{self, Point, StateOf};
use crate::request::{Request, Rootfs, Running, Size, Stdio};
use crate::{Created, create};

/// How a container is made, beside what its specification says.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// Where the master of its terminal is sent.
    pub console_socket: Option<PathBuf>,
    /// Where the number of its first process is written.
    pub pid_file: Option<PathBuf>,
    /// What the program gets as descriptors 3, 4, ...
    pub preserve_fds: Vec<OwnedFd>,
    /// Leave it the session keyring of its creator.
    pub no_new_keyring: bool,
    /// Who makes its cgroup.
    pub manager: Manager,
    /// When it is made (RFC 3339), for the record.
    pub created: String,
}

/// What becomes of the terminal of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console<'a> {
    /// It is sent to this socket.
    Sent(&'a Path),
    /// The caller shows it.
    Kept,
    /// There can be none.
    None,
}

impl Console<'_> {
    /// The streams of a program that has a `terminal` or the streams of this process.
    pub(super) fn streams(self, terminal: bool) -> Result<Stdio> {
        match (self, terminal) {
            (Console::Sent(_), false) => Err(Error::Bundle(
                "cannot use a console socket for a program without a terminal".to_owned(),
            )),
            (Console::None, true) => Err(Error::Bundle(
                "cannot allocate a terminal without a console socket (--console-socket)".to_owned(),
            )),
            (Console::Kept, true) => {
                // From its first moment it is as large as what it is shown on.
                let shown = rustix::termios::tcgetwinsize(rustix::stdio::stdin());
                let size = shown.ok().map(|size| Size {
                    rows: size.ws_row,
                    cols: size.ws_col,
                });
                Ok(Stdio::Terminal { size })
            }
            (_, true) => Ok(Stdio::Terminal { size: None }),
            (_, false) => {
                let mut own = descriptors::inherited_fds(0, 3)
                    .map_err(|source| Error::File {
                        what: "use the standard streams of",
                        path: "this process".into(),
                        source,
                    })?
                    .into_iter();
                match (own.next(), own.next(), own.next()) {
                    (Some(stdin), Some(stdout), Some(stderr)) => Ok(Stdio::Fds {
                        stdin,
                        stdout,
                        stderr,
                    }),
                    _ => Err(Error::Bundle("a standard stream is not open".to_owned())),
                }
            }
        }
    }

    /// Send `master` where it goes; it comes back when the caller is to show it.
    pub(super) fn hand_over(self, master: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
        let (Console::Sent(path), Some(master)) = (self, &master) else {
            return Ok(master);
        };
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .on("connect to", path)?;
        let address = SocketAddrUnix::new(path).on("connect to", path)?;
        connect(&socket, &address).on("connect to", path)?;
        fdpass::send_fds(&socket, b"/dev/ptmx", &[master.as_fd()]).on("send to", path)?;
        Ok(None)
    }
}

/// A container that was started as a child of this process.
#[derive(Debug)]
pub struct Foreground {
    /// Its first process, and the master of its terminal when it is to be shown.
    pub running: Running,
    /// Its record.
    pub container: Container,
}

impl Foreground {
    /// Wait for its first process to end.
    ///
    /// # Errors
    /// When that is not our child.
    pub fn wait(&self) -> Result<ExitStatus> {
        process::wait_pidfd(&self.running.pidfd).on("wait for", &self.container.folder)
    }
}

impl Runtime {
    /// Make the container `id` of `bundle`; its program waits to be started.
    ///
    /// # Errors
    /// An id that is taken, what the specification asks for and cannot be had, hooks that fail.
    /// Nothing is left of the container then.
    pub fn create(&self, id: &str, bundle: &Loaded, options: &CreateOptions) -> Result<Container> {
        let console = match &options.console_socket {
            Some(path) => Console::Sent(path),
            None => Console::None,
        };
        let (mut container, _lock) = self.make(id, bundle, options)?;
        match container.launch(bundle, options, console, true) {
            Ok(created) => {
                created.leave();
                Ok(container)
            }
            Err(error) => {
                container.give_up(bundle);
                Err(error)
            }
        }
    }

    /// Make the container `id` of `bundle` and start it as a child of this process.
    ///
    /// # Errors
    /// As [`Runtime::create`], and when the program cannot be executed.
    pub fn run(
        &self,
        id: &str,
        bundle: &Loaded,
        options: &CreateOptions,
        console: Console<'_>,
    ) -> Result<Foreground> {
        let (mut container, _lock) = self.make(id, bundle, options)?;
        let started = container
            .launch(bundle, options, console, false)
            .and_then(|created| Ok(created.start()?));
        let running = match started {
            Ok(running) => running,
            Err(error) => {
                container.give_up(bundle);
                return Err(error);
            }
        };
        container.started(&bundle.spec);
        Ok(Foreground { running, container })
    }

    /// Make the folder of a container, with what is known before there is a process.
    fn make(
        &self,
        id: &str,
        bundle: &Loaded,
        options: &CreateOptions,
    ) -> Result<(Container, Lock)> {
        let folder = self.folder(id)?;
        let mut builder = DirBuilder::new();
        builder.mode(0o700).recursive(true);
        builder.create(&self.root).on("create", &self.root)?;
        match builder.recursive(false).create(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists(id.to_owned()));
            }
            result => result.on("create", &folder)?,
        }
        let record = Record {
            oci_version: bundle.spec.version().clone(),
            id: id.to_owned(),
            bundle: bundle.path.clone(),
            rootfs: bundle.rootfs.clone(),
            pid: 0,
            start_time: 0,
            cgroup: None,
            intel_rdt: None,
            created: options.created.clone(),
            owner: rustix::process::geteuid().as_raw(),
            annotations: bundle.spec.annotations().clone().unwrap_or_default(),
        };
        let container = Container { folder, record };
        let prepared = Lock::take(&container.folder).and_then(|lock| {
            let text = serde_json::to_vec(&bundle.spec).unwrap_or_default();
            replace(&container.folder.join(CONFIG), &text)?;
            container.save()?;
            Ok(lock)
        });
        match prepared {
            Ok(lock) => Ok((container, lock)),
            Err(error) => {
                let _ = fs::remove_dir_all(&container.folder);
                Err(error)
            }
        }
    }
}

/// Whether the engine asks for the caller's groups, in the words of podman and crun.
pub(super) fn keeps_groups(spec: &crate::spec::Spec) -> bool {
    let annotations = spec.annotations().as_ref();
    annotations.is_some_and(|all| {
        all.get("run.oci.keep_original_groups")
            .is_some_and(|value| value == "1")
    })
}

impl Container {
    /// Make its first process; with a `door`, that waits there to be started.
    fn launch(
        &mut self,
        bundle: &Loaded,
        options: &CreateOptions,
        console: Console<'_>,
        door: bool,
    ) -> Result<Created> {
        let process = bundle.spec.process().as_ref();
        let terminal = process.and_then(|process| process.terminal()) == Some(true);
        let stdio = console.streams(terminal)?;
        let copies = options.preserve_fds.iter().map(OwnedFd::try_clone);
        let preserve_fds = copies
            .collect::<std::io::Result<Vec<_>>>()
            .on("pass on the descriptors of", "this process".as_ref())?;
        let door = match door {
            true => Some(open_door(&self.folder)?),
            false => None,
        };
        let rootfs = Rootfs::Dir(bundle.rootfs.clone());
        let cgroup = Settings::of_spec(&bundle.spec, &self.record.id, options.manager)
            .map_err(crate::Error::from)?;
        let rdt = bundle.spec.linux().as_ref();
        let rdt = rdt.and_then(|linux| linux.intel_rdt().as_ref());
        self.record.intel_rdt = Groups::make(rdt, &self.record.id)?;
        let mut created = create(Request {
            preserve_fds,
            door,
            create_cwd: true,
            keep_groups: keeps_groups(&bundle.spec),
            cgroup: Some(cgroup),
            keyring: !options.no_new_keyring,
            known_as: Some(self.known_as()),
            ..Request::new(&bundle.spec, rootfs, &bundle.maps, stdio)
        })?;
        let running = &mut created.running;
        self.record.cgroup.clone_from(&running.cgroup);
        running.console = console.hand_over(running.console.take())?;
        let pid = running.pid.as_raw_nonzero().get();
        self.record.pid = pid;
        self.record.start_time = process::start_time(pid).unwrap_or(0);
        if let Some(groups) = &self.record.intel_rdt {
            groups.enter(pid)?;
        }
        self.save()?;
        if let Some(path) = &options.pid_file {
            replace(path, pid.to_string().as_bytes())?;
        }
        Ok(created)
    }

    /// The program has been executed: nobody can start it again, and the hooks hear of it.
    pub(super) fn started(&mut self, spec: &oci_spec::runtime::Spec) -> Vec<String> {
        let _ = fs::remove_file(self.folder.join(DOOR));
        let state = StateOf::new(spec, self.known_as(), "running", Some(self.record.pid));
        hooks::run_all(spec, Point::Poststart, &state)
    }

    /// Undo all, after a failure. The first failure is what matters.
    fn give_up(self, bundle: &Loaded) {
        let state = StateOf::new(&bundle.spec, self.known_as(), "stopped", None);
        hooks::run_all(&bundle.spec, Point::Poststop, &state);
        if let Some(groups) = &self.record.intel_rdt {
            groups.remove();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The address of the door in `folder`, however long the path of that is.
pub(super) fn door_address(folder: &Path) -> Result<(OwnedFd, SocketAddrUnix)> {
    let file: OwnedFd = fs::File::open(folder).on("open", folder)?.into();
    let path = format!("/proc/self/fd/{}/{DOOR}", file.as_raw_fd());
    let address = SocketAddrUnix::new(path).on("open", folder)?;
    Ok((file, address))
}

fn open_door(folder: &Path) -> Result<OwnedFd> {
    let (_file, address) = door_address(folder)?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .on("open a socket in", folder)?;
    bind(&socket, &address).on("open a socket in", folder)?;
    listen(&socket, 1).on("open a socket in", folder)?;
    Ok(socket)
}
