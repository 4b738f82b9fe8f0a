//! From an asynchronous producer to a blocking reader, in bounded memory.
//!
//! The end of the stream is said, not guessed: a reader whose producer vanished gets an error, so
//! that a cut stream can never be taken for a whole one.

use crate::{Progress, PullEvent};
use bytes::{Bytes, BytesMut};
use rcon_store::Digest;
use std::io::{self, Read};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Bytes are handed over in pieces of at least this size: waking a thread costs.
const PIECE: usize = 128 * 1024;
/// Pieces on their way.
const PIECES: usize = 4;
/// Progress is told this often, and whenever so much has come: after it there may be a long pause.
const TELL_EVERY: Duration = Duration::from_millis(40);
const TELL_AFTER: u64 = 256 * 1024;

enum Message {
    Data(Bytes),
    End,
}

/// A pair of ends. Progress is told under `digest`.
pub(crate) fn pair<'a>(digest: &Digest, progress: &'a dyn Progress) -> (Sender<'a>, Receiver) {
    let (tx, rx) = mpsc::channel(PIECES);
    let sender = Sender {
        tx,
        gathered: BytesMut::new(),
        digest: digest.clone(),
        progress,
        done: 0,
        told: (Instant::now(), 0),
    };
    let receiver = Receiver {
        rx,
        piece: Bytes::new(),
        ended: false,
    };
    (sender, receiver)
}

/// The producer's end.
pub(crate) struct Sender<'a> {
    tx: mpsc::Sender<Message>,
    gathered: BytesMut,
    digest: Digest,
    progress: &'a dyn Progress,
    done: u64,
    /// When, and how much.
    told: (Instant, u64),
}

impl Sender<'_> {
    async fn flush(&mut self) -> bool {
        let piece = self.gathered.split().freeze();
        piece.is_empty() || self.tx.send(Message::Data(piece)).await.is_ok()
    }

    fn tell(&mut self) {
        self.told = (Instant::now(), self.done);
        self.progress.event(PullEvent::Bytes {
            digest: self.digest.clone(),
            done: self.done,
        });
    }

    /// All was sent and found right.
    pub async fn end(mut self) -> bool {
        self.tell();
        self.flush().await && self.tx.send(Message::End).await.is_ok()
    }
}

impl crate::registry::Sink for Sender<'_> {
    async fn put(&mut self, bytes: Bytes) -> bool {
        self.done += bytes.len() as u64;
        let (when, before) = self.told;
        if self.done - before >= TELL_AFTER || when.elapsed() >= TELL_EVERY {
            self.tell();
        }
        if self.gathered.is_empty() && bytes.len() >= PIECE {
            return self.tx.send(Message::Data(bytes)).await.is_ok();
        }
        if self.gathered.capacity() < PIECE {
            self.gathered.reserve(2 * PIECE);
        }
        self.gathered.extend_from_slice(&bytes);
        self.gathered.len() < PIECE || self.flush().await
    }
}

/// The reader's end.
pub(crate) struct Receiver {
    rx: mpsc::Receiver<Message>,
    piece: Bytes,
    ended: bool,
}

impl Receiver {
    /// Take what still comes and forget it, so that the producer can see the end of its source.
    pub fn drain(&mut self) {
        while !self.ended {
            match self.rx.blocking_recv() {
                Some(Message::Data(_)) => {}
                Some(Message::End) | None => self.ended = true,
            }
        }
    }
}

impl Read for Receiver {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.rx.blocking_recv() {
                Some(Message::Data(piece)) => self.piece = piece,
                Some(Message::End) => self.ended = true,
                None => return Err(io::Error::other("the download was cut")),
            }
        }
        let count = self.piece.len().min(buf.len());
        buf[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;
    use crate::registry::Sink;

    fn through(pieces: Vec<Vec<u8>>, end: bool) -> io::Result<Vec<u8>> {
        let (mut tx, mut rx) = pair(&Digest::sha256(b""), &Silent);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            rx.read_to_end(&mut all).map(|_| all)
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            for piece in pieces {
                assert!(tx.put(piece.into()).await);
            }
            if end {
                assert!(tx.end().await);
            }
        });
        reader.join().unwrap()
    }

    #[test]
    fn keeps_order_and_bytes() {
        let pieces: Vec<Vec<u8>> = (0..50u8)
            .map(|i| vec![i; 1 + usize::from(i) * 9000])
            .collect();
        assert_eq!(through(pieces.clone(), true).unwrap(), pieces.concat());
        assert_eq!(through(vec![], true).unwrap(), b"");
    }

    #[test]
    fn an_end_must_be_said() {
        assert!(through(vec![vec![1, 2, 3]], false).is_err());
    }
}
