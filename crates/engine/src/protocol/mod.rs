//! What commands and the monitor say to one another.
//!
//! The socket keeps the boundaries of messages (`SOCK_SEQPACKET`, unix(7)): a message is one byte that names it and what
//! belongs to it, at most [`MAX_MESSAGE`] bytes. It is found at `RUNROOT/containers/ID/ctl`; the foreground `run` has a
//! socket pair instead, connected before the program starts.
//!
//! A monitor goes on with the program that started it, so a command may be newer than the monitor it talks to, or older.
//! The socket's name is the version: all that is said at `ctl` is version 1, whose messages keep their bytes for good (a
//! test holds them). A message that is new within a version must do without an answer, for a monitor that does not know
//! it says nothing; what cannot, and whatever changes a meaning, gets a socket of another name beside this one.

mod socket;

use crate::error::{Error, Result};
use crate::health::HealthStatus;
use crate::record::ProcessRef;
use crate::requests::Streams;

pub(crate) use socket::{
    CONTROL, NET, ask_health, ask_to_begin, await_attached, connect, connect_now, connect_stream,
    listen, listen_stream, tell, try_receive, try_send,
};

/// The most bytes of a stream that one message carries.
pub const MAX_DATA: usize = 32 * 1024;
/// The longest message.
pub const MAX_MESSAGE: usize = MAX_DATA + 1;

/// What a command says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Send me these streams, and take my input if stdin is among them.
    Attach(Streams),
    /// Input for the program.
    Input(&'a [u8]),
    /// There will be no more input from me.
    EndOfInput,
    /// My terminal has this many rows and columns.
    Resize(u16, u16),
    /// Nobody reads these outputs any more: let the program see its pipes closed, as it would without us.
    CloseOutput(Streams),
    /// Publish ports, or take them back: JSON of `crate::ports`.
    Ports(&'a [u8]),
    /// Somebody is about to stop the container: show it as stopping, and do not start it again.
    Stopping,
    /// Somebody is about to kill the container: do not start it again.
    Killing,
    /// Start the program of the container, which waits for that.
    Begin,
    /// Check the container's health now, and tell me what comes of it.
    Health,
    /// What is said of health checks in the container's record has changed.
    Renew,
}

/// What the monitor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// What came of [`Request::Attach`]: all output from here on follows.
    Attached,
    /// What came of [`Request::Begin`]: JSON of `Report`.
    Begun(&'a [u8]),
    /// The program wrote this to its standard output or terminal.
    Output(&'a [u8]),
    /// The program wrote this to its standard error.
    Error(&'a [u8]),
    /// What came of [`Request::Ports`]: JSON of `crate::ports`.
    Ports(&'a [u8]),
    /// The container has ended with this code; its record says so, and nothing follows. Everybody connected gets it.
    Exited(i32),
    /// What came of the health check.
    Health(HealthStatus),
}

fn bits(streams: Streams) -> u8 {
    u8::from(streams.stdin) | u8::from(streams.stdout) << 1 | u8::from(streams.stderr) << 2
}

fn of_bits(bits: u8) -> Streams {
    Streams {
        stdin: bits & 1 != 0,
        stdout: bits & 2 != 0,
        stderr: bits & 4 != 0,
    }
}

impl Request<'_> {
    /// Its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Request::Attach(streams) => out.extend([b'A', bits(*streams)]),
            Request::Input(data) => {
                out.push(b'I');
                out.extend_from_slice(data);
            }
            Request::EndOfInput => out.push(b'E'),
            Request::Resize(rows, cols) => {
                out.push(b'R');
                out.extend(rows.to_le_bytes());
                out.extend(cols.to_le_bytes());
            }
            Request::CloseOutput(streams) => out.extend([b'C', bits(*streams)]),
            Request::Ports(text) => {
                out.push(b'P');
                out.extend_from_slice(text);
            }
            Request::Stopping => out.push(b'S'),
            Request::Killing => out.push(b'K'),
            Request::Begin => out.push(b'B'),
            Request::Health => out.push(b'H'),
            Request::Renew => out.push(b'N'),
        }
    }

    /// What the bytes say; `None` for what no command of ours says.
    pub fn decode(message: &[u8]) -> Option<Request<'_>> {
        let (kind, rest) = message.split_first()?;
        Some(match (kind, rest) {
            (b'A', [bits @ 0..=7]) => Request::Attach(of_bits(*bits)),
            (b'I', data) => Request::Input(data),
            (b'E', []) => Request::EndOfInput,
            (b'R', &[a, b, c, d]) => {
                Request::Resize(u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
            }
            (b'C', [bits @ 0..=7]) => Request::CloseOutput(of_bits(*bits)),
            (b'P', text) => Request::Ports(text),
            (b'S', []) => Request::Stopping,
            (b'K', []) => Request::Killing,
            (b'B', []) => Request::Begin,
            (b'H', []) => Request::Health,
            (b'N', []) => Request::Renew,
            _ => return None,
        })
    }
}

impl Reply<'_> {
    /// Its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Reply::Attached => out.push(b'A'),
            Reply::Begun(text) => {
                out.push(b'B');
                out.extend_from_slice(text);
            }
            Reply::Output(data) => {
                out.push(b'O');
                out.extend_from_slice(data);
            }
            Reply::Error(data) => {
                out.push(b'e');
                out.extend_from_slice(data);
            }
            Reply::Ports(text) => {
                out.push(b'P');
                out.extend_from_slice(text);
            }
            Reply::Exited(code) => {
                out.push(b'X');
                out.extend(code.to_le_bytes());
            }
            Reply::Health(status) => out.extend([
                b'h',
                match status {
                    HealthStatus::Starting => b's',
                    HealthStatus::Healthy => b'h',
                    HealthStatus::Unhealthy => b'u',
                },
            ]),
        }
    }

    /// What the bytes say; `None` for what no monitor of ours says.
    pub fn decode(message: &[u8]) -> Option<Reply<'_>> {
        let (kind, rest) = message.split_first()?;
        Some(match (kind, rest) {
            (b'A', []) => Reply::Attached,
            (b'B', text) => Reply::Begun(text),
            (b'O', data) => Reply::Output(data),
            (b'e', data) => Reply::Error(data),
            (b'P', text) => Reply::Ports(text),
            (b'X', &[a, b, c, d]) => Reply::Exited(i32::from_le_bytes([a, b, c, d])),
            (b'h', b"s") => Reply::Health(HealthStatus::Starting),
            (b'h', b"h") => Reply::Health(HealthStatus::Healthy),
            (b'h', b"u") => Reply::Health(HealthStatus::Unhealthy),
            _ => return None,
        })
    }
}

/// What the monitor reports to the command that started it, once.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Report {
    /// The program runs.
    Started {
        /// PID 1 of the container.
        process: ProcessRef,
        /// Which of its streams come with this.
        #[serde(default)]
        streams: Vec<u8>,
    },
    /// It could not be started; nothing of the attempt is left.
    Failed {
        /// Why.
        message: String,
        /// The exit code for the command.
        code: i32,
        /// The way out.
        hint: Option<String>,
    },
}

impl Report {
    /// That `error` kept it from being started.
    pub fn failed(error: &Error) -> Report {
        Report::Failed {
            message: error.to_string(),
            code: error.exit_code(),
            hint: error.hint(),
        }
    }

    /// Which of its streams come with this.
    pub fn streams(&self) -> &[u8] {
        match self {
            Report::Started { streams, .. } => streams,
            Report::Failed { .. } => &[],
        }
    }

    /// PID 1 of the container, if it was started.
    pub fn started(self) -> Result<ProcessRef> {
        match self {
            Report::Started { process, .. } => Ok(process),
            Report::Failed {
                message,
                code,
                hint,
            } => Err(Error::Remote {
                message,
                code,
                hint,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of version 1, which programs of before say and understand.
    #[test]
    fn version_1_stays_as_it_is() {
        assert_eq!(CONTROL, "ctl");
        let streams = |stdin, stdout, stderr| Streams {
            stdin,
            stdout,
            stderr,
        };
        let requests: [(Request, &[u8]); 12] = [
            (Request::Attach(streams(true, false, false)), b"A\x01"),
            (Request::Attach(streams(false, true, true)), b"A\x06"),
            (Request::Input(b"abc"), b"Iabc"),
            (Request::EndOfInput, b"E"),
            (Request::Resize(24, 513), b"R\x18\0\x01\x02"),
            (Request::CloseOutput(streams(false, true, false)), b"C\x02"),
            (Request::Ports(b"{}"), b"P{}"),
            (Request::Stopping, b"S"),
            (Request::Killing, b"K"),
            (Request::Health, b"H"),
            (Request::Renew, b"N"),
            (Request::Input(b""), b"I"),
        ];
        let replies: [(Reply, &[u8]); 7] = [
            (Reply::Output(b"x"), b"Ox"),
            (Reply::Error(b"y"), b"ey"),
            (Reply::Ports(b"{}"), b"P{}"),
            (Reply::Exited(137), b"X\x89\0\0\0"),
            (Reply::Health(HealthStatus::Starting), b"hs"),
            (Reply::Health(HealthStatus::Healthy), b"hh"),
            (Reply::Health(HealthStatus::Unhealthy), b"hu"),
        ];
        let mut out = Vec::new();
        for (request, bytes) in requests {
            request.encode(&mut out);
            assert_eq!(out, bytes, "{request:?}");
            assert_eq!(Request::decode(bytes), Some(request));
        }
        for (reply, bytes) in replies {
            reply.encode(&mut out);
            assert_eq!(out, bytes, "{reply:?}");
            assert_eq!(Reply::decode(bytes), Some(reply));
        }
    }

    #[test]
    fn what_is_said_is_understood() {
        let mut bytes = Vec::new();
        for request in [
            Request::Attach(Streams {
                stdin: true,
                stdout: false,
                stderr: true,
            }),
            Request::Input(b"abc"),
            Request::Input(b""),
            Request::EndOfInput,
            Request::CloseOutput(Streams::OUTPUT),
            Request::Resize(24, 513),
            Request::Stopping,
            Request::Ports(b"{}"),
            Request::Killing,
            Request::Begin,
            Request::Health,
            Request::Renew,
        ] {
            request.encode(&mut bytes);
            assert_eq!(Request::decode(&bytes), Some(request));
        }
        for reply in [
            Reply::Attached,
            Reply::Begun(b"{}"),
            Reply::Output(b"x\n"),
            Reply::Error(b""),
            Reply::Ports(b"{}"),
            Reply::Exited(-1),
            Reply::Exited(137),
            Reply::Health(HealthStatus::Unhealthy),
        ] {
            reply.encode(&mut bytes);
            assert_eq!(Reply::decode(&bytes), Some(reply));
        }
    }

    #[test]
    fn nonsense_is_not() {
        for bytes in [
            &b""[..],
            b"A",
            b"A\x08",
            b"R\0\0\0",
            b"Ex",
            b"?",
            b"X\0\0\0\0\0",
        ] {
            assert_eq!(Request::decode(bytes), None);
        }
        for bytes in [&b""[..], b"X123", b"A\0"] {
            assert_eq!(Reply::decode(&bytes[..bytes.len().min(3)]), None);
        }
    }

    #[test]
    fn long_paths_are_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let listener = listen(&deep).unwrap();
        let client = connect(&deep).unwrap();
        let served = rustix::net::accept(&listener).unwrap();
        assert!(try_send(&client, b"S").unwrap());
        let mut buffer = [0; 8];
        assert_eq!(try_receive(&served, &mut buffer).unwrap(), Some(1));
        assert_eq!(try_receive(&served, &mut buffer).unwrap(), None);
        drop(client);
        assert_eq!(try_receive(&served, &mut buffer).unwrap(), Some(0));
    }
}
