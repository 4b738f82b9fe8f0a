//! From what the HTTP client says to what a user can read, and from an error answer to its words.

use super::dns::LookupError;
use super::tls;
use crate::error::Failure;
use rcon_sys::errors::in_words;
use reqwest::Response;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use std::error::Error as StdError;
use std::io;
use std::time::Duration;

/// Error bodies are read up to here.
const BODY_MAX: usize = 64 * 1024;

/// Why a request got no (whole) answer.
pub(crate) fn classify(error: &reqwest::Error, url: &str, no_roots: bool) -> Failure {
    let url = url.to_owned();
    let mut last = error.to_string();
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    let mut found_io = None;
    while let Some(e) = next {
        // An I/O error made of another one names its source's source, not the source.
        let mut inner = e;
        while let Some(io) = inner.downcast_ref::<io::Error>() {
            match io.get_ref() {
                Some(wrapped) => inner = wrapped,
                None => break,
            }
        }
        if let Some(lookup) = inner.downcast_ref::<LookupError>() {
            return Failure::Lookup {
                host: lookup.host.clone(),
                why: lookup.why.clone(),
            };
        }
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return from_tls(tls, url, no_roots);
        }
        if let Some(io) = e.downcast_ref::<io::Error>() {
            found_io = Some(io);
        }
        last = e.to_string();
        next = e.source();
    }
    if error.is_timeout() {
        return Failure::TimedOut { url };
    }
    let Some(io) = found_io else {
        return if error.is_builder() {
            Failure::Answer { url, why: last }
        } else {
            Failure::Lost { url, why: last }
        };
    };
    match io.kind() {
        io::ErrorKind::ConnectionRefused => Failure::ConnectionRefused { url },
        io::ErrorKind::TimedOut => Failure::TimedOut { url },
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::PermissionDenied => Failure::Unreachable {
            url,
            why: in_words(io),
        },
        _ => Failure::Lost {
            url,
            why: in_words(io),
        },
    }
}

fn from_tls(error: &rustls::Error, url: String, no_roots: bool) -> Failure {
    if let Some(why) = tls::words(error) {
        return Failure::Certificate { url, why, no_roots };
    }
    match error {
        // What a server that speaks plain HTTP answers is no TLS record.
        rustls::Error::InvalidMessage(_) => Failure::Tls {
            url,
            why: "server gave HTTP response to HTTPS client".to_owned(),
            plain: true,
        },
        rustls::Error::AlertReceived(alert) => Failure::Tls {
            url,
            why: format!("the server refused us: {alert:?}"),
            plain: false,
        },
        other => Failure::Tls {
            url,
            why: other.to_string(),
            plain: false,
        },
    }
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<Entry>,
    #[serde(default)]
    details: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default)]
    message: String,
}

/// An error answer.
pub(crate) struct Answer {
    pub status: u16,
    /// The registry's own words, if it had any.
    pub message: Option<String>,
}

impl Answer {
    /// Read the rest of an error answer.
    pub async fn read(mut response: Response) -> Answer {
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while body.len() < BODY_MAX {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                _ => break,
            }
        }
        Answer {
            status,
            message: words(&body),
        }
    }

    /// Its words, or those of its status.
    pub fn text(&self) -> String {
        self.message
            .clone()
            .unwrap_or_else(|| status_words(self.status))
    }
}

/// The first error of a registry's answer, as `code: message` (distribution spec, "error codes").
fn words(body: &[u8]) -> Option<String> {
    let parsed: Errors = serde_json::from_slice(body).ok()?;
    let Some(first) = parsed.errors.first() else {
        return parsed
            .details
            .or(parsed.message)
            .map(|m| clean(&m))
            .filter(|m| !m.is_empty());
    };
    let code = first.code.as_str().unwrap_or_default();
    let code = clean(&code.to_ascii_lowercase().replace('_', " "));
    let message = clean(&first.message);
    match (code.as_str(), message.as_str()) {
        ("", "") => None,
        ("", m) => Some(m.to_owned()),
        (c, "") => Some(c.to_owned()),
        // "manifest unknown: manifest unknown", "unauthorized: authentication required"
        (c, m) if m.eq_ignore_ascii_case(c) || c == "unauthorized" => Some(m.to_owned()),
        (c, m) => Some(format!("{c}: {m}")),
    }
}

/// What a stranger says goes to a terminal: one line, no control characters.
pub(crate) fn clean(text: &str) -> String {
    let text: String = text
        .chars()
        .take(500)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    text.trim().to_owned()
}

/// `received unexpected HTTP status: 404 Not Found`.
pub(crate) fn status_words(status: u16) -> String {
    let reason = reqwest::StatusCode::from_u16(status)
        .ok()
        .and_then(|s| s.canonical_reason())
        .unwrap_or("unknown status");
    format!("received unexpected HTTP status: {status} {reason}")
}

/// Is it worth while to ask again?
pub(crate) fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds or a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    (date.to_utc() - chrono::Utc::now()).to_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_bodies() {
        let say = |t: &str| words(t.as_bytes());
        assert_eq!(
            say(
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#
            ),
            Some("manifest unknown".into())
        );
        assert_eq!(
            say(r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#),
            Some("authentication required".into())
        );
        assert_eq!(
            say(
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#
            ),
            Some("name unknown: repository name not known to registry".into())
        );
        assert_eq!(
            say(r#"{"details":"incorrect username or password"}"#).as_deref(),
            Some("incorrect username or password")
        );
        assert_eq!(say("<html>"), None);
        assert_eq!(say(r#"{"errors":[]}"#), None);
        assert_eq!(
            say("{\"errors\":[{\"message\":\"a\\u001b[31mb\\nc\"}]}").as_deref(),
            Some("a [31mb c")
        );
    }

    #[test]
    fn retry_after_forms() {
        let with = |v: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, v.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(with("7"), Some(Duration::from_secs(7)));
        assert_eq!(with("soon"), None);
        assert_eq!(with("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        let later = (chrono::Utc::now() + chrono::TimeDelta::seconds(30)).to_rfc2822();
        assert!(with(&later).is_some_and(|d| d <= Duration::from_secs(30)));
    }
}
