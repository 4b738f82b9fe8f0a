//! A blob as one stream, checked as it goes by, over as many connections as it takes.
//!
//! When a connection is cut the next request asks for the rest (`Range`). A server that does not
//! know ranges sends everything again, and what we have is skipped; the digest covers both parts,
//! so it does not matter whom we believed. Where the network is what everything waits for, a large
//! blob is fetched in pieces over several connections, and what has come is kept in the store for
//! the next process, should this one be cut.

use super::request::shown;
use super::{Client, failure};
use crate::error::Failure;
use crate::manifest::Descriptor;
use crate::{Error, Result};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use rcon_store::{Hasher, Partial};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use std::time::{Duration, Instant};

/// Progress of this many bytes makes us forget earlier failures.
const HEALTHY: u64 = 256 * 1024;
/// After so many bytes it shows whether the network is slow; until then everything is kept.
const TRIAL: u64 = 2 << 20;
/// Bytes handed on at once of what an earlier process had fetched.
const REREAD: usize = 256 * 1024;

/// Where the bytes of a blob go.
pub(crate) trait Sink {
    /// Take the next bytes. `false`: nobody wants them any more.
    async fn put(&mut self, bytes: Bytes) -> bool;
}

/// When a blob is fetched in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// One connection has so long to show that it is fast enough.
    pub after: Duration,
    /// It is slow if it brings fewer bytes a second, and hardly anything waits for us.
    pub slower_than: u64,
    /// Less than so many bytes are not worth it.
    pub least: u64,
    /// Bytes of a piece.
    pub piece: u64,
    /// Pieces on their way at the same time.
    pub at_once: usize,
}

impl Default for Split {
    fn default() -> Self {
        Split {
            after: Duration::from_secs(1),
            slower_than: 4 << 20,
            least: 16 << 20,
            piece: 1 << 20,
            at_once: 3,
        }
    }
}

/// A blob on its way: what has come, and where it goes.
struct Flow<'a, 'b, S> {
    what: String,
    blob: &'a Descriptor,
    sink: &'a mut S,
    kept: Option<&'a mut Partial<'b>>,
    hasher: Hasher,
    have: u64,
    /// Time spent on the sink, and since when bytes come from the network.
    blocked: Duration,
    since: Instant,
    fetched: u64,
    slower_than: u64,
}

impl<S: Sink> Flow<'_, '_, S> {
    /// Hand on the next bytes; whether more are wanted.
    async fn take(&mut self, bytes: Bytes) -> Result<bool> {
        if bytes.is_empty() {
            return Ok(true);
        }
        if self.have + bytes.len() as u64 > self.blob.size {
            let have = self.have + bytes.len() as u64;
            return Err(size_mismatch(&self.what, self.blob.size, have));
        }
        self.fetched += bytes.len() as u64;
        // On a fast network a file costs more than to fetch it again.
        let slow = self.fetched < TRIAL || self.is_slow();
        if let Some(kept) = &mut self.kept {
            kept.beat();
            // A gap would make the rest useless.
            if slow && kept.size() == self.have {
                // It is only a help: a full disk shows elsewhere.
                let _ = kept.append(&bytes);
            }
        }
        self.hand_on(bytes).await
    }

    async fn hand_on(&mut self, bytes: Bytes) -> Result<bool> {
        self.hasher.update(&bytes);
        self.have += bytes.len() as u64;
        let before = Instant::now();
        let wanted = self.sink.put(bytes).await;
        self.blocked += before.elapsed();
        Ok(wanted)
    }

    /// What an earlier process had fetched.
    async fn reread(&mut self) -> Result<bool> {
        loop {
            let Some(kept) = &mut self.kept else {
                return Ok(true);
            };
            let left = kept.size().min(self.blob.size) - self.have;
            if left == 0 {
                break;
            }
            let mut piece = BytesMut::zeroed(left.min(REREAD as u64) as usize);
            let count = kept.read_at(&mut piece, self.have).unwrap_or(0);
            if count == 0 {
                break;
            }
            kept.beat();
            piece.truncate(count);
            if !self.hand_on(piece.freeze()).await? {
                return Ok(false);
            }
        }
        self.since = Instant::now();
        self.blocked = Duration::ZERO;
        Ok(true)
    }

    /// Is it the network that everything waits for? A processor that is too busy to read makes
    /// connections look slow as well, but then something waits for us, too.
    fn is_slow(&self) -> bool {
        let elapsed = self.since.elapsed();
        let rate = self.fetched as f64 / elapsed.as_secs_f64().max(0.001);
        self.blocked * 10 <= elapsed && rate < self.slower_than as f64
    }

    fn is_starved(&self, split: &Split) -> bool {
        self.since.elapsed() >= split.after
            && self.blob.size - self.have >= split.least
            && self.is_slow()
    }
}

/// How the stream of one answer ended.
enum Ended {
    /// It ended.
    Whole,
    /// It was cut.
    Cut(Failure),
    /// It goes on in pieces.
    Starved,
    /// Nobody wants more.
    Unwanted,
}

impl Client<'_> {
    /// Stream a blob of `repository` into `sink` and check its size and digest. What comes is kept
    /// in `kept`, and taken from there first.
    ///
    /// `Ok(true)`: all of it went there and it is what it should be. `Ok(false)`: the sink had
    /// enough.
    pub(crate) async fn blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        sink: &mut impl Sink,
        kept: Option<&mut Partial<'_>>,
    ) -> Result<bool> {
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        let mut flow = Flow {
            what: format!("fetching blob {}", blob.digest),
            blob,
            sink,
            kept,
            hasher: Hasher::new(blob.digest.algorithm()),
            have: 0,
            blocked: Duration::ZERO,
            since: Instant::now(),
            fetched: 0,
            slower_than: self.patience.split.slower_than,
        };
        if !flow.reread().await? {
            return Ok(false);
        }
        let mut failures = 0;
        let mut healthy_from = flow.have;
        let mut may_split = true;
        while flow.have < blob.size || blob.size == 0 {
            let range = format!("bytes={}-", flow.have);
            let headers: &[_] = if flow.have > 0 {
                &[(RANGE, range.as_str())]
            } else {
                &[]
            };
            let response = self.get(&path, headers, &flow.what).await?;
            match self.stream(response, &mut flow, may_split).await? {
                Ended::Unwanted => return Ok(false),
                Ended::Whole if flow.have < blob.size => {
                    return Err(size_mismatch(&flow.what, blob.size, flow.have));
                }
                // Whatever became of the connection, all bytes are here.
                _ if flow.have == blob.size => break,
                Ended::Whole => break,
                Ended::Starved => {
                    may_split = false;
                    if !self.pieces(&path, &mut flow).await? {
                        return Ok(false);
                    }
                }
                Ended::Cut(cause) => {
                    if flow.have >= healthy_from + HEALTHY {
                        failures = 0;
                    }
                    healthy_from = flow.have;
                    failures += 1;
                    if failures > self.patience.retries || !resumable(&cause) {
                        return Err(self.lost(&flow.what, cause));
                    }
                    let reason = format!(
                        "{}: {cause}, after {} of {} bytes",
                        flow.what, flow.have, blob.size
                    );
                    self.wait(&reason, failures, None).await;
                }
            }
        }
        let actual = flow.hasher.finish();
        if actual != blob.digest {
            return Err(Error::DigestMismatch {
                what: flow.what,
                expected: blob.digest.clone(),
                actual,
            });
        }
        Ok(true)
    }

    /// Hand on what one answer brings.
    async fn stream(
        &self,
        mut response: Response,
        flow: &mut Flow<'_, '_, impl Sink>,
        may_split: bool,
    ) -> Result<Ended> {
        let mut skip = self.check_start(&response, flow.have, flow.blob.size, &flow.what)?;
        let url = response.url().clone();
        loop {
            match response.chunk().await {
                Ok(Some(mut chunk)) => {
                    let skipped = skip.min(chunk.len() as u64);
                    skip -= skipped;
                    if !flow.take(chunk.split_off(skipped as usize)).await? {
                        return Ok(Ended::Unwanted);
                    }
                    if may_split && flow.is_starved(&self.patience.split) {
                        return Ok(Ended::Starved);
                    }
                }
                Ok(None) => return Ok(Ended::Whole),
                Err(e) => return Ok(Ended::Cut(self.cut(&e, &url))),
            }
        }
    }

    /// Fetch the rest in pieces, as far as that works; whether more is wanted.
    async fn pieces(&self, path: &str, flow: &mut Flow<'_, '_, impl Sink>) -> Result<bool> {
        let (from, size) = (flow.have, flow.blob.size);
        let what = flow.what.clone();
        let split = self.patience.split;
        let starts =
            (from..size).step_by(usize::try_from(split.piece.max(1)).unwrap_or(usize::MAX));
        let what = &what;
        let mut pieces = futures_util::stream::iter(starts)
            .map(|start| self.piece(path, start, size.min(start + split.piece), what))
            .buffered(split.at_once);
        while let Some(piece) = pieces.next().await {
            // A server that has no ranges, or not for us: one stream will tell what is wrong.
            let Ok(Some(bytes)) = piece else {
                return Ok(true);
            };
            if !flow.take(bytes).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The bytes from `start` to before `end`; nothing if the server has another idea of ranges.
    async fn piece(&self, path: &str, start: u64, end: u64, what: &str) -> Result<Option<Bytes>> {
        let mut bytes = BytesMut::with_capacity((end - start) as usize);
        let mut failures = 0;
        loop {
            let at = start + bytes.len() as u64;
            let range = format!("bytes={at}-{}", end - 1);
            let mut response = self.get(path, &[(RANGE, range.as_str())], what).await?;
            if response.status() != StatusCode::PARTIAL_CONTENT || start_of(&response) != Some(at) {
                return Ok(None);
            }
            let url = response.url().clone();
            let cause = loop {
                match response.chunk().await {
                    Ok(Some(chunk)) if bytes.len() as u64 + chunk.len() as u64 > end - start => {
                        return Ok(None);
                    }
                    Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                    Ok(None) => break None,
                    Err(e) => break Some(self.cut(&e, &url)),
                }
            };
            match cause {
                _ if bytes.len() as u64 == end - start => return Ok(Some(bytes.freeze())),
                None => return Ok(None),
                Some(cause) => {
                    failures += 1;
                    if failures > self.patience.retries || !resumable(&cause) {
                        return Err(self.lost(what, cause));
                    }
                    self.wait(&format!("{what}: {cause}"), failures, None).await;
                }
            }
        }
    }

    /// A small blob, in memory.
    pub(crate) async fn small_blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>> {
        struct Memory(Vec<u8>);
        impl Sink for Memory {
            async fn put(&mut self, bytes: Bytes) -> bool {
                self.0.extend_from_slice(&bytes);
                true
            }
        }
        if blob.size > limit {
            return Err(Error::TooLarge {
                what: format!("blob {}", blob.digest),
                limit,
            });
        }
        let mut memory = Memory(Vec::new());
        self.blob(repository, blob, &mut memory, None).await?;
        Ok(memory.0)
    }

    /// How many bytes of this answer we have already.
    fn check_start(&self, response: &Response, have: u64, size: u64, what: &str) -> Result<u64> {
        let announced = response.content_length();
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return match announced {
                Some(length) if length != size => Err(size_mismatch(what, size, length)),
                _ => Ok(have),
            };
        }
        match start_of(response) {
            Some(start) if start <= have => Ok(have - start),
            _ => Err(self.lost(
                what,
                Failure::Answer {
                    url: shown(response.url()),
                    why: format!(
                        "the answer begins elsewhere than at byte {have}: {}",
                        failure::status_words(206)
                    ),
                },
            )),
        }
    }
}

/// Where a part begins: `bytes 100-199/200`.
fn start_of(response: &Response) -> Option<u64> {
    let value = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let range = value.trim().strip_prefix("bytes")?.trim();
    range.split('-').next()?.parse().ok()
}

fn resumable(cause: &Failure) -> bool {
    cause.may_pass() || matches!(cause, Failure::Tls { .. })
}

fn size_mismatch(what: &str, expected: u64, actual: u64) -> Error {
    Error::SizeMismatch {
        what: what.to_owned(),
        expected,
        actual,
    }
}
