//! The lives of containers through `rcon oci`, crun and runc, command by command, beside one another (see `peers`).

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::lab::bundle::Bundle;
use crate::lab::net::accept_local;
use crate::lab::program::Running;
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};
use crate::peers::table::{Table, with_tables};
use crate::peers::view::normal;

scenarios!(lives, terminals, hooks);

/// The commands of a life, and what is asked at the wrong time.
const LIFE: [&str; 45] = [
    "state c",
    "start c",
    "kill c KILL",
    "delete c",
    "delete --force c",
    "exec c true",
    "create --pid-file pid c",
    "state c",
    "create c",
    "start c",
    "state c",
    "start c",
    "exec c sh -c 'exit 3'",
    "exec c sh -c 'kill -9 $$'",
    "exec c no-such-program",
    "exec c /etc/passwd",
    "exec --cwd /data --env A=b c sh -c 'pwd; echo $A'",
    "exec --user 0:0 c id",
    "exec --detach --pid-file exec.pid c sleep 900",
    "ps --format json c",
    "list -q",
    "delete c",
    "kill c USR1",
    "kill c NOSUCH",
    "kill c 99",
    "wait",
    "state c",
    "kill c KILL",
    "exec c true",
    "start c",
    "list -q",
    "delete c",
    "state c",
    "list -q",
    // Not yet started.
    "create c",
    "exec c true",
    "kill c KILL",
    "delete --force c",
    "list -q",
    "create c",
    "delete --force c",
    "list -q",
    "run -d c",
    "delete --force c",
    "list -q",
];

fn lives(t: &mut Rcon) {
    with_tables(t, |table| {
        table
            .b
            .args(&["sleep", "1000"])
            .set("/annotations/org.example.key", json!("value"));
        table.b.write();
        let mut all = Vec::new();
        for peer in table.peers.clone() {
            let mut lines = Vec::new();
            let mut said = String::new();
            for (step, words) in LIFE.into_iter().enumerate() {
                if words == "wait" {
                    table.to_end(peer, &["kill", "c", "KILL"]).code(0);
                    eventually("it stops", 20, || {
                        table
                            .to_end(peer, &["state", "c"])
                            .stdout
                            .contains("stopped")
                            .then_some(())
                    });
                    continue;
                }
                let split = split(words);
                let split: Vec<&str> = split.iter().map(String::as_str).collect();
                let out = table.to_end(peer, &split);
                lines.push(format!("{step} {words}: {}", out.code));
                let more = match split[0] {
                    "state" => state(&out.stdout, &table.id),
                    "ps" => vec![format!("{} processes", out.stdout.split(',').count())],
                    _ => normal(&out.stdout, &table.b.dir, &table.id),
                };
                let more = more.iter().map(|line| format!("{step} {words}: {line}"));
                lines.extend(more);
                said += &format!("{words}: {}\n", out.stderr.trim());
            }
            all.push((peer, lines, said));
        }
        table.compare("life", &all);
    });
}

/// The words of a line, of which some are in single quotes.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        match at % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// What `state` tells of a container, but for what is another for each runtime and each time.
fn state(text: &str, id: &str) -> Vec<String> {
    let told: Value = serde_json::from_str(&text.replace(id, "ID")).unwrap_or_default();
    let keep = ["id", "status", "annotations"];
    let mut lines: Vec<String> = keep
        .iter()
        .map(|key| format!("{key} {}", told[key]))
        .collect();
    lines.push(format!(
        "a pid: {}",
        told["pid"].as_i64().is_some_and(|pid| pid > 0)
    ));
    lines.push(format!("a bundle: {}", told["bundle"].is_string()));
    lines
}

fn terminals(t: &mut Rcon) {
    with_tables(t, |table| {
        table
            .b
            .script("tty; stty size; ls -l /dev/console | cut -c1; test -t 0 && test -t 1 && test -t 2 && echo all; read line; echo \"got $line\"; exit 4")
            .set("/process/terminal", json!(true))
            .set("/process/consoleSize", json!({"height": 31, "width": 77}));
        table.b.write();
        let mut all = Vec::new();
        for peer in table.peers.clone() {
            let path = table.b.dir.join("socket");
            let listener = UnixListener::bind(&path).unwrap();
            if !table.root {
                chown(&path, Some(table.t.user.uid), Some(table.t.user.gid)).unwrap();
            }
            let create = Running::start(
                table.command(peer, &["create", "--console-socket", "socket", "c"]),
                Stdio::null(),
            );
            let stream = accept_local(&listener);
            let mut name = [0; 4096];
            let (_, fds) = rcon_sys::fdpass::recv_fds(&stream, &mut name).unwrap();
            let mut master: fs::File = fds.into_iter().next().expect("a terminal").into();
            create.wait().code(0);
            let mut lines = vec![format!(
                "start: {}",
                table.to_end(peer, &["start", "c"]).code
            )];
            std::io::Write::write_all(&mut master, b"hello\n").unwrap();
            let mut text = String::new();
            let mut buffer = [0; 1024];
            // The end of a terminal is an error.
            while let Ok(count @ 1..) = master.read(&mut buffer) {
                text += &String::from_utf8_lossy(&buffer[..count]);
            }
            // What was typed shows whenever it was typed.
            lines.extend(
                text.lines()
                    .filter(|line| *line != "hello")
                    .map(str::to_owned),
            );
            lines.push(format!(
                "delete: {}",
                table.to_end(peer, &["delete", "--force", "c"]).code
            ));
            fs::remove_file(&path).unwrap();
            all.push((peer, lines, String::new()));
        }
        table.compare("terminal", &all);
        // A terminal and a socket go together.
        let create = |table: &Table<'_>, words: &[&str]| {
            let one = |peer: &&'static str| {
                let code = table.to_end(peer, words).code;
                table.to_end(peer, &["delete", "--force", "c"]);
                (*peer, vec![format!("exit code {code}")], String::new())
            };
            table.peers.iter().map(one).collect::<Vec<_>>()
        };
        let codes = create(table, &["create", "c"]);
        table.compare("a terminal without a socket", &codes);
        table.b.set("/process/terminal", json!(false)).write();
        let codes = create(table, &["create", "--console-socket", "nowhere", "c"]);
        table.compare("a socket without a terminal", &codes);
    });
}

fn hooks(t: &mut Rcon) {
    with_tables(t, |table| {
        let b = &mut table.b;
        let log = b.dir.join("log");
        for name in [
            "prestart",
            "createRuntime",
            "createContainer",
            "poststart",
            "poststop",
        ] {
            let script = b.host_script(
                name,
                &format!(
                    "printf '%s %s %s %s ' {name} \"$0\" \"$1\" \"$KEY\" >>{log}; \
                     readlink /proc/self/ns/mnt | tr '\\n' ' ' >>{log}; tr -d '\\n' >>{log}; echo >>{log}",
                    log = log.display()
                ),
            );
            let hook = json!({"path": script, "args": [name, "first"], "env": ["KEY=value", "PATH=/usr/bin:/bin"]});
            b.set(&format!("/hooks/{name}"), json!([hook]));
        }
        let inside = b.dir.join("rootfs/hook");
        fs::write(
            &inside,
            "#!/bin/sh\n(tr -d '\\n'; echo; hostname; pwd) >/data/seen\n",
        )
        .unwrap();
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).unwrap();
        b.set(
            "/hooks/startContainer",
            json!([{"path": "/hook", "env": ["PATH=/bin"]}]),
        );
        b.script("cat /data/seen; echo ran")
            .set("/annotations/k", json!("v"));
        b.write();
        let mut all = Vec::new();
        for peer in table.peers.clone() {
            fs::write(&log, "").unwrap();
            if !table.root {
                chown(&log, Some(table.t.user.uid), Some(table.t.user.gid)).unwrap();
                chown(&table.b.dir, Some(table.t.user.uid), Some(table.t.user.gid)).unwrap();
            }
            let out = table.to_end(peer, &["run", "c"]);
            let text = fs::read_to_string(&log).unwrap();
            let mut lines: Vec<String> =
                text.lines().map(|line| hook_line(line, &table.b)).collect();
            for line in out.stdout.lines() {
                lines.push(match line.starts_with('{') {
                    true => format!("startContainer {}", told(line)),
                    false => line.to_owned(),
                });
            }
            lines.push(format!("exit code {}", out.code));
            all.push((peer, lines, out.stderr));
        }
        table.compare("hooks", &all);
    });
}

/// A line of the log: which hook, how it was called, and what it was told; in whose mounts is left out.
fn hook_line(line: &str, b: &Bundle) -> String {
    let fields: Vec<&str> = line.splitn(6, ' ').collect();
    let [name, zeroth, first, key, _mounts, state] = fields[..] else {
        return format!("odd: {line}");
    };
    let zeroth = zeroth.replace(b.dir.to_str().unwrap(), "BUNDLE");
    format!("{name} as {zeroth} {first} {key} {}", told(state))
}

/// The state that a hook was told.
fn told(text: &str) -> String {
    let told: Value = serde_json::from_str(text).unwrap_or_default();
    format!(
        "id {} status {} bundle {} annotations {}",
        told["id"].is_string(),
        told["status"],
        told["bundle"].is_string(),
        told["annotations"]
    )
}
