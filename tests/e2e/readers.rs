//! Readers of the output that go away: as with podman, the command ends with 141, what a shell says of a program that
//! SIGPIPE ended, and says nothing of it.

use std::io::Read;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::program::Running;
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};

scenarios!(gone, only_the_beginning, programs, terminals, looking_away);

/// What the command does when nobody reads: its exit code, and what it says on standard error.
fn unread(t: &Rcon, args: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = t.command(args);
    command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whoever does not notice that nobody reads may go on for ever.
    let status = eventually(&format!("the end of {args:?}"), 120, || {
        child.try_wait().unwrap()
    });
    let mut said = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut said).unwrap();
    (status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Whoever read has gone before there is anything to read.
fn gone(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "touch /made; seq 100000";
    t.ok(&["run", "--name", "c", &image, "sh", "-c", script]);
    t.ok(&["run", "-d", "--name", "up", &image, "sleep", "1000"]);
    t.ok(&["volume", "create", "v"]);
    for line in [
        "--help",
        "--version",
        "help run",
        "run --help",
        "container --help",
        "oci --help",
        "version",
        "info",
        "doctor",
        "completion bash",
        "ps -a",
        "ps -aq",
        "ps -a --format json",
        "ps -a --format {{.Names}}",
        "inspect c",
        "inspect -f {{.Name}} c",
        "logs c",
        "logs -f c",
        "top up",
        "stats --no-stream up",
        "diff c",
        "port up",
        "export c",
        "cp c:/etc -",
        "events --stream=false",
        "images",
        "history IMAGE",
        "image tree IMAGE",
        "image inspect IMAGE",
        "save -q IMAGE",
        "save -q --format oci-archive IMAGE",
        "system df",
        "system check",
        "network ls",
        "network inspect slirp4netns",
        "volume ls",
        "volume inspect v",
        "volume export v",
        "volume create w",
        "secret ls",
        "create IMAGE true",
        "run -d IMAGE true",
        "tag nosuch IMAGE",
        "stop -t 0 up",
        "start up",
        "kill up",
        "rm up",
    ] {
        let args: Vec<&str> = line
            .split(' ')
            .map(|word| if word == "IMAGE" { &image } else { word })
            .collect();
        let (code, said) = unread(t, &args);
        let expected = match line {
            // Nothing is printed, so nothing is missed.
            "port up" | "system check" => Some(0),
            "tag nosuch IMAGE" => Some(125),
            _ => Some(141),
        };
        assert!(code == expected, "{line}: {code:?}\n{said}");
        let silent = said.is_empty() || line.starts_with("tag ");
        assert!(silent, "{line}: {said}");
    }
    t.ok(&["volume", "rm", "v", "w"]);
}

/// Whoever reads the beginning gets it, however much there is.
fn only_the_beginning(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "--name", "c", &image, "seq", "100000"]);
    t.ok(&["run", "-d", "--name", "up", &image, "sleep", "1000"]);
    t.set_env("IMAGE", &image);
    for (line, printed) in [
        ("ps -a | head -n 0", ""),
        ("logs c | head -n 1", "1\n"),
        ("logs -f c | head -n 1", "1\n"),
        ("inspect c | head -n 1", "[\n"),
        ("exec up seq 1000000 | head -n 1", "1\n"),
        ("run --rm $IMAGE seq 1000000 2>/dev/null | head -n 1", "1\n"),
        ("export c | head -c 4 | wc -c", "4\n"),
        ("cp c:/bin - | head -c 4 | wc -c", "4\n"),
        ("save -q $IMAGE | head -c 4 | wc -c", "4\n"),
    ] {
        let line = format!("{} {line}", t.program.display());
        let command = t.command_of(&["bash", "-c", &line].map(String::from));
        let out = Running::start(command, Stdio::null()).wait();
        assert!(
            out.stdout == printed && !out.stderr.contains("Error"),
            "{}",
            out.story()
        );
    }
}

/// A program in a container sees its pipe broken as it would without a container, and its exit code is the command's.
fn programs(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "while echo y; do :; done; exit 9";
    let (code, said) = unread(t, &["run", "--name", "c", &image, "sh", "-c", script]);
    // Of its errors somebody reads still: what it says of that too.
    let broken = "sh: write error: Broken pipe\n";
    assert_eq!((code, said.as_str()), (Some(9), broken));
    let state = t.ok(&["inspect", "-f", "{{.State.ExitCode}}", "c"]);
    assert_eq!(state, "9");
    // They go on, and the log has them.
    let script = "while echo y; do :; done; echo still heard >&2; exit 8";
    let (code, said) = unread(t, &["run", "--name", "d", &image, "sh", "-c", script]);
    assert_eq!(
        (code, said.as_str()),
        (Some(8), &*format!("{broken}still heard\n"))
    );
    t.run(&["logs", "d"]).says("still heard");
    // Only what is written is missed.
    let (code, said) = unread(t, &["run", "--rm", &image, "sh", "-c", "exit 3"]);
    assert_eq!((code, said.as_str()), (Some(3), ""));
}

/// A terminal cannot be closed from outside: its container runs on, as podman's does.
fn terminals(t: &mut Rcon) {
    let image = t.pull("busybox");
    let forever = ["sh", "-c", "while sleep 0.05; do echo y; done"];
    let mut run = vec!["run", "-t", "--name", "c", &image];
    run.extend(forever);
    assert_eq!(unread(t, &run), (Some(141), String::new()));
    let running = ["inspect", "-f", "{{.State.Running}}", "c"];
    assert_eq!(t.ok(&running), "true");
    assert_eq!(unread(t, &["attach", "c"]), (Some(141), String::new()));
    let mut exec = vec!["exec", "-t", "c"];
    exec.extend(forever);
    assert_eq!(unread(t, &exec), (Some(141), String::new()));
    assert_eq!(t.ok(&running), "true");
    t.ok(&["rm", "-f", "-t", "0", "c"]);
    eventually("nothing is left", 20, || {
        t.ok(&["ps", "-aq"]).is_empty().then_some(())
    });
}

/// A command whose output nobody reads, and the most of it there may be has been written.
fn stuffed(t: &Rcon, args: &[&str]) -> Child {
    let mut command = t.command(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    let held = || rustix::io::ioctl_fionread(child.stdout.as_ref().unwrap()).unwrap();
    eventually("a full pipe", 60, || (held() > 60_000).then_some(()));
    child
}

/// Who reads nothing for now keeps no signal from the program, nor the command from ending when there is only that to hear it.
fn looking_away(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "trap 'exit 3' TERM; yes & wait";
    let end = |child: &mut Child| {
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    };
    let code = |child: &mut Child| {
        eventually("the end of the command", 60, || {
            end(child);
            child.try_wait().unwrap()
        })
        .code()
    };
    let mut run = stuffed(t, &["run", "--name", "c", &image, "sh", "-c", script]);
    end(&mut run);
    eventually("the end of the container", 60, || {
        (t.inspect("c", "{{.State.Status}} {{.State.ExitCode}}") == "exited 3").then_some(())
    });
    assert_eq!(code(&mut run), Some(143));
    t.sleeper("up", &[], &image);
    let script = "trap 'touch /asked; exit 3' TERM; yes & wait; exit 4";
    let mut exec = stuffed(t, &["exec", "up", "sh", "-c", script]);
    end(&mut exec);
    eventually("the signal", 60, || {
        let out = t.run(&["exec", "up", "ls", "/asked"]);
        (out.code == 0).then_some(())
    });
    assert_eq!(code(&mut exec), Some(3));
    // What is read late is whole all the same.
    let mut run = stuffed(t, &["run", "--rm", &image, "seq", "200000"]);
    let mut all = String::new();
    run.stdout.take().unwrap().read_to_string(&mut all).unwrap();
    assert!(run.wait().unwrap().success());
    assert_eq!(
        (all.lines().count(), all.lines().last()),
        (200_000, Some("200000"))
    );
}
