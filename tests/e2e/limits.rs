//! Limits, `pause`, `update`, `stats` and `top`. What needs a real systemd is tested in the guest (tests/guest); here, what is
//! said where there is none, and a delegated cgroup of version 2 as far as root can make one.

use std::process::Command;

use serde_json::Value;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, lab};

scenarios!(
    values_are_checked,
    limits_that_cannot_be_had,
    limits_are_kept,
    pause_needs_a_running_container,
    delegated_cgroup,
    stats,
    top,
);

fn values_are_checked(t: &mut Rcon) {
    let image = t.pull("busybox");
    for (flags, words) in [
        (
            &["--memory", "x"][..],
            "invalid value for memory: invalid size: 'x'",
        ),
        (
            &["-m", "10m", "--memory-swap", "5m"],
            "minimum memoryswap limit should be larger than memory limit",
        ),
        (
            &["--memory-swap", "5m"],
            "always set the memory limit when using the memoryswap limit",
        ),
        (
            &["--cpus", "1", "--cpu-period", "5000"],
            "--cpu-period and --cpus cannot be set together",
        ),
        (&["--cpus", "many"], "--cpus"),
        (&["--blkio-weight", "5"], "10 to 1000"),
        (
            &["--device-read-bps", "sda:1mb"],
            "bad format for device path: sda:1mb",
        ),
        (&["--cgroups", "some"], "invalid cgroup mode"),
        (
            &["--cgroups", "disabled", "-m", "64m"],
            "cannot specify resource limits when cgroups are disabled",
        ),
        (&["--cgroup-conf", "foo"], "invalid --cgroup-conf"),
        (&["--cpu-rt-runtime", "1000"], "--cpu-rt-runtime"),
    ] {
        let out = t.run(&[&["run", "--rm"], flags, &[&image, "true"]].concat());
        out.refused(125).says(words);
    }
    t.run(&["--cgroup-manager", "foo", "run", &image, "true"])
        .refused(125)
        .says("unsupported cgroup manager");
    t.run(&["run", "--rm", "--cgroups=disabled", &image, "true"])
        .prints("")
        .quiet();
    t.has_containers(0);
}

/// Whether this user is given cgroups where the suite runs, as in a login session of systemd.
fn has_cgroups(t: &Rcon, image: &str) -> bool {
    t.run(&["run", "--rm", "--cgroups=enabled", image, "true"])
        .code
        == 0
}

fn limits_that_cannot_be_had(t: &mut Rcon) {
    let image = t.pull("busybox");
    if has_cgroups(t, &image) {
        return;
    }
    for flag in [["-m", "64m"], ["--pids-limit", "50"], ["--cpus", "0.5"]] {
        let out = t.run(&["run", "--rm", flag[0], flag[1], &image, "true"]);
        out.refused(125)
            .says("resources cannot be limited here: ")
            .says("hint: ");
    }
    t.has_containers(0);
    t.ok(&["run", "-d", "--name", "free", &image, "sleep", "1000"]);
    t.run(&["pause", "free"]).refused(125).says("hint: ");
    t.run(&["update", "-m", "64m", "free"])
        .refused(125)
        .says("hint: ");
    assert_eq!(t.inspect("free", "{{.HostConfig.Memory}}"), "0");
    // It takes no cgroup to have no limits.
    t.run(&["update", "-m", "0", "--memory-reservation", "0", "free"])
        .code(0);
    t.ok(&["rm", "-f", "-t", "0", "free"]);
}

fn limits_are_kept(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.ok(&[
        "create",
        "--name",
        "c",
        "-m",
        "64m",
        "--cpus",
        "1.5",
        "-c",
        "512",
        "--pids-limit",
        "50",
        "--cpuset-cpus",
        "0",
        "--blkio-weight",
        "100",
        "--cgroup-parent",
        "some.slice",
        &image,
        "true",
    ]);
    let limits = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpuQuota}} \
        {{.HostConfig.CpuShares}} {{.HostConfig.PidsLimit}} {{.HostConfig.CpusetCpus}} {{.HostConfig.BlkioWeight}} \
        {{.HostConfig.CgroupParent}}";
    assert_eq!(
        t.inspect("c", limits),
        "67108864 134217728 1500000000 150000 512 50 0 100 some.slice"
    );
    // One that does not run has nothing to be limited yet.
    t.run(&["update", "-m", "128m", "--cpus", "2", "c"])
        .prints(&format!("{id}\n"));
    t.run(&["container", "update", "--pids-limit", "0", "c"])
        .ok();
    assert_eq!(
        t.inspect("c", limits),
        "134217728 268435456 2000000000 200000 512 0 0 100 some.slice"
    );
    t.run(&["update", "--cpu-rt-period", "5", "c"]).refused(125);
    t.run(&["update", "-m", "5m", "nobody"])
        .refused(125)
        .says("no such container");
    t.ok(&["rm", "c"]);
}

fn pause_needs_a_running_container(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "c", &image, "true"]);
    t.run(&["pause", "c"])
        .refused(125)
        .says("is not running, can't pause: container state improper");
    t.run(&["unpause", "c"])
        .refused(125)
        .says("is not paused, can't unpause: container state improper");
    t.run(&["pause"])
        .refused(125)
        .says("you must provide at least one name or id");
    t.run(&["pause", "--all"]).prints("").quiet();
    t.run(&["container", "unpause", "--all"]).prints("").quiet();
    t.ok(&["rm", "c"]);
}

/// Root gives the user a cgroup of version 2, in a mount namespace where that is all there is. It may have no
/// controllers, since on a hybrid host the first version has them; the freezer needs none.
fn delegated_cgroup(t: &mut Rcon) {
    const GIVE: &str = r#"
        set -e
        if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 77; fi
        given=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/rcon-e2e-$$
        back=${given%/*}/cgroup.procs
        mkdir "$given" || exit 77
        chown "$1:$2" "$given" "$given/cgroup.procs" "$given/cgroup.subtree_control" "$given/cgroup.threads"
        echo $$ >"$given/cgroup.procs" || { rmdir "$given"; exit 77; }
        code=0
        setpriv --reuid "$1" --regid "$2" --clear-groups sh -c "$3" || code=$?
        echo $$ >"$back"
        # Monitors clear up after the exit code is out.
        tries=0
        while [ "$tries" -lt 600 ] && [ -n "$(find "$given" -name cgroup.procs -exec cat {} +)" ]; do
            tries=$((tries + 1))
            sleep 0.1
        done
        left=$(find "$given" -mindepth 1 -type d ! -name rcon-aside)
        find "$given" -depth -type d -exec rmdir {} +
        if [ -n "$left" ]; then echo "left: $left"; exit 1; fi
        exit $code"#;
    const USE: &str = r#"
        set -e
        "$RCON" run -d --name c --network none "$IMAGE" sh -c 'while :; do sleep 1; done' >/dev/null
        path=$("$RCON" inspect c --format '{{.State.CgroupPath}}')
        case $path in */rcon-*) ;; *) echo "no cgroup of its own: $path"; exit 1 ;; esac
        "$RCON" pause c
        "$RCON" inspect c --format '{{.State.Status}} {{.State.Paused}} {{.State.Running}}'
        "$RCON" ps --format '{{.Status}}' --filter status=paused
        grep -q 'frozen 1' "/sys/fs/cgroup$path/cgroup.events"
        if "$RCON" exec c true 2>/dev/null; then echo "exec in a paused container"; exit 1; fi
        if "$RCON" rm c 2>/dev/null; then echo "a paused container was removed"; exit 1; fi
        "$RCON" unpause c
        "$RCON" exec c cat /proc/self/cgroup | grep '^0:'
        grep -q 'frozen 0' "/sys/fs/cgroup$path/cgroup.events"
        "$RCON" pause c >/dev/null
        "$RCON" rm -f -t 0 c >/dev/null
        test ! -e "/sys/fs/cgroup$path"
        "$RCON" run --rm --network none "$IMAGE" cat /proc/self/cgroup | grep '^0:'"#;
    if !lab().root {
        return;
    }
    let image = t.pull("busybox");
    let ready = t.command(&["version"]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", GIVE, "sh"]);
    command.args([&t.user.uid.to_string(), &t.user.gid.to_string(), USE]);
    command.env_clear();
    for (name, value) in ready.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.env("RCON", &t.program).env("IMAGE", &image);
    let out = command.output().expect("unshare");
    if out.status.code() == Some(77) {
        // Where root may not even do that, as in a container, there is nothing to see.
        return;
    }
    let (said, told) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert_eq!(
        said, "c\npaused true false\nPaused\nc\n0::/\n0::/\n",
        "{told}"
    );
    assert!(out.status.success(), "{told}");
}

fn stats(t: &mut Rcon) {
    let image = t.pull("busybox");
    assert_eq!(
        t.run(&["stats", "--no-stream"]).cells(0),
        [
            "ID",
            "NAME",
            "CPU %",
            "MEM USAGE / LIMIT",
            "MEM %",
            "NET IO",
            "BLOCK IO",
            "PIDS",
            "CPU TIME",
            "AVG CPU %"
        ]
    );
    let id = t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        &image,
        "sh",
        "-c",
        "sleep 1000 & sleep 1000",
    ]);
    eventually("both processes", 60, || {
        (t.ok(&["stats", "--no-stream", "--format", "{{.PIDS}}", "c"]) == "3"
            || t.ok(&["stats", "--no-stream", "--format", "{{.PIDS}}", "c"]) == "2")
            .then_some(())
    });
    let json: Value =
        serde_json::from_str(&t.ok(&["stats", "--no-stream", "--format", "json", "c"])).unwrap();
    let row = &json[0];
    assert_eq!(
        (row["id"].as_str(), row["name"].as_str()),
        (Some(&id[..12]), Some("c"))
    );
    for key in [
        "cpu_time",
        "cpu_percent",
        "avg_cpu",
        "mem_usage",
        "mem_percent",
        "net_io",
        "block_io",
        "pids",
    ] {
        assert!(row[key].is_string(), "{key}: {json}");
    }
    assert!(
        row["mem_usage"].as_str().unwrap().contains("B / "),
        "{json}"
    );
    assert_eq!(
        t.ok(&[
            "container",
            "stats",
            "--no-stream",
            "--no-trunc",
            "--format",
            "{{.ID}} {{.Name}}"
        ]),
        format!("{id} c")
    );
    let table = t.ok(&[
        "stats",
        "--no-stream",
        "--format",
        "table {{.Name}} {{.CPUPerc}}",
        "c",
    ]);
    assert!(
        table.starts_with("NAME        CPU %\nc           "),
        "{table}"
    );
    t.run(&["stats", "--no-stream", "nobody"])
        .refused(125)
        .says("no such container");
    t.run(&["stats", "--all", "c"])
        .refused(125)
        .says("cannot be used together");
    t.run(&["stats", "--interval", "0"])
        .refused(125)
        .says("at least 1");
    t.ok(&["rm", "-f", "-t", "0", "c"]);
}

fn top(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    let text = t.ok(&["top", "c"]);
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "USER", "PID", "PPID", "%CPU", "ELAPSED", "TTY", "TIME", "COMMAND"
        ]
    );
    assert_eq!(
        (lines[1][0], lines[1][1], lines[1][2], lines[1][5]),
        ("root", "1", "0", "?")
    );
    assert_eq!(&lines[1][7..], ["sleep", "1000"]);
    assert_eq!(lines.len(), 2);
    assert_eq!(
        t.ok(&[
            "container",
            "top",
            "c",
            "pid",
            "user,%a",
            "comm",
            "seccomp",
            "capamb"
        ])
        .split_whitespace()
        .collect::<Vec<_>>(),
        [
            "PID", "USER", "COMMAND", "COMMAND", "SECCOMP", "AMBIENT", "CAPS", "1", "root",
            "sleep", "1000", "sleep", "filter", "none"
        ]
    );
    // The host's view: whose process it is, and that it is there.
    let host = t.ok(&["top", "c", "huser", "hpid"]);
    let cells: Vec<&str> = host.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(cells[0], t.user.name);
    assert_eq!(cells[1], t.inspect("c", "{{.State.Pid}}"));
    // What are no words of ours is ps(1)'s affair, in the container.
    let ps = t.ok(&["top", "c", "-o", "pid,args"]);
    assert!(
        ps.contains("PID") && ps.contains("sleep 1000") && ps.contains("ps -o pid,args"),
        "{ps}"
    );
    t.ok(&["rm", "-f", "-t", "0", "c"]);
    t.ok(&["create", "--name", "d", &image, "true"]);
    t.run(&["top", "d"])
        .refused(125)
        .says("top can only be used on running containers");
    t.run(&["top"]).refused(125);
    t.ok(&["rm", "d"]);
}
