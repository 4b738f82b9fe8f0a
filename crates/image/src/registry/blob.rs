//! A blob as one stream, checked as it goes by, over as many connections as it takes.
//!
//! When a connection is cut the next request asks for the rest (`Range`). A server that does not
//! know ranges sends everything again, and what we have is skipped; the digest covers both parts,
//! so it does not matter whom we believed.

use super::request::shown;
use super::{Client, failure};
use crate::error::Failure;
use crate::manifest::Descriptor;
use crate::{Error, Result};
use bytes::Bytes;
use rcon_store::Hasher;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};

/// Progress of this many bytes makes us forget earlier failures.
const HEALTHY: u64 = 256 * 1024;

/// Where the bytes of a blob go.
pub(crate) trait Sink {
    /// Take the next bytes. `false`: nobody wants them any more.
    async fn put(&mut self, bytes: Bytes) -> bool;
}

impl Client<'_> {
    /// Stream a blob of `repository` into `sink` and check its size and digest.
    ///
    /// `Ok(true)`: all of it went there and it is what it should be. `Ok(false)`: the sink had
    /// enough.
    pub(crate) async fn blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        sink: &mut impl Sink,
    ) -> Result<bool> {
        let what = format!("fetching blob {}", blob.digest);
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        let mut hasher = Hasher::new(blob.digest.algorithm());
        let mut have = 0u64;
        let mut failures = 0;
        let mut healthy_from = 0;
        loop {
            let range = format!("bytes={have}-");
            let headers: &[_] = if have > 0 {
                &[(RANGE, range.as_str())]
            } else {
                &[]
            };
            let mut response = self.get(&path, headers, &what).await?;
            let mut skip = self.check_start(&response, have, blob.size, &what)?;
            let url = response.url().clone();
            let cause = loop {
                match response.chunk().await {
                    Ok(Some(mut chunk)) => {
                        let skipped = skip.min(chunk.len() as u64);
                        skip -= skipped;
                        let chunk = chunk.split_off(skipped as usize);
                        if chunk.is_empty() {
                            continue;
                        }
                        have += chunk.len() as u64;
                        if have > blob.size {
                            return Err(size_mismatch(what, blob.size, have));
                        }
                        hasher.update(&chunk);
                        if !sink.put(chunk).await {
                            return Ok(false);
                        }
                    }
                    Ok(None) => break None,
                    Err(e) => break Some(self.cut(&e, &url)),
                }
            };
            match cause {
                None if have < blob.size => return Err(size_mismatch(what, blob.size, have)),
                // Whatever became of the connection, all bytes are here.
                _ if have == blob.size => break,
                None => break,
                Some(cause) => {
                    if have >= healthy_from + HEALTHY {
                        failures = 0;
                    }
                    healthy_from = have;
                    failures += 1;
                    if failures > self.patience.retries || !resumable(&cause) {
                        return Err(self.lost(&what, cause));
                    }
                    let reason = format!("{what}: {cause}, after {have} of {} bytes", blob.size);
                    self.wait(&reason, failures, None).await;
                }
            }
        }
        let actual = hasher.finish();
        if actual != blob.digest {
            return Err(Error::DigestMismatch {
                what,
                expected: blob.digest.clone(),
                actual,
            });
        }
        Ok(true)
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
        self.blob(repository, blob, &mut memory).await?;
        Ok(memory.0)
    }

    /// How many bytes of this answer we have already.
    fn check_start(&self, response: &Response, have: u64, size: u64, what: &str) -> Result<u64> {
        let announced = response.content_length();
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return match announced {
                Some(length) if length != size => Err(size_mismatch(what.to_owned(), size, length)),
                _ => Ok(have),
            };
        }
        // `bytes 100-199/200`
        let start: Option<u64> = response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| {
                v.trim()
                    .strip_prefix("bytes")?
                    .trim()
                    .split('-')
                    .next()?
                    .parse()
                    .ok()
            });
        match start {
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

fn resumable(cause: &Failure) -> bool {
    cause.may_pass() || matches!(cause, Failure::Tls { .. })
}

fn size_mismatch(what: String, expected: u64, actual: u64) -> Error {
    Error::SizeMismatch {
        what,
        expected,
        actual,
    }
}
