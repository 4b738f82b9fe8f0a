//! Any frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rcon_net::exercise::frames(data));
