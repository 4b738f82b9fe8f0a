//! What is put around a program when it is asked for: devices, users, systemd, time zones, execution domains.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon, lab, skip};

scenarios!(
    devices,
    accounts,
    groups_of_the_caller,
    for_systemd,
    first_process_of_ones_own,
    time_zones,
    variables_and_files,
    victims_and_domains,
);

fn devices(t: &mut Rcon) {
    let image = t.pull("busybox");
    let sh = |flags: &[&str], script: &str| {
        t.run(&[&["run", "--rm"], flags, &[&image, "sh", "-c", script]].concat())
    };
    let number = "stat -c '%F %t:%T' /dev/empty";
    sh(&["--device", "/dev/zero:/dev/empty"], number).prints("character special file 1:5\n");
    sh(
        &["--device", "/dev/null:/deep/er/null"],
        "echo x > /deep/er/null && stat -c %F /deep/er/null",
    )
    .prints("character special file\n");
    // Nothing comes along with it.
    sh(
        &["--device", "/dev/zero:/dev/empty"],
        "test ! -e /dev/sda -a ! -e /dev/kmsg",
    )
    .code(0);
    for (device, message) in [
        ("/nope", "stat /nope: no such file or directory"),
        ("/etc/passwd", "/etc/passwd is not a device"),
        ("/dev/null:x", "invalid device mode: x"),
        ("/dev/null:r", "access r to /dev/null cannot be enforced"),
        (
            "nvidia.com/gpu=all",
            "rcon does not know devices of the Container Device Interface",
        ),
    ] {
        t.run(&["run", "--rm", "--device", device, &image, "true"])
            .refused(125)
            .says(message);
    }
    t.run(&[
        "run",
        "--rm",
        "--device-cgroup-rule",
        "c 1:3 rwm",
        &image,
        "true",
    ])
    .refused(125)
    .says("device cgroup rules are not supported in rootless mode or in a user namespace");
    t.ok(&[
        "create",
        "--name",
        "c",
        "--device",
        "/dev/zero:/dev/empty:rw",
        &image,
        "true",
    ]);
    let shown = "{{range .HostConfig.Devices}}{{.PathOnHost}} {{.PathInContainer}} {{.CgroupPermissions}}{{end}}";
    assert_eq!(t.inspect("c", shown), "/dev/zero /dev/empty rw");
}

fn accounts(t: &mut Rcon) {
    let image = t.pull("busybox");
    let sh = |flags: &[&str], script: &str| {
        t.run(&[&["run", "--rm"], flags, &[&image, "sh", "-c", script]].concat())
    };
    let lines = "grep -E ':(1234|777):' /etc/passwd /etc/group; true";
    sh(&["-u", "1234:777", "-w", "/tmp"], lines).prints(
        "/etc/passwd:1234:*:1234:777:container user:/tmp:/bin/sh\n/etc/group:777:x:777:1234\n",
    );
    sh(
        &["-u", "1234", "-w", "/tmp"],
        "id -un; echo $HOME; tail -n 2 /etc/passwd | head -n 1",
    )
    .prints("1234\n/tmp\nnobody:x:65534:65534:nobody:/home:/bin/false\n");
    sh(&["-u", "1234:777", "--passwd=false"], lines).prints("");
    // Who is there already needs none.
    sh(
        &["-u", "1000"],
        "grep -c . /etc/passwd; grep passwd /proc/mounts; true",
    )
    .prints("5\n");
    sh(
        &[
            "-u",
            "1234",
            "--passwd-entry",
            "me:*:$UID:$GID:$NAME:$HOME:/bin/x",
        ],
        "tail -n 1 /etc/passwd",
    )
    .prints("me:*:1234:0:container user:/:/bin/x\n");
    sh(
        &["-u", "0:777", "--group-entry", "we:x:$GID:"],
        "tail -n 1 /etc/group",
    )
    .prints("we:x:777:\n");
    // The files of the image stay what they are.
    t.ok(&["run", "--name", "c", "-u", "1234", &image, "true"]);
    let changes = t.ok(&["diff", "c"]);
    assert!(!changes.contains("passwd"), "{changes}");
    // A name is only known where it stands.
    sh(&["-u", "who"], "true")
        .code(126)
        .says("unable to find user who: no matching entries in passwd file");
    let name = &t.user.name;
    sh(&["--hostuser", name], &format!("grep ^{name}: /etc/passwd")).prints(&format!(
        "{name}:*:{}:{}::/:/bin/sh\n",
        t.user.uid, t.user.gid
    ));
    sh(&["--hostuser", "nobody-at-all"], "true")
        .refused(125)
        .says("unknown user nobody-at-all");
    assert_eq!(t.inspect("c", "{{.Config.Passwd}}"), "true");
}

fn groups_of_the_caller(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&[
        "run",
        "--rm",
        "--group-add",
        "keep-groups",
        "--group-add",
        "5",
        &image,
        "true",
    ])
    .refused(125)
    .says("the '--group-add keep-groups' option is not allowed with any other --group-add options");
    if !lab().root {
        return skip("only root can give its processes groups");
    }
    // A folder that only the further group may enter.
    let folder = t.dir.join("shared");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("note"), "for the group\n").unwrap();
    std::os::unix::fs::chown(&folder, Some(0), Some(5432)).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o750)).unwrap();
    let volume = format!("{}:/shared", folder.display());
    let run = |flags: &[&str]| {
        let words = [
            &["run", "--rm", "-v", &volume],
            flags,
            &[&image, "cat", "/shared/note"],
        ]
        .concat();
        let plain = t.command(&words);
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            &t.user.uid.to_string(),
            "--regid",
            &t.user.gid.to_string(),
        ]);
        command.args([
            "--groups",
            &format!("{},5432", t.user.gid),
            "--inh-caps=-all",
            "--",
        ]);
        command.arg(plain.get_program()).args(plain.get_args());
        command.env_clear();
        command.envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?))));
        command.current_dir(t.home("")).process_group(0);
        let out = command.output().unwrap();
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).into_owned(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };
    let (code, stdout, stderr) = run(&["--group-add", "keep-groups"]);
    assert_eq!(
        (code, stdout.as_str()),
        (Some(0), "for the group\n"),
        "{stderr}"
    );
    if t.mode == Mode::ManyIds {
        // With one id nobody can give a group up.
        let (code, _, stderr) = run(&[]);
        assert!(
            code == Some(1) && stderr.contains("ermission denied"),
            "{code:?} {stderr}"
        );
    }
}

fn for_systemd(t: &mut Rcon) {
    let image = t.pull("busybox");
    let show = "for p in /run /run/lock /tmp /var/log/journal; do grep -c \" $p tmpfs rw\" /proc/mounts; done; \
        test -n \"$container_uuid\" && echo uuid; test -e /run/.containerenv && echo env";
    let run =
        |flags: &[&str]| t.run(&[&["run", "--rm"], flags, &[&image, "sh", "-c", show]].concat());
    run(&["--systemd=always"]).prints("1\n1\n1\n1\nuuid\nenv\n");
    run(&["--systemd", "always", "--shm-size-systemd", "1m"]).prints("1\n1\n1\n1\nuuid\nenv\n");
    run(&[]).prints("0\n0\n0\n0\nenv\n");
    run(&["--systemd=foo"])
        .refused(125)
        .says("--systemd values must be one of \"true, false, always\"");
    let id = t.ok(&["create", "--name", "c", &image, "/sbin/init"]);
    let shown = "{{.Config.SystemdMode}} {{.Config.StopSignal}}";
    assert_eq!(t.inspect("c", shown), "true 37");
    assert!(
        t.inspect("c", "{{.Config.Env}}")
            .contains(&format!("container_uuid={}-", &id[..8]))
    );
    t.ok(&[
        "create",
        "--name",
        "d",
        "--systemd=false",
        &image,
        "/sbin/init",
    ]);
    assert_eq!(t.inspect("d", shown), "false 15");
    t.ok(&[
        "create",
        "--name",
        "e",
        "--stop-signal",
        "HUP",
        &image,
        "/usr/lib/systemd/systemd",
    ]);
    assert_eq!(t.inspect("e", shown), "true 1");
    // It is asked to end as systemd wants to be asked.
    let script = "trap 'echo asked; exit 7' 37; trap 'echo wrong; exit 8' TERM; echo ready; while :; do sleep 0.1; done";
    t.ok(&[
        "run",
        "-d",
        "--name",
        "f",
        "--systemd=always",
        &image,
        "sh",
        "-c",
        script,
    ]);
    crate::lab::eventually("it to be ready", 20, || {
        t.ok(&["logs", "f"]).contains("ready").then_some(())
    });
    t.ok(&["stop", "-t", "60", "f"]);
    assert_eq!(t.inspect("f", "{{.State.ExitCode}}"), "7");
}

fn first_process_of_ones_own(t: &mut Rcon) {
    let image = t.pull("busybox");
    let init = t.write(
        "own-init",
        "#!/bin/sh\necho \"init of its own: $*\"\nshift\nexec \"$@\"\n",
    );
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
    t.run(&[
        "run",
        "--rm",
        "--init",
        "--init-path",
        &init,
        &image,
        "cat",
        "/proc/1/comm",
    ])
    .prints("init of its own: -- cat /proc/1/comm\ncat\n");
    t.run(&[
        "run",
        "--rm",
        "--init",
        "--init-path",
        "/nope",
        &image,
        "true",
    ])
    .refused(125)
    .says("container-init binary not found on the host: stat /nope: no such file or directory");
}

fn time_zones(t: &mut Rcon) {
    let image = t.pull("busybox");
    let hosts = fs::read("/usr/share/zoneinfo/Asia/Tokyo");
    t.run(&["run", "--rm", "--tz", "Foo/Bar", &image, "true"])
        .refused(125)
        .says("stat /usr/share/zoneinfo/Foo/Bar: no such file or directory");
    t.run(&["run", "--rm", "--tz", "local", &image, "true"])
        .code(0);
    if hosts.is_err() {
        return skip("tzdata is not installed");
    }
    t.sh(
        &["--tz", "Asia/Tokyo"],
        &image,
        "tail -n 1 /etc/localtime; grep -c localtime /proc/mounts",
    )
    .prints("JST-9\n1\n");
    t.ok(&[
        "create",
        "--name",
        "c",
        "--tz",
        "Asia/Tokyo",
        &image,
        "true",
    ]);
    assert_eq!(t.inspect("c", "{{.Config.Timezone}}"), "Asia/Tokyo");
}

fn variables_and_files(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.sh(
        &[
            "--env-merge",
            "PATH=/own:${PATH}",
            "--env-merge",
            "B=${A:-none}",
        ],
        &image,
        "echo ${PATH%%:/*} ${PATH##*:} $B",
    )
    .prints("/own /bin none\n");
    t.run(&["run", "--rm", "--env-merge", "PATH", &image, "true"])
        .refused(125)
        .says("--env-merge");
    t.sh(
        &["--no-hostname"],
        &image,
        "test -s /etc/hostname || hostname | wc -c",
    )
    .prints("13\n");
    t.run(&["run", "--rm", "--chrootdirs", "/jail,/other", &image, "sh", "-c", "cmp /etc/resolv.conf /jail/etc/resolv.conf && cmp /etc/hosts /other/etc/hosts && echo same"])
        .prints("same\n");
    t.run(&["run", "--rm", "--chrootdirs", "jail", &image, "true"])
        .refused(125)
        .says("must be an absolute path");
}

fn victims_and_domains(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&[
        "run",
        "--rm",
        "--oom-score-adj",
        "567",
        &image,
        "cat",
        "/proc/self/oom_score_adj",
    ])
    .prints("567\n");
    // Only root can ask to be spared.
    t.run(&["run", "--rm", "--oom-score-adj=-1000", &image, "true"])
        .code(0);
    t.run(&["run", "--rm", "--oom-score-adj", "2000", &image, "true"])
        .refused(125)
        .says("between -1000 and 1000");
    t.ok(&[
        "run",
        "--name",
        "c",
        "-d",
        "--oom-score-adj",
        "5",
        &image,
        "sleep",
        "1000",
    ]);
    assert_eq!(t.inspect("c", "{{.HostConfig.OomScoreAdj}}"), "5");
    t.run(&["exec", "c", "cat", "/proc/self/oom_score_adj"])
        .prints("5\n");
    let machine =
        |flags: &[&str]| t.ok(&[&["run", "--rm"], flags, &[&image, "uname", "-m"]].concat());
    let own = rustix::system::uname()
        .machine()
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(machine(&["--personality", "LINUX"]), own);
    let narrow = if cfg!(target_arch = "x86_64") {
        "i686"
    } else {
        "armv8l"
    };
    assert_eq!(machine(&["--personality", "linux32"]), narrow);
    t.run(&["run", "--rm", "--personality", "BSD", &image, "true"])
        .refused(125)
        .says("unknown personality");
}
