//! Background programs that cannot outlive the suite.
//!
//! Each runs under a small shell that waits for the end of its own standard input: when this process ends, in
//! whatever way, the pipe closes and the shell ends the program.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Ends what it started when its input ends. The program itself gets no input.
const LEASH: &str = r#"trap '' INT HUP TERM
"$@" 2>&1 </dev/null &
read -r _
exec 2>/dev/null
kill -KILL $!
wait $!"#;

/// A background program and what it prints.
pub struct Service {
    child: Child,
    lines: Mutex<Receiver<String>>,
    seen: Vec<String>,
    name: String,
}

impl Service {
    /// Starts a program that knows itself when to end: at the end of its standard input.
    pub fn start(program: &Path, args: &[&str]) -> Service {
        let mut command = Command::new(program);
        command.args(args);
        Service::spawn(command)
    }

    /// Starts a program that would go on for ever, on a leash.
    pub fn leashed(program: &Path, args: &[&str]) -> Service {
        let mut command = Command::new("sh");
        command.args(["-c", LEASH, "leash"]).arg(program).args(args);
        Service::spawn(command)
    }

    fn spawn(mut command: Command) -> Service {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let out = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // Nobody may be listening any more: what is read is then only kept from blocking the program.
                let _ = sender.send(line);
            }
        });
        Service {
            child,
            lines: Mutex::new(lines),
            seen: Vec::new(),
            name,
        }
    }

    /// The process of the program (of its leash, if it has one).
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that `wanted` makes something of.
    pub fn wait_for<T>(&mut self, limit: Duration, wanted: impl Fn(&str) -> Option<T>) -> T {
        self.try_wait_for(limit, wanted)
            .unwrap_or_else(|| panic!("{} is not ready:\n{}", self.name, self.seen.join("\n")))
    }

    /// The same; `None` when it ends before, or the time is up.
    pub fn try_wait_for<T>(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.get_mut().unwrap().recv_timeout(left);
            match line {
                Ok(line) => {
                    let found = wanted(&line);
                    self.seen.push(line);
                    if found.is_some() {
                        return found;
                    }
                }
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
