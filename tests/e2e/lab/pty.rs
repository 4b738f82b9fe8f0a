//! A terminal with somebody in front of it.
//!
//! The program gets the far end as its controlling terminal (`setsid --ctty` of util-linux makes it so) and the
//! scenario types at the near end and reads the screen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};

/// A terminal, the program in it, and all that has been on its screen.
pub struct Terminal {
    near: File,
    far: OwnedFd,
    before: Termios,
    child: Child,
    screen: String,
    read_to: usize,
    line: String,
}

/// What makes standard input the controlling terminal of the program that follows.
pub const CONTROL: [&str; 3] = ["setsid", "--ctty", "--wait"];

const LIMIT: Duration = Duration::from_secs(60);

impl Terminal {
    /// Runs `command`, which begins with [`CONTROL`], in a terminal of this size.
    #[track_caller]
    pub fn run(mut command: Command, rows: u16, columns: u16) -> Terminal {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).unwrap();
        // The two ends must not leak into programs that other threads start at this moment.
        for end in [pty.master.as_fd(), pty.slave.as_fd()] {
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC).unwrap();
        }
        let before = tcgetattr(&pty.slave).unwrap();
        let far = || Stdio::from(pty.slave.try_clone().unwrap());
        let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        let line = words.join(" ");
        let child = command
            .stdin(far())
            .stdout(far())
            .stderr(far())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
        Terminal {
            near: File::from(pty.master),
            far: pty.slave,
            before,
            child,
            screen: String::new(),
            read_to: 0,
            line,
        }
    }

    /// Types.
    pub fn send(&mut self, keys: &str) {
        self.near.write_all(keys.as_bytes()).unwrap();
    }

    /// Types much at once, while the screen is read: neither waits for the other.
    pub fn paste(&self, text: String) -> std::thread::JoinHandle<()> {
        let mut near = self.near.try_clone().unwrap();
        std::thread::spawn(move || near.write_all(text.as_bytes()).unwrap())
    }

    /// Presses keys one after the other, as fingers do.
    pub fn press(&mut self, keys: &str) {
        for key in keys.chars() {
            self.send(&key.to_string());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until `text` appears after what was already waited for; gives what came before it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.screen[self.read_to..].find(text) {
                let before = self.screen[self.read_to..][..at].to_owned();
                self.read_to += at + text.len();
                return before;
            }
            assert!(
                Instant::now() < end && self.read(),
                "waited for {text:?} in vain\n{}",
                self.story()
            );
        }
    }

    /// Changes the size of the window.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&self.near, size).unwrap();
    }

    /// The process in the terminal.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Whether the terminal's settings are what they were before the program came.
    pub fn is_restored(&self) -> bool {
        tcgetattr(&self.far).unwrap() == self.before
    }

    /// Waits for the program's end; its exit code (128 + n after signal n).
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                while self.read_within(Duration::ZERO) {}
                return status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            }
            assert!(Instant::now() < end, "it does not end\n{}", self.story());
            self.read_within(Duration::from_millis(10));
        }
    }

    /// All that has been on the screen, as it came.
    pub fn seen(&self) -> &str {
        &self.screen
    }

    /// The same, for a panic.
    pub fn story(&self) -> String {
        format!("$ {}\n--- screen\n{}\n---", self.line, self.screen)
    }

    fn read(&mut self) -> bool {
        // False once the program is gone and all is read.
        self.read_within(Duration::from_millis(50))
            || self.child.try_wait().unwrap().is_none()
            || self.read_within(Duration::ZERO)
    }

    fn read_within(&mut self, limit: Duration) -> bool {
        let timeout = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: limit.as_nanos().min(999_999_999) as _,
        };
        let mut fds = [PollFd::new(&self.near, PollFlags::IN)];
        if !matches!(poll(&mut fds, Some(&timeout)), Ok(1)) {
            return false;
        }
        let mut buffer = [0; 4096];
        match self.near.read(&mut buffer) {
            Ok(n @ 1..) => {
                self.screen.push_str(&String::from_utf8_lossy(&buffer[..n]));
                true
            }
            _ => false,
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
