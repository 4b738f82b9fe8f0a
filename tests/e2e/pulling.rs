//! What is seen of a pull on a terminal, all tags at once, and ways through proxies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::lab::fake::{Fake, Fault};
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, registry};

scenarios!(bars, all_tags, proxies);

fn bars(t: &mut Rcon) {
    let fake = Fake::start(crate::registry::big(), Fault::Stall(300_000));
    let mut screen = t.terminal(&["pull", &fake.name()]);
    // So much of how much, how fast, and how long it takes from now.
    screen.expect("Copying blob ");
    screen.expect(" KiB / 1.0");
    screen.expect("iB | ");
    screen.expect("/s, ");
    screen.expect(" left");
    screen.send("\x03");
    assert_eq!(screen.wait(), 130, "{}", screen.story());
    assert!(screen.is_restored());
    t.run(&["images", "-aq"]).prints("");
    // What is done stays as a line, and the id is what is printed.
    let image = registry::plain().name("tall");
    let mut screen = t.terminal(&["pull", &image]);
    screen.expect(&format!("Trying to pull {image}..."));
    screen.expect("Copying blob ");
    screen.expect(" done");
    screen.expect("Copying config ");
    screen.expect("Writing manifest to image destination");
    assert_eq!(screen.wait(), 0, "{}", screen.story());
    let id = t.inspect(&image, "{{.Id}}");
    screen.expect(&id);
    let mut screen = t.terminal(&["pull", &image]);
    screen.expect("skipped: already exists");
    assert_eq!(screen.wait(), 0, "{}", screen.story());
    t.run(&["rmi", &image]).code(0);
    // Quiet is quiet, on a terminal as well.
    let mut screen = t.terminal(&["pull", "-q", &image]);
    assert_eq!(screen.wait(), 0, "{}", screen.story());
    assert_eq!(screen.expect(&id).trim(), "", "{}", screen.story());
}

fn all_tags(t: &mut Rcon) {
    let number = t.dir.file_name().unwrap().to_str().unwrap();
    let name = format!("{}/tags-{number}/it", registry::writable().address);
    let (first, second) = (t.pull("busybox"), t.pull("odd"));
    for (image, tag) in [(&first, "one"), (&first, "also-one"), (&second, "two")] {
        let to = format!("{name}:{tag}");
        t.run(&["push", "-q", "--tls-verify=false", image, &to])
            .code(0);
    }
    let ids: Vec<String> = [&first, &second]
        .map(|image| t.inspect(image, "{{.Id}}"))
        .to_vec();
    t.run(&["rmi", "-a", "-f"]).code(0);
    let out = t.run(&["pull", "-q", "--all-tags", "--tls-verify=false", &name]);
    out.code(0).shows(&ids[0]).shows(&ids[1]);
    let rows = ["images", "--sort", "tag", "--format", "{{.Tag}}", &name];
    t.run(&rows).prints("also-one\none\ntwo\n");
    t.run(&["pull", "-a", "--tls-verify=false", &format!("{name}:one")])
        .refused(125)
        .says("without a tag");
    t.run(&["rmi", "-a", "-f"]).code(0);
}

/// A proxy for TLS that leads everybody to one port of this machine; where they wanted to go.
fn proxy(port: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let log = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&log);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || lead(client, port, &seen));
        }
    });
    (address, log)
}

fn lead(client: TcpStream, port: u16, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    seen.lock().unwrap().push(request.trim().to_owned());
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let mut client = client;
    if !request.starts_with("CONNECT ") {
        return client
            .write_all(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
            .ok();
    }
    let server = TcpStream::connect(("127.0.0.1", port)).ok()?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let pass = |mut from: Box<dyn Read + Send>, mut to: TcpStream| {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        })
    };
    let there = pass(Box::new(reader), server.try_clone().ok()?);
    let back = pass(Box::new(server), client);
    let _ = (there.join(), back.join());
    Some(())
}

fn proxies(t: &mut Rcon) {
    let (address, seen) = proxy(registry::tls().port());
    let image = "registry.test/busybox:latest";
    let pull = ["pull", "-q", "--tls-verify=false", "--retry", "0", image];
    // Nobody knows where that is but the proxy.
    t.run(&pull).refused(125);
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        t.set_env(name, &address);
        t.run(&pull).code(0);
        t.run(&["rmi", image]).code(0);
        let asked: Vec<String> = std::mem::take(&mut *seen.lock().unwrap());
        assert!(!asked.is_empty(), "{name}");
        for line in asked {
            assert!(line.starts_with("CONNECT registry.test:443 "), "{line}");
        }
        t.set_env("NO_PROXY", "registry.test");
        t.run(&pull).refused(125);
        t.set_env("NO_PROXY", "");
        assert!(seen.lock().unwrap().is_empty(), "{name}");
        // This machine's own are not a proxy's.
        t.pull("busybox");
        assert!(seen.lock().unwrap().is_empty(), "{name}");
        t.set_env(name, "");
    }
    t.run(&["rmi", "-a"]).code(0);
}
