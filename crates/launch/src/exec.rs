//! Programs in a running container.
//!
//! Two forks: the first process joins the namespaces of the container, all at once and by its
//! pidfd; joining a process id namespace only concerns children, so it makes the second one, as a
//! child of the caller, which becomes the program.

use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use rcon_sys::process::{self, Fork};
use rcon_sys::stub::Mode;
use rcon_sys::{fdpass, userns};
use rustix::fs::{Mode as FileMode, OFlags};
use rustix::process::Pid;

use crate::emulate::{self, Inside};
use crate::error::{Context, Error, RawError, Result};
use crate::init::{self, Streams, WITH_CONSOLE};
use crate::program::{self, OwnFile, Plan, Prepared};
use crate::request::{ExecChild, ExecRequest, Target};
use crate::root::Root;
use crate::{channel, namespaces};

/// Start a program in the container whose first process is `target`, and wait until it is
/// executed.
///
/// Needs a process with one thread, since it forks. Fails with [`Error::NotFound`] and
/// [`Error::NotExecutable`] as `create` and `start` do, and with [`Error::Died`] when the
/// container has ended.
pub fn exec(target: &Target, request: ExecRequest<'_>) -> Result<ExecChild> {
    let joined = namespaces::flags(request.spec)?;
    program::check(request.process)?;
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
    let child = born(&ours);
    process::wait_pidfd(&helper).context(step)?;
    let (pid, pidfd) = child?;
    let answered = emulation.map_or(Ok(()), |emulation| {
        let inside = Inside::of(target.pid)?;
        match channel::wait_listener(&ours)? {
            (Some(listener), who) => {
                emulate::start(&emulation, described, pid, &who, listener, inside)
            }
            (None, _) => Ok(()),
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

/// The number and pidfd of the second process, from the first.
fn born(socket: &OwnedFd) -> Result<(Pid, OwnedFd)> {
    let nobody = || Error::Died("it is not running".to_owned());
    let (number, mut fds) = channel::wait_ready(socket)?;
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    Ok((pid.ok_or_else(nobody)?, fds.pop().ok_or_else(nobody)?))
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
        let entered = match request.cgroup {
            Some(cgroup) => cgroup.enter(std::process::id().cast_signed()),
            None => Ok(()),
        };
        let entered = entered
            .map_err(Error::from)
            .and_then(|()| program::set_oom_score(request.process))
            // Before it is where processes of the container can see it.
            .and_then(|()| init::hide())
            .and_then(|()| enter(target, namespaces));
        if let Err(error) = entered {
            channel::fail(Some(&socket), &error);
        }
        let step = || "cannot start a process in the container".to_owned();
        // The second process says nothing before the first has told who it is.
        let (told, tell) = match rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) {
            Ok(ends) => ends,
            Err(error) => channel::fail(
                Some(&socket),
                &Error::Setup {
                    step: step(),
                    errno: error.raw_os_error(),
                },
            ),
        };
        match process::fork_sibling() {
            Ok(Fork::Child) => {
                drop(tell);
                // Nothing but the end of the first process, or its word, comes through.
                let _ = rustix::io::retry_on_intr(|| rustix::io::read(&told, &mut [0_u8]));
                drop(told);
                become_program(request, socket, own)
            }
            Ok(Fork::Parent { pid, pidfd }) => {
                let number = pid.as_raw_nonzero().get().unsigned_abs();
                if channel::send_ready(&socket, number, &[pidfd.as_fd()]).is_err() {
                    // The caller is gone, and nobody would wait for the program.
                    let _ = process::pidfd_send_signal(&pidfd, libc::SIGKILL);
                }
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

fn enter(target: &Target, namespaces: CloneFlags) -> Result<()> {
    match setns(&target.pidfd, namespaces) {
        Err(nix::errno::Errno::ESRCH) => Err(Error::Died("it is not running".to_owned())),
        result => result.context(|| "cannot enter the namespaces of the container".to_owned()),
    }?;
    userns::become_root(true).context(|| "cannot become root of the user namespace".to_owned())
}

/// The second process: inside, on its way to be the program.
fn become_program(request: ExecRequest<'_>, socket: OwnedFd, own: Option<OwnFile>) -> ! {
    match prepare(request, &socket) {
        Ok((prepared, streams)) => {
            prepared.become_program(&streams.borrow(), socket, Mode::Execute, own.as_ref())
        }
        Err(error) => channel::fail(Some(&socket), &error),
    }
}

fn prepare(request: ExecRequest<'_>, socket: &OwnedFd) -> Result<(Prepared, Streams)> {
    process::new_session_keyring();
    rustix::process::setsid().context(|| "cannot make a session".to_owned())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, FileMode::empty())
        .map(Root::new)
        .context(|| "cannot open the root of the container".to_owned())?;
    let filter = match request.seccomp {
        true => init::filter(request.spec)?,
        false => None,
    };
    let plan = Plan {
        process: request.process,
        user: request.user.as_deref(),
        group_add: &request.group_add,
        filter,
        create_cwd: false,
    };
    let mut prepared = Prepared::new(plan, &root)?;
    let streams = Streams::open(request.stdio, request.preserve_fds, &root, request.process)?;
    if request.emulation.is_some() {
        init::hand_over(socket, &mut prepared)?;
    }
    init::announce(socket, &[], &streams, &prepared)?;
    init::take_terminal(&streams)?;
    Ok((prepared, streams))
}
