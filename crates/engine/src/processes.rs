//! The processes of a running container, as `/proc` of the host shows them: for `top`, and for `stats` where no cgroup
//! counts.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::Engine;
use crate::error::{Error, Result};
use crate::record::Container;
use crate::sharing::Place;

/// What a container uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it was started.
    pub cpu: Duration,
    /// Of that, in the kernel.
    pub cpu_system: Duration,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of memory at most: its limit, or all there is.
    pub memory_limit: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes that came over its network.
    pub net_in: u64,
    /// Bytes that went over its network.
    pub net_out: u64,
    /// Bytes read from disks.
    pub block_read: u64,
    /// Bytes written to disks.
    pub block_written: u64,
}

/// One process, in the terms of ps(1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// As the host numbers it.
    pub host_pid: i32,
    /// As the container numbers it.
    pub pid: i32,
    /// Its parent there; 0 for the first one and for what `exec` started.
    pub parent: i32,
    /// Its process group, as the container numbers it.
    pub group: i32,
    /// The terminal, `?` for none.
    pub tty: String,
    /// A letter, see proc_pid_stat(5).
    pub state: char,
    /// Niceness.
    pub nice: i64,
    /// The name of its program.
    pub comm: String,
    /// The command line.
    pub args: String,
    /// Time on the processor.
    pub time: Duration,
    /// Of that, in the kernel.
    pub system_time: Duration,
    /// Since its start.
    pub elapsed: Duration,
    /// Bytes of address space.
    pub virtual_size: u64,
    /// Bytes in memory.
    pub resident: u64,
    /// The effective user, as the host numbers it, and so on.
    pub uid: u32,
    /// The real user.
    pub real_uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The real group.
    pub real_gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// The five sets of capabilities, by their names in `/proc/PID/status`.
    pub capabilities: BTreeMap<String, u64>,
    /// 0, 1 or 2: no filter, strict, a filter.
    pub seccomp: u8,
    /// The security label.
    pub label: String,
    threads: u64,
}

/// Ticks in a second, in all that Linux tells programs (USER_HZ).
const TICKS: u64 = 100;

/// The host's numbers of all processes in the container.
pub(crate) fn pids(container: &Container) -> Vec<i32> {
    let Some(first) = container.state.process else {
        return Vec::new();
    };
    // Where others are in its process namespace too, its mounts are what it has to itself.
    let kind = match container.config.sharing.pid {
        Place::Private => "pid",
        _ => "mnt",
    };
    let Some(own) = namespace(kind, first.pid) else {
        return Vec::new();
    };
    let mut pids = living_in(kind, own);
    if kind == "mnt" {
        // Who answers for the owners of its files sees them as it does, and is one of us.
        let program = |pid: &str| {
            let file = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
            Some((file.dev(), file.ino()))
        };
        let ours = program("self");
        pids.retain(|pid| *pid == first.pid || program(&pid.to_string()) != ours);
    }
    pids
}

/// Kills what is left of a container that had no process namespace of its own, in which the kernel does so: all that
/// lives in this mount namespace.
pub(crate) fn end_all(mounts: &File) {
    let Ok(mounts) = mounts.metadata().map(|file| (file.dev(), file.ino())) else {
        return;
    };
    // Between two looks one may have made another; nobody makes one while all are being killed.
    for _ in 0..ROUNDS {
        let left = living_in("mnt", mounts);
        let held: Vec<_> = left
            .into_iter()
            .filter_map(|pid| {
                let pidfd =
                    rcon_sys::process::pidfd_open(rustix::process::Pid::from_raw(pid)?).ok()?;
                // The number is still its own.
                (namespace("mnt", pid) == Some(mounts)).then_some(pidfd)
            })
            .collect();
        if held.is_empty() {
            return;
        }
        for pidfd in &held {
            let _ = rcon_sys::process::pidfd_send_signal(pidfd, libc::SIGKILL);
        }
        for pidfd in &held {
            let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
            let _ = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&PATIENCE)));
        }
    }
}

/// How often to look for what is left, and how long to wait for one that was killed.
const ROUNDS: u32 = 64;
const PATIENCE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// The namespace of a kind that a process lives in.
fn namespace(kind: &str, pid: i32) -> Option<(u64, u64)> {
    let found = fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok()?;
    Some((found.dev(), found.ino()))
}

fn living_in(kind: &str, wanted: (u64, u64)) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut pids: Vec<i32> = all
        .filter(|pid| namespace(kind, *pid) == Some(wanted))
        .collect();
    pids.sort_unstable();
    pids
}

/// What is wanted of `/proc/PID/stat`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stat {
    comm: String,
    state: char,
    parent: i32,
    group: i32,
    tty: i32,
    user: u64,
    system: u64,
    waited_user: u64,
    waited_system: u64,
    nice: i64,
    threads: u64,
    start: u64,
    size: u64,
    pages: u64,
}

impl Stat {
    fn parse(text: &[u8]) -> Option<Stat> {
        // The second field is a name in parentheses, which may hold anything.
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let comm = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Field numbers as in proc_pid_stat(5).
        let field = |number: usize| fields.get(number - 3).copied();
        let number = |at: usize| field(at)?.parse::<u64>().ok();
        let signed = |at: usize| field(at)?.parse::<i64>().ok();
        let small = |at: usize| field(at)?.parse::<i32>().ok();
        Some(Stat {
            comm,
            state: field(3)?.chars().next()?,
            parent: small(4)?,
            group: small(5)?,
            tty: small(7)?,
            user: number(14)?,
            system: number(15)?,
            waited_user: number(16)?,
            waited_system: number(17)?,
            nice: signed(19)?,
            threads: number(20)?,
            start: number(22)?,
            size: number(23)?,
            pages: number(24)?,
        })
    }
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * (1000 / TICKS))
}

/// Seconds since boot.
fn uptime() -> Duration {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text
        .split(' ')
        .next()
        .and_then(|word| word.parse::<f64>().ok());
    Duration::from_secs_f64(seconds.unwrap_or_default())
}

/// What the processes of a container use, added up.
pub(crate) fn usage(container: &Container) -> Usage {
    let mut usage = Usage {
        memory_limit: memory_of_host(),
        ..Usage::default()
    };
    let page = rcon_sys::memory::page_size() as u64;
    let pids = pids(container);
    for pid in &pids {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok();
        let Some(stat) = stat.as_deref().and_then(Stat::parse) else {
            continue;
        };
        usage.cpu += ticks(stat.user + stat.system + stat.waited_user + stat.waited_system);
        usage.cpu_system += ticks(stat.system + stat.waited_system);
        usage.memory += stat.pages * page;
        usage.pids += stat.threads;
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        usage.block_read += field_of(&io, "read_bytes:").unwrap_or(0);
        usage.block_written += field_of(&io, "write_bytes:").unwrap_or(0);
    }
    if let Some(first) = pids.first().filter(|_| has_own_network(container)) {
        let text = fs::read_to_string(format!("/proc/{first}/net/dev")).unwrap_or_default();
        (usage.net_in, usage.net_out) = traffic(&text);
    }
    usage
}

fn has_own_network(container: &Container) -> bool {
    !matches!(container.config.network, crate::Network::Host)
}

/// Bytes received and sent in the text of `/proc/net/dev`, loopback aside.
fn traffic(text: &str) -> (u64, u64) {
    text.lines()
        .filter_map(|line| {
            let (name, numbers) = line.split_once(':')?;
            if name.trim() == "lo" {
                return None;
            }
            let numbers: Vec<u64> = numbers
                .split_ascii_whitespace()
                .map_while(|word| word.parse().ok())
                .collect();
            Some((*numbers.first()?, *numbers.get(8)?))
        })
        .fold((0, 0), |(a, b), (received, sent)| (a + received, b + sent))
}

fn field_of(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn memory_of_host() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    field_of(&text, "MemTotal:").unwrap_or(0) * 1024
}

/// The process `pid`, if it is still there.
fn process(pid: i32, now: Duration) -> Option<Process> {
    let stat = Stat::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let words = |key: &str| -> Vec<&str> {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_default().split_ascii_whitespace().collect()
    };
    let ids = |key: &str| -> Vec<u32> {
        words(key)
            .iter()
            .filter_map(|word| word.parse().ok())
            .collect()
    };
    let inner = |key: &str, outer: i32| -> i32 {
        words(key)
            .last()
            .and_then(|word| word.parse().ok())
            .unwrap_or(outer)
    };
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let args: Vec<_> = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    let (uids, gids) = (ids("Uid:"), ids("Gid:"));
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| {
        let key = format!("{name}:");
        let value = words(&key)
            .first()
            .and_then(|word| u64::from_str_radix(word, 16).ok());
        (name.to_owned(), value.unwrap_or(0))
    });
    let label = fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap_or_default();
    let id = |list: &[u32], at: usize| list.get(at).copied().unwrap_or(u32::MAX);
    Some(Process {
        host_pid: pid,
        pid: inner("NSpid:", pid),
        parent: stat.parent,
        group: inner("NSpgid:", stat.group),
        tty: terminal(stat.tty),
        state: stat.state,
        nice: stat.nice,
        args: match args.is_empty() {
            true => format!("[{}]", stat.comm),
            false => args.join(" "),
        },
        comm: stat.comm,
        time: ticks(stat.user + stat.system),
        system_time: ticks(stat.system),
        elapsed: now.saturating_sub(ticks(stat.start)),
        virtual_size: stat.size,
        resident: stat.pages * rcon_sys::memory::page_size() as u64,
        uid: id(&uids, 1),
        real_uid: id(&uids, 0),
        gid: id(&gids, 1),
        real_gid: id(&gids, 0),
        groups: ids("Groups:"),
        capabilities: BTreeMap::from(sets),
        seccomp: words("Seccomp:")
            .first()
            .and_then(|word| word.parse().ok())
            .unwrap_or(0),
        label: label.trim_end_matches(['\0', '\n']).to_owned(),
        threads: stat.threads,
    })
}

/// The name of a terminal of that device number, see tty_nr in proc_pid_stat(5).
fn terminal(number: i32) -> String {
    let number = number.cast_unsigned();
    let major = (number >> 8) & 0xfff;
    let minor = (number & 0xff) | ((number >> 12) & 0xfff00);
    match (number, major) {
        (0, _) => "?".to_owned(),
        (_, 136..=143) => format!("pts/{}", (major - 136) * 256 + minor),
        (_, 4) if minor < 64 => format!("tty{minor}"),
        (_, 4) => format!("ttyS{}", minor - 64),
        _ => "?".to_owned(),
    }
}

/// The name of a user of the host.
pub fn host_user(id: u32) -> Option<String> {
    rcon_sys::passwd::lookup_uid(id).map(|user| user.name)
}

/// The name of a group of the host.
pub fn host_group(id: u32) -> Option<String> {
    rcon_sys::passwd::lookup_gid(id).map(|group| group.name)
}

impl Engine {
    /// The processes of a running container, oldest first.
    ///
    /// # Errors
    /// [`Error::StateImproper`] when it does not run.
    pub fn processes(&self, container: &Container) -> Result<Vec<Process>> {
        if !container.state.status.is_alive() {
            return Err(Error::StateImproper(
                "top can only be used on running containers".into(),
            ));
        }
        let now = uptime();
        let pids = pids(container);
        let mut list: Vec<Process> = pids
            .into_iter()
            .filter_map(|pid| process(pid, now))
            .collect();
        // A parent outside is none, as the container itself sees it.
        let numbers: HashMap<i32, i32> = list.iter().map(|p| (p.host_pid, p.pid)).collect();
        for process in &mut list {
            process.parent = numbers.get(&process.parent).copied().unwrap_or(0);
        }
        list.sort_by_key(|process| process.pid);
        Ok(list)
    }

    /// The text of a file of a running container, as the container sees it; empty if it is not there.
    pub fn text_in(&self, container: &Container, path: &str) -> String {
        let read = || -> Option<String> {
            let pid = container.state.process?.pid;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()).ok()?;
            let file = rustix::fs::openat2(
                &root,
                path.trim_start_matches('/'),
                OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            )
            .ok()?;
            let file = fs::File::from(file);
            if !file.metadata().ok()?.is_file() {
                return None;
            }
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut std::io::Read::take(file, 1 << 20), &mut text).ok()?;
            Some(String::from_utf8_lossy(&text).into_owned())
        };
        read().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let text = b"7 (a) b (c) S 1 7 7 34816 7 4194560 5 0 0 0 12 3 4 5 20 0 2 0 99 4096 8 0 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            (stat.comm.as_str(), stat.state, stat.parent),
            ("a) b (c", 'S', 1)
        );
        assert_eq!((stat.user, stat.system, stat.waited_system), (12, 3, 5));
        assert_eq!(
            (stat.threads, stat.start, stat.size, stat.pages),
            (2, 99, 4096, 8)
        );
        assert_eq!(terminal(stat.tty), "pts/0");
        assert!(Stat::parse(b"7 (a").is_none() && Stat::parse(b"").is_none());
    }

    #[test]
    fn terminals_have_names() {
        for (number, name) in [
            (0, "?"),
            (0x8803, "pts/3"),
            (0x0401, "tty1"),
            (0x0440, "ttyS0"),
        ] {
            assert_eq!(terminal(number), name);
        }
    }

    #[test]
    fn traffic_leaves_out_loopback() {
        let text = "Inter-|   Receive\n face |bytes\n    lo:  5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n  tap0: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), (10, 20));
    }

    #[test]
    fn we_can_look_at_ourselves() {
        let own = process(rustix::process::getpid().as_raw_nonzero().get(), uptime()).unwrap();
        assert!(own.threads >= 1 && own.resident > 0 && !own.args.is_empty());
    }
}
