//! What the user sees: data on standard output, everything else on standard error.

pub mod format;
pub mod human;
pub mod json;
pub mod table;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Writes to standard output at once.
///
/// # Errors
/// As the write fails; a gone reader is [`io::ErrorKind::BrokenPipe`].
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a line to standard output at once.
///
/// # Errors
/// As [`print()`].
pub fn println(line: &str) -> io::Result<()> {
    print(&format!("{line}\n"))
}

/// Writes `LABEL text` to standard error, the label in colour on a terminal that wants it. Nothing can be done about a
/// failure here.
///
/// A message may quote what a registry, an image or a container said: it does not get to speak to the terminal.
pub fn error_line(label: &str, text: &str) {
    let text = printable(text);
    let colour = match label {
        "Error:" => "\x1b[1;31m",
        "hint:" => "\x1b[1;36m",
        _ => "\x1b[1;33m",
    };
    let line = match colours() {
        true => format!("{colour}{label}\x1b[0m {text}\n"),
        false => format!("{label} {text}\n"),
    };
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Where the time went, a line a mark; none when nobody asked ([`rcon_sys::trace`]).
pub fn trace_lines() -> Vec<String> {
    let marks = rcon_sys::trace::marks();
    let Some(first) = marks.first().map(|mark| mark.time) else {
        return Vec::new();
    };
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let mut before = first;
    let line = |mark: &rcon_sys::trace::Mark| {
        let since = mark.time - std::mem::replace(&mut before, mark.time);
        format!(
            "trace {:8.3} ms (+{:.3}) process {}: {}",
            millis(mark.time - first),
            millis(since),
            mark.pid,
            mark.text
        )
    };
    marks.iter().map(line).collect()
}

/// The text with its control characters, but for tabs and ends of lines, made harmless.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Whether standard error is a terminal that wants colours (<https://no-color.org>).
fn colours() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    io::stderr().is_terminal()
        && !set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_do_not_speak_to_the_terminal() {
        assert_eq!(
            printable("a\x1b[31mb\n\tc\r\u{9b}"),
            "a\u{fffd}[31mb\n\tc\u{fffd}\u{fffd}"
        );
    }
}
