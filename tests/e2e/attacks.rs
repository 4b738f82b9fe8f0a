//! Ways out of containers that have worked on others, tried on ours.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};

use rcon_sys::seccomp;
use rustix::process::Pid;

use crate::lab::bpf::{NATIVE, ask};
use crate::lab::program::Running;
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon, lab};

scenarios!(
    dangerous_calls,
    calls_that_are_made,
    other_processes,
    sockets_without_a_file,
    release_agent,
    links_where_we_mount,
    keys_of_the_caller,
);

/// The calls that faults of the kernel were reached by most, and those by which a terminal is typed into, are refused by the
/// filter that is really loaded.
fn dangerous_calls(t: &mut Rcon) {
    if !lab().root {
        return;
    }
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    let pid: i32 = t.inspect("c", "{{.State.Pid}}").parse().unwrap();
    // With one id there is another one, for the calls about owners, that was loaded later.
    let index = usize::from(t.mode == Mode::OneId);
    let filter = seccomp::of_process(Pid::from_raw(pid).unwrap(), index);
    let filter = filter.unwrap().expect("a filter");
    let refused = 0x0005_0000 | libc::EPERM as u32;
    let absent = 0x0005_0000 | libc::ENOSYS as u32;
    let says = |call: i64, arguments: [u64; 6]| ask(&filter, NATIVE, call as u32, arguments);
    let mut passed = Vec::new();
    for (name, call) in [
        ("bpf", libc::SYS_bpf),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("io_uring_enter", libc::SYS_io_uring_enter),
        ("io_uring_register", libc::SYS_io_uring_register),
        ("kexec_load", libc::SYS_kexec_load),
        ("init_module", libc::SYS_init_module),
        ("finit_module", libc::SYS_finit_module),
        ("delete_module", libc::SYS_delete_module),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("swapon", libc::SYS_swapon),
        ("settimeofday", libc::SYS_settimeofday),
        ("acct", libc::SYS_acct),
        ("quotactl", libc::SYS_quotactl),
    ] {
        let said = says(call, [0; 6]);
        if ![refused, absent].contains(&said) {
            passed.push(name);
        }
    }
    assert!(passed.is_empty(), "{passed:?}");
    for request in [0x5412_u64, 0x541c] {
        // The kernel looks at the lower half only.
        for upper in [0, 1 << 32, u64::MAX << 32] {
            assert_eq!(
                says(libc::SYS_ioctl, [0, upper | request, 0, 0, 0, 0]),
                refused
            );
        }
    }
    assert_eq!(says(libc::SYS_socket, [40, 1, 0, 0, 0, 0]), refused);
    assert_eq!(says(libc::SYS_read, [0; 6]), 0x7fff_0000);
}

/// The same calls, and those of the kernel's worst years, made for real by a program inside.
fn calls_that_are_made(t: &mut Rcon) {
    if let Err(reason) = lab().images("debian") {
        return crate::lab::skip(&reason);
    }
    let image = t.pull("debian");
    const EPERM: i32 = libc::EPERM;
    const ENOSYS: i32 = libc::ENOSYS;
    let calls: &[(&str, i64, &str, i32)] = &[
        ("bpf", libc::SYS_bpf, "0, 0, 0", EPERM),
        ("userfaultfd", libc::SYS_userfaultfd, "1", EPERM),
        (
            "perf_event_open",
            libc::SYS_perf_event_open,
            "0, 0, -1, -1, 0",
            EPERM,
        ),
        ("io_uring_setup", libc::SYS_io_uring_setup, "8, 0", ENOSYS),
        (
            "io_uring_enter",
            libc::SYS_io_uring_enter,
            "0, 0, 0, 0, 0",
            ENOSYS,
        ),
        (
            "io_uring_register",
            libc::SYS_io_uring_register,
            "0, 0, 0, 0",
            ENOSYS,
        ),
        ("add_key", libc::SYS_add_key, "0, 0, 0, 0, -3", ENOSYS),
        ("request_key", libc::SYS_request_key, "0, 0, 0, -3", ENOSYS),
        ("keyctl", libc::SYS_keyctl, "0, -3, 0", ENOSYS),
        (
            "open_by_handle_at",
            libc::SYS_open_by_handle_at,
            "-100, 0, 0",
            EPERM,
        ),
        ("kexec_load", libc::SYS_kexec_load, "0, 0, 0, 0", EPERM),
        ("init_module", libc::SYS_init_module, "0, 0, 0", EPERM),
        ("finit_module", libc::SYS_finit_module, "0, 0, 0", EPERM),
        ("delete_module", libc::SYS_delete_module, "0, 0", EPERM),
        ("swapon", libc::SYS_swapon, "0, 0", EPERM),
        ("acct", libc::SYS_acct, "0", EPERM),
        ("quotactl", libc::SYS_quotactl, "0, 0, 0, 0", EPERM),
        ("settimeofday", libc::SYS_settimeofday, "0, 0", EPERM),
        ("clock_settime", libc::SYS_clock_settime, "0, 0", EPERM),
        (
            "move_pages",
            libc::SYS_move_pages,
            "0, 0, 0, 0, 0, 0",
            EPERM,
        ),
        ("vmsplice", libc::SYS_vmsplice, "0, 0, 0, 0", EPERM),
        ("fanotify_init", libc::SYS_fanotify_init, "0, 0", EPERM),
        ("kcmp", libc::SYS_kcmp, "0, 0, 0, 0, 0", EPERM),
        // AF_VSOCK, which leads to the hypervisor; the audit's netlink.
        ("socket", libc::SYS_socket, "40, 1, 0", EPERM),
        ("socket", libc::SYS_socket, "16, 3, 9", libc::EINVAL),
        // Without address randomisation.
        ("personality", libc::SYS_personality, "0x40000", ENOSYS),
        // TIOCSTI, also with an upper half that the kernel does not look at.
        ("ioctl", libc::SYS_ioctl, "0, 0x5412, 0", EPERM),
        ("ioctl", libc::SYS_ioctl, "0, 0x100005412, 0", EPERM),
        ("ioctl", libc::SYS_ioctl, "0, 0x541c, 0", EPERM),
        // No such call, and the x32 interface, which no namespace of filters may forget.
        ("a call of tomorrow", 900, "0", ENOSYS),
        ("x32", 0x4000_0000, "0, 0, 0", ENOSYS),
    ];
    let mut script = String::new();
    for (at, (_, number, arguments, _)) in calls.iter().enumerate() {
        script +=
            &format!("$! = 0; syscall({number}, {arguments}); print {at}, ' ', $!+0, \"\\n\";");
    }
    for flags in [&[][..], &["--user", "1000"], &["--cap-drop=all"]] {
        let words = [&["run", "--rm"], flags, &[&image, "perl", "-e", &script]].concat();
        let out = t.run(&words);
        let mut wrong = Vec::new();
        for (line, (name, _, arguments, expected)) in out.ok().lines().zip(calls) {
            let got: i32 = line.split(' ').nth(1).unwrap().parse().unwrap();
            if got != *expected {
                wrong.push(format!("{name}({arguments}): {got}, not {expected}"));
            }
        }
        assert_eq!(out.ok().lines().count(), calls.len(), "{}", out.story());
        assert!(wrong.is_empty(), "{flags:?}: {wrong:?}");
    }
}

/// Processes are looked into, taken over and signalled only within the container, and there as the kernel has it.
fn other_processes(t: &mut Rcon) {
    if let Err(reason) = lab().images("debian") {
        return crate::lab::skip(&reason);
    }
    let image = t.pull("debian");
    // Ours, seen from the host: no number of the container's is theirs, and none of theirs is there.
    let outside = std::process::id();
    let script = format!(
        "sub try {{ my ($n, @a) = @_; $! = 0; my $r = syscall($n, @a); print $r < 0 ? $!+0 : 'done', \"\\n\" }} \
         try({attach}, 16, {outside}, 0, 0); my $b = ' ' x 8; my $v = pack('QQ', unpack('Q', pack('p', $b)), 8); \
         try({read}, {outside}, $v, 1, $v, 1, 0); try({open}, {outside}, 0); \
         try({kill}, {outside}, 0); print -e '/proc/{outside}' ? 'there' : 'not there', \"\\n\";",
        attach = libc::SYS_ptrace,
        read = libc::SYS_process_vm_readv,
        open = libc::SYS_pidfd_open,
        kill = libc::SYS_kill,
    );
    let out = t.run(&["run", "--rm", &image, "perl", "-e", &script]);
    let gone = libc::ESRCH;
    out.prints(&format!("{gone}\n{gone}\n{gone}\n{gone}\nnot there\n"));
    // Not by /proc of the first process either: its memory, root and descriptors are another user's.
    if t.mode == Mode::ManyIds {
        let script = "for f in mem root environ fd/0 maps; do (head -c1 /proc/1/$f || ls /proc/1/$f/) >/dev/null 2>&1 && echo $f; done; \
            kill -9 1 2>/dev/null && echo killed; perl -e 'print syscall($ARGV[0], 16, 1, 0, 0) < 0 ? \"no\\n\" : \"traced\\n\"' $0";
        let number = libc::SYS_ptrace.to_string();
        t.run(&["run", "-d", "--name", "c", &image, "sleep", "1000"])
            .code(0);
        t.run(&["exec", "--user", "1000", "c", "sh", "-c", script, &number])
            .prints("no\n");
        t.ok(&["rm", "-f", "-t", "0", "c"]);
    }
    // The processes of the host, asked for, are seen, and theirs still.
    let script = format!("kill -0 {outside} 2>/dev/null || echo not ours");
    if lab().root {
        t.run(&["run", "--rm", "--pid=host", &image, "sh", "-c", &script])
            .prints("not ours\n");
    }
}

fn sockets_without_a_file(t: &mut Rcon) {
    let image = t.pull("busybox");
    let name = format!("rcon-e2e-abstract-{}-{}", std::process::id(), t.user.uid);
    let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let seen = |flags: &[&str]| {
        let script = format!("grep -c {name} /proc/net/unix; true");
        t.ok(&[&["run", "--rm"], flags, &[&image, "sh", "-c", &script]].concat())
    };
    assert_eq!(seen(&[]), "0");
    assert_eq!(seen(&["--network", "none", "--privileged"]), "0");
    // They belong to the network: who asks for the host's has them.
    assert_eq!(seen(&["--network", "host"]), "1");
}

fn release_agent(t: &mut Rcon) {
    // As CVE-2022-0492: a hierarchy of the first version with a program of its own that the host runs.
    let image = t.pull("busybox");
    let script = "mkdir -p /tmp/c; for k in memory rdma cpu pids misc name=mine; do \
            mount -t cgroup -o none,$k x /tmp/c 2>/dev/null || mount -t cgroup -o $k x /tmp/c 2>/dev/null; \
            test -e /tmp/c/release_agent && (echo /x > /tmp/c/release_agent) 2>/dev/null && echo written; umount /tmp/c 2>/dev/null; done; \
        for f in $(find /sys/fs/cgroup -name release_agent 2>/dev/null); do (echo /x > $f) 2>/dev/null && echo wrote $f; done; echo done";
    for flags in [
        &["--privileged"][..],
        &["--cap-add=SYS_ADMIN"],
        &["--cgroupns=host", "--privileged"],
    ] {
        let words = [&["run", "--rm"], flags, &[&image, "sh", "-c", script]].concat();
        let out = t.run(&words);
        assert!(
            out.stdout.ends_with("done\n") && !out.stdout.contains("wr"),
            "{}",
            out.story()
        );
    }
}

fn links_where_we_mount(t: &mut Rcon) {
    // As CVE-2021-30465 and CVE-2026-47766: an image in which the places of our own mounts lead elsewhere.
    let top = t.mkdir("evil");
    let outside = t.mkdir("outside");
    let bin = format!("{top}/bin");
    fs::create_dir(&bin).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"];
    let busybox = busybox
        .iter()
        .find(|path| std::path::Path::new(path).exists());
    fs::copy(busybox.unwrap(), format!("{bin}/busybox")).unwrap();
    let climb = format!("../../../../../../../..{outside}");
    fs::create_dir(format!("{top}/etc")).unwrap();
    for (place, target) in [
        ("dev", climb.as_str()),
        ("sys", outside.as_str()),
        ("run", "/proc/self/root/../../tmp"),
        ("etc/hosts", climb.as_str()),
        ("etc/resolv.conf", "/proc/1/root/etc/passwd"),
        ("data", "/proc/self/cwd"),
    ] {
        std::os::unix::fs::symlink(target, format!("{top}/{place}")).unwrap();
    }
    let archive = t.home("evil.tar");
    let packed = Command::new("tar")
        .args(["-C", &top, "-cf"])
        .arg(&archive)
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
    t.ok(&["import", archive.to_str().unwrap(), "evil"]);
    for flags in [
        &[][..],
        &["-w", "/data/x"],
        &["--read-only"],
        &["--device", "/dev/zero:/data/zero"],
    ] {
        let words = [
            &["run", "--rm", "--network=none"],
            flags,
            &["evil", "/bin/busybox", "true"],
        ]
        .concat();
        // Whether it runs or is refused is all the same.
        t.run(&words);
        let found: Vec<_> = fs::read_dir(&outside).unwrap().collect();
        assert!(found.is_empty(), "{flags:?}: {found:?}");
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    assert!(passwd.contains("root:"));
}

/// Has a session of its own with a key in it, and one in the user's keyring; runs a command with the numbers of both keyrings
/// and both keys, and says what is in the keys then.
const WITH_KEYS: &str = r#"
    my ($keyctl, $add_key, @command) = @ARGV;
    sub keyctl { my @words = map { $_ + 0 } @_; return syscall($keyctl + 0, @words); }
    keyctl(1, 0) > 0 or die "no session: $!";
    my @rings = map { keyctl(0, $_, 1) } -3, -4;
    keyctl(8, @rings[1, 0]);
    my ($kind, $name, $secret) = ('user', "rcon-e2e-$$", 'secret');
    my @keys = map { syscall($add_key + 0, $kind, $name, $secret, 6, $_) } @rings;
    $_ > 0 or die "no keys: $!" for @rings, @keys;
    $| = 1;
    my $status = system(@command, @rings, @keys);
    for (@keys) {
        my $said = ' ' x 16;
        my $length = syscall($keyctl + 0, 11, $_, $said, 16);
        print $length < 0 ? "gone\n" : substr($said, 0, $length) . "\n";
        keyctl(21, $_);
    }
    exit($status >> 8);"#;

/// Tries everything that can be done with keyrings and keys of which it has the numbers, and says what could be done.
const KEY_THIEF: &str = r#"
    my ($keyctl, @keys) = map { $_ + 0 } @ARGV;
    my @rings = @keys[0, 1];
    my ($kind, $name, $new) = ('user', 'rcon-e2e', 'stolen');
    sub try { my ($what, @words) = @_; print "$what\n" if syscall($keyctl, @words) >= 0; }
    for (@keys) {
        my $room = ' ' x 64;
        try("described $_", 6, $_, $room, 64);
        try("read $_", 11, $_, $room, 64);
        try("linked $_", 8, $_, -3);
        try("read $_ when linked", 11, $_, $room, 64);
        try("changed the rights of $_", 5, $_, 0x3f3f3f3f);
        try("updated $_", 2, $_, $new, 6);
    }
    for (@rings) {
        try("searched $_", 10, $_, $kind, $name, 0);
        try("unlinked from $_", 9, $keys[2], $_);
        try("emptied $_", 7, $_);
    }
    for (@keys) { try("revoked $_", 3, $_); try("invalidated $_", 21, $_); }
    print "done\n";"#;

/// Keyrings belong to users, not to namespaces: the root of a container, who is its user outside, could do with them all that
/// the user can, by their numbers, which can be guessed.
fn keys_of_the_caller(t: &mut Rcon) {
    if let Err(reason) = lab().images("debian") {
        return crate::lab::skip(&reason);
    }
    let image = t.pull("debian");
    let [keyctl, add_key] = [libc::SYS_keyctl, libc::SYS_add_key].map(|call| call.to_string());
    let program = t.program.to_str().unwrap();
    let run = |words: &[&str]| {
        let around = ["perl", "-e", WITH_KEYS, &keyctl, &add_key];
        let all = [&around, words].concat();
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        Running::start(t.command_of(&all), Stdio::null()).wait()
    };
    if run(&["true"]).code != 0 {
        return crate::lab::skip("there are no keyrings here");
    }
    let with_keys = |words: &[&str]| run(&[&[program], words].concat());
    let thief = ["perl", "-e", KEY_THIEF, &keyctl];
    for flags in [&[][..], &["--user", "1000"], &["--cap-add=all"]] {
        let words = [&["run", "--rm"], flags, &[&image], &thief].concat();
        with_keys(&words).prints("done\nsecret\nsecret\n");
    }
    t.sleeper("c", &[], &image);
    with_keys(&[&["exec", "c"][..], &thief].concat()).prints("done\nsecret\nsecret\n");
    // Without a filter its session is another one all the same, and so is the user's keyring of who has other ids.
    let own = "my ($keyctl, @rings) = map { $_ + 0 } @ARGV; \
        print syscall($keyctl, 0, $_, 0) == shift @rings ? \"the same\\n\" : \"another\\n\" for -3, -4;";
    let open = [
        "run",
        "--rm",
        "--security-opt=seccomp=unconfined",
        &image,
        "perl",
        "-e",
        own,
    ];
    with_keys(&[&open[..], &[keyctl.as_str()]].concat())
        .prints("another\nanother\nsecret\nsecret\n");
    // What keys there are is not told.
    t.sh(&[], &image, "cat /proc/keys | wc -c").prints("0\n");
}
