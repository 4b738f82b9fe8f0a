//! Layers: nothing that unpacks one may break down or leave its folder, and what is kept of it gives
//! the archive back.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rcon_store::{Digest, Store};
use rcon_sys::ids::IdMaps;

static PLACE: LazyLock<(tempfile::TempDir, Store)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(&dir.path().join("store"), &IdMaps::single()).expect("a store");
    (dir, store)
});

fuzz_target!(|bytes: &[u8]| {
    let (dir, store) = &*PLACE;
    let Ok(tar) = rcon_store::decompress(bytes) else {
        return;
    };
    let Ok(mut stage) = store.stage_layer() else {
        return;
    };
    if let Ok(unpacked) = stage.unpack(tar) {
        let hold = stage.commit(&unpacked.diff_id).expect("a layer");
        let mut again = Vec::new();
        if hold.write_archive(&mut again).is_ok() {
            assert_eq!(Digest::sha256(&again), unpacked.diff_id);
        }
        drop(hold);
        store.collect_all_layers().expect("removal");
    }
    let outside = std::fs::read_dir(dir.path()).expect("the folder").count();
    assert_eq!(outside, 1);
});
