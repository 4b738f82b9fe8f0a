//! Who may depend on whom. That there are no circles Cargo sees to; this holds the rest: the parts that the engine joins do
//! not know of one another, and only the lowest has unsafe code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The crates, and which of ours each may use.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("crates/sys", &[]),
    ("crates/filter", &["sys"]),
    ("crates/store", &["sys"]),
    ("crates/image", &["store", "sys"]),
    ("crates/bundle", &["filter", "sys"]),
    ("crates/launch", &["filter", "sys"]),
    ("crates/net", &["sys"]),
    (
        "crates/engine",
        &["bundle", "image", "launch", "net", "store", "sys"],
    ),
    // The commands of an OCI runtime stand on launch alone.
    ("cli", &["engine", "launch", "sys"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn dependencies_point_one_way() {
    for (folder, may) in MAY_USE {
        let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        let used = manifest["dependencies"].as_table().unwrap().keys();
        let ours: BTreeSet<&str> = used.filter_map(|name| name.strip_prefix("rcon-")).collect();
        let may = BTreeSet::from_iter(may.iter().copied());
        assert_eq!(ours, may, "what {folder} uses");
    }
    let listed = MAY_USE
        .iter()
        .filter_map(|(folder, _)| folder.strip_prefix("crates/"));
    let there = fs::read_dir(root().join("crates")).unwrap().flatten();
    let there: BTreeSet<_> = there.map(|entry| entry.file_name()).collect();
    assert_eq!(there, listed.map(Into::into).collect());
}

#[test]
fn only_sys_is_unsafe() {
    for (folder, _) in MAY_USE {
        let source = root().join(folder).join("src");
        let top = ["lib.rs", "main.rs"].map(|name| source.join(name));
        let top = top.into_iter().find(|file| file.exists()).unwrap();
        let forbids = fs::read_to_string(top)
            .unwrap()
            .contains("#![forbid(unsafe_code)]");
        assert_eq!(forbids, folder != "crates/sys", "{folder}");
    }
}
