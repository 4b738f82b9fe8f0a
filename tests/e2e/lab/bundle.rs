//! OCI bundles: a root file system with busybox in it, and a specification.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::{Output, Rcon, eventually, lab};
use crate::lab::program::Running;

/// A bundle in a folder of the scenario.
pub struct Bundle {
    /// The folder.
    pub dir: PathBuf,
    /// The specification, as [`Bundle::write`] writes it.
    pub spec: Value,
    root: bool,
    /// What its containers are called where they are called `c`: root's cgroups have the name, and are the machine's.
    id: String,
}

const APPLETS: &str = "sh true false cat echo env id hostname uname sleep ls mkdir rmdir touch grep \
    sed cut head tail tr wc stat mount umount ps kill chown chmod readlink test printf nproc tty stty \
    find nice ionice mknod cp rm date sort seq dd ulimit chrt dirname basename ln pwd";

impl Bundle {
    /// One of the scenario's user, with one id, in a process namespace of its own.
    pub fn of_user(t: &Rcon, name: &str) -> Bundle {
        let dir = PathBuf::from(t.mkdir(name));
        let bundle = Bundle::make(dir, false, |path| {
            chown(path, Some(t.user.uid), Some(t.user.gid)).unwrap();
        });
        let only = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
        let mut bundle = bundle;
        bundle.spec["linux"]["namespaces"] = kinds("pid ipc uts mount cgroup user network");
        bundle.spec["linux"]["uidMappings"] = only(t.user.uid);
        bundle.spec["linux"]["gidMappings"] = only(t.user.gid);
        bundle
    }

    /// One of root's, in the scenario's folder. Only where the suite runs as root.
    pub fn of_root(t: &Rcon, name: &str) -> Bundle {
        let dir = t.dir.join(name);
        fs::create_dir(&dir).unwrap();
        let mut bundle = Bundle::make(dir, true, |_| ());
        bundle.spec["linux"]["namespaces"] = kinds("pid ipc uts mount network");
        bundle
    }

    fn make(dir: PathBuf, root: bool, own: impl Fn(&Path)) -> Bundle {
        let rootfs = dir.join("rootfs");
        for name in ["", "bin", "etc", "tmp", "proc", "sys", "dev", "data"] {
            let path = rootfs.join(name);
            fs::create_dir(&path).unwrap();
            own(&path);
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"];
        let busybox = busybox.iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.unwrap(), rootfs.join("bin/busybox")).unwrap();
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(rootfs.join("etc/group"), "root:x:0:\nwheel:x:10:root\n").unwrap();
        let caps = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
        let mount = |place: &str, kind: &str, options: &[&str]| json!({"destination": place, "type": kind, "source": kind, "options": options});
        let spec = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "args": ["true"],
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
                "noNewPrivileges": true,
            },
            "root": {"path": "rootfs", "readonly": false},
            "hostname": "bundled",
            "mounts": [
                mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
                mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
                mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
                mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            ],
            "linux": {
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys", "/proc/irq"],
            },
        });
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = match root {
            true => format!("c-{}-{number}", std::process::id()),
            false => "c".to_owned(),
        };
        Bundle {
            dir,
            spec,
            root,
            id,
        }
    }

    /// Sets the program.
    pub fn args(&mut self, words: &[&str]) -> &mut Bundle {
        self.spec["process"]["args"] = json!(words);
        self
    }

    /// Sets a script as the program.
    pub fn script(&mut self, text: &str) -> &mut Bundle {
        self.args(&["sh", "-c", text])
    }

    /// Sets a part of the specification, by a JSON pointer to where it is to be.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Bundle {
        let mut at = &mut self.spec;
        for part in pointer.split('/').skip(1) {
            at = match part.parse::<usize>() {
                Ok(number) => &mut at[number],
                Err(_) => &mut at[part],
            };
        }
        *at = value;
        self
    }

    /// Gives it a user namespace of 5000 ids from 100000 on, as only root can.
    pub fn own_users(&mut self) -> &mut Bundle {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 5000}]);
        self.spec["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "user"}));
        self.set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }

    /// Adds a mount.
    pub fn mount(&mut self, mount: Value) -> &mut Bundle {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    /// Writes the specification down.
    pub fn write(&self) {
        let text = serde_json::to_string_pretty(&self.spec).unwrap();
        fs::write(self.dir.join("config.json"), text).unwrap();
    }

    /// Puts a program of the host's into the bundle's folder: a script of /bin/sh.
    pub fn host_script(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A command of `rcon oci`, as the bundle's owner.
    pub fn command(&self, t: &Rcon, words: &[&str]) -> std::process::Command {
        let state = self.dir.join("state");
        let mut all = vec!["oci", "--root", state.to_str().unwrap()];
        all.extend(words.iter().map(|word| match *word {
            "c" => self.id.as_str(),
            word => word,
        }));
        if self.root {
            assert!(lab().root);
            let mut command = std::process::Command::new(&t.program);
            command.args(&all).current_dir(&self.dir).env_clear();
            command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            return command;
        }
        let mut command = t.command(&all);
        command.current_dir(&self.dir);
        command
    }

    /// Runs a command of `rcon oci` to its end.
    #[track_caller]
    pub fn oci(&self, t: &Rcon, words: &[&str]) -> Output {
        // What goes on when the command has ended keeps its streams: files then, not pipes.
        if words.contains(&"create") || words.contains(&"-d") {
            return self.with_files(t, words);
        }
        Running::start(self.command(t, words), std::process::Stdio::null()).wait()
    }

    fn with_files(&self, t: &Rcon, words: &[&str]) -> Output {
        let paths = ["stdout", "stderr"].map(|name| self.dir.join(name));
        let [out, err] = paths.clone().map(|path| fs::File::create(path).unwrap());
        let since = std::time::Instant::now();
        let mut command = self.command(t, words);
        command
            .stdin(std::process::Stdio::null())
            .stdout(out)
            .stderr(err);
        let mut child = command.spawn().unwrap();
        let status = eventually("its end", 120, || child.try_wait().unwrap());
        let [out, err] = paths.map(|path| fs::read(path).unwrap());
        Output::new(words.join(" "), status, &out, &err, since.elapsed())
    }

    /// Writes the specification and runs it as a container of the name `c`.
    #[track_caller]
    pub fn run(&self, t: &Rcon) -> Output {
        self.write();
        self.oci(t, &["run", "c"])
    }

    /// Runs a script as the container's program; what it printed.
    #[track_caller]
    pub fn sh(&mut self, t: &Rcon, script: &str) -> String {
        self.script(script);
        self.run(t).ok().to_owned()
    }

    /// What `state` says of the container `c`.
    #[track_caller]
    pub fn state(&self, t: &Rcon) -> Value {
        serde_json::from_str(self.oci(t, &["state", "c"]).ok()).unwrap()
    }
}

fn kinds(words: &str) -> Value {
    let kinds = words.split_whitespace().map(|kind| json!({"type": kind}));
    Value::Array(kinds.collect())
}
