//! What files come to.

use std::path::Path;

use super::*;

fn conf(text: &str) -> Registries {
    let mut all = Registries::default();
    all.add(text, Path::new("/etc/test.conf")).unwrap();
    all
}

fn names(conf: &Registries, name: &str) -> Vec<String> {
    let (all, _) = conf.candidates(name).unwrap();
    all.iter().map(Reference::to_string).collect()
}

#[test]
fn short_names() {
    let none = Registries::default();
    assert_eq!(names(&none, "alpine"), ["docker.io/library/alpine:latest"]);
    let conf = conf(
        r#"
        unqualified-search-registries = ["r.example", "docker.io"]
        [aliases]
        "fedora" = "registry.fedoraproject.org/fedora"
        "#,
    );
    assert_eq!(
        names(&conf, "x:1"),
        ["r.example/x:1", "docker.io/library/x:1"]
    );
    assert_eq!(
        names(&conf, "fedora:40"),
        ["registry.fedoraproject.org/fedora:40"]
    );
    assert_eq!(names(&conf, "q.io/fedora"), ["q.io/fedora:latest"]);
    let local = conf.local_candidates(&Given::parse("fedora").unwrap());
    let local: Vec<String> = local.iter().map(Reference::to_string).collect();
    assert_eq!(local[0], "localhost/fedora:latest");
    assert_eq!(local[1], "registry.fedoraproject.org/fedora:latest");
    assert_eq!(local[3], "docker.io/library/fedora:latest");
}

#[test]
fn modes() {
    let many = "unqualified-search-registries = [\"a.io\", \"b.io\"]\nshort-name-mode = ";
    assert!(
        conf(&format!("{many}\"enforcing\""))
            .candidates("x")
            .is_err()
    );
    assert_eq!(
        conf(&format!("{many}\"permissive\""))
            .candidates("x")
            .unwrap()
            .0
            .len(),
        2
    );
    assert!(
        conf("unqualified-search-registries = []")
            .candidates("x")
            .is_err()
    );
    let off = conf("short-name-mode = \"disabled\"\n[aliases]\n\"x\" = \"a.io/x\"");
    assert_eq!(names(&off, "x"), ["docker.io/library/x:latest"]);
}

#[test]
fn mirrors_and_rewrites() {
    let conf = conf(
        r#"
        [[registry]]
        prefix = "docker.io"
        location = "mirror.example:5000/hub"
        [[registry.mirror]]
        location = "127.0.0.1:5000"
        insecure = true
        [[registry.mirror]]
        location = "by-digest.example"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "*.bad.example"
        blocked = true
        [[registry]]
        location = "docker.io/special"
        insecure = true
        "#,
    );
    let ask = |name: &str| {
        let all = conf.endpoints(&Reference::parse(name).unwrap()).unwrap();
        all.iter()
            .map(|e| (e.reference.to_string(), e.insecure, e.mirror))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ask("alpine"),
        [
            (
                "127.0.0.1:5000/library/alpine:latest".to_owned(),
                true,
                true
            ),
            (
                "mirror.example:5000/hub/library/alpine:latest".to_owned(),
                false,
                false
            ),
        ]
    );
    assert_eq!(
        ask("special/x"),
        [("docker.io/special/x:latest".to_owned(), true, false)]
    );
    assert_eq!(ask("dockerXio/x").len(), 1);
    assert!(
        conf.endpoints(&Reference::parse("a.bad.example/x").unwrap())
            .is_err()
    );
    assert!(
        conf.endpoints(&Reference::parse("bad.example/x").unwrap())
            .is_ok()
    );
    assert!(matched("docker.io", "docker.iox/x").is_none());
}

#[test]
fn version_1() {
    let conf = conf(
        "[registries.search]\nregistries = ['a.io']\n[registries.insecure]\nregistries = ['b.io:5000']\n[registries.block]\nregistries = ['c.io']",
    );
    assert_eq!(names(&conf, "x"), ["a.io/x:latest"]);
    assert!(conf.is_insecure("b.io:5000"));
    assert!(
        conf.endpoints(&Reference::parse("c.io/x").unwrap())
            .is_err()
    );
}

#[test]
fn nonsense_is_refused() {
    for bad in [
        "unqualified-search-registries = [\"http://x\"]",
        "[aliases]\n\"x\" = \"noregistry\"",
        "[[registry]]\ninsecure = true",
        "[[registry]]\nlocation = \"a b\"",
        "short-name-mode = \"maybe\"",
        "nonsense",
    ] {
        let mut all = Registries::default();
        assert!(all.add(bad, Path::new("/x")).is_err(), "{bad}");
    }
}
