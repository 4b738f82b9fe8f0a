use super::*;
use crate::{Digest, Store};
use rcon_sys::ids::IdMaps;
use rustix::fs::XattrFlags;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn archive(path: &Path, form: TreeForm, leave_out: &[&str]) -> Vec<u8> {
    let leave_out = leave_out.iter().map(PathBuf::from).collect();
    let mut reader = TreeReader::new(open(path), form, leave_out, None).unwrap();
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    all
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    archive
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().to_str().unwrap().to_owned())
        .collect()
}

/// A tree with one of each thing that needs no rights.
fn tree(root: &Path) {
    let long = format!("long/{}", "n".repeat(200));
    for dir in ["a/b", "long", "empty", "mount"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("a/file"), "text").unwrap();
    fs::write(root.join("a/b/mounted"), "").unwrap();
    fs::hard_link(root.join("a/file"), root.join("a/link")).unwrap();
    symlink("../x", root.join("a/b/symlink")).unwrap();
    fs::write(root.join(&long), vec![7; 70_000]).unwrap();
    fs::write(root.join("naïve"), "").unwrap();
    fs::set_permissions(root.join("a/file"), PermissionsExt::from_mode(0o4751)).unwrap();
    rustix::fs::mknodat(open(root), "fifo", FileType::Fifo, Mode::RUSR, 0).unwrap();
    let file = open(&root.join("a/file"));
    let _ = rustix::fs::fsetxattr(&file, "user.note", b"v\n\0", XattrFlags::empty());
}

#[test]
fn what_is_packed_unpacks_to_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("tree");
    fs::create_dir(&root).unwrap();
    tree(&root);
    let bytes = archive(&root, TreeForm::Whole, &["mount", "a/b/mounted", "a/file"]);
    assert_eq!(
        bytes,
        archive(&root, TreeForm::Whole, &["mount", "a/b/mounted"])
    );
    assert!(
        !names(&bytes)
            .iter()
            .any(|n| n.starts_with("mount") || n.ends_with("mounted"))
    );
    let store = Store::open(&temp.path().join("store"), &IdMaps::single()).unwrap();
    let mut stage = store.stage_layer().unwrap();
    stage.unpack(&bytes[..]).unwrap();
    let hold = stage.commit(&Digest::sha256(&bytes)).unwrap();
    let there = store.layer_dir(&hold.meta().diff_id);
    let meta = |path: &str| fs::symlink_metadata(there.join(path)).unwrap();
    assert_eq!(meta("a/file").mode(), 0o104_751);
    assert_eq!(meta("a/file").ino(), meta("a/link").ino());
    assert_eq!(
        meta("a/file").mtime(),
        fs::metadata(root.join("a/file")).unwrap().mtime()
    );
    assert_eq!(
        fs::read_link(there.join("a/b/symlink")).unwrap(),
        Path::new("../x")
    );
    assert_eq!(
        fs::read(there.join("long").join("n".repeat(200))).unwrap(),
        vec![7; 70_000]
    );
    assert!(there.join("naïve").is_file() && there.join("empty").is_dir());
    assert!(!there.join("mount").exists());
    let mut again = Vec::new();
    hold.write_archive(&mut again).unwrap();
    assert_eq!(again, bytes);
    let mut value = [0; 8];
    let have =
        |path: &Path, value: &mut [u8]| rustix::fs::fgetxattr(open(path), "user.note", value).ok();
    if have(&root.join("a/file"), &mut value).is_some() {
        assert_eq!(have(&there.join("a/file"), &mut value), Some(3));
        assert_eq!(&value[..3], b"v\n\0");
    }
}

#[test]
fn changes_delete_as_layers_do() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    fs::create_dir_all(root.join("dir/opaque")).unwrap();
    let mark = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::fsetxattr(open(&root.join(path)), name, value, XattrFlags::empty())
    };
    if mark("dir/opaque", OPAQUE_XATTR, b"y").is_err() {
        // A file system without attributes has no such marks.
        return;
    }
    fs::write(root.join("dir/gone"), "").unwrap();
    mark("dir/gone", WHITEOUT_XATTR, b"y").unwrap();
    mark("dir", OPAQUE_XATTR, b"x").unwrap();
    fs::write(root.join("dir/owned"), "").unwrap();
    mark("dir/owned", TRUE_OWNER, &[0x08, 33, 0x10, 0xac, 0x02]).unwrap();
    let bytes = archive(root, TreeForm::Changes, &[]);
    assert_eq!(
        names(&bytes),
        [
            "dir/",
            "dir/.wh.gone",
            "dir/opaque/",
            "dir/opaque/.wh..wh..opq",
            "dir/owned"
        ]
    );
    let mut archive = tar::Archive::new(&bytes[..]);
    let owned = archive.entries().unwrap().last().unwrap().unwrap();
    let owner = |h: &tar::Header| (h.uid().unwrap(), h.gid().unwrap());
    assert_eq!(owner(owned.header()), (33, 300));
}

#[test]
fn large_numbers_go_into_extended_headers() {
    let head = Head {
        kind: b'0',
        name: b"n",
        link: b"",
        mode: 0o644,
        uid: 4_000_000_000,
        gid: 1,
        size: 9_000_000_000,
        mtime: -5,
        device: (0, 0),
        xattrs: &[],
    };
    let mut bytes = Vec::new();
    head.write(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    for record in [
        "18 uid=4000000000\n",
        "19 size=9000000000\n",
        "12 mtime=-5\n",
    ] {
        assert!(text.contains(record), "{text}");
    }
    assert_eq!(bytes.len(), 3 * BLOCK);
}

#[test]
fn paths_have_a_limit_and_failures_are_told() {
    let temp = tempfile::tempdir().unwrap();
    let mut dir = open(temp.path());
    for _ in 0..2048 {
        rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, "d", DIRECTORY, Mode::empty()).unwrap();
    }
    let packed = archive(temp.path(), TreeForm::Whole, &[]);
    assert_eq!(names(&packed).last().unwrap().len(), 4096);
    rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
    let mut reader = TreeReader::new(open(temp.path()), TreeForm::Whole, Vec::new(), None).unwrap();
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("4095"), "{error}");
}
