//! Bearer tokens (distribution's token and OAuth2 specifications).
//!
//! A token is asked for once and used by all requests until shortly before it ends; those that
//! come meanwhile wait for it rather than ask for their own.

use super::Client;
use super::challenge::Challenge;
use super::failure::Answer;
use crate::auth::Credentials;
use crate::error::Failure;
use crate::{Error, Result};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// A token that says nothing lasts this long, and none is believed to end sooner (docker's rule).
const SHORTEST: Duration = Duration::from_secs(60);
/// A token is renewed this long before its end.
const EARLY: Duration = Duration::from_secs(10);
/// Tokens are not larger.
const ANSWER_MAX: u64 = 1 << 20;

/// A token and its end.
#[derive(Clone)]
pub(crate) struct Token {
    pub header: HeaderValue,
    ends: Instant,
}

impl Token {
    pub fn is_good(&self) -> bool {
        Instant::now() < self.ends
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Client<'_> {
    /// Ask for a token as the challenge says.
    pub(crate) async fn fetch_token(&self, challenge: &Challenge) -> Result<Token> {
        let Challenge::Bearer {
            realm,
            service,
            scope,
        } = challenge
        else {
            return Err(Error::invalid("registry", "it asks for no token"));
        };
        let what = "unable to retrieve auth token".to_owned();
        let mut url = Url::parse(realm)
            .ok()
            .filter(|u| matches!(u.scheme(), "http" | "https") && u.host().is_some())
            .ok_or_else(|| Error::invalid(&what, format!("invalid realm {realm:?}")))?;
        if url.scheme() == "http" && !self.may_be_plain(&url) {
            return Err(Error::invalid(
                &what,
                format!(
                    "the registry sends us to {realm:?}, where credentials would travel in the clear"
                ),
            ));
        }
        let scope = scope.clone().or_else(|| self.scope.clone());
        let mut headers = HeaderMap::new();
        let (method, form) = match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                let mut form = vec![
                    ("grant_type", "refresh_token".to_owned()),
                    ("refresh_token", token.clone()),
                    ("client_id", "rcon".to_owned()),
                ];
                form.extend(service.clone().map(|s| ("service", s)));
                form.extend(scope.map(|s| ("scope", s)));
                (Method::POST, Some(form))
            }
            basic => {
                let mut query = url.query_pairs_mut();
                if let Some(service) = service {
                    query.append_pair("service", service);
                }
                if let Some(scope) = &scope {
                    query.append_pair("scope", scope);
                }
                if let Some(Credentials::Basic { user, password }) = basic {
                    query.append_pair("account", user);
                    headers.insert("authorization", super::basic(user, password)?);
                }
                (Method::GET, None)
            }
        };
        let body = form.map(|pairs| {
            headers.insert(
                "content-type",
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            );
            // The query of a URL is written in the same way as a form.
            let mut form = url.clone();
            form.set_query(None);
            form.query_pairs_mut().extend_pairs(pairs);
            form.query().unwrap_or_default().to_owned()
        });
        let response = self
            .send_patiently(method, url, headers, body, &what)
            .await?;
        if !response.status().is_success() {
            let answer = Answer::read(response).await;
            return Err(match answer.status {
                401 | 403 => self.unauthorized(&what, &answer),
                status => Error::Refused {
                    what,
                    status,
                    message: answer.text(),
                    after: None,
                },
            });
        }
        let bytes = self.read_all(response, ANSWER_MAX, &what).await?;
        let answer: TokenAnswer = serde_json::from_slice(&bytes)
            .map_err(|e| Error::invalid(&what, format!("the answer is no token: {e}")))?;
        let token = answer
            .token
            .or(answer.access_token)
            .filter(|t| !t.is_empty())
            .ok_or_else(|| Error::invalid(&what, "there is no token in the answer"))?;
        let mut header = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Error::invalid(&what, "the token has characters no header may have"))?;
        header.set_sensitive(true);
        let lasts =
            Duration::from_secs(answer.expires_in.unwrap_or(0)).clamp(SHORTEST, SHORTEST * 1440);
        Ok(Token {
            header,
            ends: Instant::now() + lasts - EARLY,
        })
    }

    /// The registry or its token service does not let us in.
    pub(crate) fn unauthorized(&self, what: &str, answer: &Answer) -> Error {
        let had_credentials = self.credentials.is_some();
        let default = if had_credentials {
            "invalid username/password"
        } else {
            "authentication required"
        };
        Error::Unauthorized {
            what: what.to_owned(),
            message: answer.message.clone().unwrap_or_else(|| default.to_owned()),
            had_credentials,
            registry: self.registry.clone(),
        }
    }

    /// May this URL be spoken to without TLS?
    pub(crate) fn may_be_plain(&self, url: &Url) -> bool {
        self.insecure
            || self.base.scheme() == "http"
            || super::is_loopback(url.host_str().unwrap_or_default())
    }

    /// A failure that came while doing `what`.
    pub(crate) fn lost(&self, what: &str, cause: Failure) -> Error {
        Error::Transport {
            what: what.to_owned(),
            cause,
        }
    }
}
