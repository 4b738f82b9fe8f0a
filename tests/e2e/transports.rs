//! Images from elsewhere than registries, and what may be taken at all.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, lab, registry};

scenarios!(
    archives,
    folders,
    several,
    refused,
    signature_policy,
    pull_policy,
    stubborn
);

fn archive(t: &Rcon, name: &str) -> String {
    t.write(
        name,
        fs::read(lab().cache.join("archive").join(name)).unwrap(),
    )
}

fn archives(t: &mut Rcon) {
    for (transport, file) in [("docker-archive", "docker.tar"), ("oci-archive", "oci.tar")] {
        let name = format!("{transport}:{}", archive(t, file));
        t.run(&["run", "--rm", &name, "echo", transport])
            .prints(&format!("{transport}\n"));
        let id = t.ok(&["pull", "-q", &name]);
        assert_eq!(t.inspect("lab.test/busybox:archived", "{{.Id}}"), id);
        t.run(&["rmi", "-f", &id]).code(0);
        t.run(&["pull", "-q", &format!("{name}:nosuch.test/x:1")])
            .refused(125)
            .says("there is no image \"nosuch.test/x:1\" in it");
    }
}

fn folders(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.inspect(&image, "{{.Id}}");
    let home = t.home("");
    let home = home.to_str().unwrap();
    t.run(&["push", "-q", &image, &format!("oci:{home}layout:v1")])
        .code(0);
    t.run(&["push", "-q", &image, &format!("oci:{home}layout:v2")])
        .code(0);
    t.run(&["push", "-q", &image, &format!("dir:{home}folder")])
        .code(0);
    t.run(&["rmi", "-a", "-f"]).code(0);
    // A layout with several images must be told which.
    t.run(&["pull", "-q", &format!("oci:{home}layout")])
        .refused(125)
        .says("say which");
    t.run(&["pull", "-q", &format!("oci:{home}layout:v1")])
        .prints(&format!("{id}\n"));
    t.run(&["run", "--rm", "localhost/v1", "echo", "hi"])
        .prints("hi\n");
    t.run(&["rmi", "-a", "-f"]).code(0);
    t.run(&["pull", "-q", &format!("dir:{home}folder")])
        .prints(&format!("{id}\n"));
    t.run(&["rmi", "-a", "-f"]).code(0);
    t.run(&["load", "-q", "-i", &format!("{home}folder")])
        .shows("folder:latest");
    t.run(&["run", "--rm", "folder", "echo", "hi"])
        .prints("hi\n");
    // skopeo's are the same.
    let theirs = Path::new(home).join("theirs");
    let out = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"])
        .arg(format!("docker://{}", registry::plain().name("busybox")))
        .arg(format!("dir:{}", theirs.display()))
        .env("HOME", home)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    t.run(&["rmi", "-a", "-f"]).code(0);
    t.run(&["pull", "-q", &format!("dir:{}", theirs.display())])
        .prints(&format!("{id}\n"));
}

fn several(t: &mut Rcon) {
    let (one, two) = (t.pull("busybox"), t.pull("banner"));
    let ids = [t.inspect(&one, "{{.Id}}"), t.inspect(&two, "{{.Id}}")];
    let file = t.home("both.tar");
    let file = file.to_str().unwrap();
    t.run(&["save", "-q", "-m", "-o", file, &one, &two]).code(0);
    t.run(&["rmi", "-a", "-f"]).code(0);
    t.run(&["pull", "-q", &format!("docker-archive:{file}")])
        .prints(&format!("{}\n{}\n", ids[0], ids[1]));
    t.run(&["rmi", "-a", "-f"]).code(0);
    t.run(&["pull", "-q", &format!("docker-archive:{file}:{two}")])
        .prints(&format!("{}\n", ids[1]));
    t.run(&["pull", "-q", &format!("docker-archive:{file}:@0")])
        .prints(&format!("{}\n", ids[0]));
    assert_eq!(t.ok(&["images", "-q"]).lines().count(), 2);
}

fn refused(t: &mut Rcon) {
    let tar = archive(t, "docker.tar");
    for (name, why) in [
        ("containers-storage:busybox", "podman save NAME | rcon load"),
        (
            "docker-daemon:busybox:latest",
            "docker save NAME | rcon load",
        ),
        (
            "dir:/nonexistent",
            "/nonexistent: no such file or directory",
        ),
        ("oci:", "there is no path in it"),
        (
            &format!("oci-archive:{tar}"),
            "it is not what oci-archive: stands for",
        ),
        (&format!("oci:{tar}"), "is for a folder"),
        ("docker-archive:/tmp", "is for a file"),
    ] {
        t.run(&["pull", "-q", name]).refused(125).says(why);
        t.run(&["run", "--rm", name, "true"]).refused(125).says(why);
    }
}

fn signature_policy(t: &mut Rcon) {
    let image = registry::plain().name("busybox");
    let scope = image.strip_suffix(":latest").unwrap();
    let policy = |kind: &str| {
        format!(
            r#"{{"default": [{{"type": "insecureAcceptAnything"}}],
                 "transports": {{"docker": {{"{scope}": [{{"type": "{kind}"}}]}},
                                 "docker-archive": {{"": [{{"type": "{kind}"}}]}}}}}}"#
        )
    };
    let tar = archive(t, "docker.tar");
    for (kind, why) in [
        ("reject", "is rejected by policy"),
        (
            "signedBy",
            "must be signed (signedBy), and rcon cannot check signatures",
        ),
        ("sigstoreSigned", "cannot check signatures"),
        ("nonsense", "unknown type \"nonsense\""),
    ] {
        t.write(".config/containers/policy.json", policy(kind));
        t.run(&["pull", &image]).refused(125).says(why);
        t.run(&["run", "--rm", &image, "true"])
            .refused(125)
            .says(why);
        t.run(&["load", "-i", &tar]).refused(125).says(why);
        t.run(&["images", "-q"]).prints("");
    }
    // Another file for one command.
    let open = t.write(
        "open.json",
        r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
    );
    t.run(&["load", "-q", "--signature-policy", &open, "-i", &tar])
        .code(0);
    // Other images are not meant.
    t.write(".config/containers/policy.json", policy("reject"));
    t.pull("banner");
    t.write(
        ".config/containers/policy.json",
        policy("insecureAcceptAnything"),
    );
    t.run(&["pull", "-q", &image]).code(0);
}

fn pull_policy(t: &mut Rcon) {
    let image = registry::plain().name("busybox");
    t.run(&["pull", "-q", "--policy", "never", &image])
        .refused(125)
        .says("image not known");
    let id = t.ok(&["pull", "-q", "--policy", "missing", &image]);
    // What is here is not asked for.
    t.run(&["tag", &image, "127.0.0.1:1/x:y"]).code(0);
    for policy in ["missing", "never", "newer"] {
        t.run(&["pull", "-q", "--policy", policy, "127.0.0.1:1/x:y"])
            .prints(&format!("{id}\n"));
    }
    t.run(&["pull", "-q", "--policy", "always", "127.0.0.1:1/x:y"])
        .refused(125);
    t.run(&["pull", "--policy", "sometimes", &image])
        .refused(125);
}

fn stubborn(t: &mut Rcon) {
    use crate::lab::fake::{Fake, Fault};
    let image = crate::registry::small();
    let fake = Fake::start(image, Fault::Status(503));
    let out = t.run(&["pull", "--retry", "1", "--retry-delay", "1ms", &fake.name()]);
    out.code(125).says("retrying in");
    let asked = fake.requests().len();
    t.run(&["pull", "--retry", "0", &fake.name()]).code(125);
    assert!(
        fake.requests().len() - asked < asked,
        "{:?}",
        fake.requests()
    );
    t.run(&["pull", "--retry-delay", "soon", &fake.name()])
        .refused(125)
        .says("invalid duration");
}
