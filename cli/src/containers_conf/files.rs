//! Which files there are: the vendor's, the administrator's with its drop-ins, the user's with theirs; or the one that
//! `CONTAINERS_CONF` names; and last `CONTAINERS_CONF_OVERRIDE`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Whether nothing is said in the file but the names of tables.
pub fn is_empty(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || (line.starts_with('[') && line.ends_with(']'))
    })
}

/// The same with nothing in the lines that are comments: what distributions ship is hardly anything else, and each start of a
/// container reads it.
pub fn without_comments(text: &str) -> Cow<'_, str> {
    if text.contains("\"\"\"") || text.contains("'''") {
        // A string of several lines may hold what looks like one.
        return text.into();
    }
    let mut kept = String::with_capacity(text.len() / 4);
    for line in text.lines() {
        if !line.trim_start().starts_with('#') {
            kept.push_str(line);
        }
        kept.push('\n');
    }
    kept.into()
}

/// The files that may be there, in order, and whether they must be.
pub fn candidates() -> Vec<(PathBuf, bool)> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let mut files = Vec::new();
    match variable("CONTAINERS_CONF") {
        Some(only) => files.push((only, true)),
        None => {
            files.push(("/usr/share/containers/containers.conf".into(), false));
            let user = rcon_sys::passwd::config_dir().map(|dir| dir.join("containers"));
            for dir in [Some(PathBuf::from("/etc/containers")), user]
                .into_iter()
                .flatten()
            {
                files.push((dir.join("containers.conf"), false));
                files.extend(drop_ins(&dir.join("containers.conf.d")));
            }
        }
    }
    files.extend(variable("CONTAINERS_CONF_OVERRIDE").map(|path| (path, true)));
    files
}

fn drop_ins(dir: &Path) -> Vec<(PathBuf, bool)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "conf"))
        .collect();
    files.sort();
    files.into_iter().map(|path| (path, true)).collect()
}
