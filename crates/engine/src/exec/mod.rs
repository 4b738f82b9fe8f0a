//! Commands in a running container. The command that runs `exec` is the parent of the new process itself: there is no
//! monitor between them.

pub(crate) mod probe;
mod relay;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use oci_spec::runtime::Process;
use rcon_launch::{ExecChild, Size, Stdio, Target};
use rcon_sys::descriptors;
use rcon_sys::process::{self, Fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use self::relay::{Relay, Streams};
use crate::error::{Context, Error, Result};
use crate::events::{Action, Event};
use crate::given::Given;
use crate::record::{Config, Status};
use crate::{Engine, ExecOutcome, ExecRequest, Outcome, bundling, limits, names, terminal};

impl Engine {
    /// Runs a command in a running container, connected to this process's standard streams.
    ///
    /// # Errors
    /// [`Error::ExecNotRunning`]; a program that does not exist (127) or cannot be run (126).
    pub fn exec(&self, name_or_id: &str, request: &ExecRequest) -> Result<ExecOutcome> {
        let container = self.container(name_or_id)?;
        if container.state.status != Status::Running {
            return Err(Error::ExecNotRunning);
        }
        if request.command.is_empty() {
            return Err(Error::Remote {
                message:
                    "must provide a non-empty command to start an exec session: invalid argument"
                        .into(),
                code: 255,
                hint: None,
            });
        }
        let process = container.state.process.ok_or(Error::ExecNotRunning)?;
        let pidfd = process.open().ok_or(Error::ExecNotRunning)?;
        let target = Target {
            pid: Pid::from_raw(process.pid).ok_or(Error::ExecNotRunning)?,
            pidfd,
        };
        let config = &container.config;
        let bundle = bundling::build(self, config)?;
        let template = bundle
            .spec
            .process()
            .as_ref()
            .ok_or_else(|| Error::Invalid("the container has no process".into()))?;
        let program = program(template, config, request)?;
        let given = Given::take(&request.inherit)?;
        let cgroup = limits::of(&self.paths, container.id());
        let (stdio, streams) = stdio(request).context(|| "cannot make pipes".into())?;
        let child = rcon_launch::exec(
            &target,
            rcon_launch::ExecRequest {
                spec: &bundle.spec,
                process: &program,
                user: request
                    .user
                    .clone()
                    .or_else(|| bundle.user.clone())
                    .or_else(|| Some(String::new())),
                group_add: bundle.group_add.clone(),
                keep_groups: config.options.keep_groups,
                stdio,
                seccomp: !request.privileged,
                preserve_fds: given.files,
                cgroup: cgroup.as_ref(),
                emulation: self.emulation(&container.config),
                known_as: None,
            },
        )
        .map_err(|error| match error {
            rcon_launch::Error::Died(_) if ends(&target.pidfd) => Error::ExecNotRunning,
            // podman's code for this, other than at a start.
            rcon_launch::Error::NoWorkdir(_) => Error::Remote {
                message: error.to_string(),
                code: 127,
                hint: error.hint(),
            },
            error => error.into(),
        })?;
        self.emit_container(&container, Action::Exec);
        if request.detach {
            leave(child)?;
            return Ok(ExecOutcome::Started(names::random_id()?));
        }
        let (outcome, child) = Relay::new(child, streams, request)?.run()?;
        if let Outcome::Exited(code) = outcome {
            self.emit(&Event::container(&container, Action::ExecDied).exited(code));
        }
        if matches!(outcome, Outcome::Detached | Outcome::GoneReader) {
            leave(child)?;
        }
        Ok(ExecOutcome::Ended(outcome))
    }
}

/// Whether the container has ended, or is about to.
fn ends(process: &OwnedFd) -> bool {
    let limit = Timespec {
        tv_sec: 2,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    matches!(
        rustix::io::retry_on_intr(|| poll(&mut fds, Some(&limit))),
        Ok(1)
    )
}

/// The process to start: the container's own, but for what the request says.
fn program(template: &Process, config: &Config, request: &ExecRequest) -> Result<Process> {
    let mut process = template.clone();
    process.set_args(Some(request.command.clone()));
    process.set_terminal(Some(request.tty));
    let mut env = template.env().clone().unwrap_or_default();
    // A terminal that the container itself does not have.
    if request.tty && !config.options.tty && !env.iter().any(|e| e.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    for (name, value) in &request.env {
        let prefix = format!("{name}=");
        env.retain(|entry| !entry.starts_with(&prefix));
        env.push(format!("{name}={value}"));
    }
    process.set_env(Some(env));
    if let Some(dir) = &request.workdir {
        if !dir.starts_with('/') {
            return Err(Error::Invalid(format!(
                "the working directory {dir:?} is invalid, it needs to be an absolute path"
            )));
        }
        process.set_cwd(dir.into());
    }
    if request.privileged {
        let everything = rcon_bundle::Options {
            privileged: true,
            ..rcon_bundle::Options::default()
        };
        process.set_capabilities(Some(rcon_bundle::capabilities(&everything, None)?.to_oci()));
        process.set_no_new_privileges(Some(false));
    }
    Ok(process)
}

/// The new process's streams, and our ends of them.
fn stdio(request: &ExecRequest) -> std::io::Result<(Stdio, Streams)> {
    let null = || {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map(OwnedFd::from)
    };
    if request.tty {
        let size = terminal::size()
            .filter(|_| !request.detach)
            .map(|(rows, cols)| Size { rows, cols });
        return Ok((Stdio::Terminal { size }, Streams::default()));
    }
    if request.detach {
        return Ok((
            Stdio::Fds {
                stdin: null()?,
                stdout: null()?,
                stderr: null()?,
            },
            Streams::default(),
        ));
    }
    let (stdin, ours) = match request.interactive {
        true => pipe_with(PipeFlags::CLOEXEC).map(|(read, write)| (read, Some(write)))?,
        false => (null()?, None),
    };
    let (out, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (err, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        },
        Streams {
            input: ours,
            outputs: vec![(out, 1), (err, 2)],
        },
    ))
}

/// Lets the process go on without us. Its terminal would hang up with our end of it, so somebody stays to hold that.
fn leave(child: ExecChild) -> Result<()> {
    let Some(console) = child.console else {
        return Ok(());
    };
    match process::fork().context(|| "cannot leave the terminal".into())? {
        Fork::Parent { .. } => Ok(()),
        Fork::Child => {
            let _ = rustix::process::setsid();
            let _ = rustix::process::chdir("/");
            descriptors::close_range_except(3, &[console.as_raw_fd()]);
            if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
                let _ = terminal::replace_stdio(&null);
            }
            let _ = process::set_name("rcon-terminal");
            let mut buffer = [0; 4096];
            while matches!(
                rustix::io::retry_on_intr(|| rustix::io::read(&console, &mut buffer)),
                Ok(1..)
            ) {}
            process::exit_now(0)
        }
    }
}
