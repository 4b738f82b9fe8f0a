//! A monitor whose descriptors are used up by those who are connected to it: it rests nevertheless, and keeps what it needs to
//! write down how its container ended.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};

scenarios!(crowded);

/// As many connections to a monitor as it has descriptors, with those that wait to be taken.
fn crowd(t: &Rcon, id: &str, count: u64) -> Vec<OwnedFd> {
    let folder = fs::File::open(t.dir.join("run/rcon/containers").join(id)).unwrap();
    let path = format!("/proc/self/fd/{}/ctl", folder.as_raw_fd());
    let address = UnixAddr::new(path.as_str()).unwrap();
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let one = |_| {
        let one = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        connect(one.as_raw_fd(), &address).unwrap();
        one
    };
    (0..count).map(one).collect()
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
    let allow = |now: u64, most: u64| {
        let words = [
            "prlimit".to_owned(),
            format!("--pid={monitor}"),
            format!("--nofile={now}:{most}"),
        ];
        let limited = t.command_of(&words).status();
        limited.is_ok_and(|status| status.success())
    };
    let limit = alone + 24;
    if !allow(limit, 4 * limit) {
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
    assert!(allow(limit, limit));
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
