//! The processes of a container.

use std::fs;
use std::path::PathBuf;

use rcon_sys::process;
use rustix::process::Pid;

use super::record::{Container, Status};
use super::{Error, Result, Runtime};
use crate::cgroup::Cgroup;

/// The numbers of the processes of `container` as far as they can be told from others: all in its
/// cgroup, or in its process id namespace, when that is not ours.
pub(super) fn of(container: &Container) -> Vec<i32> {
    let cgroup = container.record.cgroup.as_ref();
    let mut all = cgroup.map(Cgroup::pids).unwrap_or_default();
    all.extend(in_namespace(container));
    all.sort_unstable();
    all.dedup();
    all
}

fn in_namespace(container: &Container) -> Vec<i32> {
    if container.process().is_none() {
        return Vec::new();
    }
    let namespace = |pid: &str| fs::read_link(PathBuf::from("/proc").join(pid).join("ns/pid")).ok();
    let first = container.record.pid.to_string();
    let theirs = namespace(&first);
    if theirs.is_none() || theirs == namespace("self") {
        return vec![container.record.pid];
    }
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let pid = name.parse().ok()?;
            (namespace(&name) == theirs).then_some(pid)
        })
        .collect()
}

/// Signal each of them that is still there.
pub(super) fn signal(pids: &[i32], signal: i32) {
    for pid in pids {
        if let Some(Ok(pidfd)) = Pid::from_raw(*pid).map(process::pidfd_open) {
            let _ = process::pidfd_send_signal(&pidfd, signal);
        }
    }
}

impl Runtime {
    /// The numbers of the processes of the container `id`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn processes(&self, id: &str) -> Result<Vec<i32>> {
        let container = self.find(id)?;
        match container.status() {
            Status::Stopped | Status::Creating => {
                Err(Error::State("container not running".to_owned()))
            }
            _ => Ok(of(&container)),
        }
    }
}
