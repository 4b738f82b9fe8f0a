//! Debian's docker-registry, filled by skopeo: plain, with TLS and with passwords.
//!
//! Skipped, loudly, where they or openssl are not installed.

use crate::lab::*;
use rcon_image::auth::{self, AuthOptions};
use rcon_image::{Error, PullOptions};
use serde_json::Value;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// bcrypt of `pw` (cost 5).
pub const HTPASSWD: &str = "me:$2y$05$2lPDEHqAmWTstvyj5i7Ns.roQQuxUhIih71MUfUgVT6BjdjzXet2a\n";

/// A running registry; killed when dropped.
pub struct Registry {
    child: Child,
    pub address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn have(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found.is_ok()
}

pub fn tools() -> bool {
    have("docker-registry") && have("skopeo") && have("openssl")
}

/// Start one with these lines in its `http` section, and these after it.
pub fn start(lab: &Lab, http: &str, rest: &str) -> Registry {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let config = lab.path("registry.yml");
    std::fs::write(
        &config,
        format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: {address}\n{http}{rest}",
            lab.path("registry").display()
        ),
    )
    .unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let registry = Registry { child, address };
    let start = Instant::now();
    while TcpStream::connect(&registry.address).is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the registry does not start"
        );
        std::thread::sleep(Duration::from_millis(30));
    }
    registry
}

pub fn skopeo(lab: &Lab, args: &[&str]) {
    let out = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q"])
        .args(args)
        .env("TMPDIR", lab.dir.path())
        .env("HOME", lab.dir.path())
        .env("XDG_RUNTIME_DIR", lab.dir.path())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// An OCI layout with one image, for skopeo to push.
fn layout(lab: &Lab, name: &str) -> String {
    let layer = tar(&[("etc/motd", &noise(200_000)), ("hello", name.as_bytes())]);
    let image = Image::new(&[(layer.clone(), layer)]);
    let dir = lab.path(&format!("layout-{name}"));
    let put = |path: &str, bytes: &[u8]| {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let mut manifest = image.manifest.clone();
    manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
    let manifest = manifest.to_string().into_bytes();
    for blob in image.blobs.iter().chain([&image.config, &manifest]) {
        put(
            &format!("blobs/sha256/{}", rcon_store::Digest::sha256(blob).hex()),
            blob,
        );
    }
    put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [descriptor(OCI_MANIFEST, &manifest)] });
    put("index.json", index.to_string().as_bytes());
    format!("oci:{}", dir.display())
}

#[test]
fn what_skopeo_pushes() {
    if !tools() {
        return;
    }
    let lab = Lab::new();
    let registry = start(&lab, "", "");
    for (tag, args) in [
        ("gzip", &["--dest-compress-format", "gzip"][..]),
        ("zstd", &["--dest-compress-format", "zstd"]),
        ("docker", &["--format", "v2s2"]),
    ] {
        // Each with content of its own: blobs that are there are not compressed anew.
        let from = layout(&lab, tag);
        let name = format!("{}/{tag}:latest", registry.address);
        let to = format!("docker://{name}");
        skopeo(
            &lab,
            &[
                &["--dest-tls-verify=false", from.as_str(), to.as_str()],
                args,
            ]
            .concat(),
        );
        let fresh = Lab::new();
        let record = fresh.pull(&name).unwrap();
        assert_eq!(fresh.read(&record, 0, "hello"), tag);
        let manifest: Value = serde_json::from_slice(&record.manifest().unwrap()).unwrap();
        let media_type = manifest["layers"][0]["mediaType"].as_str().unwrap();
        let ending = if tag == "docker" { "gzip" } else { tag };
        assert!(media_type.ends_with(ending), "{tag}: {media_type}");
    }
    let error = lab
        .pull(&format!("{}/nosuch", registry.address))
        .unwrap_err()
        .to_string();
    assert!(error.contains("reading manifest latest in"), "{error}");
    assert!(error.contains("unknown"), "{error}");
}

fn openssl(dir: &Path, line: &str) {
    let out = Command::new("openssl")
        .args(line.split(' '))
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// A certificate authority and a server certificate for 127.0.0.1, in the folder.
pub fn certificates(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(
        dir.join("san"),
        "subjectAltName=IP:127.0.0.1,DNS:localhost\n",
    )
    .unwrap();
    openssl(
        dir,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=testca",
    );
    openssl(
        dir,
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=registry",
    );
    openssl(
        dir,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile san",
    );
}

#[test]
fn private_authorities_and_passwords() {
    if !tools() {
        return;
    }
    let lab = Lab::new();
    let certs = lab.path("certs");
    certificates(&certs);
    std::fs::write(lab.path("htpasswd"), HTPASSWD).unwrap();
    let at = |name: &str| certs.join(name).display().to_string();
    let registry = start(
        &lab,
        &format!(
            "  tls: {{certificate: {}, key: {}}}\n",
            at("server.crt"),
            at("server.key")
        ),
        &format!(
            "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            lab.path("htpasswd").display()
        ),
    );
    let from = layout(&lab, "app");
    let name = format!("{}/team/app:v1", registry.address);
    skopeo(
        &lab,
        &[
            "--dest-tls-verify=false",
            "--dest-creds",
            "me:pw",
            &from,
            &format!("docker://{name}"),
        ],
    );
    let trusted = lab.path("trusted");
    std::fs::create_dir(&trusted).unwrap();
    std::fs::copy(certs.join("ca.crt"), trusted.join("ca.crt")).unwrap();
    let pull = |options: &PullOptions| {
        let fresh = Lab::new();
        fresh.pull_with(&name, options, &Recorder::default())
    };
    let base = lab.options();

    // Nobody vouches for it; and loopback or not, that is not tried without TLS then.
    let error = pull(&base).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("certificate signed by unknown authority"),
        "{text}"
    );
    assert!(error.hint().is_some());
    let with_ca = PullOptions {
        cert_dir: Some(trusted.clone()),
        ..base.clone()
    };
    let text = pull(&with_ca).unwrap_err().to_string();
    assert!(
        text.contains("unauthorized: authentication required"),
        "{text}"
    );

    let creds = |password: &str| Some(("me".to_owned(), password.to_owned()));
    let wrong = PullOptions {
        creds: creds("no"),
        ..with_ca.clone()
    };
    assert!(
        pull(&wrong)
            .unwrap_err()
            .to_string()
            .contains("unauthorized")
    );
    pull(&PullOptions {
        creds: creds("pw"),
        ..with_ca.clone()
    })
    .unwrap();
    pull(&PullOptions {
        creds: creds("pw"),
        tls_verify: Some(false),
        ..base.clone()
    })
    .unwrap();

    // The server's own certificate is as good as its authority's.
    let pinned = lab.path("pinned");
    std::fs::create_dir(&pinned).unwrap();
    std::fs::copy(certs.join("server.crt"), pinned.join("server.crt")).unwrap();
    pull(&PullOptions {
        creds: creds("pw"),
        cert_dir: Some(pinned),
        ..base
    })
    .unwrap();

    let auth = AuthOptions {
        authfile: Some(lab.path("auth.json")),
        cert_dir: Some(trusted),
        tls_verify: None,
    };
    let error = auth::login(&registry.address, "me", "no", &auth).unwrap_err();
    assert!(matches!(error, Error::WrongPassword { .. }), "{error}");
    auth::login(&registry.address, "me", "pw", &auth).unwrap();
    let stored = PullOptions {
        authfile: auth.authfile.clone(),
        ..with_ca
    };
    pull(&stored).unwrap();
    assert!(auth::logout(&registry.address, &auth).unwrap());
    pull(&stored).unwrap_err();
}
