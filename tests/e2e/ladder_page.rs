//! The page on machines that lack something: a web server behind a port and a client that fetches its page, whichever
//! step of the ladder is left. Where no network can be had, `ladder.rs` has what there is instead.

use crate::lab::disk::{Disk, KEEPS_OWNERS, Kind};
use crate::lab::host::Host;
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon, installed, lab, skip};
use crate::walkthrough::page_on;

scenarios!(
    no_range,
    overlapping_ranges,
    no_newuidmap,
    newuidmap_without_privilege,
    no_runtime_directory,
    no_cgroups,
    as_docker_covers_it,
    fuse_overlayfs,
    no_overlay_and_no_fuse,
    in_memory,
    no_attributes,
    on_a_network,
    with_nothing_at_all,
);

/// Changes the page's host as root and follows the page there.
fn changed(t: &mut Rcon, change: &str, told: &str) {
    let Some(host) = Host::new() else { return };
    host.root(&["sh", "-ec", change]);
    t.move_to(&host);
    t.run(&["doctor"]).code(0).shows(told);
    page_on(t, &host);
}

fn on_disk(t: &mut Rcon, kind: Kind, told: &str) {
    let Some(host) = Host::new() else { return };
    let Some(disk) = Disk::mount(t, kind, Some(&host)) else {
        return;
    };
    t.move_to(&host);
    t.run(&["doctor"]).code(0).shows(told);
    page_on(t, &host);
    disk.release(t);
}

/// A file to mount over another one: not in the scenario's own folder, which everything has to have left.
fn stand_in(t: &Rcon, content: &[u8]) -> String {
    let path = lab()
        .base
        .join(format!("stand-in.{}", t.dir.file_name().unwrap().display()));
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Files in place of those that say which ids a user has.
fn ranges(t: &Rcon, text: &str) -> String {
    let file = stand_in(t, text.as_bytes());
    format!("mount --bind {file} /etc/subuid; mount --bind {file} /etc/subgid")
}

fn no_range(t: &mut Rcon) {
    let change = ranges(t, "");
    changed(t, &change, "one id");
}

fn overlapping_ranges(t: &mut Rcon) {
    let own = format!("{}:{}:10\n", t.user.name, t.user.uid - 2);
    let change = ranges(t, &own);
    changed(t, &change, "one id");
}

fn no_newuidmap(t: &mut Rcon) {
    changed(t, "mount --bind /dev/null /usr/bin/newuidmap", "one id");
}

fn newuidmap_without_privilege(t: &mut Rcon) {
    if t.mode == Mode::OneId {
        return;
    }
    let copy = stand_in(t, &std::fs::read("/usr/bin/newuidmap").unwrap());
    let change = format!("chmod 755 {copy}; mount --bind {copy} /usr/bin/newuidmap");
    changed(
        t,
        &change,
        "neither set-user-id root nor has file capabilities",
    );
}

fn no_runtime_directory(t: &mut Rcon) {
    let run = t.dir.join("run").to_str().unwrap().to_owned();
    t.set_env("XDG_RUNTIME_DIR", "");
    changed(t, NO_RUNTIME_DIRECTORY, "/tmp/rcon-");
    t.run(&["rm", "-fa"]).code(0);
    t.run(&["rmi", "-fa"]).code(0);
    t.set_env("XDG_RUNTIME_DIR", &run);
}

const NO_RUNTIME_DIRECTORY: &str =
    "mount -t tmpfs none /run/user 2>/dev/null || true; mount -t tmpfs -o mode=1777 none /tmp";

/// Neither a group that may be written to nor a systemd that gives one.
fn no_cgroups(t: &mut Rcon) {
    changed(t, NO_CGROUPS, "less  cgroups");
}

const NO_CGROUPS: &str = "if [ -d /run/systemd ]; then mount -t tmpfs none /run/systemd; fi
    mount -t tmpfs -o ro none /sys/fs/cgroup";

/// /proc and /sys as containers of Docker and Kubernetes have them.
fn as_docker_covers_it(t: &mut Rcon) {
    changed(t, COVERED, "the one around");
}

const COVERED: &str = "for f in /proc/kcore /proc/keys /proc/timer_list; do
        if [ -e $f ]; then mount --bind /dev/null $f; fi; done
    if [ -d /proc/scsi ]; then mount -t tmpfs -o ro none /proc/scsi; fi
    mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys
    mount -t tmpfs -o ro none /sys/firmware";

/// Asked for: a kernel that mounts overlays for root alone cannot be had here.
fn fuse_overlayfs(t: &mut Rcon) {
    if !installed("fuse-overlayfs") {
        return skip("fuse-overlayfs is not installed");
    }
    t.set_env(
        "STORAGE_OPTS",
        "overlay.mount_program=/usr/bin/fuse-overlayfs",
    );
    changed(t, ":", "less  root filesystem    fuse-overlayfs");
    t.run(&["rm", "-fa"]).code(0);
    t.run(&["rmi", "-fa"]).code(0);
    t.set_env("STORAGE_OPTS", "");
}

fn no_overlay_and_no_fuse(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    host.root(&["sh", "-ec", NO_FUSE]);
    let Some(disk) = Disk::mount(t, Kind::Overlay, Some(&host)) else {
        return;
    };
    t.move_to(&host);
    t.run(&["doctor"]).code(0).shows("copies of the layers");
    page_on(t, &host);
    disk.release(t);
}

const NO_FUSE: &str = "if [ -e /dev/fuse ]; then mount --bind /dev/null /dev/fuse; fi";

fn in_memory(t: &mut Rcon) {
    on_disk(t, Kind::Memory, "ok    root filesystem    overlay");
}

fn no_attributes(t: &mut Rcon) {
    on_disk(t, Kind::Plain, "less  root filesystem");
}

fn on_a_network(t: &mut Rcon) {
    on_disk(t, KEEPS_OWNERS, "one id");
}

/// All of it at once.
fn with_nothing_at_all(t: &mut Rcon) {
    if !installed("bindfs") {
        return skip("bindfs is not installed");
    }
    let Some(host) = Host::new() else { return };
    let Some(disk) = Disk::mount(t, KEEPS_OWNERS, Some(&host)) else {
        return;
    };
    let run = t.dir.join("run").to_str().unwrap().to_owned();
    t.set_env("XDG_RUNTIME_DIR", "");
    let mappers = "mount --bind /dev/null /usr/bin/newuidmap";
    for change in [mappers, NO_RUNTIME_DIRECTORY, NO_CGROUPS, COVERED, NO_FUSE] {
        host.root(&["sh", "-ec", change]);
    }
    t.move_to(&host);
    t.run(&["doctor"])
        .code(0)
        .shows("less  ids")
        .shows("less  root filesystem    copies of the layers")
        .shows("less  proc")
        .shows("less  cgroups")
        .shows("less  directories")
        .shows("ok    network            tap");
    page_on(t, &host);
    disk.release(t);
    t.set_env("XDG_RUNTIME_DIR", &run);
}
