//! What the image and the flags of `run` say about the process: environment, folder, user, name, limits.

use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon};

scenarios!(
    environment,
    environment_files,
    working_folder,
    users,
    groups,
    entrypoint,
    host_name,
    image_configuration,
    image_of_buildah,
    hosts_file,
    resolver_file,
    limits,
    labels,
    stop_signal,
    help_and_version,
);

fn environment(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.set_env("FROM_HOST", "yes");
    t.set_env("SECRET_OF_HOST", "no");
    let out = t.run(&[
        "run",
        "--rm",
        "--hostname",
        "box",
        "-e",
        "A=1",
        "--env",
        "B=two words",
        "-e",
        "FROM_HOST",
        "-e",
        "UNSET",
        "-e",
        "EMPTY=",
        &image,
        "env",
    ]);
    let mut lines: Vec<&str> = out.ok().lines().collect();
    lines.sort_unstable();
    let expected = [
        "A=1",
        "B=two words",
        "EMPTY=",
        "FROM_HOST=yes",
        "HOME=/root",
        "HOSTNAME=box",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "container=podman",
    ];
    // The last says which engine: rcon may say its own name there.
    let lines: Vec<&str> = lines
        .into_iter()
        .filter(|l| !l.starts_with("TERM="))
        .collect();
    assert_eq!(lines[..7], expected[..7], "{}", out.story());
    assert!(
        lines.len() == 8 && lines[7].starts_with("container="),
        "{}",
        out.story()
    );
}

fn environment_files(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.set_env("FROM_HOST", "yes");
    let file = t.write(
        "env",
        "# a comment\n\nA=1\nB = spaces kept \nC=x=y\nFROM_HOST\nNOT_SET_ANYWHERE\n",
    );
    let show = "echo \"$A|$B|$C|$FROM_HOST|${NOT_SET_ANYWHERE-unset}\"";
    t.sh(&["--env-file", &file, "-e", "A=over"], &image, show)
        .shows("over|")
        .shows("|x=y|yes|unset\n");
    t.run(&["run", "--rm", "--env-file", "/nonexistent", &image, "true"])
        .refused(125)
        .says("/nonexistent");
}

fn working_folder(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--rm", &image, "pwd"]).prints("/\n");
    t.run(&["run", "--rm", "-w", "/tmp", &image, "pwd"])
        .prints("/tmp\n");
    t.run(&["run", "--rm", "--workdir=/var/www/..", &image, "pwd"])
        .prints("/var\n");
    t.run(&["run", "--rm", "-w", "/etc/passwd", &image, "pwd"])
        .refused(126)
        .says("/etc/passwd");
    t.run(&["run", "--rm", "-w", "/not/there", &image, "pwd"])
        .refused(126)
        .says("/not/there");
    t.run(&["run", "--rm", "-w", "relative", &image, "pwd"])
        .refused(126)
        .says("relative");
    t.has_containers(0);
}

fn users(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--rm", &image, "id"])
        .shows("uid=0(root) gid=0(root)");
    t.run(&["run", "--rm", "-u", "0", &image, "id", "-u"])
        .prints("0\n");
    t.run(&["run", "--rm", "-u", "root:root", &image, "id", "-g"])
        .prints("0\n");
    let who = |user: &str| {
        t.sh(&["-u", user], &image, "echo $(id -u):$(id -g):$HOME")
            .ok()
            .to_owned()
    };
    assert_eq!(who("app"), "1000:1000:/home/app");
    assert_eq!(who("1000"), "1000:1000:/home/app");
    assert_eq!(who("www-data:app"), "33:1000:/var/www");
    assert_eq!(who("1234"), "1234:0:/");
    assert_eq!(who("1234:5678"), "1234:5678:/");
    t.run(&["run", "--rm", "-u", "app", &image, "touch", "/bin/x"])
        .code(1)
        .says("denied");
    // Who is made up may have any number.
    let far = ["run", "--rm", "-u", "99999999", &image, "id", "-u"];
    match t.mode {
        Mode::OneId => drop(t.run(&far).prints("99999999\n")),
        Mode::ManyIds => drop(t.run(&far).refused(126).says("99999999")),
    }
    t.run(&["run", "--rm", "-u", "nosuch", &image, "true"])
        .refused(126)
        .says("unable to find user nosuch");
    t.run(&["run", "--rm", "-u", "root:nosuch", &image, "true"])
        .refused(126)
        .says("unable to find group nosuch");
    t.has_containers(0);
}

fn groups(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--rm", "-u", "app", &image, "id", "-G"])
        .shows("1000")
        .shows("2000");
    t.run(&["run", "--rm", "-u", "app:app", &image, "id", "-G"])
        .prints("1000\n");
}

fn entrypoint(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--rm", "--entrypoint", "echo", &image, "a", "b"])
        .prints("a b\n");
    t.run(&[
        "run",
        "--rm",
        "--entrypoint",
        r#"["echo","one two"]"#,
        &image,
        "three",
    ])
    .prints("one two three\n");
    t.run(&["run", "--rm", "--entrypoint", "", &image, "echo", "bare"])
        .prints("bare\n");
}

fn host_name(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--rm", "--hostname", "box", &image, "hostname"])
        .prints("box\n");
    let name = t.ok(&[
        "run",
        "--rm",
        "-h",
        "box.lab.test",
        &image,
        "cat",
        "/etc/hostname",
    ]);
    assert_eq!(name.trim(), "box.lab.test");
    let id = t.ok(&["run", "-d", &image, "hostname"]);
    t.ok(&["wait", &id]);
    t.run(&["logs", &id]).prints(&format!("{}\n", &id[..12]));
}

fn image_configuration(t: &mut Rcon) {
    let image = t.pull("webapp");
    let root = ["run", "--rm", "-u", "root"];
    let run = |args: &[&str]| t.run(&[&root, args].concat());
    run(&[&image]).prints("entry one two three\n");
    run(&[&image, "mine"]).prints("entry mine\n");
    run(&[
        "--entrypoint",
        "sh",
        &image,
        "-c",
        "echo $COLOUR/$SPACED; pwd",
    ])
    .prints("blue/one two\n/srv/app\n");
    run(&[
        "-e",
        "COLOUR=red",
        "--entrypoint",
        "sh",
        &image,
        "-c",
        "echo $COLOUR",
    ])
    .prints("red\n");
    // The declared volume is a place of its own, writable, gone with the container.
    run(&[
        "--read-only",
        "--entrypoint",
        "sh",
        &image,
        "-c",
        "touch /data/x && ls /data",
    ])
    .prints("x\n");
    let id = t.ok(&["create", "-u", "root", &image]);
    assert_eq!(
        t.inspect(&id, "{{.Config.Labels.maker}} {{.Config.StopSignal}}"),
        "lab 2"
    );
    if t.mode == Mode::ManyIds {
        t.run(&["run", "--rm", "--entrypoint", "id", &image, "-un"])
            .prints("app\n");
        // A working folder that the image names and does not have is made, for the image's user.
        t.run(&[
            "run",
            "--rm",
            "--entrypoint",
            "sh",
            &image,
            "-c",
            "touch x && pwd",
        ])
        .prints("/srv/app\n");
    }
}

fn image_of_buildah(t: &mut Rcon) {
    if let Err(reason) = crate::lab::lab().images("built") {
        return crate::lab::skip(&reason);
    }
    let image = t.pull("built");
    let user = "1000:1000";
    // /etc/built by its command, COPY and the folder; no /etc/group in this image.
    t.run(&["run", "--rm", "-u", user, &image])
        .prints("built\n");
    t.run(&["run", "--rm", "-u", user, &image, "banner.txt"])
        .shows("___");
    t.run(&[
        "run",
        "--rm",
        "-u",
        user,
        "--entrypoint",
        "id",
        &image,
        "-u",
    ])
    .prints(&format!("{}\n", &user[..user.find(':').unwrap_or(1)]));
}

fn hosts_file(t: &mut Rcon) {
    let image = t.pull("busybox");
    let out = t.run(&[
        "run",
        "--rm",
        "-h",
        "box",
        "--add-host",
        "db:10.1.2.3",
        "--add-host",
        "v6:fd00::9",
        &image,
        "cat",
        "/etc/hosts",
    ]);
    let has = |address: &str, name: &str| {
        out.ok().lines().any(|l| {
            let words: Vec<&str> = l.split_whitespace().collect();
            words.first() == Some(&address) && words[1..].contains(&name)
        })
    };
    assert!(
        has("127.0.0.1", "localhost") && has("::1", "localhost"),
        "{}",
        out.story()
    );
    assert!(
        has("10.1.2.3", "db") && has("fd00::9", "v6"),
        "{}",
        out.story()
    );
    assert!(has("10.0.2.100", "box"), "{}", out.story());
    for name in ["host.containers.internal", "host.docker.internal"] {
        assert!(out.stdout.contains(name), "no {name}\n{}", out.story());
    }
    t.run(&["run", "--rm", "--add-host", "nocolon", &image, "true"])
        .refused(125)
        .says("nocolon");
    t.run(&["run", "--rm", "--add-host", "x:notanip", &image, "true"])
        .refused(125)
        .says("notanip");
}

fn resolver_file(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--rm", &image, "cat", "/etc/resolv.conf"])
        .shows("nameserver 10.0.2.3\n");
    let out = t.run(&[
        "run",
        "--rm",
        "--dns",
        "192.0.2.7",
        "--dns",
        "192.0.2.8",
        &image,
        "cat",
        "/etc/resolv.conf",
    ]);
    let servers: Vec<&str> = out
        .ok()
        .lines()
        .filter(|l| l.starts_with("nameserver"))
        .collect();
    assert_eq!(
        servers,
        ["nameserver 192.0.2.7", "nameserver 192.0.2.8"],
        "{}",
        out.story()
    );
    t.run(&["run", "--rm", "--dns", "nonsense", &image, "true"])
        .refused(125)
        .says("nonsense");
}

fn limits(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.sh(
        &["--ulimit", "nofile=64:128"],
        &image,
        "ulimit -Sn; ulimit -Hn",
    )
    .prints("64\n128\n");
    t.sh(&["--ulimit", "core=0"], &image, "ulimit -c")
        .prints("0\n");
    t.run(&["run", "--rm", "--ulimit", "nosuch=1", &image, "true"])
        .refused(125)
        .says("nosuch");
    t.sh(
        &["--shm-size", "1m"],
        &image,
        "df -k /dev/shm | tail -n1 | awk '{print $2}'",
    )
    .prints("1024\n");
    t.sh(&[], &image, "df -k /dev/shm | tail -n1 | awk '{print $2}'")
        .prints("65536\n");
}

fn labels(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.ok(&[
        "create", "--label", "a=1", "-l", "b.c=x y", "--label", "bare", &image, "true",
    ]);
    let format = r#"{{index .Config.Labels "a"}}|{{index .Config.Labels "b.c"}}|{{index .Config.Labels "bare"}}|"#;
    assert_eq!(t.inspect(&id, format), "1|x y||");
}

fn stop_signal(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script =
        "trap 'exit 11' USR1; trap 'exit 12' TERM; echo ready; while :; do sleep 0.05; done";
    let id = t.ok(&[
        "run",
        "-d",
        "--stop-signal",
        "SIGUSR1",
        &image,
        "sh",
        "-c",
        script,
    ]);
    crate::lab::eventually("the traps are set", 20, || {
        t.run(&["logs", &id]).stdout.contains("ready").then_some(())
    });
    t.run(&["stop", &id]).prints(&format!("{id}\n")).quiet();
    t.run(&["wait", &id]).prints("11\n");
    t.run(&["run", "--rm", "--stop-signal", "NOSUCH", &image, "true"])
        .refused(125)
        .says("NOSUCH");
}

fn help_and_version(t: &mut Rcon) {
    t.run(&["--help"]).code(0).shows("run").quiet();
    t.run(&["run", "--help"]).code(0).shows("--publish").quiet();
    t.run(&["--version"]).code(0).shows("rcon version ").quiet();
    t.run(&["version"]).code(0).shows("Version:").quiet();
    t.run(&["version", "--format", "{{.Client.Version}}"])
        .code(0)
        .quiet();
    let info = t.ok(&["info", "--format", "json"]);
    let info: serde_json::Value = serde_json::from_str(&info).expect("info in JSON");
    assert_eq!(info["host"]["security"]["rootless"], true, "{info:#}");
    t.run(&["info"]).code(0).quiet();
    t.run(&["unshare", "id", "-u"]).prints("0\n");
    t.run(&["unshare", "sh", "-c", "exit 9"]).code(9);
}
