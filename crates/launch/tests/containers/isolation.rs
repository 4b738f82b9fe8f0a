//! What a program cannot do.

use std::os::unix::fs::symlink;

use oci_spec::runtime::Capabilities;

use super::{Test, failure, output, run, shell};
use crate::common::{Scene, pipes, set_mode, spec};

pub const TESTS: &[Test] = &[
    ("capabilities", capabilities),
    ("signals_are_as_usual", signals_are_as_usual),
    ("no_new_privileges", no_new_privileges),
    ("ambient", ambient),
    ("masked_paths", masked_paths),
    ("namespaces_are_new", namespaces_are_new),
    ("our_own_file_is_out_of_reach", our_own_file_is_out_of_reach),
    (
        "no_way_out_by_the_working_directory",
        no_way_out_by_the_working_directory,
    ),
    ("mount_table", mount_table),
];

const STATUS: [&str; 2] = ["cat", "/proc/self/status"];

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} in {status}")).trim()
}

fn capabilities(scene: &Scene) {
    let status = output(scene, &spec(&STATUS));
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT
    // SETFCAP
    let usual = "00000000800405fb";
    for (name, expected) in [
        ("CapInh:", "0000000000000000"),
        ("CapPrm:", usual),
        ("CapEff:", usual),
        ("CapBnd:", usual),
        ("CapAmb:", "0000000000000000"),
        ("NoNewPrivs:", "0"),
        ("Seccomp:", "2"),
        ("SigIgn:", "0000000000000000"),
        ("SigBlk:", "0000000000000000"),
    ] {
        assert_eq!(field(&status, name), expected, "{name}");
    }
}

/// None is ignored or blocked, whoever is the first process.
fn signals_are_as_usual(scene: &Scene) {
    for init in [false, true] {
        let spec = spec(&STATUS);
        let (stdio, reader) = pipes();
        let mut request = scene.request(&spec, stdio);
        request.init = init;
        let (_, status) = run(request, reader).unwrap();
        for name in ["SigIgn:", "SigBlk:"] {
            let none = "0000000000000000";
            assert_eq!(field(&status, name), none, "{name}, init: {init}");
        }
    }
}

fn no_new_privileges(scene: &Scene) {
    let mut spec = spec(&STATUS);
    spec.process_mut()
        .as_mut()
        .unwrap()
        .set_no_new_privileges(Some(true));
    let status = output(scene, &spec);
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    assert_eq!(field(&status, "Seccomp:"), "2");
}

/// A user who is not root keeps ambient capabilities, and no others.
fn ambient(scene: &Scene) {
    if scene.maps.is_single() {
        return;
    }
    let mut spec = spec(&STATUS);
    let kept: Capabilities = [oci_spec::runtime::Capability::NetBindService]
        .into_iter()
        .collect();
    let process = spec.process_mut().as_mut().unwrap();
    let mut sets = process.capabilities().clone().unwrap();
    sets.set_ambient(Some(kept));
    process.set_capabilities(Some(sets));
    let (stdio, reader) = pipes();
    let mut request = scene.request(&spec, stdio);
    request.user = Some("33".to_owned());
    let (_, status) = run(request, reader).unwrap();
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(&status, name), "0000000000000400", "{name}");
    }
    assert_eq!(field(&status, "CapBnd:"), "00000000800405fb");
}

fn masked_paths(scene: &Scene) {
    let script = "cat /etc/text | wc -c; cat /proc/version | wc -c; ls /var | wc -l; \
                  ls /proc/irq | wc -l; touch /var/x; echo 1 > /proc/sys/kernel/panic; \
                  touch /sys/x; touch /tmp/x; echo x > /etc/text";
    let mut spec = spec(&["sh", "-c", script]);
    let linux = spec.linux_mut().as_mut().unwrap();
    let masked = [
        "/etc/text",
        "/proc/version",
        "/var",
        "/proc/irq",
        "/not/there",
        "/etc/text/x",
    ];
    linux.set_masked_paths(Some(masked.map(str::to_owned).to_vec()));
    linux.set_readonly_paths(Some(
        ["/proc/sys", "/tmp", "/none"].map(str::to_owned).to_vec(),
    ));
    let text = output(scene, &spec);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["0"; 4], "{text}");
    assert_eq!(lines.len(), 8, "{text}");
    assert!(
        lines[4..].iter().all(|line| line.contains("Read-only")),
        "{text}"
    );
}

fn namespaces_are_new(scene: &Scene) {
    let kinds = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
    let text = shell(scene, "cd /proc/self/ns; for n in *; do readlink $n; done");
    for kind in kinds {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert!(!text.contains(own.to_str().unwrap()), "{kind}");
        assert!(text.contains(&format!("{kind}:[")), "{kind}");
    }
}

/// Whatever makes the kernel execute `/proc/self/exe` gets the stub, never the file of this
/// program, which the container's root may own (CVE-2019-5736).
fn our_own_file_is_out_of_reach(scene: &Scene) {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::metadata("/proc/self/exe").unwrap();
    if own.uid() == 0 && !rustix::process::geteuid().is_root() {
        println!("SKIPPED: this program belongs to root, so no container could write to it");
        return;
    }
    let link = scene.path("layer/bin/self");
    let script = scene.path("layer/bin/script");
    let _ = symlink("/proc/self/exe", link);
    std::fs::write(&script, "#!/proc/self/exe\n").unwrap();
    set_mode(&script, 0o755);
    for program in ["self", "script"] {
        let (stdio, reader) = pipes();
        let spec = spec(&[program]);
        let (code, text) = run(scene.request(&spec, stdio), reader).unwrap();
        // The stub, called in a way that it does not know.
        assert_eq!((code, text.as_str()), (126, ""), "{program}");
    }
}

fn no_way_out_by_the_working_directory(scene: &Scene) {
    for path in [
        "/proc/self/fd/3",
        "/proc/self/cwd",
        "/proc/1/root/etc",
        "/proc/self/root",
    ] {
        let mut spec = spec(&["pwd"]);
        spec.process_mut().as_mut().unwrap().set_cwd(path.into());
        let error = failure(scene, &spec, |request| request.create_cwd = true);
        assert!(
            matches!(error, rcon_launch::Error::Workdir { .. }),
            "{path}: {error}"
        );
    }
}

/// Nothing of the host is mounted but what every container has.
fn mount_table(scene: &Scene) {
    let text = shell(scene, "cat /proc/self/mountinfo");
    let place = scene.path("");
    assert!(
        !text.contains(place.to_str().unwrap().trim_end_matches('/')),
        "{text}"
    );
    let points: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    for line in text.lines() {
        assert!(!line.contains(" shared:"), "{line}");
    }
    for point in [
        "/",
        "/proc",
        "/dev",
        "/dev/pts",
        "/dev/mqueue",
        "/dev/shm",
        "/sys",
    ] {
        let count = points.iter().filter(|found| **found == point).count();
        assert_eq!(count, 1, "{point} in {text}");
    }
}
