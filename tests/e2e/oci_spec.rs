//! The fields of a runtime specification, through `rcon oci`: processes, namespaces, and what is refused. Others are in
//! `oci_files`, `oci_filters`, `oci_cgroups` and `oci_root`.

use std::fs;

use serde_json::{Value, json};

use crate::lab::bundle::Bundle;
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, lab};

scenarios!(
    process_fields,
    five_sets_of_capabilities,
    schedulers_and_limits,
    host_and_domain,
    clocks,
    kernel_settings,
    joined_namespaces,
    what_cannot_be_had_is_refused,
    unknown_properties_are_passed_over,
);

fn process_fields(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.set("/process/cwd", json!("/not/there/yet"));
    b.set("/process/env", json!(["PATH=/bin", "A=b c", "HOME=/data"]));
    b.set("/process/user/umask", json!(0o27));
    assert_eq!(
        b.sh(t, "pwd; echo $A; echo $HOME; umask; id -u; id -G"),
        "/not/there/yet\nb c\n/data\n0027\n0\n0"
    );
    // Only the groups that are said: "wheel" of the group file is not among them.
    assert_eq!(
        b.sh(t, "grep NoNewPrivs /proc/self/status | tr -d '\\t'"),
        "NoNewPrivs:1"
    );
    b.set("/process/noNewPrivileges", json!(false));
    assert_eq!(
        b.sh(t, "grep NoNewPrivs /proc/self/status | tr -d '\\t'"),
        "NoNewPrivs:0"
    );
    // A folder that was missing has the usual mode, whatever the program's mask.
    assert_eq!(b.sh(t, "stat -c %a /not/there/yet"), "755");
    if t.user.uid != 0 {
        b.set("/process/oomScoreAdj", json!(-900));
        b.run(t)
            .code(1)
            .says("cannot set oom_score_adj to -900: Permission denied");
        b.set("/process/oomScoreAdj", Value::Null);
    }
    b.set("/process/cwd", json!("relative"));
    b.run(t).code(1).says("not an absolute path");
    b.set("/process/cwd", json!("/proc/self/fd/7"));
    b.run(t).code(1).says("working directory");
}

fn five_sets_of_capabilities(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
            "effective": ["CAP_CHOWN", "CAP_NET_RAW"],
            "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_KILL"],
        }),
    );
    // Of root, executing gives all that is bounded or inheritable; so as another the sets themselves are seen.
    b.set("/process/noNewPrivileges", json!(false));
    let show = "grep Cap /proc/self/status | cut -f2";
    let lines = b.sh(t, show);
    let sets: Vec<u64> = lines
        .lines()
        .map(|l| u64::from_str_radix(l, 16).unwrap())
        .collect();
    let (chown, kill, setuid, raw) = (1_u64, 1 << 5, 1 << 7, 1 << 13);
    let bounded = chown | kill | setuid | raw;
    assert_eq!(sets, [kill, bounded, bounded, bounded, kill]);
    b.set("/process/capabilities", Value::Null);
    let lines = b.sh(t, show);
    assert_eq!(
        lines
            .split('\n')
            .map(|l| l.trim_matches('0'))
            .collect::<String>(),
        ""
    );
    // What nobody knows cannot be given, which is said and no failure.
    let more = ["CAP_KILL", "CAP_NONE"];
    b.set(
        "/process/capabilities",
        json!({"bounding": more, "permitted": more, "effective": more}),
    );
    b.script("grep CapEff /proc/self/status | cut -f2");
    b.run(t)
        .prints("0000000000000020\n")
        .says("Warning: the capability CAP_NONE is not known, and not given");
}

fn schedulers_and_limits(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.set(
        "/process/rlimits",
        json!([
            {"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_CPU", "soft": 1000, "hard": 2000},
        ]),
    );
    b.set("/process/oomScoreAdj", json!(500));
    b.set(
        "/process/scheduler",
        json!({"policy": "SCHED_OTHER", "nice": 19}),
    );
    b.set(
        "/process/ioPriority",
        json!({"class": "IOPRIO_CLASS_IDLE", "priority": 3}),
    );
    b.set("/linux/personality", json!({"domain": "LINUX32"}));
    let lines = b.sh(
        t,
        "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; cut -d' ' -f19 /proc/self/stat; ionice; uname -m",
    );
    let machine = if cfg!(target_arch = "x86_64") {
        "i686"
    } else {
        "armv8l"
    };
    assert_eq!(lines, format!("77\n88\n500\n19\nidle\n{machine}"));
    b.set("/linux/personality", json!({"domain": "LINUX"}));
    b.set(
        "/process/scheduler",
        json!({"policy": "SCHED_BATCH", "nice": 19}),
    );
    // On a kernel that knows of nodes, the program's policy is shown for all its memory.
    if std::path::Path::new("/proc/self/numa_maps").exists() {
        let show = "cut -d' ' -f2 /proc/self/numa_maps | sort -u";
        for (mode, flags, shown) in [
            (
                "MPOL_INTERLEAVE",
                json!(["MPOL_F_STATIC_NODES"]),
                "interleave=static:0",
            ),
            ("MPOL_BIND", json!([]), "bind:0"),
            (
                "MPOL_PREFERRED",
                json!(["MPOL_F_RELATIVE_NODES"]),
                "prefer=relative:0",
            ),
        ] {
            let policy = json!({"mode": mode, "nodes": "0", "flags": flags});
            b.set("/linux/memoryPolicy", policy);
            let seen = b.sh(t, show);
            assert!(seen.contains(shown), "{mode}: {seen}");
        }
        b.set(
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "900"}),
        );
        b.run(t)
            .code(1)
            .says("cannot set the memory policy MPOL_BIND");
        b.set(
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "0-"}),
        );
        b.run(t).code(1).says("is no list of numbers");
    }
    b.set("/linux/memoryPolicy", json!({"mode": "MPOL_LOCAL"}));
    // The scheduling policy, in numbers (proc_pid_stat(5)).
    assert_eq!(b.sh(t, "cut -d' ' -f41 /proc/self/stat"), "3");
    b.set(
        "/process/scheduler",
        json!({"policy": "SCHED_FIFO", "priority": 5}),
    );
    if !lab().root || t.user.uid != 0 {
        b.run(t)
            .code(1)
            .says("cannot set the scheduling policy SCHED_FIFO: Operation not permitted");
    }
    b.set("/process/scheduler", Value::Null);
    b.set(
        "/process/ioPriority",
        json!({"class": "IOPRIO_CLASS_BE", "priority": 9}),
    );
    b.run(t).code(1).says("not one of 0 to 7");
    b.set("/process/ioPriority", Value::Null);
    b.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}]),
    );
    b.run(t).code(1).says("RLIMIT_NONE");
    // exec has a processor of its own choice.
    b.set("/process/rlimits", Value::Null)
        .args(&["sleep", "1000"])
        .write();
    b.oci(t, &["run", "-d", "c"]).code(0);
    let process = json!({
        "args": ["sh", "-c", "grep Cpus_allowed_list /proc/self/status | cut -f2; id -u"],
        "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
        "execCPUAffinity": {"initial": "0", "final": "0"},
    });
    fs::write(b.dir.join("process.json"), process.to_string()).unwrap();
    b.oci(t, &["exec", "--process", "process.json", "c"])
        .prints("0\n0\n");
    b.oci(
        t,
        &[
            "exec",
            "--cwd",
            "/data",
            "-e",
            "X=y",
            "--cap",
            "net_raw",
            "c",
            "sh",
            "-c",
            "pwd; echo $X",
        ],
    )
    .prints("/data\ny\n");
    b.oci(t, &["exec", "--user", "+0", "c", "true"])
        .code(255)
        .says("invalid user");
    b.oci(
        t,
        &["exec", "--pid-file", "exec.pid", "-d", "c", "sleep", "999"],
    )
    .code(0)
    .prints("");
    let pid = fs::read_to_string(b.dir.join("exec.pid")).unwrap();
    b.oci(t, &["ps", "-f", "json", "c"]).shows(&pid);
    b.oci(t, &["kill", "--all", "c", "KILL"]).code(0);
    b.oci(t, &["delete", "-f", "c"]).code(0);
}

fn host_and_domain(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.set("/hostname", json!("some.host"))
        .set("/domainname", json!("some.domain"));
    assert_eq!(
        b.sh(t, "hostname; cat /proc/sys/kernel/domainname"),
        "some.host\nsome.domain"
    );
}

fn clocks(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        return crate::lab::skip("this kernel has no time namespaces");
    }
    let namespaces = b.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "time"}));
    b.set(
        "/linux/timeOffsets",
        json!({"boottime": {"secs": 1_000_000_000, "nanosecs": 5}, "monotonic": {"secs": 500}}),
    );
    let uptime = b.sh(t, "cut -d. -f1 /proc/uptime");
    assert!(uptime.parse::<u64>().unwrap() >= 1_000_000_000, "{uptime}");
    b.args(&["sleep", "1000"]).write();
    b.oci(t, &["run", "-d", "c"]).code(0);
    let uptime = b.oci(t, &["exec", "c", "cut", "-d.", "-f1", "/proc/uptime"]);
    assert!(
        uptime.ok().parse::<u64>().unwrap() >= 1_000_000_000,
        "{}",
        uptime.story()
    );
    b.oci(t, &["delete", "-f", "c"]).code(0);
    b.set("/linux/timeOffsets", json!({"realtime": {"secs": 1}}));
    b.run(t).code(1).says("no clock of a time namespace");
}

fn kernel_settings(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.set(
        "/linux/sysctl",
        json!({"net.ipv4.ip_forward": "1", "kernel.shmmni": "4000"}),
    );
    assert_eq!(
        b.sh(
            t,
            "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni"
        ),
        "1\n4000"
    );
    b.set("/linux/sysctl", json!({"kernel.panic": "1"}));
    b.run(t)
        .code(1)
        .says("sysctl 'kernel.panic' is not allowed");
}

fn joined_namespaces(t: &mut Rcon) {
    let mut first = Bundle::of_user(t, "first");
    first.args(&["sleep", "1000"]).write();
    first.oci(t, &["run", "-d", "c"]).code(0);
    let pid = first.state(t)["pid"].to_string();
    let mut second = Bundle::of_user(t, "second");
    let path = |kind: &str| format!("/proc/{pid}/ns/{kind}");
    let namespaces = [
        ("user", "user"),
        ("pid", "pid"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("network", "net"),
        ("cgroup", "cgroup"),
    ]
    .map(|(kind, file)| json!({"type": kind, "path": path(file)}));
    let mut namespaces = namespaces.to_vec();
    namespaces.push(json!({"type": "mount"}));
    second.set("/linux/namespaces", json!(namespaces));
    second
        .set("/linux/uidMappings", Value::Null)
        .set("/linux/gidMappings", Value::Null);
    second.set("/hostname", Value::Null);
    let kinds = ["user", "pid", "ipc", "uts", "net", "cgroup", "mnt"];
    let lines = second.sh(
        t,
        &format!(
            "for n in {}; do readlink /proc/self/ns/$n; done; hostname; ps -o comm",
            kinds.join(" ")
        ),
    );
    let lines: Vec<&str> = lines.lines().collect();
    for (kind, inside) in kinds.iter().zip(&lines) {
        let theirs = fs::read_link(path(kind)).unwrap();
        assert_eq!(
            theirs.to_str() == Some(inside),
            *kind != "mnt",
            "{kind}: {lines:?}"
        );
    }
    assert!(
        lines.contains(&"bundled") && lines.contains(&"sleep"),
        "{lines:?}"
    );
    second.set("/linux/namespaces/0/path", json!(path("net")));
    second.run(t).code(1).says("is not a user namespace");
    second.set("/linux/namespaces/0/path", json!("/no/such/file"));
    second.run(t).code(1).says("cannot open the user namespace");
    first.oci(t, &["delete", "-f", "c"]).code(0);
}

fn what_cannot_be_had_is_refused(t: &mut Rcon) {
    let b = Bundle::of_user(t, "b");
    let no_apparmor = !fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|t| t.starts_with('Y'));
    let no_selinux = !std::path::Path::new("/sys/fs/selinux/enforce").exists();
    let mut cases = vec![
        (
            "/linux/intelRdt",
            json!({"closID": "/"}),
            "linux.intelRdt): no resctrl file system is mounted\nhint: as root: mount -t resctrl",
        ),
        ("/vm", json!({"kernel": {"path": "/k"}}), "virtual machine"),
        ("/windows", json!({"layerFolders": ["x"]}), "another system"),
        (
            "/linux/personality",
            json!({"domain": "LINUX", "flags": ["X"]}),
            "personality with flags",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "pid"}, {"type": "user"}]),
            "without a mount namespace",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "user"}, {"type": "pid"}, {"type": "pid"}]),
            "two namespaces",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}]),
            "no user namespace",
        ),
        ("/linux/uidMappings", json!([]), "needs linux.uidMappings"),
        ("/process", Value::Null, "no process"),
        ("/root", Value::Null, "no root"),
        ("/root/path", json!("nowhere"), "nowhere: No such file"),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]}]),
            "/no/such",
        ),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "tmpfs", "source": "t", "options": ["idmap"]}]),
            "only bind mounts",
        ),
    ];
    if no_apparmor {
        cases.push(("/process/apparmorProfile", json!("some"), "no AppArmor"));
    }
    if no_selinux {
        cases.push(("/process/selinuxLabel", json!("a:b:c:d"), "no SELinux"));
        cases.push(("/linux/mountLabel", json!("a:b:c:d"), "no SELinux"));
    }
    let mut b = b;
    let whole = b.spec.clone();
    for (pointer, value, words) in cases {
        b.spec = whole.clone();
        b.set(pointer, value).run(t).code(1).says(words);
    }
    b.oci(t, &["list", "-q"]).prints("");
}

fn unknown_properties_are_passed_over(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    b.set("/future", json!({"x": 1}))
        .set("/linux/future", json!(true))
        .set("/process/future", json!([]));
    b.set("/ociVersion", json!("1.9.0-dev"));
    assert_eq!(b.sh(t, "echo ran"), "ran");
}
