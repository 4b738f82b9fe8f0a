//! Debian's docker-registry, serving what the image script pushed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use super::service::Service;
use super::{lab, script};

/// A running registry.
pub struct Registry {
    /// `ADDRESS:PORT`.
    pub address: String,
    _service: Service,
}

/// The name and the password that the registry with passwords takes.
pub const USER: (&str, &str) = ("ada", "correct horse");

impl Registry {
    fn start(options: &[&str]) -> Registry {
        Registry::start_on(&lab().cache.join("registry"), options)
    }

    fn start_on(storage: &Path, options: &[&str]) -> Registry {
        let mut args = vec![storage.to_str().unwrap()];
        args.extend(options);
        let mut service = Service::leashed(&script("registry"), &args);
        let address = service.wait_for(Duration::from_secs(60), |line| {
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split([' ', '"', ',']).next()?.to_owned())
        });
        Registry {
            address,
            _service: service,
        }
    }

    /// The full name of an image in it.
    pub fn name(&self, image: &str) -> String {
        let tag = if image.contains([':', '@']) {
            ""
        } else {
            ":latest"
        };
        format!("{}/{image}{tag}", self.address)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.rsplit(':').next().unwrap().parse().unwrap()
    }
}

/// Plain HTTP on the loopback interface.
pub fn plain() -> &'static Registry {
    static PLAIN: LazyLock<Registry> = LazyLock::new(|| {
        lab()
            .images("busybox")
            .unwrap_or_else(|e| panic!("no lab: {e}"));
        Registry::start(&[])
    });
    &PLAIN
}

/// HTTPS with a certificate that only the lab's authority vouches for, made out to `localhost` and 127.0.0.1.
pub fn tls() -> &'static Registry {
    static TLS: LazyLock<Registry> = LazyLock::new(|| {
        lab()
            .images("busybox")
            .unwrap_or_else(|e| panic!("no lab: {e}"));
        let keys = keys();
        let path = |name: &str| keys.join(name).to_str().unwrap().to_owned();
        Registry::start(&["--tls", &path("server.crt"), &path("server.key")])
    });
    &TLS
}

/// Plain HTTP that asks for [`USER`]'s password.
pub fn guarded() -> &'static Registry {
    static GUARDED: LazyLock<Registry> = LazyLock::new(|| {
        lab()
            .images("busybox")
            .unwrap_or_else(|e| panic!("no lab: {e}"));
        Registry::start(&["--htpasswd", passwords().to_str().unwrap()])
    });
    &GUARDED
}

/// Plain HTTP, empty, for pushing to.
pub fn writable() -> &'static Registry {
    static WRITABLE: LazyLock<Registry> =
        LazyLock::new(|| Registry::start_on(&lab().base.join("pushed"), &["--fill"]));
    &WRITABLE
}

/// The same with the certificate of [`tls`] and the password of [`guarded`].
pub fn writable_guarded() -> &'static Registry {
    static WRITABLE: LazyLock<Registry> = LazyLock::new(|| {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (cert, key) = (keys().join("server.crt"), keys().join("server.key"));
        let storage = lab().base.join("pushed-guarded");
        let options = [path(&cert), path(&key), path(passwords())];
        let [cert, key, passwords] = &options;
        Registry::start_on(
            &storage,
            &["--fill", "--tls", cert, key, "--htpasswd", passwords],
        )
    });
    &WRITABLE
}

/// The file with [`USER`]'s password.
fn passwords() -> &'static PathBuf {
    static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
        let file = lab().base.join("htpasswd");
        let out = Command::new("htpasswd")
            .args(["-nbB", USER.0, USER.1])
            .output()
            .expect("htpasswd");
        fs::write(&file, out.stdout).unwrap();
        file
    });
    &FILE
}

/// The certificate of the lab's authority.
pub fn authority() -> PathBuf {
    keys().join("ca.crt")
}

fn keys() -> &'static PathBuf {
    static KEYS: LazyLock<PathBuf> = LazyLock::new(|| {
        let dir = lab().base.join("keys");
        fs::create_dir(&dir).unwrap();
        let openssl = |words: &str| {
            let out = Command::new("openssl")
                .args(words.split(' '))
                .current_dir(&dir)
                .output()
                .expect("openssl");
            assert!(
                out.status.success(),
                "openssl {words}: {}",
                String::from_utf8_lossy(&out.stderr)
            );
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!(
            "req -x509 {key} -days 2 -subj /CN=lab-authority -keyout ca.key -out ca.crt"
        ));
        openssl(&format!(
            "req {key} -subj /CN=localhost -keyout server.key -out server.csr"
        ));
        fs::write(
            dir.join("names"),
            "subjectAltName=DNS:localhost,DNS:registry.lab.test,IP:127.0.0.1,IP:10.0.0.80\n",
        )
        .unwrap();
        openssl(
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt",
        );
        dir
    });
    &KEYS
}
