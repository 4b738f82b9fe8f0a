//! Queries of names, and answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rcon_net::exercise::names(data));
