//! Registries: TLS, passwords, tokens, platforms, and those that misbehave.

use std::fs;
use std::time::{Duration, Instant};

use crate::lab::fake::{Fake, Fault};
use crate::lab::scenario::scenarios;
use crate::lab::tar::{Entry, Image, layer};
use crate::lab::{Rcon, registry};

scenarios!(
    tells_what_it_does,
    private_authority,
    passwords,
    login_and_logout,
    tokens,
    redirects,
    platforms,
    by_digest,
    unknown_images,
    unreachable,
    bad_references,
    bad_bytes,
    cut_short,
    cut_once,
    busy,
    broken_server,
    nonsense,
    second_pull_costs_nothing,
);

fn tells_what_it_does(t: &mut Rcon) {
    let image = registry::plain().name("busybox");
    let out = t.run(&["pull", &image]);
    out.code(0).says(&format!("Trying to pull {image}..."));
    let id = t.ok(&["images", "-q", "--no-trunc"]);
    // Only the id goes to standard output.
    assert_eq!(out.ok(), &id[7..], "{}", out.story());
    let out = t.run(&["pull", "-q", &image]);
    assert_eq!(out.ok(), &id[7..]);
    out.quiet();
    t.run(&["image", "pull", "-q", &image]).code(0);
}

fn private_authority(t: &mut Rcon) {
    let server = registry::tls();
    let image = format!("localhost:{}/busybox:latest", server.port());
    // Nobody vouches for it: refused, and not by falling back to plain HTTP.
    t.run(&["pull", &image])
        .refused_after("Trying to pull", 125)
        .says("certificate");
    t.run(&["pull", "-q", "--tls-verify=false", &image]).code(0);
    t.run(&["rmi", &image]).code(0);
    // A folder of certificates given by hand.
    let dir = t.mkdir("certificates");
    t.write(
        "certificates/ca.crt",
        fs::read(registry::authority()).unwrap(),
    );
    t.run(&["pull", "-q", "--cert-dir", &dir, &image]).code(0);
    t.run(&["rmi", &image]).code(0);
    // The user's own folder for that registry.
    let at = format!(
        ".config/containers/certs.d/localhost:{}/ca.crt",
        server.port()
    );
    t.write(&at, fs::read(registry::authority()).unwrap());
    t.run(&["run", "--rm", "-q", &image, "echo", "trusted"])
        .prints("trusted\n");
    t.run(&[
        "pull",
        "-q",
        &format!("127.0.0.1:{}/busybox", server.port()),
    ])
    .code(125);
    fs::remove_file(t.home(&at)).unwrap();
    // The authorities of the whole system, named by the usual variable.
    let bundle = t.write("bundle.pem", fs::read(registry::authority()).unwrap());
    t.set_env("SSL_CERT_FILE", &bundle);
    t.run(&["pull", "-q", &image]).code(0);
}

fn passwords(t: &mut Rcon) {
    let server = registry::guarded();
    let image = server.name("busybox");
    let (user, password) = registry::USER;
    t.run(&["pull", "-q", &image])
        .refused(125)
        .says("unauthorized");
    t.run(&["pull", "-q", "--creds", &format!("{user}:wrong"), &image])
        .refused(125)
        .says("unauthorized");
    t.run(&[
        "pull",
        "-q",
        "--creds",
        &format!("{user}:{password}"),
        &image,
    ])
    .code(0);
    let out = t.run(&["pull", "--creds", &format!("{user}:{password}"), &image]);
    assert!(
        !out.stderr.contains(password),
        "the password is shown\n{}",
        out.story()
    );
}

fn login_and_logout(t: &mut Rcon) {
    let server = registry::guarded();
    let image = server.name("busybox");
    let (user, password) = registry::USER;
    let address = server.address.as_str();
    t.feed(
        b"wrong",
        &["login", "-u", user, "--password-stdin", address],
    )
    .refused(125)
    .says("password");
    t.run(&["pull", "-q", &image]).code(125);
    t.feed(
        password.as_bytes(),
        &["login", "-u", user, "--password-stdin", address],
    )
    .prints("Login Succeeded!\n");
    t.run(&["login", "--get-login", address])
        .prints(&format!("{user}\n"));
    t.run(&["pull", "-q", &image]).code(0);
    let file = t.dir.join("run/containers/auth.json");
    let text = fs::read_to_string(&file).expect("where podman keeps it");
    assert!(text.contains(address) && !text.contains(password), "{text}");
    assert_eq!(
        std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file).unwrap()) & 0o777,
        0o600
    );
    t.run(&["logout", address])
        .prints(&format!("Removed login credentials for {address}\n"));
    t.run(&["pull", "-q", &image]).code(125);
    t.run(&["logout", address])
        .refused(125)
        .says("not logged into");
    // A password that is kept as a secret of the user's name.
    t.feed(password.as_bytes(), &["secret", "create", user, "-"])
        .code(0);
    t.run(&["login", "--secret", user, address])
        .prints("Login Succeeded!\n");
    t.run(&["login", "--secret", user, "-p", "x", address])
        .refused(125);
    t.run(&["login", "--secret", "nosuch", address])
        .refused(125)
        .says("no such secret");
    t.ok(&["secret", "rm", user]);
    t.run(&["logout", address]).code(0);
    // A file of one's own, and Docker's.
    let own = t.home("auth.json");
    let own = own.to_str().unwrap();
    t.run(&[
        "login",
        "-u",
        user,
        "-p",
        password,
        "--authfile",
        own,
        address,
    ])
    .code(0)
    .shows("Login Succeeded!");
    t.run(&["pull", "-q", "--authfile", own, &image]).code(0);
    t.run(&["pull", "-q", &image]).code(125);
    t.write(".docker/config.json", fs::read(own).unwrap());
    t.run(&["pull", "-q", &image]).code(0);
}

fn tokens(t: &mut Rcon) {
    let fake = Fake::start(small(), Fault::Token);
    t.run(&["pull", "-q", &fake.name()]).code(0);
    let asked = fake
        .requests()
        .iter()
        .filter(|r| r.contains("/token"))
        .count();
    assert!((1..=2).contains(&asked), "{:#?}", fake.requests());
}

fn redirects(t: &mut Rcon) {
    let store = Fake::start(small(), Fault::NoCredentials);
    let fake = Fake::start(small(), Fault::Redirect(store.address.clone()));
    t.run(&["pull", "-q", "--creds", "ada:secret", &fake.name()])
        .code(0);
    assert!(
        store.requests().iter().any(|r| r.contains("/blobs/")),
        "{:#?}",
        store.requests()
    );
}

fn platforms(t: &mut Rcon) {
    let list = registry::plain().name("busybox:list");
    t.run(&["run", "--rm", "-q", &list, "cat", "/etc/platform"])
        .code(1);
    let id = t.ok(&["pull", "-q", "--platform", "linux/arm64", &list]);
    assert_eq!(t.inspect(&id, "{{.Architecture}}"), "arm64");
    // The same in the words that were there before.
    for words in [
        &["--arch", "arm64"][..],
        &["--arch=aarch64"],
        &["--os", "linux", "--arch", "arm64"],
        &["--arch", "arm64", "--variant", "v8"],
    ] {
        let pull = [&["pull", "-q"], words, &[&list]].concat();
        assert_eq!(t.ok(&pull), id, "{words:?}");
    }
    t.run(&["pull", "-q", "--os", "windows", &list])
        .refused(125)
        .says("windows");
    t.run(&[
        "pull",
        "-q",
        "--platform",
        "linux/arm64",
        "--arch",
        "arm64",
        &list,
    ])
    .refused(125);
    t.run(&[
        "create", "-q", "--arch", "arm64", "--name", "c", &list, "true",
    ])
    .code(0);
    assert_eq!(t.inspect("c", "{{.Image}}"), id);
    t.ok(&["rm", "c"]);
    t.run(&["pull", "-q", "--platform", "linux/s390x", &list])
        .refused(125)
        .says("s390x");
    t.run(&["pull", "-q", "--platform", "a/b/c/d", &list])
        .refused(125)
        .says("a/b/c/d");
}

fn by_digest(t: &mut Rcon) {
    let image = t.pull("busybox");
    let digest = t.inspect(&image, "{{.Digest}}");
    t.run(&["rmi", &image]).code(0);
    let name = format!("{}@{digest}", image.strip_suffix(":latest").unwrap());
    t.run(&["run", "--rm", "-q", &name, "echo", "exact"])
        .prints("exact\n");
    let wrong = format!(
        "{}@sha256:{}",
        image.strip_suffix(":latest").unwrap(),
        "0".repeat(64)
    );
    t.run(&["pull", "-q", &wrong])
        .refused(125)
        .says("manifest unknown");
}

fn unknown_images(t: &mut Rcon) {
    let plain = registry::plain();
    t.run(&["pull", "-q", &plain.name("nosuch")])
        .refused(125)
        .says("nosuch")
        .says("unknown");
    t.run(&["pull", "-q", &plain.name("busybox:nosuch")])
        .refused(125)
        .says("manifest unknown");
    t.run(&["run", "--rm", "-q", &plain.name("nosuch"), "true"])
        .refused(125)
        .says("nosuch");
    t.has_containers(0);
}

fn unreachable(t: &mut Rcon) {
    let since = Instant::now();
    let port = crate::lab::net::free_port();
    let image = format!("127.0.0.1:{port}/nothing:latest");
    t.run(&["pull", "-q", &image])
        .refused(125)
        .says("connection refused")
        .says(&format!("127.0.0.1:{port}"));
    t.run(&["run", "--rm", "-q", &image, "true"])
        .refused(125)
        .says("connection refused");
    assert!(
        since.elapsed() < Duration::from_secs(30),
        "that took {:?}",
        since.elapsed()
    );
    t.run(&["pull", "-q", "nosuch.invalid/nothing:latest"])
        .refused(125)
        .says("nosuch.invalid");
}

fn bad_references(t: &mut Rcon) {
    for name in [
        "UPPER/x",
        "a//b",
        "x:y:z/w",
        "x@sha256:12",
        "x@nosuch:12",
        "",
        " ",
        "x y",
        "../x",
        "-",
    ] {
        let out = t.run(&["pull", "-q", "--", name]);
        assert!(
            out.code == 125 && out.stderr.starts_with("Error: "),
            "{name:?}\n{}",
            out.story()
        );
    }
    t.run(&["run", "--rm", "a/UPPER", "true"])
        .refused(125)
        .says("lowercase");
    t.run(&["images", "-q"]).prints("");
}

fn bad_bytes(t: &mut Rcon) {
    let fake = Fake::start(small(), Fault::Flip);
    t.run(&["pull", "-q", &fake.name()])
        .refused(125)
        .says("digest");
    empty(t);
    // A layer that is what its digest says, but not what the configuration says of its files.
    let mut image = small();
    let other = Image::of(&[layer(&[Entry::File("other", b"other")])]);
    image.blobs[1] = other.blobs[1].clone();
    image.write_manifest();
    let fake = Fake::start(image, Fault::None);
    t.run(&["pull", "-q", &fake.name()]).refused(125);
    empty(t);
}

fn cut_short(t: &mut Rcon) {
    let fake = Fake::start(big(), Fault::Cut(100_000));
    let since = Instant::now();
    t.run(&["pull", "-q", &fake.name()]).refused(125);
    assert!(
        since.elapsed() < Duration::from_secs(60),
        "that took {:?}",
        since.elapsed()
    );
    empty(t);
}

fn cut_once(t: &mut Rcon) {
    let fake = Fake::start(big(), Fault::CutOnce(100_000));
    t.run(&["pull", "-q", &fake.name()]).code(0);
    let blobs = fake
        .requests()
        .iter()
        .filter(|r| r.starts_with("GET /v2/fake/blobs/"))
        .count();
    assert_eq!(
        blobs,
        3,
        "the layer twice, the configuration once: {:#?}",
        fake.requests()
    );
}

fn busy(t: &mut Rcon) {
    for status in [429, 503] {
        let fake = Fake::start(small(), Fault::Busy(status));
        t.run(&["pull", "-q", &fake.name()]).code(0);
    }
}

fn broken_server(t: &mut Rcon) {
    let fake = Fake::start(small(), Fault::Status(500));
    let since = Instant::now();
    t.run(&["pull", "-q", &fake.name()])
        .refused(125)
        .says("unavailable");
    assert!(
        since.elapsed() < Duration::from_secs(60),
        "that took {:?}",
        since.elapsed()
    );
    let fake = Fake::start(small(), Fault::Status(403));
    t.run(&["pull", "-q", &fake.name()])
        .refused(125)
        .says("denied");
    empty(t);
}

fn nonsense(t: &mut Rcon) {
    let fake = Fake::start(small(), Fault::Nonsense);
    t.run(&["pull", "-q", &fake.name()])
        .refused(125)
        .says("manifest");
    empty(t);
}

fn second_pull_costs_nothing(t: &mut Rcon) {
    let fake = Fake::start(small(), Fault::None);
    t.run(&["pull", "-q", &fake.name()]).code(0);
    let before = fake.requests().len();
    t.run(&["pull", "-q", &fake.name()]).code(0);
    // The configuration may be asked for again, it is small; the layer is not.
    let layer = small().blobs.last().unwrap().0.clone();
    let again = fake.requests()[before..].to_vec();
    assert!(!again.iter().any(|r| r.ends_with(&layer)), "{again:#?}");
}

pub fn small() -> Image {
    Image::of(&[layer(&[
        Entry::Dir("d"),
        Entry::File("d/hello", b"hello\n"),
    ])])
}

/// An image with a layer that does not shrink: a megabyte without a pattern.
pub fn big() -> Image {
    let mut state = 1u64;
    let noise: Vec<u8> = (0..1 << 20)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        })
        .collect();
    Image::of(&[layer(&[Entry::File("noise", &noise)])])
}

#[track_caller]
fn empty(t: &Rcon) {
    t.run(&["images", "-a", "-q"]).prints("");
}
