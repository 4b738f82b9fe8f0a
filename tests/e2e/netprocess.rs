//! The process that serves a container's network: what it has given up, what is seen of it, and that
//! the container does without it for a moment.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lab::host::{ADDRESS, Host, NEIGHBOUR};
use crate::lab::net::{accept, connect, fetch, free_port};
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};

scenarios!(
    killed_and_back,
    killed_again_and_again,
    outlives_its_monitor,
    locked_in,
    stats_and_flows,
    nothing_to_look_at,
);

fn stats(t: &Rcon, name: &str) -> Value {
    serde_json::from_str(&t.ok(&["network", "stats", "--format", "json", name])).unwrap()
}

fn net_process(t: &Rcon, name: &str) -> i32 {
    i32::try_from(stats(t, name)["pid"].as_i64().unwrap()).unwrap()
}

fn kill_net(t: &Rcon, name: &str) -> i32 {
    let pid = net_process(t, name);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    pid
}

/// Another process serves the network, and answers.
fn another(t: &Rcon, name: &str, old: i32) -> i32 {
    eventually("another network process", 20, || {
        let out = t.run(&["network", "stats", "--format", "{{.pid}}", name]);
        out.stdout.trim().parse().ok().filter(|pid| *pid != old)
    })
}

fn killed_and_back(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    let image = host.image("banner");
    t.web(
        "web",
        &["-p", "8080:80", "-p", "127.0.0.1:5353:53/udp"],
        &image,
    );
    let to = format!("{ADDRESS}:8080");
    let page = eventually("the page", 20, || fetch(Some(host.neighbour()), &to).ok());
    let seen = || {
        t.ok(&[
            "exec",
            "web",
            "sh",
            "-c",
            "ip addr; ip route; cat /etc/resolv.conf",
        ])
    };
    let (before, ports) = (seen(), t.ok(&["port", "web"]));
    let init = t.inspect("web", "{{.State.Pid}}");

    // A connection that is open when it happens is reset; the container lives on.
    let listener = host.listen("10.0.0.1:7000");
    let hanging = t.start(&["exec", "web", "nc", NEIGHBOUR, "7000"]);
    let mut open = accept(&listener);
    let old = kill_net(t, "web");
    assert!(matches!(open.read(&mut [0; 1]), Ok(0) | Err(_)));
    // Clients that come now wait for the next process: none is turned away.
    assert_eq!(fetch(Some(host.neighbour()), &to).unwrap(), page);
    another(t, "web", old);
    assert_eq!(seen(), before);
    assert_eq!(t.ok(&["port", "web"]), ports);
    assert_eq!(t.inspect("web", "{{.State.Pid}}"), init);
    // Out again, names too.
    let script = "wget -q -O - http://web.lab.test/Release";
    t.run(&["exec", "web", "sh", "-c", script])
        .code(0)
        .shows("SHA256");
    assert_eq!(stats(t, "web")["restarts"], 1);
    drop(open);
    hanging.signal(Signal::SIGKILL);
    hanging.wait();
    t.ok(&["rm", "-f", "-t", "0", "web"]);
}

fn killed_again_and_again(t: &mut Rcon) {
    let port = free_port();
    let image = t.pull("banner");
    t.web("web", &["-p", &format!("{port}:80")], &image);
    let to = format!("127.0.0.1:{port}");
    eventually("the page", 20, || fetch(None, &to).ok());
    let mut pid = net_process(t, "web");
    for round in 1..=5 {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        pid = another(t, "web", pid);
        assert_eq!(stats(t, "web")["restarts"], round);
        // Client addresses and everything else are as with the first.
        eventually("the page", 20, || fetch(None, &to).ok());
    }
    // The end of the container is the end of it all.
    t.ok(&["stop", "-t", "0", "web"]);
    TcpListener::bind(("0.0.0.0", port)).unwrap();
    let gone = || (!fs::exists(format!("/proc/{pid}")).unwrap()).then_some(());
    eventually("the process is gone", 10, gone);
}

fn outlives_its_monitor(t: &mut Rcon) {
    let port = free_port();
    let image = t.pull("banner");
    t.web("web", &["-p", &format!("{port}:80")], &image);
    let to = format!("127.0.0.1:{port}");
    eventually("the page", 20, || fetch(None, &to).ok());
    let pid = net_process(t, "web");
    let monitor: i32 = t.inspect("web", "{{.State.ConmonPid}}").parse().unwrap();
    kill(Pid::from_raw(monitor), Signal::SIGKILL).unwrap();
    // The container lives, and so does its network.
    for _ in 0..3 {
        fetch(None, &to).unwrap();
    }
    t.run(&[
        "exec",
        "web",
        "wget",
        "-q",
        "-O",
        "/dev/null",
        "http://10.0.2.100/",
    ])
    .code(0);
    assert_eq!(net_process(t, "web"), pid);
    // And ends with it.
    t.run(&["rm", "-f", "-t", "0", "web"]);
    let gone = || (!fs::exists(format!("/proc/{pid}")).unwrap()).then_some(());
    eventually("the process is gone", 10, gone);
    TcpListener::bind(("0.0.0.0", port)).unwrap();
}

fn locked_in(t: &mut Rcon) {
    let image = t.pull("busybox");
    let publish = format!("127.0.0.1:{}:80/udp", free_port());
    t.sleeper("c", &["-p", &publish], &image);
    let stats = stats(t, "c");
    for field in ["no_files", "no_capabilities", "few_calls"] {
        assert_eq!(stats["sandbox"][field], true, "{field}: {stats}");
    }
    // What the kernel says, for each of its threads.
    let pid = net_process(t, "c");
    let tasks = format!("/proc/{pid}/task");
    let mut threads = 0;
    for task in fs::read_dir(&tasks).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name}"))
                .trim()
                .to_owned()
        };
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2", "{status}");
        let allowed = match field("Name:").as_str() {
            // CAP_NET_ADMIN, in the container's own namespaces.
            "relay" => "0000000000001000",
            _ => "0000000000000000",
        };
        assert_eq!(field("CapPrm:"), allowed, "{status}");
        assert_eq!(field("CapEff:"), allowed, "{status}");
        threads += 1;
    }
    assert_eq!(threads, 3);
    if rustix::process::geteuid().is_root() {
        let entries = fs::read_dir(format!("/proc/{pid}/root")).map_or(0, Iterator::count);
        assert_eq!(entries, 0, "its root directory is not empty");
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        assert_eq!(mounts, "", "mounts are in sight");
        // No descriptor of a file of the host, but for the standard ones and the tap.
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let entry = entry.unwrap().path();
            let number: u32 = entry
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            let target = fs::read_link(&entry).unwrap();
            let target = target.to_str().unwrap();
            let harmless = [
                "socket:",
                "anon_inode:",
                "pipe:",
                "/dev/net/tun",
                "/net/tun",
            ];
            assert!(
                number < 3 || harmless.iter().any(|start| target.starts_with(start)),
                "{number} is {target}"
            );
        }
    }
}

fn stats_and_flows(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    let image = host.image("busybox");
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        "-p",
        "8080:80",
        &image,
        "sh",
        "-c",
        "nc -ll -p 80 -e cat & sleep 1000",
    ]);
    // A connection out, one in, and datagrams.
    let listener = host.listen("10.0.0.1:7000");
    let out = t.start(&[
        "exec",
        "c",
        "sh",
        "-c",
        "head -c 100000 /dev/zero | nc 10.0.0.1 7000",
    ]);
    let mut stream = accept(&listener);
    stream.write_all(&[7; 500]).unwrap();
    stream.read_exact(&mut vec![0; 100_000]).unwrap();
    let mut client = eventually("a connection in", 20, || {
        let mut client = connect(Some(host.neighbour()), format!("{ADDRESS}:8080")).ok()?;
        client.write_all(b"hello").ok()?;
        client.read_exact(&mut [0; 5]).ok()?;
        Some(client)
    });
    // busybox resolves by datagrams: a name server that is a sink.
    let sink = host.datagrams("10.0.0.1:53");
    let asking = t.start(&["exec", "c", "nslookup", "lab.test", "10.0.0.1"]);
    let asked = sink.recv(&mut [0; 512]).unwrap();

    let text = t.ok(&["network", "flows", "--format", "json", "c"]);
    let flows: Value = serde_json::from_str(&text).unwrap();
    let find = |kind: &str, direction: &str, peer: &str| {
        let flows = flows.as_array().unwrap().iter();
        let mut found = flows.filter(|flow| {
            flow["kind"] == kind
                && flow["direction"] == direction
                && flow["peer"].as_str().unwrap().starts_with(peer)
        });
        found
            .next()
            .unwrap_or_else(|| panic!("no {kind} {direction} {peer}: {text}"))
    };
    let tcp = find("tcp", "out", "10.0.0.1:7000");
    assert_eq!(tcp["sent"], 100_000, "{tcp}");
    assert_eq!(tcp["received"], 500, "{tcp}");
    assert_eq!(tcp["state"], "open");
    assert!(
        tcp["container"]
            .as_str()
            .unwrap()
            .starts_with("10.0.2.100:")
    );
    assert!(tcp["host"].as_str().unwrap().starts_with(ADDRESS));
    let own = client.local_addr().unwrap().to_string();
    let published = find("tcp", "in", &own);
    assert_eq!(published["container"], "10.0.2.100:80");
    assert_eq!(published["received"], 5, "{published}");
    let udp = find("udp", "out", "10.0.0.1:53");
    assert!(udp["sent"].as_u64().unwrap() >= asked as u64, "{udp}");
    assert_eq!(udp["state"], "unanswered");
    // For people.
    t.run(&["network", "flows", "c"])
        .code(0)
        .shows("PROTO")
        .shows("10.0.0.1:7000");
    let stats = stats(t, "c");
    assert!(
        stats["tap"]["bytes_sent"].as_u64().unwrap() > 100_000,
        "{stats}"
    );
    assert!(
        stats["tap"]["bytes_received"].as_u64().unwrap() > 500,
        "{stats}"
    );
    assert_eq!(stats["flows"]["tcp"], 1, "{stats}");
    assert_eq!(stats["flows"]["published_tcp"], 1, "{stats}");
    assert_eq!(stats["opened"]["tcp"], 1, "{stats}");
    assert!(
        stats["opened"]["published_tcp"].as_u64().unwrap() >= 1,
        "{stats}"
    );
    assert_eq!(stats["opened"]["udp"], 1, "{stats}");
    assert_eq!(stats["turned_away"]["tcp"], 0, "{stats}");
    t.run(&["network", "stats", "c"])
        .code(0)
        .shows("1 in all")
        .shows("WITHOUT")
        .shows("system calls");
    // Said with a template.
    t.run(&[
        "network",
        "flows",
        "--format",
        "{{.kind}}/{{.direction}}",
        "c",
    ])
    .code(0)
    .shows("tcp/in");
    client.write_all(b"x").unwrap();
    asking.signal(Signal::SIGKILL);
    asking.wait();
    drop(stream);
    out.wait_for(Duration::from_secs(20)).code(0);
}

fn nothing_to_look_at(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "made", &image, "true"]);
    t.run(&["network", "stats", "made"])
        .refused(125)
        .says("does not run");
    t.sleeper("bare", &["--network", "none"], &image);
    t.run(&["network", "flows", "bare"])
        .refused(125)
        .says("no network of its own");
    t.run(&["network", "flows", "nosuch"])
        .refused(125)
        .says("no such container");
    // The networks there are.
    t.run(&["network", "ls"])
        .code(0)
        .shows("NETWORK ID")
        .shows("slirp4netns")
        .shows("host");
    t.run(&["network", "ls", "-q"])
        .prints("slirp4netns\nhost\nnone\n");
    t.run(&["network", "exists", "slirp4netns"]).code(0).quiet();
    t.run(&["network", "exists", "podman"]).code(1).quiet();
    let text = t.ok(&["network", "inspect", "slirp4netns"]);
    let networks: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(networks[0]["subnets"][0]["gateway"], "10.0.2.2");
    t.run(&["network", "inspect", "podman"])
        .refused(125)
        .says("network not found");
    t.run(&["network", "create", "x"])
        .refused(125)
        .says("container:NAME");
}
