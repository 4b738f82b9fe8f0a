//! What `rcon oci` does by cgroups: `pause`, `resume`, `update`, the limits of a specification; and what its global options
//! say and write.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::lab::bundle::Bundle;
use crate::lab::cgroups::Delegated;
use crate::lab::program::Running;
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Output, Rcon, lab};

scenarios!(
    paused_and_resumed,
    without_a_cgroup,
    limits_of_root,
    settings_that_no_option_has,
    rules_for_devices,
    given_to_its_user,
    cgroups_of_systemd,
    said_and_logged,
);

fn paused_and_resumed(t: &mut Rcon) {
    t.cgroup = Delegated::new(&t.user);
    if t.cgroup.is_none() {
        return;
    }
    let mut b = Bundle::of_user(t, "b");
    b.args(&["sleep", "1000"]).write();
    // Whoever enters a cgroup here comes from another folder.
    let bundle = b.dir.to_str().unwrap();
    b.oci(t, &["create", "--bundle", bundle, "c"]).code(0);
    // One that waits to be started can be paused, and does not hear that it is started.
    b.oci(t, &["pause", "c"]).code(0).quiet();
    assert_eq!(b.state(t)["status"], "paused");
    b.oci(t, &["start", "c"])
        .code(1)
        .says("cannot start a container in the paused state");
    b.oci(t, &["resume", "c"]).code(0).quiet();
    assert_eq!(b.state(t)["status"], "created");
    b.oci(t, &["start", "c"]).code(0);
    b.oci(t, &["pause", "c"]).code(0).quiet().prints("");
    assert_eq!(b.state(t)["status"], "paused");
    b.oci(t, &["exec", "c", "true"])
        .code(255)
        .says("paused container");
    b.oci(t, &["delete", "c"]).code(1).says("paused");
    b.oci(t, &["list"]).shows("paused");
    b.oci(t, &["resume", "c"]).code(0).quiet().prints("");
    assert_eq!(b.state(t)["status"], "running");
    b.oci(t, &["exec", "c", "true"]).code(0);
    let cgroups = t.cgroup.as_ref().unwrap().containers();
    assert_eq!(cgroups, ["rcon-c"]);
    // A frozen one goes all the same.
    b.oci(t, &["pause", "c"]).code(0);
    b.oci(t, &["delete", "--force", "c"]).code(0);
    b.oci(t, &["pause", "c"]).code(1).says("does not exist");
}

fn without_a_cgroup(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.args(&["sleep", "1000"]).write();
    b.oci(t, &["run", "-d", "c"]).code(0);
    // In a session of systemd there would be one.
    if b.oci(t, &["pause", "c"]).code != 0 {
        for words in [&["pause", "c"][..], &["update", "--pids-limit", "5", "c"]] {
            b.oci(t, words).code(1).says("no cgroup of its own");
        }
        b.oci(t, &["resume", "c"]).code(1).says("not paused");
    }
    b.oci(t, &["delete", "-f", "c"]).code(0);
    b.set("/linux/cgroupsPath", json!("/some/../place"))
        .run(t)
        .code(1)
        .says("invalid cgroup path");
    b.set("/linux/cgroupsPath", Value::Null);
}

/// A file of the cgroup of the container `c`: of whichever version has the controller.
fn file(b: &Bundle, t: &Rcon, controller: &str, first: &str, second: &str) -> Option<PathBuf> {
    let pid = b.state(t)["pid"].to_string();
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mut unified = None;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (kinds, path) = (parts.next().unwrap(), parts.next().unwrap());
        let path = path.trim_start_matches('/');
        if kinds.is_empty() {
            unified = Some(PathBuf::from("/sys/fs/cgroup").join(path).join(second));
        } else if kinds.split(',').any(|kind| kind == controller) {
            let top = PathBuf::from("/sys/fs/cgroup").join(controller);
            return Some(top.join(path).join(first)).filter(|path| path.exists());
        }
    }
    unified.filter(|path| path.exists())
}

fn limits_of_root(t: &mut Rcon) {
    if !lab().root || t.mode != Mode::ManyIds {
        return;
    }
    let mut b = Bundle::of_root(t, "b");
    b.set(
        "/linux/resources",
        json!({
            "pids": {"limit": 50},
            "memory": {"limit": 67_108_864, "reservation": 33_554_432},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
        }),
    );
    b.args(&["sleep", "1000"]).write();
    let out = b.oci(t, &["run", "-d", "c"]);
    if out.code != 0 {
        // Where controllers cannot be had it says which, or why.
        assert!(
            out.stderr.contains("controller") || out.stderr.contains("resources cannot be limited"),
            "{}",
            out.story()
        );
        return;
    }
    let files = [
        ("pids", "pids.max", "pids.max", "50", "50"),
        (
            "memory",
            "memory.limit_in_bytes",
            "memory.max",
            "67108864",
            "67108864",
        ),
        (
            "memory",
            "memory.soft_limit_in_bytes",
            "memory.low",
            "33554432",
            "33554432",
        ),
        ("cpu", "cpu.shares", "cpu.weight", "512", "59"),
        (
            "cpu",
            "cpu.cfs_quota_us",
            "cpu.max",
            "50000",
            "50000 100000",
        ),
        ("cpuset", "cpuset.cpus", "cpuset.cpus", "0", "0"),
    ];
    for (controller, first, second, one, two) in files {
        let path = file(&b, t, controller, first, second).expect(first);
        let expected = if path.ends_with(first) && first != second {
            one
        } else {
            two
        };
        assert_eq!(
            fs::read_to_string(&path).unwrap().trim(),
            expected,
            "{path:?}"
        );
    }
    b.oci(
        t,
        &[
            "update",
            "--pids-limit",
            "60",
            "--memory",
            "134217728",
            "--cpu-quota",
            "70000",
            "c",
        ],
    )
    .code(0)
    .quiet();
    let now = |controller, first, second| {
        let path = file(&b, t, controller, first, second).expect(first);
        fs::read_to_string(path).unwrap().trim().to_owned()
    };
    assert_eq!(now("pids", "pids.max", "pids.max"), "60");
    assert_eq!(
        now("memory", "memory.limit_in_bytes", "memory.max"),
        "134217728"
    );
    assert!(now("cpu", "cpu.cfs_quota_us", "cpu.max").starts_with("70000"));
    let mut update = Running::start(b.command(t, &["update", "-r", "-", "c"]), Stdio::piped());
    update.write(br#"{"pids": {"limit": 70}, "cpu": {"shares": 1024}}"#);
    update.close_input();
    update.wait().code(0);
    assert_eq!(now("pids", "pids.max", "pids.max"), "70");
    let more = b.dir.join("more.json");
    fs::write(&more, r#"{"pids": {"limit": -1}}"#).unwrap();
    b.oci(t, &["update", "-r", "more.json", "c"]).code(0);
    assert_eq!(now("pids", "pids.max", "pids.max"), "max");
    for bad in ["{", "[]", r#"{"memory": 5}"#] {
        fs::write(&more, bad).unwrap();
        b.oci(t, &["update", "-r", "more.json", "--memory", "5", "c"])
            .code(1)
            .says("invalid resources");
    }
    b.oci(t, &["update", "-r", "nowhere", "c"])
        .code(1)
        .says("cannot read nowhere");
    b.oci(t, &["pause", "c"]).code(0);
    assert_eq!(b.state(t)["status"], "paused");
    b.oci(t, &["resume", "c"]).code(0);
    let place = file(&b, t, "pids", "pids.max", "pids.max").unwrap();
    // A program in a cgroup of its own below the container's.
    let below = place.with_file_name("below");
    fs::create_dir(&below).unwrap();
    let here = match below.starts_with("/sys/fs/cgroup/pids") {
        true => "pids:below",
        false => "/below",
    };
    b.oci(
        t,
        &[
            "exec",
            "--cgroup",
            here,
            "c",
            "grep",
            "-c",
            "/below$",
            "/proc/self/cgroup",
        ],
    )
    .prints("1\n");
    for nowhere in ["nowhere", "../..", "no-controller:below"] {
        b.oci(t, &["exec", "--cgroup", nowhere, "c", "true"])
            .code(255)
            .says("the container has no cgroup");
    }
    b.oci(t, &["delete", "-f", "c"]).code(0);
    assert!(!place.exists(), "{place:?} is left");
}

/// Each of these is made where its controller is, and an error where that is not: never passed over.
fn settings_that_no_option_has(t: &mut Rcon) {
    if !lab().root || t.mode != Mode::ManyIds {
        return;
    }
    let mut b = Bundle::of_root(t, "b");
    for (resources, controller) in [
        (
            json!({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}}}),
            "rdma",
        ),
        (
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
            "hugetlb",
        ),
        (json!({"network": {"classID": 1_048_577}}), "net_cls"),
        (
            json!({"network": {"priorities": [{"name": "lo", "priority": 5}]}}),
            "net_prio",
        ),
        (json!({"blockIO": {"weight": 100}}), "blkio"),
        (
            json!({"cpu": {"realtimeRuntime": 950_000, "realtimePeriod": 1_000_000}}),
            "cpu",
        ),
        (json!({"unified": {"memory.high": "1000000000"}}), "memory"),
        (json!({"unified": {"../escape": "1"}}), "escape"),
    ] {
        b.set("/linux/resources", resources.clone());
        let out = b.run(t);
        if out.code != 0 {
            let words = [
                controller,
                "version 2",
                "is not available",
                "cannot be set",
                "real-time",
            ];
            let told = words.iter().any(|word| out.stderr.contains(word));
            assert!(out.code == 1 && told, "{resources}\n{}", out.story());
        }
    }
    b.set("/linux/resources", Value::Null);
}

/// A command of the bundle's, where cgroups are of the second version only.
fn in_second_version(b: &Bundle, t: &Rcon, words: &[&str]) -> Output {
    const ENTER: &str = r#"
        test "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs || mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 99
        exec "$@""#;
    let own = b.command(t, words);
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", ENTER, "sh"]);
    command.arg(own.get_program()).args(own.get_args());
    command.current_dir(&b.dir).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    if words[0] != "create" {
        return Running::start(command, Stdio::null()).wait();
    }
    // What goes on keeps the streams.
    let none = || Stdio::null();
    command.stdin(none()).stdout(none()).stderr(none());
    let since = std::time::Instant::now();
    let status = command.status().unwrap();
    Output::new(words.join(" "), status, b"", b"", since.elapsed())
}

/// Kept by the controller of version 1, and by a program in version 2: the last rule of a device holds, and what every
/// container has stays.
fn rules_for_devices(t: &mut Rcon) {
    let list = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rm"},
        {"allow": false, "type": "c", "major": 1, "minor": 9, "access": "w"},
    ]);
    let script = "echo x >/dev/null && head -c1 /dev/zero >/dev/null && echo usual
        true </dev/fuse && echo read
        true 2>/dev/null >>/dev/fuse || echo not written
        true 2>/dev/null </dev/urandom && echo read
        true 2>/dev/null >>/dev/urandom || echo not written
        true 2>/dev/null </dev/loop || echo no loop";
    if !lab().root || t.mode != Mode::ManyIds {
        // There is only what it was given, so that a list of what is allowed holds; a list of what is not cannot be kept.
        let mut b = Bundle::of_user(t, "b");
        b.set("/linux/resources", json!({"devices": list}));
        b.script("echo x >/dev/null && echo usual");
        b.run(t).prints("usual\n");
        return;
    }
    let mut b = Bundle::of_root(t, "b");
    b.set(
        "/linux/devices",
        json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
            {"path": "/dev/loop", "type": "b", "major": 7, "minor": 0},
        ]),
    );
    let told = "usual\nread\nnot written\nread\nnot written\nno loop\n";
    b.set("/linux/resources", json!({"devices": list}));
    b.script(script);
    b.write();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    if own.lines().any(|line| line.contains(":devices:")) {
        b.oci(t, &["run", "c"]).prints(told);
    }
    let out = in_second_version(&b, t, &["run", "c"]);
    if out.stderr.contains("cannot be kept") {
        return crate::lab::skip(&format!("no programs for devices: {}", out.stderr));
    }
    out.prints(told);
    // Without a word on the rest that stays allowed; and numbers alone are of both kinds.
    let some = json!([{"allow": false, "major": 10, "access": "w"}, {"allow": false, "type": "b", "major": 7, "access": "rw"}]);
    b.set("/linux/resources", json!({"devices": some})).write();
    let out = in_second_version(&b, t, &["run", "c"]);
    out.prints("usual\nread\nnot written\nread\nno loop\n");
    // Changed while it runs: the new rules hold instead of the old ones.
    b.args(&["sleep", "1000"]);
    b.set("/linux/resources", json!({"devices": list})).write();
    let bundle = b.dir.to_str().unwrap().to_owned();
    in_second_version(&b, t, &["create", "-b", &bundle, "--pid-file", "pid", "c"]).code(0);
    in_second_version(&b, t, &["start", "c"]).code(0);
    let open = |b: &Bundle| in_second_version(b, t, &["exec", "c", "sh", "-c", "true </dev/loop"]);
    open(&b).says("Operation not permitted");
    let more =
        json!({"devices": [{"allow": true, "type": "b", "major": 7, "minor": 0, "access": "r"}]});
    fs::write(b.dir.join("more.json"), more.to_string()).unwrap();
    in_second_version(&b, t, &["update", "-r", "more.json", "c"]).code(0);
    let now = open(&b);
    assert!(
        !now.stderr.contains("Operation not permitted"),
        "{}",
        now.story()
    );
    in_second_version(&b, t, &["delete", "-f", "c"]).code(0);
    b.set(
        "/linux/resources",
        json!({"devices": [{"allow": true, "access": "x"}]}),
    );
    b.run(t).code(1).says("is no rule for devices");
}

/// A cgroup that the container may write to belongs to who runs in it, and of its files only those that can be given.
fn given_to_its_user(t: &mut Rcon) {
    if !lab().root || t.mode != Mode::ManyIds {
        return;
    }
    let mut b = Bundle::of_root(t, "b");
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 5000}]);
    let namespaces = b.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    namespaces.push(json!({"type": "cgroup"}));
    b.set("/linux/uidMappings", map.clone());
    b.set("/linux/gidMappings", map);
    b.script(
        "cd /sys/fs/cgroup; stat -c %u . cgroup.procs cgroup.subtree_control cgroup.max.depth
        mkdir below 2>/dev/null && echo made",
    );
    let nobody = 65534;
    b.mount(Value::Null);
    for (uid, options, shown) in [
        (0, json!(["nosuid"]), format!("0\n0\n0\n{nobody}\nmade\n")),
        (7, json!(["nosuid"]), format!("7\n7\n7\n{nobody}\nmade\n")),
        (0, json!(["ro"]), format!("{nobody}\n").repeat(4)),
    ] {
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options});
        b.set("/process/user/uid", json!(uid));
        b.set("/mounts/5", mount);
        b.write();
        let out = in_second_version(&b, t, &["run", "c"]);
        assert_eq!(out.stdout, shown, "{}", out.story());
    }
}

fn cgroups_of_systemd(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.script("echo ran");
    b.write();
    // Each way of naming one belongs to one manager.
    b.set("/linux/cgroupsPath", json!("user.slice:rcon:name"))
        .write();
    b.oci(t, &["run", "c"])
        .code(1)
        .says("invalid cgroup path \"user.slice:rcon:name\"");
    b.set("/linux/cgroupsPath", json!("/some/place")).write();
    for words in [
        &["--systemd-cgroup", "run", "c"][..],
        &["--cgroup-manager=systemd", "run", "c"],
    ] {
        b.oci(t, words)
            .code(1)
            .says("invalid cgroup path \"/some/place\"");
    }
    b.oci(t, &["--cgroup-manager", "other", "run", "c"])
        .code(1)
        .says("invalid value \"other\" for --cgroup-manager");
    // Where no systemd answers, a scope that was asked for is an error that says why.
    b.set("/linux/cgroupsPath", json!("user.slice:rcon:name"))
        .write();
    let out = b.oci(t, &["--systemd-cgroup", "run", "c"]);
    if out.code != 0 {
        out.code(1)
            .says("resources cannot be limited here")
            .says("hint: ");
    }
    // Who did not ask for one runs without.
    b.set("/linux/cgroupsPath", Value::Null).write();
    b.oci(t, &["--systemd-cgroup", "run", "c"]).prints("ran\n");
    b.oci(t, &["--systemd-cgroup=false", "run", "c"])
        .prints("ran\n");
    b.oci(t, &["list", "-q"]).prints("");
}

fn said_and_logged(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.script("echo ran");
    b.write();
    let log = b.dir.join("log");
    let path = log.to_str().unwrap();
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    b.oci(t, &["--log", path, "--log-format", "json", "run", "c"])
        .quiet();
    assert!(!log.exists());
    // Where the time went, there and on standard error.
    let words = ["--debug", "--log", path, "--log-format=json", "run", "c"];
    let out = b.oci(t, &words);
    out.prints("ran\n");
    let all = lines();
    for (step, text) in [
        ("debug", "root "),
        ("debug", "process born"),
        ("debug", "ids mapped"),
        ("debug", "mounts made"),
        ("debug", "command done"),
    ] {
        let has =
            |line: &&Value| line["level"] == step && line["msg"].as_str().unwrap().contains(text);
        assert!(all.iter().any(|line| has(&line)), "{text}: {all:?}");
        out.says(text);
    }
    assert!(
        all.iter()
            .all(|line| line["time"].as_str().unwrap().ends_with('Z'))
    );
    b.set("/process/capabilities/bounding", json!(["CAP_OF_TOMORROW"]))
        .write();
    b.oci(t, &["--log", path, "--log-format", "json", "run", "c"])
        .code(0);
    let all = lines();
    assert_eq!(all[0]["level"], "warning");
    assert!(all[0]["msg"].as_str().unwrap().contains("CAP_OF_TOMORROW"));
    b.oci(t, &["--log", path, "state", "nobody"]).code(1);
    let text = fs::read_to_string(&log).unwrap();
    assert!(
        text.contains(r#"level=error msg="container \"nobody\" does not exist""#),
        "{text}"
    );
    // One that cannot be written keeps nobody from anything.
    b.oci(t, &["--log", "/no/such/folder/log", "run", "c"])
        .prints("ran\n");
    b.oci(t, &["--log-format", "xml", "run", "c"])
        .code(1)
        .says("invalid value \"xml\" for --log-format");
}
