//! Machines that lack something: each step of the ladder is taken away, and containers run nevertheless.
//!
//! Every command runs in a mount namespace of its own, in which root has changed what the scenario is about.

use crate::lab::machine::{Machine, WORK, WORKED, can_change};
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Output, Rcon, installed, lab, skip};

scenarios!(
    no_subordinate_ids,
    no_programs_to_map_ids,
    no_privileges_to_gain,
    no_tun,
    no_runtime_directory,
    covered_proc,
    covered_sys,
    on_tmpfs,
    without_attributes,
    fuse_overlayfs,
    no_namespaces,
    inside_bubblewrap,
    doctor_tells,
    doctor_knows_distributions,
);

/// Runs a command of rcon where `change`, a script of root's, has been at work.
fn run(t: &Rcon, change: &str, args: &[&str]) -> Output {
    under(t, change, &[], args)
}

/// The same, with a program in front of rcon.
fn under(t: &Rcon, change: &str, before: &[&str], args: &[&str]) -> Output {
    let machine = Machine {
        before,
        ..Machine::with(change)
    };
    machine.run(t, args)
}

fn ready(t: &Rcon) -> bool {
    if !can_change() {
        return false;
    }
    let image = t.pull("busybox");
    t.run(&["tag", &image, "busybox"]).code(0);
    true
}

/// What every rung must be able to do.
const WORKS: [&str; 8] = [
    "run",
    "--rm",
    "--network",
    "none",
    "busybox",
    "sh",
    "-ec",
    WORK,
];

/// Where there is one id for this scenario: the image must be unpacked for it.
fn with_one_id(t: &Rcon, change: &str) {
    let root = t.home("other");
    let root = root.to_str().unwrap();
    let archive = lab().cache.join("archive/docker.tar");
    let load = [
        "--root",
        root,
        "load",
        "-q",
        "-i",
        archive.to_str().unwrap(),
    ];
    run(t, change, &load).code(0);
    let mut words = vec!["--root", root];
    words.extend(WORKS);
    words[6] = "lab.test/busybox:archived";
    run(t, change, &words).prints(WORKED);
    let told = run(t, change, &["--root", root, "doctor"]);
    told.code(0).shows("one id").shows("try: ");
}

fn no_subordinate_ids(t: &mut Rcon) {
    if !can_change() {
        return;
    }
    let file = t.write("subids", "");
    let change = format!("mount --bind {file} /etc/subuid; mount --bind {file} /etc/subgid");
    with_one_id(t, &change);
    // A range that is the user's own id, and one that the kernel knows nothing of.
    t.write("subids", format!("{}:{}:10\n", t.user.name, t.user.uid - 2));
    with_one_id(t, &change);
    t.write("subids", format!("{}:4294967290:65536\n", t.user.name));
    with_one_id(t, &change);
    let told = run(t, &change, &["doctor"]);
    told.shows("usermod --add-subuids");
}

fn no_programs_to_map_ids(t: &mut Rcon) {
    if !can_change() || t.mode == Mode::OneId {
        return;
    }
    with_one_id(t, "mount --bind /dev/null /usr/bin/newuidmap");
    run(t, "mount --bind /dev/null /usr/bin/newuidmap", &["doctor"])
        .shows("newuidmap is not installed")
        .shows("uidmap");
    // There, but with no privilege.
    let copy = t.write("newuidmap", std::fs::read("/usr/bin/newuidmap").unwrap());
    let plain = format!("chmod 755 {copy}; mount --bind {copy} /usr/bin/newuidmap");
    with_one_id(t, &plain);
    run(t, &plain, &["doctor"])
        .shows("neither set-user-id root nor has file capabilities")
        .shows("try: as root: chown root /usr/bin/newuidmap /usr/bin/newgidmap && chmod u+s /usr");
    let no_suid = "mount --bind /usr/bin /usr/bin; mount -o remount,bind,nosuid /usr/bin";
    with_one_id(t, no_suid);
    run(t, no_suid, &["doctor"])
        .shows("nosuid")
        .shows("try: as root: mount -o remount,suid /usr/bin\n");
}

fn no_privileges_to_gain(t: &mut Rcon) {
    if !can_change() || t.mode == Mode::OneId {
        return;
    }
    let told = under(t, "", &["setpriv", "--no-new-privs"], &["doctor"]);
    told.code(0).shows("one id").shows("no_new_privs");
}

fn no_tun(t: &mut Rcon) {
    if !ready(t) {
        return;
    }
    let gone = "mount -t tmpfs none /dev/net";
    run(t, gone, &WORKS).prints(WORKED);
    run(
        t,
        gone,
        &[
            "run",
            "--rm",
            "--network",
            "host",
            "busybox",
            "echo",
            "here",
        ],
    )
    .prints("here\n");
    run(t, gone, &["run", "--rm", "busybox", "true"])
        .refused(125)
        .says("/dev/net/tun")
        .says("--network host");
    run(t, gone, &["doctor"]).code(0).shows("host or none");
    let closed = "mount -t tmpfs none /dev/net; mknod -m 600 /dev/net/tun c 10 200";
    run(t, closed, &["run", "--rm", "busybox", "true"])
        .refused(125)
        .says("chmod 0666 /dev/net/tun");
    run(t, closed, &["doctor"])
        .code(0)
        .shows("sudo chmod 0666 /dev/net/tun");
}

fn no_runtime_directory(t: &mut Rcon) {
    if !ready(t) {
        return;
    }
    t.set_env("XDG_RUNTIME_DIR", "");
    let gone =
        "mount -t tmpfs none /run/user 2>/dev/null || true; mount -t tmpfs -o mode=1777 none /tmp";
    run(t, gone, &WORKS).prints(WORKED);
    run(t, gone, &["doctor"]).code(0).shows("/tmp/rcon-");
    // Nor a home.
    t.set_env("HOME", "/nonexistent");
    run(t, gone, &["ps"]).refused(125).says("--root");
    let home = t.home("");
    t.set_env("HOME", home.to_str().unwrap());
    t.set_env(
        "XDG_RUNTIME_DIR",
        t.dir.join("run").to_str().unwrap().to_owned().as_str(),
    );
}

/// As Docker and Kubernetes have it.
fn covered_proc(t: &mut Rcon) {
    if !ready(t) {
        return;
    }
    let covered = "for f in /proc/kcore /proc/keys /proc/timer_list; do
          if [ -e $f ]; then mount --bind /dev/null $f; fi; done
        if [ -d /proc/scsi ]; then mount -t tmpfs -o ro none /proc/scsi; fi
        mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys";
    run(t, covered, &WORKS).prints(WORKED);
    run(t, covered, &["doctor"]).code(0).shows("the one around");
}

fn covered_sys(t: &mut Rcon) {
    if !ready(t) {
        return;
    }
    run(t, "mount -t tmpfs -o ro none /sys/firmware", &WORKS).prints(WORKED);
    run(
        t,
        "mount -o remount,bind,ro /sys/fs/cgroup 2>/dev/null || true",
        &WORKS,
    )
    .prints(WORKED);
}

fn on_tmpfs(t: &mut Rcon) {
    if !ready(t) {
        return;
    }
    let dir = t.mkdir("memory");
    let change = format!("mount -t tmpfs -o mode=777 none {dir}");
    let archive = lab().cache.join("archive/docker.tar");
    let script = format!(
        "\"$0\" --root {dir}/root load -q -i {} >/dev/null && exec \"$0\" --root {dir}/root run --rm --network none \
         lab.test/busybox:archived sh -ec 'touch x; chown 3 x; stat -c %u x'",
        archive.display()
    );
    under(t, &change, &["sh", "-c", &script], &[]).prints("3\n");
}

/// Where a bind mount keeps no attributes, owners of files cannot be noted on them.
fn without_attributes(t: &mut Rcon) {
    if !ready(t) {
        return;
    }
    let dir = t.mkdir("plain");
    let change = format!("mount -t ramfs none {dir}; chmod 777 {dir}");
    let volume = format!("{dir}:/data");
    let words = [
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        &volume,
        "busybox",
        "sh",
        "-ec",
        "touch /data/f; chown 3 /data/f; echo done",
    ];
    if t.mode == Mode::OneId {
        run(t, &change, &words).prints("done\n");
    }
    // Nor can there be an overlay, nor do files have a time of birth: all that is beside, by their inodes.
    let work = "touch /f; mkdir /d; ln -s f /l; chown 3:4 /f /d; chown -h 5:6 /l; su app -c 'touch /tmp/a'
        stat -c '%n %u %g' /f /d /l /tmp/a; tar cf /t.tar /f; mkdir /o; tar xpf /t.tar -C /o; stat -c %u /o/f
        n=0; while [ $n -lt 20 ]; do touch /x; chown 9 /x; rm /x; touch /y; stat -c %u /y; rm /y; n=$((n+1)); done | uniq";
    let look = "stat -c '%n %u %g' /f /d /l /tmp/a";
    let archive = lab().cache.join("archive/docker.tar");
    let script = format!(
        "r() {{ \"$0\" --root {dir}/root --storage-driver vfs \"$@\"; }}; set -e
        r load -q -i {} >/dev/null; r doctor | grep -q 'copies of the layers'
        r run --name c --network none lab.test/busybox:archived sh -ec \"$1\"
        r commit -q c kept >/dev/null; r run --rm --network none kept sh -ec \"$2\"",
        archive.display()
    );
    let owners = "/f 3 4\n/d 3 4\n/l 5 6\n/tmp/a 1000 1000\n";
    let out = under(t, &change, &["sh", "-c", &script], &[work, look]);
    match t.mode {
        Mode::OneId => out.code(0).shows(&format!("{owners}3\n0\n")),
        Mode::ManyIds => out.code(0).prints(&format!("{owners}3\n0\n{owners}")),
    };
}

/// By fuse-overlayfs, asked for, because a kernel that mounts overlays for root alone cannot be had here.
fn fuse_overlayfs(t: &mut Rcon) {
    if !can_change() {
        return;
    }
    if !installed("fuse-overlayfs") {
        return skip("fuse-overlayfs is not installed");
    }
    let dev = t.mkdir("dev");
    let change = format!(
        "mknod -m 666 {dev}/fuse c 10 229 2>/dev/null || true; mount --bind {dev}/fuse /dev/fuse"
    );
    t.write(
        ".config/containers/storage.conf",
        "[storage.options.overlay]\nmount_program = '/usr/bin/fuse-overlayfs'\n",
    );
    // That says where it is, should it be needed.
    run(t, &change, &["doctor"])
        .code(0)
        .shows("ok    root filesystem    overlay");
    let run = |t: &Rcon, change: &str, args: &[&str]| {
        let asked = [
            "--storage-opt",
            "overlay.mount_program=/usr/bin/fuse-overlayfs",
        ];
        run(t, change, &[&asked[..], args].concat())
    };
    let image = crate::lab::registry::plain().name("odd");
    run(t, &change, &["doctor"])
        .code(0)
        .shows("less  root filesystem    fuse-overlayfs");
    run(
        t,
        &change,
        &[
            "info",
            "--format",
            "{{.Store.GraphDriverName}} {{.Store.GraphOptions}}",
        ],
    )
    .shows("overlay ")
    .shows("/fuse-overlayfs");
    run(t, &change, &["pull", "-q", &image]).code(0);
    let sh = |args: &[&str], script: &str| {
        let words = [
            &["run", "--network", "none"][..],
            args,
            &[&image, "sh", "-ec", script],
        ];
        run(t, &change, &words.concat())
    };
    let script = "cd /odd; cat keep replaced dir/b; ls -d gone opaque/old 2>/dev/null || true; stat -c '%a %h' setuid
        touch x; chown 33 x; stat -c %u x; su app -s /bin/sh -c 'id -u' 2>/dev/null || id -u";
    sh(&["--rm"], script)
        .code(0)
        .shows("keep\na file now\nb\n4755 1\n33\n");
    sh(
        &["--name", "c"],
        "cd /odd; echo kept >mine; rm -r dir keep; mkdir dir; echo two >dir/two",
    )
    .code(0);
    run(t, &change, &["diff", "c"])
        .shows("A /odd/dir/two\n")
        .shows("D /odd/dir/b\n")
        .shows("D /odd/keep\n");
    let file = t.write("new", "from outside");
    run(t, &change, &["cp", &file, "c:/odd/new"]).code(0);
    run(t, &change, &["cp", "c:/odd/mine", "-"])
        .code(0)
        .shows("kept");
    let tar = run(t, &change, &["export", "c"]);
    assert!(tar.stdout.contains("from outside") && !tar.stdout.contains("odd/dir/b"));
    run(t, &change, &["commit", "-q", "c", "changes"]).code(0);
    run(t, &change, &["commit", "-q", "--squash", "c", "all"]).code(0);
    for name in ["changes", "all"] {
        let look = "cd /odd; cat mine new; ls dir; test ! -e keep; find / -xdev -name '.wh.*'";
        run(
            t,
            &change,
            &["run", "--rm", "--network", "none", name, "sh", "-ec", look],
        )
        .prints("kept\nfrom outsidetwo\n");
    }
    run(t, &change, &["start", "-a", "c"]).code(1);
    // Without it the container goes on with copies, and takes along what it had.
    t.run(&["--storage-driver", "vfs", "cp", "c:/odd/mine", "-"])
        .code(0)
        .shows("kept");
    t.run(&["--storage-driver", "vfs", "commit", "-q", "c", "later"])
        .code(0);
    t.run(&[
        "run",
        "--rm",
        "later",
        "sh",
        "-c",
        "cd /odd; cat mine new; test ! -e keep -a ! -e dir",
    ])
    .prints("kept\nfrom outside");
    run(t, &change, &["rm", "c"]).code(0);
    run(t, &change, &["rmi", "-a", "-f"]).code(0);
    t.run(&["--storage-opt", "overlay.size=1", "ps"])
        .refused(125)
        .says("overlay.mount_program");
}

fn no_namespaces(t: &mut Rcon) {
    if !ready(t) {
        return;
    }
    // The kernel makes none in a chroot, with the error number that AppArmor gives too.
    let dir = t.mkdir("chroot");
    let change = format!("mount --rbind / {dir}; set -- chroot {dir} \"$@\"");
    run(t, &change, &WORKS).refused(125).says("hint: ");
    run(t, &change, &["doctor"])
        .code(1)
        .shows("NO    namespaces")
        .shows("try: ");
}

fn inside_bubblewrap(t: &mut Rcon) {
    if !ready(t) {
        return;
    }
    if !installed("bwrap") {
        return skip("bwrap is not installed");
    }
    let sandbox = [
        "bwrap",
        "--dev-bind",
        "/",
        "/",
        "--unshare-pid",
        "--proc",
        "/proc",
    ];
    let mut words = vec!["--root"];
    let root = t.home("inner");
    let root = root.to_str().unwrap();
    let archive = lab().cache.join("archive/docker.tar");
    words.push(root);
    let load = [
        "--root",
        root,
        "load",
        "-q",
        "-i",
        archive.to_str().unwrap(),
    ];
    under(t, "", &sandbox, &load).code(0);
    words.extend(WORKS);
    words[6] = "lab.test/busybox:archived";
    under(t, "", &sandbox, &words).prints(WORKED);
    if t.mode == Mode::ManyIds {
        under(t, "", &sandbox, &["doctor"])
            .code(0)
            .shows("are not among those of the sandbox or container around")
            .shows("try: run rcon outside of it\n");
        return;
    }
    // The kernel lets nobody gain privileges there. Users who are made up need none of it.
    if let Err(reason) = lab().images("debian") {
        return skip(&reason);
    }
    let image = t.pull("debian");
    let script = "grep NoNewPrivs /proc/self/status; cp /usr/bin/id /tmp/id; chown games /tmp/id; chmod 4755 /tmp/id
        setpriv --reuid=7 --clear-groups /tmp/id -un
        setpriv --reuid=7 --clear-groups --no-new-privs /tmp/id -un";
    let run = ["run", "--rm", "--network", "none", &image];
    let words = [&run[..], &["bash", "-ec", script]].concat();
    under(t, "", &sandbox, &words).prints("NoNewPrivs:\t1\ngames\nlp\n");
}

/// Neither programs nor a range: both are told at once, as each distribution has them.
fn doctor_knows_distributions(t: &mut Rcon) {
    if !can_change() {
        return;
    }
    let empty = t.write("subids", "other:1000000:65536\n");
    let range = "usermod --add-subuids 1065536-1131071 --add-subgids 1065536-1131071 \"$USER\"";
    let sudo = format!("&& sudo {range}\n");
    for (release, programs, range) in [
        ("ID=debian", "uidmap ", &*sudo),
        ("ID=ubuntu\nID_LIKE=debian", "uidmap ", &sudo),
        ("ID=fedora", "try: sudo dnf reinstall shadow-utils ", &sudo),
        ("ID=arch", "try: sudo pacman -S shadow ", &sudo),
        (
            "ID=alpine",
            "try: doas apk add shadow-uidmap ",
            "&& echo \"$USER:1065536:65536\" | doas tee -a /etc/subuid /etc/subgid\n",
        ),
    ] {
        let release = t.write("os-release", release);
        let change = format!(
            "mount --bind {empty} /etc/subuid; mount --bind {empty} /etc/subgid
            mount --bind {release} \"$(realpath /etc/os-release)\"
            mount --bind /dev/null /usr/bin/newuidmap"
        );
        let told = run(t, &change, &["doctor"]);
        told.code(0)
            .shows("in /etc/subuid, and newuidmap is not installed\n")
            .shows(programs)
            .shows(range);
        run(t, &change, &["info", "--format", "{{json .Ladder}}"]).shows("newuidmap is not");
    }
    // Root needs no sudo, which containers do not have.
    let machine = Machine {
        root: true,
        ..Machine::with("mount -t tmpfs none /dev/net; mknod -m 0 /dev/net/tun c 10 200")
    };
    let told = machine.run(t, &["--root", &t.mkdir("roots"), "doctor"]);
    assert!(!told.stdout.contains("sudo"), "{}", told.story());
}

fn doctor_tells(t: &mut Rcon) {
    let out = t.run(&["doctor"]);
    out.code(0)
        .shows("namespaces")
        .shows("root filesystem")
        .quiet();
    let ids = match t.mode {
        Mode::ManyIds => "by newuidmap",
        Mode::OneId => "one id",
    };
    out.shows(ids);
    let grade = t.ok(&["doctor", "--format", "{{.part}}={{.grade}}"]);
    assert!(grade.contains("namespaces=good"), "{grade}");
    let info = t.ok(&["info", "--format", "{{range .Ladder}}{{.part}} {{end}}"]);
    assert!(info.starts_with("namespaces ids root filesystem"), "{info}");
    t.run(&["doctor", "extra"]).refused(125);
}
