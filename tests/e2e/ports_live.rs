//! Ports that come and go while a container runs.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::lab::host::{ADDRESS, Host, NEIGHBOUR};
use crate::lab::net::{connect, fetch, free_port};
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, lab, skip};

scenarios!(
    added_and_taken_back,
    client_addresses,
    datagrams,
    across_restarts,
    refusals,
);

/// A web server without published ports.
fn web(t: &Rcon, image: &str) {
    t.ok(&[
        "run", "-d", "--name", "web", image, "httpd", "-f", "-vv", "-p", "80", "-h", "/var/www",
    ]);
}

fn added_and_taken_back(t: &mut Rcon) {
    let image = t.pull("banner");
    web(t, &image);
    t.run(&["port", "web"]).prints("");
    let (one, two) = (free_port(), free_port());
    let spec = format!("{one}:80");
    t.run(&["port", "add", "web", &spec])
        .prints(&format!("80/tcp -> 0.0.0.0:{one}\n"));
    let to = format!("127.0.0.1:{one}");
    let page = eventually("the page", 20, || fetch(None, &to).ok());
    // A second one, on a port of the kernel's choice and one address.
    let out = t.ok(&["port", "add", "web", "127.0.0.1::80", &format!("{two}:80")]);
    let second = out.lines().next().unwrap().rsplit(' ').next().unwrap();
    assert!(second.starts_with("127.0.0.1:"), "{out}");
    assert_eq!(fetch(None, second).unwrap(), page);
    assert_eq!(fetch(None, &format!("127.0.0.1:{two}")).unwrap(), page);
    assert_eq!(t.ok(&["port", "web"]).lines().count(), 3);
    t.run(&["ps", "--format", "{{.Ports}}"])
        .shows(&format!("{one}->80/tcp"));
    assert!(
        t.inspect("web", "{{json .NetworkSettings.Ports}}")
            .contains(&one.to_string())
    );

    // Taken back: who is connected stays so, who comes is refused.
    let open = TcpStream::connect(&to).unwrap();
    t.run(&["port", "rm", "web", &spec]).code(0).quiet();
    let refused = TcpStream::connect(&to).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    TcpListener::bind(("0.0.0.0", one)).unwrap();
    open.set_nonblocking(true).unwrap();
    let still = open.peek(&mut [0; 1]).unwrap_err();
    assert_eq!(still.kind(), std::io::ErrorKind::WouldBlock);
    // The others are as they were, until the rest of that container port goes too.
    assert_eq!(fetch(None, second).unwrap(), page);
    t.run(&["port", "rm", "web", "80"]).code(0).quiet();
    t.run(&["port", "web"]).prints("");
    assert!(fetch(None, second).is_err());
    drop(TcpListener::bind(second).unwrap());
}

fn client_addresses(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    // It began without any port: what makes clients' own addresses possible comes with the first.
    web(t, &host.image("banner"));
    t.ok(&["port", "add", "web", "8080:80"]);
    for to in [format!("{ADDRESS}:8080"), "[fd10::67]:8080".into()] {
        eventually("the page", 20, || fetch(Some(host.neighbour()), &to).ok());
    }
    for address in [NEIGHBOUR, "fd10::1"] {
        eventually("the neighbour's address", 10, || {
            let log = t.run(&["logs", "web"]).stderr;
            log.contains(&format!("{address}]:")).then_some(())
        });
    }
}

fn datagrams(t: &mut Rcon) {
    if let Err(reason) = lab().images("debian") {
        return skip(&reason);
    }
    let image = t.pull("debian");
    let port = free_port();
    // It says back what it hears, and from whom.
    let script = r#"
        use IO::Socket::INET;
        my $s = IO::Socket::INET->new(Proto => "udp", LocalPort => 53) or die "$!";
        while (defined $s->recv(my $data, 65536)) { $s->send("$data from " . $s->peerhost); }"#;
    t.ok(&["run", "-d", "--name", "c", &image, "perl", "-e", script]);
    let answered = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        socket.send(b"ping").ok()?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).ok()?;
        (&buffer[..length] == b"ping from 10.0.2.100").then_some(())
    };
    t.ok(&["port", "add", "c", &format!("127.0.0.1:{port}:53/udp")]);
    eventually("an answer", 20, answered);
    t.ok(&["port", "rm", "c", &format!("{port}:53/udp")]);
    // Free at once, for whoever wants it.
    drop(UdpSocket::bind(("127.0.0.1", port)).unwrap());
    // And once more.
    t.ok(&["port", "add", "c", &format!("127.0.0.1:{port}:53/udp")]);
    eventually("an answer again", 20, answered);
}

fn across_restarts(t: &mut Rcon) {
    let image = t.pull("banner");
    let (first, second) = (free_port(), free_port());
    t.web("web", &["-p", &format!("{first}:80")], &image);
    t.ok(&["port", "add", "web", &format!("{second}:80")]);
    t.ok(&["port", "rm", "web", &format!("{first}:80")]);
    let reached = |port: u16| fetch(None, &format!("127.0.0.1:{port}")).ok();
    eventually("the page", 20, || reached(second));
    // The network process is another: the ports are the same.
    let pid = t.ok(&["network", "stats", "--format", "{{.pid}}", "web"]);
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("the page from another process", 20, || reached(second));
    assert!(connect(None, ("127.0.0.1", first)).is_err());
    // The container is started anew: they are its own by now.
    t.ok(&["restart", "-t", "0", "web"]);
    eventually("the page after a restart", 20, || reached(second));
    assert!(connect(None, ("127.0.0.1", first)).is_err());
    t.run(&["port", "web"])
        .prints(&format!("80/tcp -> 0.0.0.0:{second}\n"));
    // One that does not run is changed for its next start.
    t.ok(&["stop", "-t", "0", "web"]);
    t.run(&["port", "add", "web", &format!("{first}:80")])
        .code(0)
        .quiet();
    assert!(connect(None, ("127.0.0.1", first)).is_err());
    t.ok(&["start", "web"]);
    eventually("both", 20, || reached(first).and(reached(second)));
}

fn refusals(t: &mut Rcon) {
    let image = t.pull("banner");
    web(t, &image);
    let taken = free_port();
    let held = TcpListener::bind(("0.0.0.0", taken)).unwrap();
    let free = free_port();
    // All or none.
    t.run(&[
        "port",
        "add",
        "web",
        &format!("{free}:80"),
        &format!("{taken}:80"),
    ])
    .refused(126)
    .says(&format!(
        "listen tcp 0.0.0.0:{taken}: bind: address already in use"
    ));
    TcpListener::bind(("0.0.0.0", free)).expect("nothing is left of it");
    t.run(&["port", "web"]).prints("");
    drop(held);
    // A port that another container has.
    t.sleeper("other", &["-p", &format!("{taken}:80")], &image);
    t.run(&["port", "add", "web", &format!("{taken}:80")])
        .refused(126)
        .says("is held by container other");
    t.run(&["run", "--rm", "-p", &format!("{taken}:80"), &image, "true"])
        .refused(126)
        .says("is held by container other");
    let setting = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let first = std::fs::read_to_string(setting).unwrap();
    if first.trim().parse::<u32>().unwrap() > 80 {
        t.run(&["port", "add", "web", "80:80"])
            .refused(126)
            .says("ip_unprivileged_port_start");
    }
    t.run(&["port", "rm", "web", "80"])
        .refused(125)
        .says("port 80/tcp is not published");
    t.run(&["port", "add", "web", "what"])
        .refused(125)
        .says("invalid port number");
    t.sleeper("bare", &["--network", "none"], &image);
    t.run(&["port", "add", "bare", "8080:80"])
        .refused(125)
        .says("no network of its own");
    // A container may be called so.
    t.sleeper("add", &["-p", &format!("{free}:80")], &image);
    t.run(&["port", "add"])
        .prints(&format!("80/tcp -> 0.0.0.0:{free}\n"));
    t.run(&["port", "add", "80"])
        .prints(&format!("0.0.0.0:{free}\n"));
}
