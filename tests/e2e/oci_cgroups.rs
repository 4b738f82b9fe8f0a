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
use crate::lab::{Mode, Rcon, lab};

scenarios!(
    paused_and_resumed,
    without_a_cgroup,
    limits_of_root,
    settings_that_no_option_has,
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
    fs::write(&more, "{").unwrap();
    b.oci(t, &["update", "-r", "more.json", "c"])
        .code(1)
        .says("invalid resources");
    b.oci(t, &["update", "-r", "nowhere", "c"])
        .code(1)
        .says("cannot read nowhere");
    b.oci(t, &["pause", "c"]).code(0);
    assert_eq!(b.state(t)["status"], "paused");
    b.oci(t, &["resume", "c"]).code(0);
    let place = file(&b, t, "pids", "pids.max", "pids.max").unwrap();
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
    // Rules for devices, where version 1 keeps them.
    b.set(
        "/linux/resources",
        json!({"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        ]}),
    );
    let devices = fs::read_to_string("/proc/self/cgroup").unwrap();
    if devices.lines().any(|line| line.contains(":devices:")) {
        let script =
            "head -c1 /dev/zero >/dev/null 2>&1 || echo no zero; echo x >/dev/null && echo null";
        assert_eq!(b.sh(t, script), "no zero\nnull");
    }
    b.set("/linux/resources", Value::Null);
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
