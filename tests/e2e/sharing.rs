//! Namespaces that a container shares with the host and with other containers.

use std::fs;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};

scenarios!(
    with_the_host,
    processes_of_the_host_end_with_it,
    with_another,
    memory_of_another,
    users_of_another,
    one_that_ends,
    what_cannot_be_joined,
);

fn host(kind: &str) -> String {
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    link.to_str().unwrap().to_owned()
}

/// The namespaces of a new container, in the order of `kinds`.
fn of(t: &Rcon, image: &str, flags: &[&str], kinds: &str) -> Vec<String> {
    let script = format!("for n in {kinds}; do readlink /proc/self/ns/$n; done");
    let words = [&["run", "--rm"], flags, &[image, "sh", "-c", &script]].concat();
    t.ok(&words).lines().map(str::to_owned).collect()
}

fn with_the_host(t: &mut Rcon) {
    let image = t.pull("busybox");
    let all = "pid ipc uts cgroup user";
    let flags = [
        "--pid=host",
        "--ipc=host",
        "--uts=host",
        "--cgroupns=host",
        "--userns=host",
    ];
    let found = of(t, &image, &flags, all);
    let hosts: Vec<String> = all.split(' ').map(host).collect();
    assert_eq!(found[..4], hosts[..4]);
    // The users are the same as ever: there is no way to be root of the host.
    assert_ne!(found[4], hosts[4]);
    let own = of(
        t,
        &image,
        &["--cgroupns", "private", "--ipc", "private"],
        all,
    );
    assert!(
        own.iter().all(|namespace| !hosts.contains(namespace)),
        "{own:?}"
    );

    let name = rustix::system::uname()
        .nodename()
        .to_str()
        .unwrap()
        .to_owned();
    t.sh(
        &["--uts", "host"],
        &image,
        "hostname; cat /etc/hostname; echo $HOSTNAME",
    )
    .prints(&format!("{name}\n{name}\n{name}\n"));
    t.run(&["run", "--rm", "--uts=host", "-h", "x", &image, "true"])
        .refused(125)
        .says("cannot set hostname when running in the host UTS namespace: invalid configuration");
    t.run(&[
        "run",
        "--rm",
        "--ipc=host",
        "--sysctl",
        "kernel.shmmax=1",
        &image,
        "true",
    ])
    .refused(125)
    .says("sysctl kernel.shmmax=1 can't be set since IPC Namespace set to host: invalid argument");
    t.run(&[
        "run",
        "--rm",
        "--ipc",
        "none",
        &image,
        "grep",
        "-c",
        "/dev/shm",
        "/proc/mounts",
    ])
    .code(1)
    .shows("0\n");

    t.ok(&[
        "create",
        "--name",
        "c",
        "--pid",
        "host",
        "--ipc",
        "none",
        "--uts",
        "host",
        "--cgroupns=host",
        &image,
        "true",
    ]);
    let modes = "{{.HostConfig.PidMode}} {{.HostConfig.IpcMode}} {{.HostConfig.UTSMode}} {{.HostConfig.CgroupMode}}";
    assert_eq!(t.inspect("c", modes), "host none host host");
    t.ok(&["create", "--name", "d", &image, "true"]);
    assert_eq!(t.inspect("d", modes), "private shareable private private");
}

fn processes_of_the_host_end_with_it(t: &mut Rcon) {
    let image = t.pull("busybox");
    // One that nobody waits for, in a session of its own.
    let script = "setsid sleep 98765 & exec sleep 1000";
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        "--pid=host",
        &image,
        "sh",
        "-c",
        script,
    ]);
    let lonely = || -> Vec<String> {
        let listed = t.ok(&["top", "c", "hpid", "args"]);
        let lines = listed.lines().filter(|line| line.contains("98765"));
        lines
            .map(|line| line.split_whitespace().next().unwrap().to_owned())
            .collect()
    };
    let pids = eventually("both processes", 20, || {
        Some(lonely()).filter(|pids| pids.len() == 1)
    });
    t.run(&["exec", "c", "sh", "-c", "readlink /proc/self/ns/pid"])
        .prints(&format!("{}\n", host("pid")));
    t.ok(&["stop", "-t", "0", "c"]);
    let left = fs::read_to_string(format!("/proc/{}/cmdline", pids[0])).unwrap_or_default();
    assert!(!left.contains("98765"), "{left} is left");
    t.ok(&["start", "c"]);
    t.ok(&["rm", "-f", "-t", "0", "c"]);
}

fn with_another(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.sleeper("first", &["-h", "some.name"], &image);
    let kinds = "pid ipc uts user net";
    let script = format!("for n in {kinds}; do readlink /proc/self/ns/$n; done");
    let theirs = t.ok(&["exec", "first", "sh", "-c", &script]);
    let theirs: Vec<&str> = theirs.lines().collect();
    let flags = [
        "--pid=container:first",
        "--ipc=container:first",
        "--uts=container:first",
    ];
    let found = of(t, &image, &flags, kinds);
    assert_eq!(found[..4], theirs[..4]);
    // It still has a network of its own.
    assert_ne!(found[4], theirs[4]);
    t.run(&["run", "--rm", "--pid=container:first", "--uts=container:first", &image, "sh", "-c", "hostname; cat /etc/hostname; ps -o args | grep -c '[s]leep 1000'; ip addr show tap0 | grep -c 10.0.2.100"])
        .prints("some.name\nsome.name\n1\n1\n");
    // Programs of both see and end one another, and exec goes to the right one.
    t.ok(&[
        "run",
        "-d",
        "--name",
        "second",
        "--pid=container:first",
        &image,
        "sleep",
        "2000",
    ]);
    t.run(&["exec", "second", "ps", "-o", "args"])
        .shows("sleep 1000")
        .shows("sleep 2000");
    let listed = t.ok(&["top", "second", "args"]);
    assert!(
        !listed.contains("sleep 1000") && listed.contains("sleep 2000"),
        "{listed}"
    );
    let id = t.inspect("first", "{{.Id}}");
    assert_eq!(
        t.inspect("second", "{{.HostConfig.PidMode}}"),
        format!("container:{id}")
    );
    assert_eq!(t.inspect("second", "{{index .Dependencies 0}}"), id);
    let pid = t.inspect("first", "{{.State.Pid}}");
    let of_path = of(
        t,
        &image,
        &["--uts", &format!("ns:/proc/{pid}/ns/uts")],
        "uts",
    );
    assert_eq!(of_path[0], theirs[2]);
}

fn memory_of_another(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&[
        "run",
        "-d",
        "--name",
        "first",
        &image,
        "sh",
        "-c",
        "echo hello > /dev/shm/note; exec sleep 1000",
    ]);
    let shared = ["run", "--rm", "--ipc=container:first", &image];
    let sh = |script: &str| t.run(&[&shared[..], &["sh", "-c", script]].concat());
    eventually("the note", 20, || {
        (sh("cat /dev/shm/note").stdout == "hello\n").then_some(())
    });
    sh("echo back > /dev/shm/answer; grep -c ' /dev/shm ' /proc/mounts").prints("1\n");
    t.run(&["exec", "first", "cat", "/dev/shm/answer"])
        .prints("back\n");
    // Where something else of the container lies in its place, nothing is shared.
    t.sleeper("odd", &["-v", "/usr:/dev/shm:ro"], &image);
    t.run(&["run", "--rm", "--ipc=container:odd", &image, "true"])
        .code(125)
        .says("cannot share /dev/shm of container odd");
    t.sleeper("closed", &["--ipc=private"], &image);
    t.run(&["run", "--rm", "--ipc=container:closed", &image, "true"])
        .refused(125)
        .says("is not allowed: non-shareable IPC");
    t.sleeper("none", &["--ipc=none"], &image);
    t.run(&["run", "--rm", "--ipc=container:none", &image, "true"])
        .refused(125)
        .says("non-shareable IPC");
}

fn users_of_another(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "first", &image, "sleep", "1000"]);
    let theirs = t.ok(&["exec", "first", "readlink", "/proc/self/ns/user"]);
    let found = of(t, &image, &["--userns", "container:first"], "user pid");
    assert_eq!(found[0], theirs);
    assert_ne!(
        found[1],
        t.ok(&["exec", "first", "readlink", "/proc/self/ns/pid"])
    );
    // Which makes it possible to be with two others at once.
    t.sleeper("second", &["--userns=container:first"], &image);
    t.run(&[
        "run",
        "--rm",
        "--pid=container:first",
        "--ipc=container:second",
        "--network=container:second",
        &image,
        "true",
    ])
    .code(0);
    t.ok(&["run", "-d", "--name", "third", &image, "sleep", "1000"]);
    t.run(&[
        "run",
        "--rm",
        "--pid=container:first",
        "--ipc=container:third",
        &image,
        "true",
    ])
    .code(125)
    .says("belongs to another user namespace than what else is joined")
    .says("--userns container:FIRST");
}

fn one_that_ends(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "first", &image, "sleep", "1000"]);
    t.ok(&[
        "run",
        "-d",
        "--name",
        "second",
        "--pid=container:first",
        "--ipc=container:first",
        &image,
        "sleep",
        "2000",
    ]);
    // With its first process a process namespace ends, and all in it.
    t.ok(&["stop", "-t", "0", "first"]);
    t.run(&["wait", "second"]).prints("137\n");
    t.run(&["start", "second"])
        .code(125)
        .says("cannot join the pid namespace of container first, which does not run");
    t.ok(&["start", "first"]);
    t.ok(&["start", "second"]);
    // However the other is being ended meanwhile, a start either works or says why it does not.
    for round in 0..4 {
        t.ok(&["start", "first"]);
        let name = format!("r{round}");
        let starting = t.start(&[
            "run",
            "--name",
            &name,
            "--pid=container:first",
            "--ipc=container:first",
            &image,
            "true",
        ]);
        t.ok(&["kill", "first"]);
        let out = starting.wait();
        // Else it might still be said to run, and not be started for the next round.
        t.run(&["wait", "first"]).prints("137\n");
        let said = [
            "which does not run",
            "ended while its namespaces were joined",
        ];
        assert!(
            [0, 137].contains(&out.code)
                || (out.code == 125 && said.iter().any(|s| out.stderr.contains(s))),
            "{}",
            out.story()
        );
    }
}

fn what_cannot_be_joined(t: &mut Rcon) {
    let image = t.pull("busybox");
    for (flag, message) in [
        ("--pid=foo", "unrecognized namespace mode foo passed"),
        (
            "--ipc=container:nope",
            "looking up container to share ipc namespace with: no container with name or ID \"nope\" found: no such container",
        ),
        ("--userns=container:", "must provide a container to join"),
        ("--uts=ns:x", "must provide the path of a namespace to join"),
        (
            "--cgroupns=ns:/nowhere",
            "cannot join the cgroup namespace /nowhere: no such file or directory",
        ),
        ("--pid=ns:/proc/self/ns/ipc", "is not a pid namespace"),
    ] {
        let out = t.run(&["run", "--rm", flag, &image, "true"]);
        assert!(
            out.code == 125 && out.stderr.contains(message),
            "{}",
            out.story()
        );
    }
}
