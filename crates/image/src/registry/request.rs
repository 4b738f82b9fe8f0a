//! One request: authorization, redirects, patience.

use super::challenge::{Challenge, challenges};
use super::failure::{self, Answer};
use super::{Client, basic};
use crate::auth::Credentials;
use crate::error::Failure;
use crate::{Error, PullEvent, Result};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, Response, Url};
use std::net::IpAddr;
use std::time::Duration;

/// Redirects followed for one request.
const HOPS: usize = 10;

impl Client<'_> {
    /// GET a path of this registry, logged in as it wishes; only success comes back as `Ok`.
    pub(super) async fn get(
        &self,
        path: &str,
        headers: &[(HeaderName, &str)],
        what: &str,
    ) -> Result<Response> {
        let map = header_map(headers, what)?;
        let mut renewed = false;
        loop {
            let mut headers = map.clone();
            if let Some(value) = self.authorization(None).await? {
                headers.insert(AUTHORIZATION, value);
            }
            let response = self
                .send_patiently(Method::GET, self.url(path), headers, None, what)
                .await?;
            let status = response.status().as_u16();
            if response.status().is_success() {
                return Ok(response);
            }
            let wanted = challenges(response.headers());
            let answer = Answer::read(response).await;
            if status == 401 && !renewed {
                renewed = true;
                if self.renew(&wanted).await? {
                    continue;
                }
            }
            return Err(self.refused(&answer, None, what));
        }
    }

    /// An answer that is a refusal, as an error; `after` is when the registry would have us ask again.
    pub(super) fn refused(&self, answer: &Answer, after: Option<Duration>, what: &str) -> Error {
        match answer.status {
            401 => self.unauthorized(what, answer),
            status => Error::Refused {
                what: what.to_owned(),
                status,
                message: answer.text(),
                after,
            },
        }
    }

    /// After a 401: the token has ended, or this path needs another one than the ping told. Whether
    /// it is worth while to ask again.
    pub(super) async fn renew(&self, wanted: &[Challenge]) -> Result<bool> {
        let bearer = wanted
            .iter()
            .find(|c| matches!(c, Challenge::Bearer { .. }));
        let basic = wanted.contains(&Challenge::Basic) && self.credentials.is_some();
        if let Some(bearer) = bearer {
            self.authorization(Some(bearer)).await?;
            return Ok(true);
        }
        if basic && self.challenges().is_empty() {
            self.set_challenges(wanted.to_vec());
            return Ok(true);
        }
        Ok(false)
    }

    /// What to send as `Authorization`. With `anew` a token is fetched for that challenge, whether
    /// there is one or not.
    pub(super) async fn authorization(
        &self,
        anew: Option<&Challenge>,
    ) -> Result<Option<HeaderValue>> {
        let all = self.challenges();
        let bearer = anew.or_else(|| all.iter().find(|c| matches!(c, Challenge::Bearer { .. })));
        let mut token = self.token.lock().await;
        if anew.is_none()
            && let Some(good) = token.as_ref().filter(|t| t.is_good())
        {
            return Ok(Some(good.header.clone()));
        }
        if let Some(bearer) = bearer {
            let new = self.fetch_token(bearer).await?;
            let header = new.header.clone();
            *token = Some(new);
            return Ok(Some(header));
        }
        match (&self.credentials, all.contains(&Challenge::Basic)) {
            (Some(Credentials::Basic { user, password }), true) => basic(user, password).map(Some),
            _ => Ok(None),
        }
    }

    /// Send, follow redirects, and try again what may pass. Any final status comes back as `Ok`.
    pub(super) async fn send_patiently(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Option<String>,
        what: &str,
    ) -> Result<Response> {
        let mut attempt = 0;
        loop {
            let sent = self
                .send(&method, &url, &headers, body.as_deref(), what)
                .await;
            let (reason, wish) = match sent {
                Ok(response) if failure::may_pass(response.status().as_u16()) => {
                    if attempt >= self.patience.retries {
                        return Ok(response);
                    }
                    let wish = failure::retry_after(response.headers());
                    if wish.is_some_and(|w| w > self.patience.longest) {
                        return Ok(response);
                    }
                    (Answer::read(response).await.text(), wish)
                }
                Ok(response) => return Ok(response),
                Err(Error::Transport { cause, .. })
                    if cause.may_pass() && attempt < self.patience.retries =>
                {
                    (cause.to_string(), None)
                }
                Err(e) => return Err(e),
            };
            attempt += 1;
            self.wait(&reason, attempt, wish).await;
        }
    }

    /// Wait before attempt `attempt + 1`, and say so.
    pub(super) async fn wait(&self, reason: &str, attempt: u32, wish: Option<Duration>) {
        let after = wish.unwrap_or_else(|| {
            if self.patience.steady {
                return self.patience.back_off;
            }
            let doubled = self.patience.back_off * 2u32.saturating_pow(attempt.min(7) - 1);
            doubled.min(self.patience.longest)
        });
        self.progress.event(PullEvent::Retry {
            reason: reason.to_owned(),
            after,
            attempt,
            of: self.patience.retries,
        });
        tokio::time::sleep(after).await;
    }

    /// Send once and follow redirects. Credentials go to the registry's own origin only (or to
    /// the token service they were meant for).
    async fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: Option<&str>,
        what: &str,
    ) -> Result<Response> {
        let mut here = url.clone();
        for _ in 0..=HOPS {
            let mut headers = headers.clone();
            if here.origin() != url.origin() {
                headers.remove(AUTHORIZATION);
            }
            let mut request = self
                .http
                .request(method.clone(), here.clone())
                .headers(headers);
            if let Some(body) = body {
                request = request.body(body.to_owned());
            }
            let response = request.send().await.map_err(|e| {
                self.lost(what, failure::classify(&e, &shown(&here), self.no_roots))
            })?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            if body.is_some() {
                return Err(Error::invalid(
                    what,
                    "a redirect in answer to credentials is not followed",
                ));
            }
            here = self.next_place(&here, &response, what)?;
        }
        Err(Error::invalid(what, format!("more than {HOPS} redirects")))
    }

    /// Where a redirect leads, if it may be followed.
    pub(super) fn next_place(&self, here: &Url, response: &Response, what: &str) -> Result<Url> {
        let target = response.headers().get(LOCATION);
        let target = target.and_then(|v| v.to_str().ok());
        let next = target.and_then(|t| here.join(t).ok()).ok_or_else(|| {
            Error::invalid(what, "the registry redirects us, but does not say where to")
        })?;
        self.check_redirect(here, &next, what)?;
        Ok(next)
    }

    /// A redirect must not lead from TLS to plain HTTP, nor from outside into this machine.
    pub(super) fn check_redirect(&self, from: &Url, to: &Url, what: &str) -> Result<()> {
        let refuse = |why: &str| {
            let why = format!("a redirect to {} is not followed: {why}", shown(to));
            Err(Error::invalid(what, why))
        };
        let host = to.host_str().unwrap_or_default();
        match to.scheme() {
            "https" => {}
            "http" if from.scheme() == "http" || self.insecure => {}
            "http" => return refuse("it leaves TLS"),
            _ => return refuse("it is not HTTP"),
        }
        let ip = host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .map(|ip| ip.to_canonical());
        let link_local = match ip {
            Ok(IpAddr::V4(ip)) => ip.is_link_local() || ip.is_unspecified(),
            Ok(IpAddr::V6(ip)) => ip.is_unicast_link_local() || ip.is_unspecified(),
            Err(_) => false,
        };
        let from_here = super::is_loopback(from.host_str().unwrap_or_default());
        if link_local || (super::is_loopback(host) && !from_here) {
            return refuse("no registry has business there");
        }
        Ok(())
    }

    /// The whole body, of at most `limit` bytes.
    pub(super) async fn read_all(
        &self,
        mut response: Response,
        limit: u64,
        what: &str,
    ) -> Result<Vec<u8>> {
        let url = shown(response.url());
        let too_large = || Error::TooLarge {
            what: what.to_owned(),
            limit,
        };
        if response.content_length().is_some_and(|l| l > limit) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    if (bytes.len() + chunk.len()) as u64 > limit {
                        return Err(too_large());
                    }
                    bytes.extend_from_slice(&chunk);
                }
                Ok(None) => return Ok(bytes),
                Err(e) => return Err(self.lost(what, failure::classify(&e, &url, self.no_roots))),
            }
        }
    }

    /// Classify what ended a stream.
    pub(super) fn cut(&self, error: &reqwest::Error, url: &Url) -> Failure {
        failure::classify(error, &shown(url), self.no_roots)
    }
}

/// Headers by name; a name may come more than once.
pub(super) fn header_map(
    headers: &[(HeaderName, impl AsRef<str>)],
    what: &str,
) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value.as_ref())
            .map_err(|_| Error::invalid(what, "the name does not fit into a header"))?;
        map.append(name, value);
    }
    Ok(map)
}

/// A URL for people: what a signed one is signed with is nobody's business.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}
