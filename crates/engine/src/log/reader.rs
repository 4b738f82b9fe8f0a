//! Reading the log, from any line near its end, and following it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use chrono::Utc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::{FILE, LogLine};
use crate::error::{Context, Result};
use crate::{Engine, LogRequest, protocol};

const BLOCK: usize = 64 * 1024;

impl Engine {
    /// Hands the log to `out` piece by piece; an error of `out` (a closed pipe) ends it quietly.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchContainer`]; a log that cannot be read.
    pub fn logs(
        &self,
        name_or_id: &str,
        request: &LogRequest,
        out: &mut dyn FnMut(&LogLine<'_>) -> io::Result<()>,
    ) -> Result<()> {
        let container = self.container(name_or_id)?;
        let path = self.paths.container(container.id()).join(FILE);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            // Never started.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e).on("open", &path),
        };
        // Watch before reading, so that nothing falls between.
        let watch = match request.follow && container.state.status.is_alive() {
            true => {
                Some(Watch::new(&path, &self.paths.runtime(container.id())).on("watch", &path)?)
            }
            false => None,
        };
        if let Some(lines) = request.tail {
            seek_to_tail(&mut file, lines).on("read", &path)?;
        }
        let mut lines = Lines::default();
        loop {
            // Asked before the rest is read: what is written before the end is then read.
            let ended = watch.as_ref().is_none_or(Watch::has_ended);
            if !lines.read(&mut file, request, out).on("read", &path)? {
                return Ok(());
            }
            let left = request
                .until
                .map(|until| (until - Utc::now()).to_std().unwrap_or_default());
            if ended || left == Some(Duration::ZERO) {
                return Ok(());
            }
            if let Some(watch) = &watch {
                watch.wait(left).on("watch", &path)?;
            }
        }
    }
}

/// What is read but not yet a whole line.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Reads to the end of the file; false when no more is wanted.
    fn read(
        &mut self,
        file: &mut File,
        request: &LogRequest,
        out: &mut dyn FnMut(&LogLine<'_>) -> io::Result<()>,
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
                if let Some(line) = LogLine::parse(line) {
                    if request.until.is_some_and(|until| line.time > until) {
                        return Ok(false);
                    }
                    if request.since.is_none_or(|since| line.time >= since) && out(&line).is_err() {
                        return Ok(false);
                    }
                }
                data = &data[at + 1..];
            }
            self.rest.extend_from_slice(data);
        }
    }
}

/// Goes to where the last `count` lines begin, reading backwards; pieces of a line count as one.
fn seek_to_tail(file: &mut File, count: u64) -> io::Result<()> {
    let mut end = file.seek(SeekFrom::End(0))?;
    // The bytes from the block's start to just behind the line we look at, newest block first.
    let mut tail: Vec<u8> = Vec::new();
    let mut found = 0;
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let mut block = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        block.extend_from_slice(&tail);
        tail = block;
        // Whole lines of `tail`, from the last; the first may be cut unless the file begins here.
        let mut to = tail.len();
        found = 0;
        while to > 0 {
            let from = tail[..to - 1]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
            if from == 0 && start > 0 {
                break;
            }
            let complete = LogLine::parse(
                tail[from..to]
                    .strip_suffix(b"\n")
                    .unwrap_or(&tail[from..to]),
            );
            if complete.is_none_or(|l| !l.partial) || to == tail.len() {
                found += 1;
            }
            if found > count {
                file.seek(SeekFrom::Start(start + to as u64))?;
                return Ok(());
            }
            to = from;
        }
        end = start;
    }
    let _ = found;
    file.seek(SeekFrom::Start(0))?;
    Ok(())
}

/// Waits for the log to grow or the container to end.
struct Watch {
    changes: OwnedFd,
    /// Hangs up when the monitor has seen the end.
    monitor: Option<OwnedFd>,
}

impl Watch {
    fn new(log: &Path, runtime: &Path) -> io::Result<Watch> {
        let changes =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&changes, log, inotify::WatchFlags::MODIFY)?;
        Ok(Watch {
            changes,
            monitor: protocol::connect(runtime).ok(),
        })
    }

    fn has_ended(&self) -> bool {
        let Some(monitor) = &self.monitor else {
            return true;
        };
        let mut fds = [PollFd::new(monitor, PollFlags::IN)];
        !matches!(
            poll(
                &mut fds,
                Some(&Timespec {
                    tv_sec: 0,
                    tv_nsec: 0
                })
            ),
            Ok(0)
        )
    }

    fn wait(&self, limit: Option<Duration>) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&self.changes, PollFlags::IN)];
        fds.extend(
            self.monitor
                .iter()
                .map(|m| PollFd::from_borrowed_fd(m.as_fd(), PollFlags::IN)),
        );
        let limit = limit.and_then(|l| Timespec::try_from(l).ok());
        rustix::io::retry_on_intr(|| poll(&mut fds, limit.as_ref()))?;
        // That something changed is all there is to know.
        let mut events = [0; 4096];
        let _ = rustix::io::read(&self.changes, &mut events);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn tail_of(text: &str, count: u64) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        seek_to_tail(&mut file, count).unwrap();
        let mut out = String::new();
        file.read_to_string(&mut out).unwrap();
        out
    }

    fn line(tag: char, text: &str) -> String {
        format!("1970-01-01T00:00:00Z stdout {tag} {text}\n")
    }

    #[test]
    fn the_tail_is_found() {
        let text = line('F', "a") + &line('F', "b") + &line('F', "c");
        assert_eq!(tail_of(&text, 0), "");
        assert_eq!(tail_of(&text, 1), line('F', "c"));
        assert_eq!(tail_of(&text, 2), line('F', "b") + &line('F', "c"));
        assert_eq!(tail_of(&text, 3), text);
        assert_eq!(tail_of(&text, 9), text);
        assert_eq!(tail_of("", 2), "");
    }

    #[test]
    fn pieces_count_as_one_line() {
        let text = line('F', "a") + &line('P', "b") + &line('F', "c");
        assert_eq!(tail_of(&text, 1), line('P', "b") + &line('F', "c"));
        let open = line('F', "a") + &line('P', "b") + &line('P', "c");
        assert_eq!(tail_of(&open, 1), line('P', "b") + &line('P', "c"));
    }

    #[test]
    fn blocks_are_crossed() {
        let long = "x".repeat(50_000);
        let text = line('F', &long) + &line('F', &long) + &line('F', &long);
        assert_eq!(tail_of(&text, 2).len(), text.len() / 3 * 2);
        assert_eq!(tail_of(&text, 3).len(), text.len());
    }
}
