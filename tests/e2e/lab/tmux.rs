//! tmux with a shell in it: what a terminal shows that understands all that programs send it, not the bytes alone.
//!
//! The shell's prompt is `host$ `. Nothing is typed before what it is typed at is on the screen.

use std::cell::Cell;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Rcon, eventually};

/// The prompt of the shell on the host.
pub const PROMPT: &str = "host$ ";

/// How long to wait for something to appear.
const LIMIT: Duration = Duration::from_secs(60);

/// The terminal.
pub struct Tmux<'a> {
    rcon: &'a Rcon,
    socket: String,
    /// How often it was seen to be sane: each time another word is shown.
    seen: Cell<u32>,
}

impl<'a> Tmux<'a> {
    /// A terminal of 24 rows and 80 columns, whose settings are noted.
    #[track_caller]
    pub fn new(rcon: &'a Rcon) -> Tmux<'a> {
        let socket = rcon.dir.join("tmp/tmux").to_str().unwrap().to_owned();
        let tmux = Tmux {
            rcon,
            socket,
            seen: Cell::new(0),
        };
        // Colours and keys as most terminals have them; nothing of anybody's configuration.
        let shell = format!(
            "PATH={}/bin:$PATH PS1='{PROMPT}' exec sh",
            rcon.dir.display()
        );
        tmux.call(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            &shell,
        ]);
        tmux.see(PROMPT);
        tmux.line("stty -a > before; clear");
        tmux.see(PROMPT);
        tmux
    }

    /// Types text.
    #[track_caller]
    pub fn text(&self, text: &str) {
        self.call(&["send-keys", "-l", text]);
    }

    /// Presses keys by tmux's names for them: `C-c`, `Enter`, `Escape`.
    #[track_caller]
    pub fn keys(&self, keys: &[&str]) {
        self.call(&[&["send-keys"], keys].concat());
    }

    /// Types a line.
    #[track_caller]
    pub fn line(&self, text: &str) {
        self.text(text);
        self.keys(&["Enter"]);
    }

    /// Pastes a file as it is.
    #[track_caller]
    pub fn paste(&self, file: &str) {
        self.call(&["load-buffer", file]);
        self.call(&["paste-buffer", "-r"]);
    }

    /// Changes the size of the window.
    #[track_caller]
    pub fn resize(&self, rows: u16, columns: u16) {
        let (rows, columns) = (rows.to_string(), columns.to_string());
        self.call(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// What is on the screen, without blanks at the ends of lines and blank lines at its end.
    #[track_caller]
    pub fn screen(&self) -> String {
        let screen = self.call(&["capture-pane", "-p"]);
        let lines: Vec<&str> = screen.trim_end().lines().map(str::trim_end).collect();
        lines.join("\n")
    }

    /// Waits until a line of the screen holds `text`.
    #[track_caller]
    pub fn see(&self, text: &str) -> String {
        // What tmux shows has no blanks at the end of a line.
        self.until(text, |screen| screen.contains(text.trim_end()))
    }

    /// Waits until the last line of the screen ends with `text`, such as a prompt with nothing after it.
    #[track_caller]
    pub fn see_last(&self, text: &str) -> String {
        self.until(text, |screen| {
            let last = screen.lines().last();
            last.is_some_and(|line| line.ends_with(text.trim_end()))
        })
    }

    #[track_caller]
    fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(
                Instant::now() < end,
                "waited for {what:?} in vain\n--- screen\n{screen}\n---"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs `rcon` with these words, which must bring up the prompt of a container's shell.
    #[track_caller]
    pub fn enter(&self, words: &str) {
        self.line(&format!("clear; rcon {words}"));
        self.see_last("/ # ");
    }

    /// Attaches to a container's shell with `rcon` and these words, and waits until it answers.
    #[track_caller]
    pub fn attach(&self, words: &str) {
        self.line("clear");
        self.until("an empty screen", |screen| screen == PROMPT.trim_end());
        self.line(&format!("rcon {words}"));
        eventually("the shell answers", 60, || {
            self.keys(&["Enter"]);
            (self.screen().lines().last()? == "/ #").then_some(())
        });
    }

    /// Back at the host's prompt: the terminal's settings must be what they were.
    #[track_caller]
    pub fn is_sane(&self) {
        self.seen.set(self.seen.get() + 1);
        let seen = self.seen.get();
        self.line(&format!(
            "clear; stty -a > after; cmp before after && echo same-$((40 + {seen}))"
        ));
        self.see(&format!("same-{}", 40 + seen));
        let [before, after] = ["before", "after"].map(|name| fs::read(self.rcon.home(name)));
        assert_eq!(before.unwrap(), after.unwrap());
    }

    #[track_caller]
    fn call(&self, words: &[&str]) -> String {
        let out = self.command(words).output().expect("tmux");
        assert!(
            out.status.success(),
            "tmux {words:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut all = vec!["tmux", "-u", "-S", &self.socket];
        all.extend(words);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let mut command = self.rcon.command_of(&all);
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]).output();
        let _ = fs::remove_file(&self.socket);
    }
}
