//! Containers as services of systemd: notices to it, sockets that it has opened, and other files that are handed on.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Output, Rcon, eventually};

scenarios!(
    files_are_handed_on,
    sockets_are_handed_on,
    ready_by_the_monitor,
    ready_by_the_program,
    ready_when_healthy,
);

/// Runs a command by the shell, with redirections that this program would not make itself.
#[track_caller]
fn by_shell(t: &Rcon, line: &str, args: &[&str]) -> Output {
    let program = t.program.to_str().unwrap();
    let words: Vec<String> = [&["sh", "-c", line, program][..], args]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
    crate::lab::program::Running::start(t.command_of(&words), std::process::Stdio::null()).wait()
}

fn files_are_handed_on(t: &mut Rcon) {
    let image = t.pull("busybox");
    let file = t.write("given", "from a file\n");
    let line = format!("exec \"$0\" \"$@\" 3<{file} 5<{file}");
    let open = "ls /proc/self/fd | grep -c . >/dev/null; cat <&3";
    let handed = |option: &str, number: &str, script: &str| {
        let words = ["run", "--rm", option, number, &image, "sh", "-c", script];
        by_shell(t, &line, &words)
    };
    handed("--preserve-fds", "1", open).prints("from a file\n");
    // What was not asked for does not get in.
    handed("--preserve-fds", "1", "cat <&5").says("bad file descriptor");
    handed("--preserve-fd", "5", "cat <&5").prints("from a file\n");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    by_shell(
        t,
        &line,
        &["exec", "--preserve-fds", "1", "c", "sh", "-c", "cat <&3"],
    )
    .prints("from a file\n");
    by_shell(
        t,
        "exec \"$0\" \"$@\"",
        &["run", "--preserve-fds", "1", &image, "true"],
    )
    .refused(125)
    .says("is not available");
    t.ok(&["rm", "-f", "-t", "0", "c"]);
    t.has_containers(0);
}

fn sockets_are_handed_on(t: &mut Rcon) {
    let image = t.pull("busybox");
    let file = t.write("given", "a socket stands here\n");
    let line = format!("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec \"$0\" \"$@\" 3<{file}");
    let show = "echo $$ $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES; cat <&3";
    by_shell(t, &line, &["run", "--rm", &image, "sh", "-c", show])
        .prints("1 1 1 web\na socket stands here\n");
    // They are for the process that is named, and for nobody else.
    let line = format!("LISTEN_PID=1 LISTEN_FDS=1 exec \"$0\" \"$@\" 3<{file}");
    by_shell(
        t,
        &line,
        &["run", "--rm", &image, "sh", "-c", "echo $LISTEN_FDS."],
    )
    .prints(".\n");
}

/// A socket as systemd's, which every command from now on is told of.
fn manager(t: &mut Rcon) -> UnixDatagram {
    let path = t.dir.join("tmp/notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    t.set_env("NOTIFY_SOCKET", path.to_str().unwrap());
    socket
}

fn next(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let count = manager.recv(&mut buffer).expect("a notice");
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

fn ready_by_the_monitor(t: &mut Rcon) {
    let image = t.pull("busybox");
    let manager = manager(t);
    let script = "echo .$NOTIFY_SOCKET; exec sleep 1000";
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        "--sdnotify",
        "conmon",
        &image,
        "sh",
        "-c",
        script,
    ]);
    let monitor = t.inspect("c", "{{.State.ConmonPid}}");
    assert_eq!(next(&manager), format!("MAINPID={monitor}\nREADY=1"));
    eventually("its word", 20, || {
        (t.ok(&["logs", "c"]) == ".").then_some(())
    });
    t.ok(&["run", "--rm", "--sdnotify", "ignore", &image, "true"]);
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 64]).is_err());
    fs::remove_file(t.dir.join("tmp/notify")).unwrap();
}

fn ready_by_the_program(t: &mut Rcon) {
    let image = t.pull("busybox");
    let manager = manager(t);
    // Also one who is not the owner of the socket.
    let user = if t.mode == Mode::ManyIds { "1000" } else { "0" };
    let words = [
        "run", "-d", "--name", "c", "-u", user, &image, "sleep", "1000",
    ];
    t.ok(&words);
    let monitor = t.inspect("c", "{{.State.ConmonPid}}");
    assert_eq!(next(&manager), format!("MAINPID={monitor}"));
    // The program finds a socket that it may write to.
    let test = "tr '\\0' '\\n' </proc/1/environ | grep ^NOTIFY; test -S /run/notify/notify -a -w /run/notify/notify && echo fine";
    t.run(&["exec", "c", "sh", "-c", test])
        .prints("NOTIFY_SOCKET=/run/notify/notify\nfine\n");
    // What it says there is passed on, but for who the main process is.
    let id = t.inspect("c", "{{.Id}}");
    let folder = fs::File::open(t.dir.join(format!("run/rcon/containers/{id}/notify"))).unwrap();
    // The path itself is too long for a socket's.
    let inner = format!("/proc/self/fd/{}/notify", folder.as_raw_fd());
    let program = UnixDatagram::unbound().unwrap();
    program
        .send_to(b"MAINPID=1\nREADY=1\nSTATUS=serving", inner)
        .unwrap();
    assert_eq!(next(&manager), "READY=1\nSTATUS=serving");
    fs::remove_file(t.dir.join("tmp/notify")).unwrap();
}

fn ready_when_healthy(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--sdnotify", "healthy", &image, "true"])
        .refused(125)
        .says("requires a healthcheck");
    let manager = manager(t);
    t.sleeper(
        "c",
        &[
            "--sdnotify",
            "healthy",
            "--health-cmd",
            "test -e /ok",
            "--health-interval",
            "100ms",
        ],
        &image,
    );
    assert!(next(&manager).starts_with("MAINPID="));
    t.ok(&["exec", "c", "touch", "/ok"]);
    assert_eq!(next(&manager), "READY=1");
    fs::remove_file(t.dir.join("tmp/notify")).unwrap();
}
