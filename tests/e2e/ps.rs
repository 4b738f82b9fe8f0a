//! `ps` and `inspect`: what there is.

use serde_json::Value;

use crate::lab::Rcon;
use crate::lab::net::free_port;
use crate::lab::scenario::scenarios;

scenarios!(
    table,
    selections,
    filters,
    formats,
    json,
    namespaces,
    watched,
    inspect_json,
    inspect_formats
);

fn table(t: &mut Rcon) {
    let out = t.run(&["ps"]);
    assert_eq!(
        out.cells(0),
        [
            "CONTAINER ID",
            "IMAGE",
            "COMMAND",
            "CREATED",
            "STATUS",
            "PORTS",
            "NAMES"
        ]
    );
    let image = t.pull("busybox");
    let port = free_port();
    let publish = format!("{port}:80");
    let id = t.sleeper("web", &["-p", &publish], &image);
    let out = t.run(&["ps"]);
    let cells = out.cells(1);
    assert_eq!(
        (cells[0], cells[1], cells[2]),
        (&id[..12], image.as_str(), "sleep 1000"),
        "{}",
        out.story()
    );
    assert!(
        cells[3].ends_with(" ago") && cells[4].starts_with("Up "),
        "{}",
        out.story()
    );
    assert_eq!(
        (cells[5], cells[6]),
        (format!("0.0.0.0:{port}->80/tcp").as_str(), "web"),
        "{}",
        out.story()
    );
}

fn namespaces(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    t.ok(&["create", "--name", "made", &image, "true"]);
    let out = t.ok(&["ps", "-a", "--ns", "--sort", "names"]);
    let words: Vec<Vec<&str>> = out
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    let titles = "CONTAINER ID NAMES PID CGROUPNS IPC MNT NET PIDNS USERNS UTS";
    assert_eq!(words[0].join(" "), titles);
    let script = "for kind in net pid; do readlink /proc/self/ns/$kind; done | tr -dc '0-9\\n'";
    let inside = t.ok(&["exec", "c", "sh", "-c", script]);
    let [net, pid] = inside.lines().collect::<Vec<_>>()[..] else {
        panic!("{inside}")
    };
    assert_eq!((words[1][6], words[1][7]), (net, pid), "{out}");
    assert_eq!(words[2][1..], ["made", "0"]);
    t.run(&[
        "ps",
        "--ns",
        "--format",
        "{{.Names}} {{.NET}} {{.Namespaces.Pidns}}",
    ])
    .prints(&format!("c {net} {pid}\n"));
    let json: Value = serde_json::from_str(&t.ok(&["ps", "--ns", "--format", "json"])).unwrap();
    assert_eq!(json[0]["Namespaces"]["Net"], net);
    t.run(&["ps", "--ns", "--size"])
        .refused(125)
        .says("namespace");
    t.run(&["ps", "--external", "--latest"]).refused(125);
    t.run(&["ps", "--sync", "-q", "--external"]).prints(
        &t.ok(&["ps", "-q"])
            .lines()
            .map(|l| format!("{l}\n"))
            .collect::<String>(),
    );
}

fn watched(t: &mut Rcon) {
    let image = t.pull("busybox");
    let mut terminal = t.terminal_of(24, 200, &["ps", "-a", "--watch", "1"]);
    terminal.expect("CONTAINER ID");
    t.ok(&["create", "--name", "new", &image, "true"]);
    terminal.expect("new");
    terminal.send("\x03");
    terminal.wait();
    // A reader that has gone ends it.
    let command = format!("{} ps --watch 1 | head -n 1", t.program.display());
    let command = t.command_of(&["sh".into(), "-c".into(), command]);
    let out = crate::lab::program::Running::start(command, std::process::Stdio::null()).wait();
    assert_eq!(out.code, 0, "{}", out.story());
    assert!(out.stderr.is_empty(), "{}", out.story());
}

fn selections(t: &mut Rcon) {
    let image = t.pull("busybox");
    let old = t.ok(&["run", "-d", "--name", "old", &image, "true"]);
    t.ok(&["wait", "old"]);
    let new = t.ok(&["run", "-d", "--name", "new", &image, "sleep", "1000"]);
    t.run(&["ps", "-q"]).prints(&format!("{}\n", &new[..12]));
    t.run(&["ps", "-q", "--no-trunc"])
        .prints(&format!("{new}\n"));
    // In the order of their making.
    t.run(&["ps", "-aq", "--no-trunc"])
        .prints(&format!("{old}\n{new}\n"));
    t.run(&["ps", "-l", "-q", "--no-trunc"])
        .prints(&format!("{new}\n"));
    t.run(&["ps", "-n", "1", "-q", "--no-trunc"])
        .prints(&format!("{new}\n"));
    t.run(&["ps", "-n", "9", "-q"])
        .prints(&format!("{}\n{}\n", &old[..12], &new[..12]));
    t.run(&["container", "ls", "-q", "--no-trunc"])
        .prints(&format!("{new}\n"));
}

fn filters(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&[
        "create", "--name", "made", "--label", "kind=x", &image, "true",
    ]);
    t.run(&[
        "run", "--name", "ended", "--label", "kind=y", &image, "sh", "-c", "exit 3",
    ])
    .code(3);
    t.ok(&["run", "-d", "--name", "runs", &image, "sleep", "1000"]);
    let names = |filter: &str| {
        let out = t.ok(&["ps", "-a", "--filter", filter, "--format", "{{.Names}}"]);
        let mut names: Vec<String> = out.lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names("status=running"), "runs");
    assert_eq!(names("status=exited"), "ended");
    assert_eq!(names("status=created"), "made");
    assert_eq!(names("exited=3"), "ended");
    assert_eq!(names("label=kind"), "ended made");
    assert_eq!(names("label=kind=x"), "made");
    assert_eq!(names("name=run"), "runs");
    assert_eq!(names(&format!("ancestor={image}")), "ended made runs");
    assert_eq!(names("label!=kind=x"), "ended runs");
    assert_eq!(names("command=sleep"), "runs");
    assert_eq!(names("until=1h"), "");
    assert_eq!(names("until=0s"), "ended made runs");
    assert_eq!(names("until=2001-01-01"), "");
    t.run(&["ps", "--filter", "nosuch=1"])
        .refused(125)
        .says("nosuch");
    // Networks are always there, and have no labels.
    for (filter, count) in [
        ("label=x", 0),
        ("label!=x", 3),
        ("dangling=true", 0),
        ("dangling=false", 3),
        ("driver=host", 1),
    ] {
        let out = t.ok(&["network", "ls", "-q", "--filter", filter]);
        assert_eq!(out.lines().count(), count, "{filter}");
    }
    t.run(&["ps", "--filter", "nonsense"])
        .refused(125)
        .says("nonsense");
}

fn formats(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.ok(&[
        "create", "--name", "c", "--label", "a=1", &image, "echo", "hi",
    ]);
    t.run(&[
        "ps",
        "-a",
        "--format",
        "{{.ID}} {{.Names}} {{.Image}} {{.Command}}",
    ])
    .prints(&format!("{} c {image} echo hi\n", &id[..12]));
    t.run(&["ps", "-a", "--format", "{{.Status}}|{{.Ports}}|"])
        .prints("Created||\n");
    t.run(&["ps", "-a", "--format", "table {{.Names}}\\t{{.Image}}"])
        .shows("NAMES")
        .shows("IMAGE")
        .shows(&image);
    t.run(&["ps", "-a", "--format", "{{json .Names}}"])
        .prints("\"c\"\n");
    t.run(&["ps", "-a", "--format", "{{.NoSuchField}}"])
        .code(125)
        .says("NoSuchField");
    t.run(&["ps", "-a", "--format", "{{.Names"]).code(125);
}

fn json(t: &mut Rcon) {
    let image = t.pull("busybox");
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:53/udp");
    let id = t.sleeper("c", &["--label", "x=y", "-p", &publish], &image);
    let list: Value = serde_json::from_str(&t.ok(&["ps", "--format", "json"])).unwrap();
    let c = &list[0];
    assert_eq!(c["Id"], id.as_str(), "{list:#}");
    assert_eq!(c["Names"][0], "c");
    assert_eq!(c["Command"], serde_json::json!(["sleep", "1000"]));
    assert_eq!(c["State"], "running");
    assert_eq!(c["Exited"], false);
    assert_eq!(c["Labels"]["x"], "y");
    assert_eq!(c["Image"], image.as_str());
    let p = &c["Ports"][0];
    assert_eq!(
        (&p["host_ip"], &p["protocol"]),
        (&"127.0.0.1".into(), &"udp".into()),
        "{p}"
    );
    assert_eq!(
        (
            p["host_port"].as_u64(),
            p["container_port"].as_u64(),
            p["range"].as_u64()
        ),
        (Some(port.into()), Some(53), Some(1))
    );
    assert!(c["Pid"].as_i64().unwrap() > 1 && c["StartedAt"].as_i64().unwrap() > 1_700_000_000);
    assert_eq!(
        t.ok(&["ps", "--filter", "name=nobody", "--format", "json"])
            .replace(['\n', ' '], ""),
        "[]"
    );
}

fn inspect_json(t: &mut Rcon) {
    let image = t.pull("busybox");
    let port = free_port();
    let publish = format!("{port}:80");
    let id = t.sleeper(
        "c",
        &["-p", &publish, "-e", "A=1", "-w", "/tmp", "-h", "box"],
        &image,
    );
    let list: Value = serde_json::from_str(&t.ok(&["inspect", "c"])).unwrap();
    let c = &list[0];
    assert_eq!(c["Id"], id.as_str());
    assert_eq!(c["Name"], "c");
    assert_eq!(c["ImageName"], image.as_str());
    assert_eq!(c["State"]["Status"], "running");
    assert_eq!(
        (
            c["State"]["Running"].as_bool(),
            c["State"]["ExitCode"].as_i64()
        ),
        (Some(true), Some(0))
    );
    assert_eq!(c["Config"]["Cmd"], serde_json::json!(["sleep", "1000"]));
    assert_eq!(c["Config"]["Hostname"], "box");
    assert_eq!(c["Config"]["WorkingDir"], "/tmp");
    assert!(
        c["Config"]["Env"]
            .as_array()
            .unwrap()
            .iter()
            .any(|e| e == "A=1")
    );
    assert_eq!(c["HostConfig"]["NetworkMode"], "slirp4netns");
    assert_eq!(
        c["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"],
        port.to_string()
    );
    assert_eq!(c["Path"], "sleep");
    assert_eq!(c["Args"], serde_json::json!(["1000"]));
    let images: Value =
        serde_json::from_str(&t.ok(&["inspect", "--type", "image", &image])).unwrap();
    let i = &images[0];
    assert_eq!(i["Id"], c["Image"]);
    assert_eq!(i["RepoTags"][0], image.as_str());
    assert_eq!(
        (&i["Os"], &i["Architecture"]),
        (&"linux".into(), &crate::lab::tar::architecture().into())
    );
    assert_eq!(i["RootFS"]["Layers"].as_array().unwrap().len(), 1);
    assert!(i["RepoDigests"][0].as_str().unwrap().contains("@sha256:"));
    // Without --type a name is a container first and an image next.
    let both: Value = serde_json::from_str(&t.ok(&["inspect", "c", &image])).unwrap();
    assert_eq!((&both[0]["Name"], &both[1]["Id"]), (&"c".into(), &i["Id"]));
    t.run(&["inspect", "--type", "container", &image])
        .code(125)
        .says("no such");
}

fn inspect_formats(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "c", "-e", "A=1", &image, "a", "b"]);
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "created");
    assert_eq!(t.inspect("c", "{{json .Config.Cmd}}"), r#"["a","b"]"#);
    assert_eq!(
        t.inspect("c", r#"{{range .Config.Cmd}}<{{.}}>{{end}}"#),
        "<a><b>"
    );
    assert_eq!(
        t.inspect("c", r#"{{index .Config.Cmd 1}} {{len .Config.Cmd}}"#),
        "b 2"
    );
    assert_eq!(
        t.inspect("c", r#"{{if eq .Name "c"}}yes{{else}}no{{end}}"#),
        "yes"
    );
    assert_eq!(
        t.inspect("c", r#"{{printf "%s-%d" .Name .State.ExitCode}}"#),
        "c-0"
    );
    assert_eq!(
        t.inspect("c", r#"{{join .Config.Cmd ","}}|{{upper .Name}}"#),
        "a,b|C"
    );
    t.run(&["inspect", "--format", "{{.NoSuch}}", "c"])
        .code(125)
        .says("NoSuch");
}
