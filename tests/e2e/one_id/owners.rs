//! Whose a file is: as it is seen, in copies, and in images wherever they go.

use super::{busybox, shell};
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon, installed, lab, skip};

scenarios!(
    files_have_owners,
    made_by_others,
    devices_are_made,
    owners_last,
    owners_of_what_is_gone,
    owners_are_copied,
    owners_are_pushed,
);

pub(super) fn files_have_owners(t: &mut Rcon) {
    busybox(t);
    let script = "cd /tmp; touch file; mkdir dir; mkfifo pipe; ln -s nowhere link
        chown 33:34 file; chown 33 dir; chown :7 pipe; chown -h 5:6 link
        stat -c '%n %u %g %F' file dir pipe link
        chmod 4755 file; stat -c %a file; chown 33 file; stat -c %a file
        chown 0:0 file; stat -c '%u %g' file
        mkdir t; touch t/x; chown -R 1:2 t; mv t/x y; stat -c '%u %g' t y
        ln y z; chown 8:9 z; stat -c '%u %g' y";
    let expected = "file 33 34 regular empty file\ndir 33 0 directory\npipe 0 7 fifo\n\
                    link 5 6 symbolic link\n4755\n755\n0 0\n1 2\n1 2\n8 9\n";
    assert_eq!(shell(t, &[], script), expected);
    // An archive brings owners, and takes them away with it.
    let script = "mkdir -p /tmp/a/b; cd /tmp; echo x >a/b/c; ln -s c a/b/l; chown -h -R 11:12 a; chmod 2750 a/b
        tar cf t.tar a; mkdir o; tar xpf t.tar -C o; stat -c '%u %g %a' o/a/b o/a/b/c
        tar tvf t.tar | sed -n '1s/  */ /gp' | cut -d' ' -f2";
    assert_eq!(shell(t, &[], script), "11 12 2750\n11 12 644\n11/12\n");
    // What is not there, what may not be.
    let script = "chown 1 /no/such 2>&1 || true; su app -c 'chown root /tmp/x' 2>&1 || true";
    let got = shell(t, &[], &format!("touch /tmp/x; {script}"));
    assert!(got.contains("No such file"), "{got}");
    assert!(got.contains("not permitted"), "{got}");
    // On a bind mount too, where it is kept on the file itself.
    let dir = t.mkdir("shared");
    let volume = format!("{dir}:/data");
    shell(t, &["-v", &volume], "touch /data/f; chown 3:4 /data/f");
    assert_eq!(
        shell(t, &["-v", &volume], "stat -c '%u %g' /data/f"),
        "3 4\n"
    );
    shell(t, &["-v", &volume], "rm /data/f");
}

pub(super) fn made_by_others(t: &mut Rcon) {
    busybox(t);
    let script = "umask 027; cd /tmp; echo x >a; mkdir b; ln -s a c; mkfifo d; touch b/e; cp -r b f
        stat -c '%n %u %g %a' a b d b/e f/e; stat -c '%n %u %g' c";
    let expected = "a 1000 1000 640\nb 1000 1000 750\nd 1000 1000 640\nb/e 1000 1000 640\n\
                    f/e 1000 1000 640\nc 1000 1000\n";
    assert_eq!(shell(t, &["-u", "app"], script), expected);
    let quoted = script.replace('\'', "\"");
    assert_eq!(
        shell(t, &[], &format!("su app -s /bin/sh -c '{quoted}'")),
        expected
    );
    // A directory that hands its group on; one that takes nothing from others.
    let script = "mkdir /tmp/d /tmp/e; chown 0:77 /tmp/d; chmod 2777 /tmp/d
        su app -s /bin/sh -c 'touch /tmp/d/x; touch /tmp/e/x' 2>/dev/null || true
        stat -c '%u %g' /tmp/d/x; ls /tmp/e";
    assert_eq!(shell(t, &[], script), "1000 77\n");
}

pub(super) fn devices_are_made(t: &mut Rcon) {
    busybox(t);
    if t.mode == Mode::ManyIds {
        // The kernel lets nobody but the real root.
        t.run(&[
            "run",
            "--rm",
            "--network",
            "none",
            "busybox",
            "mknod",
            "/tmp/n",
            "c",
            "1",
            "3",
        ])
        .code(1)
        .says("not permitted");
        return;
    }
    let script = "cd /tmp; mknod -m 666 null c 1 3; mknod disk b 8 1; ls -l null disk | tr -s ' ' | cut -d' ' -f1,3-6
        echo gone >null; cat null; wc -c <null; rm null disk; ls";
    assert_eq!(
        shell(t, &[], script),
        "brw-r--r-- root root 8, 1\ncrw-rw-rw- root root 1, 3\n0\n"
    );
}

pub(super) fn owners_last(t: &mut Rcon) {
    busybox(t);
    let script = "if [ -e /made ]; then stat -c '%n %u %g' /made /link; else
        touch /made; ln -s made /link; chown 21:22 /made; chown -h 23:24 /link; fi";
    t.run(&[
        "run",
        "--name",
        "c",
        "--network",
        "none",
        "busybox",
        "sh",
        "-ec",
        script,
    ])
    .code(0);
    t.run(&["start", "-a", "c"])
        .prints("/made 21 22\n/link 23 24\n");
    // As an image, wherever that goes: its archive has the owners.
    t.run(&["commit", "-q", "c", "kept"]).code(0);
    t.run(&["rm", "c"]).code(0);
    let look = "stat -c '%n %u %g' /made";
    t.run(&["run", "--rm", "--network", "none", "kept", "sh", "-c", look])
        .prints("/made 21 22\n");
    if !lab().root || !installed("umoci") {
        return skip("umoci gives files their owners as root only");
    }
    let archive = t.home("kept.tar");
    let archive = archive.to_str().unwrap();
    t.run(&[
        "save",
        "-q",
        "--format",
        "oci-archive",
        "-o",
        archive,
        "kept",
    ])
    .code(0);
    let script = format!(
        "cd {} && mkdir oci && tar xf {archive} -C oci && umoci raw unpack --image \"oci:$(umoci ls --layout oci)\" tree \
         && stat -c '%n %u %g' tree/made tree/link; rm -rf oci tree",
        t.dir.display()
    );
    let out = std::process::Command::new("sh")
        .args(["-c", &script])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        text.ends_with("tree/made 21 22\ntree/link 23 24\n"),
        "{text}{said}"
    );
}

fn owners_are_copied(t: &mut Rcon) {
    busybox(t);
    let new = |name: &str| {
        let words = ["run", "-d", "--name", name, "--network", "none", "busybox"];
        t.run(&[&words[..], &["sleep", "1000"]].concat()).code(0);
    };
    new("a");
    new("b");
    let script = "mkdir /d; echo x >/d/file; mkfifo /d/pipe; ln -s file /d/link
        chown 3:4 /d; chown 5:6 /d/file; chown 7:8 /d/pipe; chown -h 9:10 /d/link";
    t.run(&["exec", "a", "sh", "-ec", script]).code(0);
    let look = ["stat", "-c", "%n %u %g"];
    let names = ["/d", "/d/file", "/d/pipe", "/d/link"];
    let owners = "/d 3 4\n/d/file 5 6\n/d/pipe 7 8\n/d/link 9 10\n";
    // From one that runs into one that runs, and into one that does not.
    t.run(&["cp", "-a=false", "a:/d", "b:/"]).code(0);
    t.run(&[&["exec", "b"], &look[..], &names].concat())
        .prints(owners);
    t.run(&["stop", "-t", "0", "a", "b"]).code(0);
    t.run(
        &[
            "create",
            "--name",
            "c",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
        ]
        .into_iter()
        .chain(["stat -c '%n %u %g' /d /d/file /d/pipe /d/link"])
        .collect::<Vec<_>>(),
    )
    .code(0);
    t.run(&["cp", "-a=false", "b:/d", "c:/"]).code(0);
    t.run(&["start", "-a", "c"]).prints(owners);
    // Out of it as an archive, and what belongs to the user of a container into it.
    let archive = t.home("d.tar");
    let out = t.run(&["cp", "b:/d", "-"]);
    std::fs::write(&archive, &out.code(0).stdout).unwrap();
    let listed = std::process::Command::new("tar")
        .args(["--numeric-owner", "-tvf", archive.to_str().unwrap()])
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout);
    for owner in ["3/4", "5/6", "7/8", "9/10"] {
        assert!(listed.contains(owner), "{listed}");
    }
    let file = t.write("mine", "x");
    t.run(
        &[
            "create",
            "--name",
            "e",
            "--network",
            "none",
            "-u",
            "app",
            "busybox",
        ]
        .into_iter()
        .chain(["stat", "-c", "%u", "/tmp/mine"])
        .collect::<Vec<_>>(),
    )
    .code(0);
    t.run(&["cp", &file, "e:/tmp/"]).code(0);
    t.run(&["start", "-a", "e"]).prints("1000\n");
    t.run(&["rm", "-f", "-t", "0", "a", "b", "c", "e"]).code(0);
}

/// What was pushed has the owners that the container saw, for whoever takes it.
fn owners_are_pushed(t: &mut Rcon) {
    busybox(t);
    let script = "mkdir /d; touch /d/file; mkfifo /d/pipe; ln -s file /d/link; chmod 4755 /d/file
        chown 3:4 /d; chown 70000:6 /d/file; chown 7:8 /d/pipe; chown -h 9:10 /d/link; chmod 4755 /d/file";
    let script = match t.mode {
        // The kernel has no more.
        Mode::ManyIds => script.replace("70000", "60000"),
        Mode::OneId => script.to_owned(),
    };
    let words = ["run", "--name", "c", "--network", "none", "busybox"];
    t.run(&[&words[..], &["sh", "-ec", &script]].concat())
        .code(0);
    let name = crate::lab::registry::writable().name(&format!("owners/{}", t.user.name));
    t.run(&["commit", "-q", "c", &name]).code(0);
    t.run(&["push", "-q", &name]).code(0);
    t.run(&["rm", "c"]).code(0);
    if !lab().root || !installed("umoci") {
        return skip("umoci gives files their owners as root only");
    }
    let script = format!(
        "cd {} && skopeo copy -q --src-tls-verify=false docker://{name} oci:oci:x && umoci raw unpack --image oci:x tree \
         && cd tree/d && stat -c '%n %u %g %a %F' . file pipe link; cd ../.. && rm -rf oci tree",
        t.dir.display()
    );
    let out = std::process::Command::new("sh")
        .args(["-c", &script])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let said = String::from_utf8_lossy(&out.stderr);
    let large = match t.mode {
        Mode::ManyIds => 60000,
        Mode::OneId => 70000,
    };
    let expected = format!(
        ". 3 4 755 directory\nfile {large} 6 4755 regular empty file\npipe 7 8 644 fifo\nlink 9 10 777 symbolic link\n"
    );
    assert!(text.ends_with(&expected), "{text}{said}");
    // A user with many ids gets them for real.
    let Some(other) = lab().user(Mode::ManyIds).filter(|_| t.mode == Mode::OneId) else {
        return;
    };
    let many = Rcon::new(Mode::ManyIds, other);
    many.run(&["pull", "-q", &name]).code(0);
    let look =
        "cat /proc/self/uid_map | wc -l; stat -c '%n %u %g' /d /d/pipe; stat -c '%n %u %g' /d/link";
    many.run(&["run", "--rm", "--network", "none", &name, "sh", "-c", look])
        .shows("/d 3 4\n/d/pipe 7 8\n/d/link 9 10\n");
    many.finish();
}

/// What is noted of links does not grow with those that are gone, and is not lost of those that are there.
fn owners_of_what_is_gone(t: &mut Rcon) {
    busybox(t);
    let script = "mkdir /all; cd /all; for n in $(seq 200); do ln -s x $n; done; cd /
        ln -s x /kept; ln -s x /vol/kept; mkfifo /all/pipe; chown -h 7:8 /kept /vol/kept
        for n in $(seq 60); do cp -a /all /new; chown -hR 5:6 /new; mv /kept /all/kept; rm -r /new; mv /all/kept /kept; done
        stat -c '%u %g' /kept /vol/kept";
    let words = ["run", "--name", "c", "-v", "v:/vol", "busybox", "sh", "-ec"];
    t.run(&[&words[..], &[script]].concat())
        .prints("7 8\n7 8\n");
    let id = t.inspect("c", "{{.Id}}");
    let notes = t.root().join("snapshots").join(id).join("owners");
    if let Ok(notes) = std::fs::metadata(&notes) {
        assert!(notes.len() < 250_000, "{} bytes", notes.len());
    }
    t.run(&["commit", "-q", "c", "new"]).code(0);
    t.run(&["rm", "c"]).code(0);
    t.run(&["run", "--rm", "new", "stat", "-c", "%u %g", "/kept"])
        .prints("7 8\n");
    t.run(&["volume", "rm", "v"]).code(0);
}
