//! The page, command by command, on a host that has the page's address.

use std::sync::Arc;

use crate::lab::host::{ADDRESS, Host};
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, lab, net, skip};

scenarios!(page, page_with_busybox, page_without_overlay, demonstration);

/// The page's refusal, in its own words but for the name of the program.
const REFUSAL: &str = "Error: rootlessport cannot expose privileged port 80, you can add \
    'net.ipv4.ip_unprivileged_port_start=80' to /etc/sysctl.conf (currently 1024), or choose a larger port number \
    (>= 1024): listen tcp 0.0.0.0:80: bind: permission denied\n";

fn banner() -> String {
    std::fs::read_to_string(crate::lab::script("banner.txt")).unwrap()
}

/// The web server of the page: refused on port 80, running on 8080.
fn web_server(t: &mut Rcon, host: &Arc<Host>) {
    t.move_to(host);
    assert_eq!(
        host.root(&["sysctl", "net.ipv4.ip_unprivileged_port_start"]),
        "net.ipv4.ip_unprivileged_port_start = 1024"
    );

    let image = host.image("banner");
    let out = t.run(&[
        "run",
        "-dt",
        "--name",
        "webserver",
        "-p",
        "80:80",
        "-q",
        &image,
    ]);
    out.refused(126);
    assert!(
        out.stderr.starts_with(REFUSAL),
        "not in the page's words\n{}",
        out.story()
    );
    t.has_containers(0);

    let id = t.ok(&["run", "-dt", "--name", "webserver", "-p", "8080:80", &image]);
    assert_eq!(id.len(), 64);
    shows_the_pages_network(
        &t.ok(&["exec", "webserver", "ip", "a"]),
        &t.ok(&["exec", "webserver", "ip", "r"]),
    );
    let (pid, to) = (Some(host.neighbour()), format!("{ADDRESS}:8080"));
    let page = eventually("the banner comes", 20, || net::fetch(pid, &to).ok());
    assert_eq!(page, banner());
    t.run(&["ps"])
        .shows("0.0.0.0:8080->80/tcp")
        .shows("webserver")
        .shows("Up ");
    t.run(&["port", "webserver"])
        .prints("80/tcp -> 0.0.0.0:8080\n");
}

/// `ip a` and `ip r` as the page has them: all that does not change from machine to machine.
fn shows_the_pages_network(addresses: &str, routes: &str) {
    let addresses = addresses.replace('\r', "");
    let tap = addresses
        .split_once("2: tap0: ")
        .unwrap_or_else(|| panic!("no tap0 in second place\n{addresses}"))
        .1;
    assert!(
        tap.starts_with("<BROADCAST,UP,LOWER_UP> mtu 65520 qdisc "),
        "{addresses}"
    );
    let ether = tap
        .split_once("link/ether ")
        .expect("an ethernet address")
        .1;
    let first = u8::from_str_radix(&ether[..2], 16).unwrap();
    assert!(
        first & 3 == 2,
        "not a locally administered address of one station: {ether}"
    );
    assert!(
        ether[17..].starts_with(" brd ff:ff:ff:ff:ff:ff"),
        "{addresses}"
    );
    assert!(
        tap.contains("inet 10.0.2.100/24 brd 10.0.2.255 scope global tap0"),
        "{addresses}"
    );
    assert!(addresses.contains("inet 127.0.0.1/8"), "{addresses}");
    let routes = routes.replace('\r', "");
    let default: Vec<&str> = routes
        .lines()
        .filter(|l| l.starts_with("default"))
        .map(str::trim_end)
        .collect();
    assert_eq!(default, ["default via 10.0.2.2 dev tap0"], "{routes}");
}

fn page(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    if let Err(reason) = lab().images("debian") {
        return skip(&reason);
    }
    web_server(t, &host);

    // The second container, by hand, in a terminal. Debian stands in for Alpine: its packages are at hand.
    let image = host.image("debian");
    t.ok(&["pull", "-q", &image]);
    // Wide enough that no line that is typed is broken.
    let mut cliente = t.terminal_of(50, 250, &["run", "-it", "--name", "cliente", &image]);
    cliente.expect("# ");
    let mut type_in = |line: &str| {
        cliente.send(&format!("{line}; echo \"=$?=\"\r"));
        // What is typed comes back first.
        cliente.expect("\"=$?=\"");
        let output = cliente.expect("=0=").replace('\r', "");
        cliente.expect("# ");
        output
    };
    // This Debian has no ip command: the kernel's own tables say the same.
    let addresses = type_in("cat /proc/net/fib_trie");
    assert!(
        addresses.contains("10.0.2.100") && addresses.contains("/32 host LOCAL"),
        "{addresses}"
    );
    let routes = type_in("cat /proc/net/route");
    // Destination 0, gateway 10.0.2.2, in the order of bytes of this machine.
    assert!(
        routes
            .lines()
            .any(|l| l.starts_with("tap0\t00000000\t0202000A")),
        "{routes}"
    );
    assert!(type_in("cat /sys/class/net/tap0/mtu").contains("65520"));
    // The first container cannot be reached by the address that both have.
    assert!(type_in("(exec 3<>/dev/tcp/10.0.2.100/80) 2>&1 | tail -n1; true").contains("refused"));
    // Names resolve, packages are installed over the network.
    assert!(type_in("getent hosts web.lab.test").contains("10.0.0.80"));
    type_in("apt-get update");
    let installed = type_in("apt-get install -y curl");
    assert!(installed.contains("Setting up curl"), "{installed}");
    let page = type_in(&format!("curl http://{ADDRESS}:8080"));
    assert!(page.contains(banner().trim_end()), "{page}");
    cliente.send("exit\r");
    assert_eq!(cliente.wait(), 0, "{}", cliente.story());
    assert!(cliente.is_restored(), "the terminal is not as it was");
    drop(cliente);

    assert_eq!(
        t.inspect("cliente", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 0"
    );
    the_end(t, &host);
}

fn page_with_busybox(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    page_on(t, &host);
}

/// The whole page on `host`, with small images.
pub fn page_on(t: &mut Rcon, host: &Arc<Host>) {
    web_server(t, host);
    let image = host.image("busybox");
    let mut cliente = t.terminal(&["run", "-it", "--name", "cliente", "-q", &image]);
    cliente.expect("/ # ");
    let mut type_in = |line: &str| {
        cliente.send(&format!("{line}\r"));
        cliente.expect("\n");
        cliente.expect("/ # ")
    };
    let (addresses, routes) = (type_in("ip a"), type_in("ip r"));
    // The second container has the same address as the first.
    shows_the_pages_network(&addresses, &routes);
    assert!(type_in("wget -O - http://10.0.2.100:80").contains("refused"));
    assert!(type_in("nslookup web.lab.test").contains("10.0.0.80"));
    type_in("wget -q http://deb.lab.test/curl.deb && dpkg -i curl.deb");
    let page = type_in(&format!("curl http://{ADDRESS}:8080")).replace('\r', "");
    assert!(page.contains(banner().trim_end()), "{page}");
    cliente.send("exit\r");
    assert_eq!(cliente.wait(), 0, "{}", cliente.story());
    assert!(cliente.is_restored());
    drop(cliente);
    the_end(t, host);
}

/// The same where containers have copies of their layers.
fn page_without_overlay(t: &mut Rcon) {
    t.set_env("STORAGE_DRIVER", "vfs");
    page_with_busybox(t);
}

/// Everything goes away: the port is free at once.
fn the_end(t: &mut Rcon, host: &Arc<Host>) {
    t.run(&["rm", "-f", "-t", "0", "webserver", "cliente"])
        .prints("webserver\ncliente\n")
        .quiet();
    net::inside(Some(host.pid()), || {
        std::net::TcpListener::bind((ADDRESS, 8080)).map(drop)
    })
    .expect("port 8080 is free");
}

/// `examples/demo`, the README's first command, with the program that is being tested.
fn demonstration(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    let banner = std::path::Path::new(env!("CARGO_BIN_EXE_rcon")).with_file_name("banner");
    if !banner.exists() {
        return skip("no banner program beside rcon: cargo build --workspace");
    }
    t.move_to(&host);
    let copy = |from: &std::path::Path, name: &str| {
        let path = t.write(name, std::fs::read(from).unwrap());
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        path
    };
    let demo = copy(&crate::lab::script("../../examples/demo"), "examples/demo");
    let banner = copy(&banner, "bin/banner");
    t.set_env("RCON", t.program.clone().to_str().unwrap());
    t.set_env("BANNER", &banner);
    let out =
        crate::lab::program::Running::start(t.command_of(&[demo]), std::process::Stdio::null())
            .wait();
    out.code(0)
        .says("cannot expose privileged port 80")
        .shows("inet 10.0.2.100/24")
        .shows("default via 10.0.2.2 dev tap0");
    let last_line = r"/_/   \___/\_,_/_/_/_/\_,_/_//_/";
    assert!(
        out.stdout.matches(last_line).count() == 2,
        "the banner comes twice\n{}",
        out.story()
    );
    t.has_containers(0);
}
