//! The lab: what the scenarios run on.
//!
//! One per test process, made when the first scenario asks for it: the throw-away users (as root), the images,
//! the registries, a folder that every user can reach and that holds the built program. All of it hangs on
//! pipes held by this process, so that it goes away with the process however that ends.

pub mod apt;
pub mod bpf;
pub mod bundle;
pub mod cgroups;
pub mod chance;
pub mod disk;
pub mod dns;
pub mod fake;
pub mod host;
pub mod http;
pub mod leaks;
pub mod machine;
pub mod net;
pub mod output;
pub mod program;
pub mod pty;
pub mod registry;
pub mod scenario;
pub mod service;
pub mod snapshot;
pub mod tar;
pub mod tmux;
pub mod usual;

pub use output::Output;
pub use program::Rcon;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use service::Service;

/// Where the scripts of the lab lie.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/lab");

/// Who a scenario runs as.
#[derive(Clone, Debug)]
pub struct User {
    /// Its name in /etc/passwd.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

/// Which ids a user may map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Subordinate ids and newuidmap: a container has 65536 users.
    ManyIds,
    /// Nothing but the user's own id.
    OneId,
}

/// The lab of this process.
pub struct Lab {
    /// A folder that every user can enter; each scenario has one of its own in it.
    pub base: PathBuf,
    /// The program under test, readable by everybody.
    pub program: PathBuf,
    /// What the image script made.
    pub cache: PathBuf,
    /// Whether this is root, who can act as the two users and make networks.
    pub root: bool,
    users: Vec<(Mode, User)>,
    _hold: Service,
}

static LAB: LazyLock<Lab> = LazyLock::new(Lab::make);

/// The lab, made at the first call.
pub fn lab() -> &'static Lab {
    &LAB
}

impl Lab {
    fn make() -> Lab {
        let root = rustix::process::geteuid().is_root();
        let parent = std::env::var("RCON_TEST_TMP").unwrap_or_else(|_| "/var/tmp".into());
        let base = Path::new(&parent).join(format!("rcon-e2e.{}", std::process::id()));
        fs::create_dir_all(&base).expect("the folder of the suite");
        fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).unwrap();

        let mut hold = Service::start(&script("hold"), &[base.to_str().unwrap()]);
        hold.wait_for(Duration::from_secs(60), |line| {
            (line == "ready").then_some(())
        });

        let built = std::env::var("RCON_TEST_PROGRAM")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_rcon").into());
        let program = base.join("rcon");
        fs::copy(&built, &program).unwrap_or_else(|e| panic!("cannot copy {built}: {e}"));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();

        let cache = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("lab-{}", rustix::process::geteuid().as_raw()));
        let users = if root {
            vec![
                (Mode::ManyIds, user("rcontest")),
                (Mode::OneId, user("rcontest1")),
            ]
        } else {
            let me = user_by_id(rustix::process::geteuid().as_raw());
            vec![(mode_of(&me), me)]
        };
        Lab {
            base,
            program,
            cache,
            root,
            users,
            _hold: hold,
        }
    }

    /// The user that runs scenarios of `mode`, if this run has one.
    pub fn user(&self, mode: Mode) -> Option<&User> {
        self.users
            .iter()
            .find(|(m, _)| *m == mode)
            .map(|(_, user)| user)
    }

    /// What the image script made, made now if need be.
    ///
    /// # Errors
    /// Why `name` could not be made on this machine.
    pub fn images(&self, name: &str) -> Result<&Path, String> {
        static MADE: LazyLock<Result<(), String>> = LazyLock::new(|| {
            for tool in ["umoci", "skopeo", "busybox", "docker-registry", "dpkg-deb"] {
                if !installed(tool) {
                    return Err(format!("{tool} is not installed"));
                }
            }
            // skopeo keeps a cache in the home of whoever calls it.
            let status = Command::new(script("images"))
                .arg(&lab().cache)
                .env("HOME", &lab().cache)
                .status();
            match status {
                Ok(s) if s.success() => Ok(()),
                other => Err(format!("the images could not be made: {other:?}")),
            }
        });
        MADE.clone()?;
        let missing = fs::read_to_string(self.cache.join("missing")).unwrap_or_default();
        match missing
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")))
        {
            Some(reason) => Err(format!("no image {name}: {reason}")),
            None => Ok(&self.cache),
        }
    }
}

/// The path of one of the lab's scripts.
pub fn script(name: &str) -> PathBuf {
    Path::new(SCRIPTS).join(name)
}

/// Whether a program can be found.
pub fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':')
        .any(|dir| Path::new(dir).join(program).is_file())
}

/// Says loudly that a part of a scenario cannot be had here; a failure where nothing may be left out.
///
/// It goes past the test harness, which would keep the output of a test that passes to itself.
pub fn skip(reason: &str) {
    use std::io::Write;
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let strict = ["CI", "RCON_TEST_NO_SKIP"]
        .iter()
        .any(|v| std::env::var(v).is_ok_and(|v| v == "true" || v == "1"));
    assert!(
        !strict,
        "SKIP {name}: {reason}, but nothing may be left out here"
    );
    let _ = writeln!(std::io::stderr(), "SKIP {name}: {reason}");
}

/// Waits until `probe` gives something, for at most `seconds`.
#[track_caller]
pub fn eventually<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "after {seconds} s still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn user(name: &str) -> User {
    passwd(|fields| fields[0] == name).unwrap_or_else(|| panic!("no user {name}"))
}

fn user_by_id(uid: u32) -> User {
    passwd(|fields| fields[2] == uid.to_string()).unwrap_or(User {
        name: uid.to_string(),
        uid,
        gid: uid,
    })
}

fn passwd(wanted: impl Fn(&[&str]) -> bool) -> Option<User> {
    let table = fs::read_to_string("/etc/passwd").ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.len() > 3 && wanted(&fields)).then(|| User {
            name: fields[0].into(),
            uid: fields[2].parse().unwrap(),
            gid: fields[3].parse().unwrap(),
        })
    })
}

fn mode_of(user: &User) -> Mode {
    let listed = |file: &str| {
        let owners = [user.name.clone(), user.uid.to_string()];
        fs::read_to_string(file).is_ok_and(|t| {
            t.lines().any(|l| {
                owners
                    .iter()
                    .any(|o| l.split(':').next() == Some(o.as_str()))
            })
        })
    };
    let many = listed("/etc/subuid")
        && listed("/etc/subgid")
        && installed("newuidmap")
        && installed("newgidmap");
    if many { Mode::ManyIds } else { Mode::OneId }
}
