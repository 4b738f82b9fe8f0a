//! `rcon net`: the network for processes that rcon did not start, driven as slirp4netns is.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::lab::host::{ADDRESS, Host, NEIGHBOUR};
use crate::lab::net::{connect, fetch, inside};
use crate::lab::program::Running;
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Output, Rcon, eventually, installed, skip};

scenarios!(
    in_slirp4netns_place,
    a_device_that_is_there,
    without_names_and_with_an_address_of_its_own,
    under_rootlesskit,
    refusals
);

fn start(t: &Rcon, words: &[&str], stdin: Stdio) -> Running {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    Running::start(t.command_of(&words), stdin)
}

/// A process in a network namespace of its own.
fn lonely(t: &Rcon) -> Running {
    let process = start(t, &["unshare", "-r", "-n", "sleep", "1000"], Stdio::null());
    eventually("a process with a network namespace", 20, || {
        let name = fs::read_to_string(format!("/proc/{}/comm", process.pid())).ok()?;
        (name.trim() == "sleep").then_some(())
    });
    process
}

/// Runs a script where that process is.
fn within(t: &Rcon, process: &Running, script: &str) -> Output {
    let pid = process.pid().to_string();
    let words = [
        "nsenter",
        "-t",
        &pid,
        "-U",
        "-n",
        "--preserve-credentials",
        "sh",
        "-c",
        script,
    ];
    start(t, &words, Stdio::null()).wait()
}

/// Starts `rcon net` for it, which ends when its standard input is closed; waits until it is ready.
fn serve(t: &Rcon, process: &Running, options: &str) -> Running {
    let script = format!(
        "exec {} net -r 3 -e 4 {options} {} tap0 3>ready 4<&0",
        t.program.display(),
        process.pid()
    );
    let _ = fs::remove_file(t.home("ready"));
    let mut network = Some(start(t, &["sh", "-c", &script], Stdio::piped()));
    eventually("the network is ready", 20, || {
        let ready = fs::read_to_string(t.home("ready")).unwrap_or_default();
        if ready != "1" && network.as_mut()?.has_ended() {
            panic!("{}", network.take()?.wait().story());
        }
        (ready == "1").then_some(())
    });
    network.unwrap()
}

/// Asks by slirp4netns's API.
fn ask(t: &Rcon, request: &str) -> String {
    let mut stream = UnixStream::connect(t.home("api.sock")).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn in_slirp4netns_place(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    let process = lonely(t);
    let options = "--configure --mtu=65520 -6 --disable-host-loopback --enable-sandbox -a api.sock";
    let mut network = serve(t, &process, options);
    within(t, &process, "ip addr show; ip route; ip -6 route")
        .code(0)
        .shows("10.0.2.100/24 brd 10.0.2.255")
        .shows("mtu 65520")
        .shows("default via 10.0.2.2 dev tap0")
        .shows("fd00::100/64")
        .shows("default via fe80::2 dev tap0");
    // Out, with names; the host's loopback stays closed.
    within(t, &process, "busybox wget -q -O - http://10.0.0.80/Release")
        .code(0)
        .shows("SHA256");
    within(
        t,
        &process,
        "busybox nslookup -type=a web.lab.test 10.0.2.3",
    )
    .code(0)
    .shows("10.0.0.80");
    let _listener = inside(Some(host.pid()), || {
        std::net::TcpListener::bind("127.0.0.1:7000").unwrap()
    });
    let closed = within(t, &process, "busybox nc -w 2 10.0.2.2 7000 < /dev/null");
    assert_ne!(closed.code, 0, "{}", closed.story());

    // In, as slirp4netns's users ask for it.
    let pid = process.pid().to_string();
    let words = [
        "nsenter",
        "-t",
        &pid,
        "-U",
        "-n",
        "--preserve-credentials",
        "busybox",
        "httpd",
        "-f",
        "-p",
        "80",
        "-h",
        "/usr/share/common-licenses",
    ];
    let server = start(t, &words, Stdio::null());
    let add = r#"{"execute": "add_hostfwd", "arguments": {"proto": "tcp", "host_addr": "0.0.0.0", "host_port": 8080, "guest_addr": "10.0.2.100", "guest_port": 80}}"#;
    assert_eq!(ask(t, add), r#"{"return":{"id":1}}"#);
    let to = format!("{ADDRESS}:8080");
    eventually("an answer of the server", 20, || {
        // There is no index: that the server says so is enough.
        match fetch(Some(host.neighbour()), &to) {
            Err(error) if error.to_string().contains("404") => Some(()),
            _ => None,
        }
    });
    let listed: Value = serde_json::from_str(&ask(t, r#"{"execute":"list_hostfwd"}"#)).unwrap();
    let entry = json!({
        "id": 1, "proto": "tcp", "host_addr": "0.0.0.0", "host_port": 8080,
        "guest_addr": "10.0.2.100", "guest_port": 80,
    });
    assert_eq!(listed, json!({"return": {"entries": [entry]}}));
    // What cannot be done is told in its words.
    let refusal = |request: &str| {
        let answer: Value = serde_json::from_str(&ask(t, request)).unwrap();
        answer["error"]["desc"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(
        refusal(add),
        "bad request: add_hostfwd: slirp_add_hostfwd failed"
    );
    let sctp = add.replace("tcp", "sctp");
    assert_eq!(
        refusal(&sctp),
        "bad request: add_hostfwd: bad arguments.proto"
    );
    let nowhere = add.replace("10.0.2.100", "10.0.2.7");
    assert_eq!(
        refusal(&nowhere),
        "bad request: add_hostfwd: bad arguments.guest_addr"
    );
    assert_eq!(
        refusal("{\"execute\":\"dance\"}"),
        "bad request: unknown execute"
    );
    assert_eq!(refusal("{}"), "bad request: no execute found");
    assert_eq!(refusal("nonsense"), "bad request: cannot parse JSON");
    let remove = r#"{"execute":"remove_hostfwd","arguments":{"id":1}}"#;
    assert_eq!(ask(t, remove), r#"{"return":{}}"#);
    assert!(connect(Some(host.neighbour()), &*to).is_err());
    assert_eq!(
        refusal(remove),
        "bad request: remove_hostfwd: bad arguments.id"
    );

    // The end is asked for by closing a descriptor.
    network.close_input();
    network.wait().code(0).quiet();
    assert!(!t.home("api.sock").exists());
    let gone = within(t, &process, "ip link show tap0");
    assert_ne!(gone.code, 0, "{}", gone.story());
    for process in [server, process] {
        process.signal(Signal::SIGKILL);
        process.wait();
    }
}

/// As rootlesskit does it: the device and its addresses are somebody else's.
fn a_device_that_is_there(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    let process = lonely(t);
    within(
        t,
        &process,
        "ip link set lo up; ip tuntap add name tap0 mode tap; ip link set tap0 up; \
         ip addr add 10.0.2.100/24 dev tap0; ip route add default via 10.0.2.2 dev tap0",
    )
    .code(0);
    let listener = inside(Some(host.pid()), || {
        std::net::TcpListener::bind("127.0.0.1:7000").unwrap()
    });
    let mut network = serve(t, &process, "");
    within(
        t,
        &process,
        &format!("busybox wget -q -O - http://10.0.0.80/Release; busybox nc -w 2 {NEIGHBOUR} 9"),
    )
    .shows("SHA256")
    .says("refused");
    // Unless it is told otherwise, 10.0.2.2 is the host's 127.0.0.1, as slirp4netns has it.
    let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"host\n"));
    within(t, &process, "busybox nc -w 5 10.0.2.2 7000 < /dev/null").prints("host\n");
    server.join().unwrap().unwrap();
    network.close_input();
    network.wait().code(0);
    process.signal(Signal::SIGKILL);
    process.wait();
}

fn without_names_and_with_an_address_of_its_own(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    let process = lonely(t);
    let options = "-c --target-type=netns --disable-dns --macaddress=52:54:00:12:34:56";
    let mut network = serve(t, &process, options);
    within(
        t,
        &process,
        "ip link show tap0; busybox wget -q -O - http://10.0.0.80/Release",
    )
    .code(0)
    .shows("link/ether 52:54:00:12:34:56")
    .shows("SHA256");
    let script = "busybox nslookup -type=a web.lab.test 10.0.2.3";
    let asked = within(t, &process, script);
    assert!(
        asked.code != 0 && !asked.stdout.contains("10.0.0.80"),
        "{}",
        asked.story()
    );
    network.close_input();
    network.wait().code(0);
    process.signal(Signal::SIGKILL);
    process.wait();
}

fn under_rootlesskit(t: &mut Rcon) {
    if t.mode != Mode::ManyIds {
        return;
    }
    if !installed("rootlesskit") {
        return skip("rootlesskit is not installed");
    }
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in --version) echo slirp4netns version 1.2.0;; *) exec {} net \"$@\";; esac\n",
        t.program.display()
    );
    let stand_in = t.write("slirp4netns", script);
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(t.home("slirp4netns"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let binary = format!("--slirp4netns-binary={stand_in}");
    let words = [
        "rootlesskit",
        "--net=slirp4netns",
        &binary,
        "--disable-host-loopback",
        "--copy-up=/etc",
        "--port-driver=slirp4netns",
        "-p",
        "0.0.0.0:8080:80/tcp",
        "sh",
        "-c",
        "busybox wget -q -O - http://10.0.0.80/Release | grep -c SHA256 > fetched; \
         exec busybox httpd -f -p 80 -h /usr/share/common-licenses",
    ];
    let kit = start(t, &words, Stdio::null());
    let to = format!("{ADDRESS}:8080");
    let mut kit = Some(kit);
    eventually("an answer of the server", 30, || {
        if kit.as_mut()?.has_ended() {
            panic!("{}", kit.take()?.wait().story());
        }
        match fetch(Some(host.neighbour()), &to) {
            Err(error) if error.to_string().contains("404") => Some(()),
            _ => None,
        }
    });
    assert_eq!(fs::read_to_string(t.home("fetched")).unwrap().trim(), "1");
    let kit = kit.unwrap();
    kit.signal(Signal::SIGTERM);
    kit.wait();
}

fn refusals(t: &mut Rcon) {
    t.run(&["net"]).refused(125).says("accepts 1 or 2 arg(s)");
    t.run(&["net", "what"]).refused(125).says("no process id");
    t.run(&["net", "--netns-type=path", "/nowhere"])
        .refused(125)
        .says("no such file or directory");
    t.run(&["net", "-m", "12", "1"]).refused(125).says("mtu");
    t.run(&["net", "-c", "--macaddress", "x", "1"])
        .refused(125)
        .says("invalid MAC address");
    t.run(&["net", "--macaddress", "52:54:00:00:00:01", "1"])
        .refused(125)
        .says("--configure");
    t.run(&["net", "--target-type=bess", "/tmp/bess"])
        .refused(125)
        .says("not supported");
    t.run(&["net", "-r", "77", &std::process::id().to_string()])
        .refused(125);
}
