//! `ip a` and `ip r`, as far as /proc and /sys tell.

use std::fs;
use std::net::Ipv4Addr;

use crate::words;

/// A line of /proc/net/route: an IPv4 route of the main table.
struct Route {
    device: String,
    destination: u32,
    gateway: u32,
    mask: u32,
}

/// Prints each interface with its state, link-layer address and IP addresses.
pub fn addresses() -> Result<(), String> {
    let routes = read_routes()?;
    let locals = local_addresses();
    let mut devices: Vec<(u32, String)> = fs::read_dir("/sys/class/net")
        .map_err(|error| format!("cannot list the interfaces: {}", words(&error)))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .map(|name| (fact(&name, "ifindex").parse().unwrap_or(0), name))
        .collect();
    devices.sort();
    for (index, name) in devices {
        let flags = u32::from_str_radix(fact(&name, "flags").trim_start_matches("0x"), 16);
        let flags = flag_names(flags.unwrap_or(0), &fact(&name, "carrier"));
        println!(
            "{index}: {name}: <{flags}> mtu {} state {} qlen {}",
            fact(&name, "mtu"),
            fact(&name, "operstate").to_uppercase(),
            fact(&name, "tx_queue_len"),
        );
        let kind = if name == "lo" { "loopback" } else { "ether" };
        println!(
            "    link/{kind} {} brd {}",
            fact(&name, "address"),
            fact(&name, "broadcast")
        );
        for address in &locals {
            print_inet(&name, *address, &routes);
        }
        for line in fs::read_to_string("/proc/net/if_inet6")
            .unwrap_or_default()
            .lines()
        {
            print_inet6(&name, line);
        }
    }
    Ok(())
}

/// Prints the default route first, then the others.
pub fn routes() -> Result<(), String> {
    for route in read_routes()? {
        let gateway = Ipv4Addr::from(route.gateway);
        let destination = match route.mask {
            0 => "default".to_owned(),
            mask => format!(
                "{}/{}",
                Ipv4Addr::from(route.destination),
                mask.count_ones()
            ),
        };
        if gateway.is_unspecified() {
            println!("{destination} dev {} scope link", route.device);
        } else {
            println!("{destination} via {gateway} dev {}", route.device);
        }
    }
    Ok(())
}

fn fact(device: &str, name: &str) -> String {
    let text = fs::read_to_string(format!("/sys/class/net/{device}/{name}"));
    text.unwrap_or_default().trim().to_owned()
}

/// Flag bits of netdevice(7), in the order in which ip(8) shows them.
fn flag_names(flags: u32, carrier: &str) -> String {
    let mut names = Vec::new();
    for (bit, name) in [
        (0x8, "LOOPBACK"),
        (0x2, "BROADCAST"),
        (0x1000, "MULTICAST"),
        (0x1, "UP"),
    ] {
        if flags & bit != 0 {
            names.push(name);
        }
    }
    if carrier == "1" {
        names.push("LOWER_UP");
    }
    names.join(",")
}

fn read_routes() -> Result<Vec<Route>, String> {
    let text = fs::read_to_string("/proc/net/route")
        .map_err(|error| format!("cannot read the routes: {}", words(&error)))?;
    let hex = |word: &str| u32::from_str_radix(word, 16).map(u32::from_be).unwrap_or(0);
    let mut routes: Vec<Route> = text
        .lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Some(Route {
                device: (*words.first()?).to_owned(),
                destination: hex(words.get(1)?),
                gateway: hex(words.get(2)?),
                mask: hex(words.get(7)?),
            })
        })
        .collect();
    routes.sort_by_key(|route| route.mask);
    Ok(routes)
}

/// The addresses that /proc/net/fib_trie marks as `/32 host LOCAL`.
fn local_addresses() -> Vec<Ipv4Addr> {
    let text = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut leaf = None;
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(address) = line.trim().strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = leaf.take()
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// An address belongs to the interface that has the route to its own network.
fn print_inet(device: &str, address: Ipv4Addr, routes: &[Route]) {
    if address.is_loopback() {
        if device == "lo" {
            println!("    inet {address}/8 scope host lo");
        }
        return;
    }
    let home = routes
        .iter()
        .find(|route| route.mask != 0 && u32::from(address) & route.mask == route.destination);
    if let Some(route) = home.filter(|route| route.device == device) {
        let broadcast = Ipv4Addr::from(u32::from(address) | !route.mask);
        let length = route.mask.count_ones();
        println!("    inet {address}/{length} brd {broadcast} scope global {device}");
    }
}

/// A line of /proc/net/if_inet6: address, index, prefix length, scope, flags, device.
fn print_inet6(device: &str, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [address, _, length, scope, _, name] = words[..] else {
        return;
    };
    if name != device {
        return;
    }
    let Ok(address) = u128::from_str_radix(address, 16) else {
        return;
    };
    let length = u32::from_str_radix(length, 16).unwrap_or(0);
    let scope = match scope {
        "10" => "host",
        "20" => "link",
        _ => "global",
    };
    println!(
        "    inet6 {}/{length} scope {scope}",
        std::net::Ipv6Addr::from(address)
    );
}
