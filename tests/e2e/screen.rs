//! `-it` in tmux: what somebody in front of a terminal sees, and that the terminal is as before afterwards.

use crate::lab::scenario::scenarios;
use crate::lab::tmux::Tmux;
use crate::lab::{Rcon, eventually};

scenarios!(
    job_control,
    full_screen,
    keys_that_end,
    detached,
    large_paste,
    binary_output,
    exec_and_attach_sane
);

fn job_control(t: &mut Rcon) {
    let image = t.pull("busybox");
    let tmux = Tmux::new(t);
    tmux.enter(&format!("run --rm -it {image} sh"));
    tmux.line("sh -c 'echo in-$((1 + 1)); exec sleep 1000'");
    tmux.see("in-2");
    tmux.keys(&["C-z"]);
    tmux.see("Stopped");
    tmux.see_last("/ # ");
    tmux.line("clear; jobs");
    tmux.see("[1]+  Stopped");
    tmux.line("clear; bg; sh -c 'echo two-$((1 + 1)); exec sleep 2000'");
    tmux.see("two-2");
    tmux.keys(&["C-c"]);
    tmux.see_last("/ # ");
    tmux.line("clear; fg");
    tmux.see("sh -c");
    tmux.keys(&["C-c"]);
    tmux.see_last("/ # ");
    tmux.line("clear; jobs; echo left-$((2 + 1))");
    let screen = tmux.see("left-3");
    assert!(!screen.contains("sleep"), "{screen}");
    tmux.line("exit 7");
    tmux.see_last("host$ ");
    tmux.line("echo code-$?");
    tmux.see("code-7");
    tmux.is_sane();
}

fn full_screen(t: &mut Rcon) {
    let image = t.pull("busybox");
    let tmux = Tmux::new(t);
    tmux.enter(&format!("run --rm -it {image} sh"));
    tmux.line("vi /tmp/poem");
    tmux.see("- /tmp/poem");
    tmux.text("iroses are red");
    tmux.keys(&["Enter"]);
    tmux.text("violets are blue");
    tmux.keys(&["Escape"]);
    tmux.see("violets are blue");
    // Not typing any more.
    let screen = tmux.see("- /tmp/poem [Modified]");
    // All of the screen is the editor's, down to its last line.
    assert!(
        screen.starts_with("roses are red\nviolets are blue\n~"),
        "{screen}"
    );
    assert_eq!(screen.lines().count(), 24, "{screen}");
    // It hears of another size, and uses it.
    tmux.resize(10, 60);
    eventually("the editor has the new size", 60, || {
        // The key makes it look.
        tmux.keys(&["C-l"]);
        let screen = tmux.screen();
        let fits = screen.lines().count() == 10 && screen.lines().last()?.contains("poem");
        fits.then_some(())
    });
    tmux.text(":wq");
    tmux.keys(&["Enter"]);
    tmux.see_last("/ # ");
    tmux.line("clear; stty size; wc -l /tmp/poem");
    tmux.see("10 60");
    tmux.see("2 /tmp/poem");
    tmux.resize(24, 80);
    eventually("the shell has the old size", 60, || {
        tmux.line("clear; stty size");
        tmux.screen().contains("24 80").then_some(())
    });
    tmux.line("exit");
    tmux.see_last("host$ ");
    tmux.is_sane();
}

fn keys_that_end(t: &mut Rcon) {
    let image = t.pull("busybox");
    let tmux = Tmux::new(t);
    // A program that does not catch ctrl-c, as PID 1 with an init before it.
    tmux.line(&format!(
        "rcon run --rm -it --init {image} sh -c 'echo up-$((1 + 1)); exec cat'; echo code-$?"
    ));
    tmux.see("up-2");
    tmux.keys(&["C-c"]);
    tmux.see("code-130");
    tmux.is_sane();
    // The end of input.
    tmux.line(&format!(
        "clear; rcon run --rm -it {image} sh -c 'echo in-$((1 + 1)); exec cat'; echo code-$?"
    ));
    tmux.see("in-2");
    tmux.line("typed");
    tmux.see("typed\ntyped");
    tmux.keys(&["C-d"]);
    tmux.see("code-0");
    tmux.is_sane();
    // A container that is removed from elsewhere.
    tmux.enter(&format!("run --rm -it --name gone {image} sh"));
    t.ok(&["rm", "-f", "-t", "0", "gone"]);
    tmux.see_last("host$ ");
    tmux.is_sane();
}

fn detached(t: &mut Rcon) {
    let image = t.pull("busybox");
    let tmux = Tmux::new(t);
    tmux.enter(&format!("run -it --name c {image} sh"));
    tmux.line("KEPT=yes; clear");
    tmux.see_last("/ # ");
    tmux.keys(&["C-p", "C-q"]);
    tmux.see("host$ ");
    tmux.is_sane();
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "running");
    tmux.attach("attach c");
    tmux.line("clear; echo kept-$KEPT");
    tmux.see("kept-yes");
    // Other keys, and the usual ones are the program's then.
    tmux.keys(&["C-p", "C-q"]);
    tmux.see_last("host$ ");
    tmux.attach("attach --detach-keys ctrl-x,d c");
    tmux.keys(&["C-p", "C-q", "C-u"]);
    tmux.line("clear; echo still-$KEPT");
    tmux.see("still-yes");
    tmux.keys(&["C-x", "d"]);
    tmux.see_last("host$ ");
    tmux.is_sane();
    t.write(
        ".config/containers/containers.conf",
        "[engine]\ndetach_keys = \"ctrl-e\"\n",
    );
    tmux.attach("attach c");
    tmux.keys(&["C-e"]);
    tmux.see_last("host$ ");
    tmux.is_sane();
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "running");
}

fn large_paste(t: &mut Rcon) {
    let image = t.pull("busybox");
    let mut text = String::new();
    for number in 0.. {
        text += &format!("line {number} of a text that is far too long to type\n");
        if text.len() >= 1 << 20 {
            break;
        }
    }
    text.truncate(1 << 20);
    let file = t.write("text", &text);
    let tmux = Tmux::new(t);
    tmux.line(&format!(
        "clear; rcon run --rm -it -v {file}:/text {image} sh -c 'stty raw -echo; echo ready-$((1 + 1)); \
         head -c 1048576 | cmp - /text && echo all-of-$((0 + 1)); stty sane'"
    ));
    tmux.see("ready-2");
    tmux.paste(&file);
    tmux.see("all-of-1");
    tmux.see_last("host$ ");
    tmux.is_sane();
}

fn binary_output(t: &mut Rcon) {
    let image = t.pull("busybox");
    let bytes: Vec<u8> = (0..=255).cycle().take(64 * 1024).collect();
    let file = t.write("bytes", &bytes);
    let tmux = Tmux::new(t);
    // Whatever it does to the screen, the line is as before; `ESC c` makes the screen so, too.
    tmux.line(&format!(
        "clear; rcon run --rm -it -v {file}:/bytes {image} sh -c 'cat /bytes; printf \"\\033c\"; echo done-$((1 + 1))'"
    ));
    tmux.see("done-2");
    tmux.is_sane();
    // Without a terminal in the container every byte arrives.
    tmux.line(&format!(
        "rcon run --rm -i -v {file}:/bytes {image} cat /bytes | cmp - bytes && echo equal-$((1 + 1))"
    ));
    tmux.see("equal-2");
    tmux.is_sane();
}

fn exec_and_attach_sane(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    let tmux = Tmux::new(t);
    tmux.enter("exec -it c sh");
    tmux.line("clear; tty; stty size");
    tmux.see("/dev/pts/");
    tmux.see("24 80");
    tmux.line("exit 3");
    tmux.see_last("host$ ");
    tmux.line("echo code-$?");
    tmux.see("code-3");
    tmux.is_sane();
    // It is left by the keys and goes on; the container's end ends it.
    tmux.enter("exec -it c sh");
    tmux.keys(&["C-p", "C-q"]);
    tmux.see_last("host$ ");
    tmux.is_sane();
    tmux.enter("exec -it c sh");
    t.ok(&["kill", "c"]);
    tmux.see_last("host$ ");
    tmux.is_sane();
}
