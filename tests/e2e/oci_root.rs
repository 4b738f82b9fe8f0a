//! What `rcon oci` does for root alone: nodes, namespaces that are shared with the machine, id-mapped mounts, real-time
//! scheduling, capabilities of its own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::lab::Rcon;
use crate::lab::bundle::Bundle;
use crate::lab::program::Running;
use crate::lab::scenario::scenarios;

scenarios!(as_root, schedulers, capabilities_that_root_lacks);

/// What only root can have: nodes, namespaces that are shared with the machine, id-mapped mounts.
fn as_root(t: &mut Rcon) {
    if !t.is_roots() {
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
    b.own_users();
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

fn schedulers(t: &mut Rcon) {
    if !t.is_roots() {
        return;
    }
    let mut b = Bundle::of_root(t, "b");
    // Policy, and priority beside it (proc_pid_stat(5)).
    let fifo = |flags: &[&str]| json!({"policy": "SCHED_FIFO", "priority": 5, "flags": flags});
    let own = "exec cut -d' ' -f40,41 /proc/self/stat";
    let child = "cut -d' ' -f40,41 /proc/self/stat; true";
    for (scheduler, script, shown) in [
        (fifo(&[]), own, "5 1"),
        (fifo(&[]), child, "5 1"),
        // Beyond the first program it has no effect.
        (fifo(&["SCHED_FLAG_RESET_ON_FORK"]), child, "0 0"),
        (fifo(&["SCHED_FLAG_NO_SUCH"]), own, "unknown variant"),
        (json!({"policy": "SCHED_RR", "priority": 7}), own, "7 2"),
        (
            json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 10_000_000}),
            own,
            "0 6",
        ),
        (json!({"policy": "SCHED_IDLE"}), own, "0 5"),
    ] {
        b.set("/process/scheduler", scheduler).script(script);
        let out = b.run(t);
        if shown.starts_with("unknown") {
            out.code(1).says(shown);
            continue;
        }
        // A cgroup of version 1 may have been given no real time.
        if !out.stderr.contains("Operation not permitted") {
            out.prints(&format!("{shown}\n"));
        }
    }
    b.set("/process/scheduler", Value::Null);
    b.set(
        "/process/ioPriority",
        json!({"class": "IOPRIO_CLASS_RT", "priority": 2}),
    );
    assert_eq!(b.sh(t, "ionice"), "realtime: prio 2");
}

/// What the caller does not have it cannot give: that is said, and the container runs without.
fn capabilities_that_root_lacks(t: &mut Rcon) {
    if !t.is_roots() {
        return;
    }
    let mut b = Bundle::of_root(t, "b");
    let some = ["CAP_CHOWN", "CAP_SYS_BOOT"];
    b.set(
        "/process/capabilities",
        json!({"bounding": some, "permitted": some, "effective": some}),
    );
    b.script("grep -E 'Cap(Bnd|Eff)' /proc/self/status | tr -d '\\t'");
    b.write();
    let own = b.command(t, &["run", "c"]);
    let mut command = std::process::Command::new("setpriv");
    command.args(["--bounding-set=-sys_boot", "--inh-caps=-all", "--"]);
    command.arg(own.get_program()).args(own.get_args());
    command.current_dir(&b.dir).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let out = Running::start(command, Stdio::null()).wait();
    out.says("Warning: the capability CAP_SYS_BOOT is not this process's own, and not given");
    out.prints("CapEff:0000000000000001\nCapBnd:0000000000000001\n");
}
