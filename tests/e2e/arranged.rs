//! Containers whose users are arranged in another way than usual: `--userns`, `--uidmap`, `--gidmap`, `--subuidname`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon, lab};

scenarios!(
    the_own_id,
    folders_of_another_group,
    what_is_done_to_it_from_outside,
    nobody_of_the_host,
    ids_of_its_own,
    given_maps,
    what_cannot_be_had,
);

/// With one id there is nothing to arrange; that is said, and nothing is left behind.
fn has_ids(t: &Rcon, image: &str) -> bool {
    if t.mode == Mode::ManyIds {
        return true;
    }
    for flags in [
        "--userns=keep-id",
        "--userns=nomap",
        "--userns=auto",
        "--uidmap=0:0:1",
    ] {
        t.run(&["run", "--rm", flags, image, "true"])
            .refused(125)
            .says("the users of the container cannot be arranged so: there is only one id here");
    }
    t.has_containers(0);
    false
}

fn the_own_id(t: &mut Rcon) {
    let image = t.pull("busybox");
    if !has_ids(t, &image) {
        return;
    }
    let (uid, gid) = (t.user.uid, t.user.gid);
    let folder = t.mkdir("mine");
    let volume = format!("{folder}:/mine");
    let keep = |flags: &[&str], script: &str| {
        let words = [
            &["run", "--rm", "--userns=keep-id", "-v", &volume],
            flags,
            &[&image, "sh", "-c", script],
        ];
        t.run(&words.concat())
    };
    // The user is who he is, and his files are his.
    keep(
        &[],
        "id -u; id -g; stat -c %u:%g /mine; touch /mine/by-me; grep -c \"$(id -un)\" /etc/passwd",
    )
    .prints(&format!("{uid}\n{gid}\n{uid}:{gid}\n1\n"));
    let made = fs::metadata(format!("{folder}/by-me")).unwrap();
    assert_eq!((made.uid(), made.gid()), (uid, gid));
    // The image's files have the image's owners, and its root is root over them.
    keep(
        &[],
        "stat -c %u:%g / /bin/busybox /home/app/note; touch /etc/x 2>&1 | grep -c denied",
    )
    .prints("0:0\n0:0\n1000:1000\n1\n");
    keep(&["-u", "0"], "touch /etc/x /home/app/y && stat -c %u /etc/x && chown 1000 /home/app/y && stat -c %u /home/app/y; mount -t tmpfs x /mnt 2>&1 | grep -c mount")
        .shows("0\n1000\n");
    keep(
        &["-u", "0"],
        "cat /proc/self/uid_map | wc -l; grep -q nameserver /etc/resolv.conf && echo 1",
    )
    .prints("3\n1\n");
    t.sh(&["--userns=keep-id:uid=77,gid=88"], &image, "id -u; id -g")
        .prints("77\n88\n");
    t.run(&[
        "run",
        "--rm",
        "--userns=keep-id",
        "-u",
        "app",
        &image,
        "id",
        "-u",
    ])
    .prints("1000\n");
    t.ok(&["create", "--name", "c", "--userns=keep-id", &image, "true"]);
    assert_eq!(
        t.inspect("c", "{{.HostConfig.UsernsMode}} {{.Config.User}}"),
        format!("private {uid}:{gid}")
    );
    let map = t.inspect("c", "{{index .HostConfig.IDMappings.UidMap 0}}");
    assert_eq!(map, format!("0:1:{uid}"));
}

/// The folder that all a container needs lies in is the user's alone, but of a group that the container does not have.
fn folders_of_another_group(t: &mut Rcon) {
    let image = t.pull("busybox");
    if !has_ids(t, &image) || !lab().root {
        return;
    }
    let folder = t.mkdir("closed/mine");
    let closed = t.home("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    for folder in [&t.dir.join("run"), &closed] {
        chown(folder, None, Some(0)).unwrap();
    }
    let volume = format!("{folder}:/mine");
    let script = "id -u; touch /mine/by-me; grep -c localhost /etc/hosts >/dev/null && echo hosts";
    let seen = format!("{}\nhosts\n", t.user.uid);
    let run = ["run", "--name", "c", "--userns=keep-id", "-v", &volume];
    t.run(&[&run[..], &[&image, "sh", "-c", script]].concat())
        .prints(&seen);
    t.run(&["start", "-a", "c"]).prints(&seen);
    t.ok(&["rm", "c"]);
    t.sh(&["--userns=nomap"], &image, "id -u").prints("0\n");
}

fn what_is_done_to_it_from_outside(t: &mut Rcon) {
    let image = t.pull("busybox");
    if !has_ids(t, &image) {
        return;
    }
    let script = "echo mine > /home/app/new; chown 1000:1000 /home/app/new; echo roots > /root/new; mkdir /data/sub 2>/dev/null; exec sleep 1000";
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        "--userns=keep-id",
        "-u",
        "0",
        "-v",
        "vol:/data",
        &image,
        "sh",
        "-c",
        script,
    ]);
    t.run(&["exec", "c", "id", "-u"]).prints("0\n");
    t.run(&["top", "c", "user", "huser"]).shows("root");
    let file = t.write("note", "hello\n");
    t.ok(&["cp", &file, "c:/root/note"]);
    t.run(&["exec", "c", "stat", "-c", "%u", "/root/note"])
        .prints("0\n");
    t.ok(&["stop", "-t", "0", "c"]);
    t.run(&["cp", "c:/home/app/new", "-"]).code(0);
    t.run(&["diff", "c"]).shows("A /home/app/new");
    t.ok(&["start", "c"]);
    t.run(&["exec", "c", "cat", "/root/note"]).prints("hello\n");
    // What is made of it has the owners that it saw.
    t.ok(&["commit", "-q", "c", "made"]);
    t.ok(&["rm", "-f", "-t", "0", "c"]);
    let show = "stat -c %u:%g /home/app/new /root/new /root/note";
    for flags in [&[][..], &["--userns=keep-id", "-u", "0"]] {
        let words = [&["run", "--rm"], flags, &["made", "sh", "-c", show]].concat();
        t.run(&words).prints("1000:1000\n0:0\n0:0\n");
    }
    t.ok(&[
        "run",
        "--name",
        "d",
        "--userns=keep-id",
        "-u",
        "0",
        "made",
        "chown",
        "5:6",
        "/root/new",
    ]);
    let archive = t.home("all.tar");
    t.ok(&["export", "-o", archive.to_str().unwrap(), "d"]);
    let listed = std::process::Command::new("tar")
        .args(["--numeric-owner", "-tvf"])
        .arg(&archive)
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let owner = |name: &str| {
        let line = listed.lines().find(|line| line.ends_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .map(str::to_owned)
    };
    assert_eq!(
        owner("home/app/new").as_deref(),
        Some("1000/1000"),
        "{listed}"
    );
    assert_eq!(owner("root/new").as_deref(), Some("5/6"));
    // It is started again with the same users by its policy.
    t.run(&[
        "run",
        "--name",
        "e",
        "--userns=keep-id",
        "--restart=on-failure:1",
        &image,
        "sh",
        "-c",
        "id -u; exit 3",
    ])
    .code(3);
    crate::lab::eventually("the second run", 20, || {
        (t.ok(&["logs", "e"]) == format!("{0}\n{0}", t.user.uid)).then_some(())
    });
    t.ok(&["volume", "rm", "vol"]);
}

fn nobody_of_the_host(t: &mut Rcon) {
    let image = t.pull("busybox");
    if !has_ids(t, &image) {
        return;
    }
    let folder = t.mkdir("mine");
    let volume = format!("{folder}:/mine:ro");
    // Files of the user are nobody's, and all else works.
    t.sh(&["--userns=nomap", "-v", &volume, "-v", "vol:/data"], &image, "id -u; stat -c %u /mine /home/app/note; touch /etc/x /data/y && wc -l < /proc/self/uid_map; cat /etc/hostname | wc -c")
        .prints("0\n65534\n1000\n1\n13\n");
    t.run(&[
        "run",
        "--rm",
        "--userns=nomap",
        "-u",
        "1234",
        &image,
        "tail",
        "-n",
        "1",
        "/etc/passwd",
    ])
    .prints("1234:*:1234:0:container user:/:/bin/sh\n");
    t.run(&[
        "run",
        "--rm",
        "--subuidname",
        &t.user.name,
        &image,
        "id",
        "-u",
    ])
    .prints("0\n");
    t.ok(&["volume", "rm", "vol"]);
}

fn ids_of_its_own(t: &mut Rcon) {
    let image = t.pull("busybox");
    if !has_ids(t, &image) {
        return;
    }
    let map = |name: &str, word: &str| {
        t.sleeper(name, &["--userns", word], &image);
        t.inspect(name, "{{index .HostConfig.IDMappings.UidMap 0}}")
    };
    assert_eq!(map("a", "auto"), "0:1:1024");
    assert_eq!(map("b", "auto:size=2000"), "0:1025:2000");
    t.run(&[
        "exec",
        "b",
        "sh",
        "-c",
        "id -u; touch /x; chown 1999 /x && stat -c %u /x",
    ])
    .prints("0\n1999\n");
    // A run is given again when its container is gone.
    t.ok(&["rm", "-f", "-t", "0", "a"]);
    assert_eq!(map("c", "auto:size=1000"), "0:1:1000");
    t.run(&["run", "--rm", "--userns=auto:size=65000", &image, "true"])
        .refused(125)
        .says("there are no 65000 ids left for --userns auto");
}

fn given_maps(t: &mut Rcon) {
    let image = t.pull("busybox");
    if !has_ids(t, &image) {
        return;
    }
    t.sh(
        &["--uidmap", "0:1:1000,1000:0:1", "--gidmap", "0:1:2000"],
        &image,
        "awk '{print $1, $3}' /proc/self/uid_map /proc/self/gid_map",
    )
    .prints("0 1000\n1000 1\n0 2000\n");
    t.sh(
        &["--uidmap", "0:0:1", "--uidmap", "1:1:5"],
        &image,
        "awk '{print $1, $3}' /proc/self/gid_map",
    )
    .prints("0 1\n1 5\n");
}

fn what_cannot_be_had(t: &mut Rcon) {
    let image = t.pull("busybox");
    if !has_ids(t, &image) {
        return;
    }
    for (flags, message) in [
        (
            &["--uidmap", "x"][..],
            "initializing ID mappings: UID setting is malformed expected [\"uint32:uint32:uint32\"]: [\"x\"]",
        ),
        (
            &["--userns=keep-id", "--uidmap", "0:0:1"],
            "--userns and --uidmap/--gidmap/--subuidname/--subgidname are mutually exclusive",
        ),
        (
            &["--uidmap", "0:1:70000"],
            "is not one of the 65537 there are",
        ),
        (
            &["--uidmap", "5:1:10"],
            "a container needs a user 0 and a group 0",
        ),
        (&["--uidmap", "0:1:10,5:30:1"], "is given twice"),
        (
            &["--subuidname", "nope"],
            "no subuid ranges found for user \"nope\" in /etc/subuid",
        ),
        (
            &["--userns=keep-id:size=1"],
            "unknown option specified for --userns keep-id",
        ),
        (&["--userns=auto:size=x"], "invalid value \"x\" for size"),
    ] {
        t.run(&[&["run", "--rm"], flags, &[&image, "true"]].concat())
            .refused(125)
            .says(message);
    }
}
