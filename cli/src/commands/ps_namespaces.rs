//! `rcon ps --ns`: the numbers of the namespaces that containers are in.

use serde_json::{Map, Value};

use crate::output::table::Table;

/// The column, the key of the object, the name in /proc.
const KINDS: [(&str, &str, &str); 7] = [
    ("CGROUPNS", "Cgroup", "cgroup"),
    ("IPC", "Ipc", "ipc"),
    ("MNT", "Mnt", "mnt"),
    ("NET", "Net", "net"),
    ("PIDNS", "Pidns", "pid"),
    ("USERNS", "User", "user"),
    ("UTS", "Uts", "uts"),
];

/// The number of a namespace; empty where there is no process or it does not let itself be looked at.
fn number(pid: i32, name: &str) -> String {
    if pid == 0 {
        return String::new();
    }
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap_or_default();
    let text = link.to_string_lossy();
    text.chars().filter(char::is_ascii_digit).collect()
}

/// Id, name and process of each container, with its namespaces.
pub fn table(rows: impl Iterator<Item = (String, String, i32)>, heading: bool) -> String {
    let mut table = Table::new();
    if heading {
        let first = ["CONTAINER ID", "NAMES", "PID"];
        table.row(first.into_iter().chain(KINDS.map(|kind| kind.0)));
    }
    for (id, name, pid) in rows {
        let kinds = KINDS.map(|kind| number(pid, kind.2));
        table.row([id, name, pid.to_string()].into_iter().chain(kinds));
    }
    table.render()
}

/// As `--format json` has them.
pub fn object(pid: i32) -> Value {
    let mut map = Map::new();
    for (_, key, name) in KINDS {
        let number = number(pid, name);
        if !number.is_empty() {
            map.insert(key.into(), number.into());
        }
    }
    Value::Object(map)
}

/// For templates: by the columns' names too.
pub fn add(row: &mut Value, pid: i32) {
    for (column, _, name) in KINDS {
        row[column] = number(pid, name).into();
    }
    row["Namespaces"] = object(pid);
}
