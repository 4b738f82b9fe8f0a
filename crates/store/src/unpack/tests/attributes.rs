//! Deletions, devices, modes, owners and extended attributes.

use super::*;

#[test]
fn device_nodes_are_left_out() {
    let layer = Layer::new();
    let tar = Tar::new()
        .add(&Item {
            patch: Some((329, b"0000010\x000000003\0")),
            ..Item::new(b'3', "dev/sda")
        })
        .add(&Item::new(b'4', "dev/null"))
        .link("dev/again", "dev/sda")
        .link("dev/third", "dev/again")
        .file("after", "x")
        .end();
    let unpacked = layer.unpack(&tar).unwrap();
    assert_eq!((unpacked.skipped, unpacked.files), (4, 1));
    assert_eq!(fs::read_dir(layer.path("dev")).unwrap().count(), 0);
}

#[test]
fn device_nodes_are_remembered_within_a_bound() {
    // Each with a name of 100 kB, which nobody need have room for.
    let name = |number: usize| format!("{number}{}", "/long".repeat(20_000));
    let linked_to = |number: usize| {
        let mut tar = Tar::new();
        for number in 0..20 {
            let device = Item::new(b'3', "x");
            tar = tar.long_name(name(number).as_bytes()).add(&device);
        }
        tar.long_link(name(number).as_bytes())
            .link("link", "")
            .end()
    };
    let layer = Layer::new();
    assert_eq!(layer.unpack(&linked_to(0)).unwrap().skipped, 21);
    let why = refusal(&linked_to(19));
    assert!(why.contains("not in the layer"), "{why}");
}

#[test]
fn a_device_0_0_is_not_a_whiteout() {
    let layer = Layer::new();
    layer
        .unpack(&Tar::new().add(&Item::new(b'3', "x")).end())
        .unwrap();
    assert!(!layer.is_whiteout("x"));
}

#[test]
fn whiteouts() {
    let layer = Layer::new();
    let tar = Tar::new()
        .file("a/.wh.gone", "")
        .file("a/.wh..hidden", "")
        .file("b/.wh..wh..opq", "")
        .file("b/new", "x")
        .file(".wh..wh.plnk/1", "")
        .file(".wh..wh.orph", "")
        .end();
    let unpacked = layer.unpack(&tar).unwrap();
    assert!(layer.is_whiteout("a/gone") && layer.is_whiteout("a/.hidden"));
    assert_eq!(
        layer.xattr("b", "user.overlay.opaque").as_deref(),
        Some(&b"y"[..])
    );
    assert_eq!(layer.xattr("a", "user.overlay.opaque"), None);
    assert_eq!(layer.read("b/new"), "x");
    assert_eq!(unpacked.skipped, 1);
}

#[test]
fn whiteouts_leave_their_own_layer_alone() {
    let layer = Layer::new();
    let tar = Tar::new()
        .file("one", "1")
        .file(".wh.one", "")
        .file(".wh.two", "")
        .file("two", "2")
        .file("dir/x", "x")
        .file(".wh.dir", "")
        .file(".wh.late", "")
        .dir("late")
        .file(".wh.deep", "")
        .file("deep/a/b", "b")
        .file("opaque/x", "x")
        .file("opaque/.wh..wh..opq", "")
        .file(".wh.twice", "")
        .file(".wh.twice", "")
        .end();
    layer.unpack(&tar).unwrap();
    assert_eq!(layer.read("one") + &layer.read("two"), "12");
    assert_eq!(layer.read("dir/x") + &layer.read("deep/a/b"), "xb");
    for dir in ["dir", "late", "deep", "opaque"] {
        assert_eq!(
            layer.xattr(dir, "user.overlay.opaque").as_deref(),
            Some(&b"y"[..]),
            "{dir}"
        );
    }
    assert_eq!(layer.xattr("deep/a", "user.overlay.opaque"), None);
    assert!(layer.is_whiteout("twice"));
}

#[test]
fn whiteouts_of_the_outside() {
    for name in [".wh...", ".wh..", ".wh.", "a/.wh..."] {
        assert!(
            refusal(&Tar::new().file(name, "").end()).contains("no name"),
            "{name}"
        );
    }
    assert!(refusal(&Tar::new().file("../.wh.canary", "").end()).contains("leads out"));
    assert!(refusal(&Tar::new().file("../.wh..wh..opq", "").end()).contains("leads out"));
    let layer = Layer::new();
    let tar = Tar::new()
        .symlink("up", "../..")
        .file("up/.wh.canary", "")
        .file("up/.wh..wh..opq", "")
        .end();
    layer.unpack(&tar).unwrap();
    assert!(layer.is_whiteout("canary"));
    assert!(layer.xattr("", "user.overlay.opaque").is_some());
}

#[test]
fn special_bits_survive() {
    let layer = Layer::new();
    let tar = Tar::new()
        .add(&Item {
            mode: 0o4755,
            data: b"#!",
            ..Item::new(b'0', "su")
        })
        .add(&Item {
            mode: 0o2711,
            ..Item::new(b'0', "sg")
        })
        .add(&Item {
            mode: 0o1777,
            ..Item::new(b'5', "tmp")
        })
        .add(&Item {
            mode: 0o2775,
            ..Item::new(b'5', "staff")
        })
        .file("staff/file", "x")
        .add(&Item {
            mode: 0o100_600,
            ..Item::new(b'0', "kind")
        })
        .end();
    layer.unpack(&tar).unwrap();
    assert_eq!((layer.mode("su"), layer.mode("sg")), (0o4755, 0o2711));
    assert_eq!((layer.mode("tmp"), layer.mode("staff")), (0o1777, 0o2775));
    assert_eq!(layer.mode("kind"), 0o600);
}

#[test]
fn directories_may_be_closed() {
    let layer = Layer::new();
    let tar = Tar::new()
        .add(&Item {
            mode: 0,
            ..Item::new(b'5', "closed")
        })
        .add(&Item {
            mode: 0o444,
            ..Item::new(b'5', "closed/inner")
        })
        .add(&Item {
            mode: 0,
            ..Item::new(b'0', "closed/inner/file")
        })
        .end();
    layer.unpack(&tar).unwrap();
    assert_eq!(layer.mode("closed"), 0);
    fs::set_permissions(layer.path("closed"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(layer.mode("closed/inner"), 0o444);
}

#[test]
fn foreign_attributes_are_left_out() {
    let layer = Layer::new();
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.user.mine", b"a\nb\0c"),
            ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.metacopy", b""),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.rootlesscontainers", b"\x08\x01"),
            ("SCHILY.xattr.security.selinux", b"label"),
            ("LIBARCHIVE.xattr.user.other", b"eA=="),
        ])
        .add(&Item {
            mode: 0o444,
            ..Item::new(b'0', "file")
        })
        .pax(&[("SCHILY.xattr.user.overlay.opaque", b"y")])
        .dir("dir")
        .end();
    layer.unpack(&tar).unwrap();
    assert_eq!(
        layer.xattr("file", "user.mine").as_deref(),
        Some(&b"a\nb\0c"[..])
    );
    assert_eq!(layer.mode("file"), 0o444);
    for name in [
        "user.overlay.redirect",
        "user.overlay.metacopy",
        "user.rootlesscontainers",
    ] {
        assert_eq!(layer.xattr("file", name), None, "{name}");
    }
    assert_eq!(layer.xattr("dir", "user.overlay.opaque"), None);
}

#[test]
fn with_one_id_true_owners_are_noted() {
    let layer = Layer::new();
    let tar = Tar::new()
        .add(&Item {
            uid: 33,
            gid: 300,
            mode: 0o400,
            ..Item::new(b'0', "file")
        })
        .add(&Item {
            uid: 0,
            gid: 5,
            mode: 0o500,
            ..Item::new(b'5', "dir")
        })
        .add(&Item {
            uid: 1,
            link: b"x",
            ..Item::new(b'2', "link")
        })
        .file("root", "x")
        .end();
    layer.unpack(&tar).unwrap();
    let key = "user.rootlesscontainers";
    assert_eq!(
        layer.xattr("file", key).unwrap(),
        [0x08, 33, 0x10, 0xac, 0x02]
    );
    assert_eq!(layer.xattr("dir", key).unwrap(), [0x10, 5]);
    assert_eq!(layer.xattr("root", key), None);
    assert_eq!((layer.mode("file"), layer.mode("dir")), (0o400, 0o500));
}
