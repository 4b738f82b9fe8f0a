//! What callers ask the engine for.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rcon_bundle::Options;
use rcon_image::PullOptions;
use rcon_net::PortMapping;
use rcon_store::ImageRecord;

use crate::CgroupChoice;
use crate::health::HealthChanges;
use crate::keys::DetachKeys;
use crate::lifecycle::{Lifecycle, RestartPolicy};
use crate::record::{NameOptions, Network};
use crate::sharing::Sharing;
use crate::userns::Arrangement;

/// A container to be made.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// The image, found by [`crate::Engine::ensure_image`].
    pub image: ImageRecord,
    /// Keeps the image until the container is made; see [`crate::Engine::hold_image`].
    pub hold: Option<rcon_store::ImageHold>,
    /// How the image is to be called in listings: its full name, or what the user wrote.
    pub image_name: String,
    /// `--name`; without one a name is made up.
    pub name: Option<String>,
    /// Those of the volumes among `options.mounts` that are other containers' (`--volumes-from`): they are not made anew.
    pub volumes_from: Vec<String>,
    /// Process, mounts and isolation. `options.network` is set by the engine from `network`.
    pub options: Options,
    /// `--network`.
    pub network: Network,
    /// `--pid`, `--ipc`, `--uts`, `--cgroupns`, and `--userns` of others; `options.namespaces` is set by the engine from it.
    pub sharing: Sharing,
    /// `--userns` and its like, as far as it is no other container's.
    pub arrangement: Arrangement,
    /// `-p`, parsed.
    pub publish: Vec<PortMapping>,
    /// `-P`: every exposed port of image and options on a free port of the host.
    pub publish_all: bool,
    /// `--dns`, `--dns-search`, `--dns-option`, `--add-host`, `--no-hosts`.
    pub names: NameOptions,
    /// `--rm`.
    pub auto_remove: bool,
    /// `--restart`.
    pub restart: RestartPolicy,
    /// Log, health checks, notices; the image's health check is added by the engine where the user has none.
    pub lifecycle: Lifecycle,
    /// What is said of the health check, the image's or that of `lifecycle`.
    pub health: HealthChanges,
    /// `--cgroups`, `--cgroup-parent`, `--cgroup-manager`.
    pub cgroup: CgroupChoice,
    /// `--cidfile`: refused when it exists.
    pub cidfile: Option<PathBuf>,
    /// `--secret`
    pub secrets: Vec<crate::secrets::SecretUse>,
    /// The command line, for `inspect`.
    pub create_command: Vec<String>,
}

impl CreateRequest {
    /// A container of `image` in `network`, with every default.
    pub fn new(
        image: ImageRecord,
        image_name: impl Into<String>,
        network: Network,
    ) -> CreateRequest {
        CreateRequest {
            image,
            hold: None,
            image_name: image_name.into(),
            name: None,
            volumes_from: Vec::new(),
            options: Options::default(),
            network,
            sharing: Sharing::default(),
            arrangement: Arrangement::Usual,
            publish: Vec::new(),
            publish_all: false,
            names: NameOptions::default(),
            auto_remove: false,
            restart: RestartPolicy::No,
            lifecycle: Lifecycle::default(),
            health: HealthChanges::default(),
            cgroup: CgroupChoice::default(),
            cidfile: None,
            secrets: Vec::new(),
            create_command: Vec::new(),
        }
    }
}

/// `--pull`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Only when it is not here.
    #[default]
    Missing,
    /// Every time.
    Always,
    /// Never; a missing image is an error.
    Never,
    /// When the registry's is newer; one that cannot be reached is no error if an image is here.
    Newer,
}

impl PullPolicy {
    /// Reads `missing`, `always`, `never`, `newer` (and `true`, `false`, as podman does).
    ///
    /// # Errors
    /// In words, for anything else.
    pub fn parse(text: &str) -> Result<PullPolicy, String> {
        match text.to_ascii_lowercase().as_str() {
            "missing" | "ifnotpresent" | "true" | "" => Ok(PullPolicy::Missing),
            "always" => Ok(PullPolicy::Always),
            "never" | "false" => Ok(PullPolicy::Never),
            "newer" | "ifnewer" => Ok(PullPolicy::Newer),
            _ => Err(format!("unsupported pull policy {text:?}")),
        }
    }
}

/// How to find the image of a container.
#[derive(Debug, Default)]
pub struct ImageRequest {
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// How to ask it.
    pub pull: PullOptions,
}

/// Which streams to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Send our standard input.
    pub stdin: bool,
    /// Receive its standard output.
    pub stdout: bool,
    /// Receive its standard error.
    pub stderr: bool,
}

impl Streams {
    /// Output only.
    pub const OUTPUT: Streams = Streams {
        stdin: false,
        stdout: true,
        stderr: true,
    };
    /// All three.
    pub const ALL: Streams = Streams {
        stdin: true,
        stdout: true,
        stderr: true,
    };
}

/// How the calling terminal behaves while it is connected.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// The keys that leave a terminal session without ending the program.
    pub detach_keys: DetachKeys,
    /// Pass signals on to the container (when there is no terminal to pass the keys).
    pub sig_proxy: bool,
}

impl Default for RelayOptions {
    fn default() -> RelayOptions {
        RelayOptions {
            detach_keys: DetachKeys::default(),
            sig_proxy: true,
        }
    }
}

/// How a connection to a container's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The process ended with this code (128 and the signal's number for a signal).
    Exited(i32),
    /// The user left by the detach keys.
    Detached,
    /// Nobody reads our output any more, which the process cannot be told: it runs on.
    GoneReader,
}

/// A command to run in a running container.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub interactive: bool,
    /// `-d`: do not wait.
    pub detach: bool,
    /// `-e` and `--env-file`, resolved.
    pub env: Vec<(String, String)>,
    /// `-u`; `None` is the container's own user.
    pub user: Option<String>,
    /// `-w`; `None` is the container's own directory.
    pub workdir: Option<String>,
    /// `--privileged`.
    pub privileged: bool,
    /// `--detach-keys`.
    pub relay: RelayOptions,
    /// `--preserve-fds`, `--preserve-fd`.
    pub inherit: Inherit,
}

/// How an exec ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutcome {
    /// The command ended, or the user left it.
    Ended(Outcome),
    /// With `detach`: the session's id.
    Started(String),
}

/// Which containers to list.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Those that do not run too.
    pub all: bool,
    /// `-n`, and 1 for `-l`: the last created, in any state.
    pub last: Option<usize>,
    /// `--filter`.
    pub filters: crate::filter::Filters,
}

/// What to show of a log.
#[derive(Clone, Debug, Default)]
pub struct LogRequest {
    /// Go on as it grows, until the container ends.
    pub follow: bool,
    /// Only the last lines.
    pub tail: Option<u64>,
    /// Nothing before.
    pub since: Option<DateTime<Utc>>,
    /// Nothing after.
    pub until: Option<DateTime<Utc>>,
}

/// What to do about what keeps a container from being removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveRequest {
    /// Stop it if it runs.
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
    /// With `force`, seconds to wait between the stop signal and SIGKILL; `None` is the container's own.
    pub timeout: Option<u32>,
}

/// What `wait` waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitFor {
    /// Until it does not run.
    #[default]
    Stopped,
    /// Until it is set up, which one that runs has been.
    Initialized,
    /// Until it runs.
    Running,
    /// Until it was made, which it was.
    Created,
    /// Until it is paused.
    Paused,
    /// Until it was asked to end.
    Stopping,
    /// Until a health check has succeeded.
    Healthy,
    /// Until too many have failed.
    Unhealthy,
    /// Until it is gone.
    Removed,
}

impl WaitFor {
    /// Reads podman's word for it.
    pub fn parse(text: &str) -> Option<WaitFor> {
        Some(match text.to_ascii_lowercase().as_str() {
            "stopped" | "exited" => WaitFor::Stopped,
            "initialized" => WaitFor::Initialized,
            "running" => WaitFor::Running,
            "configured" | "created" => WaitFor::Created,
            "paused" => WaitFor::Paused,
            "stopping" => WaitFor::Stopping,
            "healthy" => WaitFor::Healthy,
            "unhealthy" => WaitFor::Unhealthy,
            "removing" => WaitFor::Removed,
            _ => return None,
        })
    }
}

/// How `wait` waits.
#[derive(Clone, Debug)]
pub struct WaitRequest {
    /// Until one of these is true.
    pub conditions: Vec<WaitFor>,
    /// How often to look at what nobody tells of; `None` is often.
    pub interval: Option<Duration>,
}

impl Default for WaitRequest {
    fn default() -> WaitRequest {
        WaitRequest {
            conditions: vec![WaitFor::Stopped],
            interval: None,
        }
    }
}

/// How a container is to be started.
#[derive(Clone, Debug, Default)]
pub struct StartRequest {
    /// Connect to these streams before the program starts, so that nothing it says is lost.
    pub attach: Option<Streams>,
    /// Files of this process that the program gets too.
    pub inherit: Inherit,
    /// Set everything up, and leave its program to be started later.
    pub hold: bool,
}

/// Open files of this process, by their numbers, for a program in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherit {
    /// What becomes the program's descriptors 3, 4, …; `None` is a number that the program finds closed or of no use.
    pub files: Vec<Option<i32>>,
    /// How many of them, counted from the first, are sockets of systemd's socket activation.
    pub listen: usize,
    /// `LISTEN_FDNAMES`, the names of these.
    pub listen_names: Option<String>,
}
