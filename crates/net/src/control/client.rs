//! The side of those who look.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::report::{Answer, Message, Question, Request, VERSION};

/// How long to wait for a network process that does not answer: it answers in the turn of its loop.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks one thing through a connected socket.
///
/// # Errors
/// What reading and writing say; InvalidData for an answer that is none.
pub fn ask(socket: OwnedFd, request: Request) -> io::Result<Answer> {
    let mut stream = UnixStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let question = Question {
        version: VERSION,
        request,
    };
    let mut line = serde_json::to_vec(&question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    if BufReader::new(stream).read_line(&mut answer)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let message: Message = serde_json::from_str(&answer)?;
    Ok(message.answer)
}
