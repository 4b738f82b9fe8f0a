//! One request that changes something: with a body, which is looked after while it goes.

use super::Client;
use super::challenge;
use super::failure::{self, Answer};
use super::request::{header_map, shown};
use crate::error::Failure;
use crate::{Error, PullEvent, Result};
use bytes::Bytes;
use rcon_store::Digest;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, Url};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Read from the file at once.
const READ: usize = 128 * 1024;
/// How often it is looked whether bytes still go.
const LOOK: Duration = Duration::from_millis(100);
/// A registry may take this many times the usual patience to digest what it got.
const DIGESTING: u32 = 5;
/// Redirects followed for one request.
const HOPS: usize = 5;

/// A blob to be pushed, in a file.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub file: Arc<File>,
    pub digest: Digest,
    pub size: u64,
    /// What it is called in progress, and its size there: of a layer what it is made of, the making
    /// being half of the work.
    pub shown: (Digest, u64),
}

impl Packed {
    /// So much of it was sent, as progress.
    fn told(&self, sent: u64) -> PullEvent {
        let (digest, size) = &self.shown;
        let half = size / 2;
        let part = u128::from(size - half) * u128::from(sent) / u128::from(self.size.max(1));
        PullEvent::Bytes {
            digest: digest.clone(),
            done: half + u64::try_from(part).unwrap_or(0),
        }
    }
}

/// What goes with a request.
pub(super) enum Body<'a> {
    Empty,
    Bytes(&'a Bytes),
    /// A part of a file: from, to.
    Part(&'a Packed, u64, u64),
}

impl Body<'_> {
    fn len(&self) -> u64 {
        match self {
            Body::Empty => 0,
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Part(_, from, to) => to - from,
        }
    }

    /// The body to be sent, counted as it goes.
    fn make(&self, sent: &Arc<AtomicU64>) -> reqwest::Body {
        sent.store(0, Ordering::Relaxed);
        match self {
            Body::Empty => reqwest::Body::default(),
            Body::Bytes(bytes) => Bytes::clone(bytes).into(),
            Body::Part(blob, from, to) => {
                let start = (Arc::clone(&blob.file), *from, *to, Arc::clone(sent));
                let stream = futures_util::stream::try_unfold(start, |state| async move {
                    let (file, at, to, sent) = state;
                    if at == to {
                        return Ok(None);
                    }
                    let mut piece = vec![0; (to - at).min(READ as u64) as usize];
                    file.read_exact_at(&mut piece, at)?;
                    let len = piece.len() as u64;
                    sent.fetch_add(len, Ordering::Relaxed);
                    Ok::<_, io::Error>(Some((Bytes::from(piece), (file, at + len, to, sent))))
                });
                reqwest::Body::wrap_stream(stream)
            }
        }
    }
}

impl Client<'_> {
    /// [`Client::ask`], again and again while it may pass.
    pub(super) async fn patiently(
        &self,
        method: Method,
        url: Url,
        headers: &[(HeaderName, String)],
        body: &Body<'_>,
        what: &str,
    ) -> Result<Response> {
        let mut attempt = 0;
        loop {
            let asked = self
                .ask(method.clone(), url.clone(), headers, body, 0, what)
                .await;
            let (reason, wish) = match &asked {
                Err(Error::Transport { cause, .. }) if cause.may_pass() => {
                    (cause.to_string(), None)
                }
                Err(Error::Refused {
                    status,
                    message,
                    after,
                    ..
                }) if failure::may_pass(*status) && !self.is_too_long(*after) => {
                    (message.clone(), *after)
                }
                _ => return asked,
            };
            if attempt >= self.patience.retries {
                return asked;
            }
            attempt += 1;
            self.wait(&reason, attempt, wish).await;
        }
    }

    /// Whether the registry wants to be left alone for longer than anybody waits.
    pub(super) fn is_too_long(&self, wish: Option<Duration>) -> bool {
        wish.is_some_and(|wish| wish > self.patience.longest)
    }

    /// Send one request, logged in as the registry wishes; only success comes back as `Ok`. Progress
    /// is told from `before` on, for parts of files.
    pub(super) async fn ask(
        &self,
        method: Method,
        url: Url,
        headers: &[(HeaderName, String)],
        body: &Body<'_>,
        before: u64,
        what: &str,
    ) -> Result<Response> {
        let mut map = header_map(headers, what)?;
        if !matches!(method, Method::GET | Method::HEAD) {
            map.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let mut here = url;
        let mut renewed = false;
        for _ in 0..=HOPS {
            let mut headers = map.clone();
            // What signs an upload to another host is in its address.
            if here.origin() == self.base.origin()
                && let Some(value) = self.authorization(None).await?
            {
                headers.insert(AUTHORIZATION, value);
            }
            let response = self
                .exchange(&method, &here, headers, body, before, what)
                .await?;
            let status = response.status().as_u16();
            if response.status().is_success() {
                return Ok(response);
            }
            // Only these two keep the method, but for those that no redirect changes.
            let follows = match status {
                307 | 308 => true,
                301..=303 => matches!(method, Method::GET | Method::HEAD),
                _ => false,
            };
            if follows {
                here = self.next_place(&here, &response, what)?;
                continue;
            }
            let wanted = challenge::challenges(response.headers());
            let after = failure::retry_after(response.headers());
            let answer = Answer::read(response).await;
            if status == 401
                && !std::mem::replace(&mut renewed, true)
                && here.origin() == self.base.origin()
                && self.renew(&wanted).await?
            {
                continue;
            }
            return Err(self.refused(&answer, after, what));
        }
        Err(Error::invalid(what, format!("more than {HOPS} redirects")))
    }

    /// Send once. Bytes must go, or come, every now and then.
    async fn exchange(
        &self,
        method: &Method,
        url: &Url,
        headers: HeaderMap,
        body: &Body<'_>,
        before: u64,
        what: &str,
    ) -> Result<Response> {
        let sent = Arc::new(AtomicU64::new(0));
        let mut request = self
            .http
            .request(method.clone(), url.clone())
            .headers(headers);
        if !matches!(*method, Method::GET | Method::HEAD) {
            request = request.body(body.make(&sent));
        }
        let mut answer = std::pin::pin!(request.send());
        let (mut count, mut moved) = (0, Instant::now());
        loop {
            tokio::select! {
                answer = &mut answer => {
                    return answer.map_err(|e| {
                        self.lost(what, failure::classify(&e, &shown(url), self.no_roots))
                    });
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = sent.load(Ordering::Relaxed);
            if let (Body::Part(blob, ..), true) = (body, now > count) {
                (count, moved) = (now, Instant::now());
                self.progress.event(blob.told(before + count));
            }
            let patience = match body {
                Body::Part(..) if count == body.len() => self.patience.stall * DIGESTING,
                _ => self.patience.stall,
            };
            if moved.elapsed() > patience {
                return Err(self.lost(what, Failure::TimedOut { url: shown(url) }));
            }
        }
    }
}
