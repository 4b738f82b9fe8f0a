//! Names and links that try to lead out of the layer, or through one another.

use super::*;

#[test]
fn absolute_names_are_inside() {
    let layer = Layer::new();
    let tar = Tar::new()
        .file("/etc/passwd", "x")
        .file("//a/./b", "y")
        .end();
    layer.unpack(&tar).unwrap();
    assert_eq!(layer.read("etc/passwd"), "x");
    assert_eq!(layer.read("a/b"), "y");
}

#[test]
fn dots_do_not_lead_out() {
    for name in ["../canary", "a/../../canary", "/../canary", "..", "a/../.."] {
        assert!(
            refusal(&Tar::new().file(name, "x").end()).contains("leads out"),
            "{name}"
        );
    }
    let layer = Layer::new();
    layer.unpack(&Tar::new().file("a/../b", "x").end()).unwrap();
    assert_eq!(layer.read("b"), "x");
}

#[test]
fn a_link_is_followed_inside_only() {
    for target in ["..", "../..", "/", "/../../..", "../../../../../../.."] {
        let layer = Layer::new();
        let tar = Tar::new()
            .symlink("out", target)
            .file("out/canary", "pwned")
            .end();
        layer.unpack(&tar).unwrap();
        assert_eq!(layer.read("canary"), "pwned");
    }
    // As a program in the container would find it.
    let layer = Layer::new();
    let tar = Tar::new()
        .dir("usr/lib")
        .symlink("lib", "/usr/lib")
        .symlink("deep/lib", "../lib")
        .file("lib/one", "1")
        .file("deep/lib/two", "2")
        .end();
    layer.unpack(&tar).unwrap();
    assert_eq!(layer.read("usr/lib/one") + &layer.read("usr/lib/two"), "12");
}

#[test]
fn a_file_never_goes_through_a_link() {
    let layer = Layer::new();
    let canary = layer.canary.to_str().unwrap().to_owned();
    let tar = Tar::new()
        .long_link(canary.as_bytes())
        .symlink("x", "")
        .file("x", "pwned")
        .long_link(canary.as_bytes())
        .symlink("y", "")
        .add(&Item {
            mode: 0o4777,
            ..Item::new(b'5', "y")
        })
        .end();
    layer.unpack(&tar).unwrap();
    assert!(fs::symlink_metadata(layer.path("x")).unwrap().is_file());
    assert!(fs::symlink_metadata(layer.path("y")).unwrap().is_dir());
    assert_eq!(layer.mode("y"), 0o4777);
}

#[test]
fn links_that_lead_nowhere() {
    let dangling = Tar::new().symlink("a", "nowhere").file("a/b", "x").end();
    assert!(refusal(&dangling).contains("is none"));
    let circle = Tar::new()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/c", "x")
        .end();
    assert!(refusal(&circle).contains("circle"));
    let magic = Tar::new()
        .symlink("a", "/proc/self/root")
        .file("a/tmp/x", "x")
        .end();
    assert!(refusal(&magic).contains("is none"));
    let file = Tar::new().file("a", "x").file("a/b", "x").end();
    assert!(refusal(&file).contains("is none"));
    assert!(refusal(&Tar::new().symlink("a", "").end()).contains("to nothing"));
}

#[test]
fn hard_links_are_inside() {
    for target in ["../canary", "a/../../canary", ".."] {
        let tar = Tar::new().link("x", target).end();
        assert!(refusal(&tar).contains("outside"), "{target}");
    }
    let through = Tar::new().symlink("up", "..").link("x", "up/canary").end();
    assert!(refusal(&through).contains("not in the layer"));
    let absolute = Tar::new().link("x", "/etc/passwd").end();
    assert!(refusal(&absolute).contains("not in the layer"));
    let dir = Tar::new().dir("d").link("x", "d").end();
    assert!(refusal(&dir).contains("to a directory"));
    assert!(refusal(&Tar::new().link("x", "/").end()).contains("root directory"));
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_just_that() {
    let layer = Layer::new();
    let tar = Tar::new()
        .symlink("s", "../canary")
        .link("h", "s")
        .file("h", "pwned")
        .link("self", "s")
        .link("s", "s")
        .end();
    layer.unpack(&tar).unwrap();
    assert_eq!(layer.read("h"), "pwned");
    assert_eq!(
        fs::read_link(layer.path("self")).unwrap(),
        Path::new("../canary")
    );
    assert_eq!(
        fs::read_link(layer.path("s")).unwrap(),
        Path::new("../canary")
    );
}

#[test]
fn writing_over_a_hard_link_leaves_the_other_name() {
    let layer = Layer::new();
    let tar = Tar::new()
        .file("a", "one")
        .link("b", "a")
        .file("b", "two")
        .end();
    layer.unpack(&tar).unwrap();
    assert_eq!(layer.read("a") + &layer.read("b"), "onetwo");
}

#[test]
fn a_directory_replaced_by_a_link() {
    let layer = Layer::replacing();
    let tar = Tar::new()
        .dir("d")
        .file("d/canary", "inside")
        .add(&Item {
            mode: 0o700,
            mtime: 7,
            ..Item::new(b'5', "d/sub")
        })
        .symlink("d", "..")
        .file("d/canary", "root")
        .end();
    layer.unpack(&tar).unwrap();
    assert_eq!(fs::read_link(layer.path("d")).unwrap(), Path::new(".."));
    assert_eq!(layer.read("canary"), "root");
}

#[test]
fn duplicates_replace_one_another() {
    let layer = Layer::replacing();
    let tar = Tar::new()
        .file("x", "file")
        .dir("x")
        .file("x/y", "in")
        .file("x", "again")
        .symlink("x", "z")
        .file("x", "last")
        .add(&Item {
            mode: 0o500,
            ..Item::new(b'5', "d")
        })
        .file("d/kept", "kept")
        .add(&Item {
            mode: 0o711,
            mtime: 9,
            ..Item::new(b'5', "d")
        })
        .end();
    layer.unpack(&tar).unwrap();
    assert_eq!(layer.read("x") + &layer.read("d/kept"), "lastkept");
    assert_eq!(layer.mode("d"), 0o711);
    assert_eq!(fs::metadata(layer.path("d")).unwrap().mtime(), 9);
}

#[test]
fn the_root_is_a_directory() {
    assert!(refusal(&Tar::new().symlink("./", "/etc").end()).contains("root directory"));
    assert!(refusal(&Tar::new().file("a/..", "x").end()).contains("root directory"));
}
