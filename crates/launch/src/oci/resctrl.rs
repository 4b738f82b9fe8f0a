//! Shares of the processor's caches and of the memory's bandwidth (config-linux.md, IntelRdt): groups of the file system resctrl,
//! one for a class of service, and in it one to measure a container.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use super::error::{Error, On, Result};

/// The groups of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// That of its class.
    class: PathBuf,
    /// Whether the class is this container's alone.
    own: bool,
    /// Where it is measured, in its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<PathBuf>,
}

const SCHEMATA: &str = "schemata";

impl Groups {
    /// Those that `wanted` describes for the container `id`, made where they are not there; `None` if there is nothing wanted.
    ///
    /// # Errors
    /// Without the file system, and for shares that are others already or that the processor does not have.
    pub(super) fn make(wanted: Option<&LinuxIntelRdt>, id: &str) -> Result<Option<Groups>> {
        match wanted {
            None => Ok(None),
            Some(wanted) => Groups::make_in(&mounted()?, wanted, id).map(Some),
        }
    }

    fn make_in(root: &Path, wanted: &LinuxIntelRdt, id: &str) -> Result<Groups> {
        let named = wanted.clos_id().as_deref().filter(|name| !name.is_empty());
        let class = match named.unwrap_or(id) {
            // The class of all processes that are in no other.
            "/" => root.to_owned(),
            name if is_name(name) => root.join(name),
            name => {
                return Err(Error::Bundle(format!(
                    "{name:?} cannot be the name of a class of service (linux.intelRdt, closID)"
                )));
            }
        };
        let lines = lines(wanted)?;
        if named.is_some() && lines.is_empty() && !class.is_dir() {
            return Err(missing(&class));
        }
        let fresh = match fs::create_dir(&class) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error).on("make the class of service", &class),
        };
        let mut groups = Groups {
            class,
            own: fresh,
            monitor: None,
        };
        let done = match fresh {
            true => write_lines(&groups.class, &lines),
            false => compare(&groups.class, &lines),
        };
        let done = done.and_then(|()| {
            #[allow(deprecated)]
            let ways = [
                wanted.enable_monitoring(),
                wanted.enable_cmt(),
                wanted.enable_mbm(),
            ];
            if ways.contains(&&Some(true)) {
                let monitor = groups.class.join("mon_groups").join(id);
                fs::create_dir(&monitor).on("make the monitoring group", &monitor)?;
                groups.monitor = Some(monitor);
            }
            Ok(())
        });
        if let Err(error) = done {
            groups.remove();
            return Err(error);
        }
        // One that was named may have others in it by then.
        groups.own = named.is_none();
        Ok(groups)
    }

    /// Put a process into them; those that it starts later are in them too.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub(super) fn enter(&self, pid: i32) -> Result<()> {
        for group in [Some(&self.class), self.monitor.as_ref()]
            .into_iter()
            .flatten()
        {
            let tasks = group.join("tasks");
            write(&tasks, &format!("{pid}\n")).on("move a process to", &tasks)?;
        }
        Ok(())
    }

    /// Give the class other shares.
    ///
    /// # Errors
    /// When the processor does not have them.
    pub(super) fn change(&self, wanted: &LinuxIntelRdt) -> Result<()> {
        write_lines(&self.class, &lines(wanted)?)
    }

    /// Remove what is the container's alone.
    pub(super) fn remove(&self) {
        // What cannot be removed holds nobody up; its processes have gone.
        if let Some(monitor) = &self.monitor {
            let _ = fs::remove_dir(monitor);
        }
        if self.own {
            let _ = fs::remove_dir(&self.class);
        }
    }
}

fn unavailable(message: String, hint: &str) -> Error {
    Error::Launch(crate::Error::Cgroup {
        message,
        hint: Some(hint.to_owned()),
    })
}

fn missing(class: &Path) -> Error {
    unavailable(
        format!(
            "there is no class of service {} (linux.intelRdt)",
            class.display()
        ),
        "make it first, or give it shares (schemata, l3CacheSchema, memBwSchema) to have it made",
    )
}

/// Where the file system is.
fn mounted() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let found = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let place = before.split(' ').nth(4)?;
        after.starts_with("resctrl ").then(|| place.into())
    });
    found.ok_or_else(|| {
        unavailable(
            "there are no shares of caches and memory bandwidth (linux.intelRdt): no resctrl file system is mounted".to_owned(),
            "as root: mount -t resctrl resctrl /sys/fs/resctrl; it takes a processor with such shares and a kernel with \
             CONFIG_X86_CPU_RESCTRL",
        )
    })
}

fn is_name(name: &str) -> bool {
    let taken = [".", "..", "info", "mon_groups", "mon_data"];
    !taken.contains(&name) && !name.contains(['/', '\n', '\0'])
}

/// The lines to be written, in their order.
fn lines(wanted: &LinuxIntelRdt) -> Result<Vec<String>> {
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let bandwidth = said(wanted.mem_bw_schema());
    if let Some(line) = &bandwidth
        && (!line.starts_with("MB:") || line.contains('\n'))
    {
        return Err(Error::Bundle(format!(
            "{line:?} is no schema of memory bandwidth: one line that begins with MB:"
        )));
    }
    let caches = said(wanted.l3_cache_schema()).unwrap_or_default();
    // The bandwidth that is said by itself holds.
    let caches = caches
        .lines()
        .filter(|line| bandwidth.is_none() || !line.starts_with("MB:"));
    let mut lines: Vec<String> = caches.map(str::to_owned).collect();
    lines.extend(bandwidth);
    let all = wanted.schemata().iter().flatten();
    lines.extend(all.flat_map(|text| text.lines()).map(str::to_owned));
    lines.retain(|line| !line.trim().is_empty());
    Ok(lines)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::options().write(true).open(path)?;
    file.write_all(text.as_bytes())
}

fn write_lines(class: &Path, lines: &[String]) -> Result<()> {
    let file = class.join(SCHEMATA);
    for line in lines {
        if let Err(error) = write(&file, &format!("{line}\n")) {
            // What was wrong the kernel says there.
            let root = class.ancestors().find(|dir| dir.join("info").is_dir());
            let why = root.map(|root| fs::read_to_string(root.join("info/last_cmd_status")));
            let why = why.and_then(io::Result::ok);
            let why = why.map_or_else(
                || crate::cgroup::reason(&error),
                |why| why.trim().to_owned(),
            );
            return Err(Error::Bundle(format!(
                "the kernel refuses {line:?} (linux.intelRdt): {why}"
            )));
        }
    }
    Ok(())
}

/// Whether a class that is there already has the shares.
fn compare(class: &Path, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let file = class.join(SCHEMATA);
    let has = fs::read_to_string(&file).on("read", &file)?;
    let has: Vec<(&str, &str, &str)> = has.lines().flat_map(shares).collect();
    for line in lines {
        if shares(line).any(|share| !has.contains(&share)) {
            return Err(Error::Bundle(format!(
                "the class of service {} has other shares than {line:?} (linux.intelRdt)",
                class.display()
            )));
        }
    }
    Ok(())
}

/// The shares in a line `NAME:ID=SHARE;…`, each with the name.
fn shares(line: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let (name, list) = line.trim().split_once(':').unwrap_or((line, ""));
    list.split(';').map(move |one| {
        let (id, share) = one.split_once('=').unwrap_or((one, ""));
        (name, id.trim(), share.trim().trim_start_matches('0'))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wanted(value: Value) -> LinuxIntelRdt {
        serde_json::from_value(value).unwrap()
    }

    /// A folder as the file system would be; what it makes by itself in a new group is made here.
    fn stand_in() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("there");
        fs::create_dir_all(group.join("mon_groups")).unwrap();
        fs::write(
            group.join("schemata"),
            "    L3:0=7ff;1=0ff\n    MB:0=100;1= 70\n",
        )
        .unwrap();
        fs::write(group.join("tasks"), "").unwrap();
        root
    }

    #[test]
    fn the_lines_that_are_written() {
        for (value, expected) in [
            (json!({}), vec![]),
            (json!({"l3CacheSchema": "L3:0=f"}), vec!["L3:0=f"]),
            (json!({"memBwSchema": "MB:0=20"}), vec!["MB:0=20"]),
            (
                json!({"l3CacheSchema": "L3:0=f\nMB:0=5", "memBwSchema": "MB:0=20", "schemata": ["L2:0=1", "MB:0=30"]}),
                vec!["L3:0=f", "MB:0=20", "L2:0=1", "MB:0=30"],
            ),
            (
                json!({"l3CacheSchema": "L3:0=f\nMB:0=5"}),
                vec!["L3:0=f", "MB:0=5"],
            ),
        ] {
            assert_eq!(lines(&wanted(value)).unwrap(), expected);
        }
        for wrong in ["L3:0=f", "MB:0=1\nMB:1=1"] {
            assert!(lines(&wanted(json!({"memBwSchema": wrong}))).is_err());
        }
    }

    #[test]
    fn a_class_that_is_there_is_taken_if_it_is_the_same() {
        let root = stand_in();
        let make = |value| Groups::make_in(root.path(), &wanted(value), "c");
        for fits in [
            json!({"closID": "there"}),
            json!({"closID": "there", "l3CacheSchema": "L3:1=ff"}),
            json!({"closID": "there", "memBwSchema": "MB:0=100;1=70"}),
        ] {
            let groups = make(fits).unwrap();
            assert!(!groups.own && groups.monitor.is_none());
        }
        let other = make(json!({"closID": "there", "l3CacheSchema": "L3:1=f"})).unwrap_err();
        assert!(other.to_string().contains("has other shares"), "{other}");
        let none = make(json!({"closID": "nowhere"})).unwrap_err();
        assert!(none.hint().is_some() && !root.path().join("nowhere").exists());
        for name in ["..", "a/b", "info"] {
            assert!(make(json!({"closID": name})).is_err());
        }
        assert_eq!(make(json!({"closID": "/"})).unwrap().class, root.path());
    }

    #[test]
    fn processes_enter_and_what_is_its_own_goes_with_the_container() {
        let root = stand_in();
        let there = root.path().join("there");
        let want = wanted(json!({"closID": "there", "enableMonitoring": true}));
        let groups = Groups::make_in(root.path(), &want, "c").unwrap();
        let monitor = there.join("mon_groups/c");
        fs::write(monitor.join("tasks"), "").unwrap();
        groups.enter(77).unwrap();
        for group in [&there, &monitor] {
            assert_eq!(fs::read_to_string(group.join("tasks")).unwrap(), "77\n");
        }
        groups
            .change(&wanted(json!({"memBwSchema": "MB:0=10"})))
            .unwrap();
        assert!(
            fs::read_to_string(there.join("schemata"))
                .unwrap()
                .starts_with("MB:0=10\n")
        );
        fs::remove_file(monitor.join("tasks")).unwrap();
        groups.remove();
        assert!(!monitor.exists() && there.exists());
        // Without a name it is called as the container, and its own.
        let groups = Groups::make_in(root.path(), &wanted(json!({})), "c").unwrap();
        assert!(groups.own && root.path().join("c").exists());
        let text = serde_json::to_string(&groups).unwrap();
        assert_eq!(serde_json::from_str::<Groups>(&text).unwrap(), groups);
        groups.remove();
        // A class that could not be given its shares is not left behind.
        let want = wanted(json!({"closID": "new", "l3CacheSchema": "L3:0=f"}));
        assert!(Groups::make_in(root.path(), &want, "c").is_err());
        assert!(!root.path().join("new").exists() && !root.path().join("c").exists());
    }
}
