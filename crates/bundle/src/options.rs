//! What a user may say about the process, its mounts and its isolation.
//!
//! The fields are named after podman's flags. Values are already parsed (see [`crate::parse`]) and are kept with the
//! container, so that starting it again gives the same container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Resources;
use crate::mounts::UserMount;
use crate::parse::{ExposedPort, Security, Ulimit};

/// The options of one container that end up in its runtime specification.
///
/// Names, published ports, restart policy and the like are not here: they say what happens *around* the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The words after the image name; they replace the image's `Cmd`.
    pub command: Vec<String>,
    /// `--entrypoint`: `None` leaves the image's, an empty list clears it, one empty word clears the image's command too.
    pub entrypoint: Option<Vec<String>>,
    /// `-e` and `--env-file`, resolved (see [`crate::parse::environment`]); they win over the image's.
    pub env: Vec<(String, String)>,
    /// What is handed down from the caller's environment (`--env-host`, proxy variables); the image's win over them.
    pub host_env: Vec<(String, String)>,
    /// `--env-merge`: `NAME=TEXT` where the text is made with the image's variables.
    pub env_merge: Vec<String>,
    /// `--unsetenv`: defaults and image variables that are to be absent.
    pub unsetenv: Vec<String>,
    /// `--unsetenv-all`: no variable but those of `env`.
    pub unsetenv_all: bool,
    /// `-w`: an absolute path that must exist in the image; `None` takes the image's, which is created if missing.
    pub workdir: Option<String>,
    /// `-u`: `name|uid[:group|gid]`, resolved inside the root file system by whoever starts the process.
    pub user: Option<String>,
    /// `--group-add`.
    pub group_add: Vec<String>,
    /// `--group-add keep-groups`: the groups of who starts the container are its first process's too.
    pub keep_groups: bool,
    /// What is said of users in the container's own files.
    pub accounts: Accounts,
    /// `-t`: give the process a terminal.
    pub tty: bool,
    /// `-i`: keep standard input open.
    pub interactive: bool,
    /// `--init`: a small reaper runs as PID 1.
    pub init: bool,
    /// `--init-path`: a program of the host that is to be that reaper.
    pub init_path: Option<PathBuf>,
    /// `--systemd`
    pub systemd: SystemdMode,
    /// `--shm-size-systemd` in bytes: the size of what is mounted for systemd; `None` leaves it to the kernel.
    pub shm_size_systemd: Option<u64>,
    /// `--tz`: the name of a time zone, or `local`.
    pub tz: Option<String>,
    /// `--personality`
    pub personality: Option<Personality>,
    /// `--oom-score-adj`
    pub oom_score_adj: Option<i32>,
    /// `-h`; `None` makes the first 12 digits of the container's id the host name (the host's own with host network).
    pub hostname: Option<String>,
    /// `--no-hostname`: leave the image's `/etc/hostname` alone.
    pub no_hostname: bool,
    /// Which network namespace the container lives in.
    pub network: Network,
    /// Whose other namespaces it lives in.
    pub namespaces: Namespaces,
    /// `--ipc none`: there is no `/dev/shm`.
    pub no_shm: bool,
    /// `-v`, `--mount` and `--tmpfs`, checked for doubles by [`crate::mounts::combine`].
    pub mounts: Vec<UserMount>,
    /// `--image-volume`: what becomes of the volumes that the image declares.
    pub image_volume: ImageVolumes,
    /// `--read-only`.
    pub read_only: bool,
    /// `--read-only-tmpfs`: with `--read-only`, `/run`, `/tmp` and `/var/tmp` are writable tmpfs.
    pub read_only_tmpfs: bool,
    /// `--shm-size` in bytes; `None` is 64 MiB.
    pub shm_size: Option<u64>,
    /// `--chrootdirs`: directories that have the container's `/etc/resolv.conf` and its like too.
    pub chroot_dirs: Vec<String>,
    /// `--device`
    pub devices: Vec<Device>,
    /// `--privileged`: everything that the user namespace can give, and no more.
    pub privileged: bool,
    /// `--cap-add`, as given (`ALL`, `NET_ADMIN`, `cap_net_admin`).
    pub cap_add: Vec<String>,
    /// `--cap-drop`, as given.
    pub cap_drop: Vec<String>,
    /// The set that `--cap-add` and `--cap-drop` begin with, when it is not podman's own (containers.conf).
    #[serde(default)]
    pub default_caps: Option<Vec<String>>,
    /// Kernel settings that a container has unless it shares the namespace they belong to (containers.conf).
    #[serde(default)]
    pub default_sysctls: Vec<(String, String)>,
    /// `--security-opt`, all of them.
    pub security: Security,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--memory`, `--cpus` and their like.
    pub resources: Resources,
    /// `--sysctl`, in the order given; they win over the defaults.
    pub sysctls: Vec<(String, String)>,
    /// `--label` and `--label-file`; they win over the image's.
    pub labels: BTreeMap<String, String>,
    /// `--annotation`.
    pub annotations: BTreeMap<String, String>,
    /// `--stop-signal` as a number; `None` takes the image's, or SIGTERM.
    pub stop_signal: Option<i32>,
    /// `--stop-timeout` in seconds; `None` is 10.
    pub stop_timeout: Option<u32>,
    /// `--umask`; `None` is 0022.
    pub umask: Option<u32>,
    /// `--expose`, beside what the image exposes.
    pub expose: Vec<ExposedPort>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            command: Vec::new(),
            entrypoint: None,
            env: Vec::new(),
            host_env: Vec::new(),
            env_merge: Vec::new(),
            unsetenv: Vec::new(),
            unsetenv_all: false,
            workdir: None,
            user: None,
            group_add: Vec::new(),
            keep_groups: false,
            accounts: Accounts::default(),
            tty: false,
            interactive: false,
            init: false,
            init_path: None,
            systemd: SystemdMode::default(),
            shm_size_systemd: None,
            tz: None,
            personality: None,
            oom_score_adj: None,
            hostname: None,
            no_hostname: false,
            network: Network::default(),
            namespaces: Namespaces::default(),
            no_shm: false,
            mounts: Vec::new(),
            image_volume: ImageVolumes::default(),
            read_only: false,
            read_only_tmpfs: true,
            shm_size: None,
            chroot_dirs: Vec::new(),
            devices: Vec::new(),
            privileged: false,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            default_caps: None,
            default_sysctls: Vec::new(),
            security: Security::default(),
            ulimits: Vec::new(),
            resources: Resources::default(),
            sysctls: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            stop_signal: None,
            stop_timeout: None,
            umask: None,
            expose: Vec::new(),
        }
    }
}

/// Which network namespace a container lives in. What is *in* a private one is not this crate's affair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Its own.
    #[default]
    Private,
    /// The host's (`--network host`): no network namespace, no network sysctls, the host's `/sys` bound.
    Host,
    /// That of another container or a path: the launcher is told which one; its settings are its own affair.
    Joined,
}

/// `--image-volume`: what becomes of the volumes an image declares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageVolumes {
    /// An anonymous volume each (podman's `anonymous`, once `bind`).
    #[default]
    Anonymous,
    /// A tmpfs each.
    Tmpfs,
    /// Nothing.
    Ignore,
}

/// Whose a namespace is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// The container's own.
    #[default]
    Private,
    /// The host's: there is none of that kind.
    Host,
    /// That of another container or a path: the launcher is told which one.
    Joined,
}

/// Whose the namespaces are, but for the network, the users and the mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// `--pid`
    pub pid: Share,
    /// `--ipc`
    pub ipc: Share,
    /// `--uts`
    pub uts: Share,
    /// `--cgroupns`
    pub cgroup: Share,
}

/// `--systemd`: whether the container is set up as systemd wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SystemdMode {
    /// When the command is systemd or an init.
    #[default]
    True,
    /// Never.
    False,
    /// Whatever the command is.
    Always,
}

impl SystemdMode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            SystemdMode::True => "true",
            SystemdMode::False => "false",
            SystemdMode::Always => "always",
        }
    }
}

/// `--personality`: the execution domain, see personality(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Personality {
    /// The machine's own.
    Linux,
    /// As on a machine of 32 bits.
    Linux32,
}

/// One `--device`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The node on the host, or a directory of nodes.
    pub source: PathBuf,
    /// Where it is in the container.
    pub destination: String,
    /// Letters of `rwm`.
    pub access: String,
}

/// What is said of users in `/etc/passwd` and `/etc/group` of the container, beside what the image says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Accounts {
    /// `--passwd`: whether anything is.
    pub add: bool,
    /// `--hostuser`: users of the host that are to be there.
    pub host_users: Vec<String>,
    /// `--passwd-entry`: how the line of the container's user is to look.
    pub passwd_entry: Option<String>,
    /// `--group-entry`: how the line of its group is to look.
    pub group_entry: Option<String>,
}

impl Default for Accounts {
    fn default() -> Accounts {
        Accounts {
            add: true,
            host_users: Vec::new(),
            passwd_entry: None,
            group_entry: None,
        }
    }
}
