//! rcon inside of others: of itself, of podman, of sandboxes as Docker makes them, and on kernels that are older
//! than some of its calls. Always the same static program.

use crate::lab::machine::{Machine, WORK, WORKED, archive, can_change, deny};
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Output, Rcon, installed, skip};

scenarios!(
    in_itself,
    in_podman,
    in_docker_with_its_filter,
    in_docker_without_its_filter,
    on_older_kernels,
    under_security_policies,
);

/// The image as the archive has it.
const IMAGE: &str = "lab.test/busybox:archived";

/// What is run in a container around: a container of rcon in each of these networks.
fn inner(networks: &[&str]) -> String {
    let mut script =
        String::from("export HOME=/root; rcon --root /var/rcon load -q -i /image.tar >/dev/null\n");
    for network in networks {
        script += &format!(
            "rcon --root /var/rcon run --rm --network {network} {IMAGE} sh -ec \"{}\"\n",
            WORK.replace('\'', "\\\"").replace('$', "\\$")
        );
    }
    script
}

/// Options that put the program and the image into a container.
fn carried(t: &Rcon) -> Vec<String> {
    let program = format!("{}:/usr/bin/rcon:ro", t.program.display());
    let image = format!("{}:/image.tar:ro", archive().display());
    ["-v".into(), program, "-v".into(), image].to_vec()
}

fn in_itself(t: &mut Rcon) {
    let image = t.pull("busybox");
    let carried = carried(t);
    let run = |options: &[&str], script: &str| -> Output {
        let mut words = vec!["run", "--rm", "--network", "none", "--tmpfs", "/var/rcon"];
        words.extend(options);
        words.extend(carried.iter().map(String::as_str));
        words.extend([image.as_str(), "sh", "-ec", script]);
        t.run(&words)
    };
    // As it comes, without any privilege: there is no tap.
    run(&[], &inner(&["none", "host"])).prints(&WORKED.repeat(2));
    run(&[], &inner(&["slirp4netns"]))
        .code(125)
        .says("/dev/net/tun")
        .says("--network host");
    // A name that was asked for is not kept silently from who asked.
    run(&[], &(inner(&[]) + "rcon --root /var/rcon run --rm --network none --hostname me lab.test/busybox:archived true"))
        .code(126)
        .says("cannot set the host name")
        .says("seccomp=unconfined");
    run(&[], "rcon doctor")
        .shows("host name")
        .shows("try: rcon run --security-opt seccomp=unconfined")
        .shows("try: rcon run --volume /dev/net/tun:/dev/net/tun");
    let tap = ["-v", "/dev/net/tun:/dev/net/tun"];
    run(&tap, &inner(&["slirp4netns"])).prints(WORKED);
    let script = inner(&["slirp4netns"]) + "mkdir /m; mount -t tmpfs none /m";
    run(&["--privileged"], &script).prints(WORKED);
}

fn in_podman(t: &mut Rcon) {
    if !can_change() {
        return;
    }
    if !installed("podman") {
        return skip("podman is not installed");
    }
    // As the user, and as root.
    let root = t.mode == Mode::OneId;
    let podman = "podman --root \"$HOME/podman\" --runroot \"$HOME/podman.run\" --tmpdir \"$HOME/podman.tmp\" \
                  --storage-driver vfs --events-backend none --cgroup-manager cgroupfs";
    let carried = carried(t).join(" ");
    // It asks for more files and processes than everybody may have, and Debian's crun for one kind of cgroups.
    let run = |options: &str, inner: &str| {
        let script = format!(
            "cd; {podman} load -q -i {} >/dev/null
            {podman} run --rm --network none --cgroups disabled --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 \
                --tmpfs /var/rcon {options} {carried} {IMAGE} sh -ec \"$0\"; code=$?
            {podman} rm -fa >/dev/null 2>&1; {podman} rmi -fa >/dev/null 2>&1; {podman} system migrate; exit $code",
            archive().display()
        );
        let change = "mount --make-rshared /
            grep -q '^cgroup2 /sys/fs/cgroup ' /proc/mounts || mount -t cgroup2 cgroup2 /sys/fs/cgroup";
        let machine = Machine {
            before: &["sh", "-c", &script, inner],
            root,
            ..Machine::with(change)
        };
        machine.run(t, &[])
    };
    run("", &inner(&["none", "host"]))
        .code(0)
        .prints(&WORKED.repeat(2));
    run("", "rcon doctor")
        .code(0)
        .shows("try: podman run --device /dev/net/tun")
        .shows("try: podman run --security-opt unmask=ALL");
    let open = "--security-opt seccomp=unconfined --security-opt unmask=ALL --device /dev/net/tun";
    let all = inner(&["none", "slirp4netns"]) + "rcon doctor";
    run(open, &all)
        .code(0)
        .shows(&WORKED.repeat(2))
        .shows("ok    proc")
        .shows("ok    network");
}

/// What Docker covers of /proc and /sys, and a /dev without anything special.
const COVERED: &str = "for f in /proc/kcore /proc/keys /proc/timer_list; do if [ -e $f ]; then mount --bind /dev/null $f; fi; done
    if [ -d /proc/scsi ]; then mount -t tmpfs -o ro none /proc/scsi; fi
    mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys
    mount -t tmpfs -o ro none /sys/firmware; mount -t tmpfs none /dev/net";

/// The capabilities that Docker gives.
const CAPABILITIES: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,\
    +net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";

/// What Docker's filter says to who lacks CAP_SYS_ADMIN.
fn dockers_filter() -> Vec<String> {
    let refused = [
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_mount_setattr,
        libc::SYS_keyctl,
    ];
    let mut rules: Vec<String> = refused
        .iter()
        .map(|call| format!("{call}:{}", libc::EPERM))
        .collect();
    rules.push(format!("{}:{}", libc::SYS_clone3, libc::ENOSYS));
    // The flags of new namespaces.
    rules.push(format!(
        "{}:{}:0:{}",
        libc::SYS_clone,
        libc::EPERM,
        0x7e02_0000
    ));
    rules
}

/// A container as Docker makes it: as its root, or as a user in it.
fn in_docker(t: &Rcon, filter: Option<&[String]>, args: &[&str]) -> Output {
    let filter = filter.map(deny).unwrap_or_default();
    let around: Vec<&str> = ["sh", "-ec", "eval \"$0\"; exec \"$@\"", COVERED]
        .into_iter()
        .chain(filter.iter().map(String::as_str))
        .chain(["setpriv", "--bounding-set", CAPABILITIES])
        .collect();
    let machine = Machine {
        around: &around,
        root: t.mode == Mode::OneId,
        ..Machine::with("")
    };
    machine.run(t, args)
}

fn in_docker_with_its_filter(t: &mut Rcon) {
    if !can_change() {
        return;
    }
    let image = archive();
    t.set_env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let filter = dockers_filter();
    let root = t.home("docker");
    let root = root.to_str().unwrap();
    let run = |args: &[&str]| in_docker(t, Some(&filter), &[&["--root", root], args].concat());
    for words in [
        &["load", "-q", "-i", image.to_str().unwrap()][..],
        &["run", "--rm", IMAGE, "true"],
        &["unshare", "true"],
    ] {
        run(words)
            .refused(125)
            .says("user namespaces are not to be had")
            .says("hint: a system call filter")
            .says("; in the pod: hostUsers: false")
            .says("seccompProfile: {type: Unconfined}");
    }
    run(&["doctor"])
        .code(1)
        .shows("NO    namespaces")
        .shows("try: in the pod: hostUsers: false")
        .shows("seccompProfile: {type: Unconfined}");
    run(&["ps"]).code(0);
    run(&["info"]).code(0).shows("seccompProfile");
}

fn in_docker_without_its_filter(t: &mut Rcon) {
    if !can_change() {
        return;
    }
    t.set_env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let image = archive();
    let root = t.home("docker");
    let root = root.to_str().unwrap();
    let run = |args: &[&str]| in_docker(t, None, &[&["--root", root], args].concat());
    run(&["load", "-q", "-i", image.to_str().unwrap()]).code(0);
    for network in ["none", "host"] {
        run(&[
            "run",
            "--rm",
            "--network",
            network,
            IMAGE,
            "sh",
            "-ec",
            WORK,
        ])
        .prints(WORKED);
    }
    run(&["run", "--rm", IMAGE, "true"])
        .refused(125)
        .says("hint: a device plugin that gives pods /dev/net/tun, or --network host; without it");
    run(&["doctor"])
        .code(0)
        .shows("less  proc")
        .shows("securityContext: {procMount: Unmasked}")
        .shows("try: a device plugin that gives pods /dev/net/tun");
    if t.mode == Mode::ManyIds {
        // Debian's newuidmap, which is root's without what root is outside.
        run(&["doctor"])
            .shows("less  ids")
            .shows("setcap cap_setuid");
    }
    run(&["rmi", "-fa"]).code(0);
}

fn on_older_kernels(t: &mut Rcon) {
    if !can_change() {
        return;
    }
    let image = t.pull("busybox");
    let run = |rules: &[String], args: &[&str]| {
        let filter = deny(rules);
        let around: Vec<&str> = filter.iter().map(String::as_str).collect();
        let machine = Machine {
            around: &around,
            ..Machine::with("")
        };
        machine.run(t, args)
    };
    let lacks = |call: libc::c_long| vec![format!("{call}:{}", libc::ENOSYS)];
    let work = [
        "run",
        "--rm",
        "--network",
        "none",
        &image,
        "sh",
        "-ec",
        WORK,
    ];
    // What there is something else for.
    let mut optional = Vec::new();
    for call in [
        libc::SYS_clone3,
        libc::SYS_close_range,
        libc::SYS_faccessat2,
        libc::SYS_copy_file_range,
        libc::SYS_pidfd_getfd,
        libc::SYS_io_uring_setup,
    ] {
        optional.extend(lacks(call));
    }
    run(&optional, &work).prints(WORKED);
    // What there is nothing else for is named.
    for (call, name) in [
        (libc::SYS_openat2, "openat2"),
        (libc::SYS_mount_setattr, "mount_setattr"),
        (libc::SYS_open_tree, "open_tree"),
        (libc::SYS_move_mount, "move_mount"),
        (libc::SYS_fsopen, "fsopen"),
    ] {
        let out = run(&lacks(call), &work);
        assert_ne!(out.code, 0, "{}", out.story());
        out.says(&format!("there is no {name}(2)"))
            .says("seccomp=unconfined");
        run(&lacks(call), &["doctor"])
            .code(1)
            .shows("NO    namespaces")
            .shows(name);
    }
}

/// As AppArmor and SELinux refuse user namespaces: all of them, or everything in them.
fn under_security_policies(t: &mut Rcon) {
    if !can_change() {
        return;
    }
    let image = t.pull("busybox");
    let user = 0x1000_0000;
    for errno in [libc::EPERM, libc::EACCES] {
        let namespaces = [
            format!("{}:{}", libc::SYS_clone3, libc::ENOSYS),
            format!("{}:{errno}:0:{user}", libc::SYS_clone),
            format!("{}:{errno}:0:{user}", libc::SYS_unshare),
        ];
        let powers = [format!("{}:{errno}", libc::SYS_mount)];
        for rules in [&namespaces[..], &powers] {
            let filter = deny(rules);
            let around: Vec<&str> = filter.iter().map(String::as_str).collect();
            let machine = Machine {
                around: &around,
                ..Machine::with("")
            };
            let out = machine.run(t, &["run", "--rm", "--network", "none", &image, "true"]);
            assert_ne!(out.code, 0, "{}", out.story());
            // Of a step that is refused it cannot be told who forbids it, when it is not the kernel's own way to.
            if errno == libc::EPERM || rules.len() > 1 {
                out.says("hint: ");
            }
        }
        let filter = deny(&namespaces);
        let around: Vec<&str> = filter.iter().map(String::as_str).collect();
        let machine = Machine {
            around: &around,
            ..Machine::with("")
        };
        machine
            .run(t, &["doctor"])
            .code(1)
            .shows("NO    namespaces")
            .shows("try: ");
    }
}
