//! Pushing to Debian's docker-registry; what arrives is judged by skopeo and by a fresh pull.

use crate::lab::*;
use crate::push_cut::Proxy;
use crate::real::{self, HTPASSWD, certificates, skopeo, start};
use rcon_image::out::{Destination, Format};
use rcon_image::{Error, Patience, PullOptions, PushOptions, Result, Source};
use rcon_store::{Compression, Digest, ImageRecord};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;
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

pub fn push(
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
pub fn count(events: &str, what: &str) -> usize {
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
pub fn same_again(name: &str, image: &ImageRecord, mark: &str) {
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
