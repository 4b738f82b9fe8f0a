//! rcon as the runtime of another engine: podman with `--runtime`, as an ordinary user.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::lab::cgroups::Delegated;
use crate::lab::program::Running;
use crate::lab::pty::{CONTROL, Terminal};
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Output, Rcon, installed, registry, skip};

scenarios!(podman, podman_pauses, as_documented);

/// podman with this runtime, and the image that it runs.
pub struct Podman<'a> {
    t: &'a Rcon,
    image: String,
}

impl<'a> Podman<'a> {
    /// `None` where there is nothing to see: podman is not there, or not for this user.
    pub fn new(t: &'a Rcon) -> Option<Podman<'a>> {
        if t.mode != Mode::ManyIds {
            return None;
        }
        if !installed("podman") || !installed("conmon") {
            skip("podman is not installed");
            return None;
        }
        let link = t.dir.join("bin/rcon-oci");
        symlink(&t.program, link).unwrap();
        let image = registry::plain().name("busybox");
        let podman = Podman { t, image };
        podman
            .run(&["pull", "-q", "--tls-verify=false", &podman.image])
            .code(0);
        Some(podman)
    }

    fn words(&self, words: &[&str]) -> Vec<String> {
        let runtime = self.t.dir.join("bin/rcon-oci");
        let podman = [
            "podman",
            "--cgroup-manager=cgroupfs",
            "--storage-driver=vfs",
            "--runtime",
        ];
        let runtime = runtime.to_str().unwrap();
        let all = podman.iter().chain([&runtime]).chain(words);
        all.map(|word| (*word).to_owned()).collect()
    }

    fn command(&self, words: &[&str]) -> Command {
        self.t.command_of(&self.words(words))
    }

    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Output {
        Running::start(self.command(words), Stdio::null()).wait()
    }

    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        self.run(words).ok().to_owned()
    }

    /// A container that sleeps.
    fn sleeper(&self, name: &str) {
        self.ok(&[
            "run",
            "-d",
            "--name",
            name,
            "--network=none",
            &self.image,
            "sleep",
            "1000",
        ]);
    }

    /// Leaves nothing behind: its files belong to other ids.
    pub fn clear(&self) {
        self.ok(&["rm", "--all", "--force", "--time=0"]);
        assert_eq!(self.ok(&["ps", "-aq"]), "");
        self.run(&["system", "reset", "--force"]);
        let home = self.t.home(".local");
        let words = ["podman", "unshare", "rm", "-rf", home.to_str().unwrap()].map(str::to_owned);
        Running::start(self.t.command_of(&words), Stdio::null()).wait();
        // It keeps a user namespace by a process.
        let words = ["podman", "system", "migrate"].map(str::to_owned);
        Running::start(self.t.command_of(&words), Stdio::null()).wait();
        let run = self.t.dir.join("run");
        for name in ["containers", "libpod", "netns", "rcon-oci", "crun", "runc"] {
            let _ = std::fs::remove_dir_all(run.join(name));
        }
        let _ = std::fs::remove_dir_all(&home);
    }
}

fn podman(t: &mut Rcon) {
    let Some(podman) = Podman::new(t) else { return };
    let image = podman.image.as_str();
    let run = |words: &[&str]| podman.run(&[&["run", "--rm", "--network=none"], words].concat());
    run(&[image, "sh", "-c", "echo out; echo err >&2; exit 5"])
        .code(5)
        .shows("out\n")
        .says("err");
    run(&[image, "no-such-program"]).code(127).says("not found");
    run(&[image, "/etc/passwd"])
        .code(126)
        .says("permission denied");
    run(&[
        "-e",
        "A=b c",
        "-w",
        "/tmp",
        "--hostname=some",
        "-u",
        "7:8",
        image,
        "sh",
        "-c",
        "echo $A; pwd; hostname; id -u; id -g",
    ])
    .prints("b c\n/tmp\nsome\n7\n8\n");
    run(&[
        "--read-only",
        "--tmpfs",
        "/scratch",
        image,
        "sh",
        "-c",
        "touch /x || touch /scratch/x && echo made",
    ])
    .shows("made\n");
    run(&[
        "--ulimit",
        "nofile=77:88",
        "--cap-drop=all",
        image,
        "sh",
        "-c",
        "ulimit -n; grep -E 'CapEff|Seccomp:' /proc/self/status | tr -d '\\t'",
    ])
    .prints("77\nCapEff:0000000000000000\nSeccomp:2\n");
    let shared = t.mkdir("shared");
    run(&[
        "-v",
        &format!("{shared}:/shared"),
        image,
        "sh",
        "-c",
        "echo hello >/shared/file",
    ])
    .code(0);
    assert_eq!(
        std::fs::read_to_string(format!("{shared}/file")).unwrap(),
        "hello\n"
    );

    podman.sleeper("c");
    assert_eq!(
        podman.ok(&["inspect", "c", "--format", "{{.Name}} {{.State.Status}}"]),
        "c running"
    );
    assert!(
        podman
            .ok(&["inspect", "c", "--format", "{{.OCIRuntime}}"])
            .ends_with("/bin/rcon-oci")
    );
    podman
        .run(&["exec", "c", "sh", "-c", "hostname; exit 3"])
        .code(3);
    podman.run(&["exec", "c", "no-such-program"]).code(127);
    podman
        .run(&[
            "exec",
            "-e",
            "A=b",
            "-w",
            "/tmp",
            "-u",
            "5",
            "c",
            "sh",
            "-c",
            "echo $A; pwd; id -u",
        ])
        .prints("b\n/tmp\n5\n");
    assert!(podman.ok(&["top", "c"]).contains("sleep 1000"));
    // A container in whose processes it takes part.
    podman
        .run(&[
            "run",
            "--rm",
            "--network=none",
            "--pid=container:c",
            image,
            "ps",
            "-o",
            "args",
        ])
        .shows("sleep 1000");
    podman.ok(&["kill", "--signal=USR1", "c"]);
    podman.ok(&["stop", "--time=0", "c"]);
    assert_eq!(
        podman.ok(&[
            "inspect",
            "c",
            "--format",
            "{{.State.Status}} {{.State.ExitCode}}"
        ]),
        "exited 137"
    );
    podman.ok(&["start", "c"]);
    podman.ok(&["restart", "--time=0", "c"]);
    podman.ok(&["kill", "c"]);
    assert_eq!(podman.ok(&["wait", "c"]), "137");
    podman.ok(&["rm", "c"]);

    // Terminals go by a socket to conmon.
    let mut words: Vec<String> = CONTROL.iter().map(|word| (*word).to_owned()).collect();
    words.extend(podman.words(&[
        "run",
        "--rm",
        "-it",
        "--network=none",
        image,
        "sh",
        "-c",
        "tty; read line; echo \"<$line>\"; exit 6",
    ]));
    let mut terminal = Terminal::run(t.command_of(&words), 24, 80);
    terminal.expect("/dev/pts/0");
    terminal.send("word\r");
    terminal.expect("<word>");
    assert_eq!(terminal.wait(), 6, "{}", terminal.story());
    podman.sleeper("d");
    let mut words: Vec<String> = CONTROL.iter().map(|word| (*word).to_owned()).collect();
    words.extend(podman.words(&[
        "exec",
        "-it",
        "d",
        "sh",
        "-c",
        "tty; stty size; read line; echo \"<$line>\"; exit 7",
    ]));
    let mut terminal = Terminal::run(t.command_of(&words), 24, 80);
    terminal.expect("/dev/pts/");
    terminal.send("more\r");
    terminal.expect("<more>");
    assert_eq!(terminal.wait(), 7, "{}", terminal.story());
    podman.clear();
}

/// Where the user has cgroups, what needs one works too.
fn podman_pauses(t: &mut Rcon) {
    t.cgroup = Delegated::new(&t.user);
    if t.cgroup.is_none() {
        return;
    }
    let Some(podman) = Podman::new(t) else { return };
    podman.sleeper("c");
    podman.ok(&["pause", "c"]);
    assert_eq!(
        podman.ok(&["inspect", "c", "--format", "{{.State.Status}}"]),
        "paused"
    );
    podman.run(&["exec", "c", "true"]).code(255);
    podman.ok(&["unpause", "c"]);
    podman.run(&["exec", "c", "true"]).code(0);
    podman.ok(&["rm", "--force", "--time=0", "c"]);
    assert_eq!(
        t.cgroup.as_ref().unwrap().containers(),
        Vec::<String>::new()
    );
    podman.clear();
}

/// The example of docs/podman.md, with podman as it has to be here.
fn as_documented(t: &mut Rcon) {
    let Some(podman) = Podman::new(t) else { return };
    podman.ok(&["tag", &podman.image, "docker.io/library/alpine"]);
    let page = include_str!("../../docs/podman.md");
    let block = page.split("```sh\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let wrapped =
        "#!/bin/sh\nexec /usr/bin/podman --cgroup-manager=cgroupfs --storage-driver=vfs \"$@\"\n";
    let wrapper = t.write("wrapped/podman", wrapped);
    std::fs::set_permissions(
        &wrapper,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let settings = t.write("containers.conf", "[containers]\nnetns = \"none\"\n");
    let path = [
        t.home("wrapped").display().to_string(),
        t.program.parent().unwrap().display().to_string(),
    ];
    let set = format!(
        "PATH={}:/usr/bin:/bin CONTAINERS_CONF={settings}; export PATH CONTAINERS_CONF\n",
        path.join(":")
    );
    let words = [
        "sh".to_owned(),
        "-e".to_owned(),
        "-c".to_owned(),
        set + block,
    ];
    Running::start(t.command_of(&words), Stdio::null())
        .wait()
        .code(0);
    podman.clear();
}
