//! `-it`: a real terminal, and the caller's own as it was, whatever happens.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::pty::Terminal;
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};

scenarios!(
    shell,
    window_size,
    job_control,
    detach_and_attach,
    own_detach_keys,
    exec_with_terminal,
    restored,
    without_a_terminal,
    raw_bytes,
    a_paste_into_a_flood,
);

/// Writes more than there is room for anywhere before it reads, and reads more than that, too.
pub const FLOOD: &str = "stty raw -echo; echo ready; head -c 1000000 /dev/zero | tr '\\0' x; \
    head -c 300000 | wc -c";

/// Types 300,000 letters into [`FLOOD`].
#[track_caller]
pub fn paste_into_a_flood(terminal: &mut Terminal) {
    terminal.expect("ready");
    let paste = terminal.paste("z".repeat(300_000));
    terminal.expect("300000");
    paste.join().unwrap();
    assert_eq!(terminal.wait(), 0);
    let shown = terminal.seen().matches('x').count();
    assert_eq!(shown, 1_000_000);
}

/// A shell that waits for input.
fn shell_in(t: &Rcon, flags: &[&str]) -> Terminal {
    let image = t.pull("busybox");
    let mut args = vec!["run", "-it"];
    args.extend(flags);
    args.push(&image);
    let mut terminal = t.terminal(&args);
    terminal.expect("/ # ");
    terminal
}

fn shell(t: &mut Rcon) {
    let mut terminal = shell_in(t, &["--rm"]);
    terminal.send("tty; test -t 0 -a -t 1 -a -t 2 && echo all three; echo $TERM\r");
    terminal.expect("/dev/pts/0");
    terminal.expect("all three");
    terminal.expect("xterm");
    assert!(
        !terminal.is_restored(),
        "the caller's terminal is raw meanwhile"
    );
    // Keys that the caller's terminal would take for itself.
    terminal.send("echo no\x03\r");
    terminal.expect("/ # ");
    // The shell has given it the terminal before it says a word.
    terminal.send("sh -c 'echo in-$((1 + 1)); exec cat'\r");
    terminal.expect("in-2");
    terminal.send("line\r");
    terminal.expect("line\r\nline");
    terminal.send("\x04");
    terminal.expect("/ # ");
    terminal.send("exit 7\r");
    assert_eq!(terminal.wait(), 7, "{}", terminal.story());
    assert!(terminal.is_restored());
    t.has_containers(0);
}

fn window_size(t: &mut Rcon) {
    let mut terminal = shell_in(t, &["--rm"]);
    terminal.send("stty size\r");
    terminal.expect("24 80\r\n");
    terminal.send("trap 'echo changed' WINCH\r");
    terminal.expect("/ # ");
    terminal.resize(40, 132);
    eventually("the size has arrived", 10, || {
        terminal.send("stty size\r");
        terminal.expect("size\r\n");
        terminal.expect("/ # ").contains("40 132").then_some(())
    });
    terminal.send("exit\r");
    assert_eq!(terminal.wait(), 0);
}

fn job_control(t: &mut Rcon) {
    let mut terminal = shell_in(t, &["--rm"]);
    terminal.send("sh -c 'echo in-$((1 + 1)); exec sleep 1000'\r");
    terminal.expect("in-2");
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.expect("/ # ");
    terminal.send("jobs\r");
    terminal.expect("Stopped");
    terminal.expect("/ # ");
    terminal.send("fg\r");
    terminal.expect("sh -c");
    std::thread::sleep(Duration::from_millis(300));
    terminal.send("\x03");
    terminal.expect("/ # ");
    assert!(
        !terminal.story().contains("job control turned off"),
        "{}",
        terminal.story()
    );
    terminal.send("exit\r");
    terminal.wait();
}

fn detach_and_attach(t: &mut Rcon) {
    let mut terminal = shell_in(t, &["--name", "c"]);
    terminal.send("KEPT=yes\r");
    terminal.expect("/ # ");
    terminal.press("\x10\x11");
    assert_eq!(terminal.wait(), 0, "{}", terminal.story());
    assert!(terminal.is_restored());
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "running");
    let mut terminal = t.terminal(&["attach", "c"]);
    terminal.send("\recho kept=$KEPT\r");
    terminal.expect("kept=yes");
    // A ctrl-p that is not followed by ctrl-q is for the program.
    terminal.send("\x10\x03");
    terminal.expect("/ # ");
    terminal.send("exit 4\r");
    assert_eq!(terminal.wait(), 4, "{}", terminal.story());
    assert!(terminal.is_restored());
    t.run(&["start", "c"]).prints("c\n");
    let mut terminal = t.terminal(&["attach", "c"]);
    terminal.send("\r");
    terminal.expect("/ # ");
    terminal.press("\x10\x11");
    assert_eq!(terminal.wait(), 0);
}

fn own_detach_keys(t: &mut Rcon) {
    let mut terminal = shell_in(t, &["--name", "c", "--detach-keys", "ctrl-a,d"]);
    terminal.press("\x10\x11");
    terminal.send("echo still here\r");
    terminal.expect("still here");
    terminal.press("\x01d");
    assert_eq!(terminal.wait(), 0, "{}", terminal.story());
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "running");
}

fn exec_with_terminal(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    let mut terminal = t.terminal(&["exec", "-it", "c", "sh"]);
    terminal.expect("/ # ");
    terminal.send("stty size; tty\r");
    terminal.expect("24 80");
    terminal.expect("/dev/pts/");
    terminal.resize(30, 100);
    eventually("the size has arrived", 10, || {
        terminal.send("stty size\r");
        terminal.expect("size\r\n");
        terminal.expect("/ # ").contains("30 100").then_some(())
    });
    terminal.send("sh -c 'echo in-$((1 + 1)); exec sleep 100'\r");
    terminal.expect("in-2");
    terminal.send("\x03");
    terminal.expect("/ # ");
    terminal.send("exit 8\r");
    assert_eq!(terminal.wait(), 8, "{}", terminal.story());
    assert!(terminal.is_restored());
    // A terminal for output alone.
    t.run(&["exec", "-t", "c", "sh", "-c", "test -t 1 && echo yes"])
        .prints("yes\r\n");
}

fn restored(t: &mut Rcon) {
    // The program is killed.
    let terminal = &mut shell_in(t, &["--rm", "--name", "a"]);
    t.ok(&["kill", "a"]);
    assert_eq!(terminal.wait(), 137, "{}", terminal.story());
    assert!(terminal.is_restored(), "after the program was killed");
    // The client is asked to end.
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let name = signal.as_str().to_lowercase();
        let terminal = &mut shell_in(t, &["--rm", "--name", &name]);
        terminal.signal(signal);
        // An interactive shell may ignore what is passed on to it; the container then goes on.
        std::thread::sleep(Duration::from_millis(300));
        t.run(&["rm", "-f", "-t", "0", &name]);
        terminal.wait();
        assert!(terminal.is_restored(), "after {signal}");
    }
    // The container is removed from elsewhere.
    let terminal = &mut shell_in(t, &["--name", "b"]);
    t.ok(&["rm", "-f", "-t", "0", "b"]);
    terminal.wait();
    assert!(terminal.is_restored(), "after rm -f");
    // It cannot be started at all.
    let image = t.pull("busybox");
    let terminal = &mut t.terminal(&["run", "--rm", "-it", &image, "nosuch"]);
    assert_eq!(terminal.wait(), 127, "{}", terminal.story());
    assert!(terminal.is_restored(), "after a failed start");
    terminal.expect("Error:");
}

fn without_a_terminal(t: &mut Rcon) {
    let image = t.pull("busybox");
    // -t without a terminal on this side: the program has one all the same.
    t.sh(&["-t"], &image, "test -t 1 && echo yes")
        .prints("yes\r\n");
    let out = t.feed(
        b"echo from $((6 * 7))\nexit\n",
        &["run", "--rm", "-i", &image, "sh"],
    );
    out.prints("from 42\n");
    // -it with input from a pipe: said so, but done.
    let out = t.feed(
        b"echo from $((6 * 7))\nexit 3\n",
        &["run", "--rm", "-it", &image, "sh"],
    );
    assert!(
        out.code == 3 && out.stdout.contains("from 42"),
        "{}",
        out.story()
    );
}

fn raw_bytes(t: &mut Rcon) {
    let image = t.pull("busybox");
    let mut terminal = t.terminal(&[
        "run",
        "--rm",
        "-it",
        &image,
        "sh",
        "-c",
        "stty raw -echo; echo ready; head -c 4 | od -An -tx1",
    ]);
    terminal.expect("ready");
    terminal.send("\x01\x7f\x1b\x11");
    terminal.expect("01 7f 1b 11");
    assert_eq!(terminal.wait(), 0);
}

fn a_paste_into_a_flood(t: &mut Rcon) {
    let image = t.pull("busybox");
    paste_into_a_flood(&mut t.terminal(&["run", "--rm", "-it", &image, "sh", "-c", FLOOD]));
    let waiting = format!("stty -echo; read go; {FLOOD}; read go");
    t.ok(&["run", "-dit", "--name", "c", &image, "sh", "-c", &waiting]);
    paste_into_a_flood(&mut t.terminal(&["exec", "-it", "c", "sh", "-c", FLOOD]));
    let mut terminal = t.terminal(&["attach", "c"]);
    terminal.send("\r");
    terminal.expect("ready");
    let paste = terminal.paste("z".repeat(300_000));
    terminal.expect("300000");
    paste.join().unwrap();
    terminal.send("\r\n");
    assert_eq!(terminal.wait(), 0);
}
