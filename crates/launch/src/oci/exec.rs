//! Further programs in a container.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::Process;

use super::Runtime;
use super::create::Console;
use super::error::{Error, Result};
use super::record::{Status, replace};
use crate::request::{ExecChild, ExecRequest, Target};

/// How a program is run in a container.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// Where the number of its process is written.
    pub pid_file: Option<PathBuf>,
    /// What it gets as descriptors 3, 4, ...
    pub preserve_fds: Vec<OwnedFd>,
    /// The cgroups below the container's that it is put into (`[CONTROLLER:]PATH`).
    pub cgroups: Vec<String>,
    /// Run it in a paused container too.
    pub ignore_paused: bool,
}

/// A program that runs, as a child of this process.
#[derive(Debug)]
pub struct Executed {
    /// Its process, and the master of its terminal when it is to be shown.
    pub child: ExecChild,
}

impl Runtime {
    /// The description that programs in the container `id` start from: its first one's.
    ///
    /// # Errors
    /// When the container or its specification cannot be read.
    pub fn process_of(&self, id: &str) -> Result<Process> {
        let spec = self.find(id)?.spec()?;
        let process = spec.process().clone();
        process.ok_or_else(|| Error::Bundle("the container has no process".to_owned()))
    }

    /// Run `program` in the container `id`.
    ///
    /// # Errors
    /// When the container does not run, or the program cannot be executed.
    pub fn exec(
        &self,
        id: &str,
        program: &Process,
        options: ExecOptions,
        console: Console<'_>,
    ) -> Result<Executed> {
        let container = self.find(id)?;
        let status = container.status();
        match status {
            Status::Created | Status::Running => {}
            Status::Paused if options.ignore_paused => {}
            Status::Paused => {
                return Err(Error::State(
                    "cannot exec in a paused container (--ignore-paused does it)".to_owned(),
                ));
            }
            _ => {
                return Err(Error::State(
                    "cannot exec in a stopped container".to_owned(),
                ));
            }
        }
        let stopped = || Error::State("cannot exec in a stopped container".to_owned());
        let (pid, pidfd) = container.process().ok_or_else(stopped)?;
        let spec = container.spec()?;
        let below = match options.cgroups.is_empty() {
            true => None,
            false => {
                let below = container.cgroup()?.below(&options.cgroups);
                Some(below.map_err(crate::Error::from)?)
            }
        };
        let stdio = console.streams(program.terminal() == Some(true))?;
        let child = crate::exec(
            &Target { pid, pidfd },
            ExecRequest {
                spec: &spec,
                process: program,
                user: None,
                group_add: Vec::new(),
                keep_groups: super::create::keeps_groups(&spec),
                stdio,
                seccomp: true,
                known_as: Some(container.known_as()),
                emulation: None,
                cgroup: below.as_ref().or(container.record.cgroup.as_ref()),
                preserve_fds: options.preserve_fds,
            },
        );
        let mut child = match child {
            // What waits to be started is hidden from other processes, but for root's.
            Err(crate::Error::Setup { errno, .. })
                if status == Status::Created && errno == libc::EPERM =>
            {
                return Err(Error::State(
                    "cannot exec in a container that was not started yet".to_owned(),
                ));
            }
            result => result?,
        };
        if let Some(groups) = &container.record.intel_rdt {
            groups.enter(child.pid.as_raw_nonzero().get())?;
        }
        child.console = console.hand_over(child.console.take())?;
        if let Some(path) = &options.pid_file {
            replace(path, child.pid.as_raw_nonzero().to_string().as_bytes())?;
        }
        Ok(Executed { child })
    }
}
