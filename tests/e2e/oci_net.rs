//! Network devices that a container takes over (`linux.netDevices`), through `rcon oci`. Whoever runs it is the root of a network
//! namespace of the scenario's, in which the devices are.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::lab::bundle::Bundle;
use crate::lab::program::Running;
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Output, Rcon, installed, lab, skip};

scenarios!(devices_move_with_what_they_are, devices_that_cannot_be_had);

/// Two devices: one with all that is kept, and an address that means nothing elsewhere; its other end.
const DEVICES: &str = "set -e
    ip link add v0 type veth peer name v1
    ip link set v0 mtu 1400 address 02:00:00:00:00:07
    ip address add 10.9.0.1/24 broadcast + dev v0
    ip address add fd00:9::1/64 nodad dev v0
    ip address add 10.9.0.77/32 scope link dev v0
    ip link set v0 up
    set +e
    ";

/// What `ip` says, sorted and without what is another each time.
const SHOW: &str = "ip -o link | grep -oE '[^ ]+: <.*> mtu [0-9]+|02:00:[0-9:]+' | sed 's/@[^:]*//; s/,LOWER_UP//; s/NO-CARRIER,//; \
    s/,M-DOWN//'; ip -o addr | grep -oE '(inet|inet6) (10|fd)[^ ]+( brd [^ ]+)?' | sort";

/// Whether there are such devices here.
fn can(t: &Rcon) -> bool {
    if !installed("ip") {
        skip("ip is not installed");
        return false;
    }
    let out = around(t, false, "ip link add v0 type veth peer name v1");
    if out.code != 0 {
        skip(&format!("no device to move: {}", out.stderr.trim()));
    }
    out.code == 0
}

/// Runs a script in a network namespace of its own, as the user who is root there, or as root.
fn around(t: &Rcon, root: bool, script: &str) -> Output {
    let path = "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n";
    let kinds = if root { "-nm" } else { "-Urn" };
    let words = ["unshare", kinds, "sh", "-c", &format!("{path}{script}")];
    let words = words.map(str::to_owned);
    let command = match root {
        true => {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]);
            command
        }
        false => t.command_of(&words),
    };
    Running::start(command, Stdio::null()).wait()
}

/// `rcon oci run` of the bundle in there, after the devices were made; then `after`.
fn run(t: &Rcon, b: &Bundle, root: bool, after: &str) -> Output {
    b.write();
    let state = b.dir.join("state-net");
    let line = format!(
        "{DEVICES}cd {}; {} oci --root {} run net-{}; code=$?\n{after}\nexit $code",
        b.dir.display(),
        t.program.display(),
        state.display(),
        t.user.uid,
    );
    around(t, root, &line)
}

/// A bundle of who is root of a user namespace; with one of the container's own, or without.
fn bundle(t: &Rcon, name: &str, users: bool) -> Bundle {
    let mut b = Bundle::of_user(t, name);
    if users {
        let only = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        b.set("/linux/uidMappings", only.clone());
        b.set("/linux/gidMappings", only);
        return b;
    }
    let kinds = ["pid", "ipc", "uts", "mount", "network"];
    let kinds = kinds.map(|kind| json!({"type": kind}));
    b.set("/linux/namespaces", json!(kinds));
    b.set("/linux/uidMappings", Value::Null);
    b.set("/linux/gidMappings", Value::Null);
    b
}

fn devices_move_with_what_they_are(t: &mut Rcon) {
    if !can(t) {
        return;
    }
    let inside = format!("alias ip='busybox ip'; {SHOW}");
    let mut of_root = Vec::new();
    if lab().root && t.mode == Mode::ManyIds {
        of_root.push((Bundle::of_root(t, "root"), true));
    }
    let users = [true, false].map(|users| (bundle(t, &format!("b-{users}"), users), false));
    for (mut b, root) in users.into_iter().chain(of_root) {
        b.script(&inside);
        b.set("/linux/netDevices", json!({"v0": {"name": "eth0"}}));
        let out = run(t, &b, root, "echo; ip -o link | grep -c v0:");
        out.code(0).prints(
            "lo: <LOOPBACK> mtu 65536\neth0: <BROADCAST,MULTICAST,UP> mtu 1400\n02:00:00:00:00:07\n\
             inet 10.9.0.1/24 brd 10.9.0.255\ninet6 fd00:9::1/64\n\n0\n",
        );
        // Without another name it keeps its own; and a pattern becomes a name that is free.
        b.script("ls /sys/class/net | sort");
        b.set("/linux/netDevices", json!({"v0": {}}));
        run(t, &b, root, "").prints("lo\nv0\n");
        let both = json!({"v0": {"name": "eth%d"}, "v1": {"name": "eth%d"}});
        b.set("/linux/netDevices", both);
        run(t, &b, root, "").prints("eth0\neth1\nlo\n");
        // What fails later leaves everything as it was.
        b.args(&["/no/such/program"]);
        b.set("/linux/netDevices", json!({"v0": {"name": "eth0"}}));
        let out = run(t, &b, root, SHOW);
        out.code(1).says("no/such/program").shows(
            "lo: <LOOPBACK> mtu 65536\nv1: <BROADCAST,MULTICAST> mtu 1500\n\
             v0: <BROADCAST,MULTICAST,UP> mtu 1400\n02:00:00:00:00:07\n\
             inet 10.9.0.1/24 brd 10.9.0.255\ninet6 fd00:9::1/64\n",
        );
    }
}

fn devices_that_cannot_be_had(t: &mut Rcon) {
    if !can(t) {
        return;
    }
    let mut b = bundle(t, "b", true);
    b.script("echo ran");
    for (devices, message, hint) in [
        (
            json!({"nope": {}}),
            "cannot find the network device nope: No such device",
            "hint: `ip link` lists",
        ),
        (
            json!({"v0": {"name": "lo"}}),
            "cannot move the network device v0 into the container as lo: File exists",
            "hint: give it another name",
        ),
        (
            json!({"v0": {"name": "same"}, "v1": {"name": "same"}}),
            "as same: File exists",
            "hint: give it another name",
        ),
        (
            json!({"lo": {"name": "lo2"}}),
            "cannot move the network device lo: ",
            "hint: some devices, such as lo,",
        ),
        (
            json!({"v0": {"name": "a/b"}}),
            "\"a/b\" cannot be the name of a network device",
            "",
        ),
        (
            json!({"v0": {"name": "eth%s"}}),
            "\"eth%s\" cannot be the name",
            "",
        ),
    ] {
        b.set("/linux/netDevices", devices.clone());
        // Also the other one of two is at home again.
        let out = run(t, &b, false, "ip -o link | grep -c 'v[01]@'");
        out.code(1).says(message).says(hint).shows("2\n");
    }
    // Nothing can be moved to where it is.
    let mut b = bundle(t, "shared", true);
    b.script("echo ran");
    b.set("/linux/netDevices", json!({"v0": {}}));
    let namespaces = b.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    b.set(
        "/mounts/4",
        json!({"destination": "/sys", "type": "tmpfs", "source": "t"}),
    );
    run(t, &b, false, "")
        .code(1)
        .says("need a network namespace of the container's own");
    // Who is not root of where the device is may not.
    let mut b = Bundle::of_user(t, "mine");
    b.set("/linux/netDevices", json!({"lo": {"name": "lo2"}}));
    b.run(t)
        .code(1)
        .says("cannot join the network namespace of the container: Operation not permitted")
        .says("hint: it takes CAP_NET_ADMIN and CAP_SYS_ADMIN");
    b.oci(t, &["list", "-q"]).prints("");
}
