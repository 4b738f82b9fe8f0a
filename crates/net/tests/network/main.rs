//! Containers with a network, on a host made of namespaces: as any user, no other program.
//!
//! One process of the host runs servers; each test makes a container. Where namespaces or taps
//! cannot be had the tests are skipped, loudly, and never in CI.

mod cable;
mod datagrams;
mod lab;
mod servers;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use datagrams::{exchange, exchange_bursts, udp, udp_goes_out};
use lab::{HOST_V4, HOST_V6, with_container};
use rcon_net::{Config, Listeners, PortHandler, PortMapping};
use servers::{BOTH_WAYS, BRIEF, ECHO, NOBODY, PRIVATE, RESET, SINK, SOURCE, WHO};

/// Nothing here is meant to take it: a machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);
/// The port of a server that keeps its connections.
const MANY: u16 = 9020;
/// How much is sent in one direction, in bytes.
const BULK: usize = 20_000_000;

fn main() {
    if std::fs::File::open("/dev/net/tun").is_err() {
        return skip("/dev/net/tun cannot be opened");
    }
    let tests: [(&str, fn()); 17] = [
        ("tcp_goes_out", tcp_goes_out),
        ("tcp_goes_out_at_every_mtu", tcp_goes_out_at_every_mtu),
        ("many_connections_at_once", many_connections_at_once),
        ("noise_does_not_stop_it", noise_does_not_stop_it),
        ("streams_stay_whole_on_a_bad_cable", a_bad_cable),
        ("connections_come_and_go", connections_come_and_go),
        ("without_descriptors", without_descriptors),
        ("urgent_bytes_stay_in_their_place", urgent_bytes),
        ("tcp_goes_out_at_mtu_1500", tcp_goes_out_at_mtu_1500),
        ("failures_are_told", failures_are_told),
        ("the_other_end_is_asked_for", the_other_end_is_asked_for),
        ("udp_goes_out", udp_goes_out),
        ("names_are_resolved", names_are_resolved),
        ("pings_go_out", pings_go_out),
        ("host_loopback_is_there_when_asked_for", host_loopback),
        ("ports_keep_client_addresses", ports_keep_client_addresses),
        ("the_namespace_is_as_the_page_shows", the_namespace),
    ];
    let only = std::env::args()
        .nth(1)
        .filter(|name| !name.starts_with('-'));
    let run = || {
        let servers = lab::child(|| {
            for address in [HOST_V4, HOST_V6] {
                servers::start(address.parse().unwrap());
            }
            servers::serve_who(Ipv4Addr::LOCALHOST.into(), PRIVATE);
            servers::start_resolver();
            servers::start_brief(HOST_V4.parse().unwrap());
            loop {
                std::thread::park();
            }
        });
        wait_for(SocketAddr::new(HOST_V6.parse().unwrap(), RESET));
        wait_for("127.0.0.53:53".parse().unwrap());
        for (name, test) in tests {
            if only.as_deref().is_none_or(|only| name.contains(only)) {
                test();
                println!("test {name} ... ok");
            }
        }
        servers.kill();
    };
    match lab::on_a_host(run) {
        Ok(status) if status.success() => println!("network: all passed"),
        Ok(_) => std::process::exit(1),
        Err(error) => skip(&format!("namespaces cannot be made: {error}")),
    }
}

fn skip(why: &str) {
    println!("SKIPPED: the tests of the network: {why}");
    if std::env::var_os("CI").is_some() {
        std::process::exit(1);
    }
}

fn wait_for(address: SocketAddr) {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < end, "nobody serves {address}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn with_ipv6() -> Config {
    Config {
        ipv6: true,
        ..Config::default()
    }
}

fn inside(config: &Config, f: impl FnOnce()) {
    with_container(config, Listeners::default(), f, || {});
}

fn host(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// Listens on the host at [`MANY`]. Who accepts does not wait for ever for a container that has failed.
fn listen() -> TcpListener {
    use rustix::net::sockopt;
    let listener = TcpListener::bind((HOST_V4, MANY)).unwrap();
    sockopt::set_socket_timeout(&listener, sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
    listener
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn tcp_goes_out() {
    inside(&with_ipv6(), || {
        for address in [HOST_V4, HOST_V6] {
            transfer(address);
            // Everybody outside sees the host.
            assert_eq!(servers::ask_who(host(address, WHO)), address);
            let mut stream = connect(host(address, RESET)).unwrap();
            stream.write_all(b"x").unwrap();
            let error = stream.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

fn tcp_goes_out_at_mtu_1500() {
    let config = Config {
        mtu: 1500,
        ..with_ipv6()
    };
    inside(&config, || {
        transfer(HOST_V4);
        transfer(HOST_V6);
    });
}

fn tcp_goes_out_at_every_mtu() {
    for mtu in [1280, 1500, 9000, 32768, 65520] {
        let config = Config { mtu, ..with_ipv6() };
        inside(&config, || {
            for address in [HOST_V4, HOST_V6] {
                exchange_digest(address, 1_000_000);
            }
        });
    }
}

/// Sends so many bytes and hears their digest.
fn exchange_digest(address: &str, length: usize) {
    let bytes: Vec<u8> = (0..length).map(servers::pattern).collect();
    let mut stream = connect(host(address, SINK)).unwrap();
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[8..], servers::digest(0, &bytes).to_be_bytes());
}

fn many_connections_at_once() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // The network has a descriptor for each, and takes half of what it may have for TCP.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let wanted = usize::try_from(hard / 2 - 100).unwrap().min(10_000);
    let listener = listen();
    let container = || {
        let mut streams = Vec::new();
        for n in 0..wanted {
            let stream = connect(host(HOST_V4, MANY));
            streams.push(stream.unwrap_or_else(|error| panic!("connection {n}: {error}")));
        }
        // Among so many, one more works like any; and the last and the first are alive.
        exchange_digest(HOST_V4, 1_000_000);
        for n in [0, wanted - 1] {
            streams[n].write_all(b"?").unwrap();
        }
        drop(streams);
        exchange_digest(HOST_V4, 1_000_000);
    };
    let outside = move || {
        let mut streams: Vec<TcpStream> =
            (0..wanted).map(|_| listener.accept().unwrap().0).collect();
        for stream in [0, wanted - 1] {
            let stream = &mut streams[stream];
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        }
    };
    with_container(&Config::default(), Listeners::default(), container, outside);
}

/// As much as is asked for goes each way at the same time, while frames are lost, doubled and
/// overtaken.
fn a_bad_cable() {
    let length = asked_for("RCON_TEST_NETWORK_BYTES").unwrap_or(16 << 20);
    for (mtu, address) in [(65520, HOST_V4), (1500, HOST_V6)] {
        let config = Config { mtu, ..with_ipv6() };
        let container = || {
            let mut stream = connect(host(address, BOTH_WAYS)).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            stream.write_all(&length.to_be_bytes()).unwrap();
            let mut writer = stream.try_clone().unwrap();
            let writing = std::thread::spawn(move || {
                servers::send_stretch(&mut writer, length).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let right = servers::receive_stretch(&mut stream, length).unwrap();
            assert_eq!(right, length, "in");
            writing.join().unwrap();
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(u64::from_be_bytes(answer), length, "out");
            assert_eq!(stream.read(&mut answer).unwrap(), 0);
        };
        lab::over_a_cable(&config, Listeners::default(), Some(100), container, || {});
    }
}

/// What the environment asks for, where somebody wants more than CI does.
fn asked_for(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap())
}

/// One connection after another.
fn connections_come_and_go() {
    let wanted = asked_for("RCON_TEST_NETWORK_CONNECTIONS").unwrap_or(5_000);
    inside(&Config::default(), || {
        for n in 0..wanted {
            let to = host(HOST_V4, BRIEF[n as usize % BRIEF.len()]);
            let mut stream = connect(to).unwrap_or_else(|error| panic!("connection {n}: {error}"));
            stream.write_all(b"?").unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1, "connection {n}");
        }
        exchange_digest(HOST_V4, 1_000_000);
    });
}

/// The process that serves has no descriptor left for one more connection: it waits, is turned
/// away or fails, and all is well again when there are some.
fn without_descriptors() {
    use nix::sys::resource::{Resource, setrlimit};
    /// Its own take some twenty.
    const DESCRIPTORS: u64 = 40;
    let all = lab::child(|| {
        setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS).unwrap();
        inside(&Config::default(), || {
            let try_connect = || {
                let to = host(HOST_V4, BRIEF[0]);
                TcpStream::connect_timeout(&to, Duration::from_millis(300))
            };
            let mut streams = Vec::new();
            while let Ok(stream) = try_connect() {
                streams.push(stream);
            }
            assert!((4..=20).contains(&streams.len()), "{}", streams.len());
            // Those that are there work, and datagrams find room, or make it.
            streams[0].write_all(b"?").unwrap();
            assert_eq!(streams[0].read(&mut [0; 8]).unwrap(), 1);
            let who = exchange(&udp(host(HOST_V4, ECHO)), b"who");
            assert_eq!(who, HOST_V4.as_bytes());
            drop(streams);
            let mut again = (0..100).find_map(|_| try_connect().ok()).unwrap();
            again.write_all(b"?").unwrap();
            assert_eq!(again.read(&mut [0; 8]).unwrap(), 1);
        });
    });
    all.succeed();
}

/// Urgent bytes lose their urgency on the way, and nothing else.
fn urgent_bytes() {
    /// Enough for bytes to be spliced.
    const BEFORE: usize = 1_000_000;
    let config = {
        let ports = PortMapping::parse("18020:9020").unwrap();
        Config {
            ports,
            ..Config::default()
        }
    };
    let listeners = rcon_net::bind(&config.ports).unwrap();
    let listener = listen();
    let urgently = |stream: &TcpStream| {
        let stream = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            let none = rustix::net::SendFlags::empty();
            let long = vec![b'.'; BEFORE];
            for (bytes, flags) in [
                (&long[..], none),
                (b"fo!", rustix::net::SendFlags::OOB),
                (&long, none),
            ] {
                let mut sent = 0;
                while sent < bytes.len() {
                    sent += rustix::net::send(&stream, &bytes[sent..], flags).unwrap();
                }
            }
            stream.shutdown(Shutdown::Write).unwrap();
        })
    };
    let heard = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        rustix::net::sockopt::set_socket_oobinline(&stream, true).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        assert_eq!(all.len(), 2 * BEFORE + 3);
        assert_eq!(&all[BEFORE - 1..BEFORE + 4], ".fo!.");
    };
    let exchange = move |stream: TcpStream| {
        let sending = urgently(&stream);
        heard(stream);
        sending.join().unwrap();
    };
    let container = move || {
        let inner = TcpListener::bind(("0.0.0.0", MANY)).unwrap();
        exchange(connect(host(HOST_V4, MANY)).unwrap());
        exchange(inner.accept().unwrap().0);
    };
    let outside = move || {
        exchange(listener.accept().unwrap().0);
        exchange(connect(host(HOST_V4, 18020)).unwrap());
    };
    with_container(&config, listeners, container, outside);
}

fn noise_does_not_stop_it() {
    inside(&with_ipv6(), || {
        noise();
        for address in [HOST_V4, HOST_V6] {
            exchange_digest(address, 1_000_000);
            assert_eq!(
                exchange(&udp(host(address, ECHO)), b"who"),
                address.as_bytes()
            );
        }
    });
}

/// Frames that nobody should send: garbage, floods of broadcasts, somebody who says to be the
/// gateway, and openings of connections that nobody goes on with.
fn noise() {
    use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Packet, SockType::Raw, flags, None).unwrap();
    let card = nix::ifaddrs::getifaddrs()
        .unwrap()
        .filter(|interface| interface.interface_name == "tap0")
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .unwrap();
    socket::bind(socket.as_raw_fd(), &card).unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let gateway = [0x52, 0x55, 0x0a, 0, 2, 2];
    for n in 0..40_000_u64 {
        let length = 14 + (next() % 200) as usize;
        let mut frame: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        frame[..6].copy_from_slice(match n % 3 {
            0 => &[0xff; 6],
            _ => &gateway,
        });
        let ethertype: u16 = [0x0800, 0x86dd, 0x0806, 0x88cc][(n % 4) as usize];
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        if ethertype == 0x0800 && length > 60 {
            // A SYN from the container to somewhere, with ports and sequence of chance.
            frame[14] = 0x45;
            let total = (length - 14) as u16;
            frame[16..18].copy_from_slice(&total.to_be_bytes());
            frame[20..22].fill(0);
            frame[23] = 6;
            frame[26..30].copy_from_slice(&[10, 0, 2, 100]);
            frame[30..34].copy_from_slice(&[10, 0, 0, 67]);
            frame[46] = 0x50;
            frame[47] = 2;
        }
        if ethertype == 0x0806 && length >= 42 {
            // "I am the gateway."
            frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
            frame[28..32].copy_from_slice(&[10, 0, 2, 2]);
        }
        // The device's queue may be full: then this one is lost, as on any cable.
        let _ = socket::send(socket.as_raw_fd(), &frame, MsgFlags::empty());
    }
}

/// Sends much and receives much, whole, with one direction ended before the other.
fn transfer(address: &str) {
    let bytes: Vec<u8> = (0..BULK).map(servers::pattern).collect();
    let sum = servers::digest(0, &bytes);
    let mut stream = connect(host(address, SINK)).unwrap();
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..8], (BULK as u64).to_be_bytes());
    assert_eq!(answer[8..], sum.to_be_bytes());

    let mut stream = connect(host(address, SOURCE)).unwrap();
    stream.write_all(&(BULK as u64).to_be_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert!(received == bytes);
}

fn failures_are_told() {
    inside(&with_ipv6(), || {
        let kind = |address: &str, port| connect(host(address, port)).unwrap_err().kind();
        assert_eq!(kind(HOST_V4, NOBODY), ErrorKind::ConnectionRefused);
        assert_eq!(kind(HOST_V6, NOBODY), ErrorKind::ConnectionRefused);
        // The host has no route there.
        assert_eq!(kind("192.0.2.1", 80), ErrorKind::NetworkUnreachable);
        assert_eq!(kind("2001:db8::1", 80), ErrorKind::NetworkUnreachable);
        // Closed, though the host listens there.
        assert_eq!(kind("10.0.2.2", PRIVATE), ErrorKind::ConnectionRefused);
        assert_eq!(kind("fd00::2", PRIVATE), ErrorKind::ConnectionRefused);
        assert_eq!(kind("10.0.2.3", 80), ErrorKind::ConnectionRefused);
    });
}

/// Who asks from time to time whether the other end is there has the host ask; and clients of published ports are asked.
fn the_other_end_is_asked_for() {
    use rustix::net::sockopt;
    let mut config = Config::default();
    config
        .ports
        .extend(PortMapping::parse("18020:9020").unwrap());
    let listeners = rcon_net::bind(&config.ports).unwrap();
    let (done, finished) = io::pipe().unwrap();
    let (mut ready, told) = io::pipe().unwrap();
    let container = move || {
        let service = TcpListener::bind(("0.0.0.0", MANY)).unwrap();
        let stream = connect(host(HOST_V4, SOURCE)).unwrap();
        sockopt::set_tcp_keepidle(&stream, Duration::from_secs(1)).unwrap();
        sockopt::set_socket_keepalive(&stream, true).unwrap();
        let idle = connect(host(HOST_V4, SINK)).unwrap();
        drop(told);
        let client = service.accept().unwrap();
        let _ = { done }.read(&mut [0; 1]);
        drop((stream, idle, client));
    };
    // The first of the lines of connections that are open with such a port there, or here, that has a timer, or has none.
    let found = |column: usize, port: u16, timer: bool| {
        let end = format!(":{port:04X}");
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let open = words.get(3) == Some(&"01");
            open && words[column].ends_with(&end) && words[5].starts_with("02") == timer
        })
    };
    with_container(&config, listeners, container, move || {
        let _ = ready.read(&mut [0; 1]);
        let client = connect(host("127.0.0.1", 18020)).unwrap();
        let start = Instant::now();
        while !(found(2, SOURCE, true) && found(1, 18020, true)) {
            assert!(start.elapsed() < PATIENCE, "nobody asks");
            std::thread::sleep(Duration::from_millis(50));
        }
        // Who does not ask is not asked for.
        assert!(found(2, SINK, false) && !found(2, SINK, true));
        drop((client, finished));
    });
}

fn names_are_resolved() {
    let config = Config {
        // Nobody answers at the first.
        dns: vec![
            Ipv4Addr::new(127, 0, 0, 99).into(),
            servers::RESOLVER.parse().unwrap(),
        ],
        ..with_ipv6()
    };
    inside(&config, || {
        for server in ["10.0.2.3", "fd00::3"] {
            let socket = udp(host(server, 53));
            let answer = exchange(&socket, &servers::query("www"));
            assert!(answer.ends_with(&[0, 4, 192, 0, 2, 7]));
            // Longer than fits into a frame of common length.
            let answer = exchange(&socket, &servers::query("big"));
            assert!(answer.len() > 10_000);

            let query = servers::query("www");
            let mut stream = connect(host(server, 53)).unwrap();
            let length = (query.len() as u16).to_be_bytes();
            stream.write_all(&[&length, &query[..]].concat()).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert!(answer.ends_with(&[0, 4, 192, 0, 2, 7]));
        }
    });
}

fn pings_go_out() {
    use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};
    inside(&with_ipv6(), || {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
        let ping = |address: &str, request: u8| {
            let to = host(address, 0);
            let (family, protocol) = match to {
                SocketAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
                SocketAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
            };
            let socket = rustix::net::socket(family, SocketType::DGRAM, Some(protocol)).unwrap();
            let timeout = sockopt::Timeout::Recv;
            sockopt::set_socket_timeout(&socket, timeout, Some(PATIENCE)).unwrap();
            rustix::net::connect(&socket, &to).unwrap();
            let message = [&[request, 0, 0, 0, 0, 0, 0, 7][..], b"payload"].concat();
            rustix::net::send(&socket, &message, rustix::net::SendFlags::empty()).unwrap();
            let mut answer = [0; 100];
            let flags = rustix::net::RecvFlags::empty();
            let (count, _) = rustix::net::recv(&socket, &mut answer[..], flags)?;
            assert_eq!(&answer[6..count], b"\0\x07payload");
            Ok::<(), rustix::io::Errno>(())
        };
        for address in [HOST_V4, "10.0.2.2", "10.0.2.3"] {
            ping(address, 8).unwrap();
        }
        for address in [HOST_V6, "fd00::2", "fd00::3"] {
            ping(address, 128).unwrap();
        }
    });
}

fn host_loopback() {
    let config = Config {
        allow_host_loopback: true,
        ..Config::default()
    };
    inside(&config, || {
        assert_eq!(servers::ask_who(host("10.0.2.2", PRIVATE)), "127.0.0.1");
        let error = connect(host("10.0.2.2", NOBODY)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

fn ports_keep_client_addresses() {
    for (handler, loopback_v4, loopback_v6) in [
        (PortHandler::Rootlesskit, "10.0.2.100", "fd00::100"),
        (PortHandler::Slirp4netns, "10.0.2.2", "fd00::2"),
    ] {
        let mut config = Config {
            port_handler: handler,
            ..with_ipv6()
        };
        for port in ["18000-18001:9000-9001", "18010:9010/udp", "18009:9"] {
            config.ports.extend(PortMapping::parse(port).unwrap());
        }
        let listeners = rcon_net::bind(&config.ports).unwrap();
        let (done, finished) = io::pipe().unwrap();
        let (mut ready, told) = io::pipe().unwrap();
        let container = move || {
            servers::start(Ipv4Addr::UNSPECIFIED.into());
            // Mapped addresses are the other family's business.
            servers::start(container_v6());
            drop(told);
            let _ = { done }.read(&mut [0; 1]);
        };
        with_container(&config, listeners, container, move || {
            // The container holds the other end until its servers are there.
            let _ = ready.read(&mut [0; 1]);
            for (address, seen) in [
                ("127.0.0.1", loopback_v4),
                ("::1", loopback_v6),
                (HOST_V4, HOST_V4),
                (HOST_V6, HOST_V6),
            ] {
                assert_eq!(servers::ask_who(host(address, 18000)), seen);
                let socket = udp(host(address, 18010));
                assert_eq!(exchange(&socket, b"who"), seen.as_bytes());
                assert_eq!(exchange(&socket, &[7; 65_000]), [7; 65_000]);
                exchange_bursts(&socket);
                upload(host(address, 18001));
                // Nobody listens inside.
                let refused = connect(host(address, 18009)).and_then(|mut s| s.read(&mut [0; 1]));
                let kind = refused.unwrap_err().kind();
                assert!(matches!(
                    kind,
                    ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
                ));
            }
            drop(finished);
        });
    }
}

/// The address of the container, of the family that its IPv4 servers leave alone.
fn container_v6() -> IpAddr {
    "fd00::100".parse().unwrap()
}

fn upload(to: SocketAddr) {
    let bytes: Vec<u8> = (0..BULK).map(servers::pattern).collect();
    let mut stream = connect(to).unwrap();
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[8..], servers::digest(0, &bytes).to_be_bytes());
}

fn the_namespace() {
    inside(&with_ipv6(), || {
        let addresses: Vec<String> = nix::ifaddrs::getifaddrs()
            .unwrap()
            .filter(|interface| interface.interface_name == "tap0")
            .filter_map(|interface| Some(interface.address?.to_string()))
            .collect();
        assert!(
            addresses.contains(&"10.0.2.100:0".to_owned()),
            "{addresses:?}"
        );
        assert!(
            addresses.contains(&"[fd00::100]:0".to_owned()),
            "{addresses:?}"
        );
        assert!(!addresses.iter().any(|address| address.contains("fe80")));
        let routes = std::fs::read_to_string("/proc/net/route").unwrap();
        // Destination 0.0.0.0 by 10.0.2.2, in the machine's byte order.
        let gateway = format!("{:08X}", u32::from_ne_bytes([10, 0, 2, 2]));
        assert!(
            routes.contains(&format!("tap0\t00000000\t{gateway}")),
            "{routes}"
        );
        let congestion = "/proc/sys/net/ipv4/tcp_congestion_control";
        assert_eq!(std::fs::read_to_string(congestion).unwrap(), "reno\n");
    });
}
