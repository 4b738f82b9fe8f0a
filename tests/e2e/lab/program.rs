//! The program under test, in the hands of one user with a home of its own.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cgroups::Delegated;
use super::host::Host;
use super::pty::{self, Terminal};
use super::{Mode, Output, User, lab, leaks, registry};

/// No command of the suite takes longer than this, however busy the machine; long forms of tests may say something else.
fn limit() -> Duration {
    let seconds = std::env::var("RCON_TEST_LIMIT").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(120))
}

/// `rcon`, its user and its world.
pub struct Rcon {
    /// Which ids the user has.
    pub mode: Mode,
    /// Who runs it.
    pub user: User,
    /// Holds `home`, `run`, `tmp` and `bin`; nothing else of this scenario is anywhere else.
    pub dir: PathBuf,
    /// The program, under a path of its own, so that its processes can be told from others.
    pub program: PathBuf,
    env: Vec<(String, String)>,
    global: Vec<String>,
    host: Option<Arc<Host>>,
    /// A cgroup of its own, which its commands are in.
    pub cgroup: Option<Delegated>,
}

impl Rcon {
    /// A new world for one scenario.
    pub fn new(mode: Mode, user: &User) -> Rcon {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let dir = lab()
            .base
            .join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        for (name, bits) in [
            ("", 0o755),
            ("bin", 0o755),
            ("home", 0o755),
            ("run", 0o700),
            ("tmp", 0o700),
        ] {
            let path = dir.join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
            if bits == 0o700 || name == "home" {
                chown(&path, Some(user.uid), Some(user.gid)).unwrap();
            }
        }
        let program = dir.join("bin/rcon");
        fs::hard_link(&lab().program, &program).unwrap();
        let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let env = [
            ("HOME", path("home")),
            ("XDG_RUNTIME_DIR", path("run")),
            ("TMPDIR", path("tmp")),
            ("USER", user.name.clone()),
            ("LOGNAME", user.name.clone()),
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            ),
            ("TERM", "xterm".into()),
            ("LANG", "C.UTF-8".into()),
        ];
        let env = env.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        Rcon {
            mode,
            user: user.clone(),
            dir,
            program,
            env,
            global: Vec::new(),
            host: None,
            cgroup: None,
        }
    }

    /// From now on its commands run on `host`, a machine made of namespaces.
    pub fn move_to(&mut self, host: &Arc<Host>) {
        self.host = Some(Arc::clone(host));
    }

    /// From now on every command has this variable; an empty value takes it away.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.retain(|(k, _)| k != name);
        if !value.is_empty() {
            self.env.push((name.into(), value.into()));
        }
    }

    /// From now on every command begins with these options.
    pub fn set_global(&mut self, options: &[&str]) {
        self.global = options.iter().map(|&s| s.to_owned()).collect();
    }

    /// A folder or file of the user's home.
    pub fn home(&self, name: &str) -> PathBuf {
        self.dir.join("home").join(name)
    }

    /// Where the program keeps its images and containers.
    pub fn root(&self) -> PathBuf {
        self.home(".local/share/rcon")
    }

    /// Writes a file of the user into the home.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.home(name);
        self.make_parents(&path);
        fs::write(&path, content).unwrap();
        chown(&path, Some(self.user.uid), Some(self.user.gid)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Makes a folder of the user in the home.
    pub fn mkdir(&self, name: &str) -> String {
        let path = self.home(name);
        self.make_parents(&path.join("x"));
        path.to_str().unwrap().to_owned()
    }

    fn make_parents(&self, path: &Path) {
        let mut missing: Vec<&Path> = path
            .ancestors()
            .skip(1)
            .take_while(|p| !p.exists())
            .collect();
        while let Some(dir) = missing.pop() {
            fs::create_dir(dir).unwrap();
            chown(dir, Some(self.user.uid), Some(self.user.gid)).unwrap();
        }
    }

    /// A command of the program, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(&self.words(&[], args))
    }

    /// Runs a command in a terminal of 24 rows and 80 columns.
    #[track_caller]
    pub fn terminal(&self, args: &[&str]) -> Terminal {
        self.terminal_of(24, 80, args)
    }

    /// Runs a command in a terminal of another size.
    #[track_caller]
    pub fn terminal_of(&self, rows: u16, columns: u16, args: &[&str]) -> Terminal {
        Terminal::run(
            self.command_of(&self.words(&pty::CONTROL, args)),
            rows,
            columns,
        )
    }

    fn words(&self, before: &[&str], args: &[&str]) -> Vec<String> {
        let program = [self.program.to_str().unwrap()];
        let global: Vec<&str> = self.global.iter().map(String::as_str).collect();
        [before, &program, &global, args]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    /// Any command as the user, where its commands run.
    pub fn command_of(&self, words: &[String]) -> Command {
        let mut command = match &self.host {
            None if self.cgroup.is_some() => self.in_cgroup(words),
            None => {
                let mut command = Command::new(&words[0]);
                if lab().root {
                    command.uid(self.user.uid).gid(self.user.gid);
                }
                command
            }
            Some(host) => {
                let mut command = Command::new("nsenter");
                command.args([
                    "--target",
                    &host.pid().to_string(),
                    "--net",
                    "--mount",
                    "--",
                ]);
                command.args(["setpriv", "--clear-groups", "--inh-caps=-all"]);
                command.args(["--reuid", &self.user.uid.to_string()]);
                command.args(["--regid", &self.user.gid.to_string(), "--"]);
                // Entering a mount namespace goes to its root.
                command.arg("env").arg("-C").arg(self.dir.join("home"));
                command.arg(&words[0]);
                command
            }
        };
        command
            .args(&words[1..])
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        command.current_dir(self.dir.join("home"));
        command
    }

    /// The beginning of a command that root puts into the user's cgroup.
    fn in_cgroup(&self, words: &[String]) -> Command {
        const ENTER: &str = r#"echo $$ >"$1/cgroup.procs"; shift; exec "$@""#;
        let cgroup = self.cgroup.as_ref().unwrap();
        let mut command = Command::new("nsenter");
        command.args(["--target", &cgroup.holder().to_string(), "--mount", "--"]);
        command.args(["sh", "-c", ENTER, "sh"]).arg(cgroup.path());
        command.args(["setpriv", "--clear-groups", "--inh-caps=-all"]);
        command.args(["--reuid", &self.user.uid.to_string()]);
        command.args(["--regid", &self.user.gid.to_string(), "--"]);
        // Entering a mount namespace goes to its root.
        command.arg("env").arg("-C").arg(self.dir.join("home"));
        command.arg(&words[0]);
        command
    }

    /// Runs a command to its end, with nothing on standard input.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        self.start(args).wait()
    }

    /// Runs a command to its end with `input` on standard input.
    #[track_caller]
    pub fn feed(&self, input: &[u8], args: &[&str]) -> Output {
        let mut running = Running::start(self.command(args), Stdio::piped());
        let mut stdin = running.child.stdin.take().expect("its input is open");
        let input = input.to_vec();
        // Beside the wait for its end: one that neither reads nor ends would keep that from ever being over.
        std::thread::spawn(move || {
            // A command that refuses its arguments does not read: its message is what counts.
            let _ = stdin.write_all(&input);
        });
        running.wait()
    }

    /// Makes the file `/go` in a container that waits for it to end. That end may come before that of what makes the file, and
    /// takes it along.
    pub fn let_go(&self, name: &str) {
        let out = self.run(&["exec", name, "touch", "/go"]);
        assert!(matches!(out.code, 0 | 137), "{}", out.story());
    }

    /// Runs a command that must succeed; its standard output without the last newline.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok().to_owned()
    }

    /// Starts a command, with nothing on standard input.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args), Stdio::null())
    }

    /// Starts a command whose standard input stays open.
    #[track_caller]
    pub fn start_with_input(&self, args: &[&str]) -> Running {
        Running::start(self.command(args), Stdio::piped())
    }

    /// Pulls one of the lab's images from the plain registry and gives its full name.
    #[track_caller]
    pub fn pull(&self, image: &str) -> String {
        let name = registry::plain().name(image);
        self.run(&["pull", "-q", &name]).ok();
        name
    }

    /// `podman ps -a` must show this many containers.
    #[track_caller]
    pub fn has_containers(&self, count: usize) {
        let out = self.run(&["ps", "-a", "-q"]);
        assert!(
            out.ok().lines().count() == count,
            "expected {count} containers\n{}",
            out.story()
        );
    }

    /// What `inspect --format` says of something.
    #[track_caller]
    pub fn inspect(&self, what: &str, format: &str) -> String {
        self.ok(&["inspect", "--format", format, what])
    }

    /// Ends the scenario: everything it made can be removed, and nothing is left behind.
    pub fn finish(self) {
        let (run, dir) = (self.dir.join("run"), self.dir.clone());
        // With a peer in its place (RCON_TEST_PEER=1 RCON_TEST_PROGRAM=…, to see what the suite says of it) only
        // what is asked for is compared, not how files are kept.
        if std::env::var_os("RCON_TEST_PEER").is_some() {
            return;
        }
        self.run(&["rm", "--all", "--force", "--volumes", "--time", "0"])
            .code(0);
        self.run(&["ps", "--all", "--quiet"]).code(0).prints("");
        eventually_none("processes", || leaks::processes(&dir));
        eventually_none("mounts", || leaks::mounts(&dir));
        eventually_none("things in the runtime folder", || {
            leaks::runtime_files(&run)
        });
        eventually_none("temporary files", || leaks::files(&dir.join("tmp")));
        self.run(&["rmi", "--all", "--force"]).code(0);
        eventually_none("things in the store", || leaks::stored(&self.root()));
    }
}

#[track_caller]
fn eventually_none(what: &str, list: impl Fn() -> Vec<String>) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let found = list();
        if found.is_empty() {
            return;
        }
        assert!(
            Instant::now() < end,
            "{what} left behind:\n{}",
            found.join("\n")
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Rcon {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("RCON_TEST_KEEP").is_some() {
            return;
        }
        for _ in 0..50 {
            let left = leaks::process_ids(&self.dir);
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // What a scenario leaves that failed may be nested too deep for the library's own way to remove it.
        let remove = || {
            let mut command = Command::new("rm");
            command.arg("-rf").arg(&self.dir).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if !remove() && !lab().root {
            // Files of subordinate owners can only be removed where those owners are one's own.
            let dir = self.dir.to_str().unwrap().to_owned();
            let _ = self
                .command(&["unshare", "rm", "-rf", &dir])
                .stdin(Stdio::null())
                .status();
            remove();
        }
    }
}

/// A command that runs.
pub struct Running {
    child: Child,
    line: String,
    since: Instant,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    gone: bool,
}

impl Running {
    /// Starts `command` and reads all it prints.
    #[track_caller]
    pub fn start(mut command: Command, stdin: Stdio) -> Running {
        let words: Vec<_> = command
            .get_args()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        let line = format!(
            "{} {}",
            command.get_program().to_string_lossy(),
            words.join(" ")
        );
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        Running {
            child,
            line,
            since: Instant::now(),
            stdout,
            stderr,
            gone: false,
        }
    }

    /// The process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Writes to its standard input.
    pub fn write(&mut self, bytes: &[u8]) {
        // A command that refuses its arguments does not read: its message is what counts.
        let _ = self
            .child
            .stdin
            .as_mut()
            .expect("its input is open")
            .write_all(bytes);
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Whether it has ended, though nobody has waited for that.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(self) -> Output {
        self.wait_for(limit())
    }

    /// Waits for its end, for at most `limit`.
    #[track_caller]
    pub fn wait_for(mut self, limit: Duration) -> Output {
        self.close_input();
        let end = self.since.max(Instant::now()) + limit;
        let mut nap = Duration::from_micros(500);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() >= end {
                let _ = self.child.kill();
                let status = self.child.wait().unwrap();
                self.gone = true;
                let story = Output::new(
                    self.line.clone(),
                    status,
                    &drain(&self.stdout),
                    &drain(&self.stderr),
                    limit,
                );
                panic!("did not end within {limit:?}\n{}", story.story());
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(10));
        };
        let took = self.since.elapsed();
        self.gone = true;
        let story = |out: &[u8], err: &[u8]| Output::new(self.line.clone(), status, out, err, took);
        let mut streams = [&self.stdout, &self.stderr].map(|stream| {
            let mut bytes = Vec::new();
            let held = loop {
                match stream.recv_timeout(Duration::from_secs(5)) {
                    Ok(more) => bytes.extend(more),
                    Err(e) => break e == std::sync::mpsc::RecvTimeoutError::Timeout,
                }
            };
            (bytes, held)
        });
        let (err, err_held) = std::mem::take(&mut streams[1]);
        let (out, out_held) = std::mem::take(&mut streams[0]);
        let output = story(&out, &err);
        assert!(
            !out_held && !err_held,
            "something still holds the output open\n{}",
            output.story()
        );
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.gone {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

fn drain(stream: &Receiver<Vec<u8>>) -> Vec<u8> {
    stream.try_iter().flatten().collect()
}
