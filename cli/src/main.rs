//! `rcon`, the command line.
//!
//! The way of one command: [`app`] reads the global options and looks the command up in its table; only that command's
//! definition is built (all of them would cost more than starting a container should); its arguments are parsed into a
//! struct of what was *said*, which the command turns into what is *meant* and hands to [`rcon_engine::Engine`]. Whatever is
//! wrong with the words becomes podman's message in [`usage`]; whatever else goes wrong is a [`failure::Failure`], printed
//! in one place.
//!
//! One file a command is in [`commands`]; tables, times, sizes and `--format` are in [`output`].
//!
//! Nothing here starts a thread before a container is made: the engine forks.
#![forbid(unsafe_code)]
// The comments on arguments are their help, in podman's words: brackets and angles there are no markup.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

mod app;
mod commands;
mod complete;
mod containers_conf;
mod context;
mod early;
mod failure;
mod help;
mod inspection;
mod oci;
mod output;
mod reference;
mod template;
mod times;
mod unsupported;
mod usage;

use std::process::ExitCode;

fn main() -> ExitCode {
    rcon_sys::memory::keep_dense();
    match app::run(std::env::args_os().collect()) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.code)
        }
    }
}
