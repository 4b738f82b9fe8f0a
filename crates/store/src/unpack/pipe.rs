//! One thread reads (and so inflates, and waits for the network) and hashes, another one writes
//! files. Between them go a few buffers, round and round, so that memory is touched only once.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::digest::{Algorithm, Digest, Hasher};

/// Bytes handed over at once.
const CHUNK: usize = 256 * 1024;

/// Chunks that may wait for the writer. With one on either side that is all memory there is.
const WAITING: usize = 4;

struct Chunk {
    bytes: Box<[u8]>,
    len: usize,
}

/// The writer's end: a reader that cannot fail. It ends early if the source failed.
pub(super) struct Chunks {
    full: Receiver<Chunk>,
    empty: Sender<Chunk>,
    current: Option<Chunk>,
    at: usize,
}

/// What became of the reading: the digest and the number of bytes, or the error of the source.
type Outcome = io::Result<(Digest, u64)>;

/// Read `source` to its end on this thread while `write` uses what comes on another one.
///
/// `source` is read on after `write` is done, so that the digest covers all of it, unless `write`
/// failed. The outer error is that no thread could be had.
pub(super) fn run<T: Send, E: Send>(
    source: impl Read,
    algorithm: Algorithm,
    write: impl FnOnce(&mut Chunks) -> Result<T, E> + Send,
) -> io::Result<(Outcome, Result<T, E>)> {
    let (full_in, full) = sync_channel(WAITING);
    let (empty, empty_out) = channel();
    let mut chunks = Chunks {
        full,
        empty,
        current: None,
        at: 0,
    };
    std::thread::scope(|scope| {
        let writer = std::thread::Builder::new()
            .name("unpack".to_owned())
            .spawn_scoped(scope, move || {
                let written = write(&mut chunks);
                if written.is_ok() {
                    chunks.drain();
                }
                written
            })?;
        let read = feed(source, algorithm, full_in, empty_out);
        match writer.join() {
            Ok(written) => Ok((read, written)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn feed(
    mut source: impl Read,
    algorithm: Algorithm,
    full: SyncSender<Chunk>,
    empty: Receiver<Chunk>,
) -> Outcome {
    let mut hasher = Hasher::new(algorithm);
    let mut size = 0;
    loop {
        let mut chunk = empty.try_recv().unwrap_or_else(|_| Chunk {
            bytes: vec![0; CHUNK].into_boxed_slice(),
            len: 0,
        });
        chunk.len = fill(&mut source, &mut chunk.bytes)?;
        if chunk.len == 0 {
            return Ok((hasher.finish(), size));
        }
        hasher.update(&chunk.bytes[..chunk.len]);
        size += chunk.len as u64;
        if full.send(chunk).is_err() {
            // The writer gave up, and has the error that counts.
            return Ok((hasher.finish(), size));
        }
    }
}

/// Read until the buffer is full or the source ends.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match source.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

impl Chunks {
    fn drain(&mut self) {
        while self.full.recv().is_ok() {}
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self
            .current
            .as_ref()
            .is_none_or(|chunk| self.at >= chunk.len)
        {
            if let Some(done) = self.current.take() {
                // The reader may be gone already.
                let _ = self.empty.send(done);
            }
            self.current = self.full.recv().ok();
            self.at = 0;
        }
        Ok(self
            .current
            .as_ref()
            .map_or(&[], |chunk| &chunk.bytes[self.at..chunk.len]))
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_arrive_and_are_hashed() {
        let text: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (read, written) = run(&text[..], Algorithm::Sha256, |chunks| {
            let mut all = Vec::new();
            chunks.read_to_end(&mut all).map(|_| all)
        })
        .unwrap();
        assert_eq!(read.unwrap(), (Digest::sha256(&text), 3_000_000));
        assert_eq!(written.unwrap(), text);
    }

    #[test]
    fn the_rest_is_hashed_after_the_writer_is_done() {
        let text = vec![7; 2_000_000];
        let (read, written) = run(&text[..], Algorithm::Sha256, |_| Ok::<_, ()>(())).unwrap();
        assert_eq!(read.unwrap().0, Digest::sha256(&text));
        written.unwrap();
    }

    #[test]
    fn either_side_may_fail() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let (read, _) = run(Broken, Algorithm::Sha256, |chunks| {
            chunks.read_to_end(&mut Vec::new())
        })
        .unwrap();
        assert!(read.is_err());
        // An endless source does not keep a writer that failed.
        let (_, written) = run(io::repeat(0), Algorithm::Sha256, |_| Err::<(), _>("no")).unwrap();
        assert_eq!(written, Err("no"));
    }
}
