//! One TCP connection, both sides of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rcon_net::exercise::connection(data));
