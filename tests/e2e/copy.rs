//! `cp`, `diff`, `export` and `commit`: the files of containers, from outside of them.

use std::fs;

use crate::lab::Rcon;
use crate::lab::scenario::scenarios;

scenarios!(
    into_and_out_of,
    owners,
    mounts,
    hostile_links,
    archives,
    between_containers,
    overwriting,
    changes,
    exports,
    commits,
    commits_in_full
);

fn sleeper(t: &Rcon, name: &str, args: &[&str]) -> String {
    let image = t.pull("busybox");
    let mut words = vec!["run", "-d", "--name", name];
    words.extend(args);
    words.extend([image.as_str(), "sleep", "1000"]);
    t.ok(&words);
    image
}

fn into_and_out_of(t: &mut Rcon) {
    sleeper(t, "c", &[]);
    t.write("d/one", "one\n");
    t.write("d/sub/two", "two\n");
    for state in ["running", "stopped"] {
        t.run(&["cp", "d", &format!("c:/{state}")]).code(0).quiet();
        t.run(&["cp", &format!("c:/{state}"), "."]).code(0).quiet();
        let back = fs::read_to_string(t.home(&format!("{state}/sub/two"))).unwrap();
        assert_eq!(back, "two\n");
        // Into a directory that is there, under its own name; and its content, without it.
        t.ok(&["cp", "d", &format!("c:/{state}")]);
        t.ok(&["cp", "d/.", &format!("c:{state}/sub")]);
        t.ok(&["cp", &format!("c:/{state}/d/one"), "got"]);
        t.ok(&["cp", &format!("c:/{state}/sub/sub/two"), "got"]);
        assert_eq!(fs::read_to_string(t.home("got")).unwrap(), "two\n");
        if state == "running" {
            t.ok(&["stop", "-t", "0", "c"]);
        }
    }
    // What was copied into a container that did not run is there when it does.
    t.ok(&["start", "c"]);
    t.run(&["exec", "c", "cat", "/stopped/d/one", "/running/sub/one"])
        .prints("one\none\n");
    for (from, to, says) in [
        ("c:/nosuch", "x", "could not be found on container c"),
        ("nosuch", "c:/x", "could not be found on the host"),
        ("d/one", "c:/nosuch/", "could not be found on container c"),
        ("d/one", "c:/no/such", "could not be found on container c"),
        ("d", "c:/running/one", "destination must be a directory"),
        ("c:/running", "got", "destination must be a directory"),
        (
            "c:/running/one",
            "no/such/x",
            "could not be found on the host",
        ),
        ("d", "nosuch:/x", "does not exist"),
        ("d", "x", "at least one container"),
        ("d", "c:", "cannot be empty"),
    ] {
        t.run(&["cp", from, to]).refused(125).says(says);
    }
}

fn owners(t: &mut Rcon) {
    let image = t.pull("busybox");
    let user = match t.mode {
        crate::lab::Mode::ManyIds => "33",
        crate::lab::Mode::OneId => "0",
    };
    t.sleeper("c", &["--user", user], &image);
    t.write("file", "x");
    t.ok(&["cp", "file", "c:/tmp/mine"]);
    t.ok(&["cp", "-a=false", "file", "c:/tmp/kept"]);
    let out = t.ok(&["exec", "c", "stat", "-c", "%u %a", "/tmp/mine", "/tmp/kept"]);
    assert_eq!(out, format!("{user} 644\n0 644"));
    // Here, it is the user's.
    t.ok(&["cp", "c:/tmp/mine", "back"]);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(t.home("back")).unwrap().uid(), t.user.uid);
}

fn mounts(t: &mut Rcon) {
    let dir = t.mkdir("shared");
    let volume = format!("{dir}:/shared");
    sleeper(
        t,
        "c",
        &["-v", &volume, "-v", "data:/data", "--tmpfs", "/scratch"],
    );
    t.write("file", "text");
    for place in ["/shared/a", "/data/a", "/scratch/a"] {
        t.ok(&["cp", "file", &format!("c:{place}")]);
        t.run(&["exec", "c", "cat", place]).prints("text");
    }
    assert_eq!(fs::read_to_string(t.home("shared/a")).unwrap(), "text");
    t.ok(&["stop", "-t", "0", "c"]);
    t.ok(&["cp", "file", "c:/shared/b"]);
    t.ok(&["cp", "file", "c:/data/b"]);
    assert_eq!(fs::read_to_string(t.home("shared/b")).unwrap(), "text");
    t.ok(&["cp", "c:/data/b", "back"]);
    assert_eq!(fs::read_to_string(t.home("back")).unwrap(), "text");
    t.ok(&["start", "c"]);
    t.run(&["exec", "c", "cat", "/data/b"]).prints("text");
    t.ok(&["rm", "-f", "-t", "0", "c"]);
    t.ok(&["volume", "rm", "data"]);
}

fn hostile_links(t: &mut Rcon) {
    sleeper(t, "c", &[]);
    t.write("file", "text");
    t.write("secret", "outside");
    let outside = t.home("secret").display().to_string();
    let script = format!(
        "ln -s {outside} /out; ln -s /etc /abs; ln -s ../../../../../../etc /rel; mkdir /bad; \
         ln -s {} /bad/here",
        t.home("").display()
    );
    t.ok(&["exec", "c", "sh", "-c", &script]);
    // Links lead nowhere but within the container.
    t.run(&["cp", "c:/out", "stolen"]).refused(125);
    assert!(!t.home("stolen").exists());
    t.run(&["cp", "file", "c:/out"]).refused(125);
    assert_eq!(fs::read_to_string(t.home("secret")).unwrap(), "outside");
    for link in ["abs", "rel"] {
        t.ok(&["cp", "file", &format!("c:/{link}/by-{link}")]);
        t.run(&["exec", "c", "cat", &format!("/etc/by-{link}")])
            .prints("text");
    }
    // A link that was copied here is a link, and what comes after it does not go through it.
    t.ok(&["cp", "c:/bad", "."]);
    assert!(t.home("bad/here").symlink_metadata().unwrap().is_symlink());
}

fn archives(t: &mut Rcon) {
    sleeper(t, "c", &[]);
    t.ok(&[
        "exec",
        "c",
        "sh",
        "-c",
        "mkdir -p /src/deep /dst; echo x > /src/deep/f",
    ]);
    let out = t.home("a.tar");
    let mut command = t.command(&["cp", "c:/src", "-"]);
    command.stdout(fs::File::create(&out).unwrap());
    assert!(command.status().unwrap().success());
    let archive = fs::read(&out).unwrap();
    t.feed(&archive, &["cp", "-", "c:/dst"]).code(0).quiet();
    t.run(&["exec", "c", "cat", "/dst/src/deep/f"])
        .prints("x\n");
    t.feed(&archive, &["cp", "-", "c:/dst/src/deep/f"])
        .refused(125)
        .says("must be a directory");
    t.feed(b"nonsense", &["cp", "-", "c:/dst"]).refused(125);
}

fn between_containers(t: &mut Rcon) {
    sleeper(t, "a", &[]);
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "b", &image, "cat", "/copy/f"]);
    t.ok(&["exec", "a", "sh", "-c", "mkdir /src; echo across > /src/f"]);
    t.run(&["cp", "a:/src", "b:/copy"]).code(0).quiet();
    t.run(&["start", "-a", "b"]).prints("across\n");
    t.ok(&["cp", "a:/src/f", "a:/tmp"]);
    t.run(&["exec", "a", "cat", "/tmp/f"]).prints("across\n");
    t.run(&["cp", "a:/nosuch", "b:/x"])
        .refused(125)
        .says("could not be found on container a");
}

fn overwriting(t: &mut Rcon) {
    sleeper(t, "c", &[]);
    t.write("d/x", "dir");
    t.write("f/x/y", "file");
    t.ok(&["cp", "d", "c:/"]);
    // A file where a directory is to be, and the other way round.
    t.run(&["cp", "f/.", "c:/d"]).refused(125);
    t.run(&["exec", "c", "cat", "/d/x"]).prints("dir");
    t.ok(&["cp", "--overwrite", "f/.", "c:/d"]);
    t.run(&["exec", "c", "cat", "/d/x/y"]).prints("file");
    t.run(&["cp", "d/.", "c:/d"]).refused(125);
    t.ok(&["cp", "--overwrite", "d/.", "c:/d"]);
    t.run(&["exec", "c", "cat", "/d/x"]).prints("dir");
    // What is mounted on a file gets new content.
    t.write("hosts", "10.9.8.7 new\n");
    t.ok(&["cp", "hosts", "c:/etc/hosts"]);
    t.run(&["exec", "c", "cat", "/etc/hosts"])
        .prints("10.9.8.7 new\n");
}

fn changes(t: &mut Rcon) {
    sleeper(t, "c", &["-v", "/anon"]);
    t.run(&["exec", "c", "sh", "-c", "mkdir /new; touch /new/f; rm /etc/group; echo x >> /etc/passwd; rm -r /var/www; mkdir /var/www"])
        .code(0);
    let all = t.ok(&["diff", "c"]);
    for line in [
        "A /new",
        "A /new/f",
        "D /etc/group",
        "C /etc/passwd",
        "C /etc",
        "C /var/www",
    ] {
        assert!(all.lines().any(|l| l == line), "no {line} in\n{all}");
    }
    assert!(
        !all.contains("/etc/hosts") && !all.contains("/dev"),
        "{all}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&t.ok(&["diff", "--format", "json", "c"])).unwrap();
    assert_eq!(json["deleted"][0], "/etc/group");
    t.run(&["diff", "nosuch"]).refused(125).says("not found");
    t.run(&["container", "diff", "nosuch"]).refused(125);
    t.run(&["diff"]).refused(125);
    t.run(&["diff", "--format", "xml", "c"]).refused(125);
}

fn exports(t: &mut Rcon) {
    sleeper(t, "c", &["-v", "data:/data"]);
    t.ok(&[
        "exec",
        "c",
        "sh",
        "-c",
        "echo x > /new; echo y > /data/y; rm /etc/group",
    ]);
    t.run(&["export", "-o", "e.tar", "c"]).code(0).quiet();
    let mut list = std::process::Command::new("tar");
    let names = list.arg("-tf").arg(t.home("e.tar")).output().unwrap();
    let names = String::from_utf8(names.stdout).unwrap();
    assert!(names.lines().any(|n| n == "new"), "{names}");
    assert!(names.lines().any(|n| n == "etc/passwd"), "{names}");
    // What was deleted is not there, and what is mounted is no part of it.
    assert!(
        !names.contains("etc/group") && !names.contains("data/y"),
        "{names}"
    );
    t.run(&["export", "nosuch", "-o", "n.tar"]).refused(125);
    assert!(!t.home("n.tar").exists());
    t.run(&["import", "-q", "e.tar", "localhost/again"]).code(0);
    t.run(&["run", "--rm", "localhost/again", "cat", "/new"])
        .prints("x\n");
    t.ok(&["rm", "-f", "-t", "0", "c"]);
    t.ok(&["volume", "rm", "data"]);
}

fn commits(t: &mut Rcon) {
    sleeper(t, "c", &["-e", "GIVEN=1", "--label", "l=1"]);
    t.ok(&["exec", "c", "sh", "-c", "echo x > /new; rm /etc/group"]);
    let id = t.ok(&["commit", "-q", "c", "localhost/made"]);
    assert_eq!(id.len(), 64);
    t.run(&[
        "run",
        "--rm",
        "localhost/made",
        "sh",
        "-c",
        "cat /new; ls /etc/group; echo $GIVEN",
    ])
    .shows("x\n")
    .shows("1\n")
    .says("No such file");
    assert_eq!(
        t.inspect(
            "localhost/made",
            "{{json .Config.Cmd}} {{.Config.Labels.l}} {{len .RootFS.Layers}}"
        ),
        r#"["sleep","1000"] 1 2"#
    );
    assert_eq!(t.ok(&["commit", "-q", "c"]).len(), 64);
    // Where there is a freezer it is used when that is asked for; the container goes on in any case.
    let paused = t.run(&["commit", "-q", "--pause", "c"]);
    assert!(
        paused.code == 0 || paused.refused(125).stderr.contains("cgroup"),
        "{}",
        paused.story()
    );
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "running");
    for args in [
        &["commit", "nosuch"][..],
        &["commit", "c", "UPPER"],
        &["commit", "-m", "x", "c"],
        &["commit", "--change", "NOSUCH x", "c"],
        &["commit", "-f", "nosuch", "c"],
    ] {
        t.run(args).refused(125);
    }
}

fn commits_in_full(t: &mut Rcon) {
    sleeper(t, "c", &["-v", "/anon"]);
    t.ok(&[
        "exec",
        "c",
        "sh",
        "-c",
        "echo x > /new; chown 33 /new 2>/dev/null; true",
    ]);
    let id = t.ok(&[
        "commit",
        "-q",
        "-f",
        "docker",
        "-m",
        "said",
        "-a",
        "me",
        "-c",
        "CMD [\"cat\",\"/new\"]",
        "-c",
        "ENV A=b",
        "--iidfile",
        "id",
        "--include-volumes",
        "--squash",
        "c",
        "localhost/full:1",
    ]);
    assert_eq!(
        fs::read_to_string(t.home("id")).unwrap(),
        format!("sha256:{id}")
    );
    t.run(&["run", "--rm", "localhost/full:1"]).prints("x\n");
    assert_eq!(
        t.inspect(
            "localhost/full:1",
            "{{.Author}} {{len .RootFS.Layers}} {{json .Config.Volumes}} {{.ManifestType}}"
        ),
        r#"me 1 {"/anon":{}} application/vnd.docker.distribution.manifest.v2+json"#
    );
    assert!(t.ok(&["history", "localhost/full:1"]).contains("said"));
    if t.mode == crate::lab::Mode::ManyIds {
        t.run(&[
            "run",
            "--rm",
            "localhost/full:1",
            "stat",
            "-c",
            "%u",
            "/new",
        ])
        .prints("33\n");
    }
}
