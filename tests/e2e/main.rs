//! The end-to-end suite: the built program, driven as its users drive it.
//!
//! Each module is one subject, each function in it one scenario, run once as a user with subordinate ids and
//! once as a user without (as root, who makes both; an ordinary user runs those of his own kind). `lab` is what
//! they run on. One scenario: `cargo test -p rcon --test e2e -- run::exit_codes`.

mod lab;

mod alone;
mod arranged;
mod as_runtime;
mod attach;
mod attacks;
mod clock;
mod compat;
mod configuration;
mod copy;
mod crash;
mod defaults;
mod disks;
mod documents;
mod errors;
mod events;
mod exec;
mod files;
mod full_disk;
mod health;
mod held;
mod images;
mod interrupt;
mod isolation;
mod killed;
mod ladder;
mod ladder_page;
mod layers;
mod lifecycle;
mod limits;
mod logs;
mod mounts;
mod nested;
mod netprocess;
mod network;
mod network_more;
mod no_overlay;
mod oci;
mod oci_cgroups;
mod oci_files;
mod oci_filters;
mod oci_root;
mod oci_spec;
mod one_id;
mod peers;
mod peers_lives;
mod policies;
mod ports;
mod ports_live;
mod ps;
mod push;
mod readers;
mod records;
mod registry;
mod run;
mod screen;
mod search;
mod sharing;
mod snapshots;
mod store;
mod strangers;
mod supervise;
mod surroundings;
mod systemd;
mod taken_up;
mod terminal;
mod transports;
mod twin;
mod volumes;
mod walkthrough;
