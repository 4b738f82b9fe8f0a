//! A monitor whose descriptors are used up by those who are connected to it: it rests nevertheless, and keeps what it needs to
//! write down how its container ended.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};

scenarios!(crowded, ended_though_crowded);

/// As many connections to a monitor as it has descriptors, with those that wait to be taken.
fn crowd(t: &Rcon, id: &str, count: u64) -> Vec<OwnedFd> {
    (0..count).map(|_| attempt(t, id).unwrap()).collect()
}

/// As many as there can be: nobody else can even wait to be taken.
fn throng(t: &Rcon, id: &str) -> Vec<OwnedFd> {
    let mut many = Vec::new();
    let mut refusals = 0;
    while refusals < 20 {
        match attempt(t, id) {
            Ok(one) => many.push(one),
            Err(Errno::EAGAIN) => {
                // Unless the monitor is just about to take some.
                refusals += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(many.len() < 1000, "all are taken");
    }
    many
}

fn attempt(t: &Rcon, id: &str) -> Result<OwnedFd, Errno> {
    let folder = fs::File::open(t.dir.join("run/rcon/containers").join(id)).unwrap();
    let path = format!("/proc/self/fd/{}/ctl", folder.as_raw_fd());
    let address = UnixAddr::new(path.as_str()).unwrap();
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let one = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    connect(one.as_raw_fd(), &address).map(|()| one)
}

/// Limits the descriptors of a monitor; false where that cannot be done.
fn allow(t: &Rcon, monitor: i32, now: u64, most: u64) -> bool {
    let words = [
        "prlimit".to_owned(),
        format!("--pid={monitor}"),
        format!("--nofile={now}:{most}"),
    ];
    let limited = t.command_of(&words).status();
    limited.is_ok_and(|status| status.success())
}

fn crowded(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "trap 'echo bye; exit 7' USR1; while :; do sleep 0.1; done";
    let id = t.ok(&["run", "-d", "--name", "c", &image, "sh", "-c", script]);
    let monitor: i32 = t.inspect("c", "{{.State.ConmonPid}}").parse().unwrap();
    let open = || fs::read_dir(format!("/proc/{monitor}/fd")).map(|open| open.count() as u64);
    let Ok(alone) = open() else {
        return crate::lab::skip("what the monitor has open cannot be seen");
    };
    let limit = alone + 24;
    if !allow(t, monitor, limit, 4 * limit) {
        return crate::lab::skip("prlimit (util-linux) is missing");
    }

    // As far as it may, it makes room.
    let many = crowd(t, &id, limit);
    eventually("all are connected", 60, || {
        (open().unwrap() >= alone + limit).then_some(())
    });
    drop(many);
    eventually("all are gone", 60, || {
        (open().unwrap() <= alone + 2).then_some(())
    });
    assert!(allow(t, monitor, limit, limit));
    let many = crowd(t, &id, limit);
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{monitor}/stat")).unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        let fields = rest.split(' ').skip(11).take(2);
        fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    };
    eventually("a monitor that rests", 20, || {
        let before = ticks();
        std::thread::sleep(Duration::from_secs(1));
        (ticks() - before < 5).then_some(())
    });
    // Who comes now waits until others go.
    let attached = t.start(&["attach", "--no-stdin", "c"]);
    drop(many);
    let events = [
        "events",
        "--stream=false",
        "--since=1h",
        "--filter=event=attach",
    ];
    eventually("it is attached", 60, || {
        t.ok(&events).contains("attach").then_some(())
    });
    let many = crowd(t, &id, limit);
    t.ok(&["exec", "c", "kill", "-USR1", "1"]);
    attached.wait().code(7).shows("bye");
    t.run(&["wait", "c"]).prints("7\n");
    t.run(&["logs", "c"]).prints("bye\n");
    let end = t.inspect(
        "c",
        "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}",
    );
    assert_eq!(end, "exited 7 ");
    drop(many);
    t.ok(&["rm", "c"]);
}

/// Ending it waits for none of those who are connected.
fn ended_though_crowded(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "trap 'exit 7' TERM; while :; do sleep 0.1; done";
    for (restart, words, end) in [
        ("no", &["stop", "-t", "60", "c"][..], "exited 7"),
        ("always", &["stop", "-t", "60", "c"], "exited 7"),
        ("no", &["kill", "c"], "exited 137"),
        ("no", &["rm", "-f", "-t", "0", "c"], ""),
    ] {
        let run = ["run", "-d", "--name", "c", "--restart", restart];
        let id = t.ok(&[&run[..], &[&image, "sh", "-c", script]].concat());
        let monitor: i32 = t.inspect("c", "{{.State.ConmonPid}}").parse().unwrap();
        let Ok(open) = fs::read_dir(format!("/proc/{monitor}/fd")) else {
            return crate::lab::skip("what the monitor has open cannot be seen");
        };
        let limit = open.count() as u64 + 24;
        if !allow(t, monitor, limit, limit) {
            return crate::lab::skip("prlimit (util-linux) is missing");
        }
        let many = throng(t, &id);
        t.run(words).code(0);
        if !end.is_empty() {
            // Nor is it started again.
            for _ in 0..2 {
                let now = t.inspect("c", "{{.State.Status}} {{.State.ExitCode}}");
                assert_eq!(now, end, "{words:?} {restart}");
                std::thread::sleep(Duration::from_millis(500));
            }
            t.ok(&["rm", "c"]);
        }
        drop(many);
    }
}
