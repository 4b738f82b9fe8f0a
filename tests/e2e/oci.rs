//! `rcon oci`: the commands of an OCI runtime, on bundles.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::lab::bundle::Bundle;
use crate::lab::net::accept_local;
use crate::lab::program::Running;
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};
use crate::terminal::{FLOOD, paste_into_a_flood};

scenarios!(
    a_life_in_commands,
    exit_codes,
    states_are_kept_apart,
    terminal_by_socket,
    terminal_in_the_foreground,
    a_paste_into_a_flood,
    files_and_descriptors,
    hooks_in_their_places,
    failing_hooks,
    what_else_it_says,
    by_another_name,
    ids_are_names,
);

fn a_life_in_commands(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.args(&["sleep", "1000"])
        .set("/annotations/org.example.key", json!("value"));
    b.write();
    b.oci(t, &["create", "--pid-file", "pid", "c"])
        .quiet()
        .prints("");
    let state = b.state(t);
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], "c");
    assert_eq!(state["bundle"], b.dir.to_str().unwrap());
    assert_eq!(state["annotations"]["org.example.key"], "value");
    let pid = fs::read_to_string(b.dir.join("pid")).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    // It is set up, and its program is not there yet.
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    assert_ne!(name(&pid), "sleep\n");
    b.oci(t, &["create", "c"])
        .code(1)
        .says("container with id exists: c");

    // What becomes of the specification after that is nothing to the container.
    fs::write(b.dir.join("config.json"), "{}").unwrap();
    b.oci(t, &["start", "c"]).quiet().prints("");
    b.write();
    assert_eq!(b.state(t)["status"], "running");
    assert_eq!(name(&pid), "sleep\n");
    b.oci(t, &["start", "c"])
        .code(1)
        .says("cannot start a container in the running state");
    b.oci(t, &["exec", "c", "sh", "-c", "echo $$; hostname; exit 3"])
        .code(3)
        .shows("bundled\n");
    b.oci(t, &["ps", "--format", "json", "c"])
        .prints(&format!("[{pid}]\n"));
    b.oci(t, &["ps", "c"]).shows("sleep 1000");
    let list: Value = serde_json::from_str(b.oci(t, &["list", "--format", "json"]).ok()).unwrap();
    assert_eq!(
        (&list[0]["id"], &list[0]["status"]),
        (&json!("c"), &json!("running"))
    );
    b.oci(t, &["list", "-q"]).prints("c\n");
    b.oci(t, &["list"]).shows("ID   PID").shows("running");
    b.oci(t, &["delete", "c"])
        .code(1)
        .says("cannot delete container c that is not stopped: running");

    b.oci(t, &["kill", "c", "0"]).code(0);
    b.oci(t, &["kill", "c", "KILL"]).quiet().prints("");
    eventually("the container stops", 20, || {
        (b.state(t)["status"] == "stopped").then_some(())
    });
    assert_eq!(b.state(t)["pid"], 0);
    b.oci(t, &["kill", "c", "KILL"])
        .code(1)
        .says("container not running");
    b.oci(t, &["exec", "c", "true"])
        .code(255)
        .says("stopped container");
    b.oci(t, &["start", "c"]).code(1).says("stopped");
    b.oci(t, &["delete", "c"]).quiet().prints("");
    b.oci(t, &["state", "c"])
        .code(1)
        .says("container \"c\" does not exist");
    b.oci(t, &["delete", "c"]).code(1).says("does not exist");
    b.oci(t, &["delete", "--force", "c"]).quiet().prints("");
    // Running or not yet started: by force both go.
    for start in [true, false] {
        b.oci(t, &["create", "c"]).code(0);
        if start {
            b.oci(t, &["start", "c"]).code(0);
        }
        b.oci(t, &["delete", "--force", "c"]).code(0);
        b.oci(t, &["list", "-q"]).prints("");
    }
    assert_eq!(fs::read_dir(b.dir.join("state")).unwrap().count(), 0);
}

fn exit_codes(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.script("echo out; echo err >&2; exit 7");
    let out = b.run(t);
    out.code(7).shows("out\n").says("err\n");
    // The first process of a namespace does not hear signals of its own.
    b.script("sh -c 'kill -9 $$'; exit $?").run(t).code(137);
    b.args(&["no-such-program"]);
    b.run(t)
        .code(1)
        .says("executable file `no-such-program` not found in $PATH");
    b.args(&["/etc/passwd"])
        .run(t)
        .code(1)
        .says("open executable `/etc/passwd`: Permission denied");
    // The same at the two times that engines see.
    b.write();
    b.oci(t, &["create", "c"]).code(1).says("Permission denied");
    fs::write(b.dir.join("rootfs/bin/lost"), "#!/nothing\n").unwrap();
    fs::set_permissions(
        b.dir.join("rootfs/bin/lost"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    b.args(&["/bin/lost"]).write();
    b.oci(t, &["create", "c"]).code(0);
    b.oci(t, &["start", "c"])
        .code(1)
        .says("open executable `/bin/lost`: No such file");
    b.oci(t, &["delete", "c"]).code(0);
    b.oci(t, &["list", "-q"]).prints("");
    b.script("exit 0").run(t).code(0).quiet();
}

fn states_are_kept_apart(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.args(&["sleep", "1000"]).write();
    let other = b.dir.join("elsewhere");
    let other = other.to_str().unwrap();
    b.oci(t, &["run", "-d", "one"]).code(0);
    let elsewhere = |words: &[&str]| {
        let mut all = vec!["oci", "--root", other];
        all.extend(words);
        t.run(&all)
    };
    elsewhere(&["list", "-q"]).prints("");
    elsewhere(&["state", "one"]).code(1).says("does not exist");
    let log = b.dir.join("log");
    let log_path = log.to_str().unwrap();
    t.run(&[
        "oci",
        "--root",
        other,
        "--log",
        log_path,
        "--log-format",
        "json",
        "state",
        "x",
    ])
    .code(1);
    let line: Value = serde_json::from_str(fs::read_to_string(&log).unwrap().trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "container \"x\" does not exist");
    // Without --root: in the user's own runtime folder.
    t.run(&["oci", "list", "-q"]).prints("");
    b.oci(t, &["delete", "-f", "one"]).code(0);
}

/// What comes through a listening socket at its first connection: bytes and one file.
fn receive(listener: &UnixListener) -> (Vec<u8>, fs::File) {
    let stream = accept_local(listener);
    let mut data = vec![0; 64 * 1024];
    let (length, fds) = rcon_sys::fdpass::recv_fds(&stream, &mut data).unwrap();
    data.truncate(length);
    (data, fds.into_iter().next().expect("a file").into())
}

/// A socket in the bundle's folder that its owner can connect to.
fn listen(t: &Rcon, b: &Bundle) -> UnixListener {
    let path = b.dir.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    chown(&path, Some(t.user.uid), Some(t.user.gid)).unwrap();
    listener
}

fn terminal_by_socket(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.script("stty size; tty; read line; echo got $line; exit 4")
        .set("/process/terminal", json!(true))
        .set("/process/consoleSize", json!({"height": 31, "width": 77}));
    b.write();
    let listener = listen(t, &b);
    let create = Running::start(
        b.command(t, &["create", "--console-socket", "socket", "c"]),
        Stdio::null(),
    );
    let (name, mut master) = receive(&listener);
    create.wait().code(0).quiet();
    assert_eq!(name, b"/dev/ptmx");
    b.oci(t, &["start", "c"]).code(0);
    master.write_all(b"hello\n").unwrap();
    let mut text = String::new();
    let mut buffer = [0; 1024];
    // The end of a terminal is an error.
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        text += &String::from_utf8_lossy(&buffer[..count]);
        if text.contains("got hello") {
            break;
        }
    }
    assert!(
        text.contains("31 77") && text.contains("/dev/pts/0"),
        "{text:?}"
    );
    assert!(text.contains("got hello"), "{text:?}");
    b.oci(t, &["delete", "-f", "c"]).code(0);
    // A terminal and a socket go together.
    b.oci(t, &["create", "c"])
        .code(1)
        .says("without a console socket");
    b.set("/process/terminal", json!(false)).write();
    b.oci(t, &["create", "--console-socket", "socket", "c"])
        .code(1)
        .says("without a terminal");
    b.oci(t, &["list", "-q"]).prints("");
}

fn terminal_in_the_foreground(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.script("tty; stty size; read line; echo \"<$line>\"; exit 5")
        .set("/process/terminal", json!(true));
    b.write();
    let state = b.dir.join("state");
    let bundle = b.dir.to_str().unwrap();
    let words = [
        "oci",
        "--root",
        state.to_str().unwrap(),
        "run",
        "--bundle",
        bundle,
        "c",
    ];
    let mut terminal = t.terminal(&words);
    terminal.expect("/dev/pts/0");
    terminal.expect("24 80");
    terminal.send("word\r");
    terminal.expect("<word>");
    assert_eq!(terminal.wait(), 5, "{}", terminal.story());
    b.oci(t, &["list", "-q"]).prints("");
}

/// What is typed and what is shown go their ways, also where each is more than anything on the way has room for.
fn a_paste_into_a_flood(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.script(FLOOD).set("/process/terminal", json!(true));
    b.write();
    let state = b.dir.join("state");
    let bundle = b.dir.to_str().unwrap();
    let root = state.to_str().unwrap();
    let words = ["oci", "--root", root, "run", "--bundle", bundle, "c"];
    paste_into_a_flood(&mut t.terminal(&words));
    b.script("sleep 1000")
        .set("/process/terminal", json!(false));
    b.write();
    b.oci(t, &["run", "-d", "c"]).code(0);
    let words = ["oci", "--root", root, "exec", "-t", "c", "sh", "-c", FLOOD];
    paste_into_a_flood(&mut t.terminal(&words));
    b.oci(t, &["delete", "-f", "c"]).code(0);
}

fn files_and_descriptors(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    let shown = "for fd in /proc/self/fd/*; do test -e $fd && echo ${fd##*/}; done; true";
    assert_eq!(b.sh(t, shown), "0\n1\n2");
    b.script("cat <&3; cat <&4 2>&1; for fd in /proc/self/fd/*; do test -e $fd && echo ${fd##*/}; done; true").write();
    fs::write(b.dir.join("three"), "three\n").unwrap();
    let state = b.dir.join("state");
    let script = format!(
        "cd {}; exec 3<three 4<three 5<three; exec {} oci --root {} run --preserve-fds 2 c",
        b.dir.display(),
        t.program.display(),
        state.display()
    );
    let words = ["sh", "-c", &script].map(str::to_owned);
    Running::start(t.command_of(&words), Stdio::null())
        .wait()
        .prints("three\nthree\n0\n1\n2\n3\n4\n");
    b.oci(t, &["run", "--preserve-fds", "9", "c"])
        .code(1)
        .says("--preserve-fds");
    b.oci(t, &["list", "-q"]).prints("");
    // A container that waits holds nothing of its creator: its lock is free, its output ends.
    b.script("true").write();
    b.oci(t, &["create", "c"]).code(0);
    let pid = b.state(t)["pid"].to_string();
    let held = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    assert!(held <= 16, "{held} descriptors");
    b.oci(t, &["delete", "-f", "c"]).code(0);
}

fn hooks_in_their_places(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    let log = b.dir.join("log");
    let note = |b: &Bundle, name: &str| {
        let text = format!(
            "printf '%s %s %s ' {name} \"$1\" \"$KEY\" >>{log}; tr -d '\\n' >>{log}; echo >>{log}; \
             readlink /proc/self/ns/mnt >{log}.{name}",
            log = log.display()
        );
        let path = b.host_script(name, &text);
        json!({"path": path, "args": [name, "first"], "env": ["KEY=value", "PATH=/usr/bin:/bin"], "timeout": 60})
    };
    fs::write(&log, "").unwrap();
    chown(&log, Some(t.user.uid), Some(t.user.gid)).unwrap();
    chown(&b.dir, Some(t.user.uid), Some(t.user.gid)).unwrap();
    for name in [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ] {
        let hook = note(&b, name);
        b.set(&format!("/hooks/{name}"), json!([hook]));
    }
    // Its path, and all it does, is the container's.
    let inside = b.dir.join("rootfs/hook");
    fs::write(&inside, "#!/bin/sh\n(cat; echo; hostname) >/data/seen\n").unwrap();
    fs::set_permissions(&inside, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    b.set("/hooks/startContainer", json!([{"path": "/hook"}]));
    b.script("cat /data/seen")
        .set("/annotations/k", json!("v"))
        .write();
    let words = |log: &std::path::Path| {
        let text = fs::read_to_string(log).unwrap();
        let line = |line: &str| {
            let mut fields = line.splitn(4, ' ');
            let (name, arg, key) = (fields.next()?, fields.next()?, fields.next()?);
            let state: Value = serde_json::from_str(fields.next()?).ok()?;
            assert_eq!((arg, key), ("first", "value"));
            Some((name.to_owned(), state))
        };
        text.lines().filter_map(line).collect::<Vec<_>>()
    };
    b.oci(t, &["create", "c"]).code(0);
    let pid = b.state(t)["pid"].clone();
    let created = words(&log);
    let names: Vec<_> = created.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["prestart", "createRuntime", "createContainer"]);
    for (name, state) in &created {
        assert_eq!(state["status"], "creating", "{name}");
        assert_eq!(
            (&state["id"], &state["annotations"]["k"]),
            (&json!("c"), &json!("v"))
        );
        assert_eq!(state["bundle"], b.dir.to_str().unwrap());
        let seen = if name == "createContainer" {
            &json!(1)
        } else {
            &pid
        };
        assert_eq!(&state["pid"], seen, "{name}");
    }
    let namespace = |name: &str| fs::read_to_string(format!("{}.{name}", log.display())).unwrap();
    assert_eq!(namespace("prestart"), namespace("createRuntime"));
    assert_ne!(namespace("createContainer"), namespace("createRuntime"));
    b.oci(t, &["start", "c"]).code(0);
    let seen = b.dir.join("rootfs/data/seen");
    let seen = fs::read_to_string(seen).unwrap();
    assert!(
        seen.contains("\"status\":\"created\"") && seen.contains("bundled"),
        "{seen}"
    );
    assert_eq!(words(&log).last().unwrap().0, "poststart");
    assert_eq!(words(&log).last().unwrap().1["status"], "running");
    b.oci(t, &["delete", "-f", "c"]).code(0);
    assert_eq!(words(&log).last().unwrap().0, "poststop");
    assert_eq!(words(&log).last().unwrap().1["status"], "stopped");
    // All at once.
    fs::write(&log, "").unwrap();
    b.oci(t, &["run", "c"]).code(0).shows("bundled");
    assert_eq!(words(&log).len(), 5);
}

fn failing_hooks(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    let fail = b.host_script("fail", "exit 3");
    let slow = b.host_script("slow", "exec sleep 600");
    let last = b.host_script("last", "echo gone");
    b.script("echo ran");
    for name in ["prestart", "createRuntime", "createContainer"] {
        b.set("/hooks", json!({"poststop": [{"path": last}]}));
        b.set(&format!("/hooks/{name}"), json!([{"path": fail}]));
        // Nothing is left, and the last hooks are told of it.
        b.run(t)
            .code(1)
            .shows("gone\n")
            .says(&format!("{name} hook {fail}: it ended with code 3"));
        b.oci(t, &["list", "-q"]).prints("");
    }
    b.set(
        "/hooks",
        json!({"startContainer": [{"path": "/bin/false"}]}),
    );
    b.run(t)
        .code(1)
        .says("startContainer hook /bin/false: it ended with code 1");
    b.set(
        "/hooks",
        json!({"createRuntime": [{"path": slow, "timeout": 1}]}),
    );
    b.run(t).code(1).says("it did not end within 1 s");
    b.set(
        "/hooks",
        json!({"createRuntime": [{"path": "/no/such/hook"}]}),
    );
    b.run(t)
        .code(1)
        .says("/no/such/hook: No such file or directory");
    b.set("/hooks", json!({"createRuntime": [{"path": "relative"}]}));
    b.run(t).code(1).says("not absolute");
    b.set(
        "/hooks",
        json!({"createRuntime": [{"path": last, "timeout": 0}]}),
    );
    b.run(t).code(1).says("timeout");
    // Too late to give up: the rest is done, and it is said.
    b.set(
        "/hooks",
        json!({"poststart": [{"path": fail}], "poststop": [{"path": fail}]}),
    );
    b.run(t).code(0).shows("ran\n").says("poststop hook");
    b.oci(t, &["list", "-q"]).prints("");
}

fn what_else_it_says(t: &mut Rcon) {
    let version = t.run(&["oci", "--version"]);
    version
        .code(0)
        .shows("rcon-oci version ")
        .shows("spec: 1.3.0");
    t.run(&["oci", "--help"])
        .code(0)
        .shows("create")
        .shows("--systemd-cgroup");
    t.run(&["oci"]).code(0).shows("Commands:");
    t.run(&["oci", "create", "--help"])
        .code(0)
        .shows("--console-socket");
    let features: Value = serde_json::from_str(t.run(&["oci", "features"]).ok()).unwrap();
    assert_eq!(features["ociVersionMax"], "1.3.0");
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    assert!(
        features["linux"]["capabilities"]
            .as_array()
            .unwrap()
            .contains(&json!("CAP_BPF"))
    );
    assert!(
        features["mountOptions"]
            .as_array()
            .unwrap()
            .contains(&json!("rnosuid"))
    );
    // What the specification of features has (features.md, features-linux.md), each said.
    for pointer in [
        "/ociVersionMin",
        "/linux/namespaces/7",
        "/linux/cgroup/v1",
        "/linux/cgroup/v2",
        "/linux/cgroup/systemd",
        "/linux/cgroup/systemdUser",
        "/linux/cgroup/rdma",
        "/linux/seccomp/enabled",
        "/linux/seccomp/actions/8",
        "/linux/seccomp/operators/6",
        "/linux/seccomp/archs/0",
        "/linux/seccomp/knownFlags/3",
        "/linux/seccomp/supportedFlags/3",
        "/linux/apparmor/enabled",
        "/linux/selinux/enabled",
        "/linux/intelRdt/enabled",
        "/linux/memoryPolicy/modes/6",
        "/linux/memoryPolicy/flags/2",
        "/linux/mountExtensions/idmap/enabled",
        "/linux/netDevices/enabled",
        "/potentiallyUnsafeConfigAnnotations",
        "/annotations",
    ] {
        assert!(features.pointer(pointer).is_some(), "{pointer}: {features}");
    }
    t.run(&["oci", "nope"])
        .code(1)
        .says("no such command: nope");
    t.run(&["oci", "checkpoint", "x"])
        .code(1)
        .says("does not have the command");
    t.run(&["oci", "--nope", "list"])
        .code(1)
        .says("unknown flag: --nope");
    t.run(&["oci", "--root"]).code(1).says("needs an argument");
    t.run(&["oci", "create", "--nope", "x"])
        .code(1)
        .says("--nope");
    t.run(&["oci", "create", "--no-pivot", "x"])
        .code(1)
        .says("not supported");
    // A specification to begin with is one that runs.
    let mut b = Bundle::of_user(t, "b");
    let out = b.oci(t, &["spec", "--rootless"]);
    out.code(0).quiet();
    b.oci(t, &["spec", "--rootless"])
        .code(1)
        .says("file exists");
    let text = fs::read_to_string(b.dir.join("config.json")).unwrap();
    b.spec = serde_json::from_str(&text).unwrap();
    b.set("/process/terminal", json!(false))
        .script("hostname; id -u");
    b.run(t).prints("rcon\n0\n");
    fs::remove_file(b.dir.join("config.json")).unwrap();
    b.oci(t, &["create", "x"])
        .code(1)
        .says("config.json: No such file");
    fs::write(b.dir.join("config.json"), "{}").unwrap();
    b.oci(t, &["create", "x"])
        .code(1)
        .says("of the specification");
    b.set("/ociVersion", json!("2.0.0"))
        .run(t)
        .code(1)
        .says("2.0.0");
    b.oci(t, &["list", "-q"]).prints("");
}

fn by_another_name(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.script("echo ran").write();
    let link = t.dir.join("bin/rcon-oci");
    symlink(&t.program, &link).unwrap();
    let run = |words: &[&str]| {
        let mut all = vec![link.to_str().unwrap().to_owned()];
        all.extend(words.iter().map(|word| (*word).to_owned()));
        Running::start(t.command_of(&all), Stdio::null()).wait()
    };
    run(&["--version"]).code(0).shows("rcon-oci version");
    let (root, bundle) = (b.dir.join("state"), b.dir.to_str().unwrap());
    run(&["--root", root.to_str().unwrap(), "run", "-b", bundle, "c"]).prints("ran\n");
}

fn ids_are_names(t: &mut Rcon) {
    let b = Bundle::of_user(t, "b");
    b.write();
    for id in ["../x", ".", "..", "a/b", "", ".hidden", "a b", "ä"] {
        for words in [
            vec!["create", id],
            vec!["state", id],
            vec!["delete", "--force", id],
        ] {
            b.oci(t, &words).code(1).says("invalid container ID format");
        }
    }
    assert!(!b.dir.join("x").exists());
    b.oci(t, &["run", "a.b_c+d-e"]).code(0);
}
