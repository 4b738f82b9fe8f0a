//! The page's host: a machine made of namespaces with the address 10.0.0.67 on a network, and a neighbour on it.
//!
//! Two processes hold two network namespaces, joined by a pair of interfaces. The host's has the address of the
//! page, a default route and a resolver of its own (in a mount namespace of its own, where /etc/resolv.conf is
//! another file); nothing else: no registry, no way out. The neighbour's has the name server, the package
//! repository and whatever a scenario puts there.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::service::Service;
use super::{apt, dns, eventually, lab, net, registry, skip};

/// The host's address on the network.
pub const ADDRESS: &str = "10.0.0.67";
/// The neighbour, who is also the gateway.
pub const NEIGHBOUR: &str = "10.0.0.1";
/// The port on the host's loopback where the lab's plain registry is.
pub const REGISTRY_PORT: u16 = 5000;

/// The host and its neighbour.
pub struct Host {
    host: Service,
    neighbour: Service,
}

/// Binds an address that was used a moment ago: what other scenarios start has the socket too, until it is the program that it
/// becomes.
fn free<T>(mut bind: impl FnMut() -> std::io::Result<T>) -> T {
    eventually("the address to be free", 20, || match bind() {
        Ok(socket) => Some(socket),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => None,
        Err(error) => panic!("{error}"),
    })
}

impl Host {
    /// Makes them, or says why that cannot be.
    pub fn new() -> Option<Arc<Host>> {
        if !lab().root {
            skip("a host with a network of its own needs root");
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let resolv = lab().base.join(format!(
            "resolv.conf.{}",
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::write(&resolv, "nameserver 10.0.0.53\n").unwrap();
        let start = |flags: &str, script: &str| {
            let mut service = Service::start(
                Path::new("unshare"),
                &[flags, "sh", "-c", script, "sh", resolv.to_str().unwrap()],
            );
            service.wait_for(Duration::from_secs(60), |line| {
                (line == "ready").then_some(())
            });
            service
        };
        let host = start(
            "-mn",
            "mount --bind \"$1\" /etc/resolv.conf && echo ready && read -r _",
        );
        let neighbour = start("-n", "echo ready && read -r _");
        let made = Arc::new(Host { host, neighbour });
        made.join();
        made.serve();
        Some(made)
    }

    /// The process that holds the host.
    pub fn pid(&self) -> u32 {
        self.host.pid()
    }

    /// The process that holds the neighbour.
    pub fn neighbour(&self) -> u32 {
        self.neighbour.pid()
    }

    /// A listener of the neighbour.
    pub fn listen(&self, address: &str) -> TcpListener {
        net::inside(Some(self.neighbour()), || {
            free(|| TcpListener::bind(address))
        })
    }

    /// A datagram socket of the neighbour.
    pub fn datagrams(&self, address: &str) -> UdpSocket {
        let socket = net::inside(Some(self.neighbour()), || free(|| UdpSocket::bind(address)));
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket
    }

    /// Runs a command as root on the host.
    #[track_caller]
    pub fn root(&self, words: &[&str]) -> String {
        inside(self.pid(), words, "")
    }

    /// The full name by which an image of the plain registry is known on the host.
    pub fn image(&self, name: &str) -> String {
        format!("127.0.0.1:{REGISTRY_PORT}/{name}:latest")
    }

    fn join(&self) {
        let (host, neighbour) = (self.pid(), self.neighbour());
        let out = Command::new("ip")
            .args([
                "link",
                "add",
                "lan0",
                "netns",
                &host.to_string(),
                "type",
                "veth",
            ])
            .args(["peer", "name", "lan0", "netns", &neighbour.to_string()])
            .output()
            .expect("ip");
        assert!(
            out.status.success(),
            "ip link add: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        let common = "link set lo up\nlink set lan0 up\n";
        let addresses = "address add 10.0.0.1/24 dev lan0\naddress add 10.0.0.53/24 dev lan0\n\
                         address add 10.0.0.80/24 dev lan0\naddress add fd10::1/64 dev lan0 nodad\n";
        inside(
            neighbour,
            &["ip", "-batch", "-"],
            &format!("{common}{addresses}"),
        );
        let addresses = "address add 10.0.0.67/24 brd + dev lan0\naddress add fd10::67/64 dev lan0 nodad\n\
                         route add default via 10.0.0.1\nroute add default via fd10::1\n";
        inside(
            host,
            &["ip", "-batch", "-"],
            &format!("{common}{addresses}"),
        );
    }

    fn serve(&self) {
        dns::serve(
            self.datagrams_forever("10.0.0.53:53"),
            self.listen("10.0.0.53:53"),
        );
        apt::serve_packages(self.listen("10.0.0.80:80"));
        let listener = net::inside(Some(self.pid()), || {
            TcpListener::bind(("127.0.0.1", REGISTRY_PORT)).unwrap()
        });
        relay(listener, registry::plain().address.clone());
    }

    fn datagrams_forever(&self, address: &str) -> UdpSocket {
        net::inside(Some(self.neighbour()), || UdpSocket::bind(address).unwrap())
    }
}

/// Runs a command as root in the namespaces of `pid`.
#[track_caller]
fn inside(pid: u32, words: &[&str], input: &str) -> String {
    let mut child = Command::new("nsenter")
        .args(["--target", &pid.to_string(), "--net", "--mount", "--"])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nsenter");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(
        out.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
}

/// Joins every connection to `listener` with one to `target`, made from this process's own namespace.
fn relay(listener: TcpListener, target: String) {
    std::thread::spawn(move || {
        for inner in listener.incoming().map_while(Result::ok) {
            let Ok(outer) = TcpStream::connect(&target) else {
                continue;
            };
            for (mut from, mut to) in [
                (inner.try_clone().unwrap(), outer.try_clone().unwrap()),
                (outer, inner),
            ] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
}
