//! Pushing: blobs in one request or in pieces, and manifests (distribution spec, "Push").
//!
//! A blob that the registry has is not sent, one that it has in another repository is mounted. What
//! is sent goes in one `PUT`, as most registries like it best. If that is cut the registry is asked
//! how far it came, and the rest follows in pieces; a front end that refuses large requests gets
//! pieces from the beginning. Where a registry forgets what it had all begins anew.

use super::failure;
use super::send::{Body, Packed};
use super::{Client, Settings, http_client, is_loopback};
use crate::{Error, Progress, Reference, Result};
use bytes::Bytes;
use rcon_store::Digest;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, Response, Url};
use std::time::Duration;

/// Size of a piece where pieces are sent and the registry has no wish.
const PIECE: u64 = 16 << 20;

/// What came of the wish to mount a blob.
pub(crate) enum Mounted {
    /// It is there now.
    Done,
    /// It is not, but it may be sent here.
    Session(Session),
    /// It is not.
    No,
}

/// Where a blob is being sent.
pub(crate) struct Session {
    url: Url,
    /// Something was sent there; how much arrived is to be asked.
    used: bool,
    /// The registry wants pieces of at least this size.
    piece: u64,
}

impl<'a> Client<'a> {
    /// As [`Client::connect`], to push to `repository`, and to mount from others (`from`).
    pub(crate) async fn connect_to_push(
        registry: &str,
        repository: &str,
        from: &[String],
        settings: &Settings,
        progress: &'a dyn Progress,
    ) -> Result<Client<'a>> {
        let mut client = Client::connect(registry, Some(repository), settings, progress).await?;
        let loopback = is_loopback(client.base.host_str().unwrap_or_default());
        let insecure = client.insecure;
        // Its limit for the next bytes of an answer would count while we send. We look ourselves.
        let unhurried = super::Patience {
            stall: Duration::from_secs(24 * 3600),
            ..settings.patience.clone()
        };
        let cert_dir = settings.cert_dir.as_deref();
        (client.http, _) = http_client(registry, cert_dir, insecure, loopback, &unhurried)?;
        let mut scope = format!("repository:{repository}:pull,push");
        for other in from {
            scope += &format!(" repository:{other}:pull");
        }
        client.scope = Some(scope);
        Ok(client)
    }

    /// Does the repository have this blob?
    pub(crate) async fn has_blob(&self, repository: &str, digest: &Digest) -> Result<bool> {
        let what = format!(
            "checking whether blob {digest} exists in {}/{repository}",
            self.registry
        );
        let url = self.url(&format!("/v2/{repository}/blobs/{digest}"));
        match self
            .patiently(Method::HEAD, url, &[], &Body::Empty, &what)
            .await
        {
            Ok(_) => Ok(true),
            // Some registries do not let a repository be looked at that does not exist yet.
            Err(
                Error::Refused {
                    status: 404 | 403, ..
                }
                | Error::Unauthorized { .. },
            ) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Take a blob over from another repository of the registry.
    pub(crate) async fn mount(
        &self,
        repository: &str,
        digest: &Digest,
        from: &str,
    ) -> Result<Mounted> {
        let what = format!("mounting blob {digest} from {from}");
        let mut url = self.url(&format!("/v2/{repository}/blobs/uploads/"));
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from);
        match self
            .patiently(Method::POST, url, &[], &Body::Empty, &what)
            .await
        {
            Ok(response) if response.status().as_u16() == 201 => Ok(Mounted::Done),
            Ok(response) => Ok(self
                .session(&response, &what)
                .map_or(Mounted::No, Mounted::Session)),
            // Mounting is a kindness; sending it will tell what is really wrong.
            Err(Error::Refused { .. } | Error::Unauthorized { .. }) => Ok(Mounted::No),
            Err(e) => Err(e),
        }
    }

    /// Send a blob, in pieces of `piece` bytes if that is given.
    pub(crate) async fn upload(
        &self,
        repository: &str,
        blob: &Packed,
        session: Option<Session>,
        mut piece: Option<u64>,
    ) -> Result<()> {
        let mut session = session;
        let mut failures = 0;
        loop {
            let mut wish = None;
            let error = match self.attempt(repository, blob, &mut session, piece).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match &error {
                Error::Refused { status: 413, .. } if piece.is_none() => {
                    piece = Some(PIECE);
                    session = None;
                    continue;
                }
                Error::Transport { cause, .. } if cause.may_pass() => {}
                Error::Refused { status, after, .. }
                    if failure::may_pass(*status) && !self.is_too_long(*after) =>
                {
                    wish = *after;
                }
                // It lost what we sent: from the beginning.
                Error::Refused {
                    status: 404 | 416, ..
                } if session.is_some() => session = None,
                _ => return Err(error),
            }
            failures += 1;
            if failures > self.patience.retries {
                return Err(error);
            }
            self.wait(&error.to_string(), failures, wish).await;
        }
    }

    async fn attempt(
        &self,
        repository: &str,
        blob: &Packed,
        session: &mut Option<Session>,
        piece: Option<u64>,
    ) -> Result<()> {
        let what = format!("writing blob {}", blob.digest);
        let mut offset = 0;
        if session.as_ref().is_some_and(|s| s.used) {
            let resumed = self.resume(session, blob, &what).await?;
            match resumed {
                Some(have) => offset = have,
                None => *session = None,
            }
        }
        let open = match session {
            Some(open) => open,
            None => session.insert(self.begin(repository, &what).await?),
        };
        open.used = true;
        let octets = (CONTENT_TYPE, "application/octet-stream".to_owned());
        if offset == 0 && piece.is_none() {
            let url = finished(&open.url, &blob.digest);
            let body = Body::Part(blob, 0, blob.size);
            self.ask(Method::PUT, url, &[octets], &body, 0, &what)
                .await?;
            return Ok(());
        }
        let size = piece.unwrap_or(PIECE).max(open.piece).max(1);
        while offset < blob.size {
            let end = blob.size.min(offset.saturating_add(size));
            let headers = [
                octets.clone(),
                (CONTENT_RANGE, format!("{offset}-{}", end - 1)),
            ];
            let body = Body::Part(blob, offset, end);
            let answer = self
                .ask(
                    Method::PATCH,
                    open.url.clone(),
                    &headers,
                    &body,
                    offset,
                    &what,
                )
                .await?;
            // It may have taken less than it was given.
            offset = match received(&answer) {
                Some(have) if have > offset && have <= end => have,
                _ => end,
            };
            if let Some(next) = self.session(&answer, &what) {
                open.url = next.url;
            }
        }
        let url = finished(&open.url, &blob.digest);
        let end = Body::Empty;
        self.ask(Method::PUT, url, &[octets], &end, blob.size, &what)
            .await?;
        Ok(())
    }

    async fn begin(&self, repository: &str, what: &str) -> Result<Session> {
        let what = format!("{what}: initiating the upload");
        let url = self.url(&format!("/v2/{repository}/blobs/uploads/"));
        let response = self
            .patiently(Method::POST, url, &[], &Body::Empty, &what)
            .await?;
        self.session(&response, &what)
            .ok_or_else(|| Error::invalid(&what, "the registry does not say where to send it"))
    }

    /// How much of a blob arrived; nothing if that is not known (any more).
    async fn resume(
        &self,
        session: &mut Option<Session>,
        blob: &Packed,
        what: &str,
    ) -> Result<Option<u64>> {
        let Some(open) = session else {
            return Ok(None);
        };
        let url = open.url.clone();
        match self.ask(Method::GET, url, &[], &Body::Empty, 0, what).await {
            Ok(answer) => {
                // `0-0` is said for nothing as for one byte.
                let have = received(&answer).filter(|&have| have > 1 && have <= blob.size);
                if let (Some(_), Some(next)) = (have, self.session(&answer, what)) {
                    open.url = next.url;
                }
                Ok(have)
            }
            Err(Error::Refused { status, .. }) if !failure::may_pass(status) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Put a manifest under the reference's tag or digest.
    pub(crate) async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        manifest: Vec<u8>,
    ) -> Result<()> {
        let selector = reference.selector();
        let what = format!("uploading manifest {selector} to {}", reference.name());
        let path = format!("/v2/{}/manifests/{selector}", reference.repository());
        let headers = [(CONTENT_TYPE, media_type.to_owned())];
        let manifest = Bytes::from(manifest);
        let body = Body::Bytes(&manifest);
        self.patiently(Method::PUT, self.url(&path), &headers, &body, &what)
            .await?;
        Ok(())
    }

    /// The upload that an answer points to.
    fn session(&self, response: &Response, what: &str) -> Option<Session> {
        let location = response.headers().get(LOCATION)?.to_str().ok()?;
        let url = response.url().join(location).ok()?;
        self.check_redirect(response.url(), &url, what).ok()?;
        let wish = response.headers().get("oci-chunk-min-length");
        let piece = wish.and_then(|v| v.to_str().ok()?.parse().ok());
        Some(Session {
            url,
            used: false,
            piece: piece.unwrap_or(0),
        })
    }
}

/// The address that ends an upload.
fn finished(url: &Url, digest: &Digest) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut()
        .append_pair("digest", &digest.to_string());
    url
}

/// How many bytes the registry says it has: `Range: 0-99` are a hundred.
fn received(response: &Response) -> Option<u64> {
    let range = response.headers().get(RANGE)?.to_str().ok()?;
    let (start, end) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    let end: u64 = end.parse().ok()?;
    (start == "0").then(|| end.saturating_add(1))
}
