//! What works.

use crate::fake::Fake;
use crate::lab::*;
use rcon_image::{Platform, PullOptions};
use rcon_store::Digest;
use serde_json::json;

#[test]
fn every_compression_and_both_kinds_of_manifest() {
    let (a, b, c) = (
        tar(&[("a", b"gzip")]),
        tar(&[("b", b"zstd")]),
        tar(&[("c", b"plain")]),
    );
    let mut image = Image::new(&[
        (a.clone(), gzip(&a)),
        (b.clone(), zstd(&b)),
        (c.clone(), c.clone()),
    ]);
    let fake = Fake::start();
    image.serve(&fake, "team/app", "v1");
    let lab = Lab::new();
    let name = format!("{}/team/app:v1", fake.address);
    let record = lab.pull(&name).unwrap();
    assert_eq!(record.names, [name]);
    assert_eq!(record.id, Digest::sha256(&image.config).hex());
    let manifest = Digest::sha256(&image.bytes());
    assert_eq!(
        record.repo_digests,
        [format!("{}/team/app@{manifest}", fake.address)]
    );
    assert_eq!(lab.read(&record, 0, "a"), "gzip");
    assert_eq!(lab.read(&record, 1, "b"), "zstd");
    assert_eq!(lab.read(&record, 2, "c"), "plain");
    lab.assert_no_leftovers();

    // The same as Docker's kind: the image is the same, so is its id, no layer is fetched again.
    image.media_type = DOCKER_MANIFEST.to_owned();
    image.manifest["mediaType"] = DOCKER_MANIFEST.into();
    image.serve(&fake, "team/app", "v2");
    let before = fake.requests("/blobs/").len();
    let again = lab.pull(&format!("{}/team/app:v2", fake.address)).unwrap();
    assert_eq!(again.id, record.id);
    assert_eq!(again.names.len(), 2);
    assert_eq!(
        fake.requests("/blobs/").len(),
        before + 1,
        "only the configuration"
    );
}

#[test]
fn an_index_by_platform() {
    let fake = Fake::start();
    let mut entries = Vec::new();
    let mut images = Vec::new();
    for arch in ["arm64", "amd64"] {
        let tar = tar(&[("arch", arch.as_bytes())]);
        let packed = gzip(&tar);
        let image = Image::for_platform(arch, &[(tar, packed)]);
        image.serve(&fake, "multi", arch);
        let mut entry = descriptor(OCI_MANIFEST, &image.bytes());
        entry["platform"] = json!({ "os": "linux", "architecture": arch });
        entries.push(entry);
        images.push(image);
    }
    let index = |kind: &str, entries: &[serde_json::Value]| {
        let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries });
        index.to_string().into_bytes()
    };
    let (oci, docker) = (index(OCI_INDEX, &entries), index(DOCKER_LIST, &entries));
    fake.put("/v2/multi/manifests/oci", OCI_INDEX, &oci);
    fake.put("/v2/multi/manifests/docker", DOCKER_LIST, &docker);
    fake.put(
        &format!("/v2/multi/manifests/{}", Digest::sha256(&oci)),
        OCI_INDEX,
        &oci,
    );
    // An index in an index, as some tools write it.
    let nested = index(OCI_INDEX, &[descriptor(OCI_INDEX, &oci)]);
    fake.put("/v2/multi/manifests/nested", OCI_INDEX, &nested);

    for tag in ["oci", "docker", "nested"] {
        for arch in ["arm64", "amd64"] {
            let lab = Lab::new();
            let options = PullOptions {
                platform: Some(Platform::parse(&format!("linux/{arch}")).unwrap()),
                ..lab.options()
            };
            let name = format!("{}/multi:{tag}", fake.address);
            let record = lab
                .pull_with(&name, &options, &Recorder::default())
                .unwrap();
            assert_eq!(lab.read(&record, 0, "arch"), arch, "{tag}");
            assert_eq!(
                record.repo_digests.len(),
                if tag == "nested" { 3 } else { 2 }
            );
        }
    }
    let lab = Lab::new();
    let options = PullOptions {
        platform: Some(Platform::parse("linux/riscv64").unwrap()),
        ..lab.options()
    };
    let name = format!("{}/multi:oci", fake.address);
    let error = lab
        .pull_with(&name, &options, &Recorder::default())
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("no image found in manifest list for platform linux/riscv64"),
        "{text}"
    );
    assert!(text.contains("linux/arm64, linux/amd64"), "{text}");
    assert!(error.hint().unwrap().contains("--platform"));
    lab.assert_empty();
}

#[test]
fn another_platform_is_a_warning() {
    let fake = Fake::start();
    let other = if cfg!(target_arch = "aarch64") {
        "amd64"
    } else {
        "arm64"
    };
    let tar = tar(&[("x", b"y")]);
    Image::for_platform(other, &[(tar.clone(), tar)]).serve(&fake, "x", "latest");
    let lab = Lab::new();
    let seen = Recorder::default();
    lab.pull_with(&format!("{}/x", fake.address), &lab.options(), &seen)
        .unwrap();
    assert!(
        seen.text().contains("does not match the expected platform"),
        "{}",
        seen.text()
    );
}

#[test]
fn by_digest_and_by_both() {
    let fake = Fake::start();
    let image = Image::small();
    image.serve(&fake, "x", "v1");
    let digest = Digest::sha256(&image.bytes());
    let lab = Lab::new();
    let record = lab.pull(&format!("{}/x@{digest}", fake.address)).unwrap();
    assert!(record.names.is_empty());
    assert_eq!(
        record.repo_digests,
        [format!("{}/x@{digest}", fake.address)]
    );
    // With both the tag is forgotten, as podman does.
    lab.pull(&format!("docker://{}/x:nosuch@{digest}", fake.address))
        .unwrap();
    assert!(fake.requests("nosuch").is_empty());
}

#[test]
fn the_same_layer_twice_is_fetched_once() {
    let fake = Fake::start();
    let layer = tar(&[("x", b"y")]);
    let packed = gzip(&layer);
    let image = Image::new(&[(layer.clone(), packed.clone()), (layer, packed)]);
    image.serve(&fake, "x", "latest");
    let lab = Lab::new();
    let record = lab.pull(&format!("{}/x", fake.address)).unwrap();
    assert_eq!(record.layers.len(), 2);
    assert_eq!(fake.requests(&image.blob_path("x", 0)).len(), 1);
}

#[test]
fn many_layers_at_once_and_an_image_without_any() {
    let fake = Fake::start();
    let layers: Vec<_> = (0..40)
        .map(|i| {
            let tar = tar(&[(&format!("f{i}"), &noise(3000 * (i % 7)))]);
            let packed = if i % 2 == 0 { gzip(&tar) } else { zstd(&tar) };
            (tar, packed)
        })
        .collect();
    Image::new(&layers).serve(&fake, "many", "latest");
    Image::new(&[]).serve(&fake, "none", "latest");
    let lab = Lab::new();
    assert_eq!(
        lab.pull(&format!("{}/many", fake.address))
            .unwrap()
            .layers
            .len(),
        40
    );
    assert_eq!(
        lab.pull(&format!("{}/none", fake.address))
            .unwrap()
            .layers
            .len(),
        0
    );
    lab.assert_no_leftovers();
}

#[test]
fn all_tags_over_several_pages() {
    let fake = Fake::start();
    for tag in ["a", "b", "c"] {
        Image::small().serve(&fake, "x", tag);
    }
    fake.on_request(|request, reply| {
        if request.path != "/v2/x/tags/list" {
            return reply;
        }
        use crate::fake::Reply;
        if request.query.is_empty() {
            Reply::new(200, r#"{"name":"x","tags":["a","b"]}"#)
                .with("Link", "</v2/x/tags/list?last=b>; rel=\"next\"")
        } else {
            Reply::new(200, r#"{"name":"x","tags":["c"]}"#)
        }
    });
    let lab = Lab::new();
    let name = format!("{}/x", fake.address);
    let records =
        rcon_image::pull_all_tags(&lab.store, &name, &lab.options(), &Recorder::default()).unwrap();
    assert_eq!(records.len(), 3);
    assert_eq!(records[2].names.len(), 3);
}

#[test]
fn local_names() {
    let fake = Fake::start();
    Image::small().serve(&fake, "team/app", "v1");
    let lab = Lab::new();
    let record = lab.pull(&format!("{}/team/app:v1", fake.address)).unwrap();
    let digest = &record.manifest_digest;
    let find = |name: &str| {
        rcon_image::find_local(&lab.store, name)
            .unwrap()
            .map(|r| r.id)
    };
    let here = Some(record.id.clone());
    assert_eq!(find(&format!("{}/team/app:v1", fake.address)), here);
    assert_eq!(
        find(&format!("docker://{}/team/app:v1", fake.address)),
        here
    );
    assert_eq!(find(&format!("{}/team/app@{digest}", fake.address)), here);
    assert_eq!(find("team/app:v1"), here);
    assert_eq!(find("app:v1"), here);
    assert_eq!(find(&record.id), here);
    assert_eq!(find(&record.id[..12]), here);
    assert_eq!(find(&format!("sha256:{}", &record.id[..6])), here);
    assert_eq!(find("app"), None);
    assert_eq!(find("pp:v1"), None);
    assert_eq!(find("docker.io/team/app:v1"), None);
    assert!(rcon_image::find_local(&lab.store, "a b").is_err());

    lab.store.tag(&record.id, "localhost/web:latest").unwrap();
    lab.store
        .tag(&record.id, "docker.io/library/hub:latest")
        .unwrap();
    assert_eq!(find("web"), here);
    assert_eq!(find("hub"), here);
    assert_eq!(find("library/hub"), here);
}
