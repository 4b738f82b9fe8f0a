//! Pushing over connections that are cut, and to registries that are busy or answer in odd ways.

use crate::fake::{Fake, Reply};
use crate::lab::*;
use crate::push::{count, loaded, push, same_again, two_layers};
use crate::real::{self, start};
use rcon_image::{PullOptions, PushOptions};
use rcon_store::{Compression, Digest};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// A proxy that cuts connections, the first `cuts` times, once a client has sent so much.
pub struct Proxy {
    pub address: String,
    /// How often it did.
    pub done: Arc<AtomicUsize>,
    /// What clients have sent.
    pub bytes: Arc<AtomicUsize>,
}

impl Proxy {
    pub fn start(to: &str, after: usize, cuts: usize) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy {
            address: listener.local_addr().unwrap().to_string(),
            done: Arc::default(),
            bytes: Arc::default(),
        };
        let (to, done, bytes) = (
            to.to_owned(),
            Arc::clone(&proxy.done),
            Arc::clone(&proxy.bytes),
        );
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(std::result::Result::ok) {
                let Ok(server) = TcpStream::connect(&to) else {
                    continue;
                };
                let (done, bytes) = (Arc::clone(&done), Arc::clone(&bytes));
                std::thread::spawn(move || relay(client, server, after, cuts, &done, &bytes));
            }
        });
        proxy
    }
}

fn relay(
    mut client: TcpStream,
    mut server: TcpStream,
    after: usize,
    cuts: usize,
    done: &AtomicUsize,
    bytes: &AtomicUsize,
) {
    let (mut from, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 16 * 1024];
    let mut sent = 0;
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        sent += count;
        bytes.fetch_add(count, Ordering::Relaxed);
        if sent > after && done.load(Ordering::Relaxed) < cuts {
            done.fetch_add(1, Ordering::Relaxed);
            break;
        }
        if server.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}

#[test]
fn a_cut_is_survived() {
    if !real::tools() {
        return;
    }
    for piece in [None, Some(150_000)] {
        let lab = Lab::new();
        let config = "  relativeurls: true\n";
        let registry = start(&lab, config, "");
        let (image, _) = loaded(&lab, &two_layers("cut"));
        let proxy = Proxy::start(&registry.address, 300_000, 2);
        let name = format!("{}/cut:1", proxy.address);
        let options = PushOptions {
            piece,
            ..PushOptions::default()
        };
        let (_, events) = push(&lab, &image, &name, &options).unwrap();
        assert!(proxy.done.load(Ordering::Relaxed) > 0);
        assert!(count(&events, "Retry") > 0, "{events}");
        same_again(&format!("{}/cut:1", registry.address), &image, "cut");
    }
    // A registry that always hangs up is given up in the end.
    let lab = Lab::new();
    let registry = start(&lab, "  relativeurls: true\n", "");
    let proxy = Proxy::start(&registry.address, 300_000, usize::MAX);
    let (image, _) = loaded(&lab, &two_layers("never"));
    let name = format!("{}/never:1", proxy.address);
    push(&lab, &image, &name, &PushOptions::default()).unwrap_err();
}

#[test]
fn a_busy_registry_is_pushed_to_when_it_says() {
    let fake = Fake::start();
    let seen = std::sync::Mutex::new(std::collections::HashSet::new());
    fake.on_request(move |request, reply| {
        let busy =
            Reply::error(429, "TOOMANYREQUESTS", "too many requests").with("Retry-After", "0");
        match &*request.method {
            "HEAD" => Reply::new(404, ""),
            // Each address once, then as it should be.
            "POST" | "PATCH" | "PUT"
                if seen
                    .lock()
                    .unwrap()
                    .insert((request.method.clone(), request.path.clone())) =>
            {
                busy
            }
            "POST" => Reply::new(202, "").with("Location", "/v2/x/blobs/uploads/1"),
            "PATCH" => Reply::new(202, "").with("Location", &request.path),
            "PUT" => Reply::new(201, ""),
            _ => reply,
        }
    });
    let lab = Lab::new();
    let (image, _) = loaded(&lab, &[tar(&[("a", b"b")])]);
    let name = format!("{}/x:1", fake.address);
    let (_, events) = push(&lab, &image, &name, &PushOptions::default()).unwrap();
    assert!(count(&events, "Retry") > 2, "{events}");
}

#[test]
fn a_blob_that_lies_elsewhere_is_found() {
    let fake = Fake::start();
    fake.on_request(|request, reply| match (&*request.method, &*request.path) {
        ("HEAD", "/elsewhere") => Reply::new(200, ""),
        ("HEAD", _) => Reply::new(302, "").with("Location", "/elsewhere"),
        ("PUT", path) if path.contains("/manifests/") => Reply::new(201, ""),
        _ => reply,
    });
    let lab = Lab::new();
    let (image, _) = loaded(&lab, &[tar(&[("a", b"b")])]);
    let name = format!("{}/x:1", fake.address);
    push(&lab, &image, &name, &PushOptions::default()).unwrap();
    assert!(fake.requests("/uploads/").is_empty());
}

#[test]
fn what_another_image_says_of_a_layer_is_not_believed() {
    let lab = Lab::new();
    let layer = tar(&[("a", b"b")]);
    let (image, _) = loaded(&lab, std::slice::from_ref(&layer));
    let fake = Fake::start();
    // The layer is here, so the blob that is named for it there is not looked at.
    let other = gzip(&tar(&[("other", b"content")]));
    let liar = Image::for_platform("arm64", &[(layer, other.clone())]);
    liar.serve(&fake, "liar", "latest");
    lab.pull(&format!("{}/liar", fake.address)).unwrap();
    fake.on_request(|request, reply| match &*request.method {
        "HEAD" => Reply::new(404, ""),
        "POST" if request.query.contains("mount=") => Reply::new(201, ""),
        "POST" => Reply::new(202, "").with("Location", "/v2/x/blobs/uploads/1"),
        "PUT" => Reply::new(201, ""),
        _ => reply,
    });
    let name = format!("{}/x:1", fake.address);
    push(&lab, &image, &name, &PushOptions::default()).unwrap();
    let uploads = fake.requests("/uploads/");
    assert!(uploads.iter().any(|r| r.method == "PUT"), "{uploads:#?}");
    let wrong = Digest::sha256(&other);
    assert!(
        !uploads.iter().any(|r| r.query.contains(wrong.hex())),
        "{uploads:#?}"
    );
}

/// What a registry was asked, and the bytes it has in the end.
type Story = (Vec<String>, Vec<u8>);

/// A registry that takes one blob at a time, and hangs up once in the middle of it. It keeps what
/// it got until then, and says so.
fn forgetful_of_nothing(expected: usize) -> (String, JoinHandle<Story>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = move || {
        let (mut asked, mut have) = (Vec::new(), Vec::new());
        let mut manifest = false;
        while !manifest {
            let (mut client, _) = listener.accept().unwrap();
            while let Some((line, length)) = head(&mut client) {
                asked.push(line.clone());
                let is = |start: &str| line.starts_with(start);
                let upload = line.contains("/uploads/");
                let cut = is("PUT") && upload && length == expected && have.is_empty();
                let mut body = vec![0; if cut { length / 2 } else { length }];
                client.read_exact(&mut body).unwrap();
                if length > 1000 || (upload && is("PATCH")) {
                    have.extend_from_slice(&body);
                }
                if cut {
                    break;
                }
                manifest = is("PUT") && line.contains("/manifests/");
                let range = format!("Range: 0-{}\r\n", have.len().max(1) - 1);
                let location = "Location: /v2/x/blobs/uploads/1?state=a\r\n";
                let (status, headers) = match () {
                    () if is("GET /v2/ ") => ("200 OK", String::new()),
                    () if is("HEAD") => ("404 Not Found", String::new()),
                    () if is("GET") => ("204 No Content", format!("{location}{range}")),
                    () if is("PUT") => ("201 Created", String::new()),
                    () => ("202 Accepted", format!("{location}{range}")),
                };
                let answer = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\n\r\n");
                client.write_all(answer.as_bytes()).unwrap();
                if manifest {
                    break;
                }
            }
        }
        (asked, have)
    };
    (address, std::thread::spawn(serve))
}

/// The first line of a request, and the length of its body.
fn head(client: &mut TcpStream) -> Option<(String, usize)> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        // Somebody tries whether we speak TLS.
        if text.is_empty() && byte[0] == 0x16 {
            return None;
        }
        text.push(byte[0]);
    }
    let text = String::from_utf8(text).ok()?;
    let length = text.lines().find_map(|l| {
        let (name, value) = l.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().ok())?
    });
    Some((text.lines().next()?.to_owned(), length.unwrap_or(0)))
}

#[test]
fn the_rest_of_a_blob_is_sent_after_a_cut() {
    let lab = Lab::new();
    let layer = tar(&[("noise", &noise(400_000))]);
    let (image, _) = loaded(&lab, std::slice::from_ref(&layer));
    let options = PushOptions {
        compression: Some(Compression::None),
        registry: PullOptions {
            tls_verify: Some(false),
            ..PullOptions::default()
        },
        ..PushOptions::default()
    };
    let (address, server) = forgetful_of_nothing(layer.len());
    push(&lab, &image, &format!("{address}/x:1"), &options).unwrap();
    let (asked, have) = server.join().unwrap();
    assert!(have == layer, "{asked:#?}");
    assert!(asked.iter().any(|l| l.starts_with("PATCH")), "{asked:#?}");
}
