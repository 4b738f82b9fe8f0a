//! Processes named on disk: by number and start time, in the boot that is written beside them. A number that was given to
//! another process is never taken for the one that had it before.

use std::fs;
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use crate::record::ProcessRef;

/// This boot, so that process numbers of an earlier one are not believed.
pub(crate) fn boot_id() -> String {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID
        .get_or_init(|| {
            fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map(|t| t.trim().to_string())
                .unwrap_or_default()
        })
        .clone()
}

/// The state and the start time of a process (fields 3 and 22 of `/proc/PID/stat`, proc_pid_stat(5)).
pub(crate) fn stat(pid: i32) -> Option<(u8, u64)> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so what follows its end counts.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

impl ProcessRef {
    /// The process with this number now.
    pub fn of(pid: i32) -> Option<ProcessRef> {
        stat(pid).map(|(_, start_time)| ProcessRef { pid, start_time })
    }

    /// Whether it is still alive. One that has ended and only waits for its parent to notice is not.
    pub fn is_there(&self) -> bool {
        match stat(self.pid) {
            // A program whose first thread has ended looks dead while others go on; its descriptor knows better.
            Some((b'Z' | b'X', start_time)) => start_time == self.start_time && !self.has_ended(),
            Some((_, start_time)) => start_time == self.start_time,
            None => false,
        }
    }

    fn has_ended(&self) -> bool {
        let pidfd = Pid::from_raw(self.pid).and_then(|pid| rcon_sys::process::pidfd_open(pid).ok());
        pidfd.is_none_or(|pidfd| {
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            !matches!(
                poll(
                    &mut fds,
                    Some(&Timespec {
                        tv_sec: 0,
                        tv_nsec: 0
                    })
                ),
                Ok(0)
            )
        })
    }

    /// How it ended, as waitpid(2) has it, while it has not been waited for. Who may look into the process is told the truth;
    /// others see a success.
    pub(crate) fn exit_status(&self) -> Option<i32> {
        let text = fs::read(format!("/proc/{}/stat", self.pid)).ok()?;
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let same = fields.get(19)?.parse() == Ok(self.start_time);
        // Field 52; the first of these is field 3.
        let status = fields.get(49)?.parse().ok();
        status.filter(|_| same && fields.first() == Some(&"Z"))
    }

    /// A handle on the process, surely this one and no other; `None` when it is gone.
    pub fn open(&self) -> Option<std::os::fd::OwnedFd> {
        let pid = Pid::from_raw(self.pid)?;
        let pidfd = rcon_sys::process::pidfd_open(pid).ok()?;
        // Only now is it certain that number and start time belong to the process we hold.
        self.is_there().then_some(pidfd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_apart() {
        let own = ProcessRef::of(std::process::id() as i32).unwrap();
        assert!(own.is_there() && own.open().is_some());
        let other = ProcessRef {
            start_time: own.start_time + 1,
            ..own
        };
        assert!(!other.is_there() && other.open().is_none());
        assert_eq!(
            stat(own.pid).map(|(_, start_time)| start_time),
            rcon_sys::process::start_time(own.pid)
        );
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
        child.wait().unwrap();
    }
}
