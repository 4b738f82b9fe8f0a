//! Whatever comes in, nothing breaks down: what the fuzz targets call, with mutations of good input, each
//! time the same ones.

use rcon_image::manifest::{self, Summary};
use rcon_image::registries::Registries;
use rcon_image::{Destination, LocalSource, Platform, Policy, Reference, schemes};
use std::path::Path;

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Calls `each` with mutations of the seeds: bytes changed, cut out, repeated, put from one into another.
fn mutated(seeds: &[&[u8]], rounds: usize, mut each: impl FnMut(&[u8])) {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for _ in 0..rounds {
        let mut bytes = seeds[numbers.below(seeds.len())].to_vec();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(bytes.len() + 1);
            match numbers.below(5) {
                0 if at < bytes.len() => bytes[at] = numbers.next() as u8,
                1 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
                2 => bytes.truncate(at),
                3 => {
                    let other = seeds[numbers.below(seeds.len())];
                    let from = numbers.below(other.len());
                    let to = from + numbers.below(other.len() - from + 1);
                    bytes.splice(at..at, other[from..to].iter().copied());
                }
                _ => {
                    let interesting = b":/@.*[]{}\"%\\\0\n \xff0-";
                    bytes.insert(at, interesting[numbers.below(interesting.len())]);
                }
            }
        }
        each(&bytes);
    }
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn names() {
    let full = format!("q.io:5000/a/b:c@{DIGEST}");
    let seeds = [
        "alpine",
        "localhost:5000/a/b-c__d:v1.2",
        &full,
        "oci-archive:/x/y.tar:name",
        "linux/arm64/v8",
    ];
    let seeds: Vec<&[u8]> = seeds.iter().map(|s| s.as_bytes()).collect();
    mutated(&seeds, 30_000, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(name) = Reference::parse(text) {
            // What a name is written as is that name.
            let shown = name.to_string();
            assert_eq!(Reference::parse(&shown).as_ref(), Ok(&name), "{text:?}");
            assert!(
                !name
                    .repository()
                    .split('/')
                    .any(|part| part == ".." || part.is_empty())
            );
            assert!(!shown.contains(char::is_control), "{shown:?}");
        }
        let _ = Reference::parse_local(text);
        let _ = Destination::parse(text);
        let _ = LocalSource::parse(text);
        let _ = Platform::parse(text);
    });
}

#[test]
fn manifests() {
    let image = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{DIGEST}","size":2}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{DIGEST}","size":3}}]}}"#
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{DIGEST}","size":1,
            "platform":{{"os":"linux","architecture":"amd64"}},"annotations":{{"a":"b"}}}}]}}"#
    );
    assert!(
        matches!(manifest::summary(image.as_bytes(), "").unwrap(), Summary::Image(_, layers) if layers.len() == 1)
    );
    assert!(
        matches!(manifest::summary(index.as_bytes(), "").unwrap(), Summary::Index(all) if all.len() == 1)
    );
    let seeds = [
        image.as_bytes(),
        index.as_bytes(),
        br#"{"schemaVersion":1,"fsLayers":[]}"#,
    ];
    mutated(&seeds, 20_000, |bytes| {
        let _ = manifest::summary(bytes, "application/vnd.oci.image.index.v1+json");
        let _ = manifest::summary(bytes, "");
    });
}

#[test]
fn headers() {
    let seeds: [&[u8]; 3] = [
        br#"Bearer realm="https://a.b/token",service="r",scope="repository:x:pull,push""#,
        br#"Basic realm="a \"quoted\" one", Bearer realm=x"#,
        b"Negotiate, Digest nonce=1, basic",
    ];
    mutated(&seeds, 30_000, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        assert!(schemes(text).len() <= text.len());
    });
}

#[test]
fn configuration() {
    let seeds: [&[u8]; 3] = [
        b"unqualified-search-registries = ['docker.io']\nshort-name-mode = 'permissive'\n[aliases]\n'x' = 'a.io/x'\n",
        b"[[registry]]\nprefix = '*.example.com'\nlocation = 'b.io/x'\ninsecure = true\n[[registry.mirror]]\nlocation = 'm.io'\npull-from-mirror = 'tag-only'\n",
        b"[registries.search]\nregistries = ['a.io']\n",
    ];
    let names = ["x", "a.example.com/y:1", "docker.io/library/alpine"];
    mutated(&seeds, 5_000, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let Ok(conf) = Registries::parse(text, Path::new("/x.conf")) else {
            return;
        };
        for name in names {
            for reference in conf
                .candidates(name)
                .map(|(all, _)| all)
                .unwrap_or_default()
            {
                let _ = conf.endpoints(&reference);
            }
        }
    });
}

#[test]
fn policies() {
    let seeds: [&[u8]; 1] = [
        br#"{"default":[{"type":"reject"}],"transports":{"docker":{"a.io/b":[{"type":"insecureAcceptAnything"}]}}}"#,
    ];
    let inside = Reference::parse("a.io/b/c").unwrap();
    let outside = Reference::parse("a.io/c").unwrap();
    mutated(&seeds, 10_000, |bytes| {
        if let Ok(policy) = Policy::parse(bytes, Path::new("/policy.json")) {
            let _ = policy.check(&inside);
            let _ = policy.check(&outside);
        }
    });
}
