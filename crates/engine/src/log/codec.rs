//! Lines of the log file and back.

use std::io::Write;

use chrono::{DateTime, SecondsFormat, Utc};

/// Which stream a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// One piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// When it was read from the container.
    pub time: DateTime<Utc>,
    /// Where it was written.
    pub stream: Stream,
    /// The text without its line end.
    pub text: &'a [u8],
    /// The line goes on in the next piece of this stream.
    pub partial: bool,
}

impl<'a> LogLine<'a> {
    /// Reads one line of the file, without its line end; `None` for what is none.
    pub fn parse(line: &'a [u8]) -> Option<LogLine<'a>> {
        let (time, rest) = word(line)?;
        let (stream, rest) = word(rest)?;
        let (tag, text) = match word(rest) {
            Some(split) => split,
            None => (rest, &b""[..]),
        };
        Some(LogLine {
            time: DateTime::parse_from_rfc3339(std::str::from_utf8(time).ok()?)
                .ok()?
                .with_timezone(&Utc),
            stream: match stream {
                b"stdout" => Stream::Stdout,
                b"stderr" => Stream::Stderr,
                _ => return None,
            },
            text,
            partial: match tag {
                b"P" => true,
                b"F" => false,
                _ => return None,
            },
        })
    }
}

fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|b| *b == b' ')?;
    Some((&text[..at], &text[at + 1..]))
}

/// Makes the file's lines of what is read from one stream.
#[derive(Debug)]
pub(crate) struct Encoder {
    pub(super) stream: Stream,
}

impl Encoder {
    pub fn new(stream: Stream) -> Encoder {
        Encoder { stream }
    }

    /// Appends the lines for `data`, read at `time`, to `out`.
    pub fn encode(&self, time: DateTime<Utc>, data: &[u8], out: &mut Vec<u8>) {
        if data.is_empty() {
            return;
        }
        let time = time.to_rfc3339_opts(SecondsFormat::Nanos, false);
        let mut rest = data;
        while !rest.is_empty() {
            let (text, tag, next) = match rest.iter().position(|b| *b == b'\n') {
                Some(at) => (&rest[..at], 'F', &rest[at + 1..]),
                None => (rest, 'P', &rest[rest.len()..]),
            };
            self.line(&time, tag, text, out);
            rest = next;
        }
    }

    fn line(&self, time: &str, tag: char, text: &[u8], out: &mut Vec<u8>) {
        // Writing to memory cannot fail.
        let _ = write!(out, "{time} {} {tag} ", self.stream.as_str());
        out.extend_from_slice(text);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 5).unwrap()
    }

    #[test]
    fn lines_go_there_and_back() {
        let mut out = Vec::new();
        let encoder = Encoder::new(Stream::Stdout);
        encoder.encode(at(0), b"one\n\ntw", &mut out);
        encoder.encode(at(1), b"o \xff", &mut out);
        assert!(out.starts_with(b"1970-01-01T00:00:00.000000005+00:00 stdout F one\n"));
        let lines: Vec<_> = out
            .strip_suffix(b"\n")
            .unwrap()
            .split(|b| *b == b'\n')
            .collect();
        let lines: Vec<_> = lines
            .into_iter()
            .map(|l| LogLine::parse(l).unwrap())
            .collect();
        let pieces: Vec<_> = lines.iter().map(|l| (l.text, l.partial)).collect();
        let expected: &[(&[u8], bool)] = &[
            (b"one", false),
            (b"", false),
            (b"tw", true),
            (b"o \xff", true),
        ];
        assert_eq!(pieces, expected);
        assert_eq!((lines[3].time, lines[3].stream), (at(1), Stream::Stdout));
    }

    #[test]
    fn nonsense_is_no_line() {
        for line in [
            "",
            "x stdout F a",
            "1970-01-01T00:00:00Z stdin F a",
            "1970-01-01T00:00:00Z stdout Q a",
            "1970-01-01T00:00:00Z",
        ] {
            assert_eq!(LogLine::parse(line.as_bytes()), None, "{line}");
        }
        assert!(LogLine::parse(b"1970-01-01T00:00:00Z stderr F").is_some());
    }
}
