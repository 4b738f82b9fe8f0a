//! What a container sent before it ended arrives, however slow the receiver, and nobody waits for that.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::net::{accept, free_port};
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, leaks, skip};

scenarios!(
    sent_out,
    answered,
    started_again,
    killed,
    with_another_monitor,
    nothing_under_way,
);

/// How much is sent, in bytes: more than there is room for on the way.
const LONG: usize = 20_000_000;
/// So much there is room for on the way.
const ROOM: usize = 3_000_000;

const OUT: [&str; 2] = ["--network", "slirp4netns:allow_host_loopback=true"];

fn bytes() -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..LONG / 8).flat_map(|_| next()).collect()
}

/// The bytes in a file, as an option mounts it at `/file`.
fn file(t: &Rcon) -> String {
    format!("{}:/file:ro", t.write("file", bytes()))
}

/// A listener on the host's loopback, and its port.
fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
}

/// Somebody who takes what comes as slowly as may be.
struct Receiver {
    stream: TcpStream,
    got: Vec<u8>,
}

impl Receiver {
    fn of(stream: TcpStream) -> Receiver {
        let limit = Some(Duration::from_secs(60));
        stream.set_read_timeout(limit).unwrap();
        Receiver {
            stream,
            got: Vec::new(),
        }
    }

    /// Sleeps, and then takes as little as it can, until the container has ended.
    fn hold_up(&mut self, mut ended: impl FnMut() -> bool) {
        const STEP: usize = 1_000_000;
        for turn in 0.. {
            std::thread::sleep(Duration::from_millis(300));
            if ended() {
                break;
            }
            assert!(turn < 400, "the container does not end");
            if self.got.len() + STEP + ROOM <= LONG {
                let from = self.got.len();
                self.got.resize(from + STEP, 0);
                self.stream.read_exact(&mut self.got[from..]).unwrap();
            }
        }
        assert!(self.got.len() + ROOM <= LONG);
    }

    /// Sleeps, and then takes all the rest.
    fn rest(&mut self) -> &[u8] {
        std::thread::sleep(Duration::from_millis(700));
        let mut chunk = vec![0; 100_000];
        loop {
            match self.stream.read(&mut chunk).unwrap() {
                0 => return &self.got,
                count => self.got.extend_from_slice(&chunk[..count]),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Takes the rest, which is the rest of all that was sent.
    #[track_caller]
    fn gets_everything(&mut self) {
        let got = self.rest();
        assert!(got == bytes(), "{} of {LONG} bytes", got.len());
    }
}

/// A client of a server that begins to speak at once.
fn client(to: &str) -> Receiver {
    let served = || {
        let stream = TcpStream::connect(to).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .ok()?;
        matches!(stream.peek(&mut [0; 1]), Ok(1)).then_some(stream)
    };
    Receiver::of(eventually("a server", 60, served))
}

/// The network processes.
fn networks(t: &Rcon) -> usize {
    let is_network = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "rcon-net\n")
    };
    leaks::process_ids(&t.dir)
        .iter()
        .filter(|pid| is_network(pid))
        .count()
}

/// None lingers; not when its patience is at an end, but as soon as everything is delivered.
#[track_caller]
fn all_have_gone(t: &Rcon) {
    eventually("nothing lingers", 20, || (networks(t) == 0).then_some(()));
}

fn sent_out(t: &mut Rcon) {
    let image = t.pull("busybox");
    let (listener, port) = listen();
    let volume = file(t);
    let send = ["nc", "10.0.2.2", &port, "-e", "cat", "/file"];
    let words = [
        &["run", "--name", "c", "-v", &volume],
        &OUT[..],
        &[&image],
        &send,
    ]
    .concat();
    let mut run = t.start(&words);
    let mut receiver = Receiver::of(accept(&listener));
    receiver.hold_up(|| run.has_ended());
    run.wait().code(0).quiet();
    t.run(&["ps", "-a", "--format", "{{.Status}}"])
        .shows("Exited (0)");
    assert_eq!(networks(t), 1);
    // It holds nothing of the container's.
    t.ok(&["rm", "c"]);
    receiver.gets_everything();
    all_have_gone(t);
}

fn answered(t: &mut Rcon) {
    let image = t.pull("busybox");
    let volume = file(t);
    for address in ["127.0.0.1", "[::1]"] {
        if TcpListener::bind(format!("{address}:0")).is_err() {
            skip(&format!("there is no {address}"));
            continue;
        }
        let to = format!("{address}:{}", free_port());
        let publish = format!("{to}:80");
        t.ok(&[
            "run", "-d", "--name", "c", "-p", &publish, "-v", &volume, &image, "nc", "-l", "-p",
            "80", "-e", "cat", "/file",
        ]);
        let mut receiver = client(&to);
        let mut wait = t.start(&["wait", "c"]);
        receiver.hold_up(|| wait.has_ended());
        wait.wait().prints("0\n");
        assert_eq!(networks(t), 1);
        // The port is free for others, and for the same container, whose next client comes before the first has got all.
        let refused = TcpStream::connect(&to).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        drop(TcpListener::bind(&to).unwrap());
        t.ok(&["start", "c"]);
        client(&to).gets_everything();
        receiver.gets_everything();
        t.run(&["wait", "c"]).prints("0\n");
        t.ok(&["rm", "c"]);
        all_have_gone(t);
    }
}

fn started_again(t: &mut Rcon) {
    let image = t.pull("busybox");
    let (listener, port) = listen();
    let volume = file(t);
    let script = format!(
        "[ -e /done ] && exec sleep 1000; touch /done; exec nc 10.0.2.2 {port} -e cat /file"
    );
    let run = [
        "run",
        "-d",
        "--name",
        "c",
        "--restart",
        "always",
        "-v",
        &volume,
    ];
    t.ok(&[&run, &OUT[..], &[&image, "sh", "-c", &script]].concat());
    let mut receiver = Receiver::of(accept(&listener));
    let look = "{{.RestartCount}} {{.State.Status}}";
    receiver.hold_up(|| t.inspect("c", look) == "1 running");
    assert_eq!(networks(t), 2);
    receiver.gets_everything();
    // Its monitor is still there, and leaves nothing of it.
    let monitor = t.inspect("c", "{{.State.ConmonPid}}");
    let children = || {
        let table = fs::read_dir("/proc").unwrap().flatten();
        let stats = table.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
        stats
            .filter(|stat| {
                let words = stat.rsplit_once(") ").map_or("", |(_, words)| words);
                stat.contains("(rcon-net)") && words.split(' ').nth(1) == Some(&monitor)
            })
            .count()
    };
    eventually("one is left", 20, || (children() == 1).then_some(()));
    t.ok(&["rm", "-f", "-t", "0", "c"]);
    all_have_gone(t);
}

fn killed(t: &mut Rcon) {
    /// How much is written at a time, in bytes.
    const PIECE: usize = 10_000;
    let image = t.pull("busybox");
    let (listener, port) = listen();
    let volume = file(t);
    let script = format!("exec nc 10.0.2.2 {port} -e dd if=/file bs={PIECE}");
    let run = ["run", "-d", "--name", "c", "-v", &volume];
    t.ok(&[&run, &OUT[..], &[&image, "sh", "-c", &script]].concat());
    let mut receiver = Receiver::of(accept(&listener));
    // It has sent what there is room for, and waits with the next piece.
    let mut before = 0;
    let read = eventually("it to wait", 60, || {
        std::thread::sleep(Duration::from_millis(500));
        let about = t.ok(&["exec", "c", "cat", "/proc/1/fdinfo/0"]);
        let place = about.lines().find_map(|line| line.strip_prefix("pos:"));
        let now: usize = place?.trim().parse().ok()?;
        (std::mem::replace(&mut before, now) == now && now > ROOM).then_some(now)
    });
    t.ok(&["kill", "c"]);
    t.run(&["wait", "c"]).prints("137\n");
    t.ok(&["system", "reset", "--force"]);
    // All that it had sent, and its end: as from a program that is killed.
    let got = receiver.rest();
    let sent = read - PIECE..=read;
    assert!(sent.contains(&got.len()), "{} of {sent:?}", got.len());
    assert!(bytes().starts_with(got));
    all_have_gone(t);
}

fn with_another_monitor(t: &mut Rcon) {
    let image = t.pull("busybox");
    let volume = file(t);
    for looked_at in [true, false] {
        let (listener, port) = listen();
        let publish = format!("127.0.0.1:{}:80", free_port());
        let send = [&image, "nc", "10.0.2.2", &port, "-e", "cat", "/file"];
        let run = ["run", "-d", "--name", "c", "-p", &publish, "-v", &volume];
        t.ok(&[&run, &OUT[..], &send].concat());
        let mut receiver = Receiver::of(accept(&listener));
        let init = t.inspect("c", "{{.State.Pid}}");
        let monitor: i32 = t.inspect("c", "{{.State.ConmonPid}}").parse().unwrap();
        kill(Pid::from_raw(monitor), Signal::SIGKILL).unwrap();
        if looked_at {
            let look =
                || (t.inspect("c", "{{.State.ConmonPid}}") != monitor.to_string()).then_some(());
            eventually("another monitor", 20, look);
            let mut wait = t.start(&["wait", "c"]);
            receiver.hold_up(|| wait.has_ended());
            wait.wait().code(0);
        } else {
            let status = format!("/proc/{init}/stat");
            let ended = || fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z "));
            receiver.hold_up(ended);
        }
        drop(TcpListener::bind(publish.trim_end_matches(":80")).unwrap());
        t.run(&["ps", "-a", "--format", "{{.Status}}"])
            .shows("Exited");
        assert_eq!(networks(t), 1);
        t.ok(&["rm", "c"]);
        receiver.gets_everything();
        all_have_gone(t);
    }
}

fn nothing_under_way(t: &mut Rcon) {
    let image = t.pull("busybox");
    let (listener, port) = listen();
    let served = free_port();
    let publish = format!("127.0.0.1:{served}:80");
    let script = format!(
        "nc -l -p 80 -e sleep 1000 & nc 10.0.2.2 {port} -e sleep 1000 & exec nc 10.0.2.2 {port} -e sleep 1000"
    );
    let run = ["run", "-d", "--name", "c", "-p", &publish];
    t.ok(&[&run, &OUT[..], &[&image, "sh", "-c", &script]].concat());
    let (mut quiet, mut ignored) = (accept(&listener), accept(&listener));
    // Columns: protocol, waiting to be read, to be sent, addresses of both ends, state.
    let seen = |what: &str, is_it: &dyn Fn(&[&str]) -> bool| {
        eventually(what, 20, || {
            let table = t.ok(&["exec", "c", "netstat", "-tan"]);
            let mut lines = table
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines
                .any(|line| line.len() == 6 && is_it(&line))
                .then_some(())
        });
    };
    seen("a server", &|line| line[5] == "LISTEN");
    let mut client = TcpStream::connect(("127.0.0.1", served)).unwrap();
    seen("a client", &|line| {
        line[3].ends_with(":80") && line[5] == "ESTABLISHED"
    });
    // What the container has and has not read when it ends, its kernel answers with a reset.
    ignored.write_all(b"unread").unwrap();
    seen("what was said", &|line| line[1] == "6");
    for stream in [&quiet, &ignored, &client] {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
    }
    t.ok(&["stop", "-t", "0", "c"]);
    all_have_gone(t);
    assert_eq!(quiet.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    let reset = ignored.read(&mut [0; 1]).unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
}
