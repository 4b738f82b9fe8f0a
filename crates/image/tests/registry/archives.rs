//! Archives: load and import.

use crate::fake::{Fake, Reply};
use crate::lab::*;
use rcon_image::{ImportOptions, LoadedImage, Reference, Result, Silent, Source};
use rcon_store::Digest;
use serde_json::{Value, json};
use std::path::Path;

fn load(lab: &Lab, path: &Path) -> Result<Vec<LoadedImage>> {
    rcon_image::load(&lab.store, &Source::Path(path.to_owned()), &Silent)
}

/// As `docker save` of old wrote it: folders, links, the contents last.
fn docker_archive(image: &Image, tags: Value, link: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    };
    let mut layers = Vec::new();
    for (i, blob) in image.blobs.iter().enumerate() {
        add(&format!("l{i}/layer.tar"), blob);
        layers.push(format!("l{i}/layer.tar"));
    }
    let config = format!("{}.json", Digest::sha256(&image.config).hex());
    add(&config, &image.config);
    if link {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder
            .append_link(&mut header, "again/layer.tar", "../l0/layer.tar")
            .unwrap();
        layers[0] = "again/layer.tar".to_owned();
    }
    let contents = json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]).to_string();
    let mut header = tar::Header::new_gnu();
    header.set_size(contents.len() as u64);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, "manifest.json", contents.as_bytes())
        .unwrap();
    builder.into_inner().unwrap()
}

fn two_layers() -> Image {
    let (a, b) = (tar(&[("a", b"1")]), tar(&[("b", b"2")]));
    Image::new(&[(a.clone(), a), (b.clone(), gzip(&b))])
}

#[test]
fn docker_archives() {
    let image = two_layers();
    let plain = docker_archive(&image, json!(["alpine:3", "quay.io/x/y:z"]), true);
    for (name, bytes) in [
        ("plain", plain.clone()),
        ("gz", gzip(&plain)),
        ("zst", zstd(&plain)),
    ] {
        let lab = Lab::new();
        let path = lab.path(name);
        std::fs::write(&path, bytes).unwrap();
        let loaded = load(&lab, &path).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(
            loaded[0].names,
            ["docker.io/library/alpine:3", "quay.io/x/y:z"]
        );
        assert_eq!(loaded[0].record.id, Digest::sha256(&image.config).hex());
        assert_eq!(lab.read(&loaded[0].record, 0, "a"), "1");
        assert_eq!(lab.read(&loaded[0].record, 1, "b"), "2");
        assert_eq!(load(&lab, &path).unwrap()[0].record.id, loaded[0].record.id);
        lab.assert_no_leftovers();
    }
    let lab = Lab::new();
    let path = lab.path("unnamed");
    std::fs::write(&path, docker_archive(&image, Value::Null, false)).unwrap();
    assert!(load(&lab, &path).unwrap()[0].names.is_empty());
}

/// The files of an OCI layout with these images and their annotations.
fn oci_files(images: &[(&Image, Value)]) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![(
        "oci-layout".to_owned(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    )];
    let mut entries = Vec::new();
    for (image, annotations) in images {
        let manifest = image.bytes();
        let mut entry = descriptor(OCI_MANIFEST, &manifest);
        if !annotations.is_null() {
            entry["annotations"] = annotations.clone();
        }
        entries.push(entry);
        for blob in image.blobs.iter().chain([&image.config, &manifest]) {
            files.push((
                format!("blobs/sha256/{}", Digest::sha256(blob).hex()),
                blob.clone(),
            ));
        }
    }
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    files.push(("index.json".to_owned(), index.to_string().into_bytes()));
    files
}

fn write_folder(dir: &Path, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

fn as_tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(n, c)| (n.as_str(), c.as_slice()))
        .collect();
    tar(&files)
}

#[test]
fn oci_archives_and_folders() {
    let (one, two) = (two_layers(), Image::small());
    let named = json!({ "org.opencontainers.image.ref.name": "web:v1" });
    let full = json!({ "io.containerd.image.name": "quay.io/a/b:c", "org.opencontainers.image.ref.name": "c" });
    let files = oci_files(&[(&one, named), (&two, full)]);
    let lab = Lab::new();
    let path = lab.path("oci.tar");
    std::fs::write(&path, gzip(&as_tar(&files))).unwrap();
    let loaded = load(&lab, &path).unwrap();
    let names: Vec<_> = loaded.iter().flat_map(|l| l.names.clone()).collect();
    assert_eq!(names, ["localhost/web:v1", "quay.io/a/b:c"]);
    assert_eq!(
        loaded[0].record.manifest_digest,
        Digest::sha256(&one.bytes())
    );
    assert_eq!(lab.read(&loaded[1].record, 0, "hello"), "world");

    let lab = Lab::new();
    let dir = lab.path("My.dir");
    write_folder(&dir, &oci_files(&[(&one, Value::Null)]));
    let loaded = load(&lab, &dir).unwrap();
    assert_eq!(loaded.len(), 1);
    assert!(
        loaded[0].names[0].starts_with("localhost/"),
        "{:?}",
        loaded[0].names
    );
    assert!(
        loaded[0].names[0].ends_with("my.dir:latest"),
        "{:?}",
        loaded[0].names
    );
}

#[test]
fn archives_that_lie_or_are_none() {
    let image = two_layers();
    let lab = Lab::new();
    let refuse = |name: &str, bytes: &[u8], words: &str| {
        let path = lab.path(name);
        std::fs::write(&path, bytes).unwrap();
        let text = load(&lab, &path).unwrap_err().to_string();
        assert!(text.contains(words), "{name}: {words:?} is not in {text:?}");
        // Layers that were whole may stay, for the next attempt.
        assert!(lab.store.images().unwrap().is_empty());
        lab.assert_no_leftovers();
    };
    refuse("empty", b"", "nothing in it");
    refuse(
        "text",
        b"hello world, this is no archive at all\n",
        "loading",
    );
    refuse("tar", &tar(&[("a", b"b")]), "neither manifest.json");
    refuse("xz", b"\xfd7zXZ\0rest of it", "xz is not supported");
    refuse("bz", b"BZh91AY&SYrest", "bzip2 is not supported");
    let whole = docker_archive(&image, json!(["x:1"]), false);
    refuse("cut", &whole[..1500], "loading");
    refuse("cutgz", &gzip(&whole)[..200], "loading");

    let mut files = oci_files(&[(&image, Value::Null)]);
    let layer = format!("blobs/sha256/{}", Digest::sha256(&image.blobs[1]).hex());
    let at = files.iter().position(|(n, _)| *n == layer).unwrap();
    *files[at].1.last_mut().unwrap() ^= 1;
    refuse("flip", &as_tar(&files), "copying layer");
    files.remove(at);
    refuse("missing", &as_tar(&files), "is missing");

    let escape =
        json!([{ "Config": "../../etc/passwd", "RepoTags": [], "Layers": [] }]).to_string();
    refuse(
        "escape",
        &tar(&[("manifest.json", escape.as_bytes())]),
        "../../etc/passwd is missing",
    );
    let gone = load(&lab, Path::new("/nonexistent/x"))
        .unwrap_err()
        .to_string();
    assert_eq!(gone, "opening /nonexistent/x: no such file or directory");
}

fn import(lab: &Lab, source: Source, opts: &ImportOptions) -> Result<rcon_store::ImageRecord> {
    rcon_image::import(&lab.store, &source, opts, &Silent)
}

#[test]
fn imports() {
    let lab = Lab::new();
    let plain = tar(&[("etc/motd", b"hi")]);
    let path = lab.path("root.tar.gz");
    std::fs::write(&path, gzip(&plain)).unwrap();
    let opts = ImportOptions {
        changes: vec![
            "CMD [\"/bin/sh\"]".into(),
            "ENV A=1".into(),
            "EXPOSE 80".into(),
        ],
        message: Some("made by hand".into()),
        name: Some(Reference::parse_local("web").unwrap()),
        platform: None,
    };
    let record = import(&lab, Source::Path(path), &opts).unwrap();
    assert_eq!(record.names, ["localhost/web:latest"]);
    assert_eq!(record.layers, [Digest::sha256(&plain)]);
    assert_eq!(lab.read(&record, 0, "etc/motd"), "hi");
    let config: Value = serde_json::from_slice(&record.config().unwrap()).unwrap();
    assert_eq!(config["config"]["Cmd"], json!(["/bin/sh"]));
    assert_eq!(config["config"]["Env"], json!(["A=1"]));
    assert_eq!(config["history"][0]["comment"], "made by hand");
    assert_eq!(config["os"], "linux");
    assert!(record.created.is_some());

    let bad = ImportOptions {
        changes: vec!["FOO bar".into()],
        ..ImportOptions::default()
    };
    let error = import(&lab, Source::Path("/nonexistent".into()), &bad).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid change \"FOO bar\": invalid instruction FOO"
    );
    let fresh = Lab::new();
    let text = fresh.path("text");
    std::fs::write(
        &text,
        "no tar, but long enough to be taken for one, if one is careless",
    )
    .unwrap();
    import(&fresh, Source::Path(text), &ImportOptions::default()).unwrap_err();
    fresh.assert_empty();
}

#[test]
fn imports_from_the_web() {
    let fake = Fake::start();
    fake.put("/files/root.tar.zst", "", &zstd(&tar(&[("x", b"y")])));
    fake.on_request(|request, reply| match request.path.as_str() {
        "/moved" => Reply::new(302, "").with("Location", "/files/root.tar.zst"),
        _ => reply,
    });
    let lab = Lab::new();
    let url = |path: &str| Source::parse(&format!("http://{}{path}", fake.address));
    let record = import(&lab, url("/moved"), &ImportOptions::default()).unwrap();
    assert_eq!(lab.read(&record, 0, "x"), "y");
    assert!(record.names.is_empty());
    let error = import(&lab, url("/gone"), &ImportOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("manifest unknown") || error.contains("404"),
        "{error}"
    );
}
