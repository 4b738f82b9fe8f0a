//! Ways out of containers that have worked on others, tried on ours.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

use rcon_sys::seccomp;
use rustix::process::Pid;

use crate::lab::bpf::{NATIVE, ask};
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon, lab};

scenarios!(
    dangerous_calls,
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

fn keys_of_the_caller(t: &mut Rcon) {
    // The session keyring of who starts a container is not its own, and what it has is not told.
    let image = t.pull("busybox");
    t.run(&["run", "--rm", &image, "sh", "-c", "cat /proc/keys | wc -c"])
        .prints("0\n");
    t.run(&[
        "run",
        "--rm",
        "--security-opt",
        "unmask=/proc/keys",
        &image,
        "sh",
        "-c",
        "grep -c _ses /proc/keys; true",
    ])
    .code(0);
}
