//! Bad input: one clear line, podman's exit code, nothing left behind.

use std::fs;

use crate::lab::net::free_port;
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};

scenarios!(
    bad_run,
    bad_commands,
    not_there_or_not_executable,
    busy_port,
    unwritable_root,
    broken_state,
    colours
);

/// Words after `run --rm`, before the image; the exit code; what the message must name.
const BAD: &[(&[&str], i32, &str)] = &[
    (&["--nosuchflag"], 125, "unknown flag: --nosuchflag"),
    (&["-Z"], 125, "unknown shorthand flag"),
    (&["-p", "99999:80"], 125, "99999"),
    (&["-p", "0:0:0:0:0"], 125, "port"),
    (&["-p", "abc"], 125, "abc"),
    (&["-p", "8080:80/sctpx"], 125, "sctpx"),
    (&["-p", "8080-8082:80-81"], 125, "range"),
    (&["-p", "300.1.1.1:8080:80"], 125, "300.1.1.1"),
    (&["-v", "/nonexistent-dir:/x"], 125, "/nonexistent-dir"),
    (&["-v", "/tmp:relative"], 125, "relative"),
    (&["-v", "/tmp:/x:nosuch"], 125, "nosuch"),
    (&["-e", "=x"], 125, "=x"),
    (&["--env-file", "/nonexistent"], 125, "/nonexistent"),
    (&["-u", "nosuch"], 126, "unable to find user nosuch"),
    (&["-u", "root:nosuch"], 126, "unable to find group nosuch"),
    (&["-w", "relative"], 126, "relative"),
    (&["-w", "/not/there"], 126, "/not/there"),
    (&["--cap-add", "nosuch"], 125, "nosuch"),
    (&["--cap-drop", "nosuch"], 125, "nosuch"),
    (&["--security-opt", "nosuch"], 125, "nosuch"),
    (
        &["--security-opt", "seccomp=/nonexistent"],
        125,
        "/nonexistent",
    ),
    (&["--network", "nosuch"], 125, "nosuch"),
    (&["--network", "slirp4netns:nosuch=1"], 125, "nosuch"),
    (&["--network", "slirp4netns:mtu=x"], 125, "mtu"),
    (&["--dns", "nonsense"], 125, "nonsense"),
    (&["--ulimit", "nosuch=1"], 125, "nosuch"),
    (&["--stop-signal", "NOSUCH"], 125, "NOSUCH"),
    (&["--stop-timeout", "x"], 125, "x"),
    (&["--shm-size", "x"], 125, "x"),
    (&["--tmpfs", "relative"], 125, "relative"),
    (&["--platform", "a/b/c/d"], 125, "a/b/c/d"),
    (&["--restart", "sometimes"], 125, "sometimes"),
    (&["--pull", "sometimes"], 125, "sometimes"),
    (&["--detach-keys", "ctrl-nosuch"], 125, "ctrl-nosuch"),
    (&["--name", "has space"], 125, "names must match"),
    (&["--label"], 125, ""),
];

fn bad_run(t: &mut Rcon) {
    let image = t.pull("busybox");
    let mut wrong = Vec::new();
    for (words, code, says) in BAD {
        let mut args = vec!["run", "--rm"];
        args.extend(*words);
        if words != &["--label"] {
            args.extend([image.as_str(), "true"]);
        }
        let out = t.run(&args);
        let lines: Vec<&str> = out.stderr.lines().collect();
        let one_line = lines.first().is_some_and(|l| l.starts_with("Error: "))
            && lines[1..].iter().all(|l| {
                l.starts_with("hint: ") || l.starts_with("See '") || l.starts_with("      ")
            });
        let named = out.stderr.to_lowercase().contains(&says.to_lowercase());
        if out.code != *code
            || !one_line
            || !named
            || !out.stdout.is_empty()
            || out.stderr.contains("os error")
        {
            wrong.push(format!(
                "{words:?}: expected code {code} and {says:?}, got\n{}",
                out.story()
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        BAD.len(),
        wrong.join("\n")
    );
    t.has_containers(0);
}

fn bad_commands(t: &mut Rcon) {
    for args in [
        &["nosuchcommand"][..],
        &["run"],
        &["exec"],
        &["inspect"],
        &["rename", "x"],
        &["tag", "x"],
        &["pull"],
    ] {
        let out = t.run(args);
        assert!(
            out.code == 125 && out.stderr.starts_with("Error: "),
            "{}",
            out.story()
        );
        assert!(out.stdout.is_empty(), "{}", out.story());
    }
    t.run(&["--root", "relative-without-command"]).code(125);
    t.run(&["ps", "--nosuch"])
        .refused(125)
        .says("unknown flag: --nosuch");
    t.run(&["ps", "surplus"]).code(125);
}

fn not_there_or_not_executable(t: &mut Rcon) {
    let image = t.pull("busybox");
    // Without --rm too: a container that never was leaves no record.
    for flags in [
        &["run", "--rm"][..],
        &["run"],
        &["run", "-d"],
        &["run", "-d", "--name", "c"],
    ] {
        for (program, code) in [
            ("nosuch", 127),
            ("/no/such", 127),
            ("/etc/passwd", 126),
            ("/etc", 126),
        ] {
            let mut args = flags.to_vec();
            args.extend([image.as_str(), program]);
            t.run(&args).refused(code).says(program);
        }
    }
    t.has_containers(0);
    // A script whose interpreter is missing, and one that is no program at all.
    let dir = t.mkdir("bin");
    t.write("bin/script", "#!/no/such/interpreter\n");
    t.write("bin/text", "not a program\n");
    for name in ["script", "text"] {
        fs::set_permissions(
            t.home(&format!("bin/{name}")),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
    }
    let volume = format!("{dir}:/scripts");
    t.run(&["run", "--rm", "-v", &volume, &image, "/scripts/script"])
        .refused(127)
        .says("/scripts/script");
    t.run(&["run", "--rm", "-v", &volume, &image, "/scripts/text"])
        .refused(126)
        .says("/scripts/text");
}

fn busy_port(t: &mut Rcon) {
    let image = t.pull("busybox");
    let port = free_port();
    let publish = format!("{port}:80");
    let held = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
    t.run(&[
        "run", "-d", "--name", "c", "-p", &publish, &image, "sleep", "1000",
    ])
    .refused(126)
    .says(&format!("0.0.0.0:{port}"))
    .says("address already in use");
    t.has_containers(0);
    drop(held);
    t.sleeper("c", &["-p", &publish], &image);
    // Held by another container.
    t.run(&["run", "--rm", "-p", &publish, &image, "true"])
        .refused(126)
        .says("address already in use");
    t.has_containers(1);
    t.ok(&["rm", "-f", "-t", "0", "c"]);
    t.run(&["run", "--rm", "-p", &publish, &image, "true"])
        .code(0);
}

fn unwritable_root(t: &mut Rcon) {
    t.set_global(&["--root", "/proc/nowhere"]);
    t.run(&["ps"]).refused(125).says("/proc/nowhere");
    t.run(&["images"])
        .refused(125)
        .says("/proc/nowhere")
        .says("can be given with --root or");
    let file = t.write("file", "not a folder");
    t.set_global(&["--root", &file]);
    t.run(&["ps", "-a"])
        .refused(125)
        .says(&file)
        .says("can be given with --root or");
    t.set_global(&["--runroot", "/proc/nowhere"]);
    t.run(&["ps"])
        .refused(125)
        .says("can be given with --runroot or");
    t.set_global(&["--root", ""]);
    t.run(&["ps"])
        .refused(125)
        .says("invalid argument \"\" for \"--root\" flag: it is empty");
    t.set_global(&["--cgroup-manager", "nosuch"]);
    t.run(&["ps"])
        .refused(125)
        .says("unsupported cgroup manager \"nosuch\"");
    t.set_global(&[]);
}

fn broken_state(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "good", &image, "true"]);
    let bad = t.ok(&["create", "--name", "bad", &image, "true"]);
    // As after a crash of the machine: files of no length.
    let dir = t.root().join("containers").join(&bad);
    let mut broken = 0;
    for entry in fs::read_dir(&dir).expect("a folder for each container") {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json") {
            fs::write(&path, "").unwrap();
            broken += 1;
        }
    }
    assert!(broken > 0, "no records in {}", dir.display());
    // The others are not taken hostage, and the broken one can be removed.
    let out = t.run(&["ps", "-a", "--format", "{{.Names}}"]);
    assert!(
        out.code == 0 && out.stdout.contains("good"),
        "{}",
        out.story()
    );
    t.run(&["rm", "-f", &bad]).code(0);
    eventually("only the good one is left", 5, || {
        (t.run(&["ps", "-a", "--format", "{{.Names}}"]).stdout == "good\n").then_some(())
    });
    t.ok(&["create", "--name", "bad", &image, "true"]);
}

/// Colours are for terminals that want them, and for the label only.
fn colours(t: &mut Rcon) {
    let said = |t: &Rcon| {
        let mut terminal = t.terminal(&["start", "nosuch"]);
        terminal.wait();
        terminal.expect("such container")
    };
    assert!(
        said(t).contains("\x1b[1;31mError:\x1b[0m "),
        "{:?}",
        said(t)
    );
    assert!(!t.run(&["start", "nosuch"]).stderr.contains('\x1b'));
    t.set_env("NO_COLOR", "1");
    assert!(!said(t).contains('\x1b'));
    t.set_env("NO_COLOR", "");
    t.set_env("TERM", "dumb");
    assert!(!said(t).contains('\x1b'));
}
