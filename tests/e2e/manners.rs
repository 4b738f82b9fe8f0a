//! What all commands have in common: help, unknown flags, readers that go away, colours, narrow terminals, `--quiet`, and the
//! exit codes 125, 126, 127 and 128+n.

use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, registry};

scenarios!(
    every_command,
    colours_and_widths,
    quiet,
    exit_codes,
    flags_of_run,
    filters_of_the_help
);

/// The commands of the reference, as they are typed.
fn commands() -> Vec<Vec<&'static str>> {
    let document = include_str!("../../docs/cli.md");
    let chapters = document.split("\n## rcon ").skip(1);
    let all: Vec<Vec<&str>> = chapters
        .map(|chapter| chapter.lines().next().unwrap().split(' ').collect())
        .collect();
    assert!(all.len() > 80, "{} commands", all.len());
    all
}

/// Every command helps, refuses flags that it does not know in podman's words, and ends like any program when nobody reads.
fn every_command(t: &mut Rcon) {
    let mut wrong = Vec::new();
    for words in commands() {
        let with = |word: &'static str| [&words[..], &[word]].concat();
        let name = words.join(" ");
        let out = t.run(&with("--help"));
        if out.code != 0 || !out.stdout.contains("Usage:") || !out.stderr.is_empty() {
            wrong.push(out.story());
        }
        if out.stdout.contains('\x1b') {
            wrong.push(format!("{name} --help has colours"));
        }
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = t.command(&with("--help"));
        command.stdin(Stdio::null()).stdout(writer);
        let unread = command.output().unwrap();
        if unread.status.code() != Some(141) || !unread.stderr.is_empty() {
            wrong.push(format!("{name} --help unread: {unread:?}"));
        }
        // runc's words are those of `oci`, and what follows `unshare` is another program's.
        let out = t.run(&with("--no-such-flag"));
        if name == "unshare" || name.starts_with("oci") {
            continue;
        }
        let said = format!("Error: unknown flag: --no-such-flag\nSee 'rcon {name} --help'\n");
        if out.code != 125 || out.stderr != said || !out.stdout.is_empty() {
            wrong.push(out.story());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    t.has_containers(0);
}

/// What is printed for people and scripts is the same in a pipe and on a terminal however narrow: no line is cut or folded by
/// us, and only the label of a message has a colour, where the user likes that.
fn colours_and_widths(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "made", "-p", "8080:80", &image, "true"]);
    t.ok(&["volume", "create", "v"]);
    t.feed(b"x", &["secret", "create", "s", "-"]).code(0);
    let mut wrong = Vec::new();
    for line in [
        "--version",
        "version",
        "--help",
        "run --help",
        "container --help",
        "ps -a",
        "ps -a --no-trunc",
        "ps -a --format json",
        "ps -a --ns",
        "images",
        "images --digests --no-trunc",
        "image tree IMAGE",
        "history IMAGE",
        "inspect made",
        "image inspect IMAGE",
        "port made",
        "diff made",
        "volume ls",
        "volume inspect v",
        "secret ls",
        "secret inspect s",
        "network ls",
        "network inspect host",
        "system df",
        "system df -v",
        "events --stream=false --since 1h",
        "logs made",
        "system check",
        "image exists nosuch",
        "container exists nosuch",
        "completion fish",
        // Messages.
        "nosuch",
        "ps --nosuch",
        "start nosuch",
        "exec made true",
        "rm nosuch",
        "rmi nosuch",
        "inspect nosuch",
        "volume rm nosuch",
        "secret rm nosuch",
        "network inspect nosuch",
        "run --rm --pull never nosuch",
        "kill made",
        "logs nosuch",
        "cp nosuch:/x .",
        "build .",
    ] {
        let args: Vec<&str> = line
            .split(' ')
            .map(|word| if word == "IMAGE" { &image } else { word })
            .collect();
        let piped = t.run(&args);
        let shown = format!("{}{}", piped.stdout, piped.stderr);
        if shown.contains('\x1b') {
            wrong.push(format!("{line}: colours in a pipe"));
        }
        for (no_color, term) in [("1", "xterm"), ("", "dumb"), ("", "xterm")] {
            t.set_env("NO_COLOR", no_color);
            t.set_env("TERM", term);
            let mut screen = t.terminal_of(10, 20, &args);
            let code = screen.wait();
            let mut seen = screen.seen().replace("\r\n", "\n");
            if (no_color, term) == ("", "xterm") {
                for label in ["Error:", "hint:"] {
                    for colour in ["\x1b[1;31m", "\x1b[1;36m", "\x1b[1m"] {
                        seen = seen.replace(&format!("{colour}{label}\x1b[0m"), label);
                    }
                }
            }
            if code != piped.code || age(&seen) != age(&shown) {
                wrong.push(format!(
                    "{line} (NO_COLOR={no_color} TERM={term}): {code}\n{seen:?}\nin a pipe: {}\n{shown:?}",
                    piped.code
                ));
            }
        }
    }
    t.set_env("NO_COLOR", "");
    t.set_env("TERM", "");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    t.ok(&["volume", "rm", "v"]);
    t.ok(&["secret", "rm", "s"]);
}

/// Without how long ago something was, and how wide that column is.
fn age(text: &str) -> String {
    let mut out = Vec::new();
    let text = text.replace("Less than a second", "0 seconds");
    let text = text.replace("About a minute", "1 minutes");
    for word in text.split_whitespace() {
        // In JSON a text begins with it.
        let number = word.trim_start_matches('"').parse::<u32>().is_ok();
        out.push(if number {
            "N"
        } else {
            word.trim_end_matches('s')
        });
    }
    out.join(" ").replace("minute", "second")
}

/// `--quiet` leaves what a script wants, and nothing else.
fn quiet(t: &mut Rcon) {
    let image = registry::plain().name("busybox");
    let out = t.run(&["pull", "-q", &image]);
    let id = t.inspect(&image, "{{.Id}}");
    out.prints(&format!("{id}\n")).quiet();
    let made = t.ok(&["create", "--name", "c", &image, "touch", "/new"]);
    let short = |id: &str| id[..12].to_owned();
    t.run(&["images", "-q"])
        .prints(&format!("{}\n", short(&id)));
    t.run(&["ps", "-aq"]).prints(&format!("{}\n", short(&made)));
    t.run(&["ps", "-aq", "--no-trunc"])
        .prints(&format!("{made}\n"));
    t.run(&["history", "-q", &image]).shows(&short(&id)).quiet();
    let file = t.home("saved.tar");
    let file = file.to_str().unwrap();
    t.run(&["save", "-q", "-o", file, &image])
        .prints("")
        .quiet();
    t.run(&["load", "-q", "-i", file])
        .prints(&format!("Loaded image: {image}\n"))
        .quiet();
    let to = format!("dir:{}", t.mkdir("pushed"));
    t.run(&["push", "-q", &image, &to]).prints("").quiet();
    let tree = t.home("tree.tar");
    let tree = tree.to_str().unwrap();
    t.run(&["export", "-o", tree, "c"]).prints("").quiet();
    let out = t.run(&["import", "-q", tree, "imported"]);
    let imported = t.inspect("imported", "{{.Id}}");
    out.prints(&format!("sha256:{imported}\n")).quiet();
    t.run(&["start", "-a", "c"]).prints("").quiet();
    let out = t.run(&["commit", "-q", "c", "committed"]);
    let committed = t.inspect("committed", "{{.Id}}");
    out.prints(&format!("{committed}\n")).quiet();
    t.run(&["run", "-q", "--rm", &image, "echo", "x"])
        .prints("x\n")
        .quiet();
    t.ok(&["volume", "create", "v"]);
    t.run(&["volume", "ls", "-q"]).prints("v\n").quiet();
    t.ok(&["volume", "rm", "v"]);
    t.run(&["secret", "ls", "-q"]).prints("").quiet();
    t.run(&["network", "ls", "-q"])
        .prints("slirp4netns\nhost\nnone\n");
    t.run(&["system", "check", "-q"]).prints("").quiet();
}

/// podman's codes: 125 when rcon fails, 126 and 127 when the program cannot be run, 128+n when a signal ended it, and else
/// the program's own, from every command that waits for one.
fn exit_codes(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "up", &image, "sleep", "1000"]);
    let killed = |n: i32| format!("kill -{n} $$");
    for before in [
        &["run", "--rm", image.as_str()][..],
        &["run", "--rm", "--init", &image],
        &["exec", "up"],
    ] {
        let code = |words: &[&str], code: i32| {
            t.run(&[before, words].concat()).code(code);
        };
        code(&["sh", "-c", "exit 3"], 3);
        code(&["sh", "-c", "exit 125"], 125);
        code(&["/etc"], 126);
        code(&["/etc/passwd"], 126);
        code(&["/no/such"], 127);
        code(&["nosuch"], 127);
        // As PID 1 it gets no signal of its own; its child does.
        for signal in [1, 9, 15] {
            code(
                &["sh", "-c", &format!("sh -c '{}'; exit $?", killed(signal))],
                128 + signal,
            );
        }
        if before[0] == "exec" {
            code(&["sh", "-c", &killed(9)], 137);
        }
    }
    // From outside, seen by all who wait.
    let forever = ["sh", "-c", "while :; do sleep 0.05; done"];
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("INT", 130)] {
        let mut create = vec!["create", "--name", "c", "--init", &image];
        create.extend(forever);
        t.ok(&create);
        let start = t.start(&["start", "-a", "--sig-proxy=false", "c"]);
        eventually("it runs", 60, || {
            (t.inspect("c", "{{.State.Status}}") == "running").then_some(())
        });
        let attach = t.start(&["attach", "--no-stdin", "--sig-proxy=false", "c"]);
        let wait = t.start(&["wait", "c"]);
        eventually("the program is there", 60, || {
            t.run(&["exec", "c", "ps"])
                .stdout
                .contains("while")
                .then_some(())
        });
        t.ok(&["kill", "-s", signal, "c"]);
        start.wait().code(code);
        wait.wait().prints(&format!("{code}\n"));
        // It may have come when all was over.
        let attached = attach.wait();
        assert!([code, 125].contains(&attached.code), "{}", attached.story());
        assert_eq!(t.inspect("c", "{{.State.ExitCode}}"), code.to_string());
        t.ok(&["rm", "c"]);
    }
    // The command's own end by a signal that it does not pass on.
    let events = t.start(&["events", "--since", "1h"]);
    eventually("it reads", 60, || {
        let status = std::fs::read_to_string(format!("/proc/{}/wchan", events.pid()));
        status.is_ok().then_some(())
    });
    events.signal(Signal::SIGTERM);
    events.wait().code(143);
    for line in [
        "run --pull=never nosuch/nosuch:x",
        "exec nosuch true",
        "start nosuch",
        "stop nosuch",
        "restart nosuch",
        "kill nosuch",
        "wait nosuch",
        "attach nosuch",
        "logs nosuch",
        "top nosuch",
        "port nosuch",
        "inspect nosuch",
        "diff nosuch",
        "export nosuch",
        "commit nosuch",
        "cp nosuch:/x .",
        "rename nosuch x",
        "update nosuch",
        "pause nosuch",
        "unpause nosuch",
        "init nosuch",
        "healthcheck run nosuch",
        "container inspect nosuch",
        "history nosuch",
        "image tree nosuch",
        "image inspect nosuch",
        "image diff nosuch",
        "save nosuch",
        "push nosuch",
        "tag nosuch x",
        "untag nosuch",
        "load -i nosuch",
        "import nosuch",
        "volume inspect nosuch",
        "volume export nosuch",
        "volume import nosuch /dev/null",
        "volume mount nosuch",
        "secret inspect nosuch",
        "secret rm nosuch",
        "network inspect nosuch",
        "logout nosuch",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let out = t.run(&args);
        let empty = ["", "[]\n"].contains(&out.stdout.as_str());
        assert!(
            out.code == 125 && empty && out.stderr.starts_with("Error: "),
            "{}",
            out.story()
        );
    }
    // These say only that it is not there.
    for line in [
        "rm nosuch",
        "rmi nosuch",
        "volume rm nosuch",
        "container exists nosuch",
        "image exists nosuch",
        "volume exists nosuch",
        "network exists nosuch",
        "secret exists nosuch",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        t.run(&args).code(1);
    }
    t.ok(&["rm", "-f", "-t", "0", "up"]);
}

/// Values that a flag cannot have are refused by its name, before anything is made.
fn flags_of_run(t: &mut Rcon) {
    let image = t.pull("busybox");
    for words in [
        "--cpus x",
        "--memory x",
        "--pids-limit x",
        "--blkio-weight 5",
        "--oom-score-adj 5000",
        "--health-interval x --health-cmd true",
        "--health-retries x",
        "--timeout x",
        "--userns nosuch",
        "--pid nosuch",
        "--ipc nosuch",
        "--uts nosuch",
        "--cgroups nosuch",
        "--systemd nosuch",
        "--sdnotify nosuch",
        "--log-driver nosuch",
        "--log-opt nosuch",
        "--image-volume nosuch",
        "--tz Nosuch/Place",
        "--umask 9",
        "--secret nosuch",
        "--device /nosuch",
        "--mount type=nosuch,target=/x",
        "--mount type=bind",
        "--volumes-from nosuch",
        "--add-host x",
        "--annotation x",
        "--sysctl x",
        "--label-file /nosuch",
        "--personality nosuch",
    ] {
        let mut args = vec!["run", "--rm"];
        args.extend(words.split(' '));
        args.extend([image.as_str(), "true"]);
        let out = t.run(&args);
        out.refused(125);
    }
    t.has_containers(0);
}

/// What the help of a command calls a filter is one.
fn filters_of_the_help(t: &mut Rcon) {
    let document = include_str!("../../docs/cli.md");
    let mut checked = 0;
    for chapter in document.split("\n## rcon ").skip(1) {
        let name = chapter.lines().next().unwrap();
        let line = chapter.lines().find(|line| line.contains("--filter str"));
        let Some((_, keys)) = line.and_then(|line| line.rsplit_once(": ")) else {
            continue;
        };
        for key in keys.split(", ") {
            let mut words: Vec<&str> = name.split(' ').collect();
            let filter = format!("{key}=1");
            words.extend(["--filter", &filter]);
            match name {
                "events" => words.push("--stream=false"),
                name if name.ends_with("prune") => words.push("-f"),
                "search" => continue,
                _ => {}
            }
            let out = t.run(&words);
            let unknown = out.stderr.contains("invalid") || out.stderr.contains("unsupported");
            assert!(!unknown, "{}", out.story());
            checked += 1;
        }
    }
    assert!(checked > 25, "{checked} filters");
}
