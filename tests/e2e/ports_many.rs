//! Ports by the thousand: what one row of `-p` may be.

use std::net::{TcpListener, UdpSocket};
use std::process::Stdio;

use rustix::process::{Resource, getrlimit};

use crate::lab::net::{connect, fetch, inside};
use crate::lab::program::Running;
use crate::lab::scenario::scenarios;
use crate::lab::{Output, Rcon, eventually, skip};

scenarios!(thousands, more_than_there_may_be);

fn row(first: u16, last: u16) -> String {
    format!("127.0.0.1:{first}-{last}:{first}-{last}")
}

fn thousands(t: &mut Rcon) {
    if getrlimit(Resource::Nofile)
        .maximum
        .is_some_and(|most| most < 10_000)
    {
        return skip("thousands of ports need as many open files (ulimit -Hn)");
    }
    let Some((host, image)) = t.on_host("banner") else {
        return;
    };
    let there = Some(host.pid());
    let ports = |expected: &str| {
        t.run(&["ps", "-a", "--format", "{{.Ports}}"])
            .prints(&format!("{expected}\n"));
    };
    let one = row(10000, 13999);
    let serve = ["httpd", "-f", "-p", "16999", "-h", "/var/www"];
    t.ok(&[
        &["run", "-d", "--name", "c", "-p", &one, &image][..],
        &serve,
    ]
    .concat());
    let process = || {
        t.ok(&[
            "network",
            "stats",
            "--format",
            "{{.pid}} {{.restarts}}",
            "c",
        ])
    };
    let before = process();
    let added = t.ok(&["port", "add", "c", &row(14000, 16999)]);
    assert_eq!(added.lines().count(), 3000);
    assert!(added.ends_with("16999/tcp -> 127.0.0.1:16999"), "{added}");
    t.ok(&["port", "add", "c", &format!("{}/udp", row(10000, 12999))]);
    eventually("the page", 20, || fetch(there, "127.0.0.1:16999").ok());
    // It has taken them all as they came.
    assert_eq!(process(), before);
    ports("127.0.0.1:10000-16999->10000-16999/tcp, 127.0.0.1:10000-12999->10000-12999/udp");
    assert_eq!(t.ok(&["port", "c"]).lines().count(), 10_000);

    // All but the first and the last, of both protocols.
    let wanted = ["10001-16998:10001-16998", "10001-12998:10001-12998/udp"];
    t.run(&["port", "rm", "c", wanted[0], wanted[1]])
        .code(0)
        .quiet();
    ports(
        "127.0.0.1:10000->10000/tcp, 127.0.0.1:16999->16999/tcp, 127.0.0.1:10000->10000/udp, 127.0.0.1:12999->12999/udp",
    );
    fetch(there, "127.0.0.1:16999").unwrap();
    for port in [10001, 13999, 14000, 16998] {
        let refused = connect(there, ("127.0.0.1", port)).unwrap_err();
        assert_eq!(
            refused.kind(),
            std::io::ErrorKind::ConnectionRefused,
            "{port}"
        );
    }
    inside(there, || {
        for port in [10001, 12998] {
            UdpSocket::bind(("127.0.0.1", port)).unwrap();
            TcpListener::bind(("127.0.0.1", port)).unwrap();
        }
        for port in [10000, 12999] {
            UdpSocket::bind(("127.0.0.1", port)).unwrap_err();
        }
    });
    assert_eq!(process(), before);

    // At the next start those that are left; one that does not run gives up ports of a row all the same.
    t.ok(&["port", "add", "c", &row(11000, 15999)]);
    t.ok(&["stop", "-t", "0", "c"]);
    inside(there, || TcpListener::bind(("127.0.0.1", 15999)).unwrap());
    t.run(&[
        "port",
        "rm",
        "c",
        "11001-15998:11001-15998",
        "10000",
        "10000/udp",
        "12999/udp",
    ])
    .code(0)
    .quiet();
    let left = "127.0.0.1:11000->11000/tcp, 127.0.0.1:15999->15999/tcp, 127.0.0.1:16999->16999/tcp";
    ports(left);
    t.ok(&["start", "c"]);
    ports(left);
    eventually("the page again", 20, || {
        fetch(there, "127.0.0.1:16999").ok()
    });
    t.run(&["port", "rm", "c", "11000-11001:11000-11001"])
        .refused(125)
        .says("port 11001:11001/tcp is not published");
    ports(left);
}

/// Each port takes an open file: as many as the session may have, and no more.
fn more_than_there_may_be(t: &mut Rcon) {
    let Some((_host, image)) = t.on_host("banner") else {
        return;
    };
    let limited = |words: &[&str]| -> Output {
        let program = t.program.to_str().unwrap();
        let all = [&["prlimit", "--nofile=400:1000", program], words].concat();
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        Running::start(t.command_of(&all), Stdio::null()).wait()
    };
    for spec in [row(2000, 2999), "2000-2499:2000-2499".into()] {
        limited(&["run", "--rm", "-p", &spec, &image, "true"])
            .refused(126)
            .says("they take 1000 open files, and this session may have 1000")
            .says("hint: raise the hard limit of open files");
    }
    // More than the soft limit are not too many; the program has the limits that it would have without ports.
    let script = "ulimit -Sn; ulimit -Hn";
    let spec = row(2000, 2599);
    let words = [
        "run", "--rm", "--ulimit", "host", "-p", &spec, &image, "sh", "-c", script,
    ];
    limited(&words).prints("400\n1000\n");
    // Fewer than there are ports: those are not the program's.
    let limit = ["--ulimit", "nofile=20:30", "-p", &spec];
    t.sh(&limit, &image, script).prints("20\n30\n");
    limited(&["run", "-d", "--name", "c", &image, "sleep", "1000"]).code(0);
    t.ok(&["port", "add", "c", &spec]);
    t.run(&["port", "add", "c", &row(2600, 2899)])
        .refused(126)
        .says("they take 900 open files, and this session may have 1000");
    assert_eq!(t.ok(&["port", "c"]).lines().count(), 600);
}
