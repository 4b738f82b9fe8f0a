//! A store as its users see it: images, names, layers, containers, and who keeps what.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Barrier;

use rcon_store::{Digest, Error, ImageRecord, NewImage, Removal, Store};
use rcon_sys::ids::IdMaps;

fn open(root: &Path) -> Store {
    Store::open(root, &IdMaps::single()).unwrap()
}

/// An archive with one file.
fn archive(name: &str, text: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, name, text.as_bytes())
        .unwrap();
    builder.into_inner().unwrap()
}

fn add_layer(store: &Store, name: &str) -> Digest {
    let tar = archive(name, name);
    let digest = Digest::sha256(&tar);
    let mut stage = store.stage_layer().unwrap();
    stage.unpack(&tar[..]).unwrap();
    stage.commit(&digest).unwrap();
    digest
}

fn image(tag: &str, layers: &[Digest], names: &[&str]) -> NewImage {
    let config = serde_json::json!({
        "created": "2026-01-02T03:04:05.5Z",
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"tag": tag}},
        "rootfs": {"type": "layers", "diff_ids": layers},
    });
    NewImage {
        manifest: tag.as_bytes().to_vec(),
        manifest_digest: Digest::sha256(tag.as_bytes()),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        config: serde_json::to_vec(&config).unwrap(),
        layers: layers.to_vec(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        repo_digests: Vec::new(),
    }
}

fn names(record: &ImageRecord) -> BTreeSet<&str> {
    record.names.iter().map(String::as_str).collect()
}

fn is_tmp_empty(root: &Path) -> bool {
    fs::read_dir(root.join("tmp")).unwrap().count() == 0
}

#[test]
fn an_image_is_found_by_all_its_names() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let layers = [add_layer(&store, "one"), add_layer(&store, "two")];
    let mut new = image("a", &layers, &["docker.io/library/a:1", "localhost/a:x"]);
    let by_digest = format!("docker.io/library/a@{}", new.manifest_digest);
    new.repo_digests.push(by_digest.clone());
    let record = store.put_image(new.clone()).unwrap();
    assert_eq!(record.id, Digest::sha256(&new.config).hex());
    assert_eq!(record.config().unwrap(), new.config);
    assert_eq!(record.manifest().unwrap(), new.manifest);
    assert_eq!(record.created.unwrap().timestamp_subsec_millis(), 500);
    assert_eq!(record.platform.architecture, "amd64");
    let tars = (archive("one", "one").len() + archive("two", "two").len()) as u64;
    assert_eq!(
        record.size,
        tars + (new.config.len() + new.manifest.len()) as u64
    );
    for found in [
        store.image_by_name("docker.io/library/a:1"),
        store.image_by_name("localhost/a:x"),
        store.image_by_name(&by_digest),
        store.image_by_id(&record.id),
        store.image_by_id(&format!("sha256:{}", record.id)),
        store.image_by_prefix(&record.id[..3]),
    ] {
        let found = found.unwrap().unwrap();
        assert_eq!(found.id, record.id);
        assert_eq!(found.names, new.names);
        assert_eq!(found.config().unwrap(), new.config);
    }
    for unknown in ["a", "docker.io/library/a:2", "", "../images"] {
        assert!(store.image_by_name(unknown).unwrap().is_none());
        assert!(store.image_by_id(unknown).unwrap().is_none());
    }
    assert!(store.image_by_prefix("").unwrap().is_none());
    assert!(store.image_by_prefix("xyz").unwrap().is_none());
    assert!(is_tmp_empty(temp.path()));
}

#[test]
fn short_ids_may_be_ambiguous() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    // With 17 images two share their first digit.
    for n in 0..17 {
        store.put_image(image(&n.to_string(), &[], &[])).unwrap();
    }
    assert_eq!(store.images().unwrap().len(), 17);
    let errors = (0..16)
        .filter(|digit| {
            matches!(
                store.image_by_prefix(&format!("{digit:x}")),
                Err(Error::Ambiguous { count: 2.., .. })
            )
        })
        .count();
    assert!(errors >= 1);
}

#[test]
fn a_name_belongs_to_one_image() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let one = store.put_image(image("one", &[], &["x:1", "x:2"])).unwrap();
    let two = store.put_image(image("two", &[], &["x:1"])).unwrap();
    let now = |id: &str| store.image_by_id(id).unwrap().unwrap();
    assert_eq!(names(&now(&one.id)), ["x:2"].into());
    assert_eq!(names(&now(&two.id)), ["x:1"].into());
    store.tag(&two.id, "x:2").unwrap();
    store.tag(&two.id, "x:2").unwrap();
    assert_eq!(names(&now(&one.id)), [].into());
    assert_eq!(names(&now(&two.id)), ["x:1", "x:2"].into());
    store.untag(&two.id, "x:1").unwrap();
    assert!(store.image_by_name("x:1").unwrap().is_none());
    assert_eq!(names(&now(&two.id)), ["x:2"].into());
    // Put again it has more names, not fewer.
    store.put_image(image("two", &[], &["x:3"])).unwrap();
    assert_eq!(names(&now(&two.id)), ["x:2", "x:3"].into());
    let unknown = "0".repeat(64);
    assert!(matches!(
        store.tag(&unknown, "y"),
        Err(Error::NoSuchImage(_))
    ));
    assert!(store.image_by_name("y").unwrap().is_none());
}

#[test]
fn a_name_that_was_given_away_is_not_taken_back() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let one = store.put_image(image("one", &[], &["x:1"])).unwrap();
    let record = temp.path().join("images").join(&one.id).join("record.json");
    let before = fs::read(&record).unwrap();
    let two = store.put_image(image("two", &[], &["x:1"])).unwrap();
    // As after a death before the name was taken from the record of the first.
    fs::write(&record, before).unwrap();
    let named = |name: &str| store.image_by_name(name).unwrap().unwrap().id;
    assert_eq!(named("x:1"), two.id);
    store.tag(&one.id, "x:2").unwrap();
    assert_eq!((named("x:1"), named("x:2")), (two.id, one.id));
}

#[test]
fn layers_of_other_ids_are_told_from_missing_ones() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let layer = add_layer(&store, "a");
    let image = store.put_image(image("x", &[layer], &["x"])).unwrap();
    let mut maps = IdMaps::single();
    maps.method = rcon_sys::ids::MapMethod::Direct;
    (maps.uid[0].len, maps.gid[0].len) = (2, 2);
    let other = Store::open(temp.path(), &maps).unwrap();
    assert!(matches!(
        other.create_snapshot("c", &image),
        Err(Error::OtherIds)
    ));
    std::fs::remove_dir_all(temp.path().join("layers")).unwrap();
    assert!(matches!(
        other.create_snapshot("c", &image),
        Err(Error::LayerMissing(_))
    ));
}

#[test]
fn images_that_are_not_right_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let layer = add_layer(&store, "a");
    let gone = Digest::sha256(b"gone");
    assert!(matches!(
        store.put_image(image("x", std::slice::from_ref(&gone), &["x"])),
        Err(Error::LayerMissing(digest)) if digest == gone
    ));
    let mut swapped = image("x", std::slice::from_ref(&layer), &["x"]);
    swapped.layers = vec![];
    assert!(matches!(
        store.put_image(swapped),
        Err(Error::BadJson { .. })
    ));
    let mut garbled = image("x", &[layer], &["x"]);
    garbled.config = b"{".to_vec();
    assert!(matches!(
        store.put_image(garbled),
        Err(Error::BadJson { .. })
    ));
    assert!(store.images().unwrap().is_empty());
    assert!(store.image_by_name("x").unwrap().is_none());
}

#[test]
fn layers_must_have_their_digest() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let wrong = Digest::sha256(b"other");
    let mut stage = store.stage_layer().unwrap();
    stage.unpack(&archive("a", "a")[..]).unwrap();
    assert!(matches!(
        stage.commit(&wrong),
        Err(Error::DigestMismatch { .. })
    ));
    assert!(!store.has_layer(&wrong));
    assert!(store.stage_layer().unwrap().commit(&wrong).is_err());
    assert!(is_tmp_empty(temp.path()));
}

#[test]
fn layers_go_with_their_last_user() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let [base, one, two] = ["base", "one", "two"].map(|name| add_layer(&store, name));
    let first = store
        .put_image(image("1", &[base.clone(), one.clone()], &["a:1"]))
        .unwrap();
    let second = store
        .put_image(image("2", &[base.clone(), two.clone()], &["a:2"]))
        .unwrap();
    store.create_snapshot("c1", &second).unwrap();
    let removed = store.remove_image(&first.id).unwrap();
    assert_eq!(removed.collected.layers, std::slice::from_ref(&one));
    assert!(!store.has_layer(&one) && store.has_layer(&base));
    assert!(store.image_by_name("a:1").unwrap().is_none());
    assert!(matches!(
        store.remove_image(&first.id),
        Err(Error::NoSuchImage(_))
    ));
    // The container keeps what its image leaves behind.
    let removed = store.remove_image(&second.id).unwrap();
    assert!(removed.collected.layers.is_empty());
    assert!(store.has_layer(&base) && store.has_layer(&two));
    assert_eq!(store.remove_snapshot("c1").unwrap(), Removal::Whole);
    assert_eq!(store.collect_all_layers().unwrap().layers.len(), 2);
    assert!(!store.has_layer(&base));
    assert!(is_tmp_empty(temp.path()));
}

#[test]
fn a_layer_that_is_held_stays() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let tar = archive("a", "a");
    let digest = Digest::sha256(&tar);
    let mut stage = store.stage_layer().unwrap();
    stage.unpack(&tar[..]).unwrap();
    let hold = stage.commit(&digest).unwrap();
    assert_eq!(hold.meta().size, tar.len() as u64);
    assert!(store.collect_all_layers().unwrap().layers.is_empty());
    let second = store.hold_layer(&digest).unwrap().unwrap();
    drop(hold);
    assert!(store.collect_all_layers().unwrap().layers.is_empty());
    drop(second);
    assert_eq!(store.collect_all_layers().unwrap().layers.len(), 1);
    assert!(store.hold_layer(&digest).unwrap().is_none());
}

#[test]
fn a_layer_from_before_a_power_cut_does_not_count() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let digest = add_layer(&store, "a");
    assert!(store.has_layer(&digest));
    let dir = store.layer_dir(&digest);
    let meta = dir.parent().unwrap().join("meta.json");
    let text = fs::read_to_string(&meta).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["boot"] = "another".into();
    fs::write(&meta, value.to_string()).unwrap();
    fs::write(dir.join("a"), "half").unwrap();
    assert!(!store.has_layer(&digest) && store.hold_layer(&digest).unwrap().is_none());
    add_layer(&store, "a");
    assert!(store.has_layer(&digest));
    assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "a");
    // Once an image has it, it is on disk and counts after any boot.
    store
        .put_image(image("i", std::slice::from_ref(&digest), &[]))
        .unwrap();
    fs::write(&meta, value.to_string()).unwrap();
    assert!(store.has_layer(&digest));
    assert!(is_tmp_empty(temp.path()));
}

#[test]
fn containers_have_directories_of_their_own() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let layers = [add_layer(&store, "low"), add_layer(&store, "high")];
    let record = store.put_image(image("i", &layers, &["i:1"])).unwrap();
    let snapshot = store.create_snapshot("c1", &record).unwrap();
    assert_eq!(store.snapshot("c1").unwrap().as_ref(), Some(&snapshot));
    assert!(snapshot.lower[0].join("high").exists() && snapshot.lower[1].join("low").exists());
    for dir in [&snapshot.upper, &snapshot.work, &snapshot.merged] {
        assert!(dir.is_dir());
    }
    assert!(matches!(
        store.create_snapshot("c1", &record),
        Err(Error::SnapshotExists(_))
    ));
    for bad in ["", ".", "..", "a/b", ".hidden", "a\0b"] {
        assert!(matches!(
            store.create_snapshot(bad, &record),
            Err(Error::BadSnapshotName(_))
        ));
    }
    fs::write(snapshot.upper.join("file"), "12345").unwrap();
    assert_eq!(store.snapshot_size("c1").unwrap().bytes, 5);
    let uses = store.snapshots().unwrap();
    assert_eq!((uses.len(), &uses[0].image_id), (1, &record.id));
    assert_eq!(store.remove_snapshot("c1").unwrap(), Removal::Whole);
    assert_eq!(store.remove_snapshot("c1").unwrap(), Removal::Whole);
    assert!(store.snapshot("c1").unwrap().is_none());
    store.remove_image(&record.id).unwrap();
    assert!(matches!(
        store.create_snapshot("c2", &record),
        Err(Error::NoSuchImage(_))
    ));
    assert!(is_tmp_empty(temp.path()));
}

#[test]
fn an_image_of_nothing_can_be_mounted() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let record = store.put_image(image("scratch", &[], &[])).unwrap();
    let snapshot = store.create_snapshot("c", &record).unwrap();
    assert!(snapshot.lower.len() == 1 && snapshot.lower[0].is_dir());
}

#[test]
fn many_writers_of_the_same_things() {
    let temp = tempfile::tempdir().unwrap();
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (barrier, root) = (&barrier, temp.path());
            scope.spawn(move || {
                let store = open(root);
                barrier.wait();
                for round in 0..10 {
                    let layers = [add_layer(&store, "shared"), add_layer(&store, "both")];
                    let new = image("same", &layers, &["x:latest", &format!("x:{n}")]);
                    // Another thread may have removed a layer before our image kept it.
                    let Ok(record) = store.put_image(new) else {
                        continue;
                    };
                    let name = format!("c-{n}-{round}");
                    if let Ok(snapshot) = store.create_snapshot(&name, &record) {
                        // What a container uses is there until it goes.
                        assert!(snapshot.lower.iter().all(|dir| dir.is_dir()));
                        if round % 2 == 0 {
                            let _ = store.remove_image(&record.id);
                        }
                        assert!(snapshot.lower.iter().all(|dir| dir.is_dir()));
                        store.remove_snapshot(&name).unwrap();
                    }
                }
            });
        }
    });
    let store = open(temp.path());
    for record in store.images().unwrap() {
        assert!(record.layers.iter().all(|layer| store.has_layer(layer)));
        store.remove_image(&record.id).unwrap();
    }
    store.collect_all_layers().unwrap();
    assert!(store.images().unwrap().is_empty());
    assert_eq!(fs::read_dir(temp.path().join("names")).unwrap().count(), 0);
    assert_eq!(
        fs::read_dir(temp.path().join("layers/s")).unwrap().count(),
        0
    );
    assert!(is_tmp_empty(temp.path()));
}

#[test]
fn damaged_records_are_named() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let record = store.put_image(image("i", &[], &["i:1"])).unwrap();
    let path = temp
        .path()
        .join("images")
        .join(&record.id)
        .join("record.json");
    fs::write(&path, "").unwrap();
    let error = store.image_by_name("i:1").unwrap_err();
    assert!(
        error.to_string().contains("record.json is damaged"),
        "{error}"
    );
}

#[test]
fn a_layer_gives_its_archive_back() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let tar = archive("dir/file", "content");
    let layer = add_layer(&store, "other");
    let digest = Digest::sha256(&tar);
    let mut stage = store.stage_layer().unwrap();
    stage.unpack(&tar[..]).unwrap();
    let hold = stage.commit(&digest).unwrap();
    let mut again = Vec::new();
    assert_eq!(hold.write_archive(&mut again).unwrap(), tar.len() as u64);
    assert!(again == tar);

    // A writer that fails is its own fault, not the layer's.
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = hold.write_archive(&mut Full).unwrap_err();
    assert!(matches!(error, Error::Stream(_)), "{error}");

    // What somebody changed by hand is noticed, and so is a layer from before there were recipes.
    fs::write(store.layer_dir(&digest).join("dir/file"), "CONTENT").unwrap();
    let error = hold.write_archive(&mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::NotReproducible { .. }), "{error}");
    fs::remove_file(store.layer_dir(&digest).join("dir/file")).unwrap();
    let error = hold.write_archive(&mut Vec::new()).unwrap_err();
    assert!(
        error.to_string().contains("dir/file is not there"),
        "{error}"
    );
    let hold = store.hold_layer(&layer).unwrap().unwrap();
    fs::remove_file(store.layer_dir(&layer).with_file_name("recipe.zst")).unwrap();
    let error = hold.write_archive(&mut Vec::new()).unwrap_err();
    assert!(error.hint().is_some(), "{error}");
}

#[test]
fn an_image_has_every_manifest_it_came_with() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let layers = [add_layer(&store, "one")];
    let first = image("a", &layers, &["q.test/a:1"]);
    let with = |text: &str, at: Option<&str>| NewImage {
        manifest: text.as_bytes().to_vec(),
        manifest_digest: Digest::sha256(text.as_bytes()),
        media_type: format!("type of {text}"),
        repo_digests: at
            .map(|name| format!("{name}@{}", Digest::sha256(text.as_bytes())))
            .into_iter()
            .collect(),
        ..first.clone()
    };
    store.put_image(first.clone()).unwrap();
    // What only a file has stands behind; what a registry has is the image's own, the latest of them.
    for (text, at, own) in [
        ("of a file", None, "a"),
        ("pulled", Some("q.test/a"), "pulled"),
        ("again", Some("q.test/b"), "again"),
        ("again", None, "again"),
        ("pulled", Some("q.test/a"), "pulled"),
    ] {
        let record = store.put_image(with(text, at)).unwrap();
        assert_eq!(record.manifest().unwrap(), own.as_bytes(), "{text}");
        assert_eq!(record.manifest_digest, Digest::sha256(own.as_bytes()));
    }
    let digest = Digest::sha256(b"again");
    let name = format!("q.test/b@{digest}");
    let record = store.image_by_name(&name).unwrap().unwrap();
    assert_eq!(record.digests().count(), 4);
    assert_eq!(record.media_type, "type of pulled");
    for digest in record.digests() {
        let seen = record.clone().seen_by(digest);
        assert_eq!(seen.manifest_digest, *digest);
        assert_eq!(Digest::sha256(&seen.manifest().unwrap()), *digest);
        assert_eq!(seen.digests().count(), 4);
    }
    let seen = record.clone().seen_by(&digest);
    assert_eq!(seen.media_type, "type of again");
    let unknown = record.clone().seen_by(&Digest::sha256(b"other"));
    assert_eq!(unknown.manifest_digest, record.manifest_digest);
    let options = rcon_store::CheckOptions::default();
    assert!(store.check(options).unwrap().is_empty());
    let file = format!("images/{}/manifest-{}.json", record.id, digest.hex());
    fs::write(temp.path().join(file), "damaged").unwrap();
    assert_eq!(store.check(options).unwrap().len(), 1);
    assert!(is_tmp_empty(temp.path()));
}
