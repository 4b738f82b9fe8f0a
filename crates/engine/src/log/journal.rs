//! The journal of systemd: written by its own protocol, read through `journalctl`, which is there where the journal is.
//!
//! A message is one datagram of fields (systemd's "Native Journal Protocol"): `NAME=value` and a line end, or, for a value
//! that has line ends itself, `NAME`, a line end, its length in eight bytes, the value and a line end.

use std::io::{self, BufRead, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use chrono::{DateTime, Utc};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::codec::{LogLine, Stream};
use crate::LogRequest;
use crate::record::Config;

/// Where the journal takes messages.
const SOCKET: &str = "/run/systemd/journal/socket";
/// The longest piece of a line in one message.
const LONGEST: usize = 16 * 1024;

/// A connection to the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    socket: UnixDatagram,
    /// The fields that go with every message.
    common: Vec<u8>,
    /// Beginnings of lines, of standard output and of standard error.
    open: [Vec<u8>; 2],
}

impl Journal {
    /// Connects.
    pub fn open(config: &Config) -> io::Result<Journal> {
        Journal::connect(Path::new(SOCKET), config)
    }

    fn connect(path: &Path, config: &Config) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "the journal of systemd is not to be had here ({}): {}",
                    path.display(),
                    rcon_sys::errors::in_words(&error)
                ),
            )
        })?;
        let mut common = Vec::new();
        let tag = config.lifecycle.log.tag.as_deref();
        for (name, value) in [
            ("CONTAINER_ID", config.short_id()),
            ("CONTAINER_ID_FULL", &config.id),
            ("CONTAINER_NAME", &config.name),
            ("IMAGE_NAME", &config.image_name),
            ("CONTAINER_TAG", tag.unwrap_or_default()),
            ("SYSLOG_IDENTIFIER", tag.unwrap_or(&config.name)),
        ] {
            if !value.is_empty() {
                field(&mut common, name, value.as_bytes());
            }
        }
        Ok(Journal {
            socket,
            common,
            open: [Vec::new(), Vec::new()],
        })
    }

    /// Sends the lines in `data`; the last one is kept until it has its end, or has grown long.
    pub fn write(&mut self, stream: Stream, data: &[u8]) {
        let mut rest = data;
        while let Some(at) = rest.iter().position(|b| *b == b'\n') {
            let mut line = std::mem::take(&mut self.open[place(stream)]);
            line.extend_from_slice(&rest[..at]);
            self.send(stream, &line, false);
            rest = &rest[at + 1..];
        }
        self.open[place(stream)].extend_from_slice(rest);
        if self.open[place(stream)].len() > LONGEST {
            let piece = std::mem::take(&mut self.open[place(stream)]);
            self.send(stream, &piece, true);
        }
    }

    /// Sends the last line if it has no end.
    pub fn finish(&mut self, stream: Stream) {
        let line = std::mem::take(&mut self.open[place(stream)]);
        if !line.is_empty() {
            self.send(stream, &line, false);
        }
    }

    fn send(&self, stream: Stream, line: &[u8], partial: bool) {
        let mut message = self.common.clone();
        let priority: &[u8] = match stream {
            Stream::Stdout => b"6",
            Stream::Stderr => b"3",
        };
        field(&mut message, "PRIORITY", priority);
        if partial {
            field(&mut message, "CONTAINER_PARTIAL_MESSAGE", b"true");
        }
        field(&mut message, "MESSAGE", line);
        // A journal that is gone must not stop the program.
        let _ = self.socket.send(&message);
    }
}

fn place(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

fn field(message: &mut Vec<u8>, name: &str, value: &[u8]) {
    message.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        message.push(b'\n');
        message.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        message.push(b'=');
    }
    message.extend_from_slice(value);
    message.push(b'\n');
}

/// What the journal has of a container, read through `journalctl`.
pub(crate) struct Reader {
    child: Child,
    monitor: Option<OwnedFd>,
}

impl Reader {
    /// Asks for the messages of the container with this id. With `monitor`, a connection to its monitor, also for those to
    /// come, until the monitor hangs up.
    pub fn start(id: &str, request: &LogRequest, monitor: Option<OwnedFd>) -> io::Result<Reader> {
        let mut command = Command::new("journalctl");
        command
            .args(["--quiet", "--no-pager", "--output=export", "--all"])
            .arg(format!("CONTAINER_ID_FULL={id}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        match request.tail {
            Some(lines) => command.arg(format!("--lines={lines}")),
            None => command.arg("--lines=all"),
        };
        if monitor.is_some() {
            command.arg("--follow");
        }
        Ok(Reader {
            child: command.spawn()?,
            monitor,
        })
    }

    /// Hands every message to `out` until there are no more or it says that it wants none.
    pub fn read(mut self, out: &mut dyn FnMut(&LogLine<'_>) -> bool) -> io::Result<()> {
        let result = match self.child.stdout.take() {
            Some(stdout) => {
                let source = Source {
                    journal: stdout,
                    monitor: self.monitor.take(),
                    quiet: false,
                };
                read_export(&mut io::BufReader::new(source), out)
            }
            None => Ok(()),
        };
        let _ = self.child.kill();
        let _ = self.child.wait();
        result
    }
}

/// How long the journal may take to tell of what a container wrote last.
const GRACE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// What `journalctl` prints, which is over when the container has ended and nothing more comes.
struct Source {
    journal: ChildStdout,
    monitor: Option<OwnedFd>,
    /// The container has ended.
    quiet: bool,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut fds = vec![PollFd::new(&self.journal, PollFlags::IN)];
            fds.extend(self.monitor.iter().map(|m| PollFd::new(m, PollFlags::IN)));
            let limit = self.quiet.then_some(&GRACE);
            if rustix::io::retry_on_intr(|| poll(&mut fds, limit))? == 0 {
                return Ok(0);
            }
            let [journal, monitor] = [0, 1].map(|at| {
                fds.get(at)
                    .is_some_and(|fd: &PollFd<'_>| !fd.revents().is_empty())
            });
            if journal {
                return self.journal.read(buffer);
            }
            if monitor {
                self.monitor = None;
                self.quiet = true;
            }
        }
    }
}

/// Reads the journal's export format: fields as above, and an empty line after each message.
fn read_export(
    source: &mut dyn BufRead,
    out: &mut dyn FnMut(&LogLine<'_>) -> bool,
) -> io::Result<()> {
    let mut message = Message::default();
    loop {
        let mut line = Vec::new();
        let ended = source.read_until(b'\n', &mut line)? == 0;
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        if line.is_empty() {
            if !std::mem::take(&mut message).give(out) || ended {
                return Ok(());
            }
            continue;
        }
        match line.iter().position(|b| *b == b'=') {
            Some(at) => message.set(&line[..at], &line[at + 1..]),
            None => {
                let mut length = [0; 8];
                source.read_exact(&mut length)?;
                let mut value = Vec::new();
                source
                    .take(u64::from_le_bytes(length))
                    .read_to_end(&mut value)?;
                // Its line end.
                source.read_exact(&mut [0])?;
                message.set(line, &value);
            }
        }
    }
}

/// The fields of one message that matter.
#[derive(Default)]
struct Message {
    text: Option<Vec<u8>>,
    time: Option<DateTime<Utc>>,
    error: bool,
    partial: bool,
}

impl Message {
    fn set(&mut self, name: &[u8], value: &[u8]) {
        let number = || std::str::from_utf8(value).ok()?.parse::<i64>().ok();
        match name {
            b"MESSAGE" => self.text = Some(value.to_vec()),
            b"__REALTIME_TIMESTAMP" => {
                self.time = number().and_then(DateTime::from_timestamp_micros);
            }
            b"PRIORITY" => self.error = value == b"3",
            b"CONTAINER_PARTIAL_MESSAGE" => self.partial = value == b"true",
            _ => {}
        }
    }

    /// False when no more is wanted.
    fn give(self, out: &mut dyn FnMut(&LogLine<'_>) -> bool) -> bool {
        match (&self.text, self.time) {
            (Some(text), Some(time)) => out(&LogLine {
                time,
                stream: match self.error {
                    true => Stream::Stderr,
                    false => Stream::Stdout,
                },
                text,
                partial: self.partial,
            }),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_the_journal_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let server = UnixDatagram::bind(&path).unwrap();
        let config = crate::record::test_config("web");
        let mut journal = Journal::connect(&path, &config).unwrap();
        journal.write(Stream::Stdout, b"one\ntw");
        journal.write(Stream::Stderr, b"bad\n");
        journal.write(Stream::Stdout, b"o");
        journal.finish(Stream::Stdout);
        journal.write(Stream::Stdout, &[b'x'; LONGEST + 1]);
        let mut export = Vec::new();
        for _ in 0..4 {
            let mut buffer = vec![0; 64 * 1024];
            let count = server.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            assert!(text.contains("CONTAINER_NAME=web\n"), "{text}");
            assert!(text.contains(&format!("CONTAINER_ID_FULL={}\n", config.id)));
            export.extend_from_slice(b"__REALTIME_TIMESTAMP=1000000\n");
            export.extend_from_slice(&buffer[..count]);
            export.push(b'\n');
        }
        let mut seen = Vec::new();
        read_export(&mut export.as_slice(), &mut |line| {
            let text = String::from_utf8_lossy(line.text).into_owned();
            assert_eq!(line.time.timestamp(), 1);
            seen.push((text.len(), text.chars().next(), line.stream, line.partial));
            true
        })
        .unwrap();
        assert_eq!(
            seen,
            [
                (3, Some('o'), Stream::Stdout, false),
                (3, Some('b'), Stream::Stderr, false),
                (3, Some('t'), Stream::Stdout, false),
                (LONGEST + 1, Some('x'), Stream::Stdout, true),
            ]
        );
    }

    #[test]
    fn values_with_line_ends_have_a_length() {
        let mut message = Vec::new();
        field(&mut message, "MESSAGE", b"a\nb");
        assert_eq!(message, b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n");
    }
}
