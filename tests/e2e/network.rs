//! The network of a container: what it sees, whom it reaches, whom it must not reach.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::{Duration, Instant};

use crate::lab::host::{ADDRESS, Host, NEIGHBOUR};
use crate::lab::net::inside;
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, dns, eventually, lab, skip, tar};

scenarios!(
    what_it_sees,
    options,
    none,
    host,
    names,
    tcp_out,
    tcp_bulk,
    tcp_half_close,
    tcp_refusals,
    udp_out,
    ping,
    loopback_is_closed,
    loopback_opened,
    ipv6,
    many_connections,
);

fn what_it_sees(t: &mut Rcon) {
    let image = t.pull("busybox");
    let out = t.ok(&["run", "--rm", &image, "ip", "-o", "link"]);
    let names: Vec<&str> = out.lines().filter_map(|l| l.split(": ").nth(1)).collect();
    assert_eq!(names, ["lo", "tap0"], "{out}");
    assert!(
        out.lines().next().unwrap().contains("UP") && out.contains("mtu 65520"),
        "{out}"
    );
    t.run(&[
        "run", "--rm", &image, "ip", "-4", "-o", "addr", "show", "tap0",
    ])
    .shows("10.0.2.100/24 brd 10.0.2.255");
    t.run(&["run", "--rm", &image, "ip", "-4", "route"])
        .shows("default via 10.0.2.2 dev tap0")
        .shows("10.0.2.0/24 dev tap0");
    // Another address of the card each time.
    let card = || t.ok(&["run", "--rm", &image, "cat", "/sys/class/net/tap0/address"]);
    assert_ne!(card(), card());
}

fn options(t: &mut Rcon) {
    let image = t.pull("busybox");
    let run = |network: &str, script: &str| {
        t.sh(&["--network", network], &image, script)
            .ok()
            .to_owned()
    };
    assert!(run("slirp4netns:mtu=1500", "cat /sys/class/net/tap0/mtu").contains("1500"));
    let out = run(
        "slirp4netns:cidr=10.7.0.0/24",
        "ip -4 addr show tap0; ip -4 route; cat /etc/resolv.conf",
    );
    assert!(
        out.contains("10.7.0.100/24")
            && out.contains("via 10.7.0.2")
            && out.contains("nameserver 10.7.0.3"),
        "{out}"
    );
    let out = run("slirp4netns:enable_ipv6=false", "ip -6 addr show tap0");
    assert!(!out.contains("fd00::"), "{out}");
    let out = run("slirp", "ip -4 addr show tap0");
    assert!(out.contains("10.0.2.100/24"), "{out}");
}

fn none(t: &mut Rcon) {
    let image = t.pull("busybox");
    let run = |script: &str| t.sh(&["--network", "none"], &image, script);
    let out = run("ip -o addr");
    let only_lo = !out.ok().contains("tap0") && !out.stdout.contains("eth0");
    assert!(
        out.stdout.contains("127.0.0.1/8") && only_lo,
        "{}",
        out.story()
    );
    run("nc -w 2 10.0.2.2 80").code(1).says("unreachable");
}

fn host(t: &mut Rcon) {
    let image = t.pull("busybox");
    let inside = t.ok(&[
        "run",
        "--rm",
        "--network",
        "host",
        &image,
        "readlink",
        "/proc/self/ns/net",
    ]);
    assert_eq!(
        inside,
        std::fs::read_link("/proc/self/ns/net")
            .unwrap()
            .to_str()
            .unwrap()
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().port().to_string();
    let server = std::thread::spawn(move || listener.accept().map(drop));
    t.run(&[
        "run",
        "--rm",
        "--network=host",
        &image,
        "nc",
        "-w",
        "2",
        "127.0.0.1",
        &to,
    ])
    .code(0);
    server.join().unwrap().unwrap();
}

fn names(t: &mut Rcon) {
    let Some((_host, image)) = t.on_host("busybox") else {
        return;
    };
    let sh = |script: &str| t.run(&["run", "--rm", &image, "sh", "-c", script]);
    sh("cat /etc/resolv.conf").shows("nameserver 10.0.2.3");
    sh("nslookup -type=a web.lab.test")
        .code(0)
        .shows("10.0.0.80");
    sh("nslookup -type=a nosuch.lab.test")
        .code(1)
        .shows("NXDOMAIN");
    // An answer that one datagram does not hold, asked again over TCP by a client that can.
    let text = dns::big_text();
    let ask = "printf '\\0\\036\\1\\2\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3big\\3lab\\4test\\0\\0\\020\\0\\1' | nc -w 3 10.0.2.3 53 | tr -d '\\0-\\037' | tail -c 300";
    let out = sh(ask);
    assert!(
        out.stdout.contains(&text[text.len() - 150..]),
        "{}",
        out.story()
    );
    sh("wget -q -O - http://web.lab.test/Release")
        .code(0)
        .shows("SHA256");
}

fn tcp_out(t: &mut Rcon) {
    let Some((host, image)) = t.on_host("busybox") else {
        return;
    };
    let listener = host.listen("10.0.0.1:7000");
    let server = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        let mut line = [0; 5];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(b"pong\n").unwrap();
        (line, peer.ip().to_string())
    });
    t.sh(
        &[],
        &image,
        &format!("(echo ping; sleep 1) | nc {NEIGHBOUR} 7000"),
    )
    .prints("pong\n");
    // To the outside it is the host that speaks.
    assert_eq!(server.join().unwrap(), (*b"ping\n", ADDRESS.to_owned()));
}

fn tcp_bulk(t: &mut Rcon) {
    let Some((host, image)) = t.on_host("busybox") else {
        return;
    };
    const SIZE: usize = 64_000_000;
    for mtu in ["65520", "1500"] {
        let network = format!("slirp4netns:mtu={mtu}");
        let sh = |script: &str| {
            t.sh(&["--network", &network], &image, script)
                .ok()
                .to_owned()
        };

        // Out: the neighbour answers with the digest of what has arrived.
        let listener = host.listen("10.0.0.1:0");
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = Vec::with_capacity(SIZE);
            stream.read_to_end(&mut all).unwrap();
            writeln!(stream, "{}", tar::digest(&all)).unwrap();
        });
        let script = format!(
            "head -c {SIZE} /dev/urandom > /data; nc {NEIGHBOUR} {port} < /data; \
             echo sha256:$(sha256sum < /data | cut -c-64)"
        );
        let out = sh(&script);
        let sums: Vec<&str> = out.lines().collect();
        assert!(
            sums.len() == 2 && sums[0] == sums[1],
            "out, mtu {mtu}: {out}"
        );
        server.join().unwrap();

        // In.
        let listener = host.listen("10.0.0.1:0");
        let port = listener.local_addr().unwrap().port();
        let data: Vec<u8> = (0..SIZE as u64)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let sum = tar::digest(&data);
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&data).unwrap();
        });
        let script =
            format!("echo sha256:$(nc {NEIGHBOUR} {port} < /dev/null | sha256sum | cut -c-64)");
        assert_eq!(sh(&script), sum, "in, mtu {mtu}");
        server.join().unwrap();
    }
}

fn tcp_half_close(t: &mut Rcon) {
    let Some((host, image)) = t.on_host("busybox") else {
        return;
    };
    // The other side speaks only after it has read to the end.
    let listener = host.listen("10.0.0.1:7000");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        writeln!(stream, "{} bytes", all.len()).unwrap();
    });
    t.sh(
        &[],
        &image,
        &format!("head -c 100000 /dev/zero | nc {NEIGHBOUR} 7000"),
    )
    .prints("100000 bytes\n");
    server.join().unwrap();
    // The other side closes first and goes on reading. The small nc ends there; perl does not.
    if let Err(reason) = lab().images("debian") {
        return skip(&reason);
    }
    let listener = host.listen("10.0.0.1:7001");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"bye\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        all
    });
    let script = r#"
        use IO::Socket::INET;
        my $s = IO::Socket::INET->new("10.0.0.1:7001") or die "$!";
        print while <$s>;
        select undef, undef, undef, 0.3;
        print $s "late\n""#;
    let debian = host.image("debian");
    t.run(&["run", "--rm", "-q", &debian, "perl", "-e", script])
        .prints("bye\n");
    assert_eq!(server.join().unwrap(), "late\n");
}

fn tcp_refusals(t: &mut Rcon) {
    let Some((_host, image)) = t.on_host("busybox") else {
        return;
    };
    let sh = |script: &str| t.run(&["run", "--rm", &image, "sh", "-c", script]);
    // Nobody listens: refused, at once, and never a success that is taken back.
    let since = Instant::now();
    sh(&format!("nc -w 60 {NEIGHBOUR} 9 < /dev/null"))
        .code(1)
        .says("refused");
    assert!(
        since.elapsed() < Duration::from_secs(20),
        "{:?}",
        since.elapsed()
    );
    // Nobody is there at all.
    let out = sh("nc -w 20 10.0.0.99 80 < /dev/null");
    assert!(
        out.code == 1 && (out.stderr.contains("unreachable") || out.stderr.contains("No route")),
        "{}",
        out.story()
    );
    // The address that both containers have is the container itself.
    sh("nc -w 3 10.0.2.100 80 < /dev/null")
        .code(1)
        .says("refused");
}

fn udp_out(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    if let Err(reason) = lab().images("debian") {
        return skip(&reason);
    }
    t.move_to(&host);
    let image = host.image("debian");
    t.ok(&["pull", "-q", &image]);
    let socket = host.datagrams("10.0.0.1:7000");
    let server = std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        for _ in 0..3 {
            let (n, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(from.ip().to_string(), ADDRESS);
            socket.send_to(&buffer[..n], from).unwrap();
        }
    });
    // One small, one of several packets, one of nearly all that a datagram can hold: each comes back as it went.
    let script = r#"
        use IO::Socket::INET;
        my $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => "10.0.0.1:7000") or die "$!";
        $SIG{ALRM} = sub { die "no answer\n" };
        for my $size (5, 9000, 65507) {
            my $data = pack "N*", map { $_ * 2654435761 & 0xffffffff } 0 .. $size / 4;
            $data = substr $data, 0, $size;
            alarm 10;
            defined $s->send($data) or die "send of $size: $!\n";
            $s->recv(my $back, 65536);
            print $back eq $data ? "same $size\n" : "changed $size\n";
        }"#;
    t.run(&["run", "--rm", &image, "perl", "-e", script])
        .prints("same 5\nsame 9000\nsame 65507\n");
    server.join().unwrap();
}

fn ping(t: &mut Rcon) {
    let Some((host, image)) = t.on_host("busybox") else {
        return;
    };
    let ping = |to: &str| {
        t.run(&[
            "run",
            "--rm",
            "--cap-add",
            "net_raw",
            &image,
            "ping",
            "-c",
            "2",
            "-i",
            "0.2",
            "-W",
            "2",
            to,
        ])
    };
    // Where the host lets nobody ping, no reply is made up.
    host.root(&["sysctl", "-qw", "net.ipv4.ping_group_range=1 0"]);
    ping(NEIGHBOUR).code(1).shows("100% packet loss");
    // The gateway is rcon itself.
    ping("10.0.2.2").code(0).shows("0% packet loss");
    host.root(&["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]);
    ping(NEIGHBOUR).code(0).shows("2 packets received");
    ping("10.0.0.99").code(1).shows("100% packet loss");
}

fn loopback_is_closed(t: &mut Rcon) {
    let Some((host, image)) = t.on_host("busybox") else {
        return;
    };
    let listener = inside(Some(host.pid()), || {
        TcpListener::bind("127.0.0.1:7000").unwrap()
    });
    listener.set_nonblocking(true).unwrap();
    for address in ["10.0.2.2", "127.0.0.1", "127.1.2.3", "10.0.2.3", "0.0.0.0"] {
        let out = t.run(&["run", "--rm", &image, "nc", "-w", "2", address, "7000"]);
        assert_ne!(out.code, 0, "{address}\n{}", out.story());
    }
    // 127.0.0.1 by way of the tap, whatever the container's own routes say.
    let script = "ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 10.0.2.2 dev tap0; nc -w 2 127.0.0.1 7000";
    let out = t.sh(&["--cap-add", "net_admin"], &image, script);
    assert_ne!(out.code, 0, "{}", out.story());
    assert!(listener.accept().is_err(), "somebody came through");
    // What listens on the host's outward address is reached, as from any neighbour.
    let open = inside(Some(host.pid()), || {
        TcpListener::bind((ADDRESS, 7001)).unwrap()
    });
    let server = std::thread::spawn(move || open.accept().unwrap().0.write_all(b"open\n"));
    t.run(&["run", "--rm", &image, "nc", "-w", "2", ADDRESS, "7001"])
        .prints("open\n");
    server.join().unwrap().unwrap();
    t.sh(&[], &image, "grep host.containers.internal /etc/hosts")
        .shows(ADDRESS);
}

fn loopback_opened(t: &mut Rcon) {
    let Some((host, image)) = t.on_host("busybox") else {
        return;
    };
    let listener = inside(Some(host.pid()), || {
        TcpListener::bind("127.0.0.1:7000").unwrap()
    });
    let server = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.write_all(b"hello\n").unwrap();
        peer.ip().to_string()
    });
    t.run(&[
        "run",
        "--rm",
        "--network",
        "slirp4netns:allow_host_loopback=true",
        &image,
        "nc",
        "-w",
        "5",
        "10.0.2.2",
        "7000",
    ])
    .prints("hello\n");
    assert_eq!(server.join().unwrap(), "127.0.0.1");
}

fn ipv6(t: &mut Rcon) {
    let Some((host, image)) = t.on_host("busybox") else {
        return;
    };
    let out = t
        .sh(&[], &image, "ip -6 addr show tap0; ip -6 route")
        .ok()
        .to_owned();
    assert!(
        out.contains("inet6 fd00::100/64") && out.contains("default via fe80::2 dev tap0"),
        "{out}"
    );
    let listener = host.listen("[fd10::1]:7000");
    let server = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.write_all(b"six\n").unwrap();
        peer.ip().to_string()
    });
    t.run(&["run", "--rm", &image, "nc", "-w", "5", "fd10::1", "7000"])
        .prints("six\n");
    assert_eq!(server.join().unwrap(), "fd10::67");
}

fn many_connections(t: &mut Rcon) {
    let Some((_host, image)) = t.on_host("busybox") else {
        return;
    };
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    // Twenty at a time, two hundred in all, each a page of its own.
    let script = "fetch() { wget -q -O - http://10.0.0.80/Release | grep -c SHA256; }; \
        for i in $(seq 10); do for j in $(seq 20); do fetch & done; wait; done | sort | uniq -c";
    let out = t.ok(&["exec", "c", "sh", "-c", script]);
    assert_eq!(
        out.split_whitespace().collect::<Vec<_>>(),
        ["200", "1"],
        "{out}"
    );
    eventually("the container is as it was", 10, || {
        t.run(&["exec", "c", "true"])
            .stdout
            .is_empty()
            .then_some(())
    });
}
