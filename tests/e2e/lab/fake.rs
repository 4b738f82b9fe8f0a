//! A registry that misbehaves on request.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::http::{Delivery, Request, Response, serve};
use super::tar::{Image, MANIFEST, digest};

/// What is wrong with a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The last blob has one bit flipped.
    Flip,
    /// The last blob ends after this many bytes, each time.
    Cut(usize),
    /// The last blob ends after this many bytes the first time, and is whole (or goes on) afterwards.
    CutOnce(usize),
    /// The last blob stops coming after this many bytes.
    Stall(usize),
    /// Every request is answered with this status.
    Status(u16),
    /// The first requests for blobs are answered with this status and `Retry-After: 0`.
    Busy(u16),
    /// The manifest is not JSON.
    Nonsense,
    /// A token is asked for, as public registries do.
    Token,
    /// Blobs are elsewhere: at this address, which wants no credentials.
    Redirect(String),
    /// Every request fails unless it comes without credentials.
    NoCredentials,
}

/// The registry.
pub struct Fake {
    /// `ADDRESS:PORT`.
    pub address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Serves `image` as `fake:latest`.
    pub fn start(image: Image, fault: Fault) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (seen, here) = (Arc::clone(&log), address.clone());
        serve(listener, move |request| {
            let earlier = {
                let mut seen = seen.lock().unwrap();
                let line = format!("{} {}", request.method, request.path);
                let earlier = seen.iter().filter(|l| **l == line).count();
                seen.push(line);
                earlier
            };
            answer(&image, &fault, &here, request, earlier)
        });
        Fake { address, log }
    }

    /// The full name of its image.
    pub fn name(&self) -> String {
        format!("{}/fake:latest", self.address)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

const JSON: &str = "application/json";

fn refusal(status: u16, code: &str) -> Response {
    Response::new(
        status,
        JSON,
        format!(r#"{{"errors":[{{"code":"{code}","message":"no"}}]}}"#),
    )
}

fn answer(image: &Image, fault: &Fault, here: &str, request: &Request, earlier: usize) -> Response {
    let authorization = request.header("authorization");
    match fault {
        Fault::Status(status) => {
            return refusal(
                *status,
                if *status == 403 {
                    "DENIED"
                } else {
                    "UNAVAILABLE"
                },
            );
        }
        Fault::NoCredentials if authorization.is_some() => return refusal(400, "LEAKED"),
        Fault::Token if request.path.starts_with("/token") => {
            let asked = ["service=lab", "scope="]
                .iter()
                .all(|p| request.path.contains(p));
            return if asked {
                Response::new(200, JSON, r#"{"token":"sesame","expires_in":60}"#)
            } else {
                refusal(400, "NO")
            };
        }
        Fault::Token if authorization != Some("Bearer sesame") => {
            let ask = format!(
                r#"Bearer realm="http://{here}/token",service="lab",scope="repository:fake:pull""#
            );
            return refusal(401, "UNAUTHORIZED").header("WWW-Authenticate", ask);
        }
        _ => {}
    }
    if request.path == "/v2/" {
        return Response::new(200, JSON, "{}");
    }
    if let Some(wanted) = request.path.strip_prefix("/v2/fake/manifests/") {
        if wanted != "latest" && wanted != digest(&image.manifest) {
            return refusal(404, "MANIFEST_UNKNOWN");
        }
        let body = if *fault == Fault::Nonsense {
            b"{\"schemaVersion\": tea".to_vec()
        } else {
            image.manifest.clone()
        };
        let digest = digest(&body);
        return Response::new(200, MANIFEST, body).header("Docker-Content-Digest", digest);
    }
    let Some(wanted) = request.path.strip_prefix("/v2/fake/blobs/") else {
        return refusal(404, "NAME_UNKNOWN");
    };
    let Some((name, bytes)) = image.blobs.iter().find(|(name, _)| name == wanted) else {
        return refusal(404, "BLOB_UNKNOWN");
    };
    blob(
        fault,
        request,
        bytes,
        *name == image.blobs.last().unwrap().0,
        earlier,
    )
}

fn blob(fault: &Fault, request: &Request, bytes: &[u8], last: bool, earlier: usize) -> Response {
    if let Fault::Redirect(to) = fault {
        return Response::new(307, "text/plain", "")
            .header("Location", format!("http://{to}{}", request.path));
    }
    if let (Fault::Busy(status), 0) = (fault, earlier) {
        return refusal(*status, "TOOMANYREQUESTS").header("Retry-After", "0");
    }
    // "bytes=N-": from the Nth on.
    let start = request
        .header("range")
        .and_then(|r| r.strip_prefix("bytes=")?.split('-').next()?.parse().ok())
        .filter(|&n: &usize| n > 0 && n < bytes.len());
    let mut body = bytes.to_vec();
    let mut delivery = Delivery::Whole;
    if last {
        match *fault {
            Fault::Flip => *body.last_mut().unwrap() ^= 1,
            Fault::Cut(n) => delivery = Delivery::Cut(n),
            Fault::CutOnce(n) if earlier == 0 => delivery = Delivery::Cut(n),
            Fault::Stall(n) => delivery = Delivery::Stall(n),
            _ => {}
        }
    }
    let mut response = match start {
        Some(n) => Response::new(206, "application/octet-stream", &body[n..]).header(
            "Content-Range",
            format!("bytes {n}-{}/{}", body.len() - 1, body.len()),
        ),
        None => Response::new(200, "application/octet-stream", body),
    };
    let len = response.body.len();
    response.delivery = match delivery {
        Delivery::Cut(n) => Delivery::Cut(n.min(len)),
        Delivery::Stall(n) => Delivery::Stall(n.min(len)),
        Delivery::Whole => Delivery::Whole,
    };
    response
}
