//! Manifests and indexes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rcon_image::manifest;

fuzz_target!(|bytes: &[u8]| {
    for media_type in ["", "application/vnd.oci.image.index.v1+json", "application/json"] {
        let _ = manifest::summary(bytes, media_type);
    }
});
