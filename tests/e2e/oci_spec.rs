//! Every field of a runtime specification, through `rcon oci`.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::lab::bundle::Bundle;
use crate::lab::program::Running;
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, lab};

scenarios!(
    process_fields,
    five_sets_of_capabilities,
    schedulers_and_limits,
    host_and_domain,
    clocks,
    mount_options,
    propagation,
    hidden_and_protected,
    kernel_settings,
    system_call_filters,
    decided_by_a_listener,
    joined_namespaces,
    what_cannot_be_had_is_refused,
    unknown_properties_are_passed_over,
    as_root,
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
    b.set("/process/capabilities", json!({"bounding": ["CAP_NONE"]}));
    b.run(t).code(1).says("CAP_NONE");
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
        .code(1)
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

fn mount_options(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    let shared = t.mkdir("b/shared");
    fs::write(b.dir.join("shared/file"), "content\n").unwrap();
    fs::write(b.dir.join("rootfs/data/below"), "below\n").unwrap();
    let bind = |place: &str, options: &[&str]| json!({"destination": place, "type": "bind", "source": shared, "options": options});
    b.mount(bind("/one", &["bind", "ro", "nosuid", "nodev", "noexec"]));
    b.mount(bind("/two/deep", &["rbind", "rro", "rnosuid"]));
    b.mount(bind("/three", &["bind", "rw", "nosymfollow"]));
    // Relative to the bundle; a file too.
    b.mount(json!({"destination": "/etc/file", "type": "none", "source": "shared/file", "options": ["bind"]}));
    b.mount(
        json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs",
        "options": ["tmpcopyup", "size=64k", "mode=750", "strictatime", "nr_inodes=100"]}),
    );
    let lines = b.sh(
        t,
        "grep -E ' /(one|two/deep|three|data) ' /proc/self/mountinfo | cut -d' ' -f5,6; \
         cat /etc/file /data/below; stat -c %a /data; \
         touch /one/x 2>/dev/null || touch /two/deep/x 2>/dev/null || echo refused; touch /three/y && echo made",
    );
    let options = |place: &str| -> Vec<&str> {
        let line = lines
            .lines()
            .find(|line| line.starts_with(&format!("{place} ")));
        line.unwrap_or_default().split([' ', ',']).skip(1).collect()
    };
    for word in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options("/one").contains(&word), "{word}\n{lines}");
    }
    assert!(
        options("/two/deep").contains(&"ro") && options("/two/deep").contains(&"nosuid"),
        "{lines}"
    );
    assert!(
        options("/three").contains(&"rw") && options("/three").contains(&"nosymfollow"),
        "{lines}"
    );
    assert!(
        lines.ends_with("content\nbelow\n750\nrefused\nmade"),
        "{lines}"
    );
    b.mount(json!({"destination": "/bad", "type": "tmpfs", "source": "x", "options": ["no_such_option"]}));
    b.run(t).code(1).says("cannot mount tmpfs on /bad");
    b.spec["mounts"].as_array_mut().unwrap().pop();
    b.mount(json!({"destination": "/bad", "type": "no_such_fs", "source": "x"}));
    b.run(t).code(1).says("cannot mount no_such_fs on /bad");
    b.spec["mounts"].as_array_mut().unwrap().pop();
    b.set("/root/readonly", json!(true));
    assert_eq!(
        b.sh(
            t,
            "touch /x 2>/dev/null || echo refused; touch /data/x && echo made"
        ),
        "refused\nmade"
    );
}

fn propagation(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    let source = t.mkdir("b/shared");
    for (word, has) in [
        ("rslave", "master:"),
        ("rprivate", ""),
        ("rshared", "shared:"),
    ] {
        let mut one = Bundle::of_user(t, &format!("b-{word}"));
        one.mount(json!({"destination": "/bound", "type": "bind", "source": source, "options": ["rbind", word]}));
        let line = one.sh(t, "grep ' /bound ' /proc/self/mountinfo | cut -d' ' -f7");
        // Where the source is not shared on the host there is nothing to be the slave of.
        let ok = line.starts_with(has) || (word == "rslave" && line == "-");
        assert!(ok, "{word}: {line:?}");
    }
    for (word, has) in [
        ("shared", "shared:"),
        ("private", "-"),
        ("unbindable", "unbindable"),
    ] {
        b.set("/linux/rootfsPropagation", json!(word));
        let line = b.sh(
            t,
            "grep ' / / ' /proc/self/mountinfo || grep ' / ' /proc/self/mountinfo",
        );
        assert!(
            line.lines()
                .any(|l| l.contains(&format!(" {has}")) || l.contains(has)),
            "{word}: {line}"
        );
    }
    b.set("/linux/rootfsPropagation", json!("sideways"))
        .run(t)
        .code(1)
        .says("sideways");
}

fn hidden_and_protected(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    fs::write(b.dir.join("rootfs/data/secret"), "secret\n").unwrap();
    b.set(
        "/linux/maskedPaths",
        json!(["/data/secret", "/sys/firmware", "/no/such/path"]),
    );
    b.set(
        "/linux/readonlyPaths",
        json!(["/proc/sys", "/tmp", "/no/such/path"]),
    );
    assert_eq!(
        b.sh(
            t,
            "cat /data/secret; ls /sys/firmware 2>/dev/null; (echo 1 >/proc/sys/kernel/shmmni) 2>/dev/null || echo no; \
             touch /tmp/x 2>/dev/null || echo no",
        ),
        "no\nno"
    );
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

fn system_call_filters(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    let rules = |rules: Value| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"], "syscalls": rules})
    };
    let calls = json!(["mkdir", "mkdirat"]);
    for (action, errno, expected) in [
        ("SCMP_ACT_ERRNO", json!(28), "No space left"),
        ("SCMP_ACT_ERRNO", Value::Null, "not permitted"),
        ("SCMP_ACT_KILL_PROCESS", Value::Null, "Bad system call"),
        ("SCMP_ACT_KILL", Value::Null, "Bad system call"),
        ("SCMP_ACT_KILL_THREAD", Value::Null, "Bad system call"),
        ("SCMP_ACT_TRAP", Value::Null, "Bad system call"),
        ("SCMP_ACT_TRACE", json!(5), "not implemented"),
        ("SCMP_ACT_LOG", Value::Null, "made"),
        ("SCMP_ACT_ALLOW", Value::Null, "made"),
    ] {
        let mut rule = json!({"names": calls, "action": action});
        if !errno.is_null() {
            rule["errnoRet"] = errno;
        }
        b.set("/linux/seccomp", rules(json!([rule])));
        b.script("mkdir /tmp/d 2>&1 && echo made && rmdir /tmp/d; echo Seccomp $(grep -c 'Seccomp:.*2' /proc/self/status)");
        let out = b.run(t);
        let all = out.stdout.clone() + &out.stderr;
        assert!(all.contains(expected), "{action}\n{}", out.story());
        assert!(all.contains("Seccomp 1"), "{}", out.story());
    }
    // kill(pid, signal): by each comparison of its second argument.
    for (op, value, two, hit, miss) in [
        ("SCMP_CMP_EQ", 10, 0, 10, 12),
        ("SCMP_CMP_NE", 10, 0, 12, 10),
        ("SCMP_CMP_LT", 11, 0, 10, 11),
        ("SCMP_CMP_LE", 10, 0, 10, 11),
        ("SCMP_CMP_GT", 10, 0, 12, 10),
        ("SCMP_CMP_GE", 12, 0, 12, 10),
        ("SCMP_CMP_MASKED_EQ", 2, 2, 10, 17),
    ] {
        let args = json!([{"index": 1, "value": value, "valueTwo": two, "op": op}]);
        b.set("/linux/seccomp", rules(json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": args}])));
        let script = format!(
            "trap '' 10 12 17; kill -{hit} $$ 2>/dev/null || echo denied; kill -{miss} $$ && echo passed"
        );
        assert_eq!(b.sh(t, &script), "denied\npassed", "{op}");
    }
    // By default nothing passes but what is named; what no architecture knows is passed over.
    b.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [{"names": ["no_such_call"], "action": "SCMP_ACT_ALLOW"}]}),
    );
    assert_ne!(b.script("echo ran").run(t).code, 0);
    b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NONE"}));
    b.run(t).code(1).says("SCMP_ACT_NONE");
}

fn decided_by_a_listener(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    let path = b.dir.join("socket");
    let notify = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]);
    b.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": notify}),
    );
    b.run(t).code(1).says("no listenerPath");
    b.set("/linux/seccomp/listenerPath", json!(path))
        .set("/linux/seccomp/listenerMetadata", json!("about"));
    b.script("mkdir /tmp/d; echo done");
    b.run(t)
        .code(1)
        .says("cannot connect to the seccomp listener");
    let listener = UnixListener::bind(&path).unwrap();
    chown(&path, Some(t.user.uid), Some(t.user.gid)).unwrap();
    b.write();
    b.oci(t, &["create", "c"]).code(0);
    let pid = b.state(t)["pid"].clone();
    b.oci(t, &["start", "c"]).code(0);
    let (stream, _) = listener.accept().unwrap();
    let mut data = vec![0; 64 * 1024];
    let (length, fds) = rcon_sys::fdpass::recv_fds(&stream, &mut data).unwrap();
    let told: Value = serde_json::from_slice(&data[..length]).unwrap();
    assert_eq!(told["fds"], json!(["seccompFd"]));
    assert_eq!((&told["pid"], &told["metadata"]), (&pid, &json!("about")));
    assert_eq!(
        (&told["state"]["id"], &told["state"]["pid"]),
        (&json!("c"), &pid)
    );
    let name = fs::read_link(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&fds[0])
    ))
    .unwrap();
    assert!(
        name.to_str().unwrap().contains("seccomp notify"),
        "{name:?}"
    );
    // Nobody answers any more: the call is one that does not exist.
    drop(fds);
    crate::lab::eventually("the program ends", 20, || {
        (b.state(t)["status"] == "stopped").then_some(())
    });
    assert!(!b.dir.join("rootfs/tmp/d").exists());
    b.oci(t, &["delete", "c"]).code(0);
    b.set("/linux/seccomp/defaultAction", json!("SCMP_ACT_ERRNO"))
        .run(t)
        .code(1)
        .says("sendmsg");
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
        ("/linux/netDevices", json!({"eth0": {}}), "linux.netDevices"),
        ("/linux/intelRdt", json!({"closID": "x"}), "Intel RDT"),
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

/// What only root can have: nodes, namespaces that are shared with the machine, id-mapped mounts.
fn as_root(t: &mut Rcon) {
    if !lab().root || t.mode != crate::lab::Mode::ManyIds {
        return;
    }
    let mut b = Bundle::of_root(t, "root-bundle");
    b.set(
        "/linux/devices",
        json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4},
            {"path": "/dev/deep/loop", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o622},
        ]),
    );
    let lines = b.sh(
        t,
        "stat -c '%n %F %t:%T %a %u:%g' /dev/null /dev/fuse /dev/deep/loop /dev/pipe; echo x >/dev/null; readlink /proc/self/ns/user",
    );
    let expected = "/dev/null character special file 1:3 666 0:0\n/dev/fuse character special file a:e5 640 3:4\n\
        /dev/deep/loop block special file 7:0 600 0:0\n/dev/pipe fifo 0:0 622 0:0\n";
    assert!(lines.starts_with(expected), "{lines}");
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    assert!(lines.ends_with(own.to_str().unwrap()), "{lines}");
    // An id-mapped mount shows other owners, where the file system can.
    let data = b.dir.join("owned");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "").unwrap();
    let map = json!([{"containerID": 0, "hostID": 70000, "size": 1000}]);
    b.mount(
        json!({"destination": "/mapped", "type": "bind", "source": data, "options": ["rbind"],
        "uidMappings": map, "gidMappings": map}),
    );
    b.script("stat -c %u:%g /mapped/file");
    let out = b.run(t);
    if !out.stderr.contains("does not know id-mapped mounts") {
        out.prints("70000:70000\n");
    }
    b.spec["mounts"].as_array_mut().unwrap().pop();
    // A user namespace with ids of its own.
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 5000}]);
    b.spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    b.set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    b.set(
        "/linux/devices",
        json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]),
    );
    b.set(
        "/process/user",
        json!({"uid": 7, "gid": 8, "additionalGids": [9, 10]}),
    );
    b.mount(
        json!({"destination": "/data", "type": "tmpfs", "source": "t", "options": ["mode=1777"]}),
    );
    let lines = b.sh(
        t,
        "id -u; id -G; cat /proc/self/uid_map | tr -s ' '; touch /data/x; stat -c %t:%T /dev/fuse",
    );
    assert_eq!(lines, "7\n8 9 10\n 0 100000 5000\na:e5");
    // What is mounted below a shared root is not seen outside, and nothing is left.
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut shared = Bundle::of_root(t, "shared-bundle");
    shared
        .set("/linux/rootfsPropagation", json!("rshared"))
        .args(&["sleep", "1000"])
        .write();
    shared.oci(t, &["run", "-d", "c"]).code(0);
    let dir = shared.dir.to_str().unwrap().to_owned();
    let now = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let seen: Vec<&str> = now.lines().filter(|line| line.contains(&dir)).collect();
    assert!(seen.is_empty(), "{seen:?}\n{before}");
    shared.oci(t, &["exec", "c", "true"]).code(0);
    shared.oci(t, &["delete", "-f", "c"]).code(0);
    let owner = fs::metadata(shared.dir.join("rootfs")).unwrap().uid();
    assert_eq!(owner, 0);
    // The network namespace of somebody else, by its path.
    let mut holder = Running::start(holder(), Stdio::piped());
    let net = format!("/proc/{}/ns/net", holder.pid());
    let other = crate::lab::eventually("a network namespace", 20, || {
        let theirs = fs::read_link(&net).ok()?;
        (theirs != fs::read_link("/proc/self/ns/net").ok()?).then_some(theirs)
    });
    let mut joined = Bundle::of_root(t, "joined-bundle");
    joined.set(
        "/linux/namespaces",
        json!([{"type": "mount"}, {"type": "pid"}, {"type": "network", "path": net}]),
    );
    joined.set("/hostname", Value::Null);
    joined.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    assert_eq!(
        joined.sh(t, "readlink /proc/self/ns/net"),
        other.to_str().unwrap()
    );
    holder.close_input();
}

fn holder() -> std::process::Command {
    let mut command = std::process::Command::new("unshare");
    command.args(["--net", "cat"]);
    command
}
