//! Pushing to Debian's docker-registry; what arrives is judged by skopeo and by a fresh pull.

use crate::fake::{Fake, Reply};
use crate::lab::*;
use crate::real::{self, HTPASSWD, certificates, skopeo, start};
use rcon_image::out::{Destination, Format};
use rcon_image::{Error, Patience, PullOptions, PushOptions, Result, Source};
use rcon_store::{Compression, Digest, ImageRecord};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// An image in the lab's store, from an OCI layout. What it is made of, too.
pub fn loaded(lab: &Lab, layers: &[Vec<u8>]) -> (ImageRecord, Image) {
    let packed: Vec<_> = layers.iter().map(|l| (l.clone(), gzip(l))).collect();
    let mut image = Image::new(&packed);
    image.manifest["annotations"] = json!({ "org.example.remark": "kept" });
    let dir = lab.path("made");
    let put = |path: String, bytes: &[u8]| {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let manifest = image.bytes();
    for blob in image.blobs.iter().chain([&image.config, &manifest]) {
        put(format!("blobs/sha256/{}", Digest::sha256(blob).hex()), blob);
    }
    put("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor(OCI_MANIFEST, &manifest)] });
    put("index.json".into(), index.to_string().as_bytes());
    let source = Source::Path(dir.clone());
    let mut all = rcon_image::load(&lab.store, &source, &Recorder::default()).unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    (all.remove(0).record, image)
}

/// Two layers: one that compresses, one that does not.
pub fn two_layers(mark: &str) -> Vec<Vec<u8>> {
    vec![
        tar(&[("hello", mark.as_bytes()), ("zeros", &[0; 3_000_000])]),
        tar(&[("noise", &noise(700_000)), (".wh.hello", b"")]),
    ]
}

fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        stall: Duration::from_secs(5),
        retries: 3,
        back_off: Duration::from_millis(10),
        longest: Duration::from_secs(3),
        ..Patience::default()
    }
}

fn push(
    lab: &Lab,
    image: &ImageRecord,
    name: &str,
    options: &PushOptions,
) -> Result<(Digest, String)> {
    let options = PushOptions {
        registry: PullOptions {
            authfile: options.registry.authfile.clone().or(lab.options().authfile),
            ..options.registry.clone()
        },
        ..options.clone()
    };
    let to = Destination::parse(name).unwrap();
    let recorder = Recorder::default();
    let digest = rcon_image::push(&lab.store, &image.id, &to, &options, &patience(), &recorder)?;
    lab.assert_no_leftovers();
    Ok((digest, recorder.text()))
}

/// How often something is told.
fn count(events: &str, what: &str) -> usize {
    events.lines().filter(|l| l.starts_with(what)).count()
}

/// The manifest as skopeo reads it, after it has checked all blobs by copying them.
fn seen_by_skopeo(lab: &Lab, name: &str) -> Value {
    let to: PathBuf = lab.path(&format!("seen-{}", name.replace(['/', ':'], "-")));
    let from = format!("docker://{name}");
    let dir = format!("dir:{}", to.display());
    skopeo(lab, &["--src-tls-verify=false", &from, &dir]);
    serde_json::from_slice(&std::fs::read(to.join("manifest.json")).unwrap()).unwrap()
}

/// A fresh pull gives the same image with the same files.
fn same_again(name: &str, image: &ImageRecord, mark: &str) {
    let fresh = Lab::new();
    let again = fresh.pull(name).unwrap();
    assert_eq!((&again.id, &again.layers), (&image.id, &image.layers));
    assert_eq!(fresh.read(&again, 0, "hello"), mark);
}

#[test]
fn images_arrive() {
    if !real::tools() {
        return;
    }
    let lab = Lab::new();
    // Its answers must lead through the proxy.
    let registry = start(&lab, "  relativeurls: true\n", "");
    let (image, made) = loaded(&lab, &two_layers("arrives"));
    let name = format!("{}/team/one:v1", registry.address);
    let (digest, events) = push(&lab, &image, &name, &PushOptions::default()).unwrap();
    assert_eq!(count(&events, "Start"), 3, "{events}");
    let manifest = seen_by_skopeo(&lab, &name);
    assert_eq!(manifest["mediaType"], OCI_MANIFEST);
    assert_eq!(manifest["annotations"], made.manifest["annotations"]);
    let kind = manifest["layers"][0]["mediaType"].as_str().unwrap();
    assert!(kind.ends_with("tar+gzip"), "{kind}");
    same_again(&name, &image, "arrives");

    // Once more, under another tag: nothing is sent, and the same manifest comes of it.
    let proxy = Proxy::start(&registry.address, usize::MAX, 0);
    let other = format!("{}/team/one:v2", proxy.address);
    let (again, _) = push(&lab, &image, &other, &PushOptions::default()).unwrap();
    assert_eq!(again, digest);
    let sent = proxy.bytes.load(Ordering::Relaxed);
    assert!(sent < 20_000, "{sent} bytes were sent");

    // By digest; and not by one that it does not have.
    let by = |digest: &Digest| format!("{}/team/one@{digest}", registry.address);
    push(&lab, &image, &by(&digest), &PushOptions::default()).unwrap();
    let wrong = Digest::sha256(b"other");
    let error = push(&lab, &image, &by(&wrong), &PushOptions::default()).unwrap_err();
    assert!(error.to_string().contains("digest mismatch"), "{error}");
}

#[test]
fn what_came_from_there_is_mounted() {
    if !real::tools() {
        return;
    }
    let lab = Lab::new();
    let registry = start(&lab, "", "");
    let (image, _) = loaded(&lab, &two_layers("mounted"));
    let first = format!("{}/a/first:1", registry.address);
    let (digest, _) = push(&lab, &image, &first, &PushOptions::default()).unwrap();
    let fresh = Lab::new();
    let pulled = fresh.pull(&first).unwrap();
    let second = format!("{}/b/second:1", registry.address);
    let (again, events) = push(&fresh, &pulled, &second, &PushOptions::default()).unwrap();
    assert_eq!(again, digest, "the manifest is the one that was pulled");
    assert_eq!(count(&events, "Exists"), 2, "{events}");
    same_again(&second, &image, "mounted");
    // Another compression is wanted: then they are made anew.
    let zstd = PushOptions {
        compression: Some(Compression::Zstd),
        ..PushOptions::default()
    };
    let (other, events) = push(&fresh, &pulled, &second, &zstd).unwrap();
    assert!(other != digest && count(&events, "Exists") == 0, "{events}");
}

#[test]
fn formats_and_compressions() {
    if !real::tools() {
        return;
    }
    let lab = Lab::new();
    let registry = start(&lab, "", "");
    let (image, _) = loaded(&lab, &two_layers("forms"));
    let cases = [
        (
            "zstd",
            None,
            Some(Compression::Zstd),
            None,
            OCI_MANIFEST,
            "tar+zstd",
        ),
        (
            "docker",
            Some(Format::Docker),
            None,
            None,
            DOCKER_MANIFEST,
            "tar.gzip",
        ),
        (
            "pieces",
            None,
            None,
            Some(100_000),
            OCI_MANIFEST,
            "tar+gzip",
        ),
        (
            "plain",
            None,
            Some(Compression::None),
            None,
            OCI_MANIFEST,
            "v1.tar",
        ),
    ];
    for (tag, format, compression, piece, media_type, ending) in cases {
        let options = PushOptions {
            format,
            compression,
            piece,
            ..PushOptions::default()
        };
        // A repository each: what is there is not sent again.
        let name = format!("{}/{tag}:latest", registry.address);
        push(&lab, &image, &name, &options).unwrap();
        let manifest = seen_by_skopeo(&lab, &name);
        assert_eq!(manifest["mediaType"], media_type, "{tag}");
        let kind = manifest["layers"][1]["mediaType"].as_str().unwrap();
        assert!(kind.ends_with(ending), "{tag}: {kind}");
        same_again(&name, &image, "forms");
    }
    let impossible = PushOptions {
        format: Some(Format::Docker),
        compression: Some(Compression::Zstd),
        ..PushOptions::default()
    };
    let name = format!("{}/x", registry.address);
    let error = push(&lab, &image, &name, &impossible).unwrap_err();
    assert!(error.to_string().contains("zstd"), "{error}");
}

#[test]
fn passwords_and_certificates() {
    if !real::tools() {
        return;
    }
    let lab = Lab::new();
    let certs = lab.path("certs");
    certificates(&certs);
    std::fs::write(lab.path("htpasswd"), HTPASSWD).unwrap();
    let at = |name: &str| certs.join(name).display().to_string();
    let registry = start(
        &lab,
        &format!(
            "  tls: {{certificate: {}, key: {}}}\n",
            at("server.crt"),
            at("server.key")
        ),
        &format!(
            "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            lab.path("htpasswd").display()
        ),
    );
    let (image, _) = loaded(&lab, &two_layers("secret"));
    let name = format!("{}/team/app:v1", registry.address);
    let with = |tls_verify, password: Option<&str>| {
        let registry = PullOptions {
            tls_verify,
            creds: password.map(|p| ("me".to_owned(), p.to_owned())),
            ..PullOptions::default()
        };
        let options = PushOptions {
            registry,
            ..PushOptions::default()
        };
        push(&lab, &image, &name, &options)
    };
    let error = with(None, Some("pw")).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    for wrong in [None, Some("no")] {
        let error = with(Some(false), wrong).unwrap_err();
        assert!(error.to_string().contains("unauthorized"), "{error}");
        assert!(error.hint().is_some());
    }
    with(Some(false), Some("pw")).unwrap();
    let reader = PullOptions {
        tls_verify: Some(false),
        creds: Some(("me".into(), "pw".into())),
        ..lab.options()
    };
    let fresh = Lab::new();
    let again = fresh
        .pull_with(&name, &reader, &Recorder::default())
        .unwrap();
    assert_eq!(again.id, image.id);
}

/// A proxy that cuts connections, the first `cuts` times, once a client has sent so much.
struct Proxy {
    address: String,
    /// How often it did.
    done: Arc<AtomicUsize>,
    /// What clients have sent.
    bytes: Arc<AtomicUsize>,
}

impl Proxy {
    fn start(to: &str, after: usize, cuts: usize) -> Proxy {
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
fn a_registry_that_is_not_there() {
    let lab = Lab::new();
    let (image, _) = loaded(&lab, &[tar(&[("a", b"b")])]);
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let name = format!("{free}/x:1");
    let error = push(&lab, &image, &name, &PushOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Target { .. }), "{text}");
    assert!(
        text.starts_with(&format!("copying image to docker://{name}: ")),
        "{text}"
    );
    assert!(text.contains("connection refused"), "{text}");
}

#[test]
fn what_umoci_unpacks_is_what_was_put_in() {
    if !real::have("umoci") {
        return;
    }
    let lab = Lab::new();
    let (image, _) = loaded(&lab, &two_layers("umoci"));
    let folder = lab.path("layout");
    let to = format!("oci:{}:one", folder.display());
    push(&lab, &image, &to, &PushOptions::default()).unwrap();
    let bundle = lab.path("bundle");
    let mut command = Command::new("umoci");
    command.arg("unpack");
    if !is_root() {
        command.arg("--rootless");
    }
    let image_arg = format!("{}:one", folder.display());
    let out = command
        .args(["--image", &image_arg])
        .arg(&bundle)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let root = bundle.join("rootfs");
    assert_eq!(std::fs::read(root.join("noise")).unwrap(), noise(700_000));
    assert!(!root.join("hello").exists(), "the second layer deletes it");
    assert_eq!(
        std::fs::metadata(root.join("zeros")).unwrap().len(),
        3_000_000
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
