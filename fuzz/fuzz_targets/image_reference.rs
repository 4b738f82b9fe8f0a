//! Names of images, destinations and sources.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rcon_image::{Destination, LocalSource, Platform, Reference};

fuzz_target!(|text: &str| {
    if let Ok(name) = Reference::parse(text) {
        // What a name is written as is that name.
        assert_eq!(Reference::parse(&name.to_string()), Ok(name));
    }
    let _ = Reference::parse_local(text);
    let _ = Destination::parse(text);
    let _ = LocalSource::parse(text);
    let _ = Platform::parse(text);
});
