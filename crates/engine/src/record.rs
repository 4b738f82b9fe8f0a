//! What is known of a container: the [`Config`] it was created with, which never changes but for its name, and the
//! [`State`] it is in. Each is one small JSON file, replaced atomically.

use std::fmt;

use chrono::{DateTime, Utc};
use rcon_bundle::{ImageConfig, Options};
use rcon_net::PortMapping;
use serde::{Deserialize, Serialize};

use crate::health::HealthState;
use crate::lifecycle::{Lifecycle, RestartPolicy};
use crate::limits::CgroupChoice;
use crate::secrets::SecretUse;
use crate::sharing::Sharing;
use crate::userns::Arranged;

/// The layout of the two files; a newer rcon reads older ones.
pub const FORMAT: u32 = 1;

/// What the container was created with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// [`FORMAT`] at the time of creation.
    pub format: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique among the containers of one root.
    pub name: String,
    /// When it was created.
    pub created: DateTime<Utc>,
    /// The image's id; empty for none.
    pub image_id: String,
    /// The image's full name at the time, as `docker.io/library/alpine:latest`.
    pub image_name: String,
    /// The digest of the image's manifest.
    #[serde(default)]
    pub image_digest: String,
    /// The part of the image's configuration that the container is made of.
    pub image_config: ImageConfig,
    /// What the user said about process, mounts and isolation.
    pub options: Options,
    /// The network it gets.
    pub network: Network,
    /// Whose its other namespaces are.
    #[serde(default, skip_serializing_if = "Sharing::is_default")]
    pub sharing: Sharing,
    /// How its users are arranged, if in another way than usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arranged: Option<Arranged>,
    /// `-p` and `-P`: what is to be published (a host port of 0 is chosen at each start).
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    /// `--dns-search` and `--dns-option`, `--add-host`, `--no-hosts`.
    #[serde(default)]
    pub names: NameOptions,
    /// `--rm`.
    #[serde(default)]
    pub auto_remove: bool,
    /// `--restart`.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// What happens around its process: log, health checks, notices.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Its cgroup.
    #[serde(default, skip_serializing_if = "CgroupChoice::is_default")]
    pub cgroup: CgroupChoice,
    /// The volumes that are mounted into it.
    #[serde(default)]
    pub volumes: Vec<VolumeUse>,
    /// `--secret`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// The command line it was created by.
    #[serde(default)]
    pub create_command: Vec<String>,
    /// It was made by a command that was to start it too, and says so in a file of its own; unknown of older ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_run: Option<bool>,
}

impl Config {
    /// Entry point and command as they run: the user's over the image's; empty if there are none.
    pub fn argv(&self) -> Vec<String> {
        rcon_bundle::command(&self.image_config, &self.options)
            .map_or_else(|_| Vec::new(), |command| command.args)
    }

    /// The labels of the image under those of the container.
    pub fn labels(&self) -> std::collections::BTreeMap<String, String> {
        let mut labels = self.image_config.labels.clone();
        labels.extend(self.options.labels.clone());
        labels
    }

    /// The signal that asks it to end, 15 when neither the user nor the image says.
    pub fn stop_signal(&self) -> i32 {
        rcon_bundle::stop_signal(&self.image_config, &self.options)
    }

    /// How long it has for that, in seconds.
    pub fn stop_timeout(&self) -> u32 {
        self.options.stop_timeout.unwrap_or(10)
    }

    /// The first twelve digits of the id.
    pub fn short_id(&self) -> &str {
        &self.id[..self.id.len().min(12)]
    }
}

/// `--network`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Only loopback.
    None,
    /// The host's network namespace.
    Host,
    /// That of another container, by its id.
    Container(String),
    /// The network namespace at a path.
    Path(std::path::PathBuf),
    /// rcon's own user-mode network, with its options.
    Slirp(Box<rcon_net::Config>),
}

impl Default for Network {
    fn default() -> Network {
        Network::Slirp(Box::new(rcon_net::Config::for_this_host()))
    }
}

/// How names are looked up in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NameOptions {
    /// `--dns-search`.
    pub search: Vec<String>,
    /// `--dns-option`.
    pub options: Vec<String>,
    /// `--dns`; empty follows the host's resolvers.
    pub servers: Vec<std::net::IpAddr>,
    /// `--add-host`: name and address (the text `host-gateway` stands for the host).
    pub hosts: Vec<(String, String)>,
    /// `--no-hosts`: leave the image's `/etc/hosts` alone.
    pub no_hosts: bool,
    /// `--hosts-file`: the file that `/etc/hosts` begins with, or `none`; without, that of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_hosts: Option<String>,
}

/// One volume of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeUse {
    /// The volume's name.
    pub name: String,
    /// Where it is mounted.
    pub destination: String,
    /// Made for this container and removed with it by `--rm` and `rm -v`.
    pub anonymous: bool,
    /// A new volume is filled with what the image has there.
    #[serde(default)]
    pub copy: bool,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made and never started.
    #[default]
    Created,
    /// Its namespaces, mounts and network are there, and its program waits to be started (`container init`).
    Initialized,
    /// Its process runs.
    Running,
    /// Its process runs and is stopped by the freezer.
    Paused,
    /// It was asked to end and has not yet.
    Stopping,
    /// Its process has ended.
    Exited,
}

impl Status {
    /// Whether its program runs.
    pub fn is_alive(self) -> bool {
        matches!(self, Status::Running | Status::Paused | Status::Stopping)
    }

    /// Whether there is a process, be it one that waits to become the program.
    pub fn has_process(self) -> bool {
        self.is_alive() || self == Status::Initialized
    }

    /// The word podman uses for it in `inspect` and filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Initialized => "initialized",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopping => "stopping",
            Status::Exited => "exited",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A process named so that it cannot be taken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Its number in the host's process namespace.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`, clock ticks since boot (proc_pid_stat(5)); 0 where there is something better.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_time: u64,
    /// A number that no other process of this boot has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<u64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What has become of the container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Where it is in its life.
    pub status: Status,
    /// PID 1 of the container.
    pub process: Option<ProcessRef>,
    /// The monitor.
    pub monitor: Option<ProcessRef>,
    /// The `run` that made it and has not started it yet; without that process it is nobody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creator: Option<ProcessRef>,
    /// The process of its network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<ProcessRef>,
    /// The command that waits for its end and holds its streams. Should the monitor die, it takes care of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<ProcessRef>,
    /// The pipes that are its standard streams, by their inodes: another monitor finds them again by these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pipes: Vec<u64>,
    /// It was started with files of who started it, which only that monitor has.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_files: bool,
    /// The boot these processes belong to.
    pub boot_id: String,
    /// When it was last started.
    pub started: Option<DateTime<Utc>>,
    /// When it last ended.
    pub finished: Option<DateTime<Utc>>,
    /// How it last ended: the program's code, or 128 and the number of the signal.
    pub exit_code: i32,
    /// Killed for want of memory.
    pub oom_killed: bool,
    /// Why it could not be started, or what is not known of its end.
    pub error: String,
    /// The ports as they are bound while it runs.
    pub ports: Vec<PortMapping>,
    /// How often it was started again by its policy since somebody started it.
    pub restarts: u32,
    /// It has ended, and its monitor is about to start it again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restarting: bool,
    /// Somebody ended it: it is to stay so also after a reboot.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopped_by_user: bool,
    /// How it does, when it has a health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthState>,
}

/// A container as it is at one moment.
#[derive(Clone, Debug)]
pub struct Container {
    /// What it was created with.
    pub config: Config,
    /// What has become of it.
    pub state: State,
}

impl Container {
    /// The full id.
    pub fn id(&self) -> &str {
        &self.config.id
    }

    /// The ports as they are while it runs, else as they are to be.
    pub fn ports(&self) -> &[PortMapping] {
        if self.state.status.has_process() {
            &self.state.ports
        } else {
            &self.config.ports
        }
    }
}

/// A configuration for tests.
#[cfg(test)]
pub(crate) fn test_config(name: &str) -> Config {
    Config {
        format: FORMAT,
        id: "ab".repeat(32),
        name: name.to_string(),
        created: DateTime::UNIX_EPOCH,
        image_id: String::new(),
        image_name: "localhost/test:latest".into(),
        image_digest: String::new(),
        image_config: ImageConfig::default(),
        options: Options::default(),
        network: Network::Slirp(Box::default()),
        sharing: Sharing::default(),
        arranged: None,
        ports: Vec::new(),
        names: NameOptions::default(),
        auto_remove: false,
        restart: RestartPolicy::No,
        lifecycle: Lifecycle::default(),
        cgroup: CgroupChoice::default(),
        volumes: Vec::new(),
        secrets: Vec::new(),
        create_command: Vec::new(),
        by_run: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_state_is_a_created_one() {
        let state: State = serde_json::from_str("{}").unwrap();
        assert_eq!(state.status, Status::Created);
        let text = serde_json::to_string(&State {
            status: Status::Exited,
            exit_code: 137,
            ..State::default()
        })
        .unwrap();
        let back: State = serde_json::from_str(&text).unwrap();
        assert_eq!((back.status, back.exit_code), (Status::Exited, 137));
    }
}
