//! Published ports: `-p` in all its forms, who is seen as the client, what happens when nobody listens.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::lab::host::{ADDRESS, Host, NEIGHBOUR};
use crate::lab::net::{connect, fetch, free_port, inside};
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, lab, skip};

scenarios!(
    forms,
    from_the_loopback,
    client_addresses,
    client_addresses_udp,
    only_on_one_address,
    random_and_exposed,
    nobody_listens_inside,
    given_back,
    across_a_restart,
    bulk_both_ways,
    half_close,
    ipv6,
    many_clients,
    host_within_the_containers_network,
);

fn serve(t: &Rcon, publish: &[&str]) {
    let image = t.pull("banner");
    serve_image(t, &image, publish);
}

fn serve_image(t: &Rcon, image: &str, publish: &[&str]) {
    let mut args = vec!["run", "-d", "--name", "web"];
    for p in publish {
        args.extend(["-p", p]);
    }
    args.extend([image, "httpd", "-f", "-vv", "-p", "80", "-h", "/var/www"]);
    t.ok(&args);
}

fn forms(t: &mut Rcon) {
    let image = t.pull("busybox");
    let ports = |publish: &str| {
        let id = t.ok(&["create", "-p", publish, &image, "true"]);
        let bindings = t.inspect(&id, "{{json .HostConfig.PortBindings}}");
        t.ok(&["rm", &id]);
        let bindings: serde_json::Value = serde_json::from_str(&bindings).unwrap();
        let mut lines: Vec<String> = Vec::new();
        for (inside, outside) in bindings.as_object().unwrap() {
            for binding in outside.as_array().unwrap() {
                let text = |name: &str| binding[name].as_str().unwrap().to_owned();
                // podman leaves "every address" empty; 0.0.0.0 says the same.
                let address = text("HostIp");
                let address = if address == "0.0.0.0" {
                    String::new()
                } else {
                    address
                };
                lines.push(format!("{address}:{} {inside}", text("HostPort")));
            }
        }
        lines.sort_unstable();
        lines.join(", ")
    };
    assert_eq!(ports("18080:80"), ":18080 80/tcp");
    assert_eq!(ports("18080:80/udp"), ":18080 80/udp");
    assert_eq!(ports("127.0.0.1:18080:80"), "127.0.0.1:18080 80/tcp");
    assert_eq!(ports("18080-18081:80-81"), ":18080 80/tcp, :18081 81/tcp");
    assert_eq!(ports("[::1]:18080:80"), "::1:18080 80/tcp");
    // Rows that follow each other are one; what is said twice is published once.
    let words = [
        "-p",
        "18081:81",
        "-p",
        "18080:80",
        "-p",
        "18080-18081:80-81",
    ];
    let id = t.ok(&[&["create"], &words[..], &[&image, "true"]].concat());
    t.run(&[
        "ps",
        "-a",
        "--filter",
        "publish=81",
        "--format",
        "{{.Ports}}",
    ])
    .prints("0.0.0.0:18080-18081->80-81/tcp\n");
    t.ok(&["rm", &id]);
    let twice = format!("127.0.0.1:{}:80", free_port());
    t.ok(&["run", "--rm", "-p", &twice, "-p", &twice, &image, "true"]);
    // Two that overlap on the host.
    let out = t.run(&[
        "run", "--rm", "-p", "18080:80", "-p", "18080:81", &image, "true",
    ]);
    assert!(
        out.code != 0 && out.stderr.contains("18080"),
        "{}",
        out.story()
    );
    t.has_containers(0);
}

fn from_the_loopback(t: &mut Rcon) {
    let port = free_port();
    serve(t, &[&format!("{port}:80")]);
    let to = format!("127.0.0.1:{port}");
    let page = eventually("the page", 20, || fetch(None, &to).ok());
    assert!(page.contains("___"), "{page}");
    t.run(&["port", "web", "80"])
        .prints(&format!("0.0.0.0:{port}\n"));
    t.run(&["port", "web", "81"])
        .refused(125)
        .says("failed to find published port \"81\"");
    t.run(&["port", "-a"])
        .code(0)
        .shows(&format!("80/tcp -> 0.0.0.0:{port}"));
}

fn client_addresses(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    serve_image(t, &host.image("banner"), &["8080:80"]);
    let to = format!("{ADDRESS}:8080");
    eventually("the page", 20, || fetch(Some(host.neighbour()), &to).ok());
    // The server's own log tells who asked: the neighbour's true address.
    eventually("the neighbour's address", 10, || {
        t.run(&["logs", "web"])
            .stderr
            .contains(&format!("{NEIGHBOUR}]:"))
            .then_some(())
    })
}

fn client_addresses_udp(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    if let Err(reason) = lab().images("debian") {
        return skip(&reason);
    }
    t.move_to(&host);
    // A server that tells each client how it is seen.
    let script = r#"
        use IO::Socket::INET;
        my $s = IO::Socket::INET->new(Proto => "udp", LocalPort => 53) or die "$!";
        while (defined $s->recv(my $data, 65536)) {
            $s->send($s->peerhost . ":" . $s->peerport . " " . length $data);
        }"#;
    let image = host.image("debian");
    t.ok(&[
        "run",
        "-d",
        "-q",
        "--name",
        "c",
        "-p",
        "5353:53/udp",
        &image,
        "perl",
        "-e",
        script,
    ]);
    let ask = |pid: Option<u32>, from: &str, to: &str, size: usize| {
        let socket = inside(pid, || UdpSocket::bind(from).unwrap());
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut buffer = [0; 64];
        let (n, sender) = eventually("an answer", 20, || {
            socket.send_to(&vec![7; size], to).ok()?;
            socket.recv_from(&mut buffer).ok()
        });
        assert_eq!(
            sender.to_string(),
            to,
            "the answer comes from somewhere else"
        );
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let to = format!("{ADDRESS}:5353");
    let neighbour = Some(host.neighbour());
    assert_eq!(ask(neighbour, "10.0.0.1:5555", &to, 5), "10.0.0.1:5555 5");
    assert_eq!(
        ask(neighbour, "10.0.0.80:5555", &to, 20_000),
        "10.0.0.80:5555 20000"
    );
    assert_eq!(ask(neighbour, "10.0.0.1:5556", &to, 1), "10.0.0.1:5556 1");
    // From the host itself.
    assert!(ask(Some(host.pid()), "127.0.0.1:5557", "127.0.0.1:5353", 3).ends_with(" 3"));
}

fn only_on_one_address(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    serve_image(t, &host.image("banner"), &["127.0.0.1:8080:80"]);
    eventually("the page", 20, || {
        fetch(Some(host.pid()), "127.0.0.1:8080").ok()
    });
    assert!(
        connect(Some(host.neighbour()), format!("{ADDRESS}:8080")).is_err(),
        "open to the neighbour"
    );
    // The same port on the other address is free for somebody else.
    inside(Some(host.pid()), || {
        TcpListener::bind((ADDRESS, 8080)).map(drop)
    })
    .unwrap();
}

fn random_and_exposed(t: &mut Rcon) {
    let image = t.pull("webapp");
    let id = t.ok(&[
        "run",
        "-d",
        "-u",
        "0",
        "-P",
        "--entrypoint",
        "sleep",
        &image,
        "1000",
    ]);
    let out = t.ok(&["port", &id]);
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert!(
        lines.len() == 2
            && lines[0].starts_with("53/udp -> 0.0.0.0:")
            && lines[1].starts_with("8000/tcp -> 0.0.0.0:"),
        "{out}"
    );
    t.ok(&["rm", "-f", "-v", "-t", "0", &id]);
    let id = t.ok(&[
        "run",
        "-d",
        "-p",
        "80",
        "-p",
        "127.0.0.1::81",
        "-u",
        "0",
        "--entrypoint",
        "sleep",
        &image,
        "1000",
    ]);
    let out = t.ok(&["port", &id]);
    for line in out.lines() {
        let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
        assert!(port >= 1024, "{out}");
        TcpStream::connect(("127.0.0.1", port)).expect("it is bound");
    }
    assert_eq!(out.lines().count(), 2);
    t.ok(&["rm", "-f", "-v", "-t", "0", &id]);
}

fn nobody_listens_inside(t: &mut Rcon) {
    let image = t.pull("busybox");
    let port = free_port();
    t.ok(&[
        "run",
        "-d",
        "-p",
        &format!("{port}:80"),
        &image,
        "sleep",
        "1000",
    ]);
    // Refused, or reset at once: never silence, never an empty success.
    match connect(None, format!("127.0.0.1:{port}")) {
        Err(_) => {}
        Ok(mut stream) => {
            let outcome = stream.read(&mut [0; 1]);
            assert!(
                outcome.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset),
                "not a reset"
            );
        }
    }
}

fn given_back(t: &mut Rcon) {
    let image = t.pull("busybox");
    let port = free_port();
    let publish = [format!("{port}:80"), format!("{port}:80/udp")];
    for end in [
        &["stop", "-t", "0", "c"][..],
        &["kill", "c"],
        &["rm", "-f", "-t", "0", "c"],
    ] {
        t.sleeper("c", &["-p", &publish[0], "-p", &publish[1]], &image);
        assert!(
            TcpListener::bind(("0.0.0.0", port)).is_err(),
            "it is not bound"
        );
        t.ok(end);
        t.run(&["wait", "c"]);
        // At once, not after a while: the next command may want it.
        TcpListener::bind(("0.0.0.0", port)).unwrap_or_else(|e| panic!("after {end:?}: {e}"));
        UdpSocket::bind(("0.0.0.0", port)).unwrap_or_else(|e| panic!("udp after {end:?}: {e}"));
        t.run(&["rm", "-f", "c"]).code(0);
    }
    // When the program ends by itself too.
    t.run(&["run", "--rm", "-p", &publish[0], &image, "true"])
        .code(0);
    TcpListener::bind(("0.0.0.0", port)).unwrap();
}

fn across_a_restart(t: &mut Rcon) {
    let port = free_port();
    serve(t, &[&format!("{port}:80")]);
    let to = format!("127.0.0.1:{port}");
    eventually("the page", 20, || fetch(None, &to).ok());
    t.ok(&["restart", "-t", "0", "web"]);
    eventually("the page again", 20, || fetch(None, &to).ok());
    t.ok(&["stop", "-t", "0", "web"]);
    assert!(connect(None, &to).is_err());
    // Somebody else takes the port meanwhile: the start fails and says so, and works when it is free again.
    let held = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let out = t.run(&["start", "web"]);
    assert!(
        out.code != 0 && out.stderr.contains("address already in use"),
        "{}",
        out.story()
    );
    drop(held);
    t.run(&["start", "web"]).prints("web\n");
    eventually("the page once more", 20, || fetch(None, &to).ok());
}

fn bulk_both_ways(t: &mut Rcon) {
    let image = t.pull("busybox");
    let port = free_port();
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        "-p",
        &format!("{port}:80"),
        &image,
        "sh",
        "-c",
        // Not as the first process: with that its network would go, and what is on its way in it.
        "nc -l -p 80 -e cat; sleep 1000",
    ]);
    let mut stream = eventually("a connection that stays", 20, || {
        let mut stream = connect(None, format!("127.0.0.1:{port}")).ok()?;
        stream.write_all(b"x").ok()?;
        stream.read_exact(&mut [0; 1]).ok()?;
        Some(stream)
    });
    const SIZE: usize = 64 << 20;
    let block: Vec<u8> = (0..1 << 16)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let (mut writer, sent) = (stream.try_clone().unwrap(), block.clone());
    let sender = std::thread::spawn(move || {
        for _ in 0..SIZE / sent.len() {
            writer.write_all(&sent).unwrap();
        }
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut back = vec![0; block.len()];
    for n in 0..SIZE / block.len() {
        stream.read_exact(&mut back).unwrap();
        assert!(back == block, "block {n} came back changed");
    }
    assert_eq!(stream.read(&mut back).unwrap(), 0, "the end is passed on");
    sender.join().unwrap();
}

fn half_close(t: &mut Rcon) {
    let image = t.pull("busybox");
    let port = free_port();
    // The server answers only after the client has closed its side.
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        "-p",
        &format!("{port}:80"),
        &image,
        "nc",
        "-ll",
        "-p",
        "80",
        "-e",
        "wc",
        "-c",
    ]);
    let answer = eventually("an answer", 20, || {
        let mut stream = connect(None, format!("127.0.0.1:{port}")).ok()?;
        stream.write_all(&[7; 12345]).ok()?;
        stream.shutdown(std::net::Shutdown::Write).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    });
    assert_eq!(answer.trim(), "12345");
}

fn ipv6(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    serve_image(t, &host.image("banner"), &["[fd10::67]:8080:80"]);
    eventually("the page", 20, || {
        fetch(Some(host.neighbour()), "[fd10::67]:8080").ok()
    });
    assert!(
        connect(Some(host.neighbour()), format!("{ADDRESS}:8080")).is_err(),
        "open on the other address"
    );
}

fn many_clients(t: &mut Rcon) {
    let port = free_port();
    serve(t, &[&format!("{port}:80")]);
    let to = format!("127.0.0.1:{port}");
    eventually("the page", 20, || fetch(None, &to).ok());
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let to = to.clone();
            std::thread::spawn(move || {
                (0..50)
                    .filter(|_| fetch(None, &to).is_ok_and(|page| page.contains("___")))
                    .count()
            })
        })
        .collect();
    let served: usize = workers.into_iter().map(|w| w.join().unwrap()).sum();
    assert_eq!(served, 400);
}

/// As in a guest of VirtualBox or QEMU, whose own address is in 10.0.2.0/24.
fn host_within_the_containers_network(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    let image = host.image("banner");
    serve_image(t, &image, &["8080:80"]);
    let to = format!("{ADDRESS}:8080");
    let page = eventually("the page", 20, || fetch(Some(host.neighbour()), &to).ok());
    let (network, url) = ("slirp4netns:cidr=10.0.0.0/24", format!("http://{to}"));
    t.run(&[
        "run",
        "--rm",
        "--network",
        network,
        &image,
        "wget",
        "-qO-",
        &url,
    ])
    .prints(&page);
}
