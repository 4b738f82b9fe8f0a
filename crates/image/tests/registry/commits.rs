//! Images made of trees.

use crate::lab::*;
use crate::push::{loaded, two_layers};
use rcon_image::out::{Destination, Output};
use rcon_image::{CommitOptions, Format, Reference, SaveOptions, SavedImage, Source, commit};
use rcon_store::TreeForm;
use serde_json::{Value, json};

fn options(lab: &Lab, form: TreeForm) -> CommitOptions {
    let tree = lab.path("tree");
    std::fs::create_dir_all(tree.join("etc")).unwrap();
    std::fs::write(tree.join("etc/new"), "fresh").unwrap();
    std::fs::write(tree.join("etc/hosts"), "").unwrap();
    // The first name in the archive, which is none of bzip2 for that.
    std::fs::write(tree.join("BZh1"), "").unwrap();
    CommitOptions {
        tree,
        form,
        leave_out: vec!["etc/hosts".into()],
        config: None,
        changes: vec!["ENV A=b".to_owned()],
        message: Some("a message".to_owned()),
        author: Some("ada".to_owned()),
        created_by: "/bin/sh".to_owned(),
        name: Some(Reference::parse("localhost/made:1").unwrap()),
        format: Format::Oci,
    }
}

#[test]
fn a_change_becomes_a_layer_on_top() {
    let lab = Lab::new();
    let (base, _) = loaded(&lab, &two_layers("base"));
    for format in [Format::Oci, Format::Docker] {
        let opts = CommitOptions {
            format,
            ..options(&lab, TreeForm::Changes)
        };
        let made = commit(&lab.store, &base.id, &opts, &Recorder::default()).unwrap();
        lab.assert_no_leftovers();
        assert_eq!(made.layers[..2], base.layers[..]);
        assert_eq!(made.names, ["localhost/made:1"]);
        assert_eq!(lab.read(&made, 2, "etc/new"), "fresh");
        assert!(
            !lab.store
                .layer_dir(&made.layers[2])
                .join("etc/hosts")
                .exists()
        );
        let config: Value = serde_json::from_slice(&made.config().unwrap()).unwrap();
        assert_eq!(config["config"]["Env"], json!(["A=b"]));
        assert_eq!(config["author"], "ada");
        let history = config["history"].as_array().unwrap().last().unwrap();
        assert_eq!(
            (&history["comment"], &history["created_by"]),
            (&json!("a message"), &json!("/bin/sh"))
        );
        // It is an image like any other: it can be saved and loaded.
        let path = lab.path("made.tar");
        let saved = SavedImage {
            id: made.id.clone(),
            manifest: None,
            names: Vec::new(),
        };
        let to = Destination::OciArchive(Output::Path(path.clone()), None);
        rcon_image::save(
            &lab.store,
            &[saved],
            &to,
            &SaveOptions::default(),
            &Recorder::default(),
        )
        .unwrap();
        let fresh = Lab::new();
        let again =
            rcon_image::load(&fresh.store, &Source::Path(path), &Recorder::default()).unwrap();
        assert_eq!(again[0].record.id, made.id);
    }
}

#[test]
fn a_whole_tree_is_one_layer() {
    let lab = Lab::new();
    let (base, _) = loaded(&lab, &two_layers("base"));
    let made = commit(
        &lab.store,
        &base.id,
        &options(&lab, TreeForm::Whole),
        &Recorder::default(),
    )
    .unwrap();
    assert_eq!(made.layers.len(), 1);
    assert_eq!(lab.read(&made, 0, "etc/new"), "fresh");
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let lab = Lab::new();
    let (base, _) = loaded(&lab, &two_layers("base"));
    let good = options(&lab, TreeForm::Changes);
    let bad = [
        CommitOptions {
            changes: vec!["NONSENSE x".to_owned()],
            ..good.clone()
        },
        CommitOptions {
            tree: lab.path("nowhere"),
            ..good.clone()
        },
    ];
    for opts in bad {
        commit(&lab.store, &base.id, &opts, &Recorder::default()).unwrap_err();
    }
    commit(&lab.store, &"0".repeat(64), &good, &Recorder::default()).unwrap_err();
    assert_eq!(lab.store.images().unwrap().len(), 1);
    lab.assert_no_leftovers();
}
