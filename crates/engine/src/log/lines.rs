//! Lines out of the files of a log, across the borders of blocks and files, and across gaps.

use std::fs::File;
use std::io::{self, Read};

use chrono::{DateTime, Utc};

use super::LogLine;
use super::codec::Stream;
use super::reader::BLOCK;
use crate::LogRequest;

/// Who takes the lines.
pub(super) type Out<'a> = dyn FnMut(&LogLine<'_>) -> io::Result<()> + 'a;

/// What is read but not yet a whole line.
#[derive(Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
    /// The last piece of each stream that its line goes on after.
    open: Vec<(Stream, DateTime<Utc>)>,
    /// What comes first behind a gap, up to the end of a line: it may be the end of one whose beginning is lost.
    doubtful: Option<Vec<Vec<u8>>>,
}

impl Lines {
    /// Reads to the end of the file; false when no more is wanted.
    pub(super) fn read(
        &mut self,
        file: &mut File,
        request: &LogRequest,
        out: &mut Out<'_>,
    ) -> io::Result<bool> {
        let mut block = vec![0; BLOCK];
        loop {
            let count = file.read(&mut block)?;
            if count == 0 {
                return Ok(true);
            }
            let mut data = &block[..count];
            while let Some(at) = data.iter().position(|b| *b == b'\n') {
                let whole;
                let line = if self.rest.is_empty() {
                    &data[..at]
                } else {
                    self.rest.extend_from_slice(&data[..at]);
                    whole = std::mem::take(&mut self.rest);
                    &whole
                };
                if !self.take(line, request, out) {
                    return Ok(false);
                }
                data = &data[at + 1..];
            }
            self.rest.extend_from_slice(data);
        }
    }

    /// Takes one line of the file; false when no more is wanted.
    fn take(&mut self, text: &[u8], request: &LogRequest, out: &mut Out<'_>) -> bool {
        let Some(line) = LogLine::parse(text) else {
            return true;
        };
        if let Some(held) = &mut self.doubtful {
            let last = held.last().and_then(|text| LogLine::parse(text));
            if last.is_none_or(|last| last.partial) {
                held.push(text.to_vec());
                return true;
            }
            // There is more than what may be half a line.
            self.doubtful = None;
        }
        if request.until.is_some_and(|until| line.time > until) {
            return false;
        }
        if request.since.is_some_and(|since| line.time < since) {
            return true;
        }
        self.open.retain(|(stream, _)| *stream != line.stream);
        if line.partial {
            self.open.push((line.stream, line.time));
        }
        out(&line).is_ok()
    }

    /// Goes on behind a gap: what was begun before it is no beginning of what comes after.
    pub(super) fn pass_over(&mut self, out: &mut Out<'_>) -> bool {
        self.rest.clear();
        self.doubtful = Some(Vec::new());
        let open = std::mem::take(&mut self.open);
        open.into_iter().all(|(stream, time)| {
            let end = LogLine {
                time,
                stream,
                text: b"",
                partial: false,
            };
            out(&end).is_ok()
        })
    }

    /// Nothing more comes: half a line is better than none.
    pub(super) fn finish(&mut self, request: &LogRequest, out: &mut Out<'_>) {
        let held = self.doubtful.take().unwrap_or_default();
        let _ = held.iter().all(|text| self.take(text, request, out));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn line(tag: char, text: &str) -> String {
        format!("1970-01-01T00:00:00Z stdout {tag} {text}\n")
    }

    #[test]
    fn halves_of_different_lines_are_not_joined() {
        let mut seen = String::new();
        let mut out = |line: &LogLine<'_>| {
            seen.push_str(std::str::from_utf8(line.text).unwrap());
            seen.push_str(if line.partial { "" } else { "\n" });
            Ok(())
        };
        let request = LogRequest::default();
        let mut lines = Lines::default();
        let mut read = |lines: &mut Lines, text: String| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.rewind().unwrap();
            assert!(lines.read(&mut file, &request, &mut out).unwrap());
        };
        read(&mut lines, line('F', "one") + &line('P', "tw"));
        let mut end = |line: &LogLine<'_>| {
            assert_eq!((line.text, line.partial), (&b""[..], false));
            Ok(())
        };
        assert!(lines.pass_over(&mut end));
        read(
            &mut lines,
            line('P', "se") + &line('F', "ven") + &line('F', "eight"),
        );
        // What is alone is shown at the end.
        let mut nothing = |_: &LogLine<'_>| unreachable!();
        assert!(lines.pass_over(&mut nothing));
        read(&mut lines, line('F', "last"));
        lines.finish(&request, &mut out);
        assert_eq!(seen, "one\ntweight\nlast\n");
    }
}
