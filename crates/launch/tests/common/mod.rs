//! A tiny root filesystem and a specification like the one that an engine makes.

#![allow(dead_code, missing_docs)]

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder,
    LinuxNamespaceType, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompBuilder, LinuxSyscallBuilder,
    Mount, MountBuilder, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
};
use rcon_launch::{Request, Rootfs, Stdio};
use rcon_sys::ids::IdMaps;

const BUSYBOX: &str = "/bin/busybox";

/// Folders for one container at a time, in a place that this user's containers can reach.
pub struct Scene {
    folder: tempfile::TempDir,
    pub maps: IdMaps,
}

impl Scene {
    /// `None`, with the reason on standard output, where there is no static busybox.
    pub fn new(maps: IdMaps) -> Option<Self> {
        let program = fs::read(BUSYBOX).unwrap_or_default();
        // A program without an interpreter has no such segment, and needs no library.
        if program.is_empty() || program.windows(15).any(|text| text == b"/ld-linux-x86-6") {
            println!("SKIPPED: these tests need a static {BUSYBOX} (package busybox-static)");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let scene = Self { folder, maps };
        let layer = scene.path("layer");
        for name in ["bin", "etc", "tmp", "root", "var/www"] {
            fs::create_dir_all(layer.join(name)).unwrap();
        }
        fs::write(layer.join("bin/busybox"), program).unwrap();
        set_mode(&layer.join("bin/busybox"), 0o755);
        for name in [
            "sh", "true", "cat", "id", "ls", "env", "pwd", "sleep", "mount", "touch", "stat",
            "hostname", "tty", "stty", "kill", "ps", "readlink", "echo", "test", "wc",
        ] {
            symlink("busybox", layer.join("bin").join(name)).unwrap();
        }
        fs::write(
            layer.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n",
        )
        .unwrap();
        fs::write(
            layer.join("etc/group"),
            "root:x:0:\nlog:x:4:web\nweb:x:34:\n",
        )
        .unwrap();
        fs::write(layer.join("etc/text"), "no program\n").unwrap();
        fs::write(layer.join("bin/nothing"), "no program\n").unwrap();
        set_mode(&layer.join("bin/nothing"), 0o755);
        fs::write(layer.join("bin/lost"), "#!/no/such/interpreter\n").unwrap();
        set_mode(&layer.join("bin/lost"), 0o755);
        Some(scene)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new overlay over the layer.
    pub fn overlay(&self) -> Rootfs {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let make = |kind: &str| {
            let path = self.path(&format!("{kind}{number}"));
            fs::create_dir_all(&path).unwrap();
            path
        };
        Rootfs::Overlay {
            lower: vec![self.path("layer")],
            upper: make("upper"),
            work: make("work"),
            volatile: true,
        }
    }

    pub fn request<'a>(&'a self, spec: &'a Spec, stdio: Stdio) -> Request<'a> {
        Request {
            user: Some(String::new()),
            ..Request::new(spec, self.overlay(), &self.maps, stdio)
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // What the container's users own only they can remove.
        let path = self.folder.path().to_owned();
        let _ = rcon_sys::userns::run(&self.maps, |_| {
            for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                // The folder `work/work` of overlayfs has no permissions at all.
                set_mode(&entry.path().join("work"), 0o700);
                let _ = fs::remove_dir_all(entry.path());
            }
            0
        });
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Mount {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(kind)
        .options(
            options
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
        .build()
        .unwrap()
}

pub fn bind(source: &Path, destination: &str, options: &[&str]) -> Mount {
    let mut mount = mount(destination, "bind", options);
    mount.set_source(Some(source.to_owned()));
    mount
}

pub fn mounts() -> Vec<Mount> {
    let safe = ["nosuid", "noexec", "nodev"];
    vec![
        mount("/proc", "proc", &safe),
        mount(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount("/dev/mqueue", "mqueue", &safe),
        mount(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
    ]
}

pub fn capabilities() -> Capabilities {
    [
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Fsetid,
        Capability::Kill,
        Capability::NetBindService,
        Capability::Setfcap,
        Capability::Setgid,
        Capability::Setpcap,
        Capability::Setuid,
        Capability::SysChroot,
    ]
    .into_iter()
    .collect()
}

pub fn process(words: &[&str]) -> Process {
    let sets = LinuxCapabilitiesBuilder::default()
        .bounding(capabilities())
        .effective(capabilities())
        .permitted(capabilities())
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
        .unwrap();
    let mut process = ProcessBuilder::default()
        .args(
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
        .env(vec!["PATH=/bin".to_owned(), "TERM=xterm".to_owned()])
        .cwd("/")
        .capabilities(sets)
        .no_new_privileges(false)
        .build()
        .unwrap();
    process.set_rlimits(None);
    process.set_apparmor_profile(None);
    process
}

/// Everything is allowed but a few calls that nobody here makes, and one that is tried.
pub fn seccomp() -> LinuxSeccomp {
    let denied = LinuxSyscallBuilder::default()
        .names(
            ["bpf", "kexec_load", "swapon", "reboot"]
                .map(str::to_owned)
                .to_vec(),
        )
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(1_u32)
        .build()
        .unwrap();
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActAllow)
        .architectures(vec![
            Arch::ScmpArchX86_64,
            Arch::ScmpArchX86,
            Arch::ScmpArchAarch64,
        ])
        .syscalls(vec![denied])
        .build()
        .unwrap()
}

pub fn spec(words: &[&str]) -> Spec {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let namespaces = [User, Mount, Pid, Network, Ipc, Uts, Cgroup]
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build().unwrap());
    let texts = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let sysctls = [
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("kernel.msgmax", "8200"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let linux = LinuxBuilder::default()
        .namespaces(namespaces.to_vec())
        .masked_paths(texts(&[
            "/proc/acpi",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/sys/firmware",
            "/sys/fs/selinux",
            "/sys/dev/block",
        ]))
        .readonly_paths(texts(&[
            "/proc/asound",
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger",
        ]))
        .sysctl(
            sysctls
                .into_iter()
                .collect::<std::collections::HashMap<_, _>>(),
        )
        .seccomp(seccomp())
        .build()
        .unwrap();
    SpecBuilder::default()
        .process(process(words))
        .root(
            RootBuilder::default()
                .path("rootfs")
                .readonly(false)
                .build()
                .unwrap(),
        )
        .hostname("box")
        .mounts(mounts())
        .linux(linux)
        .build()
        .unwrap()
}

/// Streams of which the output can be read.
pub fn pipes() -> (Stdio, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    let stdio = Stdio::Fds {
        stdin: null.into(),
        stderr: writer.try_clone().unwrap(),
        stdout: writer,
    };
    (stdio, reader)
}

pub fn read_all(from: OwnedFd) -> String {
    let mut bytes = Vec::new();
    // A terminal whose other end is closed gives EIO.
    let _ = fs::File::from(from).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn exec_request<'a>(
    spec: &'a Spec,
    process: &'a Process,
    stdio: Stdio,
) -> rcon_launch::ExecRequest<'a> {
    rcon_launch::ExecRequest {
        spec,
        process,
        user: Some(String::new()),
        group_add: Vec::new(),
        keep_groups: false,
        stdio,
        seccomp: true,
        preserve_fds: Vec::new(),
        cgroup: None,
        emulation: None,
        known_as: None,
    }
}
