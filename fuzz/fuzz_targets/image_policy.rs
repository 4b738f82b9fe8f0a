//! policy.json.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rcon_image::{Policy, Reference};

fuzz_target!(|bytes: &[u8]| {
    let Ok(policy) = Policy::parse(bytes, Path::new("/policy.json")) else {
        return;
    };
    if let Ok(name) = Reference::parse("a.example.com/b/c:d") {
        let _ = policy.check(&name);
    }
    let _ = policy.check_files("oci", Path::new("/a/b"), Some("c"));
});
