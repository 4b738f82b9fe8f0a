//! What a cgroup has used.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::{keyed, keyed_in, number};

/// What the processes of a cgroup have used, and may use at most. `None` is what its host does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time.
    pub cpu: Option<Duration>,
    /// Of that, in the kernel.
    pub cpu_system: Option<Duration>,
    /// Bytes of memory now.
    pub memory: Option<u64>,
    /// Bytes of memory at most.
    pub memory_limit: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// Processes and threads at most.
    pub pids_limit: Option<u64>,
    /// Bytes read from block devices.
    pub read: Option<u64>,
    /// Bytes written to block devices.
    pub written: Option<u64>,
}

pub(super) fn unified(dir: &Path) -> Usage {
    let cpu = fs::read_to_string(dir.join("cpu.stat")).unwrap_or_default();
    let time = |key| keyed_in(&cpu, key).map(Duration::from_micros);
    let io = fs::read_to_string(dir.join("io.stat")).ok();
    let sum = |key: &str| io.as_deref().map(|text| sum_in(text, key));
    Usage {
        cpu: time("usage_usec"),
        cpu_system: time("system_usec"),
        memory: number(&dir.join("memory.current")),
        memory_limit: number(&dir.join("memory.max")),
        pids: number(&dir.join("pids.current")),
        pids_limit: number(&dir.join("pids.max")),
        read: sum("rbytes="),
        written: sum("wbytes="),
    }
}

/// The sum of one number of `io.stat` over all devices.
fn sum_in(text: &str, key: &str) -> u64 {
    text.split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
        .sum()
}

pub(super) fn legacy(dirs: &BTreeMap<String, PathBuf>) -> Usage {
    let of = |name: &str, file: &str| dirs.get(name).map(|dir| dir.join(file));
    let get = |name: &str, file: &str| of(name, file).and_then(|path| number(&path));
    let io = of("blkio", "blkio.throttle.io_service_bytes")
        .and_then(|path| fs::read_to_string(path).ok());
    let sum = |key: &str| {
        let text = io.as_deref()?;
        Some(
            text.lines()
                .filter_map(|line| {
                    let mut words = line.split(' ').skip(1);
                    (words.next()? == key).then(|| words.next()?.parse::<u64>().ok())?
                })
                .sum(),
        )
    };
    let stat = |key: &str| keyed(&of("cpuacct", "cpuacct.stat")?, key);
    // "No limit" is a number near the greatest there is.
    let limit = get("memory", "memory.limit_in_bytes").filter(|limit| *limit < 1 << 62);
    Usage {
        cpu: get("cpuacct", "cpuacct.usage").map(Duration::from_nanos),
        // Counted in clock ticks, of which a second has a hundred.
        cpu_system: stat("system").map(|ticks| Duration::from_millis(ticks * 10)),
        memory: get("memory", "memory.usage_in_bytes"),
        memory_limit: limit,
        pids: get("pids", "pids.current"),
        pids_limit: get("pids", "pids.max"),
        read: sum("Read"),
        written: sum("Write"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_devices_are_added_up() {
        let text = "8:0 rbytes=10 wbytes=1 rios=3\n8:16 rbytes=5 wbytes=2\n";
        assert_eq!((sum_in(text, "rbytes="), sum_in(text, "wbytes=")), (15, 3));
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(unified(empty.path()), Usage::default());
        fs::write(empty.path().join("memory.max"), "max\n").unwrap();
        fs::write(empty.path().join("cpu.stat"), "usage_usec 7\nuser_usec 3\n").unwrap();
        let usage = unified(empty.path());
        assert_eq!(usage.cpu, Some(Duration::from_micros(7)));
        assert_eq!(usage.memory_limit, None);
    }
}
