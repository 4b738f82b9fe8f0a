//! registries.conf, and what it makes of names.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rcon_image::registries::Registries;

fuzz_target!(|input: (&str, &str)| {
    let (text, name) = input;
    let Ok(conf) = Registries::parse(text, Path::new("/fuzz.conf")) else {
        return;
    };
    for name in [name, "alpine", "a.example.com:5000/b/c:d"] {
        for reference in conf.candidates(name).map(|(all, _)| all).unwrap_or_default() {
            let _ = conf.endpoints(&reference);
        }
    }
});
