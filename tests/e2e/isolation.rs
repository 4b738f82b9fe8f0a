//! What a container must not see and must not do.

use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon};

scenarios!(
    namespaces,
    descriptors,
    capabilities,
    system_calls,
    masked_paths,
    security_options,
    kernel_settings,
    no_way_to_the_host,
    no_new_privileges,
    privileged,
    folder_through_a_descriptor,
    own_program_is_safe,
    terminal_is_its_own,
);

fn namespaces(t: &mut Rcon) {
    let image = t.pull("busybox");
    let kinds = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
    let inside = t
        .sh(
            &[],
            &image,
            "for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done",
        )
        .ok()
        .to_owned();
    for (kind, inside) in kinds.iter().zip(inside.lines()) {
        let outside = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(
            outside.to_str(),
            Some(inside),
            "the {kind} namespace is the host's"
        );
    }
    assert_eq!(inside.lines().count(), kinds.len(), "{inside}");
    t.sh(&[], &image, "ps -o pid,comm | grep -v -E 'PID|ps|grep'")
        .shows("1 sh");
    t.run(&["run", "--rm", &image, "cat", "/proc/self/cgroup"])
        .code(0);
}

fn descriptors(t: &mut Rcon) {
    let image = t.pull("busybox");
    // ls itself has one open, the folder.
    t.sh(
        &[],
        &image,
        "for fd in /proc/self/fd/*; do test -e $fd && echo ${fd##*/}; done; true",
    )
    .prints("0\n1\n2\n");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    t.run(&[
        "exec",
        "c",
        "sh",
        "-c",
        "for fd in /proc/self/fd/*; do test -e $fd && echo ${fd##*/}; done; true",
    ])
    .prints("0\n1\n2\n");
    t.run(&[
        "exec",
        "c",
        "sh",
        "-c",
        "for fd in /proc/1/fd/*; do test -e $fd && echo ${fd##*/}; done; true",
    ])
    .prints("0\n1\n2\n");
}

fn capabilities(t: &mut Rcon) {
    let image = t.pull("busybox");
    let set = |flags: &[&str], field: &str| {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        let script = format!("grep {field} /proc/self/status | cut -f2");
        args.extend([image.as_str(), "sh", "-c", &script]);
        u64::from_str_radix(&t.ok(&args), 16).unwrap()
    };
    // chown dac_override fowner fsetid kill net_bind_service setfcap setgid setpcap setuid sys_chroot; older
    // podmans add net_raw, mknod and audit_write.
    let default = set(&[], "CapEff");
    assert!([0x8004_05fb, 0xa804_25fb].contains(&default), "{default:x}");
    assert_eq!(
        (
            set(&[], "CapPrm"),
            set(&[], "CapBnd"),
            set(&[], "CapInh"),
            set(&[], "CapAmb")
        ),
        (default, default, 0, 0)
    );
    assert_eq!(set(&["--cap-drop", "all"], "CapEff"), 0);
    assert_eq!(
        set(
            &["--cap-drop=ALL", "--cap-add=net_admin,CAP_CHOWN"],
            "CapEff"
        ),
        1 << 12 | 1
    );
    assert_eq!(
        set(&["--cap-drop", "setuid"], "CapBnd"),
        default & !(1 << 7)
    );
    assert_eq!(
        set(&["--cap-add", "SYS_ADMIN"], "CapEff"),
        default | 1 << 21
    );
}

fn system_calls(t: &mut Rcon) {
    let image = t.pull("busybox");
    let sh = |script: &str| t.run(&["run", "--rm", &image, "sh", "-c", script]);
    sh("grep Seccomp: /proc/self/status").shows("2");
    sh("mount -t tmpfs x /tmp").code(1).says("mount");
    assert_ne!(sh("unshare -m true").code, 0);
    sh("swapon /etc/passwd; test $? != 0").code(0);
    sh("date -s 2000-01-01").says("not permitted");
    let out = t.run(&[
        "run",
        "--rm",
        "--security-opt",
        "seccomp=unconfined",
        &image,
        "grep",
        "Seccomp:",
        "/proc/self/status",
    ]);
    // With one id another filter hands over the calls about owners.
    out.shows(if t.mode == Mode::OneId { "2" } else { "0" });
}

fn masked_paths(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug; do \
            test ! -e $f || test \"$(head -c 1 $f 2>/dev/null | wc -c)\" = 0 || echo open $f; done; \
        for d in /proc/acpi /proc/scsi /sys/firmware /sys/dev/block; do \
            test ! -d $d || test -z \"$(ls $d)\" || echo filled $d; done; \
        for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity; do \
            test ! -e $f || { (echo x > $f) 2>/dev/null && echo written $f; }; done; \
        (mkdir /sys/fs/x) 2>/dev/null && echo made; touch /sys/x 2>/dev/null && echo touched; echo done";
    t.run(&["run", "--rm", &image, "sh", "-c", script])
        .prints("done\n");
}

/// Each word of `--security-opt`, by what it does.
fn security_options(t: &mut Rcon) {
    let image = t.pull("busybox");
    let run = |options: &[&str], script: &str| {
        let options = options.iter().flat_map(|word| ["--security-opt", word]);
        let words: Vec<&str> = ["run", "--rm"].into_iter().chain(options).collect();
        t.run(&[&words[..], &[&image, "sh", "-c", script]].concat())
    };
    // Further paths are hidden: folders are empty, files too; one that is not there is nothing to hide.
    run(
        &["mask=/etc/group:/etc/network", "mask=/no/such/path"],
        "ls /etc/network; wc -c </etc/group; wc -c </etc/passwd | grep -qv '^0' && echo seen",
    )
    .prints("0\nseen\n");
    // The usual ones are shown, or may be written, by name, by pattern and all.
    let protected = "/proc/sys|/proc/irq|/proc/keys|/proc/kcore|/sys/firmware";
    let covered = format!("grep -cE ' ({protected}) ' /proc/self/mountinfo");
    let count = |options: &[&str]| run(options, &covered).stdout.trim().parse::<u32>().unwrap();
    let usual = count(&[]);
    assert!(usual > 1);
    assert_eq!(count(&["unmask=/proc/keys"]), usual - 1);
    assert!(count(&["unmask=/proc/*"]) < usual - 1);
    assert_eq!(count(&["unmask=ALL"]), 0);
    // What /proc is mounted with instead.
    let options = "grep ' /proc ' /proc/self/mountinfo | head -n 1";
    run(&["proc-opts=nosuid,hidepid=2"], options)
        .shows("hidepid=invisible")
        .shows("nosuid");
    assert!(!run(&["proc-opts=nosuid"], options).ok().contains("noexec"));
    run(&["proc-opts=nonsense=1"], "true").says("cannot mount proc on /proc");
    // A profile for calls.
    let filter = t.write(
        "filter.json",
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#,
    );
    run(&[&format!("seccomp={filter}")], "mkdir /tmp/d")
        .code(1)
        .says("No space left");
    // Ordinary users put on no profiles of AppArmor; none is what there is.
    run(&["apparmor=unconfined", "label=disable"], "echo ran").prints("ran\n");
    run(&["apparmor=some"], "true")
        .refused(125)
        .says("a profile cannot be applied without root");
    for (option, number) in [("nonsense", 1), ("no=sense", 2), ("no-new-privileges=x", 2)] {
        run(&[option], "true")
            .refused(125)
            .says(&format!("invalid --security-opt {number}: \"{option}\""));
    }
    t.has_containers(0);
}

fn kernel_settings(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&[
        "run",
        "--rm",
        &image,
        "cat",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
    ])
    .prints("0\n");
    let out = t.run(&[
        "run",
        "--rm",
        &image,
        "cat",
        "/proc/sys/net/ipv4/ping_group_range",
    ]);
    assert!(out.ok().starts_with("0\t"), "{}", out.story());
}

fn no_way_to_the_host(t: &mut Rcon) {
    let image = t.pull("busybox");
    let canary = "canary-of-the-host-7391";
    let path = t.write(canary, canary);
    t.run(&["run", "--rm", &image, "cat", &path]).code(1);
    let script = format!(
        "find / -name '{canary}*' 2>/dev/null; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c rcon-e2e"
    );
    t.run(&["run", "--rm", &image, "sh", "-c", &script])
        .code(1)
        .shows("0\n");
    // The mount table tells where the layers are, and nothing more of the host.
    let mounts = t.ok(&["run", "--rm", &image, "cat", "/proc/self/mounts"]);
    for line in mounts.lines() {
        let target = line.split(' ').nth(1).unwrap();
        let own = [
            "/",
            "/proc",
            "/sys",
            "/dev",
            "/etc/hosts",
            "/etc/hostname",
            "/etc/resolv.conf",
            "/run/.containerenv",
        ];
        let below = ["/proc/", "/sys/", "/dev/", "/run/"];
        assert!(
            own.contains(&target) || below.iter().any(|b| target.starts_with(b)),
            "a strange mount: {line}"
        );
    }
    t.sh(&[], &image, "kill -0 2 2>/dev/null || echo alone")
        .prints("alone\n");
}

fn no_new_privileges(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&[
        "run",
        "--rm",
        "--security-opt",
        "no-new-privileges",
        &image,
        "grep",
        "NoNewPrivs",
        "/proc/self/status",
    ])
    .prints("NoNewPrivs:\t1\n");
    t.run(&[
        "run",
        "--rm",
        &image,
        "grep",
        "NoNewPrivs",
        "/proc/self/status",
    ])
    .prints("NoNewPrivs:\t0\n");
}

fn privileged(t: &mut Rcon) {
    let image = t.pull("busybox");
    // More rights in its own world, none outside.
    // With one id there is the filter that hands over the calls about owners, and no other.
    let filters = u8::from(t.mode == Mode::OneId);
    let script = format!(
        "mount -t tmpfs x /tmp && umount /tmp && grep -q 'Seccomp_filters:.{filters}' /proc/self/status && ip link set lo down && echo may"
    );
    t.run(&["run", "--rm", "--privileged", &image, "sh", "-c", &script])
        .prints("may\n");
    t.sh(
        &["--privileged"],
        &image,
        "echo x > /proc/sys/kernel/core_pattern",
    )
    .code(1);
    // With one id it can be made, and is no device.
    t.sh(
        &["--privileged"],
        &image,
        "mknod /n b 8 0 && head -c1 /n | grep .",
    )
    .code(1);
}

fn folder_through_a_descriptor(t: &mut Rcon) {
    // As CVE-2024-21626: a working folder that is really a descriptor of the launcher.
    let image = t.pull("busybox");
    for n in 3..12 {
        let dir = format!("/proc/self/fd/{n}");
        let out = t.sh(&["-w", &dir], &image, "pwd -P; ls ../../../../../../home");
        assert!(out.code == 126, "{}", out.story());
    }
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    for n in 3..12 {
        let out = t.run(&["exec", "-w", &format!("/proc/self/fd/{n}"), "c", "ls"]);
        assert_ne!(out.code, 0, "{}", out.story());
    }
}

fn own_program_is_safe(t: &mut Rcon) {
    // As CVE-2019-5736: the program that enters the container must not be writable from there.
    let image = t.pull("busybox");
    let before = std::fs::read(&t.program).unwrap();
    let script = "cp /bin/busybox /tmp/b; for p in /proc/[0-9]*; do (echo overwritten > $p/exe) 2>/dev/null && echo $p; done; true";
    t.run(&["run", "--rm", &image, "sh", "-c", script]).code(0);
    t.ok(&["run", "-d", "--name", "c", &image, "sh", "-c", "while :; do for p in /proc/[0-9]*; do test $p = /proc/1 || (echo overwritten > $p/exe) 2>/dev/null; done; done"]);
    for _ in 0..10 {
        t.run(&["exec", "c", "true"]);
    }
    assert!(
        std::fs::read(&t.program).unwrap() == before,
        "the program was overwritten"
    );
}

fn terminal_is_its_own(t: &mut Rcon) {
    let image = t.pull("busybox");
    // The terminal of the container is one of its own devpts, not the caller's.
    let mut terminal = t.terminal(&["run", "--rm", "-it", &image, "sh", "-c", "tty; ls /dev/pts"]);
    assert_eq!(terminal.wait(), 0, "{}", terminal.story());
    terminal.expect("/dev/pts/0");
    terminal.expect("ptmx");
}
