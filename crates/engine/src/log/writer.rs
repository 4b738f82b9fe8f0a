//! Where a container's output is written: a file that is put aside when it has grown, the journal, or nowhere.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::codec::{Encoder, Stream};
use super::journal::Journal;
use crate::lifecycle::{LogDriver, LogOptions};
use crate::record::Config;

/// The file of a container's log.
pub(crate) fn path(dir: &Path, options: &LogOptions) -> PathBuf {
    options
        .path
        .clone()
        .unwrap_or_else(|| dir.join(super::FILE))
}

/// The name of the file that was put aside `age` files ago.
pub(crate) fn aside(path: &Path, age: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}

/// Takes what a container writes.
#[derive(Debug)]
pub(crate) enum Log {
    /// To a file.
    File(Box<LogFile>),
    /// To the journal.
    Journal(Box<Journal>),
    /// To nobody.
    Nothing,
}

impl Log {
    /// Opens the log of the container whose directory is `dir`.
    pub fn open(dir: &Path, config: &Config) -> io::Result<Log> {
        let options = &config.lifecycle.log;
        Ok(match options.driver {
            LogDriver::K8sFile | LogDriver::JsonFile => {
                Log::File(Box::new(LogFile::open(path(dir, options), options)?))
            }
            LogDriver::Journald => Log::Journal(Box::new(Journal::open(config)?)),
            LogDriver::None | LogDriver::Passthrough => Log::Nothing,
        })
    }

    /// Writes what was read from `stream` at `time`. A full disk must not stop the program: what cannot be logged is lost.
    pub fn write(&mut self, encoder: &mut Encoder, time: DateTime<Utc>, data: &[u8]) {
        match self {
            Log::File(file) => file.write(|text| encoder.encode(time, data, text)),
            Log::Journal(journal) => journal.write(encoder.stream(), data),
            Log::Nothing => {}
        }
    }

    /// Hands on the last line of a stream that has ended. In a file it stays without an end, as it was written.
    pub fn finish(&mut self, encoder: &Encoder) {
        if let Log::Journal(journal) = self {
            journal.finish(encoder.stream());
        }
    }
}

/// A log file, and those that were put aside.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: Option<u64>,
    max_file: u32,
    text: Vec<u8>,
}

impl LogFile {
    fn open(path: PathBuf, options: &LogOptions) -> io::Result<LogFile> {
        let file = open(&path)?;
        Ok(LogFile {
            size: file.metadata()?.len(),
            path,
            file,
            max_size: options.max_size,
            max_file: options.max_file.max(1),
            text: Vec::new(),
        })
    }

    fn write(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        self.text.clear();
        encode(&mut self.text);
        let text = std::mem::take(&mut self.text);
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            let piece = self.piece(rest);
            if piece == 0 {
                // If it cannot be put aside it grows on.
                if self.put_aside().is_err() {
                    self.append(rest);
                    break;
                }
                continue;
            }
            self.append(&rest[..piece]);
            rest = &rest[piece..];
        }
        self.text = text;
        // A flood leaves no big buffer behind.
        if self.text.capacity() > 8 * 1024 {
            self.text = Vec::new();
        }
    }

    /// How much of `text`, in whole lines, the file has room for; one line in any case if it is empty.
    fn piece(&self, text: &[u8]) -> usize {
        let Some(max) = self.max_size else {
            return text.len();
        };
        let room = usize::try_from(max.saturating_sub(self.size)).unwrap_or(usize::MAX);
        if text.len() <= room {
            return text.len();
        }
        let line_end = |text: &[u8]| text.iter().rposition(|b| *b == b'\n').map(|at| at + 1);
        match line_end(&text[..room]) {
            Some(end) => end,
            None if self.size > 0 => 0,
            None => text
                .iter()
                .position(|b| *b == b'\n')
                .map_or(text.len(), |at| at + 1),
        }
    }

    fn append(&mut self, text: &[u8]) {
        match self.file.write_all(text) {
            Ok(()) => self.size += text.len() as u64,
            // Half a line would spoil the next one.
            Err(_) => {
                let _ = self.file.set_len(self.size);
            }
        }
    }

    /// Begins a new file, if one can be made: only then the old one goes. Readers that have that open read it to its end.
    fn put_aside(&mut self) -> io::Result<()> {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        let fresh = PathBuf::from(name);
        let file = open(&fresh)?;
        let moved = self
            .make_way()
            .and_then(|()| fs::rename(&fresh, &self.path));
        if let Err(error) = moved {
            let _ = fs::remove_file(&fresh);
            return Err(error);
        }
        self.file = file;
        self.size = 0;
        Ok(())
    }

    /// Moves the files that are there to their next places, but for one whose place is taken by the new one.
    fn make_way(&self) -> io::Result<()> {
        // Where the last attempt came so far.
        if self.max_file == 1 || !self.path.exists() {
            return Ok(());
        }
        for age in (1..self.max_file - 1).rev() {
            match fs::rename(aside(&self.path, age), aside(&self.path, age + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(&self.path, aside(&self.path, 1))
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// The stream an encoder is for.
impl Encoder {
    /// Which stream it is for.
    pub fn stream(&self) -> Stream {
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_put_aside_when_they_have_grown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let options = LogOptions {
            max_size: Some(200),
            max_file: 3,
            ..LogOptions::default()
        };
        let mut log = Log::File(Box::new(LogFile::open(path.clone(), &options).unwrap()));
        let mut encoder = Encoder::new(Stream::Stdout);
        for number in 0..100 {
            let line = format!("line {number}\n");
            log.write(&mut encoder, Utc::now(), line.as_bytes());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        let text: String = [aside(&path, 2), aside(&path, 1), path]
            .iter()
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        let last: Vec<&str> = text.lines().rev().take(5).collect();
        assert!(last[0].ends_with("line 99") && last[4].ends_with("line 95"));
        // None is missing between the oldest that is left and the last.
        let first: usize = text
            .lines()
            .next()
            .unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(text.lines().count(), 100 - first);
    }

    #[test]
    fn no_file_goes_before_there_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let options = LogOptions {
            max_size: Some(200),
            max_file: 1,
            ..LogOptions::default()
        };
        let mut log = Log::File(Box::new(LogFile::open(path.clone(), &options).unwrap()));
        let mut encoder = Encoder::new(Stream::Stdout);
        let mut write = |number: u32| {
            let line = format!("line {number}\n");
            log.write(&mut encoder, Utc::now(), line.as_bytes());
            fs::read_to_string(&path).unwrap().lines().count()
        };
        // None can be made.
        fs::create_dir(dir.path().join("log.new")).unwrap();
        for number in 1..=100 {
            assert_eq!(write(number), number as usize);
        }
        fs::remove_dir(dir.path().join("log.new")).unwrap();
        assert_eq!(write(101), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
