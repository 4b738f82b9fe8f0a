//! What must not work, and must leave nothing.

use crate::fake::{Fake, Reply};
use crate::lab::*;
use rcon_store::Digest;
use serde_json::json;
use std::time::{Duration, Instant};

/// Serve an image, change one thing, and see the pull refused with these words.
fn refused(image: &Image, change: impl FnOnce(&Fake), words: &[&str]) {
    let fake = Fake::start();
    image.serve(&fake, "x", "latest");
    change(&fake);
    let text = Lab::new().refused(&format!("{}/x", fake.address));
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[test]
fn content_that_is_not_what_it_should_be() {
    let image = Image::noisy(300_000);
    let path = image.blob_path("x", 0);
    let blob = &image.blobs[0];
    let kind = "application/octet-stream";

    let mut flipped = blob.clone();
    flipped[150_000] ^= 1;
    refused(
        &image,
        |f| f.put(&path, kind, &flipped),
        &["copying layer", "digest mismatch"],
    );
    // The very last bytes: the tar is whole before they come.
    let mut flipped = blob.clone();
    *flipped.last_mut().unwrap() ^= 1;
    refused(
        &image,
        |f| f.put(&path, kind, &flipped),
        &["digest mismatch"],
    );
    // Another layer that is fine by itself.
    let other = gzip(&tar(&[("evil", &noise(300_000))]));
    let mut other = other[..other.len().min(blob.len())].to_vec();
    other.resize(blob.len(), 0);
    refused(&image, |f| f.put(&path, kind, &other), &["digest mismatch"]);

    refused(
        &image,
        |f| f.put(&path, kind, &blob[..1000]),
        &["expected", "bytes, got 1000"],
    );
    let longer = [blob.as_slice(), b"more"].concat();
    refused(
        &image,
        |f| f.put(&path, kind, &longer),
        &["expected", "bytes, got"],
    );
    refused(&image, |f| f.remove(&path), &["blob unknown"]);
}

#[test]
fn a_configuration_that_lies_about_a_layer() {
    let blob = gzip(&tar(&[("x", b"y")]));
    let other = Digest::sha256(b"something else").to_string();
    let config = |ids: &[&str]| {
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": ids } })
            .to_string()
            .into_bytes()
    };
    let image = Image::of(config(&[&other]), vec![blob.clone()]);
    refused(&image, |_| {}, &["copying layer", other.as_str()]);
    let image = Image::of(config(&[]), vec![blob.clone()]);
    refused(&image, |_| {}, &["1 layers, the configuration 0"]);
    let image = Image::of(b"not json".to_vec(), vec![blob.clone()]);
    refused(&image, |_| {}, &["malformed configuration"]);
    let image = Image::of(config(&["sha256:../../../../etc"]), vec![blob]);
    refused(&image, |_| {}, &["malformed configuration"]);

    let image = Image::small();
    let path = format!("/v2/x/blobs/{}", Digest::sha256(&image.config));
    let swapped = String::from_utf8(image.config.clone())
        .unwrap()
        .replace("/bin/sh", "/bin/zh");
    refused(
        &image,
        |f| f.put(&path, "", swapped.as_bytes()),
        &["digest mismatch"],
    );
}

#[test]
fn layers_that_are_no_layers() {
    let broken =
        b"this is neither a tar nor anything else, but long enough for a header".repeat(20);
    refused(
        &Image::new(&[(broken.clone(), broken)]),
        |_| {},
        &["copying layer"],
    );
    let tar = tar(&[("x", b"y")]);
    for (magic, name) in [(&b"\xfd7zXZ\0"[..], "xz"), (b"BZh91AY", "bzip2")] {
        let image = Image::new(&[(tar.clone(), [magic, &tar].concat())]);
        refused(&image, |_| {}, &[name, "not supported"]);
    }
    let cut = gzip(&tar);
    let image = Image::new(&[(tar.clone(), cut[..cut.len() - 10].to_vec())]);
    refused(&image, |_| {}, &["copying layer"]);
}

#[test]
fn manifests_that_are_none() {
    let image = Image::small();
    let at = "/v2/x/manifests/latest";
    let put = |body: &str, words: &[&str]| {
        refused(&image, |f| f.put(at, OCI_MANIFEST, body.as_bytes()), words);
    };
    put("", &["reading manifest latest", "malformed"]);
    put("[1,2]", &["malformed"]);
    put(
        r#"{"schemaVersion":1,"fsLayers":[]}"#,
        &["schema 1", "no longer supported"],
    );
    put(
        r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#,
        &["same time"],
    );
    put(r#"{"schemaVersion":2,"manifests":[]}"#, &["other content"]);

    let mut many = image.manifest.clone();
    many["layers"] = vec![many["layers"][0].clone(); 10_000].into();
    put(&many.to_string(), &["more than an image can have"]);

    let mut encrypted = image.manifest.clone();
    encrypted["layers"][0]["mediaType"] =
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted".into();
    put(&encrypted.to_string(), &["encrypted"]);

    let mut chart = image.manifest.clone();
    chart["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
    put(&chart.to_string(), &["artifact"]);

    // By digest the bytes must be the ones asked for.
    let fake = Fake::start();
    image.serve(&fake, "x", "latest");
    let digest = Digest::sha256(b"other");
    fake.put(
        &format!("/v2/x/manifests/{digest}"),
        OCI_MANIFEST,
        &image.bytes(),
    );
    let text = Lab::new().refused(&format!("{}/x@{digest}", fake.address));
    assert!(text.contains("digest mismatch"), "{text}");
}

#[test]
fn indexes_without_an_end() {
    let fake = Fake::start();
    fake.on_request(|request, reply| {
        if !request.path.contains("/manifests/") {
            return reply;
        }
        // Any digest is answered with an index whose digest cannot be right.
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": OCI_INDEX, "digest": Digest::sha256(request.path.as_bytes()).to_string(),
            "size": 10, "platform": { "os": "linux", "architecture": "amd64" } }] });
        Reply::new(200, index.to_string()).with("Content-Type", OCI_INDEX)
    });
    let lab = Lab::new();
    let options = rcon_image::PullOptions {
        platform: Some(rcon_image::Platform::parse("linux/amd64").unwrap()),
        ..lab.options()
    };
    let name = format!("{}/x", fake.address);
    lab.pull_with(&name, &options, &Recorder::default())
        .unwrap_err();
    lab.assert_empty();
    assert!(fake.requests("/manifests/").len() < 6);
}

#[test]
fn things_too_large_to_hold() {
    let image = Image::small();
    let start = Instant::now();
    refused(
        &image,
        |f| {
            f.on_request(|request, reply| {
                if request.path.contains("/manifests/") {
                    return Reply::new(200, " ".repeat(1 << 20))
                        .with("Content-Length", "100000000");
                }
                reply
            });
        },
        &["larger than 4194304 bytes"],
    );
    let mut large = Image::small();
    large.manifest["config"]["size"] = 100_000_000.into();
    refused(&large, |_| {}, &["larger than 8388608 bytes"]);
    // Without a length, in pieces that never end.
    refused(
        &image,
        |f| f.put("/v2/x/manifests/latest", OCI_MANIFEST, &vec![b' '; 5 << 20]),
        &["larger than 4194304 bytes"],
    );
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn unknown_things_in_podmans_words() {
    let fake = Fake::start();
    Image::small().serve(&fake, "x", "latest");
    let lab = Lab::new();
    let name = format!("{}/nosuch:v1", fake.address);
    assert_eq!(
        lab.refused(&name),
        format!(
            "initializing source docker://{name}: reading manifest v1 in {}/nosuch: manifest unknown",
            fake.address
        )
    );
    let error = lab.pull(&name).unwrap_err();
    assert!(error.hint().unwrap().contains("check the name"));
    // A page instead of an answer.
    fake.on_request(|request, reply| match request.path.as_str() {
        "/v2/" => reply,
        _ => Reply::new(404, "<html>not here</html>"),
    });
    assert!(lab.refused(&name).ends_with("manifest unknown"));
    // Something that is no registry at all.
    fake.on_request(|_, _| Reply::new(404, "<html>"));
    let text = lab.refused(&name);
    assert!(
        text.contains("pinging container registry") && text.contains("404 Not Found"),
        "{text}"
    );
    // Nobody.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let start = Instant::now();
    let text = lab.refused(&format!("{free}/x"));
    assert!(text.starts_with(&format!("initializing source docker://{free}/x:latest: pinging container registry {free}: connection refused")), "{text}");
    assert!(start.elapsed() < Duration::from_secs(2));
    let text = lab.refused("127.0.0.1:99999/x");
    assert!(text.contains("invalid port"), "{text}");
    let text = lab.refused("host.invalid/x");
    assert!(text.contains("lookup host.invalid: "), "{text}");
}

#[test]
fn redirects_carry_no_credentials_and_lead_nowhere_odd() {
    let image = Image::small();
    let path = image.blob_path("x", 0);
    let registry = Fake::start();
    let elsewhere = Fake::start();
    image.serve(&registry, "x", "latest");
    elsewhere.put("/cdn/blob", "", &image.blobs[0]);
    let target = format!("http://{}/cdn/blob?sig=secret", elsewhere.address);
    let at = path.clone();
    registry.on_request(move |request, reply| {
        if request.header("authorization").is_none() {
            return Reply::error(401, "UNAUTHORIZED", "authentication required")
                .with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        if request.path == at {
            return Reply::new(307, "").with("Location", &target);
        }
        reply
    });
    let lab = Lab::new();
    let options = rcon_image::PullOptions {
        creds: Some(("me".into(), "pw".into())),
        ..lab.options()
    };
    let name = format!("{}/x", registry.address);
    lab.pull_with(&name, &options, &Recorder::default())
        .unwrap();
    let requests = elsewhere.requests("/cdn/");
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("authorization"), None);
    assert_eq!(
        registry.requests(&path)[0].header("authorization"),
        Some("Basic bWU6cHc=")
    );

    for (location, why) in [
        (
            "http://169.254.169.254/latest/meta-data",
            "no registry has business there",
        ),
        ("file:///etc/passwd", "it is not HTTP"),
        ("gopher://x/", "it is not HTTP"),
        ("", "redirects"),
    ] {
        refused(
            &image,
            |f| {
                let (at, location) = (path.clone(), location.to_owned());
                f.on_request(move |request, reply| match request.path == at {
                    true => Reply::new(302, "").with("Location", &location),
                    false => reply,
                });
            },
            &[why],
        );
    }
}

#[test]
fn foreign_layers_are_not_fetched_from_where_they_say() {
    let elsewhere = Fake::start();
    let mut image = Image::small();
    image.manifest["layers"][0]["urls"] = json!([format!("http://{}/layer", elsewhere.address)]);
    elsewhere.put("/layer", "", &image.blobs[0]);
    let path = image.blob_path("x", 0);
    refused(&image, |f| f.remove(&path), &["blob unknown"]);
    assert!(elsewhere.requests("").is_empty());
}

#[test]
fn tags_that_are_none() {
    let fake = Fake::start();
    fake.on_request(
        |request, reply| match request.path.ends_with("/tags/list") {
            true => Reply::new(200, r#"{"tags":["a","b\u001b[31m"]}"#),
            false => reply,
        },
    );
    let lab = Lab::new();
    let name = format!("{}/x", fake.address);
    let seen = Recorder::default();
    let error = rcon_image::pull_all_tags(&lab.store, &name, &lab.options(), &seen).unwrap_err();
    assert!(error.to_string().contains("not a valid tag"), "{error}");
}

#[test]
fn lists_of_tags_without_an_end() {
    let fake = Fake::start();
    fake.on_request(
        |request, reply| match request.path.ends_with("/tags/list") {
            true => {
                let n = request.before;
                Reply::new(200, r#"{"tags":[]}"#)
                    .with("Link", &format!("</v2/x/tags/list?page={n}>; rel=\"next\""))
            }
            false => reply,
        },
    );
    let lab = Lab::new();
    let name = format!("{}/x", fake.address);
    let seen = Recorder::default();
    let error = rcon_image::pull_all_tags(&lab.store, &name, &lab.options(), &seen).unwrap_err();
    assert!(error.to_string().contains("more than 200 pages"), "{error}");
}
