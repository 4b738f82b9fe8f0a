//! The last steps of a process on its way to be a program: limits, user, working directory,
//! streams, credentials, execution. The same for a container's first program and for others.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};

use oci_spec::runtime::{PosixRlimitType, Process, Spec};
use rcon_sys::descriptors;
use rcon_sys::process;
use rcon_sys::stub::{self, Mode};
use rustix::fs::{FileType, Stat, fstat, stat};
use rustix::process::{Resource, Rlimit, Uid};

use crate::channel;
use crate::credentials::Credentials;
use crate::error::{Context, Error, RawError, Result};
use crate::root::Root;
use crate::seccomp::{Filter, Listener};
use crate::{lookup, lsm, schedule, user};

/// The calls that a program is executed with from memory.
const STUB_CALLS: [&str; 3] = ["execveat", "fcntl", "write"];
/// The calls that our own first process lives by, beside those.
const INIT_CALLS: [&str; 8] = [
    "clone",
    "wait4",
    "rt_sigtimedwait",
    "rt_sigprocmask",
    "kill",
    "setsid",
    "ioctl",
    "close",
];

/// What a program is made of that has nothing to do with namespaces.
pub(crate) struct Plan<'a, 'b> {
    /// The specification of its container.
    pub(crate) spec: &'a Spec,
    /// Its description.
    pub(crate) process: &'a Process,
    /// The user as written.
    pub(crate) user: Option<&'b str>,
    /// Further groups.
    pub(crate) group_add: &'b [String],
    /// The groups are those of the caller.
    pub(crate) keep_groups: bool,
    /// Its filter.
    pub(crate) filter: Option<Filter>,
    /// Who gets the filter's listener.
    pub(crate) listener: Option<Listener>,
    /// Create the working directory if it is missing.
    pub(crate) create_cwd: bool,
}

/// A program that only needs its streams to be executed.
pub(crate) struct Prepared<'a> {
    described: &'a Process,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    path: CString,
    pub(crate) credentials: Credentials,
}

impl<'a> Prepared<'a> {
    /// Do everything that can be done before the program is started. This process must be inside
    /// the container, with `root` as its `/`, and root there.
    pub(crate) fn new(plan: Plan<'a, '_>, root: &Root) -> Result<Self> {
        let process = plan.process;
        let identity = user::resolve(root, plan.user, plan.group_add, process.user())?;
        let mut variables = process.env().clone().unwrap_or_default();
        if !variables
            .iter()
            .any(|variable| variable.starts_with("HOME="))
        {
            variables.push(format!("HOME={}", identity.home));
        }
        let words = process.args().as_deref().unwrap_or_default();
        let name = words
            .first()
            .ok_or_else(|| Error::Invalid("no command specified".to_owned()))?;
        let owner = (identity.uid, identity.gid);
        lookup::enter(root, process.cwd(), plan.create_cwd.then_some(owner))?;
        // From here on: a working directory that was missing has the usual mode.
        let mask = process.user().umask().unwrap_or(0o022);
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        let path = lookup::program(name, &variables)?;
        schedule::apply(plan.spec, process)?;
        Ok(Self {
            described: process,
            arguments: texts(words)?,
            environment: texts(&variables)?,
            path: text(&path)?,
            credentials: Credentials::new(process, identity, plan.filter, plan.listener)
                .keeping_groups(plan.keep_groups),
        })
    }

    /// The user id of the program.
    pub(crate) fn uid(&self) -> u32 {
        self.credentials.uid()
    }

    /// Become the program. `fds` become descriptors 0, 1, 2, ...; `control` takes the message of
    /// an execution that fails, and is closed by one that does not.
    ///
    /// This process ends here in any case: its descriptors are no longer what their owners in it
    /// take them to be.
    pub(crate) fn become_program(
        mut self,
        fds: &[BorrowedFd<'_>],
        control: OwnedFd,
        mode: Mode,
        own: Option<&OwnFile>,
    ) -> ! {
        for fd in fds.iter().take(3) {
            self.give(*fd);
        }
        let mut kept = vec![control];
        match self.stub(mode, own) {
            Ok(stub) => kept.extend(stub),
            Err(error) => channel::fail(kept.first(), &error),
        }
        let has_stub = kept.len() > 1;
        if let Err(error) = lsm::label(self.described) {
            channel::fail(kept.first(), &error);
        }
        kept.extend(self.credentials.take_socket());
        let kept = descriptors::arrange_fds(fds, kept)
            .context(|| "cannot arrange the descriptors of the program".to_owned())
            .unwrap_or_else(|error| channel::fail(None, &error));
        let control = kept.first();
        // Not before: who started us may have more files open than the program may, published ports for one.
        if let Err(error) = set_limits(self.described) {
            channel::fail(control, &error);
        }
        match mode {
            Mode::Init { .. } => process::block_signals(),
            Mode::Execute => process::reset_signals(),
        }
        if let Err(error) = self.credentials.take(kept.last()) {
            channel::fail(control, &error);
        }
        let (arguments, environment) = (&self.arguments, &self.environment);
        let stub = kept.get(1).filter(|_| has_stub);
        let error = match (stub, control) {
            (Some(stub), Some(control)) => {
                stub::become_stub(stub, mode, control, &self.path, arguments, environment)
            }
            _ => stub::execute(&self.path, arguments, environment),
        };
        let name = arguments
            .first()
            .map(|name| name.to_string_lossy().into_owned());
        let error = Error::NotExecutable {
            program: name.unwrap_or_default(),
            errno: error.raw(),
        };
        channel::fail(control, &error)
    }

    /// The stub, where the program shall be executed by it.
    fn stub(&self, mode: Mode, own: Option<&OwnFile>) -> Result<Option<OwnedFd>> {
        let init = mode != Mode::Execute;
        let possible =
            self.credentials.allows(&STUB_CALLS) && (!init || self.credentials.allows(&INIT_CALLS));
        if init {
            if !possible {
                return Err(Error::Invalid(
                    "the seccomp profile forbids calls that --init needs".to_owned(),
                ));
            }
            return stub::file()
                .map(Some)
                .context(|| "cannot make the first process of the container".to_owned());
        }
        let Some(own) = own else {
            return Ok(None);
        };
        if possible && let Ok(file) = stub::file() {
            return Ok(Some(file));
        }
        // Then at least not our own file by its name.
        let target = stat(self.path.as_c_str());
        if target.is_ok_and(|target| (target.st_dev, target.st_ino) == (own.device, own.inode)) {
            return Err(Error::NotExecutable {
                program: self.path.to_string_lossy().into_owned(),
                errno: libc::EACCES,
            });
        }
        Ok(None)
    }

    /// Let the program's user open a stream of theirs again by its name (`/dev/stdout`).
    fn give(&self, stream: BorrowedFd<'_>) {
        if self.credentials.is_made_up() {
            return;
        }
        let uid = self.uid();
        let pipe = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
        if uid != 0 && fstat(stream).is_ok_and(pipe) {
            // A pipe of somebody else stays theirs; the descriptor works all the same.
            let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None);
        }
    }
}

/// The file of this program itself, where a container could write to it if it got hold of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnFile {
    device: u64,
    inode: u64,
}

impl OwnFile {
    /// `None` when the file is root's and nobody else's, and this user is not root: then no user
    /// of a container can be its owner.
    pub(crate) fn look() -> Option<Self> {
        let Ok(file) = stat("/proc/self/exe") else {
            // Without proc nothing can be known, and nothing be reached either.
            return None;
        };
        let safe =
            file.st_uid == 0 && file.st_mode & 0o022 == 0 && !rustix::process::geteuid().is_root();
        (!safe).then_some(Self {
            device: file.st_dev,
            inode: file.st_ino,
        })
    }
}

/// Set how soon the kernel ends this process when memory is short. Must see the host's proc.
///
/// An ordinary user can only make that sooner: a value below the present one is an error, or, where that is `wished` for and
/// not demanded, passed over.
pub(crate) fn set_oom_score(process: &Process, wished: bool) -> Result<()> {
    let Some(score) = process.oom_score_adj() else {
        return Ok(());
    };
    let step = || format!("cannot set oom_score_adj to {score}");
    match std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(error) if wished && matches!(error.raw(), libc::EACCES | libc::EPERM) => Ok(()),
        result => result.context(step),
    }
}

fn set_limits(process: &Process) -> Result<()> {
    for limit in process.rlimits().iter().flatten() {
        let finite = |value: u64| (value != u64::MAX).then_some(value);
        let value = Rlimit {
            current: finite(limit.soft()),
            maximum: finite(limit.hard()),
        };
        rustix::process::setrlimit(resource(limit.typ()), value).context(|| {
            format!(
                "cannot set {} to {}:{}",
                limit.typ(),
                limit.soft().cast_signed(),
                limit.hard().cast_signed()
            )
        })?;
    }
    Ok(())
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

fn texts(words: &[String]) -> Result<Vec<CString>> {
    words.iter().map(|word| text(word)).collect()
}

fn text(word: &str) -> Result<CString> {
    CString::new(word).map_err(|_| Error::Invalid(format!("{word:?} has a null byte in it")))
}
