//! The demonstration image's only program: a web server, a web client and a small `ip`, chosen
//! by the name it is called by, as busybox does. It needs no library and no root file system,
//! so an image of it can be made on the spot on any machine.
//!
//! ```text
//! webserver [PORT]     answers every request with the banner (port 80)
//! curl URL             fetches http://HOST[:PORT][/PATH] and prints the body
//! ip a | ip r          the addresses, and the routes, of the network namespace it runs in
//! ```
#![forbid(unsafe_code)]

mod client;
mod ip;
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().collect();
    let called = args.remove(0);
    let mut applet = called.rsplit('/').next().unwrap_or_default().to_owned();
    if applet == "banner" && !args.is_empty() {
        applet = args.remove(0);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match (applet.as_str(), args.as_slice()) {
        ("webserver", []) => server::serve(80),
        ("webserver", [port]) => match port.parse() {
            Ok(port) => server::serve(port),
            Err(_) => Err(format!("not a port number: {port}")),
        },
        ("curl", [url]) => client::fetch(url),
        ("ip", ["a" | "addr" | "address"]) => ip::addresses(),
        ("ip", ["r" | "route"]) => ip::routes(),
        _ => Err("usage: webserver [PORT] | curl URL | ip a | ip r".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{applet}: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The reason of an error in words, without its number.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_lowercase()
}
