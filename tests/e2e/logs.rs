//! `logs`: what a container printed.

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};

scenarios!(
    streams,
    tails,
    times,
    follows,
    of_a_terminal,
    partial_lines,
    drivers,
    put_aside_in_a_flood
);

fn streams(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.named_sh("c", &image, "echo one; echo two >&2; echo three")
        .code(0);
    let out = t.run(&["logs", "c"]);
    assert_eq!(
        (out.ok(), out.stderr.as_str()),
        ("one\nthree", "two\n"),
        "{}",
        out.story()
    );
    // A second start adds to it.
    t.run(&["start", "-a", "c"]).code(0);
    t.run(&["logs", "c"]).prints("one\nthree\none\nthree\n");
}

fn tails(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--name", "c", &image, "seq", "1", "5000"])
        .code(0);
    t.run(&["logs", "--tail", "2", "c"]).prints("4999\n5000\n");
    t.run(&["logs", "--tail=0", "c"]).prints("");
    let all = t.ok(&["logs", "c"]);
    assert_eq!(all.lines().count(), 5000);
    assert_eq!(t.ok(&["logs", "--tail", "9000", "c"]), all);
}

fn times(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--name", "c", &image, "echo", "now"])
        .code(0);
    let line = t.ok(&["logs", "-t", "c"]);
    let (stamp, text) = line.split_once(' ').expect("a time and a text");
    assert_eq!(text, "now");
    assert!(
        stamp.starts_with("20") && stamp.contains('T') && stamp.contains('.'),
        "not a time: {stamp}"
    );
    t.run(&["logs", "--since", "1h", "c"]).prints("now\n");
    t.run(&["logs", "--since", "2020-01-01T00:00:00Z", "c"])
        .prints("now\n");
    t.run(&["logs", "--since", "2099-01-01T00:00:00Z", "c"])
        .prints("");
    t.run(&["logs", "--since", "nonsense", "c"])
        .refused(125)
        .says("nonsense");
}

fn follows(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "echo first; until test -e /go; do sleep 0.02; done; echo second";
    t.ok(&["run", "-d", "--name", "c", &image, "sh", "-c", script]);
    eventually("the first line", 20, || {
        (t.run(&["logs", "c"]).stdout == "first\n").then_some(())
    });
    let running = t.start(&["logs", "-f", "c"]);
    t.let_go("c");
    // It ends when the container does.
    running.wait().prints("first\nsecond\n");
    t.run(&["logs", "--follow", "c"]).prints("first\nsecond\n");
}

fn of_a_terminal(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&[
        "run",
        "-dt",
        "--name",
        "c",
        &image,
        "sh",
        "-c",
        "test -t 1 && echo terminal",
    ]);
    t.ok(&["wait", "c"]);
    let out = t.run(&["logs", "c"]);
    assert_eq!(out.ok().replace('\r', ""), "terminal", "{}", out.story());
}

fn partial_lines(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.named_sh(
        "c",
        &image,
        "printf half; sleep 0.2; printf ' whole\\nlast without end'",
    )
    .code(0);
    t.run(&["logs", "c"]).prints("half whole\nlast without end");
    t.run(&["logs", "--tail", "1", "c"])
        .prints("last without end");
    t.run(&["logs", "--follow", "c"])
        .prints("half whole\nlast without end");
    // One line longer than any buffer.
    t.named_sh(
        "long",
        &image,
        "head -c 100000 /dev/zero | tr '\\0' x; echo",
    )
    .code(0);
    let out = t.ok(&["logs", "long"]);
    assert!(
        out.len() == 100_000 && out.bytes().all(|b| b == b'x'),
        "{} bytes",
        out.len()
    );
}

fn drivers(t: &mut Rcon) {
    let image = t.pull("busybox");
    let file = t.home("own.log").to_str().unwrap().to_owned();
    let path = format!("path={file}");
    let say = ["sh", "-c", "echo out; echo err >&2"];
    let run = |name: &str, more: &[&str]| {
        let words = [&["run", "--name", name], more, &[image.as_str()], &say].concat();
        t.run(&words)
    };
    run("json", &["--log-driver", "json-file", "--log-opt", &path]).prints("out\n");
    t.run(&["logs", "json"]).prints("out\n").says("err");
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .contains("stdout F out")
    );
    assert_eq!(
        t.inspect(
            "json",
            "{{.HostConfig.LogConfig.Type}} {{.HostConfig.LogConfig.Path}}"
        ),
        format!("json-file {file}")
    );
    run("none", &["--log-driver", "none"]).prints("out\n");
    run("through", &["--log-driver", "passthrough"]).prints("out\n");
    for name in ["none", "through"] {
        t.run(&["logs", name]).refused(125).says("cannot read logs");
    }
    run("bad", &["--log-driver", "syslog"])
        .refused(125)
        .says("invalid log driver");
    if !std::path::Path::new("/run/systemd/journal/socket").exists() {
        run("journal", &["--log-driver", "journald"])
            .refused(125)
            .says("journal of systemd is not to be had here");
    }
}

/// The number that a line of the flood begins with.
fn number(line: &str) -> usize {
    line.split(' ').next().unwrap().parse().unwrap()
}

fn put_aside_in_a_flood(t: &mut Rcon) {
    let image = t.pull("busybox");
    // `RCON_TEST_FLOOD=1000000000 RCON_TEST_LIMIT=3000` is the long form: a gigabyte, in lines of a thousand bytes.
    let bytes: usize = std::env::var("RCON_TEST_FLOOD")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let (lines, flood) = match bytes {
        0 => (200_000, "seq 1 200000".to_owned()),
        _ => {
            let lines = bytes / 1000;
            let rest = "x".repeat(1000 - 2 - lines.to_string().len());
            (lines, format!("seq 1 {lines} | sed 's/$/ {rest}/'"))
        }
    };
    let script = format!("until test -e /go; do echo tick; sleep 0.02; done; {flood}");
    let start = |t: &Rcon, name: &str, script: &str| {
        let small = ["--log-opt", "max-size=64k", "--log-opt", "max-file=3"];
        let run = ["run", "-d", "--name", name];
        t.ok(&[&run[..], &small, &[&image, "sh", "-c", script]].concat());
    };
    start(t, "c", &script);
    // With nobody who reads it is as fast as the log.
    start(t, "alone", &flood);
    t.run(&["wait", "alone"]).prints("0\n");
    assert_eq!(number(&t.ok(&["logs", "--tail", "1", "alone"])), lines);
    t.ok(&["rm", "alone"]);
    // One who reads slowly misses nothing: the program waits.
    let heard = std::path::Path::new(&t.mkdir("watch")).join("heard");
    let line = format!(
        "\"$0\" attach --no-stdin c | {{ read -r tick; echo \"$tick\" >{}; sleep 1; grep -c '^[0-9]'; }}",
        heard.display()
    );
    let words = ["sh", "-c", &line, t.program.to_str().unwrap()];
    let command = t.command_of(&words.map(str::to_owned));
    let slow = crate::lab::program::Running::start(command, std::process::Stdio::null());
    // Who follows sees the end; in order, whatever was put aside in between.
    let order = "/^[0-9]/ { if ($1 <= last) disorder++; last = $1 } END { printf \"%d %d\\n\", disorder, last }";
    let line = format!("\"$0\" logs -f --tail 1 c | awk '{order}'");
    let words = ["sh", "-c", &line, t.program.to_str().unwrap()];
    let command = t.command_of(&words.map(str::to_owned));
    let followed = crate::lab::program::Running::start(command, std::process::Stdio::null());
    eventually("the reader to hear something", 20, || {
        heard.exists().then_some(())
    });
    t.let_go("c");
    t.run(&["wait", "c"]).prints("0\n");
    assert_eq!(slow.wait().ok().trim(), lines.to_string());
    assert_eq!(followed.wait().ok().trim(), format!("0 {lines}"));
    // No more is kept than was said, and the end of it.
    let id = t.inspect("c", "{{.Id}}");
    let dir = t.root().join("containers").join(id);
    let sizes: Vec<u64> = std::fs::read_dir(&dir)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_str().unwrap().starts_with("log"))
        .map(|entry| entry.metadata().unwrap().len())
        .collect();
    assert!(
        sizes.len() == 3 && sizes.iter().all(|size| *size <= 64 << 10),
        "{sizes:?}"
    );
    let kept = t.ok(&["logs", "c"]);
    let kept: Vec<usize> = kept.lines().map(number).collect();
    assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert_eq!(kept.last(), Some(&lines));
    // Also what is in files that were put aside.
    let most = kept.len().min(1500);
    assert!(most > 100);
    let tail = t.ok(&["logs", "--tail", &most.to_string(), "c"]);
    assert_eq!(tail.lines().count(), most);
}
