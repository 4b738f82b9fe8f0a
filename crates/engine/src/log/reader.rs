//! Reading the log, from any line near its end, and following it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Utc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::lines::Lines;
use super::{LogLine, journal};
use crate::error::{Context, Error, Result};
use crate::lifecycle::LogDriver;
use crate::record::Container;
use crate::{Engine, LogRequest, protocol};

pub(super) const BLOCK: usize = 64 * 1024;

/// How often, and how long apart, to try to reach the monitor that comes after one that was killed.
const ATTEMPTS: u32 = 500;
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Engine {
    /// Hands the log to `out` piece by piece; an error of `out` (a closed pipe) ends it quietly.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchContainer`]; a container that keeps no log; a log that cannot be read.
    pub fn logs(
        &self,
        name_or_id: &str,
        request: &LogRequest,
        out: &mut dyn FnMut(&LogLine<'_>) -> io::Result<()>,
    ) -> Result<()> {
        let container = self.container(name_or_id)?;
        let options = &container.config.lifecycle.log;
        match options.driver {
            LogDriver::K8sFile | LogDriver::JsonFile => {}
            LogDriver::Journald => return self.journal(&container, request, out),
            driver @ (LogDriver::None | LogDriver::Passthrough) => {
                return Err(Error::Invalid(format!(
                    "this container is using the '{}' log driver, cannot read logs: this container is not logging output",
                    driver.as_str()
                )));
            }
        }
        let path = self.log_path(&container);
        // Watch before reading, so that nothing falls between.
        let mut watch = match request.follow && container.state.status.has_process() {
            true => {
                Some(Watch::new(&path, &self.paths.runtime(container.id())).on("watch", &path)?)
            }
            false => None,
        };
        let Some(mut files) = Files::open(&path, request.tail).on("read", &path)? else {
            // Never started.
            return Ok(());
        };
        let mut lines = Lines::default();
        loop {
            // Asked before the rest is read: what is written before the end is then read.
            let ended = watch.as_ref().is_none_or(Watch::has_ended);
            loop {
                // Also asked before: what was written to a file before it was put aside is then read.
                let more = files.has_next();
                if !lines
                    .read(files.current(), request, out)
                    .on("read", &path)?
                {
                    return Ok(());
                }
                if !more {
                    break;
                }
                match files.next() {
                    Next::None => break,
                    Next::File => {}
                    Next::AfterGap => {
                        if !lines.pass_over(out) {
                            return Ok(());
                        }
                    }
                }
            }
            let left = request
                .until
                .map(|until| (until - Utc::now()).to_std().unwrap_or_default());
            let over = left == Some(Duration::ZERO);
            if ended || over {
                let goes_on = match &mut watch {
                    Some(watch) if !over && watch.has_lost_monitor() => {
                        self.watch_on(container.id(), watch)?
                    }
                    _ => false,
                };
                if goes_on {
                    continue;
                }
                lines.finish(request, out);
                return Ok(());
            }
            if let Some(watch) = &watch {
                watch.wait(left).on("watch", &path)?;
            }
        }
    }

    /// Goes on with the monitor that comes after one that was killed; false when the container has ended.
    fn watch_on(&self, id: &str, watch: &mut Watch) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            // This gives it another one, unless somebody else is about to.
            let now = self.current(id)?;
            if !now.is_some_and(|now| now.state.status.has_process()) {
                return Ok(false);
            }
            if let Ok(monitor) = protocol::connect(&self.paths.runtime(id)) {
                watch.monitor = Some(monitor);
                return Ok(true);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(false)
    }

    /// The file that a container's output is written to.
    pub fn log_path(&self, container: &Container) -> PathBuf {
        let dir = self.paths.container(container.id());
        super::path(&dir, &container.config.lifecycle.log)
    }

    /// What the journal has of a container.
    fn journal(
        &self,
        container: &Container,
        request: &LogRequest,
        out: &mut dyn FnMut(&LogLine<'_>) -> io::Result<()>,
    ) -> Result<()> {
        let unreadable = || "cannot read the journal: journalctl cannot be run".to_string();
        let monitor = match request.follow {
            true => protocol::connect(&self.paths.runtime(container.id())).ok(),
            false => None,
        };
        let reader =
            journal::Reader::start(container.id(), request, monitor).context(unreadable)?;
        reader
            .read(&mut |line| match request.until {
                Some(until) if line.time > until => false,
                _ if request.since.is_some_and(|since| line.time < since) => true,
                _ => out(line).is_ok(),
            })
            .context(unreadable)
    }
}

/// The files of a log, from the oldest that is wanted to the one that is written.
struct Files<'a> {
    path: &'a Path,
    /// Still to be read, the next one last.
    older: Vec<File>,
    current: File,
}

impl<'a> Files<'a> {
    /// Opens them, at the beginning of the last `tail` lines; `None` when there are none.
    fn open(path: &'a Path, tail: Option<u64>) -> io::Result<Option<Files<'a>>> {
        let mut newest = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut wanted = tail.unwrap_or(u64::MAX);
        if tail.is_some() {
            wanted -= seek_to_tail(&mut newest, wanted)?;
        }
        let mut all = vec![newest];
        for age in 1.. {
            if wanted == 0 {
                break;
            }
            let mut file = match File::open(super::aside(path, age)) {
                Ok(file) => file,
                Err(_) => break,
            };
            // One that was put aside since we opened it is there twice.
            if all.last().is_some_and(|newer| is_same(newer, &file)) {
                continue;
            }
            if tail.is_some() {
                wanted -= seek_to_tail(&mut file, wanted)?;
            }
            all.push(file);
        }
        let current = all.pop().ok_or(io::ErrorKind::NotFound)?;
        Ok(Some(Files {
            path,
            older: all,
            current,
        }))
    }

    fn current(&mut self) -> &mut File {
        &mut self.current
    }

    /// Whether nothing more will be written to the current file.
    fn has_next(&self) -> bool {
        !self.older.is_empty() || self.newer().is_some()
    }

    /// Goes on to the next file.
    fn next(&mut self) -> Next {
        let next = match self.older.pop() {
            Some(file) => Some((file, Next::File)),
            None => self.newer(),
        };
        let Some((file, how)) = next else {
            return Next::None;
        };
        self.current = file;
        how
    }

    /// The file that followed the current one, or the oldest that is left if that is gone.
    fn newer(&self) -> Option<(File, Next)> {
        let mut next = File::open(self.path).ok()?;
        if is_same(&next, &self.current) {
            return None;
        }
        for age in 1.. {
            match File::open(super::aside(self.path, age)) {
                Ok(file) if is_same(&file, &self.current) => return Some((next, Next::File)),
                Ok(file) => next = file,
                Err(_) => break,
            }
        }
        Some((next, Next::AfterGap))
    }
}

/// What there is behind the file that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    None,
    File,
    /// A file between was removed before we came to it.
    AfterGap,
}

fn is_same(one: &File, other: &File) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Goes to where the last `count` lines begin, reading backwards; pieces of a line count as one. How many there are.
fn seek_to_tail(file: &mut File, count: u64) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    // The end of the line that begins before the block that was read.
    let mut cut: Vec<u8> = Vec::new();
    let mut found = 0;
    let mut is_last = true;
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let mut block = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        block.extend_from_slice(&cut);
        // Whole lines, from the last; the first may be cut unless the file begins here.
        let mut to = block.len();
        while to > 0 {
            let from = block[..to - 1]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
            if from == 0 && start > 0 {
                break;
            }
            let line = &block[from..to];
            let complete = LogLine::parse(line.strip_suffix(b"\n").unwrap_or(line));
            if complete.is_none_or(|l| !l.partial) || is_last {
                found += 1;
            }
            is_last = false;
            if found > count {
                file.seek(SeekFrom::Start(start + to as u64))?;
                return Ok(count);
            }
            to = from;
        }
        block.truncate(to);
        cut = block;
        end = start;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(found)
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
        // The folder, since the file is put aside when it has grown.
        let folder = log.parent().unwrap_or(Path::new("/"));
        let flags = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_FROM;
        inotify::add_watch(&changes, folder, flags)?;
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

    /// Whether the monitor went without a word of the end.
    fn has_lost_monitor(&self) -> bool {
        let Some(monitor) = &self.monitor else {
            return true;
        };
        matches!(
            protocol::try_receive(monitor, &mut [0; 16]),
            Ok(Some(0)) | Err(_)
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
        // A line in many pieces, over several blocks.
        let begin = line('F', "a");
        let text = begin.clone() + &line('P', &long).repeat(5) + &line('F', "b");
        assert_eq!(tail_of(&text, 1).len(), text.len() - begin.len());
        assert_eq!(tail_of(&text, 2), text);
    }
}
