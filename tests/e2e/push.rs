//! Images on their way out: push, save, history, prune.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, registry};

scenarios!(
    push_and_pull,
    two_manifests,
    push_elsewhere,
    push_is_refused,
    save_and_load,
    save_to_output,
    save_several,
    save_refused,
    skopeo_reads_it,
    history,
    prune,
    tree,
);

/// A place in the registry for it that only this scenario has: scenarios run beside each other.
fn place(t: &Rcon, name: &str) -> String {
    let own = t.dir.file_name().unwrap().to_str().unwrap().to_lowercase();
    let own = own.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    registry::writable().name(&format!("pushed/{}/{name}", own.trim_matches('-')))
}

fn push_and_pull(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.inspect(&image, "{{.Id}}");
    let to = place(t, "busybox");
    let file = t.home("digest");
    let file = file.to_str().unwrap();
    let out = t.run(&["push", "--digestfile", file, &image, &to]);
    out.prints("").says("Writing manifest");
    t.run(&["rmi", "-a"]).code(0);
    t.run(&["run", "--rm", "-q", &to, "echo", "back"])
        .prints("back\n");
    assert_eq!(t.inspect(&to, "{{.Id}}"), id);
    let digest = t.inspect(&to, "{{.Digest}}");
    assert_eq!(fs::read_to_string(file).unwrap(), digest);
    // To where the registry has the layers elsewhere: it stays what it is to the last bit.
    let other = place(t, "other");
    t.run(&["push", "--digestfile", file, &to, &other])
        .code(0)
        .says("skipped: already exists");
    assert_eq!(fs::read_to_string(file).unwrap(), digest);
    // By its own name, compressed anew, and quietly.
    t.run(&["push", "-q", "--compression-format", "zstd", &to])
        .prints("")
        .quiet();
    t.run(&["rmi", "-a"]).code(0);
    t.run(&["run", "--rm", "-q", &to, "echo", "back"])
        .prints("back\n");
    assert_eq!(t.inspect(&to, "{{.Id}}"), id);
    assert_ne!(t.inspect(&to, "{{.Digest}}"), digest);
}

/// The same image comes again, with its layers compressed otherwise: it is known by both digests, and goes out by each as it
/// came.
fn two_manifests(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.inspect(&image, "{{.Id}}");
    let to = place(t, "twice:latest");
    let bare = to.strip_suffix(":latest").unwrap();
    let file = t.home("digest");
    let file = file.to_str().unwrap();
    let push = ["push", "-q", "--format", "oci", "--digestfile", file];
    let digests = ["gzip", "zstd"].map(|compression| {
        let more = ["--compression-format", compression, &image, &to];
        t.run(&[&push[..], &more].concat()).code(0);
        fs::read_to_string(file).unwrap()
    });
    assert_ne!(digests[0], digests[1]);
    let names = digests.clone().map(|digest| format!("{bare}@{digest}"));
    t.run(&["rmi", "-a"]).code(0);
    // The first by its digest, the second by the tag that it took from the first.
    for (name, digest) in [(&names[0], &digests[0]), (&to, &digests[1])] {
        t.run(&["pull", "-q", name]).prints(&format!("{id}\n"));
        assert_eq!(t.inspect(name, "{{.Digest}}"), *digest);
    }
    assert_eq!(t.inspect(&id, "{{.Digest}}"), digests[1]);
    let known = t.inspect(&to, "{{json .RepoDigests}}");
    for (name, digest) in names.iter().zip(&digests) {
        assert!(known.contains(name.as_str()), "{known}");
        t.run(&["run", "--rm", "--pull=never", name, "echo", "hi"])
            .prints("hi\n");
        assert_eq!(
            t.inspect(name, "{{.Id}} {{.Digest}}"),
            format!("{id} {digest}")
        );
        let filter = format!("digest={digest}");
        t.run(&["images", "-q", "--no-trunc", "--filter", &filter])
            .prints(&format!("sha256:{id}\n"));
        // To where the registry has its layers elsewhere.
        let other = place(t, &format!("other:{}", &digest[7..12]));
        let out = t.run(&["push", "--digestfile", file, name, &other]);
        out.code(0);
        let sent = fs::read_to_string(file).unwrap();
        assert_eq!(sent, *digest, "{digests:?} {}", out.story());
    }
    // What compresses as it was compressed has the same manifest, also in a file.
    let folder = t.home("layout");
    let folder = folder.to_str().unwrap();
    t.run(&["save", "-q", "--format", "oci-dir", "-o", folder, &names[0]])
        .code(0);
    let index = fs::read_to_string(format!("{folder}/index.json")).unwrap();
    assert!(index.contains(&digests[0]), "{index}");
    t.run(&["system", "check"]).prints("").code(0);
    t.run(&["rmi", "-a"]).code(0);
}

fn push_elsewhere(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.inspect(&image, "{{.Id}}");
    let server = registry::writable_guarded();
    let (user, password) = registry::USER;
    let creds = format!("{user}:{password}");
    let name = place(t, "app:v1").replace(&registry::writable().address, &server.address);
    t.run(&["push", "-q", &image, &name])
        .refused(125)
        .says("certificate");
    t.run(&["push", "-q", "--tls-verify=false", &image, &name])
        .refused(125)
        .says("unauthorized");
    let dir = t.mkdir("certificates");
    let authority = fs::read(registry::authority()).unwrap();
    t.write("certificates/ca.crt", authority);
    t.run(&[
        "push",
        "-q",
        "--creds",
        &creds,
        "--cert-dir",
        &dir,
        &image,
        &name,
    ])
    .code(0);
    t.run(&["pull", "-q", "--creds", &creds, "--cert-dir", &dir, &name])
        .prints(&format!("{id}\n"));
    // Files and folders.
    for form in ["oci-archive", "docker-archive"] {
        let file = t.home(form);
        let path = file.to_str().unwrap();
        t.run(&["push", "-q", &image, &format!("{form}:{path}:q.test/x:1")])
            .code(0);
        t.run(&["load", "-q", "-i", path])
            .prints("Loaded image: q.test/x:1\n");
        assert_eq!(t.inspect("q.test/x:1", "{{.Id}}"), id);
        t.run(&["untag", "q.test/x:1", "q.test/x:1"]).code(0);
    }
    let folder = t.home("folder");
    t.run(&["push", "-q", &image, &format!("dir:{}", folder.display())])
        .code(0);
    assert!(folder.join(&id).exists());
}

fn push_is_refused(t: &mut Rcon) {
    t.run(&["push", "nosuch"])
        .refused(125)
        .says("nosuch: image not known");
    let image = t.pull("busybox");
    let id = t.inspect(&image, "{{.Id}}");
    t.run(&["push", &id]).refused(125).says("destination");
    t.run(&["push", &image, "UPPER"])
        .refused(125)
        .says("lowercase");
    t.run(&["push", "--format", "v1", &image])
        .refused(125)
        .says("v2s2");
    t.run(&["push", "--compression-format", "xz", &image])
        .refused(125)
        .says("gzip, zstd");
    let port = crate::lab::net::free_port();
    t.run(&["push", "-q", &image, &format!("127.0.0.1:{port}/x")])
        .refused(125)
        .says("connection refused");
}

fn save_and_load(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.inspect(&image, "{{.Id}}");
    for form in ["docker-archive", "oci-archive", "oci-dir"] {
        let path = t.home(form);
        let path = path.to_str().unwrap();
        let out = t.run(&["save", "--format", form, "-o", path, &image]);
        out.prints("").says("Writing manifest");
        t.run(&["rmi", "-a"]).code(0);
        let loaded = t.ok(&["load", "-q", "-i", path]);
        // podman names what it loads from a folder after the folder.
        let name = loaded.strip_prefix("Loaded image: ").unwrap();
        assert!(name == image || form == "oci-dir", "{loaded}");
        t.run(&["run", "--rm", name, "echo", form])
            .prints(&format!("{form}\n"));
        assert_eq!(t.inspect(name, "{{.Id}}"), id);
        t.run(&["tag", name, &image]).code(0);
    }
    let folder = t.home("docker-dir");
    t.run(&[
        "save",
        "-q",
        "--format",
        "docker-dir",
        "-o",
        folder.to_str().unwrap(),
        &image,
    ])
    .prints("")
    .quiet();
    let manifest: Value =
        serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["config"]["digest"], format!("sha256:{id}"));
}

fn save_to_output(t: &mut Rcon) {
    let image = t.pull("busybox");
    let out = t
        .command(&["save", "-q", &image, "q.test/other:1"])
        .output()
        .unwrap();
    assert!(
        out.status.success() && out.stderr.is_empty(),
        "{:?}",
        out.status
    );
    t.run(&["rmi", "-f", &image]).code(0);
    t.feed(&out.stdout, &["load", "-q"])
        .shows(&format!("Loaded image: {image}\n"))
        .shows("Loaded image: q.test/other:1\n");
    // What goes to a file is the same.
    let file = t.home("out.tar");
    let path = file.to_str().unwrap();
    t.run(&["save", "-q", "-o", path, &image, "q.test/other:1"])
        .code(0);
    assert!(fs::read(&file).unwrap() == out.stdout);
    let mut terminal = t.terminal(&["save", &image]);
    terminal.expect("refusing to save to terminal");
    assert_eq!(terminal.wait(), 125);
}

fn save_several(t: &mut Rcon) {
    let (one, two) = (t.pull("busybox"), t.pull("banner"));
    let file = t.home("both.tar");
    let file = file.to_str().unwrap();
    t.run(&["save", "-q", "-m", "-o", file, &one, &two]).code(0);
    t.run(&["rmi", "-a"]).code(0);
    t.run(&["load", "-q", "-i", file])
        .prints(&format!("Loaded image: {one}\nLoaded image: {two}\n"));
    t.run(&["run", "--rm", &two, "cat", "/var/www/index.html"])
        .shows("___");
}

fn save_refused(t: &mut Rcon) {
    t.run(&["save", "-o", "x.tar", "nosuch"])
        .refused(125)
        .says("nosuch: image not known");
    let image = t.pull("busybox");
    t.run(&["save", "--format", "zip", "-o", "x", &image])
        .refused(125)
        .says("oci-dir");
    t.run(&["save", "--format", "oci-dir", &image])
        .refused(125)
        .says("-o");
    t.run(&["save", "-q", "-o", "/nonexistent/x", &image])
        .refused(125)
        .says("/nonexistent/x: no such file or directory");
    t.run(&["save", "-q", "-o", "/dev/full", &image])
        .refused(125)
        .says("no space left");
}

fn skopeo_reads_it(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.inspect(&image, "{{.Id}}");
    let file = t.home("a.tar");
    t.run(&["save", "-q", "-o", file.to_str().unwrap(), &image])
        .code(0);
    let out = Command::new("skopeo")
        .args(["--insecure-policy", "inspect", "--raw"])
        .arg(format!("docker-archive:{}", file.display()))
        .env("HOME", t.home(""))
        .output()
        .unwrap();
    let manifest: Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)));
    assert_eq!(manifest["config"]["digest"], format!("sha256:{id}"));
}

fn history(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.inspect(&image, "{{.Id}}");
    let out = t.ok(&["history", &image]);
    let header: Vec<&str> = out
        .lines()
        .next()
        .unwrap()
        .split("  ")
        .map(str::trim)
        .collect();
    assert_eq!(
        (header[0], header.last().unwrap()),
        ("ID", &"COMMENT"),
        "{out}"
    );
    assert!(out.lines().nth(1).unwrap().starts_with(&id[..12]), "{out}");
    let list: Value =
        serde_json::from_str(&t.ok(&["image", "history", "--format", "json", &image])).unwrap();
    assert_eq!(list[0]["id"], id);
    let ids = t.ok(&["history", "-q", "--no-trunc", &image]);
    assert_eq!(ids.lines().next(), Some(id.as_str()));
    assert_eq!(ids.lines().count(), list.as_array().unwrap().len());
    t.run(&["history", "--format", "{{.ID}} {{.Size}}", &image])
        .shows("MB");
    t.run(&["history", "nosuch"])
        .refused(125)
        .says("nosuch: image not known");
}

fn prune(t: &mut Rcon) {
    let (used, other) = (t.pull("busybox"), t.pull("banner"));
    let (id, kept) = (t.inspect(&other, "{{.Id}}"), t.inspect(&used, "{{.Id}}"));
    t.run(&["create", "--name", "c", &used, "true"]).code(0);
    t.run(&["image", "prune", "-f"]).prints("");
    // Nobody says yes.
    t.feed(b"n\n", &["image", "prune", "-a"])
        .shows("WARNING!")
        .code(0);
    t.run(&["image", "exists", &other]).code(0);
    t.run(&["untag", &other]).code(0);
    t.run(&["image", "prune", "-f", "--filter", "until=2001-01-01"])
        .prints("");
    t.run(&["image", "prune", "-f", "--filter", "nosuch=1"])
        .refused(125)
        .says("nosuch");
    t.run(&["image", "prune", "-f"]).prints(&format!("{id}\n"));
    t.run(&["image", "exists", &id]).code(1);
    t.run(&["image", "prune", "-a", "-f"]).prints("");
    t.run(&["rm", "c"]).code(0);
    t.feed(b"y\n", &["image", "prune", "-a"]).shows(&kept);
    t.run(&["images", "-q"]).prints("");
}

fn tree(t: &mut Rcon) {
    let image = t.pull("banner");
    let base = t.pull("busybox");
    let out = t.ok(&["image", "tree", &image]);
    assert!(
        out.starts_with("Image ID: ") && out.contains("└── ID: "),
        "{out}"
    );
    assert!(out.contains(&format!("Top Layer of: [{image}]")), "{out}");
    t.run(&["image", "tree", &base]).shows("Image Layers");
}
