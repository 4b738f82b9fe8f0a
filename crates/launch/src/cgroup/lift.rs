//! Taking limits away again. A specification has no word for that: zero is "nothing was said" there, and each limit has
//! another value that is none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::files::{self, Setting};
use super::{Cgroup, Dirs, Result, unified};

/// The kernel's usual period of quotas, in microseconds.
const PERIOD: u64 = 100_000;

/// A limit that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The most memory, and the most swap with it.
    Memory,
    /// The memory that is left to it when there is little.
    Reservation,
    /// The time it may have on processors.
    Quota,
    /// What that time is counted in; it becomes the usual.
    Period,
    /// Its share of the processors' time.
    Shares,
    /// The processors it may run on.
    Processors,
    /// The memory nodes it may use.
    Nodes,
    /// Its share of the disks' time.
    Weight,
    /// The same of the one disk with this number.
    DiskWeight(i64, i64),
}

impl Cgroup {
    /// Take limits away. What cannot be limited here is not.
    ///
    /// # Errors
    /// [`Error::Refused`](super::Error::Refused) for what the kernel does not do; [`Error::Gone`](super::Error::Gone).
    pub fn lift(&self, limits: &[Limit]) -> Result<()> {
        self.or_gone(|| {
            limits.iter().try_for_each(|limit| match &self.dirs {
                Dirs::Unified(dir) => files::apply(dir, &limit.unified(dir)),
                Dirs::Legacy(dirs) => limit.lift_legacy(dirs),
            })
        })
    }
}

impl Limit {
    fn unified(self, dir: &Path) -> Vec<Setting> {
        let one = |file: &str, value: &str| vec![Setting::optional(file, value)];
        match self {
            Limit::Memory => vec![
                Setting::optional("memory.max", "max"),
                Setting::optional("memory.swap.max", "max"),
            ],
            Limit::Reservation => one("memory.low", "0"),
            Limit::Quota => one("cpu.max", "max"),
            Limit::Period => {
                let now = fs::read_to_string(dir.join("cpu.max")).unwrap_or_default();
                let quota = now.split_whitespace().next().unwrap_or("max");
                vec![Setting::optional("cpu.max", format!("{quota} {PERIOD}"))]
            }
            Limit::Shares => one("cpu.weight", "100"),
            // An empty write would be none.
            Limit::Processors => one("cpuset.cpus", "\n"),
            Limit::Nodes => one("cpuset.mems", "\n"),
            Limit::Weight => match unified::has_bfq() {
                true => one("io.bfq.weight", "100"),
                false => one("io.weight", "default 100"),
            },
            Limit::DiskWeight(major, minor) => {
                let file = match unified::has_bfq() {
                    true => "io.bfq.weight",
                    false => "io.weight",
                };
                one(file, &format!("{major}:{minor} default"))
            }
        }
    }

    fn lift_legacy(self, dirs: &BTreeMap<String, PathBuf>) -> Result<()> {
        let settings: &[(&str, &str)] = match self {
            // That of both is never less than that of memory.
            Limit::Memory => &[
                ("memory.memsw.limit_in_bytes", "-1"),
                ("memory.limit_in_bytes", "-1"),
            ],
            Limit::Reservation => &[("memory.soft_limit_in_bytes", "-1")],
            Limit::Quota => &[("cpu.cfs_quota_us", "-1")],
            Limit::Period => &[("cpu.cfs_period_us", "100000")],
            Limit::Shares => &[("cpu.shares", "1024")],
            Limit::Processors => return inherit(dirs, "cpuset.cpus"),
            Limit::Nodes => return inherit(dirs, "cpuset.mems"),
            Limit::Weight => &[("blkio.weight", "500")],
            // Zero takes it away there, as the specification has it.
            Limit::DiskWeight(..) => &[],
        };
        for (file, value) in settings {
            let setting = Setting::optional(file, value);
            if let Some(dir) = dirs.get(setting.controller()) {
                files::apply(dir, &[setting])?;
            }
        }
        Ok(())
    }
}

/// Gives a cpuset all that the one above it has.
fn inherit(dirs: &BTreeMap<String, PathBuf>, file: &str) -> Result<()> {
    match dirs
        .get("cpuset")
        .and_then(|dir| Some((dir, dir.parent()?)))
    {
        Some((dir, above)) => {
            let all = files::read(&above.join(file))?;
            files::apply(dir, &[Setting::optional(file, all.trim())])
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Limit; 7] = [
        Limit::Memory,
        Limit::Reservation,
        Limit::Quota,
        Limit::Period,
        Limit::Shares,
        Limit::Processors,
        Limit::Nodes,
    ];

    fn lifted(dirs: Dirs, at: &Path, files: &[(&str, &str)], limits: &[Limit]) -> Vec<String> {
        for (file, value) in files {
            fs::write(at.join(file), value).unwrap();
        }
        let cgroup = Cgroup {
            dirs,
            scope: None,
            foreign: false,
        };
        cgroup.lift(limits).unwrap();
        let read = |(file, _): &(&str, &str)| fs::read_to_string(at.join(file)).unwrap();
        files.iter().map(read).collect()
    }

    #[test]
    fn limits_of_the_second_version() {
        let dir = tempfile::tempdir().unwrap();
        let own = || Dirs::Unified(dir.path().to_owned());
        let files = [
            ("memory.max", ""),
            ("memory.swap.max", ""),
            ("memory.low", ""),
            ("cpu.max", "500 70000"),
            ("cpu.weight", ""),
            ("cpuset.cpus", ""),
            ("cpuset.mems", ""),
        ];
        let after = lifted(own(), dir.path(), &files, &ALL);
        assert_eq!(after, ["max", "max", "0", "max 100000", "100", "\n", "\n"]);
        let files = [("cpu.max", "50000 70000")];
        let after = lifted(own(), dir.path(), &files, &[Limit::Period]);
        assert_eq!(after, ["50000 100000"]);
        // What the host keeps to itself limits nothing.
        let empty = tempfile::tempdir().unwrap();
        let bare = Dirs::Unified(empty.path().to_owned());
        lifted(bare, empty.path(), &[], &ALL);
        assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
    }

    #[test]
    fn limits_of_the_first_version() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        fs::create_dir(&own).unwrap();
        for (file, all) in [("cpuset.cpus", "0-3\n"), ("cpuset.mems", "0\n")] {
            fs::write(dir.path().join(file), all).unwrap();
        }
        let dirs = ["memory", "cpu", "cpuset"].map(|name| (name.to_owned(), own.clone()));
        let files = [
            ("memory.memsw.limit_in_bytes", ""),
            ("memory.limit_in_bytes", ""),
            ("memory.soft_limit_in_bytes", ""),
            ("cpu.cfs_quota_us", ""),
            ("cpu.cfs_period_us", ""),
            ("cpu.shares", ""),
            ("cpuset.cpus", ""),
            ("cpuset.mems", ""),
        ];
        let after = lifted(Dirs::Legacy(dirs.into()), &own, &files, &ALL);
        assert_eq!(
            after,
            ["-1", "-1", "-1", "-1", "100000", "1024", "0-3", "0"]
        );
    }
}
