//! Archives that a machine made up: none leads out of its layer, none breaks anything down, and what is
//! taken can be given back.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rcon_store::{Digest, Store};
use rcon_sys::ids::IdMaps;

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[(self.next() % all.len() as u64) as usize]
    }
}

const NAMES: [&str; 16] = [
    "a",
    "a/b",
    "a/b/c",
    "../a",
    "/a",
    "./a/../b",
    "a/../../x",
    "..",
    ".",
    "/",
    "b",
    "b/c",
    ".wh.a",
    "a/.wh..wh..opq",
    "a/.wh.b",
    "/canary/inside",
];

const TARGETS: [&str; 10] = [
    "a",
    "../..",
    "/",
    "/canary",
    "../../../../canary",
    "b",
    "a/b",
    "..",
    "./b/../a",
    "/proc/self/root",
];

/// An archive of things that get into one another's way.
fn archive(numbers: &mut Numbers) -> Vec<u8> {
    use tar::EntryType as T;
    let kinds = [
        T::Regular,
        T::Directory,
        T::Symlink,
        T::Link,
        T::Fifo,
        T::Char,
        T::Regular,
        T::Directory,
    ];
    let mut builder = tar::Builder::new(Vec::new());
    for _ in 0..1 + numbers.next() % 6 {
        let kind = numbers.pick(&kinds);
        let data: &[u8] = if kind == T::Regular { b"hostile" } else { b"" };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(numbers.pick(&[0o644, 0o755, 0o4777, 0o000, 0o1777]));
        header.set_mtime(numbers.next() % 4_000_000_000);
        // The library would not write such names.
        let put =
            |field: &mut [u8], text: &str| field[..text.len()].copy_from_slice(text.as_bytes());
        put(&mut header.as_old_mut().name, numbers.pick(&NAMES));
        put(&mut header.as_old_mut().linkname, numbers.pick(&TARGETS));
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Everything about a tree that writing into it would change.
fn state(dir: &Path) -> Vec<(String, u64, i64, i64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        all.push((
            path.display().to_string(),
            meta.ino(),
            meta.ctime(),
            meta.ctime_nsec(),
        ));
        if meta.is_dir() {
            all.extend(state(&path));
        }
    }
    all.sort();
    all
}

#[test]
fn no_archive_leads_out() {
    let temp = tempfile::tempdir().unwrap();
    // What hostile names would reach from where layers are unpacked.
    for place in ["canary", "store/canary", "store/tmp-canary"] {
        fs::create_dir_all(temp.path().join(place)).unwrap();
        fs::write(temp.path().join(place).join("inside"), "alive").unwrap();
    }
    let store = Store::open(&temp.path().join("store"), &IdMaps::single()).unwrap();
    let before: Vec<_> = ["canary", "store/canary", "store/tmp-canary"]
        .map(|p| state(&temp.path().join(p)))
        .to_vec();
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let (mut taken, mut given_back) = (0, 0);
    for _ in 0..200 {
        let bytes = archive(&mut numbers);
        let mut stage = store.stage_layer().unwrap();
        if stage.unpack(&bytes[..]).is_ok() {
            taken += 1;
            let hold = stage.commit(&Digest::sha256(&bytes)).unwrap();
            let mut again = Vec::new();
            if hold.write_archive(&mut again).is_ok() {
                given_back += 1;
                assert_eq!(again, bytes);
            }
        }
    }
    assert!(
        taken > 20 && given_back > 10,
        "{taken} taken, {given_back} given back"
    );
    let after: Vec<_> = ["canary", "store/canary", "store/tmp-canary"]
        .map(|p| state(&temp.path().join(p)))
        .to_vec();
    assert_eq!(before, after);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
    store.collect_all_layers().unwrap();
    assert_eq!(
        fs::read_dir(temp.path().join("store/tmp")).unwrap().count(),
        0
    );
}

#[test]
fn noise_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), &IdMaps::single()).unwrap();
    let mut numbers = Numbers(42);
    let seed = archive(&mut numbers);
    for _ in 0..150 {
        let mut bytes = seed.clone();
        for _ in 0..1 + numbers.next() % 6 {
            let at = (numbers.next() % bytes.len() as u64) as usize;
            bytes[at] = numbers.next() as u8;
        }
        bytes.truncate((numbers.next() % (bytes.len() as u64 * 2)) as usize);
        let mut stage = store.stage_layer().unwrap();
        let _ = stage.unpack(&bytes[..]);
    }
    assert_eq!(fs::read_dir(temp.path().join("tmp")).unwrap().count(), 0);
}
