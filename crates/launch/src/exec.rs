//! Programs in a running container.
//!
//! Two forks: the first process joins the namespaces of the container, all at once and by its
//! pidfd; joining a process id namespace only concerns children, so it makes the second one, as a
//! child of the caller, which becomes the program.

use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns};
use rcon_sys::process::{self, Fork};
use rcon_sys::stub::Mode;
use rcon_sys::{fdpass, userns};
use rustix::fs::{Mode as FileMode, OFlags};

use crate::emulate::{self, Inside};
use crate::error::{Context, Error, RawError, Result};
use crate::init::{self, Streams, WITH_CONSOLE};
use crate::program::{self, OwnFile, Plan, Prepared};
use crate::request::{ExecChild, ExecRequest, Target};
use crate::root::Root;
use crate::seccomp::{Filter, Listener};
use crate::{cgroup, channel, namespaces, schedule, support};

/// Start a program in the container whose first process is `target`, and wait until it is
/// executed.
///
/// Needs a process with one thread, since it forks. Fails with [`Error::NotFound`] and
/// [`Error::NotExecutable`] as `create` and `start` do, and with [`Error::Died`] when the
/// container has ended.
pub fn exec(target: &Target, request: ExecRequest<'_>) -> Result<ExecChild> {
    let joined = namespaces::kinds(request.spec);
    support::check_process(request.process)?;
    let own = OwnFile::look();
    let program = request
        .process
        .args()
        .as_ref()
        .and_then(|words| words.first());
    let program = program.cloned().unwrap_or_default();
    let (ours, theirs) = fdpass::pair().context(|| "cannot make a pair of sockets".to_owned())?;
    let step = || "cannot start a process for the container".to_owned();
    let helper = match process::fork().context(step)? {
        Fork::Child => {
            drop(ours);
            join(target, request, joined, theirs, own)
        }
        Fork::Parent { pidfd, .. } => pidfd,
    };
    let (emulation, described) = (request.emulation.clone(), request.process);
    drop((request, theirs));
    let child = channel::hear_born(&ours);
    process::wait_pidfd(&helper).context(step)?;
    let (pid, pidfd) = child?;
    let answered = emulation.map_or(Ok(()), |emulation| {
        let inside = Inside::of(target.pid)?;
        // While it has not been waited for, its number is nobody else's.
        if process::pidfd_send_signal(&target.pidfd, 0).is_err_and(|e| e.raw() == libc::ESRCH) {
            return Err(Error::Died("it is not running".to_owned()));
        }
        match channel::wait_listener(&ours)? {
            (Some(listener), _, who) => {
                emulate::start(&emulation, described, pid, &who, listener, inside)
            }
            (None, ..) => Ok(()),
        }
    });
    let result =
        answered
            .and_then(|()| channel::wait_ready(&ours))
            .and_then(|(number, mut fds)| {
                channel::wait_executed(&ours, &program)?;
                Ok(match number & WITH_CONSOLE {
                    0 => None,
                    _ => fds.pop(),
                })
            });
    match result {
        Ok(console) => Ok(ExecChild {
            pid,
            pidfd,
            console,
        }),
        Err(error) => {
            let _ = process::pidfd_send_signal(&pidfd, libc::SIGKILL);
            let ended = process::wait_pidfd(&pidfd);
            Err(match (error, ended) {
                (Error::Died(_), Ok(status)) => Error::Died(status.to_string()),
                (error, _) => error,
            })
        }
    }
}

/// The first process: join, and have the second one born.
fn join(
    target: &Target,
    request: ExecRequest<'_>,
    namespaces: CloneFlags,
    socket: OwnedFd,
    own: Option<OwnFile>,
) -> ! {
    init::live(move || {
        let step = || "cannot start a process in the container".to_owned();
        let result = set_out(target, &request, namespaces).and_then(|baggage| {
            // The second process says nothing before the first has told who it is.
            let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(step)?;
            Ok((baggage, pipe))
        });
        let (baggage, (told, tell)) =
            result.unwrap_or_else(|error| channel::fail(Some(&socket), &error));
        match process::fork_sibling() {
            Ok(Fork::Child) => {
                drop(tell);
                let mut number = [0; 4];
                let read = rustix::io::retry_on_intr(|| rustix::io::read(&told, &mut number));
                drop(told);
                if read != Ok(number.len()) {
                    // Killed before it said who we are: whoever asked for us will say that we do not run.
                    channel::fail(
                        Some(&socket),
                        &Error::Died("the process that started it was killed".to_owned()),
                    );
                }
                become_program(request, baggage, i32::from_le_bytes(number), socket, own)
            }
            Ok(Fork::Parent { pid, pidfd }) => {
                channel::tell_born(&socket, pid, pidfd);
                let _ = rustix::io::write(&tell, &pid.as_raw_nonzero().get().to_le_bytes());
                process::exit_now(0)
            }
            // A process id namespace takes no more processes when its first one has ended.
            Err(error) if error.raw() == libc::ENOMEM => {
                channel::fail(Some(&socket), &Error::Died("it is not running".to_owned()))
            }
            Err(error) => {
                let errno = error.raw();
                channel::fail(
                    Some(&socket),
                    &Error::Setup {
                        step: step(),
                        errno,
                    },
                )
            }
        }
    })
}

/// What has to be got before the host is out of sight.
struct Baggage {
    filter: Option<Filter>,
    listener: Option<Listener>,
}

fn set_out(target: &Target, request: &ExecRequest<'_>, namespaces: CloneFlags) -> Result<Baggage> {
    if let Some(cgroup) = request.cgroup {
        let entered = cgroup.enter(std::process::id().cast_signed());
        entered.map_err(|error| match error {
            cgroup::Error::Gone => Error::Died("it is not running".to_owned()),
            error => error.into(),
        })?;
    }
    program::set_oom_score(request.process, request.known_as.is_none())?;
    let affinity = request.process.exec_cpu_affinity().as_ref();
    if let Some(words) = affinity.and_then(|affinity| affinity.initial().as_deref()) {
        schedule::confine(words)?;
    }
    let filter = match request.seccomp {
        true => init::filter(request.spec)?,
        false => None,
    };
    let listener = match &filter {
        Some(filter) if filter.notifies() => Some(Listener::connect(request.spec)?),
        _ => None,
    };
    // Before it is where processes of the container can see it.
    init::hide()?;
    enter(target, namespaces, !request.keep_groups)?;
    Ok(Baggage { filter, listener })
}

fn enter(target: &Target, namespaces: CloneFlags, groups: bool) -> Result<()> {
    match setns(&target.pidfd, namespaces) {
        Err(nix::errno::Errno::ESRCH) => Err(Error::Died("it is not running".to_owned())),
        result => result.context(|| "cannot enter the namespaces of the container".to_owned()),
    }?;
    match namespaces.contains(CloneFlags::CLONE_NEWUSER) {
        true => userns::become_root(groups)
            .context(|| "cannot become root of the user namespace".to_owned()),
        false => Ok(()),
    }
}

/// The second process: inside, on its way to be the program.
fn become_program(
    request: ExecRequest<'_>,
    baggage: Baggage,
    number: i32,
    socket: OwnedFd,
    own: Option<OwnFile>,
) -> ! {
    match prepare(request, baggage, number, &socket) {
        Ok((prepared, streams)) => {
            prepared.become_program(&streams.borrow(), socket, Mode::Execute, own.as_ref())
        }
        Err(error) => channel::fail(Some(&socket), &error),
    }
}

fn prepare<'a>(
    request: ExecRequest<'a>,
    baggage: Baggage,
    number: i32,
    socket: &OwnedFd,
) -> Result<(Prepared<'a>, Streams)> {
    process::new_session_keyring();
    rustix::process::setsid().context(|| "cannot make a session".to_owned())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, FileMode::empty())
        .map(Root::new)
        .context(|| "cannot open the root of the container".to_owned())?;
    let Baggage {
        filter,
        mut listener,
    } = baggage;
    if let Some(listener) = &mut listener {
        listener.tell(request.spec, request.known_as, number, "running")?;
    }
    let affinity = request.process.exec_cpu_affinity().as_ref();
    if let Some(words) = affinity.and_then(|affinity| affinity.cpu_affinity_final().as_deref()) {
        schedule::confine(words)?;
    }
    let plan = Plan {
        spec: request.spec,
        process: request.process,
        user: request.user.as_deref(),
        group_add: &request.group_add,
        keep_groups: request.keep_groups,
        filter,
        listener,
        create_cwd: false,
    };
    let mut prepared = Prepared::new(plan, &root)?;
    let streams = Streams::open(request.stdio, request.preserve_fds, &root, request.process)?;
    if request.emulation.is_some() {
        init::hand_over(socket, None, &mut prepared)?;
    }
    init::announce(socket, &[], None, &streams, &prepared)?;
    init::take_terminal(&streams)?;
    Ok((prepared, streams))
}
