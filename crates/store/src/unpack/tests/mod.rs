//! Archives that mean harm, or are merely strange.

mod attributes;
mod links;
mod records;

use std::fs;
use std::io::Cursor;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::testing::{Item, Tar};
use super::*;

/// A layer being unpacked, with a file beside it that nothing in the layer may reach.
struct Layer {
    _temp: tempfile::TempDir,
    root: PathBuf,
    canary: PathBuf,
    replaces: bool,
}

impl Layer {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("layer");
        let canary = temp.path().join("canary");
        fs::create_dir(&root).unwrap();
        fs::write(&canary, "safe").unwrap();
        Self {
            _temp: temp,
            root,
            canary,
            replaces: false,
        }
    }

    fn unpack(&self, tar: &[u8]) -> Result<Unpacked> {
        let root = fs::File::open(&self.root).unwrap();
        let policy = Policy {
            single: true,
            beside: false,
            shift: None,
        };
        let recipe = tempfile::tempfile().unwrap();
        let recorder = recipe::Recorder::new(recipe.try_clone().unwrap(), recipe::LIMIT).unwrap();
        let result = unpack(
            Cursor::new(tar),
            root.as_fd(),
            policy,
            Algorithm::Sha256,
            Some(recorder),
        );
        if result.is_ok() {
            self.made_again(tar, recipe, root.into());
        }
        assert_eq!(fs::read(&self.canary).unwrap(), b"safe");
        assert_eq!(fs::metadata(&self.canary).unwrap().nlink(), 1);
        let beside = fs::read_dir(self.root.parent().unwrap()).unwrap().count();
        assert_eq!(beside, 2, "something was written beside the layer");
        result
    }

    /// Whatever was unpacked can be packed again, unless something in it was replaced later.
    fn made_again(&self, tar: &[u8], mut recipe: fs::File, root: std::os::fd::OwnedFd) {
        std::io::Seek::rewind(&mut recipe).unwrap();
        let mut again = Vec::new();
        let made = recipe::follow(recipe, &root, &mut again);
        if !self.replaces {
            made.unwrap();
            assert!(again == tar, "the archive made again is another one");
        }
    }

    /// A layer whose archive has files that do not stay.
    fn replacing() -> Self {
        Self {
            replaces: true,
            ..Self::new()
        }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::symlink_metadata(self.path(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    }

    fn xattr(&self, name: &str, key: &str) -> Option<Vec<u8>> {
        let mut value = [0; 256];
        let len = rustix::fs::lgetxattr(self.path(name), key, &mut value[..]).ok()?;
        Some(value[..len].to_vec())
    }

    fn is_whiteout(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path(name))
            .is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
    }
}

/// What is wrong with an archive.
fn refusal(tar: &[u8]) -> String {
    Layer::new().unpack(tar).unwrap_err().to_string()
}

#[test]
fn an_ordinary_layer() {
    let layer = Layer::new();
    let big = "0123456789abcdef".repeat(100_000);
    let tar = Tar::new()
        .add(&Item {
            mode: 0o711,
            mtime: 5,
            ..Item::new(b'5', "./")
        })
        .add(&Item {
            mode: 0o750,
            mtime: 123,
            ..Item::new(b'5', "./etc/")
        })
        .file("./etc/hosts", "localhost")
        .add(&Item {
            mode: 0o444,
            ..Item::new(b'0', "etc/empty")
        })
        .file("big", &big)
        .symlink("etc/link", "../big")
        .link("etc/hard", "./etc/hosts")
        .add(&Item {
            mode: 0o640,
            ..Item::new(b'6', "fifo")
        })
        .file("made/up/file", "x")
        .end();
    let unpacked = layer.unpack(&tar).unwrap();
    assert_eq!(unpacked.diff_id, Digest::sha256(&tar));
    assert_eq!(unpacked.size, tar.len() as u64);
    assert_eq!(unpacked.content, big.len() as u64 + 10);
    assert_eq!((unpacked.files, unpacked.skipped), (9, 0));
    assert_eq!(unpacked.root_mode, Some(0o711));
    assert_eq!(layer.mode(""), 0o711);
    assert_eq!(layer.read("etc/hosts"), "localhost");
    assert_eq!(layer.read("big"), big);
    assert_eq!(
        fs::read_link(layer.path("etc/link")).unwrap(),
        Path::new("../big")
    );
    let meta = |name: &str| fs::symlink_metadata(layer.path(name)).unwrap();
    assert_eq!(meta("etc/hard").ino(), meta("etc/hosts").ino());
    assert_eq!((meta("").mtime(), meta("etc").mtime()), (5, 123));
    assert_eq!(meta("etc/link").mtime(), 1_000_000_000);
    assert_eq!(meta("big").mtime(), 1_000_000_000);
    assert_eq!((layer.mode("etc"), layer.mode("etc/empty")), (0o750, 0o444));
    assert!(meta("fifo").file_type().is_fifo());
    assert_eq!((layer.mode("fifo"), layer.mode("made/up")), (0o640, 0o755));
}

#[test]
fn directories_thousands_deep() {
    let layer = Layer::new();
    let deep = "dd/".repeat(3000);
    let tar = Tar::new()
        .long_name(format!("{deep}file").as_bytes())
        .file("x", "x")
        .long_name(deep.as_bytes())
        .add(&Item {
            mode: 0o700,
            ..Item::new(b'5', "x")
        })
        .long_name(format!("{deep}again").as_bytes())
        .long_link(format!("{deep}file").as_bytes())
        .link("x", "")
        .end();
    assert_eq!(layer.unpack(&tar).unwrap().files, 3);
    assert_eq!(crate::remove_tree(&layer.root), crate::Removal::Whole);
}

#[test]
fn directories_keep_their_times_when_memory_is_short() {
    let layer = Layer::new();
    let mut tar = Tar::new();
    for n in 0..50 {
        tar = tar.add(&Item {
            mtime: 1000 + n,
            ..Item::new(b'5', &format!("d{n}"))
        });
    }
    for n in 0..50 {
        tar = tar.file(&format!("d{n}/file"), "x");
    }
    let root = fs::File::open(&layer.root).unwrap();
    let tree = crate::unpack::tree::Tree::with_limit(root.as_fd(), 1000);
    let bytes = tar.end();
    let mut archive = crate::unpack::archive::Archive::new(&bytes[..], None);
    crate::unpack::place::all_in(
        &mut archive,
        tree,
        Policy {
            single: true,
            beside: false,
            shift: None,
        },
        false,
    )
    .unwrap();
    for n in 0..50 {
        let time = fs::metadata(layer.path(format!("d{n}"))).unwrap().mtime();
        assert_eq!(time, 1000 + n, "d{n}");
    }
}

#[test]
fn what_was_replaced_is_not_finished() {
    let layer = Layer::replacing();
    let dir = |name| Item {
        mtime: 1000,
        ..Item::new(b'5', name)
    };
    let mut tar = Tar::new();
    // Names that sort before, between and after those below the directory that goes.
    for name in ["a", "a/b", "a/b/c", "a-b", "a0", "a0/b"] {
        tar = tar.add(&dir(name));
    }
    layer.unpack(&tar.file("a", "x").end()).unwrap();
    assert_eq!(layer.read("a"), "x");
    for name in ["a-b", "a0", "a0/b"] {
        let time = fs::metadata(layer.path(name)).unwrap().mtime();
        assert_eq!(time, 1000, "{name}");
    }
}

#[test]
fn a_stream_that_fails_is_told_from_a_bad_archive() {
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other("connection lost"));
            }
            let count = buffer.len().min(self.0);
            buffer[..count].fill(0);
            self.0 -= count;
            Ok(count)
        }
    }
    let layer = Layer::new();
    let root = fs::File::open(&layer.root).unwrap();
    let policy = Policy {
        single: true,
        beside: false,
        shift: None,
    };
    let result = unpack(Failing(300), root.as_fd(), policy, Algorithm::Sha256, None);
    assert!(matches!(result, Err(Error::Stream(_))));
}

#[test]
fn the_tar_crate_and_this_one_agree() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fs::create_dir_all(source.join("a/b")).unwrap();
    fs::write(source.join("a/b/file"), "text").unwrap();
    fs::write(source.join("a").join("l".repeat(150)), "long").unwrap();
    symlink("b/file", source.join("a/link")).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", &source).unwrap();
    let layer = Layer::new();
    layer.unpack(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(layer.read("a/b/file"), "text");
    assert_eq!(layer.read(&format!("a/{}", "l".repeat(150))), "long");
    assert_eq!(
        fs::read_link(layer.path("a/link")).unwrap(),
        Path::new("b/file")
    );
}
