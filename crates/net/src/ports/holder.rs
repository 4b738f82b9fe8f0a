//! Who holds a port: the socket's inode from /proc/net, the process that has it open from /proc.
//!
//! Only processes of the same user can be looked into; for others nothing is said.

use std::fs;

use crate::ports::mapping::Protocol;

/// The name and process id of a program that listens on the port, where it can be seen.
pub(crate) fn of_port(protocol: Protocol, port: u16) -> Option<String> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(protocol, &table, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let links: Vec<String> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        let holds = descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
        });
        if holds {
            let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let program = match program.trim_end() {
                "" => "a program",
                name => name,
            };
            return Some(format!("{program} (pid {pid})"));
        }
    }
    None
}

/// The inodes of sockets that hold the port, from a table in the form of proc_net_tcp(5):
/// number, local address, remote address, state, queues, timers, retransmits, uid, timeout, inode.
fn listening_inodes(protocol: Protocol, table: &str, port: u16) -> Vec<String> {
    /// include/net/tcp_states.h
    const TCP_LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (_, hex) = fields.get(1)?.rsplit_once(':')?;
            let listens = protocol == Protocol::Udp || *fields.get(3)? == TCP_LISTEN;
            (listens && u16::from_str_radix(hex, 16) == Ok(port))
                .then(|| fields.get(9).map(|inode| (*inode).to_owned()))
                .flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listening_socket_is_found_in_the_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  2001        0 4711 1 0 100 0 0 10 0\n   1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000  2001        0 4712 1 0 100 0 0 10 0\n";
        assert_eq!(listening_inodes(Protocol::Tcp, table, 8080), ["4711"]);
        assert!(listening_inodes(Protocol::Tcp, table, 80).is_empty());
        assert!(listening_inodes(Protocol::Tcp, "x\nshort line\n", 80).is_empty());
    }
}
