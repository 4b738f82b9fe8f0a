//! Finds what a scenario left behind: processes, mounts, sockets, files.
//!
//! Everything of a scenario lies under one folder, so whatever mentions that folder is its: the path of a
//! program, an open file, a command line, an environment, a root file system.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// The processes that have to do with `dir`.
pub fn process_ids(dir: &Path) -> Vec<i32> {
    let needle = dir.to_str().unwrap();
    let Ok(table) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    table
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid: &i32| pid != std::process::id().cast_signed() && concerns(pid, needle))
        .collect()
}

/// Ends them all at once, and waits until they are gone.
pub fn kill_all(dir: &Path) {
    super::eventually("all are dead", 20, || {
        let left = process_ids(dir);
        for pid in &left {
            let pid = nix::unistd::Pid::from_raw(*pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        left.is_empty().then_some(())
    });
}

/// The same, described.
pub fn processes(dir: &Path) -> Vec<String> {
    process_ids(dir)
        .into_iter()
        .map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let field = |name: &str| {
                status
                    .lines()
                    .find(|l| l.starts_with(name))
                    .unwrap_or("")
                    .replace('\t', " ")
            };
            format!("{pid} {line} ({}, {})", field("Name:"), field("State:"))
        })
        .collect()
}

fn concerns(pid: i32, needle: &str) -> bool {
    // A path is mentioned when it is followed by its end or by something below it, not by more digits.
    let mentions = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.match_indices(needle)
            .any(|(at, _)| !text[at + needle.len()..].starts_with(|c: char| c.is_ascii_digit()))
    };
    // The path may begin below where its file system is mounted.
    let tail = &needle[needle[..needle.rfind('/').unwrap()].rfind('/').unwrap()..];
    let mentions_tail = |path: &str| path.contains(&format!("{tail}/"));
    let link = |name: &str| {
        fs::read_link(format!("/proc/{pid}/{name}"))
            .is_ok_and(|p| mentions(p.as_os_str().as_encoded_bytes()))
    };
    let file = |name: &str| fs::read(format!("/proc/{pid}/{name}")).is_ok_and(|b| mentions(&b));
    // A container has files of its runtime folder mounted over some of its own (the fourth field is the path in
    // the file system they come from). A mount point that is the scenario's says nothing: every copy of the
    // machine's mounts has it.
    let own_mounts = || {
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        table.lines().any(|line| {
            let mut fields = line.split(' ').skip(3);
            let (from, at) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
            mentions_tail(from) && !mentions_tail(at)
        })
    };
    link("exe")
        || link("cwd")
        || link("root")
        || file("cmdline")
        || file("environ")
        || own_mounts()
        || fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
            fds.filter_map(Result::ok).any(|fd| {
                fs::read_link(fd.path()).is_ok_and(|p| mentions(p.as_os_str().as_encoded_bytes()))
            })
        })
}

/// The namespaces a process is in.
pub fn namespaces_of(pid: i32) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{pid}/ns"))
        .into_iter()
        .flatten()
        .flatten();
    links
        .filter_map(|link| Some(fs::read_link(link.path()).ok()?.to_str()?.to_owned()))
        .collect()
}

/// Who is in one of these namespaces, or has one open. Their numbers are given anew: what is another scenario's (of those
/// whose folders are beside `dir`) is none of ours.
pub fn in_namespaces(dir: &Path, namespaces: &[String]) -> Vec<String> {
    let others = dir.parent().unwrap().to_str().unwrap();
    let (ours, own) = (dir.to_str().unwrap(), std::process::id().cast_signed());
    let table = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = table.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own)
        .filter(|pid| {
            let mut held = namespaces_of(*pid);
            let files = fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .flatten();
            held.extend(
                files.filter_map(|fd| Some(fs::read_link(fd.path()).ok()?.to_str()?.to_owned())),
            );
            held.iter().any(|name| namespaces.contains(name))
        })
        .filter(|pid| concerns(*pid, ours) || !concerns(*pid, others))
        .map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!(
                "{pid} {} in a namespace of a container that is gone",
                name.trim()
            )
        })
        .collect()
}

/// Files and folders under `dir` that somebody has locked (flock(2)).
pub fn locks(dir: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let locked: Vec<u64> = fs::read_to_string("/proc/locks")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            // 1: FLOCK ADVISORY WRITE 123 00:1f:4567 0 EOF (who waits for it: 1: -> FLOCK ...)
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            let place = words.get(5).filter(|_| words[1] == "FLOCK")?;
            place.rsplit(':').next()?.parse().ok()
        })
        .collect();
    let mut found = Vec::new();
    walk(dir, &mut |path, _| {
        if fs::symlink_metadata(path).is_ok_and(|meta| locked.contains(&meta.ino())) {
            found.push(format!("{} is locked", path.display()));
        }
    });
    found
}

/// What is half written: files that were to replace others.
pub fn half_written(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    walk(dir, &mut |path, kind| {
        if kind.is_file() && path.extension().is_some_and(|end| end == "new") {
            found.push(path.display().to_string());
        }
    });
    found
}

/// The mounts under `dir` that this process sees.
pub fn mounts(dir: &Path) -> Vec<String> {
    let prefix = format!("{}/", dir.display());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter(|line| {
            line.split(' ')
                .nth(4)
                .is_some_and(|p| p.starts_with(&prefix))
        })
        .map(str::to_owned)
        .collect()
}

/// All files (not folders) under `dir`.
pub fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    walk(dir, &mut |path, kind| {
        if !kind.is_dir() {
            found.push(path.display().to_string());
        }
    });
    found
}

/// What is under the runtime folder and is neither a folder nor an empty file (a lock) nor a credential nor the log of events.
pub fn runtime_files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    walk(dir, &mut |path, kind| {
        let empty = kind.is_file() && fs::metadata(path).is_ok_and(|m| m.len() == 0);
        let kept = path.ends_with("containers/auth.json") || path.ends_with("rcon/events.log");
        if !kind.is_dir() && !empty && !kept || kind.is_socket() {
            found.push(path.display().to_string());
        }
    });
    found
}

/// What an emptied store still holds.
pub fn stored(root: &Path) -> Vec<String> {
    let parts = [
        "containers",
        "container-names",
        "snapshots",
        "images",
        "names",
        "layers",
        "tmp",
        "volumes",
    ];
    let mut found = Vec::new();
    for part in parts {
        walk(&root.join(part), &mut |path, kind| {
            let empty = kind.is_file() && fs::metadata(path).is_ok_and(|m| m.len() == 0);
            // The folders that sort layers by mapping may stay.
            let sorting = kind.is_dir()
                && path
                    .strip_prefix(root)
                    .is_ok_and(|p| p.components().count() <= 2)
                && part == "layers";
            if !empty && !sorting {
                found.push(path.display().to_string());
            }
        });
    }
    found
}

fn walk(dir: &Path, visit: &mut dyn FnMut(&Path, fs::FileType)) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        visit(&entry.path(), kind);
        if kind.is_dir() {
            walk(&entry.path(), visit);
        }
    }
}
