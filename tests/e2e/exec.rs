//! `exec`: one more program in a container that runs.

use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon, eventually};

scenarios!(
    runs_beside,
    environment_folder_user,
    input_and_output,
    refusals,
    detached,
    sees_the_same_world,
    ends_with_the_container,
    ends_when_its_command_does,
    confined_like_the_first,
);

/// What the command has left behind may write on and on: its exec is over.
fn ends_when_its_command_does(t: &mut Rcon) {
    sleeper(t, &[]);
    t.run(&["exec", "c", "sh", "-c", "yes & exit 3"]).code(3);
}

fn sleeper(t: &Rcon, options: &[&str]) -> String {
    let image = t.pull("busybox");
    let mut args = vec!["run", "-d", "--name", "c"];
    args.extend(options);
    args.extend([image.as_str(), "sleep", "1000"]);
    t.ok(&args)
}

fn runs_beside(t: &mut Rcon) {
    sleeper(t, &[]);
    t.run(&["exec", "c", "echo", "hi"]).prints("hi\n").quiet();
    t.run(&["exec", "c", "sh", "-c", "exit 9"]).code(9).quiet();
    t.run(&["exec", "c", "sh", "-c", "kill -9 $$"]).code(137);
    let out = t.run(&["exec", "c", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(
        (out.stdout.as_str(), out.stderr.as_str()),
        ("out\n", "err\n")
    );
    // Nothing of it is left in the container.
    t.run(&["exec", "c", "sh", "-c", "ps -o comm | grep -c sleep"])
        .prints("1\n");
}

fn environment_folder_user(t: &mut Rcon) {
    sleeper(t, &["-e", "OF_RUN=1", "-w", "/tmp"]);
    t.run(&[
        "exec",
        "-e",
        "A=2",
        "--env",
        "B=x y",
        "c",
        "sh",
        "-c",
        "echo $OF_RUN/$A/$B/$HOME; pwd",
    ])
    .prints("1/2/x y//root\n/tmp\n");
    t.run(&["exec", "-w", "/var/www", "c", "pwd"])
        .prints("/var/www\n");
    if t.mode == Mode::ManyIds {
        t.run(&[
            "exec",
            "-u",
            "app",
            "c",
            "sh",
            "-c",
            "id -u; id -G; echo $HOME",
        ])
        .shows("1000\n")
        .shows("2000")
        .shows("/home/app\n");
        t.run(&[
            "exec",
            "--user",
            "33:1000",
            "c",
            "sh",
            "-c",
            "echo $(id -u):$(id -g)",
        ])
        .prints("33:1000\n");
    }
}

fn input_and_output(t: &mut Rcon) {
    sleeper(t, &[]);
    t.feed(b"through\n", &["exec", "-i", "c", "cat"])
        .prints("through\n");
    t.feed(b"not through\n", &["exec", "c", "cat"]).prints("");
    let megabyte = vec![b'y'; 1 << 20];
    let out = t.feed(&megabyte, &["exec", "-i", "c", "cat"]);
    assert!(
        out.ok().len() == 1 << 20,
        "{} bytes came back",
        out.stdout.len()
    );
}

fn refusals(t: &mut Rcon) {
    let id = sleeper(t, &[]);
    t.run(&["exec", "c", "nosuch"]).refused(127).says("nosuch");
    t.run(&["exec", "c", "/etc/passwd"])
        .refused(126)
        .says("/etc/passwd");
    t.run(&["exec", "-u", "nosuch", "c", "true"])
        .says("unable to find user nosuch");
    t.run(&["exec", "-w", "/not/there", "c", "true"])
        .says("/not/there");
    t.run(&["exec", "nosuch", "true"])
        .refused(125)
        .says("no container with name or id \"nosuch\" found");
    t.run(&["exec", "c"]).code(255);
    // A file may say which container.
    let file = t.write("id", format!("{id}\n"));
    assert_eq!(
        t.ok(&["exec", "--cidfile", &file, "echo", "there"]),
        "there"
    );
    t.run(&["exec", "--cidfile", "nosuch", "true"])
        .refused(125)
        .says("reading CIDFile: open nosuch");
    t.run(&["exec", "--latest", "--cidfile", &file, "true"])
        .refused(125);
    t.ok(&["stop", "-t", "0", &id]);
    t.run(&["exec", "c", "true"]).refused(255).says("running");
}

fn detached(t: &mut Rcon) {
    sleeper(t, &[]);
    t.run(&[
        "exec",
        "-d",
        "c",
        "sh",
        "-c",
        "sleep 0.1; echo done > /tmp/made",
    ])
    .code(0)
    .quiet();
    eventually("the work is done", 20, || {
        (t.run(&["exec", "c", "cat", "/tmp/made"]).stdout == "done\n").then_some(())
    });
}

fn sees_the_same_world(t: &mut Rcon) {
    sleeper(t, &["--hostname", "box"]);
    let read = "for n in net mnt uts ipc user; do readlink /proc/self/ns/$n; done";
    let first = t.ok(&["exec", "c", "sh", "-c", &read.replace("self", "1")]);
    let mine = t.ok(&["exec", "c", "sh", "-c", &read.replace("self", "$$")]);
    assert_eq!(first, mine);
    t.run(&["exec", "c", "hostname"]).prints("box\n");
    t.run(&[
        "exec",
        "c",
        "sh",
        "-c",
        "ls /proc/1/exe >/dev/null && ls /proc | grep -c '^[0-9]'",
    ])
    .code(0);
}

fn ends_with_the_container(t: &mut Rcon) {
    sleeper(t, &[]);
    let running = t.start(&["exec", "c", "sleep", "1000"]);
    eventually("it runs", 20, || {
        t.run(&["exec", "c", "ps"])
            .stdout
            .matches("sleep 1000")
            .count()
            .eq(&2)
            .then_some(())
    });
    t.ok(&["rm", "-f", "-t", "0", "c"]);
    running.wait().code(137);
}

fn confined_like_the_first(t: &mut Rcon) {
    sleeper(t, &["--cap-drop", "all", "--cap-add", "chown"]);
    let caps = "grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/$$/status";
    let first = t.ok(&["exec", "c", "sh", "-c", &caps.replace("$$", "1")]);
    let mine = t.ok(&["exec", "c", "sh", "-c", caps]);
    assert_eq!(first, mine);
    assert!(mine.contains("CapEff:\t0000000000000001"), "{mine}");
    let all = t.ok(&[
        "exec",
        "--privileged",
        "c",
        "sh",
        "-c",
        "grep CapEff /proc/$$/status",
    ]);
    assert!(!all.contains("0000000000000001"), "{all}");
}
