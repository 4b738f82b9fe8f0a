//! Saving: what is written is loaded again, here and by skopeo.

use crate::lab::*;
use crate::push::{loaded, two_layers};
use crate::real::{self, skopeo};
use rcon_image::out::{Destination, Output};
use rcon_image::{Reference, Result, SaveOptions, SavedImage, Source};
use rcon_store::{Compression, Digest, ImageRecord};
use serde_json::Value;
use std::path::Path;

fn image(record: &ImageRecord, names: &[&str]) -> SavedImage {
    let name = |name: &&str| Reference::parse(name).unwrap();
    SavedImage {
        id: record.id.clone(),
        manifest: None,
        names: names.iter().map(name).collect(),
    }
}

fn save(lab: &Lab, images: &[SavedImage], to: &Destination) -> Result<Digest> {
    let options = SaveOptions::default();
    let digest = rcon_image::save(&lab.store, images, to, &options, &Recorder::default())?;
    lab.assert_no_leftovers();
    Ok(digest)
}

fn load(path: &Path) -> (Lab, Vec<rcon_image::LoadedImage>) {
    let lab = Lab::new();
    let source = Source::Path(path.to_owned());
    let loaded = rcon_image::load(&lab.store, &source, &Recorder::default()).unwrap();
    (lab, loaded)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

const NAMES: [&str; 2] = ["quay.io/team/one:v1", "quay.io/team/one:v2"];

#[test]
fn archives_come_back() {
    let lab = Lab::new();
    let (record, _) = loaded(&lab, &two_layers("saved"));
    let path = lab.path("image.tar");
    let output = || Output::Path(path.clone());
    for to in [
        Destination::DockerArchive(output(), None),
        Destination::OciArchive(output(), None),
    ] {
        // The second replaces the first.
        save(&lab, &[image(&record, &NAMES)], &to).unwrap();
        let (fresh, again) = load(&path);
        let names: Vec<_> = again.iter().flat_map(|i| i.names.clone()).collect();
        assert_eq!(names, NAMES, "{to:?}");
        let first = &again[0].record;
        assert_eq!((&first.id, &first.layers), (&record.id, &record.layers));
        assert_eq!(fresh.read(first, 0, "hello"), "saved");
    }
    // Nothing beside it.
    let left: Vec<_> = std::fs::read_dir(lab.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn several_images_share_their_layers() {
    let lab = Lab::new();
    let layers = two_layers("shared");
    let (one, _) = loaded(&lab, &layers);
    let (two, _) = loaded(&lab, &layers[..1]);
    let path = lab.path("both.tar");
    let images = [image(&one, &NAMES[..1]), image(&two, &NAMES[1..])];
    let to = Destination::DockerArchive(Output::Path(path.clone()), None);
    save(&lab, &images, &to).unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    let all: usize = layers.iter().map(Vec::len).sum();
    assert!(size < all as u64 + 20_000, "{size} bytes for {all}");
    let (_, again) = load(&path);
    let ids: Vec<_> = again.iter().map(|i| i.record.id.clone()).collect();
    assert_eq!(ids, [one.id, two.id]);
    // The same again are the same bytes.
    let bytes = std::fs::read(&path).unwrap();
    save(&lab, &images, &to).unwrap();
    assert!(bytes == std::fs::read(&path).unwrap());
}

#[test]
fn folders_keep_what_they_have() {
    let lab = Lab::new();
    let (one, _) = loaded(&lab, &two_layers("one"));
    let (two, _) = loaded(&lab, &two_layers("two"));
    let folder = lab.path("layout");
    let to = Destination::Oci(folder.clone(), None);
    for (record, name) in [(&one, NAMES[0]), (&two, NAMES[1]), (&two, NAMES[0])] {
        save(&lab, &[image(record, &[name])], &to).unwrap();
    }
    let index = json(&folder.join("index.json"));
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "{index:#}");
    assert_eq!(entries[0]["digest"], entries[1]["digest"]);
    // What is no image is left alone.
    let other = lab.path("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("diary"), "secret").unwrap();
    for to in [
        Destination::Oci(other.clone(), None),
        Destination::Dir(other.clone()),
    ] {
        let error = save(&lab, &[image(&one, &[])], &to)
            .unwrap_err()
            .to_string();
        assert!(error.contains("left alone"), "{error}");
    }
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1);
}

#[test]
fn skopeo_takes_all_forms() {
    if !real::have("skopeo") {
        return;
    }
    let lab = Lab::new();
    let (record, made) = loaded(&lab, &two_layers("skopeo"));
    let at = |name: &str| lab.path(name);
    let forms = [
        (
            "docker-archive",
            Destination::DockerArchive(Output::Path(at("d")), None),
        ),
        (
            "oci-archive",
            Destination::OciArchive(Output::Path(at("o")), None),
        ),
        ("oci", Destination::Oci(at("l"), None)),
        ("dir", Destination::Dir(at("f"))),
    ];
    for (transport, to) in forms {
        let path = match &to {
            Destination::DockerArchive(Output::Path(path), _)
            | Destination::OciArchive(Output::Path(path), _)
            | Destination::Oci(path, _)
            | Destination::Dir(path) => path.display().to_string(),
            other => panic!("{other:?}"),
        };
        save(&lab, &[image(&record, &NAMES[..1])], &to).unwrap();
        let out = at(&format!("seen-{transport}"));
        skopeo(
            &lab,
            &[
                &format!("{transport}:{path}"),
                &format!("dir:{}", out.display()),
            ],
        );
        let manifest = json(&out.join("manifest.json"));
        let config = manifest["config"]["digest"].as_str().unwrap();
        assert_eq!(
            config,
            Digest::sha256(&made.config).to_string(),
            "{transport}"
        );
    }
}

#[test]
fn failures_leave_nothing() {
    let lab = Lab::new();
    let (record, _) = loaded(&lab, &two_layers("lost"));
    let path = lab.path("image.tar");
    std::fs::write(&path, "what was there").unwrap();
    let to = Destination::DockerArchive(Output::Path(path.clone()), None);
    let file = lab.store.layer_dir(&record.layers[0]).join("hello");
    std::fs::write(file, "lied").unwrap();
    let error = save(&lab, &[image(&record, &[])], &to).unwrap_err();
    assert!(
        error.to_string().contains("cannot be made again"),
        "{error}"
    );
    assert!(error.hint().is_some());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "what was there");
    assert_eq!(std::fs::read_dir(lab.dir.path()).unwrap().count(), 2);
    let nowhere = Destination::DockerArchive(Output::Path("/nonexistent/x".into()), None);
    let error = save(&lab, &[image(&record, &[])], &nowhere).unwrap_err();
    assert_eq!(
        error.to_string(),
        "writing /nonexistent/x: no such file or directory"
    );
    let full = Destination::OciArchive(Output::Path("/dev/full".into()), None);
    let (small, _) = loaded(&lab, &[tar(&[("a", b"b")])]);
    let error = save(&lab, &[image(&small, &[])], &full).unwrap_err();
    assert_eq!(
        error.to_string(),
        "writing /dev/full: no space left on device"
    );
    let wrong = SaveOptions {
        compression: Some(Compression::Gzip),
        level: Some(42),
        ..SaveOptions::default()
    };
    let to = Destination::Dir(lab.path("never"));
    rcon_image::save(
        &lab.store,
        &[image(&small, &[])],
        &to,
        &wrong,
        &Recorder::default(),
    )
    .unwrap_err();
    assert!(!lab.path("never").exists());
}
