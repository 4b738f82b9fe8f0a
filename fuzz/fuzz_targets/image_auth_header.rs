//! `WWW-Authenticate`, as a registry may send it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = rcon_image::schemes(text);
});
