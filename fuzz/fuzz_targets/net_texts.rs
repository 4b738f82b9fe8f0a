//! Published ports, options, resolv.conf and hosts.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rcon_net::exercise::texts(data));
