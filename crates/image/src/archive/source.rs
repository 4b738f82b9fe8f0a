//! Opening what is to be loaded or imported, in a way that a signal can end.
//!
//! Reading a terminal, a pipe or a socket may block for ever. Such sources are read by a thread
//! that nobody waits for; whoever wants the bytes looks now and then whether they are still wanted.

use crate::load::Source;
use crate::manifest::Descriptor;
use crate::{Error, Result};
use rcon_sys::errors::in_words;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Bytes read at once.
const PIECE: usize = 256 * 1024;
/// How often a waiting reader looks whether it should go on.
const LOOK: Duration = Duration::from_millis(50);

/// Says that work is to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            // Not the kind `Interrupted`, which readers take as a wish to try again.
            return Err(io::Error::other("interrupted"));
        }
        Ok(())
    }
}

/// A reader that ends in an error once it is cancelled.
pub(crate) struct Cancellable<R>(pub R, pub Cancel);

impl<R: Read> Read for Cancellable<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.1.check()?;
        self.0.read(buf)
    }
}

/// What was opened.
pub(crate) enum Opened {
    /// A file that can be read in any order.
    Regular(File),
    /// A folder.
    Folder,
    /// Bytes that come in their own time.
    Stream(Box<dyn Read + Send>),
}

/// Open a local source.
pub(crate) fn open(source: &Source, cancel: &Cancel) -> Result<Opened> {
    match source {
        Source::Stdin => Ok(Opened::Stream(Box::new(pump(io::stdin(), cancel)?))),
        Source::Path(path) => open_path(path, cancel),
        Source::Url(url) => Err(Error::Unsupported(format!(
            "{url}: only files can be loaded"
        ))),
    }
}

fn open_path(path: &Path, cancel: &Cancel) -> Result<Opened> {
    let meta = std::fs::metadata(path).map_err(Error::io("opening", path))?;
    if meta.is_dir() {
        return Ok(Opened::Folder);
    }
    if meta.file_type().is_fifo() || meta.file_type().is_char_device() {
        // Even opening may block.
        let path = path.to_owned();
        let pump = pump_from(move || File::open(path), cancel)?;
        return Ok(Opened::Stream(Box::new(pump)));
    }
    let file = File::open(path).map_err(Error::io("opening", path))?;
    if meta.is_file() {
        Ok(Opened::Regular(file))
    } else {
        Ok(Opened::Stream(Box::new(pump(file, cancel)?)))
    }
}

/// Bytes that another thread reads.
pub(crate) struct Pump {
    rx: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    cancel: Cancel,
}

fn pump<R: Read + Send + 'static>(source: R, cancel: &Cancel) -> Result<Pump> {
    pump_from(move || Ok(source), cancel)
}

fn pump_from<R: Read>(
    open: impl FnOnce() -> io::Result<R> + Send + 'static,
    cancel: &Cancel,
) -> Result<Pump> {
    let (tx, rx) = sync_channel(2);
    // Not waited for: it ends with its source, or with the process.
    let started = std::thread::Builder::new().spawn(move || {
        let mut source = match open() {
            Ok(source) => source,
            Err(e) => return drop(tx.send(Err(e))),
        };
        loop {
            let mut piece = Vec::new();
            let read = source.by_ref().take(PIECE as u64).read_to_end(&mut piece);
            let ended = piece.is_empty() || read.is_err();
            if tx.send(read.map(|_| piece)).is_err() || ended {
                return;
            }
        }
    });
    started.map_err(crate::work::no_thread)?;
    Ok(Pump {
        rx,
        piece: Vec::new(),
        at: 0,
        cancel: cancel.clone(),
    })
}

impl Read for Pump {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            self.cancel.check()?;
            match self.rx.recv_timeout(LOOK) {
                Ok(piece) => {
                    self.piece = piece?;
                    self.at = 0;
                    if self.piece.is_empty() {
                        return Ok(0);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
        }
        let count = buf.len().min(self.piece.len() - self.at);
        buf[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// What a source is called in messages.
pub(crate) fn shown(source: &Source) -> String {
    match source {
        Source::Stdin => "standard input".to_owned(),
        Source::Path(path) => path.display().to_string(),
        Source::Url(url) => url.clone(),
    }
}

/// An error while reading an archive.
pub(crate) fn damaged(archive: &str, error: &io::Error) -> Error {
    Error::Archive {
        archive: archive.to_owned(),
        why: in_words(error),
    }
}

/// A blob as a file name in an OCI layout.
pub(crate) fn blob_file(blob: &Descriptor) -> String {
    let digest = &blob.digest;
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}
