//! Users and owners in a container: with one id as with many, made up where the kernel has none.

mod owners;
mod programs;
mod users;
mod without_attributes;

use crate::lab::{Rcon, lab, skip};

/// Runs a script in a container of busybox and tells what it printed.
fn shell(t: &Rcon, options: &[&str], script: &str) -> String {
    let mut words = vec!["run", "--rm", "--network", "none"];
    words.extend(options);
    words.extend(["busybox", "sh", "-ec", script]);
    t.ok(&words) + "\n"
}

/// The lab's Debian under the name `debian`, or why it cannot be had.
fn debian(t: &Rcon) -> bool {
    if let Err(reason) = lab().images("debian") {
        skip(&reason);
        return false;
    }
    let image = t.pull("debian");
    t.run(&["tag", &image, "debian"]).code(0);
    true
}

fn busybox(t: &Rcon) {
    let image = t.pull("busybox");
    t.run(&["tag", &image, "busybox"]).code(0);
}
