//! A command in a running container of which only the exit code and the beginning of the output matter, with a limit of
//! time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rcon_launch::{ExecChild, Stdio, Target};
use rcon_sys::process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::health::HealthCheck;
use crate::monitor::exit_code;
use crate::record::Container;
use crate::{Engine, ExecRequest, bundling, limits};

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Probed {
    /// The command's own, or -1 when it took too long.
    pub exit_code: i32,
    /// The beginning of what it printed, or why it could not be started.
    pub output: String,
}

/// Runs the command of `check` and keeps `most` bytes of its output. Given up when `monitor` hangs up.
pub(crate) fn probe(
    engine: &Engine,
    container: &Container,
    check: &HealthCheck,
    most: usize,
    monitor: &OwnedFd,
) -> Probed {
    let deadline = Instant::now() + check.timeout;
    let started = start(engine, container, check.command());
    let (child, outputs) = match started {
        Ok(started) => started,
        Err(error) => {
            return Probed {
                exit_code: error.exit_code(),
                output: error.to_string(),
            };
        }
    };
    let mut kept = Vec::new();
    let exit_code = follow(&child, outputs, deadline, monitor, |data| {
        let room = most.saturating_sub(kept.len());
        kept.extend_from_slice(&data[..data.len().min(room)]);
    });
    if exit_code.is_none() {
        let _ = process::pidfd_send_signal(&child.pidfd, libc::SIGKILL);
        let _ = process::wait_pidfd(&child.pidfd);
        kept.extend_from_slice(
            format!("the check took longer than {:?}", check.timeout).as_bytes(),
        );
    }
    Probed {
        exit_code: exit_code.unwrap_or(-1),
        output: String::from_utf8_lossy(&kept).into_owned(),
    }
}

fn start(
    engine: &Engine,
    container: &Container,
    command: Vec<String>,
) -> Result<(ExecChild, Vec<OwnedFd>)> {
    let process = container.state.process.ok_or(Error::ExecNotRunning)?;
    let target = Target {
        pid: Pid::from_raw(process.pid).ok_or(Error::ExecNotRunning)?,
        pidfd: process.open().ok_or(Error::ExecNotRunning)?,
    };
    let bundle = bundling::build(engine, &container.config)?;
    let template = bundle
        .spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::Invalid("the container has no process".into()))?;
    let request = ExecRequest {
        command,
        ..ExecRequest::default()
    };
    let program = super::program(template, &container.config, &request)?;
    let why = || "cannot make pipes".to_string();
    let stdin = std::fs::File::open("/dev/null").context(why)?.into();
    let (out, stdout) = pipe_with(PipeFlags::CLOEXEC).context(why)?;
    let (err, stderr) = pipe_with(PipeFlags::CLOEXEC).context(why)?;
    for fd in [&out, &err] {
        rustix::io::ioctl_fionbio(fd, true).context(why)?;
    }
    let cgroup = limits::of(&engine.paths, container.id());
    let child = rcon_launch::exec(
        &target,
        rcon_launch::ExecRequest {
            spec: &bundle.spec,
            process: &program,
            user: Some(bundle.user.clone().unwrap_or_default()),
            group_add: bundle.group_add.clone(),
            keep_groups: container.config.options.keep_groups,
            stdio: Stdio::Fds {
                stdin,
                stdout,
                stderr,
            },
            known_as: None,
            seccomp: true,
            preserve_fds: Vec::new(),
            cgroup: cgroup.as_ref(),
            emulation: engine.emulation(&container.config),
        },
    )?;
    Ok((child, vec![out, err]))
}

/// How often an output is read before the clock is looked at.
const READS: usize = 64;

/// Reads what it prints until it ends; `None` when there is no time left, or nobody who waits.
fn follow(
    child: &ExecChild,
    mut outputs: Vec<OwnedFd>,
    deadline: Instant,
    monitor: &OwnedFd,
    mut keep: impl FnMut(&[u8]),
) -> Option<i32> {
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).ok();
        let mut watched: Vec<BorrowedFd<'_>> = vec![child.pidfd.as_fd(), monitor.as_fd()];
        watched.extend(outputs.iter().map(AsFd::as_fd));
        let mut fds: Vec<PollFd<'_>> = watched
            .into_iter()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let _ = rustix::io::retry_on_intr(|| poll(&mut fds, limit.as_ref()));
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        outputs.retain(|output| {
            // What prints without end must not keep us from looking at the clock.
            for _ in 0..READS {
                match rustix::io::read(output, &mut buffer) {
                    Ok(0) => return false,
                    Ok(count) => keep(&buffer[..count]),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return true,
                    Err(_) => return false,
                }
            }
            true
        });
        if ready[0] {
            return process::wait_pidfd(&child.pidfd).ok().map(exit_code);
        }
        if ready[1] || left == Duration::ZERO {
            return None;
        }
    }
}
