//! The network where it has to follow or to bear something: resolvers that change, a link that goes
//! and comes, addresses to leave from, clients seen as who they are, a container that does its worst.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use crate::lab::host::{ADDRESS, Host, NEIGHBOUR};
use crate::lab::net::{connect, inside};
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, dns, eventually, lab, skip};

scenarios!(
    resolvers_are_followed,
    names_as_asked_for,
    the_link_goes_and_comes,
    leaving_from,
    every_client_is_seen,
    loopback_is_closed_for_all,
    pings_of_both_families,
    a_container_at_its_worst,
    words_for_networks,
    of_another_container,
    of_a_path,
);

/// A host, and the image with perl known there.
fn with_perl(t: &mut Rcon) -> Option<(std::sync::Arc<Host>, String)> {
    if let Err(reason) = lab().images("debian") {
        skip(&reason);
        return None;
    }
    t.on_host("debian")
}

/// Writes the host's own resolv.conf.
fn resolv_conf(host: &Host, text: &str) {
    host.root(&["sh", "-c", &format!("printf '{text}' > /etc/resolv.conf")]);
}

fn resolvers_are_followed(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    t.sleeper("c", &[], &host.image("busybox"));
    let ask = |name: &str| t.run(&["exec", "c", "nslookup", "-type=a", name]);
    ask("web.lab.test").code(0).shows("10.0.0.80");
    // The resolver is gone, and another takes its place.
    resolv_conf(&host, "nameserver 10.0.0.1\\n");
    eventually("the old one is asked no more", 20, || {
        (ask("web.lab.test").code != 0).then_some(())
    });
    dns::serve(
        inside(Some(host.neighbour()), || {
            UdpSocket::bind("10.0.0.1:53").unwrap()
        }),
        host.listen("10.0.0.1:53"),
    );
    ask("web.lab.test").code(0).shows("10.0.0.80");
    // The first of two does not answer.
    resolv_conf(&host, "nameserver 10.0.0.80\\nnameserver 10.0.0.53\\n");
    eventually("an answer of the second", 20, || {
        let out = ask("web.lab.test");
        (out.code == 0).then_some(())
    });
    // One on the host's loopback, as systemd-resolved's stub, by datagrams and streams.
    inside(Some(host.pid()), || {
        let tcp = TcpListener::bind("127.0.0.53:53").unwrap();
        dns::serve(UdpSocket::bind("127.0.0.53:53").unwrap(), tcp);
    });
    resolv_conf(&host, "nameserver 127.0.0.53\\noptions edns0 trust-ad\\n");
    eventually("an answer of the stub", 20, || {
        let out = ask("deb.lab.test");
        (out.code == 0 && out.stdout.contains("10.0.0.80")).then_some(())
    });
    let text = dns::big_text();
    let script = "printf '\\0\\036\\1\\2\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3big\\3lab\\4test\\0\\0\\020\\0\\1' | nc -w 3 10.0.2.3 53 | tr -d '\\0-\\037' | tail -c 300";
    t.run(&["exec", "c", "sh", "-c", script])
        .shows(&text[text.len() - 150..]);
    // A name that only the host's file has, from the moment it has it.
    assert_ne!(ask("printer.lan").code, 0);
    let script = "echo 10.0.0.77 printer.lan > /tmp/rcon-hosts.$$ && mount --bind /tmp/rcon-hosts.$$ /etc/hosts && rm /tmp/rcon-hosts.$$";
    host.root(&["sh", "-c", script]);
    eventually("the name of the host's file", 20, || {
        let out = ask("printer.lan");
        (out.code == 0 && out.stdout.contains("10.0.0.77")).then_some(())
    });
}

fn names_as_asked_for(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    resolv_conf(
        &host,
        "nameserver 10.0.0.99\\nsearch host.test\\noptions ndots:3\\n",
    );
    let image = host.image("busybox");
    let run = |options: &[&str], script: &str| {
        let words = [&["run", "--rm"], options, &[&image, "sh", "-c", script]].concat();
        t.run(&words)
    };
    run(&[], "cat /etc/resolv.conf")
        .prints("search host.test\nnameserver 10.0.2.3\nnameserver fd00::3\noptions ndots:3\n");
    let asked = [
        "--dns",
        "10.0.0.53",
        "--dns-search",
        "lab.test",
        "--dns-option",
        "ndots:1",
    ];
    run(&asked, "cat /etc/resolv.conf; nslookup -type=a web")
        .code(0)
        .shows("search lab.test")
        .shows("options ndots:1")
        .shows("10.0.0.80");
    run(
        &["--dns-search", "."],
        "grep search /etc/resolv.conf || echo none",
    )
    .prints("none\n");
}

fn the_link_goes_and_comes(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    t.web("c", &["-p", "8080:80"], &host.image("banner"));
    let fetch = || {
        t.run(&[
            "exec",
            "c",
            "wget",
            "-q",
            "-O",
            "-",
            "http://10.0.0.80/Release",
        ])
    };
    fetch().code(0).shows("SHA256");
    host.root(&["ip", "link", "set", "lan0", "down"]);
    let out = fetch();
    assert!(
        out.code != 0 && out.stderr.contains("nreachable"),
        "no word of the link\n{}",
        out.story()
    );
    host.root(&["ip", "link", "set", "lan0", "up"]);
    eventually("the outside again", 20, || {
        (fetch().code == 0).then_some(())
    });
    // Another address than before, as after a night in another network.
    host.root(&["ip", "address", "add", "10.0.0.99/24", "dev", "lan0"]);
    host.root(&["ip", "address", "delete", "10.0.0.67/24", "dev", "lan0"]);
    host.root(&[
        "sh",
        "-c",
        "ip address show dev lan0 | grep -q 10.0.0.99 || ip address add 10.0.0.99/24 dev lan0",
    ]);
    eventually("the outside from there", 20, || {
        (fetch().code == 0).then_some(())
    });
    eventually("the published port there", 20, || {
        crate::lab::net::fetch(Some(host.neighbour()), "10.0.0.99:8080").ok()
    });
}

fn leaving_from(t: &mut Rcon) {
    let Some((host, image)) = with_perl(t) else {
        return;
    };
    host.root(&["ip", "address", "add", "10.0.0.68/24", "dev", "lan0"]);
    host.root(&[
        "ip",
        "address",
        "add",
        "fd10::68/64",
        "dev",
        "lan0",
        "nodad",
    ]);
    // Tells by which addresses streams and datagrams of both families arrive.
    let script = r#"
        use IO::Socket::IP;
        for my $to ("10.0.0.1", "fd10::1") {
            for my $proto ("tcp", "udp") {
                my $s = IO::Socket::IP->new(Proto => $proto, PeerHost => $to, PeerPort => 7000) or die "$to $proto: $@\n";
                $SIG{ALRM} = sub { die "no answer\n" };
                alarm 20;
                defined $s->send("who") or die "$!\n";
                $s->recv(my $answer, 100);
                print "$answer\n";
            }
        }"#;
    let who = |network: &str| {
        let mut servers = Vec::new();
        for address in ["10.0.0.1:7000", "[fd10::1]:7000"] {
            let (tcp, udp) = (host.listen(address), host.datagrams(address));
            servers.push(std::thread::spawn(move || {
                let (mut stream, peer) = tcp.accept().unwrap();
                // In one piece: the client goes when it has the first.
                stream.write_all(peer.ip().to_string().as_bytes()).unwrap();
                let mut buffer = [0; 16];
                let (_, peer) = udp.recv_from(&mut buffer).unwrap();
                udp.send_to(peer.ip().to_string().as_bytes(), peer).unwrap();
            }));
        }
        let out = t.ok(&[
            "run",
            "--rm",
            "--network",
            network,
            &image,
            "perl",
            "-e",
            script,
        ]);
        servers
            .into_iter()
            .for_each(|server| server.join().unwrap());
        out.lines().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        who("slirp4netns:outbound_addr=10.0.0.68,outbound_addr6=fd10::68"),
        "10.0.0.68 10.0.0.68 fd10::68 fd10::68"
    );
    // By the name of an interface the host chooses the address.
    let out = who("slirp4netns:outbound_addr=lan0,outbound_addr6=lan0");
    assert!(
        out.starts_with(&format!("{ADDRESS} {ADDRESS} fd10::")),
        "{out}"
    );
}

/// A server of both protocols and families that tells each client by which address it knows it.
const TELLER: &str = r#"
    use IO::Socket::IP; use IO::Select; use Socket qw(getnameinfo NI_NUMERICHOST NI_NUMERICSERV);
    my (%tcp, $all); $all = IO::Select->new;
    for my $family ("0.0.0.0", "::") {
        my $t = IO::Socket::IP->new(Proto => "tcp", LocalHost => $family, LocalPort => 53, Listen => 9, V6Only => 1, ReuseAddr => 1) or die "$@";
        my $u = IO::Socket::IP->new(Proto => "udp", LocalHost => $family, LocalPort => 53, V6Only => 1) or die "$@";
        $tcp{$t} = 1; $all->add($t, $u);
    }
    while (my @ready = $all->can_read) {
        for my $s (@ready) {
            if ($tcp{$s}) { my $c = $s->accept or next; print $c $c->peerhost; close $c; next }
            my $peer = $s->recv(my $data, 65536);
            my (undef, $host) = getnameinfo($peer, NI_NUMERICHOST | NI_NUMERICSERV);
            $s->send("$host " . length $data, 0, $peer);
        }
    }"#;

fn every_client_is_seen(t: &mut Rcon) {
    let Some((host, image)) = with_perl(t) else {
        return;
    };
    let by_stream = |pid: u32, to: &str| {
        eventually("a stream", 20, || {
            let mut answer = String::new();
            let mut stream = connect(Some(pid), to).ok()?;
            stream.read_to_string(&mut answer).ok()?;
            Some(answer).filter(|answer| !answer.is_empty())
        })
    };
    let by_datagram = |pid: u32, to: &str, size: usize| {
        let from = if to.starts_with('[') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let socket = inside(Some(pid), || UdpSocket::bind(from).unwrap());
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut buffer = [0; 100];
        let (length, sender) = eventually("a datagram", 20, || {
            socket.send_to(&vec![7; size], to).unwrap();
            socket.recv_from(&mut buffer).ok()
        });
        assert_eq!(
            sender.to_string(),
            to,
            "the answer comes from somewhere else"
        );
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    for (handler, loopback, loopback6) in [
        ("rootlesskit", "10.0.2.100", "fd00::100"),
        ("slirp4netns", "10.0.2.2", "fd00::2"),
    ] {
        let network = format!("slirp4netns:port_handler={handler}");
        t.ok(&[
            "run",
            "-d",
            "--name",
            "c",
            "--network",
            &network,
            "-p",
            "5353:53/tcp",
            "-p",
            "5353:53/udp",
            &image,
            "perl",
            "-e",
            TELLER,
        ]);
        let (here, there) = (host.pid(), host.neighbour());
        for (pid, to, seen) in [
            (there, "10.0.0.67:5353", NEIGHBOUR),
            (there, "[fd10::67]:5353", "fd10::1"),
            (here, "127.0.0.1:5353", loopback),
            (here, "[::1]:5353", loopback6),
        ] {
            assert_eq!(by_stream(pid, to), seen, "{handler}: tcp to {to}");
            for size in [1, 2000, 65507] {
                // IPv6 and loopback have room for as much.
                let expected = format!("{seen} {size}");
                assert_eq!(
                    by_datagram(pid, to, size),
                    expected,
                    "{handler}: udp to {to}"
                );
            }
        }
        t.ok(&["rm", "-f", "-t", "0", "c"]);
    }
}

fn loopback_is_closed_for_all(t: &mut Rcon) {
    let Some((host, image)) = with_perl(t) else {
        return;
    };
    let places = [
        "127.0.0.1:7000",
        "127.0.0.5:7001",
        "[::1]:7002",
        "127.255.255.254:7003",
    ];
    let listeners: Vec<(TcpListener, UdpSocket)> = inside(Some(host.pid()), || {
        let both = |place: &&str| {
            let (tcp, udp) = (
                TcpListener::bind(place).unwrap(),
                UdpSocket::bind(place).unwrap(),
            );
            tcp.set_nonblocking(true).unwrap();
            udp.set_nonblocking(true).unwrap();
            (tcp, udp)
        };
        places.iter().map(both).collect()
    });
    // Every address that could mean the host's loopback, with the container's own made harmless.
    let script = r#"
        use IO::Socket::IP;
        system "ip addr flush dev lo; ip route add 127.0.0.0/8 via 10.0.2.2 dev tap0 2>/dev/null; ip -6 route add ::1 via fe80::2 dev tap0 2>/dev/null";
        for my $to ("10.0.2.2", "10.0.2.3", "127.0.0.1", "127.0.0.5", "127.255.255.254", "0.0.0.0", "10.0.2.255",
                    "fd00::2", "fd00::3", "::1", "::ffff:127.0.0.1", "fe80::2%tap0") {
            for my $port (7000 .. 7003) {
                my $s = IO::Socket::IP->new(Proto => "tcp", PeerHost => $to, PeerPort => $port, Timeout => 1);
                print "stream to $to $port\n" if $s;
                my $u = IO::Socket::IP->new(Proto => "udp", PeerHost => $to, PeerPort => $port);
                $u->send("x") if $u;
            }
        }
        print "done\n";"#;
    t.run(&[
        "run",
        "--rm",
        "--cap-add",
        "net_admin",
        &image,
        "perl",
        "-e",
        script,
    ])
    .prints("done\n");
    for (place, (tcp, udp)) in places.iter().zip(&listeners) {
        assert!(tcp.accept().is_err(), "a stream came to {place}");
        assert!(udp.recv(&mut [0; 1]).is_err(), "a datagram came to {place}");
    }
}

fn pings_of_both_families(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    host.root(&["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]);
    t.sleeper("c", &["--cap-add", "net_raw"], &host.image("busybox"));
    let ping = |to: &str| t.run(&["exec", "c", "ping", "-c", "2", "-i", "0.2", "-W", "3", to]);
    for to in [
        NEIGHBOUR, "fd10::1", "10.0.2.2", "10.0.2.3", "fd00::2", "fd00::3", "fe80::2",
    ] {
        ping(to).code(0).shows(" 0% packet loss");
    }
    // Nobody answers for those who are not there.
    for to in ["10.0.0.99", "fd10::99", "10.0.2.77", "fd00::77"] {
        ping(to).code(1).shows("100% packet loss");
    }
    host.root(&["sysctl", "-qw", "net.ipv4.ping_group_range=1 0"]);
    for to in [NEIGHBOUR, "fd10::1"] {
        ping(to).code(1).shows("100% packet loss");
    }
}

fn a_container_at_its_worst(t: &mut Rcon) {
    let Some((_host, image)) = with_perl(t) else {
        return;
    };
    t.sleeper(
        "c",
        &["-p", "8080:80", "--cap-add", "net_raw,net_admin"],
        &image,
    );
    // Frames of every sort, far more than there is room for: broadcasts, ARP that claims to be the gateway, routers
    // that are none, neighbours likewise, fragments without end, packets from others, and noise.
    let script = r#"
        use strict; srand 7;
        open my $f, "<", "/sys/class/net/tap0/ifindex"; my $index = <$f>;
        open $f, "<", "/sys/class/net/tap0/address"; chomp(my $mac = <$f>); $mac = pack "H*", $mac =~ s/://gr;
        my $gateway = pack "H*", "52550a000202"; my $all = "\xff" x 6;
        socket my $s, 17, 3, 0x0300 or die "packet socket: $!";
        my $to = pack "S n i S C C a8", 17, 3, $index, 0, 0, 6, "";
        my $ip = sub { my ($src, $dst, $proto, $frag, $data) = @_;
            pack("C C n n n C C n a4 a4", 0x45, 0, 20 + length $data, int rand 65536, $frag, 64, $proto, 0, $src, $dst) . $data };
        my $me = pack "C4", 10, 0, 2, 100; my $gw = pack "C4", 10, 0, 2, 2; my $out = pack "C4", 10, 0, 0, 1;
        my $udp = pack "n n n n a8", 5, 5, 16, 0, "x";
        my @kinds = (
            sub { $all . $mac . pack("n", 0x800) . $ip->($me, "\xff" x 4, 17, 0, $udp) },
            sub { $all . $mac . pack("n", 0x806) . pack("n n C C n a6 a4 a6 a4", 1, 0x800, 6, 4, 2, $mac, $gw, $all, $me) },
            sub { $gateway . $gateway . pack("n", 0x806) . pack("n n C C n a6 a4 a6 a4", 1, 0x800, 6, 4, 1, $gateway, $gw, "\0" x 6, $gw) },
            sub { "\x33\x33\0\0\0\1" . $mac . pack("n", 0x86dd) . pack("N n C C a16 a16", 0x60000000, 16, 58, 255, "\xfe\x80" . "\0" x 13 . "\x09", "\xff\2" . "\0" x 13 . "\1") . pack("C C n C C n N N", 134, 0, 0, 64, 0, 9000, 0, 0) },
            sub { $gateway . $mac . pack("n", 0x800) . $ip->($me, $out, 17, 0x2000 | int rand 100, "z" x 64) },
            sub { $gateway . $mac . pack("n", 0x800) . $ip->($gw, $out, 17, 0, $udp) },
            sub { $gateway . $mac . pack("n", 0x800) . $ip->($me, pack("N", rand 2**32), 17, 0, pack "n n n n", 1 + rand 65535, 1 + rand 65535, 8, 0) },
            sub { $gateway . $mac . pack("n", (0x800, 0x806, 0x86dd, rand 65536)[rand 4]) . join "", map { chr rand 256 } 0 .. rand 200 },
        );
        for (1 .. 30000) { send $s, $kinds[rand @kinds]->(), 0, $to }
        print "done\n";"#;
    t.run(&["exec", "c", "perl", "-e", script]).prints("done\n");
    // Afterwards, and all the while, the network is what it was.
    let fetch = r#"
        use IO::Socket::IP; my $s = IO::Socket::IP->new(PeerHost => "10.0.0.80", PeerPort => 80, Timeout => 10) or die "$@\n";
        print $s "GET /Release HTTP/1.0\r\n\r\n"; local $/; print <$s> =~ /SHA256/ ? "fetched\n" : "not\n";"#;
    t.run(&["exec", "c", "perl", "-e", fetch])
        .prints("fetched\n");
    let stats = t.ok(&[
        "network",
        "stats",
        "--format",
        "{{.restarts}} {{.tap.frames_sent}}",
        "c",
    ]);
    let (restarts, frames) = stats.trim().split_once(' ').unwrap();
    assert_eq!(restarts, "0", "the network process has crashed");
    // Some are lost before they are read; how many, the load says.
    assert!(frames.parse::<u64>().unwrap() > 1_000, "{stats}");
}

fn words_for_networks(t: &mut Rcon) {
    let image = t.pull("busybox");
    let run = |network: &str| t.run(&["run", "--rm", "--network", network, &image, "true"]);
    run("pasta").code(0).says("pasta stands for it");
    run("slirp4netns:port_handler=slirp4netns,mtu=1280").code(0);
    for (network, message) in [
        (
            "slirp4netns:foo=1",
            "unknown option for slirp4netns: \"foo=1\"",
        ),
        ("slirp4netns:port_handler=x", "unknown port_handler"),
        ("slirp4netns:outbound_addr=::1", "invalid outbound_addr"),
        ("slirp4netns:mtu=9", "invalid mtu"),
        ("slirp4netns:cidr=10.0.0.0/31", "the prefix must be between"),
        ("nosuch", "network not found"),
    ] {
        run(network).refused(125).says(message);
    }
}

fn of_another_container(t: &mut Rcon) {
    let image = t.pull("banner");
    let port = crate::lab::net::free_port();
    t.sleeper("web", &["-p", &format!("{port}:80")], &image);
    let sh = |script: &str| t.sh(&["--network", "container:web"], &image, script);
    // The very same, with its addresses, names and ports.
    let own = t.ok(&["exec", "web", "readlink", "/proc/self/ns/net"]);
    sh("readlink /proc/self/ns/net").prints(&format!("{own}\n"));
    sh("ip addr show tap0; cat /etc/resolv.conf")
        .shows("10.0.2.100/24")
        .shows("nameserver 10.0.2.3");
    t.web("server", &["--network", "container:web"], &image);
    let to = format!("127.0.0.1:{port}");
    eventually("the page of the other", 20, || {
        crate::lab::net::fetch(None, &to).ok()
    });
    t.run(&["exec", "web", "wget", "-q", "-O", "-", "http://127.0.0.1/"])
        .code(0)
        .shows("___");
    t.run(&["exec", "server", "ip", "addr", "show", "tap0"])
        .shows("10.0.2.100/24");
    let id = t.inspect("web", "{{.Id}}");
    assert_eq!(
        t.inspect("server", "{{.HostConfig.NetworkMode}}"),
        format!("container:{id}")
    );
    // Ports are the other's.
    t.run(&[
        "run",
        "--rm",
        "--network",
        "container:web",
        "-p",
        "8080:80",
        &image,
        "true",
    ])
    .refused(125)
    .says("cannot set port bindings on an existing container network namespace");
    t.run(&["port", "add", "server", "8080:80"])
        .refused(125)
        .says("it has that of container");
    t.run(&[
        "run",
        "--rm",
        "--network",
        "container:nosuch",
        &image,
        "true",
    ])
    .refused(125)
    .says("no such container");
    t.ok(&["stop", "-t", "0", "server", "web"]);
    let out = t.run(&["start", "server"]);
    assert!(
        out.code == 125
            && out
                .stderr
                .contains("cannot join the network of container web"),
        "{}",
        out.story()
    );
    t.ok(&["start", "web"]);
    t.ok(&["start", "server"]);
    eventually("the page again", 20, || {
        crate::lab::net::fetch(None, &to).ok()
    });
}

fn of_a_path(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    let pid = t.inspect("c", "{{.State.Pid}}");
    let network = format!("ns:/proc/{pid}/ns/net");
    t.run(&[
        "run",
        "--rm",
        "--network",
        &network,
        &image,
        "ip",
        "addr",
        "show",
        "tap0",
    ])
    .code(0)
    .shows("10.0.2.100/24");
    t.run(&["run", "--rm", "--network", "ns:/nowhere", &image, "true"])
        .code(125)
        .says("cannot join the network namespace /nowhere: no such file or directory");
    t.run(&["run", "--rm", "--network", "ns:", &image, "true"])
        .refused(125)
        .says("must provide the path");
    t.run(&[
        "run",
        "--rm",
        "--network",
        "ns:/etc/hostname",
        &image,
        "true",
    ])
    .code(125);
}
