//! Ctrl-c, and what depends on the environment: in a process of its own, the crate's example.

use crate::fake::{Fake, Stop};
use crate::lab::*;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The example, with the lab's second store.
pub fn program(lab: &Lab) -> Command {
    let mut at: PathBuf = std::env::current_exe().unwrap();
    at.pop();
    at.pop();
    let mut command = Command::new(at.join("examples/image"));
    command
        .arg(lab.path("other"))
        .env("XDG_CONFIG_HOME", lab.path("config"));
    command
}

/// `None`, said loudly, where user namespaces cannot be had or the example was not built.
pub fn usable(out: io::Result<Output>) -> Option<Output> {
    let skip = |why: String| {
        eprintln!("SKIPPED: {why}");
        None
    };
    match out {
        Ok(out) if out.status.code() == Some(rcon_sys::userns::NOT_SET_UP) => {
            skip("no user namespace can be made here".to_owned())
        }
        Ok(out) => Some(out),
        Err(e) => skip(format!("the example `image` cannot be run: {e}")),
    }
}

#[test]
fn an_interrupted_pull_leaves_nothing() {
    for signal in ["INT", "TERM"] {
        let fake = Fake::start();
        let image = Image::noisy(3_000_000);
        image.serve(&fake, "x", "latest");
        let at = image.blob_path("x", 0);
        fake.on_request(move |request, reply| match request.path == at {
            true => reply.stopping(2_000_000, Stop::Stall(Duration::from_secs(30))),
            false => reply,
        });
        let lab = Lab::new();
        let child = program(&lab)
            .args(["pull", &format!("{}/x", fake.address)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("SKIPPED: the example `image` cannot be run");
            return;
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let pid = lines
            .next()
            .and_then(|l| Some(l.ok()?.strip_prefix("worker ")?.to_owned()));
        let Some(pid) = pid else {
            eprintln!("SKIPPED: no user namespace can be made here");
            child.wait().unwrap();
            return;
        };
        // Until it is in the middle of the layer.
        let tmp = lab.path("other/tmp");
        let start = Instant::now();
        while std::fs::read_dir(&tmp).map_or(0, Iterator::count) == 0 {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "it does not start"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(200));
        let killed = Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status()
            .unwrap();
        assert!(killed.success());
        let stopping = Instant::now();
        let out = child.wait_with_output().unwrap();
        assert_eq!(
            out.status.code(),
            Some(130),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        assert!(stopping.elapsed() < Duration::from_secs(2));
        let left = std::fs::read_dir(&tmp).unwrap().count();
        assert_eq!(left, 0, "{signal} left something in tmp");
    }
}

#[test]
fn registries_conf_is_heeded() {
    let (mirror, registry) = (Fake::start(), Fake::start());
    let image = Image::small();
    image.serve(&registry, "hub/app", "v1");
    let lab = Lab::new();
    let conf = lab.path("registries.conf");
    std::fs::write(
        &conf,
        format!(
            "unqualified-search-registries = [\"{registry}\"]\nshort-name-mode = \"permissive\"\n\
             [aliases]\n\"short\" = \"hub.test/app\"\n\
             [[registry]]\nprefix = \"hub.test\"\nlocation = \"{registry}/hub\"\n\
             [[registry.mirror]]\nlocation = \"{mirror}\"\n\
             [[registry]]\nlocation = \"bad.test\"\nblocked = true\n",
            registry = registry.address,
            mirror = mirror.address,
        ),
    )
    .unwrap();
    let run = |name: &str| {
        let out = program(&lab)
            .args(["pull", name])
            .env("CONTAINERS_REGISTRIES_CONF", &conf)
            .env("HOME", lab.path("nohome"))
            .env("REGISTRY_AUTH_FILE", lab.path("no-auth.json"))
            .output();
        usable(out).map(|out| {
            let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            (out.status.success(), text(&out.stdout) + &text(&out.stderr))
        })
    };
    let Some((ok, text)) = run("short:v1") else {
        return;
    };
    assert!(ok, "{text}");
    assert!(text.contains("hub.test/app:v1"), "{text}");
    assert!(text.contains("WARNING: mirror"), "{text}");
    assert_eq!(mirror.requests("/v2/app/manifests/v1").len(), 1);
    assert_eq!(registry.requests("/v2/hub/app/manifests/v1").len(), 1);
    let (ok, text) = run("hub/app:v1").unwrap();
    assert!(ok, "{text}");
    assert!(
        text.contains(&format!("{}/hub/app:v1", registry.address)),
        "{text}"
    );
    let (ok, text) = run("bad.test/x").unwrap();
    assert!(
        !ok && text.contains("registry bad.test is blocked"),
        "{text}"
    );
}
