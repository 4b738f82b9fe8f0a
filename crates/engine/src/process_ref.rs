//! Processes named on disk: by number and what is unique to each, in the boot that is written beside them. A number that was
//! given to another process is never taken for the one that had it before.

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use crate::record::ProcessRef;

/// The state and the start time of a process (fields 3 and 22 of `/proc/PID/stat`, proc_pid_stat(5)).
fn stat(pid: i32) -> Option<(u8, u64)> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so what follows its end counts.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// A number that no other process of this boot has: the inode of its pidfd, where these have a file system of their own
/// (Linux 6.9). Unlike the start time it is the same in every time namespace, and quickly had.
fn unique(pidfd: &OwnedFd) -> Option<u64> {
    const PIDFS: rustix::fs::FsWord = 0x5049_4446;
    static HAS_PIDFS: OnceLock<bool> = OnceLock::new();
    let has = *HAS_PIDFS
        .get_or_init(|| rustix::fs::fstatfs(pidfd).is_ok_and(|stat| stat.f_type == PIDFS));
    has.then(|| rustix::fs::fstat(pidfd).ok().map(|stat| stat.st_ino))?
}

fn open(pid: i32) -> Option<OwnedFd> {
    rcon_sys::process::pidfd_open(Pid::from_raw(pid)?).ok()
}

/// Which of these processes have ended.
pub(crate) fn which_ended(pidfds: &[&OwnedFd]) -> Vec<bool> {
    let mut fds: Vec<PollFd<'_>> = pidfds
        .iter()
        .map(|pidfd| PollFd::new(*pidfd, PollFlags::IN))
        .collect();
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // What cannot be asked for says nothing, and so nothing has ended.
    let _ = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&now)));
    fds.iter().map(|fd| !fd.revents().is_empty()).collect()
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    which_ended(&[pidfd]).contains(&true)
}

/// Whether any process has this number.
fn has_process(pid: Pid) -> bool {
    !matches!(
        rustix::process::test_kill_process(pid),
        Err(rustix::io::Errno::SRCH)
    )
}

impl ProcessRef {
    /// The process with this number now.
    pub fn of(pid: i32) -> Option<ProcessRef> {
        if let Some(unique) = open(pid).and_then(|pidfd| unique(&pidfd)) {
            return Some(ProcessRef {
                pid,
                start_time: 0,
                unique: Some(unique),
            });
        }
        let (_, start_time) = stat(pid)?;
        Some(ProcessRef {
            pid,
            start_time,
            unique: None,
        })
    }

    /// Whether `pidfd`, which is that of its number, is this process.
    fn is(&self, pidfd: &OwnedFd) -> bool {
        match (self.unique, unique(pidfd)) {
            (Some(noted), now) => now == Some(noted),
            // Written by an earlier version, or on an earlier kernel.
            (None, _) => stat(self.pid).is_some_and(|(_, start)| start == self.start_time),
        }
    }

    /// Whether it is still alive. One that has ended and only waits for its parent to notice is not.
    pub fn is_there(&self) -> bool {
        // A program whose first thread has ended looks dead in /proc while others go on; its descriptor knows better.
        let Some(pid) = Pid::from_raw(self.pid) else {
            return false;
        };
        match rcon_sys::process::pidfd_open(pid) {
            Ok(pidfd) => self.is(&pidfd) && !has_ended(&pidfd),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => false,
            // We may open no more files, or may not ask so: what runs must not be taken for ended.
            Err(_) => has_process(pid),
        }
    }

    /// Its state, a letter as in proc_pid_stat(5).
    pub(crate) fn letter(&self) -> Option<u8> {
        let (letter, _) = stat(self.pid)?;
        self.is_there().then_some(letter)
    }

    /// How it ended, as waitpid(2) has it, while it has not been waited for. Who may look into the process is told the truth;
    /// others see a success.
    pub(crate) fn exit_status(&self) -> Option<i32> {
        let pidfd = open(self.pid)?;
        let text = fs::read(format!("/proc/{}/stat", self.pid)).ok()?;
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Field 52; the first of these is field 3.
        let status = fields.get(49)?.parse().ok();
        status.filter(|_| fields.first() == Some(&"Z") && self.is(&pidfd))
    }

    /// A handle on the process, surely this one and no other, which may have ended; `None` when it is gone.
    pub(crate) fn hold(&self) -> Option<OwnedFd> {
        open(self.pid).filter(|pidfd| self.is(pidfd))
    }

    /// A handle on the process, surely this one and no other; `None` when it is gone.
    pub fn open(&self) -> Option<OwnedFd> {
        self.hold().filter(|pidfd| !has_ended(pidfd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_apart() {
        let own = ProcessRef::of(std::process::id() as i32).unwrap();
        assert!(own.is_there() && own.open().is_some());
        let (_, start_time) = stat(own.pid).unwrap();
        assert_eq!(Some(start_time), rcon_sys::process::start_time(own.pid));
        let by_time = ProcessRef {
            start_time,
            unique: None,
            ..own
        };
        assert!(by_time.is_there() && by_time.open().is_some());
        let later = ProcessRef {
            start_time: start_time + 1,
            ..by_time
        };
        assert!(!later.is_there() && later.open().is_none());
        if let Some(unique) = own.unique {
            let other = ProcessRef {
                unique: Some(unique + 1),
                ..own
            };
            assert!(!other.is_there() && other.open().is_none());
        }
        // Ended, and not yet waited for.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let child_ref = ProcessRef::of(child.id().cast_signed());
        for _ in 0..500 {
            if !child_ref.is_some_and(|c| c.is_there()) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(!child_ref.unwrap().is_there());
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        assert!(has_process(pid));
        child.wait().unwrap();
        assert!(!has_process(pid) && !child_ref.unwrap().is_there());
    }
}
