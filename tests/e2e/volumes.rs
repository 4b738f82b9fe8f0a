//! `volume`, `secret`, and what `prune`, `df` and `reset` make of what nobody uses.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, lab};

scenarios!(
    volumes,
    first_use,
    from_others,
    archives,
    pruned,
    pruned_as_far_as_can_be,
    damaged,
    secrets,
    secrets_in_containers,
    replaced_or_kept,
    disk_usage,
    system_prune,
    system_reset,
    reset_as_far_as_can_be,
    sizes
);

fn volumes(t: &mut Rcon) {
    t.run(&["volume", "create", "--label", "a=1", "data"])
        .prints("data\n");
    t.run(&["volume", "create", "data"])
        .refused(125)
        .says("already exists");
    t.run(&["volume", "create", "--ignore", "data"])
        .prints("data\n");
    assert_eq!(t.ok(&["volume", "create"]).len(), 64);
    t.run(&["volume", "create", "bad/name"])
        .refused(125)
        .says("must match");
    t.run(&["volume", "create", "-d", "nfs", "x"])
        .refused(125)
        .says("drivers");
    t.run(&["volume", "exists", "data"]).code(0).quiet();
    t.run(&["volume", "exists", "nosuch"]).code(1).quiet();
    t.run(&["volume", "ls", "-q", "--filter", "label=a=1"])
        .prints("data\n");
    t.run(&["volume", "ls", "-q", "--filter", "name=^dat"])
        .prints("data\n");
    t.run(&["volume", "ls", "--filter", "nosuch=1"])
        .refused(125)
        .says("nosuch");
    t.run(&[
        "volume",
        "inspect",
        "data",
        "--format",
        "{{.Name}} {{.Labels.a}} {{.Driver}}",
    ])
    .prints("data 1 local\n");
    let out = t.run(&["volume", "inspect", "nosuch"]);
    out.code(125).says("no such volume").shows("[]");
    t.run(&["volume", "rm", "nosuch"]).refused(1);
    t.run(&["volume", "rm", "dat"]).prints("data\n");
    t.ok(&["volume", "rm", "-a"]);
    t.run(&["volume", "ls", "-q"]).prints("");
}

fn first_use(t: &mut Rcon) {
    let image = t.pull("busybox");
    // One that was made by itself gets what the image has, too, but only once.
    t.ok(&["volume", "create", "data"]);
    let list = ["run", "--rm", "-v", "data:/etc", &image, "ls", "/etc/group"];
    t.run(&list).prints("/etc/group\n");
    t.ok(&["run", "--rm", "-v", "data:/x", &image, "rm", "/x/group"]);
    t.run(&list).code(1);
    t.ok(&["create", "--name", "user", "-v", "data:/x", &image, "true"]);
    t.run(&["volume", "rm", "data"])
        .refused(2)
        .says("being used");
    t.run(&["volume", "rm", "-f", "data"]).prints("data\n");
    t.has_containers(0);
}

fn from_others(t: &mut Rcon) {
    let image = t.pull("busybox");
    let dir = t.mkdir("host");
    t.write("host/f", "hosted");
    let bind = format!("{dir}:/h:ro");
    t.ok(&[
        "create",
        "--name",
        "src",
        "-v",
        "data:/data",
        "-v",
        "/anon",
        "-v",
        &bind,
        &image,
        "true",
    ]);
    t.sh(
        &["--volumes-from", "src"],
        &image,
        "echo x > /data/x; echo y > /anon/y",
    )
    .code(0);
    t.run(&[
        "run",
        "--rm",
        "--volumes-from",
        "src",
        &image,
        "cat",
        "/data/x",
        "/anon/y",
        "/h/f",
    ])
    .prints("x\ny\nhosted");
    t.run(&[
        "run",
        "--rm",
        "--volumes-from",
        "src:ro",
        &image,
        "touch",
        "/data/z",
    ])
    .code(1)
    .says("read-only");
    t.run(&[
        "run",
        "--rm",
        "--volumes-from",
        "src",
        "--tmpfs",
        "/data",
        &image,
        "ls",
        "/data",
    ])
    .prints("");
    t.run(&["run", "--rm", "--volumes-from", "nosuch", &image, "true"])
        .refused(125)
        .says("nosuch");
    t.run(&["run", "--rm", "--volumes-from", "src:no", &image, "true"])
        .refused(125)
        .says("\"no\"");
    // An anonymous volume goes with its container, but not while another has it.
    t.ok(&[
        "create",
        "--name",
        "heir",
        "--volumes-from",
        "src",
        &image,
        "cat",
        "/anon/y",
    ]);
    t.ok(&["rm", "-v", "src"]);
    t.run(&["start", "-a", "heir"]).prints("y\n");
    t.ok(&["rm", "heir"]);
    t.ok(&["volume", "rm", "-a"]);
}

fn archives(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.sh(
        &["-v", "one:/d"],
        &image,
        "mkdir /d/s; echo x > /d/s/f; chown 33 /d/s/f 2>/dev/null; true",
    )
    .code(0);
    t.run(&["volume", "export", "one", "-o", "v.tar"])
        .code(0)
        .quiet();
    t.ok(&["volume", "create", "two"]);
    t.run(&["volume", "import", "two", "v.tar"]).code(0).quiet();
    t.run(&["run", "--rm", "-v", "two:/d", &image, "cat", "/d/s/f"])
        .prints("x\n");
    if t.mode == crate::lab::Mode::ManyIds {
        t.run(&[
            "run", "--rm", "-v", "two:/d", &image, "stat", "-c", "%u", "/d/s/f",
        ])
        .prints("33\n");
    }
    let archive = fs::read(t.home("v.tar")).unwrap();
    t.ok(&["volume", "create", "three"]);
    t.feed(&archive, &["volume", "import", "three", "-"])
        .code(0);
    t.run(&["run", "--rm", "-v", "three:/d", &image, "cat", "/d/s/f"])
        .prints("x\n");
    t.run(&["volume", "import", "nosuch", "v.tar"]).refused(125);
    t.run(&["volume", "import", "two", "nosuch.tar"])
        .refused(125)
        .says("nosuch.tar");
    t.ok(&["volume", "rm", "-a"]);
}

fn pruned(t: &mut Rcon) {
    let image = t.pull("busybox");
    for name in ["free", "kept"] {
        t.ok(&["volume", "create", "--label", &format!("l={name}"), name]);
    }
    t.ok(&["create", "--name", "c", "-v", "used:/d", &image, "true"]);
    t.feed(b"n\n", &["volume", "prune"])
        .code(0)
        .shows("WARNING!");
    t.run(&["volume", "prune", "-f", "--filter", "label=l=free"])
        .prints("free\n");
    t.run(&["volume", "prune", "-f"]).prints("kept\n");
    t.run(&["volume", "ls", "-q"]).prints("used\n");
    let id = t.ok(&["container", "inspect", "c", "--format", "{{.Id}}"]);
    t.ok(&["run", "-d", "--name", "runs", &image, "sleep", "1000"]);
    t.feed(b"\n", &["container", "prune"]).code(0);
    t.has_containers(2);
    t.run(&["container", "prune", "-f", "--filter", "until=1h"])
        .prints("");
    t.feed(b"y\n", &["container", "prune"]).code(0).shows(&id);
    t.has_containers(1);
    t.ok(&["volume", "rm", "used"]);
}

/// What cannot be removed is said, and keeps nothing else.
fn pruned_as_far_as_can_be(t: &mut Rcon) {
    let image = t.pull("busybox");
    let ids = ["a", "b", "c"].map(|name| t.ok(&["create", "--name", name, &image, "true"]));
    let (stuck, free) = (&ids[1], [&ids[0], &ids[2]]);
    // Where a container goes that is removed there is something, which nobody may take away.
    let obstacle = t.root().join("containers").join(format!(".{stuck}"));
    fs::create_dir(&obstacle).unwrap();
    fs::write(obstacle.join("x"), "").unwrap();
    let held = fs::File::open(&obstacle).unwrap();
    held.lock().unwrap();
    let out = t.run(&["container", "prune", "-f"]);
    out.code(125).says("Error: cannot remove").says(stuck);
    let mut removed: Vec<&str> = out.stdout.lines().collect();
    removed.sort_unstable();
    let mut free = free.map(String::as_str);
    free.sort_unstable();
    assert_eq!(removed, free);
    t.ok(&["volume", "create", "free"]);
    let out = t.run(&["system", "prune", "-f", "--volumes"]);
    out.code(125)
        .says(stuck)
        .shows("Deleted Volumes\nfree\n")
        .shows("Total reclaimed space: ");
    fs::remove_dir_all(&obstacle).unwrap();
    drop(held);
    t.run(&["container", "prune", "-f"])
        .prints(&format!("{stuck}\n"));
    if !lab().root {
        return;
    }
    for name in ["a", "b", "c"] {
        t.ok(&["volume", "create", name]);
    }
    let volume = t.root().join("volumes/b");
    fs::create_dir(volume.join("_data/roots")).unwrap();
    fs::write(volume.join("_data/roots/x"), "").unwrap();
    let out = t.run(&["volume", "prune", "-f"]);
    out.code(125).says("Error: cannot remove");
    assert_eq!(out.stdout, "a\nc\n");
    fs::remove_dir_all(&volume).unwrap();
}

/// A volume whose record a crash of the machine has spoilt: it hides no other, and keeps its files until it is forced away.
fn damaged(t: &mut Rcon) {
    let image = t.pull("busybox");
    let volume = t.root().join("volumes/spoilt");
    for text in ["", "{\"name\":\"spo"] {
        t.sh(&["-v", "spoilt:/d"], &image, "echo precious > /d/f")
            .code(0);
        t.ok(&["volume", "create", "a"]);
        t.ok(&["volume", "create", "z"]);
        fs::write(volume.join("volume.json"), text).unwrap();
        let warning = "volumes/spoilt/volume.json is damaged";
        t.run(&["volume", "ls", "-q"])
            .prints("a\nz\n")
            .says("level=warning")
            .says(warning);
        t.run(&["volume", "inspect", "-a", "-f", "{{.Name}}"])
            .prints("a\nz\n")
            .says(warning);
        t.run(&["system", "df"]).code(0);
        t.run(&["volume", "inspect", "a", "-f", "{{.Name}}"])
            .prints("a\n");
        // It is not filled again.
        t.run(&["run", "--rm", "-v", "spoilt:/d", &image, "true"])
            .code(125)
            .says(warning);
        t.run(&["volume", "create", "spoilt"])
            .code(125)
            .says("already exists");
        t.run(&["volume", "prune", "-f", "--filter", "name=z"])
            .prints("z\n");
        let hint = "hint: its files are beside its record";
        for words in [
            &["volume", "prune", "-f"][..],
            &["system", "prune", "-f", "--volumes"],
            &["volume", "rm", "spoilt"],
            &["volume", "rm", "-a"],
        ] {
            t.run(words).code(125).says(warning).says(hint);
            let kept = fs::read_to_string(volume.join("_data/f")).unwrap();
            assert_eq!(kept, "precious\n", "{words:?}");
        }
        t.run(&["volume", "ls", "-q"]).prints("").says(warning);
        t.run(&["volume", "rm", "-f", "spoilt"]).prints("spoilt\n");
        assert!(!volume.exists());
    }
    // With everything it goes too.
    t.ok(&["volume", "create", "spoilt"]);
    fs::write(volume.join("volume.json"), "").unwrap();
    t.run(&["volume", "rm", "-af"]).prints("spoilt\n");
    t.ok(&["volume", "create", "spoilt"]);
    fs::write(volume.join("volume.json"), "").unwrap();
    t.run(&["system", "reset", "-f"]).code(0).quiet();
    assert!(!volume.exists());
}

fn secrets(t: &mut Rcon) {
    t.write("s", "secretly");
    let id = t.ok(&["secret", "create", "--label", "a=1", "one", "s"]);
    assert_eq!(id.len(), 25);
    assert_eq!(
        t.feed(b"piped", &["secret", "create", "two", "-"])
            .ok()
            .len(),
        25
    );
    t.run(&["secret", "create", "one", "s"])
        .refused(125)
        .says("in use");
    t.run(&["secret", "create", "bad name", "s"])
        .refused(125)
        .says("invalid secret name");
    t.run(&["secret", "create", "three", "nosuch"])
        .refused(125)
        .says("nosuch");
    t.feed(b"", &["secret", "create", "three", "-"])
        .refused(125)
        .says("larger than 0");
    t.run(&["secret", "ls", "--format", "{{.Name}}"])
        .prints("one\ntwo\n");
    t.run(&["secret", "ls", "-q", "--filter", "name=one"])
        .prints(&format!("{id}\n"));
    t.run(&[
        "secret",
        "inspect",
        "one",
        "--format",
        "{{.Spec.Name}} {{.Spec.Labels.a}}",
    ])
    .prints("one 1\n");
    t.run(&[
        "secret",
        "inspect",
        "--showsecret",
        "--format",
        "{{.SecretData}}",
        &id[..9],
    ])
    .prints("secretly\n");
    t.run(&["secret", "inspect", "nosuch"])
        .code(125)
        .says("no such secret");
    t.run(&["secret", "exists", "one"]).code(0);
    t.run(&["secret", "exists", "nosuch"]).code(1);
    let new = t.ok(&["secret", "create", "--replace", "one", "s"]);
    assert_ne!(new, id);
    t.run(&["secret", "rm", "one", "nosuch"])
        .code(125)
        .shows(&new);
    t.run(&["secret", "rm"]).refused(125);
    t.ok(&["secret", "rm", "-a"]);
    t.run(&["secret", "ls", "-q"]).prints("");
    let left = fs::read_dir(t.root().join("secrets")).map_or(0, |d| d.count());
    assert_eq!(left, 0);
}

fn secrets_in_containers(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.feed(b"secretly", &["secret", "create", "s", "-"]).code(0);
    t.sh(
        &["--secret", "s"],
        &image,
        "cat /run/secrets/s; stat -c ' %a %u' /run/secrets/s",
    )
    .prints("secretly 444 0\n");
    t.sh(
        &["--secret", "s,target=deep/er,mode=0400"],
        &image,
        "cat /run/secrets/deep/er; stat -c ' %a' /run/secrets/deep/er",
    )
    .prints("secretly 400\n");
    t.sh(&["--secret", "s,type=env,target=V"], &image, "echo $V")
        .prints("secretly\n");
    if t.mode == crate::lab::Mode::ManyIds {
        t.run(&[
            "run",
            "--rm",
            "--secret",
            "s,target=/t,uid=5,gid=6,mode=0440",
            &image,
            "stat",
            "-c",
            "%u %g %a",
            "/t",
        ])
        .prints("5 6 440\n");
    }
    // A container keeps its copy, and images have none.
    t.ok(&[
        "create",
        "--name",
        "c",
        "--secret",
        "s",
        "--secret",
        "s,type=env",
        &image,
        "sh",
        "-c",
        "cat /run/secrets/s; echo $s",
    ]);
    t.ok(&["secret", "rm", "s"]);
    t.run(&["start", "-a", "c"]).prints("secretlysecretly\n");
    t.ok(&["commit", "-q", "c", "localhost/c"]);
    t.run(&["run", "--rm", "localhost/c"])
        .code(0)
        .prints("\n")
        .says("/run/secrets/s");
    assert!(!t.ok(&["inspect", "localhost/c"]).contains("secretly"));
    for bad in ["nosuch", "s,type=no", "s,x"] {
        t.run(&["run", "--rm", "--secret", bad, &image, "true"])
            .refused(125);
    }
    // A typing error costs nobody their container.
    let replace = ["run", "--replace", "--name", "c", "--secret", "s,x"];
    t.run(&[&replace[..], &[image.as_str(), "true"]].concat())
        .refused(125);
    t.run(&["container", "exists", "c"]).code(0);
}

/// What is refused costs nobody what was to be replaced.
fn replaced_or_kept(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.feed(b"old", &["secret", "create", "s", "-"]).code(0);
    let folder = t.root().join("secrets");
    let allow = |bits| fs::set_permissions(&folder, fs::Permissions::from_mode(bits)).unwrap();
    let replace = ["secret", "create", "--replace", "s", "-"];
    let show = [
        "secret",
        "inspect",
        "--showsecret",
        "--format",
        "{{.SecretData}}",
        "s",
    ];
    allow(0o500);
    t.feed(b"new", &replace).refused(125);
    allow(0o700);
    t.run(&show).prints("old\n");
    t.feed(b"new", &replace).code(0);
    t.run(&show).prints("new\n");
    assert_eq!(t.ok(&["secret", "ls", "-q"]).lines().count(), 1);

    let id = t.sleeper("c", &["--stop-signal", "KILL", "-v", "/own"], &image);
    t.ok(&["exec", "c", "touch", "/own/f"]);
    t.ok(&["create", "--name", "down", &image, "true"]);
    let run = ["run", "-d", "--replace", "--name", "c"];
    for wrong in [
        ["--secret", "nosuch"],
        ["--volumes-from", "nosuch"],
        ["--network", "container:nosuch"],
        ["--network", "container:down"],
        ["--network", "container:c"],
        ["--pid", "container:nosuch"],
        ["--pid", "container:c"],
        ["--mount", "type=image,source=nosuch,destination=/i"],
        ["-v", "/nosuch:/x"],
    ] {
        t.run(&[&run[..], &wrong, &[&image, "true"]].concat())
            .refused(125);
        let state = t.inspect("c", "{{.Id}} {{.State.Status}}");
        assert_eq!(state, format!("{id} running"), "{wrong:?}");
    }
    t.run(&[&run[..], &["--pull", "never", "nosuch", "true"]].concat())
        .refused(125);
    assert_eq!(t.inspect("c", "{{.Id}}"), id);
    // What the old one has can be had by its successor.
    let heir = [
        "--volumes-from",
        "c",
        "--stop-signal",
        "KILL",
        &image,
        "sleep",
        "1000",
    ];
    let new = t.ok(&[&run[..], &heir].concat());
    assert_eq!(t.inspect("c", "{{.Id}}"), new);
    t.run(&["exec", "c", "ls", "/own"]).prints("f\n");
    t.ok(&["rm", "-f", "-a"]);
    // But not what goes with it.
    let own = ["create", "--rm", "--name", "c", "-v", "/own", &image];
    let id = t.ok(&[&own[..], &["true"]].concat());
    let out = t.run(&[&run[..], &heir].concat());
    out.refused(125).says("a volume of it");
    assert_eq!(t.inspect("c", "{{.Id}}"), id);
    t.ok(&["rm", "c"]);
    t.ok(&["volume", "rm", "-a"]);
    t.ok(&["secret", "rm", "s"]);
}

fn disk_usage(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "c", "-v", "data:/d", &image, "true"]);
    t.run(&[
        "system",
        "df",
        "--format",
        "{{.Type}} {{.Total}} {{.Active}}",
    ])
    .prints("Images 1 1\nContainers 1 0\nLocal Volumes 1 1\n");
    t.run(&["system", "df"])
        .shows("RECLAIMABLE")
        .shows("Local Volumes");
    t.run(&["system", "df", "-v"])
        .shows("Images space usage:")
        .shows("data");
    t.ok(&["rm", "c"]);
    t.ok(&["volume", "rm", "data"]);
}

fn system_prune(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["volume", "create", "free"]);
    let id = t.ok(&["create", &image, "true"]);
    t.feed(b"n\n", &["system", "prune"])
        .code(0)
        .shows("all stopped containers");
    let out = t.run(&["system", "prune", "-f"]);
    out.code(0)
        .shows(&format!("Deleted Containers\n{id}\n"))
        .shows("Total reclaimed space: ");
    t.run(&["volume", "exists", "free"]).code(0);
    t.run(&["image", "exists", &image]).code(0);
    let out = t.run(&["system", "prune", "-af", "--volumes"]);
    out.code(0)
        .shows("Deleted Volumes\nfree\n")
        .shows("Deleted Images\n");
    t.run(&["images", "-q"]).prints("");
}

fn system_reset(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "-v", "data:/d", &image, "sleep", "1000"]);
    t.feed(b"x", &["secret", "create", "s", "-"]).code(0);
    t.feed(b"n\n", &["system", "reset"]).code(0);
    t.has_containers(1);
    t.run(&["system", "reset", "-f"]).code(0).quiet();
    t.has_containers(0);
    t.run(&["images", "-q"]).prints("");
    t.run(&["volume", "ls", "-q"]).prints("");
    t.run(&["secret", "ls", "-q"]).prints("");
}

/// What cannot be removed is said, and keeps nothing else; what it needs stays.
fn reset_as_far_as_can_be(t: &mut Rcon) {
    let image = t.pull("busybox");
    let create = |name: &str, volume: &str| {
        let volume = format!("{volume}:/d");
        t.ok(&["create", "--name", name, "-v", &volume, &image, "true"])
    };
    let ids = [create("a", "x"), create("b", "y"), create("c", "z")];
    let stuck = &ids[1];
    let spoilt = t
        .root()
        .join("containers")
        .join(&ids[2])
        .join("config.json");
    fs::write(spoilt, "").unwrap();
    t.ok(&["volume", "create", "free"]);
    t.feed(b"x", &["secret", "create", "s", "-"]).code(0);
    // Where a container goes that is removed there is something, which nobody may take away.
    let obstacle = t.root().join("containers").join(format!(".{stuck}"));
    fs::create_dir(&obstacle).unwrap();
    fs::write(obstacle.join("x"), "").unwrap();
    let held = fs::File::open(&obstacle).unwrap();
    held.lock().unwrap();
    t.run(&["system", "reset", "-f"])
        .code(125)
        .says("Error: cannot remove")
        .says(stuck)
        .says("volume y is being used");
    t.run(&["ps", "-a", "--format", "{{.Names}}"]).prints("b\n");
    t.run(&["volume", "ls", "-q"]).prints("y\n");
    t.run(&["secret", "ls", "-q"]).prints("");
    assert!(!t.root().join("containers").join(&ids[2]).exists());
    fs::remove_dir_all(&obstacle).unwrap();
    drop(held);
    t.run(&["system", "reset", "-f"]).code(0).quiet();
    t.has_containers(0);
    t.run(&["volume", "ls", "-q"]).prints("");
}

fn sizes(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.named_sh("c", &image, "head -c 5000 /dev/zero > /f")
        .code(0);
    let out = t.ok(&["ps", "-a", "--size", "--format", "{{.Size}}"]);
    assert!(
        out.starts_with("5kB (virtual ") || out.starts_with("5.0"),
        "{out}"
    );
    t.run(&["ps", "-as"]).shows("SIZE");
    t.ok(&["create", "--name", "small", &image, "true"]);
    t.run(&["ps", "-a", "--sort", "size", "--format", "{{.Names}}"])
        .prints("small\nc\n");
}
