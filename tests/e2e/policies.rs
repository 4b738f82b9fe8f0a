//! Restart policies.

use chrono::{DateTime, FixedOffset, TimeDelta};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, leaks};

scenarios!(
    on_failure,
    always,
    pauses,
    stopped_for_good,
    stopped_in_the_pause,
    stopped_in_the_start,
    removed_in_the_pause,
    started_in_the_pause,
    monitor_dies_in_the_pause,
    after_a_reboot,
    refusals
);

/// Each run adds a line to the log, and ends with `code`.
fn flapping<'a>(name: &'a str, policy: &'a str, image: &'a str, code: &'a str) -> [&'a str; 9] {
    [
        "run",
        "-d",
        "--name",
        name,
        "--restart",
        policy,
        image,
        "sh",
        code,
    ]
}

fn runs(t: &Rcon, name: &str) -> usize {
    t.ok(&["logs", name]).lines().count()
}

fn on_failure(t: &mut Rcon) {
    let image = t.pull("busybox");
    let mut words = flapping("c", "on-failure:2", &image, "-c").to_vec();
    words.push("echo run; exit 5");
    t.ok(&words);
    eventually("three runs", 60, || {
        (t.inspect(
            "c",
            "{{.State.Status}} {{.State.Restarting}} {{.RestartCount}}",
        ) == "exited false 2")
            .then_some(())
    });
    assert_eq!(runs(t, "c"), 3);
    assert_eq!(
        t.inspect(
            "c",
            "{{.State.ExitCode}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"
        ),
        "5 on-failure 2"
    );
    // Success is no reason.
    let mut words = flapping("d", "on-failure", &image, "-c").to_vec();
    words.push("exit 0");
    t.ok(&words);
    t.run(&["wait", "d"]).prints("0\n");
    assert_eq!(
        t.inspect("d", "{{.State.Restarting}} {{.RestartCount}}"),
        "false 0"
    );
    // A start by hand begins to count anew.
    t.ok(&["start", "c"]);
    eventually("three more runs", 60, || (runs(t, "c") == 6).then_some(()));
}

fn always(t: &mut Rcon) {
    let image = t.pull("busybox");
    let mut words = flapping("c", "always", &image, "-c").to_vec();
    words.push("echo run; test -e /stay && exec sleep 1000; touch /stay; exit 0");
    t.ok(&words);
    eventually("it stays", 60, || {
        (t.inspect("c", "{{.State.Status}} {{.RestartCount}}") == "running 1").then_some(())
    });
    // Killed by something that is no command of ours.
    let pid: i32 = t.inspect("c", "{{.State.Pid}}").parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    eventually("it runs again", 60, || {
        (t.inspect("c", "{{.State.Status}} {{.RestartCount}}") == "running 2").then_some(())
    });
    // Whoever attaches, or executes something, meets the run of now.
    t.run(&["exec", "c", "echo", "here"]).prints("here\n");
    t.run(&["stop", "-t", "0", "c"]).code(0);
}

/// The moments at which a container wrote its lines of one word.
fn moments(t: &Rcon, name: &str, word: &str) -> Vec<DateTime<FixedOffset>> {
    let log = t.run(&["logs", "--timestamps", name]).stdout;
    let words = log.lines().filter_map(|line| line.split_once(' '));
    words
        .filter(|(_, said)| *said == word)
        .map(|(time, _)| DateTime::parse_from_rfc3339(time).unwrap())
        .collect()
}

/// The pauses between two runs grow, until one has lasted for ten seconds. Who fails for ever keeps no machine busy.
fn pauses(t: &mut Rcon) {
    let image = t.pull("busybox");
    let mut words = flapping("c", "always", &image, "-c").to_vec();
    words.push(
        "echo x >>/runs; echo run; n=$(wc -l </runs); test $n = 6 && sleep 10.2; test $n = 7 && exec sleep 1000; echo end; exit 1",
    );
    t.ok(&words);
    eventually("it stays", 120, || {
        (moments(t, "c", "run").len() == 7).then_some(())
    });
    let (runs, ends) = (moments(t, "c", "run"), moments(t, "c", "end"));
    let pauses: Vec<TimeDelta> = ends.iter().zip(&runs[1..]).map(|(e, r)| *r - *e).collect();
    // A start takes its time on top.
    for (pause, least) in pauses.iter().zip([100, 200, 400, 800, 1600]) {
        assert!(*pause >= TimeDelta::milliseconds(least), "{pauses:?}");
    }
    // The next would have been 3.2 seconds.
    assert!(pauses[5] < TimeDelta::milliseconds(3200), "{pauses:?}");
    t.run(&["stop", "-t", "0", "c"]).code(0);
}

fn stopped_for_good(t: &mut Rcon) {
    let image = t.pull("busybox");
    for (name, command) in [
        ("a", vec!["stop", "-t", "0"]),
        ("b", vec!["kill"]),
        ("c", vec!["kill", "-s", "TERM"]),
    ] {
        let mut words = flapping(name, "always", &image, "-c").to_vec();
        words.push("trap 'exit 4' TERM; echo run; while :; do sleep 0.05; done");
        t.ok(&words);
        eventually("it runs", 60, || (runs(t, name) == 1).then_some(()));
        t.run(&[&command[..], &[name]].concat()).code(0);
        t.run(&["wait", name]).code(0);
        assert_eq!(
            t.inspect(name, "{{.State.Status}} {{.State.Restarting}}"),
            "exited false"
        );
    }
    // `restart` is no stop.
    t.ok(&["start", "a"]);
    t.ok(&["restart", "-t", "0", "a"]);
    assert_eq!(t.inspect("a", "{{.State.Status}}"), "running");
}

/// A container that has failed so often that its next start is some time away.
fn in_the_pause(t: &Rcon) {
    let image = t.pull("busybox");
    let mut words = flapping("c", "always", &image, "-c").to_vec();
    words.push("echo run; exit 1");
    t.ok(&words);
    eventually("a long pause", 60, || {
        (t.inspect("c", "{{.State.Restarting}} {{.RestartCount}}") == "true 5").then_some(())
    });
}

fn stopped_in_the_pause(t: &mut Rcon) {
    in_the_pause(t);
    t.run(&["stop", "c"]).prints("c\n").quiet();
    assert_eq!(
        t.inspect("c", "{{.State.Status}} {{.State.Restarting}}"),
        "exited false"
    );
    eventually("its monitor is gone", 20, || {
        leaks::process_ids(&t.dir).is_empty().then_some(())
    });
    assert_eq!(runs(t, "c"), 6);
}

fn removed_in_the_pause(t: &mut Rcon) {
    in_the_pause(t);
    t.run(&["rm", "c"]).prints("c\n").quiet();
    t.has_containers(0);
}

fn started_in_the_pause(t: &mut Rcon) {
    in_the_pause(t);
    t.run(&["start", "c"]).prints("c\n").quiet();
    eventually("it ran again", 60, || (runs(t, "c") >= 7).then_some(()));
    t.run(&["rm", "-f", "-t", "0", "c"]).code(0);
    t.has_containers(0);
}

/// A container that is ended while it is being started again: its monitor sees a start that failed.
fn stopped_in_the_start(t: &mut Rcon) {
    let image = t.pull("busybox");
    let dir = t.mkdir("shared");
    // The monitor writes the pidfile between noting that the container runs and having its program executed: until
    // somebody reads it, nothing goes on.
    let fifo = t.write("shared/pid", "");
    std::fs::remove_file(&fifo).unwrap();
    nix::unistd::mkfifo(
        fifo.as_str(),
        nix::sys::stat::Mode::from_bits_truncate(0o666),
    )
    .unwrap();
    std::os::unix::fs::chown(&fifo, Some(t.user.uid), Some(t.user.gid)).unwrap();
    let read = || {
        // Nobody writes into it when the container cannot be started.
        std::process::Command::new("timeout")
            .args(["60", "cat", &fifo])
            .output()
            .unwrap()
            .stdout
    };
    let (pidfile, bind) = (format!("--pidfile={fifo}"), format!("{dir}:/s"));
    let script = "until test -e /s/go; do sleep 0.02; done; exit 1";
    let words = [
        "run",
        "-d",
        "--restart",
        "always",
        "--name",
        "c",
        "-v",
        &bind,
        &pidfile,
    ];
    let run = t.start(&[&words[..], &[&image, "sh", "-c", script]].concat());
    let first = read();
    run.wait().ok();
    t.write("shared/go", "");
    let again = eventually("it is started again", 60, || {
        let state = t.inspect("c", "{{.State.Status}} {{.RestartCount}} {{.State.Pid}}");
        state.strip_prefix("running 1 ").map(str::to_owned)
    });
    assert_ne!(again.as_bytes(), first);
    let stop = t.start(&["stop", "-t", "0", "c"]);
    eventually("its process is killed", 60, || {
        let stat = std::fs::read_to_string(format!("/proc/{again}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    // From here on nobody waits for a reader.
    let held = std::fs::File::options().read(true).write(true).open(&fifo);
    stop.wait().prints("c\n");
    assert_eq!(
        t.inspect("c", "{{.State.Status}} {{.State.Restarting}}"),
        "exited false"
    );
    // It stays so.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "exited");
    drop(held.unwrap());
}

fn monitor_dies_in_the_pause(t: &mut Rcon) {
    in_the_pause(t);
    leaks::kill_all(&t.dir);
    assert_eq!(
        t.inspect(
            "c",
            "{{.State.Status}} {{.State.Restarting}} {{.State.ExitCode}}"
        ),
        "exited false 1"
    );
}

fn after_a_reboot(t: &mut Rcon) {
    let image = t.pull("busybox");
    for (name, policy) in [
        ("a", "always"),
        ("b", "unless-stopped"),
        ("c", "unless-stopped"),
        ("d", "no"),
    ] {
        t.sleeper(name, &["--restart", policy], &image);
    }
    t.ok(&["stop", "-t", "0", "a", "c"]);
    // Everything of it ends at once, and the runtime folder is gone.
    leaks::kill_all(&t.dir);
    std::fs::remove_dir_all(t.dir.join("run/rcon")).unwrap();
    t.run(&["ps", "-q"]).prints("");
    // What a service that starts at boot does.
    let out = t.run(&["start", "--all", "--filter", "should-start-on-boot=true"]);
    out.code(0);
    let mut names: Vec<String> = t
        .ok(&["ps", "--format", "{{.Names}}"])
        .lines()
        .map(str::to_owned)
        .collect();
    names.sort();
    assert_eq!(names, ["a", "b"]);
    let of = |policy: &str| {
        let filter = format!("restart-policy={policy}");
        t.ok(&["ps", "-a", "--format", "{{.Names}}", "--filter", &filter])
    };
    assert_eq!(of("always"), "a");
    assert_eq!(of("no"), "d");
}

fn refusals(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--restart", "sometimes", &image, "true"])
        .refused(125)
        .says("is not a valid restart policy");
    t.run(&["run", "--restart", "always:3", &image, "true"])
        .refused(125)
        .says("on-failure");
    t.run(&["run", "--rm", "--restart", "always", &image, "true"])
        .refused(125)
        .says("conflicts with --restart");
    t.run(&["run", "--rm", "--restart", "no", &image, "true"])
        .code(0);
}
