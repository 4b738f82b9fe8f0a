//! A client for one registry: the OCI distribution protocol, which Docker's v2 protocol became.
//!
//! | file | what |
//! |---|---|
//! | `dns`, `tls` | finding the registry and believing it is the one |
//! | `challenge`, `token` | being let in |
//! | `failure` | saying in words why not |
//! | `request` | one request: redirects, authorization, patience |
//! | `blob` | a blob as a stream that survives cuts |
//! | `manifests` | manifests and the tags they have |
//! | `catalog` | what there is |
//! | `upload`, `send` | blobs and manifests on their way there |
//!
//! HTTP/1.1 is spoken on purpose: the layers of an image then come over connections of their own,
//! each with its own window, and a stalled one does not hold up the others.

mod blob;
mod catalog;
mod challenge;
mod dns;
mod failure;
mod manifests;
mod request;
mod send;
mod tls;
mod token;
mod upload;

pub(crate) use blob::Sink;
pub use blob::Split;
pub use challenge::schemes;
pub(crate) use failure::clean;
pub(crate) use send::Packed;
pub(crate) use upload::{Mounted, Session};

use crate::auth::Credentials;
use crate::error::Failure;
use crate::reference::DOCKER_HUB;
use crate::{Error, Progress, Result};
use base64::Engine as _;
use challenge::Challenge;
use failure::Answer;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use token::Token;

/// Where Docker Hub's registry lives.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// Largest manifest or index (the distribution spec asks for at least 4 MiB).
pub(crate) const MANIFEST_MAX: u64 = 4 << 20;

/// How long to wait, and how often to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection to be made.
    pub connect: Duration,
    /// For the next bytes of an answer.
    pub stall: Duration,
    /// How often a request that failed in passing is tried again.
    pub retries: u32,
    /// Before the first retry; each further one waits twice as long.
    pub back_off: Duration,
    /// A `Retry-After` longer than this is not waited for.
    pub longest: Duration,
    /// Each retry waits as long as the first.
    pub steady: bool,
    /// When a large blob is fetched over several connections.
    pub split: Split,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            retries: 5,
            back_off: Duration::from_millis(500),
            longest: Duration::from_secs(120),
            steady: false,
            split: Split::default(),
        }
    }
}

/// How to speak to a registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// `--tls-verify`.
    pub tls_verify: Option<bool>,
    /// registries.conf says so.
    pub insecure: bool,
    pub cert_dir: Option<PathBuf>,
    pub credentials: Option<Credentials>,
    pub patience: Patience,
}

/// A connection to one registry, with what it takes to be let in.
pub(crate) struct Client<'a> {
    http: reqwest::Client,
    /// As named: `docker.io`.
    registry: String,
    /// `https://registry-1.docker.io/`.
    base: Url,
    insecure: bool,
    no_roots: bool,
    credentials: Option<Credentials>,
    /// `repository:NAME:pull`, for token services that the registry did not tell.
    scope: Option<String>,
    challenges: Mutex<Vec<Challenge>>,
    token: tokio::sync::Mutex<Option<Token>>,
    patience: Patience,
    progress: &'a dyn Progress,
}

impl<'a> Client<'a> {
    /// Find out how the registry wants to be spoken to. `repository` is what will be pulled;
    /// without one only the credentials are of interest.
    pub async fn connect(
        registry: &str,
        repository: Option<&str>,
        settings: &Settings,
        progress: &'a dyn Progress,
    ) -> Result<Client<'a>> {
        let host = match registry {
            DOCKER_HUB => DOCKER_HUB_HOST,
            other => other,
        };
        let ping_failed = |cause| Error::Ping {
            registry: host.to_owned(),
            cause,
        };
        let url = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/")).map_err(|_| {
                let valid_port = host
                    .rsplit_once(':')
                    .is_none_or(|(_, p)| p.parse::<u16>().is_ok());
                ping_failed(Failure::Answer {
                    url: format!("{scheme}://{host}/v2/"),
                    why: if valid_port {
                        "invalid host name"
                    } else {
                        "invalid port"
                    }
                    .to_owned(),
                })
            })
        };
        let base = url("https")?;
        let loopback = is_loopback(base.host_str().unwrap_or_default());
        let insecure = match settings.tls_verify {
            Some(verify) => !verify,
            None => settings.insecure,
        };
        let (http, no_roots) = http_client(
            registry,
            settings.cert_dir.as_deref(),
            insecure,
            loopback,
            &settings.patience,
        )?;
        let mut client = Client {
            http,
            registry: registry.to_owned(),
            base,
            insecure,
            no_roots,
            credentials: settings.credentials.clone(),
            scope: repository.map(|r| format!("repository:{r}:pull")),
            challenges: Mutex::default(),
            token: tokio::sync::Mutex::new(None),
            patience: settings.patience.clone(),
            progress,
        };
        let plain_allowed = insecure || (loopback && settings.tls_verify.is_none());
        // A plain server may also just hang up on TLS: that is no reason to insist. And somebody
        // who waits for a registry that is out of reach wants to know soon.
        client.patience.retries = if plain_allowed {
            0
        } else {
            settings.patience.retries.min(2)
        };
        let pinged = client.ping().await;
        client.patience.retries = settings.patience.retries;
        match pinged {
            Err(Error::Ping {
                cause:
                    cause @ (Failure::Tls { .. }
                    | Failure::Lost { .. }
                    | Failure::ConnectionRefused { .. }),
                registry,
            }) if plain_allowed => {
                client.base = url("http")?;
                match client.ping().await {
                    Ok(()) => Ok(client),
                    // Plain HTTP was answered: then that is the answer.
                    Err(
                        e @ Error::Ping {
                            cause: Failure::Answer { .. },
                            ..
                        },
                    ) => Err(e),
                    // Nobody there either.
                    Err(_) if !matches!(cause, Failure::Tls { plain: true, .. }) => {
                        Err(Error::Ping { registry, cause })
                    }
                    Err(e) => Err(e),
                }
            }
            other => other.map(|()| client),
        }
    }

    /// As [`Client::connect`], to look at what the registry has.
    pub async fn connect_to_search(
        registry: &str,
        settings: &Settings,
        progress: &'a dyn Progress,
    ) -> Result<Client<'a>> {
        let mut client = Client::connect(registry, None, settings, progress).await?;
        client.scope = Some("registry:catalog:*".to_owned());
        Ok(client)
    }

    /// `GET /v2/`: is it a registry, and what does it want to see?
    async fn ping(&mut self) -> Result<()> {
        let url = self.url("/v2/");
        let what = String::new();
        let host = self.host();
        let failed = |e| match e {
            Error::Transport { cause, .. } => Error::Ping {
                registry: host.clone(),
                cause,
            },
            other => other,
        };
        let response = self
            .send_patiently(
                reqwest::Method::GET,
                url.clone(),
                HeaderMap::new(),
                None,
                &what,
            )
            .await
            .map_err(failed)?;
        let found = challenge::challenges(response.headers());
        match response.status().as_u16() {
            200..300 => {}
            401 if !found.is_empty() => {}
            _ => {
                let answer = Answer::read(response).await;
                let cause = Failure::Answer {
                    url: url.to_string(),
                    why: answer.text(),
                };
                return Err(Error::Ping {
                    registry: host.clone(),
                    cause,
                });
            }
        }
        self.set_challenges(found);
        Ok(())
    }

    /// Ask `/v2/` again with the credentials: `login`.
    pub async fn check_credentials(&self) -> Result<()> {
        let what = format!("logging into {:?}", self.registry);
        match self.get("/v2/", &[], &what).await {
            Ok(_) => Ok(()),
            Err(Error::Unauthorized { .. }) => Err(Error::WrongPassword {
                registry: self.registry.clone(),
            }),
            Err(e) => Err(e),
        }
    }

    fn challenges(&self) -> Vec<Challenge> {
        let all = self
            .challenges
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }

    fn set_challenges(&self, new: Vec<Challenge>) {
        *self
            .challenges
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// `HOST[:PORT]` we really speak to.
    fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        match self.base.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// The URL of a path at this registry.
    fn url(&self, path: &str) -> Url {
        // It is made of parts that the grammar of references allows, or was a path of this registry: so it always joins.
        self.base.join(path).unwrap_or_else(|_| self.base.clone())
    }
}

fn http_client(
    registry: &str,
    cert_dir: Option<&Path>,
    insecure: bool,
    loopback: bool,
    patience: &Patience,
) -> Result<(reqwest::Client, bool)> {
    let tls = tls::set_up(registry, cert_dir, insecure)?;
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls.config)
        .dns_resolver(dns::Resolver::default())
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .user_agent(concat!("rcon/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(patience.connect)
        .read_timeout(patience.stall)
        .tcp_keepalive(Duration::from_secs(30));
    if loopback {
        // A proxy has another loopback.
        builder = builder.no_proxy();
    }
    let http = builder.build().map_err(|e| Error::Tls(e.to_string()))?;
    Ok((http, tls.no_roots))
}

/// Stream what is at a URL that the user named. `Ok(false)`: the sink had enough.
pub(crate) async fn download(
    url: &str,
    patience: &Patience,
    sink: &mut impl Sink,
    progress: &dyn Progress,
) -> Result<bool> {
    let base = Url::parse(url).map_err(|e| Error::invalid(url, e.to_string()))?;
    let host = base.host_str().unwrap_or_default().to_owned();
    let (http, no_roots) = http_client(&host, None, false, is_loopback(&host), patience)?;
    let client = Client {
        http,
        registry: host,
        base: base.clone(),
        insecure: false,
        no_roots,
        credentials: None,
        scope: None,
        challenges: Mutex::default(),
        token: tokio::sync::Mutex::new(None),
        patience: patience.clone(),
        progress,
    };
    let what = format!("downloading {}", request::shown(&base));
    let mut response = client
        .send_patiently(reqwest::Method::GET, base, HeaderMap::new(), None, &what)
        .await?;
    if !response.status().is_success() {
        let answer = Answer::read(response).await;
        return Err(Error::Refused {
            what,
            status: answer.status,
            message: answer.text(),
            after: None,
        });
    }
    let url = response.url().clone();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                if !sink.put(chunk).await {
                    return Ok(false);
                }
            }
            Ok(None) => return Ok(true),
            Err(e) => return Err(client.lost(&what, client.cut(&e, &url))),
        }
    }
}

/// A Basic `Authorization` (RFC 7617).
fn basic(user: &str, password: &str) -> Result<HeaderValue> {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::try_from(format!("Basic {text}"))
        .map_err(|_| Error::invalid("credentials", "they do not fit into a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Is this host this machine, whatever the resolver says?
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => dns::is_localhost(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback() {
        for here in [
            "localhost",
            "127.0.0.1",
            "127.8.9.10",
            "[::1]",
            "r.localhost",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback(here), "{here}");
        }
        for there in [
            "10.0.0.1",
            "localhost.example",
            "[fe80::1]",
            "127.0.0.1.nip.io",
        ] {
            assert!(!is_loopback(there), "{there}");
        }
    }
}
