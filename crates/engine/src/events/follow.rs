//! Reading the log of events, from its beginning or from now on.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use chrono::{DateTime, Utc};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::{Event, EventFilters, FILE, OLD};
use crate::Engine;
use crate::error::{Context, Result};

/// Which events to hand out.
#[derive(Clone, Debug, Default)]
pub struct EventRequest {
    /// Nothing before.
    pub since: Option<DateTime<Utc>>,
    /// Nothing after; and with `stream`, until then.
    pub until: Option<DateTime<Utc>>,
    /// Go on as they happen. Without `since` or `until`, only those from now on.
    pub stream: bool,
    /// `--filter`
    pub filters: EventFilters,
}

impl Engine {
    /// Hands events to `out` one by one; an error of `out` (a closed pipe) ends it and is given back.
    ///
    /// # Errors
    /// A log that cannot be read or watched.
    pub fn events(
        &self,
        request: &EventRequest,
        out: &mut dyn FnMut(&Event) -> io::Result<()>,
    ) -> Result<io::Result<()>> {
        let dir = &self.paths.runroot;
        // Watched before it is read, so that nothing falls between.
        let watch = match request.stream {
            true => Some(watch(dir).on("watch", dir)?),
            false => None,
        };
        let mut log = Log::open(dir, request).on("read", dir)?;
        loop {
            for event in log.more().on("read", dir)? {
                let wanted = request.since.is_none_or(|since| event.time >= since)
                    && request.until.is_none_or(|until| event.time <= until)
                    && request.filters.accept(&event);
                if wanted && let Err(error) = out(&event) {
                    return Ok(Err(error));
                }
            }
            let left = request
                .until
                .map(|until| (until - Utc::now()).to_std().unwrap_or_default());
            let Some(watch) = watch
                .as_ref()
                .filter(|_| left.is_none_or(|left| !left.is_zero()))
            else {
                return Ok(Ok(()));
            };
            wait(watch, left).on("watch", dir)?;
        }
    }
}

/// The files of the log and how far they are read.
struct Log<'a> {
    dir: &'a Path,
    /// The one put aside, to be read first.
    old: Option<File>,
    /// The one that is written to, once there is one.
    file: Option<File>,
    /// What is not yet a whole line.
    rest: Vec<u8>,
}

impl<'a> Log<'a> {
    fn open(dir: &'a Path, request: &EventRequest) -> io::Result<Log<'a>> {
        let all = !request.stream || request.since.is_some() || request.until.is_some();
        let old = match all {
            true => maybe(File::open(dir.join(OLD)))?,
            false => None,
        };
        let mut file = maybe(File::open(dir.join(FILE)))?;
        if let (false, Some(file)) = (all, &mut file) {
            file.seek(SeekFrom::End(0))?;
        }
        Ok(Log {
            dir,
            old,
            file,
            rest: Vec::new(),
        })
    }

    /// The events that came since the last time.
    fn more(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        if let Some(mut old) = self.old.take() {
            self.read(&mut old, &mut events)?;
        }
        loop {
            if let Some(mut file) = self.file.take() {
                self.read(&mut file, &mut events)?;
                self.file = Some(file);
            }
            // It may have been put aside since, and what is new is in another.
            let now = maybe(File::open(self.dir.join(FILE)))?;
            let same = match (&self.file, &now) {
                (Some(ours), Some(now)) => {
                    let (ours, now) = (ours.metadata()?, now.metadata()?);
                    (ours.ino(), ours.dev()) == (now.ino(), now.dev())
                }
                (_, None) => true,
                (None, Some(_)) => false,
            };
            if same {
                return Ok(events);
            }
            if let Some(mut before) = self.file.take() {
                self.read(&mut before, &mut events)?;
            }
            self.file = now;
        }
    }

    fn read(&mut self, file: &mut File, events: &mut Vec<Event>) -> io::Result<()> {
        file.read_to_end(&mut self.rest)?;
        let whole = self
            .rest
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        // What cannot be read was cut off by a full disk, or is of a newer rcon.
        events.extend(
            lines
                .split(|b| *b == b'\n')
                .filter_map(|line| serde_json::from_slice::<Event>(line).ok()),
        );
        Ok(())
    }
}

fn maybe(file: io::Result<File>) -> io::Result<Option<File>> {
    match file {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn watch(dir: &Path) -> io::Result<OwnedFd> {
    fs::metadata(dir)?;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let what =
        inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, dir, what)?;
    Ok(watch)
}

/// Until something is written, or that much time has passed.
fn wait(watch: &OwnedFd, left: Option<std::time::Duration>) -> io::Result<()> {
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    let mut fds = [PollFd::new(watch, PollFlags::IN)];
    match poll(&mut fds, left.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut buffer = [0; 4096];
    while matches!(rustix::io::read(watch, &mut buffer), Ok(1..)) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Action, Event, append};
    use super::*;

    fn add(dir: &Path, name: &str) {
        let mut text = serde_json::to_vec(&Event::volume(name, Action::Create)).unwrap();
        text.push(b'\n');
        append(dir, &text).unwrap();
    }

    fn names(log: &mut Log<'_>) -> String {
        let names: Vec<String> = log.more().unwrap().into_iter().map(|e| e.name).collect();
        names.join(" ")
    }

    #[test]
    fn what_is_new_is_read_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let all = EventRequest::default();
        let mut log = Log::open(dir.path(), &all).unwrap();
        assert_eq!(names(&mut log), "");
        add(dir.path(), "a");
        append(dir.path(), b"{\"cut\n").unwrap();
        add(dir.path(), "b");
        assert_eq!(names(&mut log), "a b");
        add(dir.path(), "c");
        fs::rename(dir.path().join(FILE), dir.path().join(OLD)).unwrap();
        add(dir.path(), "d");
        assert_eq!(names(&mut log), "c d");
        assert_eq!(names(&mut Log::open(dir.path(), &all).unwrap()), "a b c d");
        let fresh = EventRequest {
            stream: true,
            ..EventRequest::default()
        };
        let mut log = Log::open(dir.path(), &fresh).unwrap();
        assert_eq!(names(&mut log), "");
        add(dir.path(), "e");
        assert_eq!(names(&mut log), "e");
    }
}
