//! The options that `run` and `create` share, as they are said.

use std::path::PathBuf;

use clap::Args;

use super::health_args::HealthArgs;
use super::isolation_args::IsolationArgs;
use super::limit_args::{CgroupArgs, LimitArgs};
use super::pull::RegistryArgs;
use crate::usage::parse_bool;

/// The options of a container to be made.
#[derive(Args, Debug, Default)]
pub struct ContainerArgs {
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long)]
    pub add_host: Vec<String>,
    /// Add annotations to container (key=value)
    #[arg(long)]
    pub annotation: Vec<String>,
    /// Add capabilities to the container
    #[arg(long)]
    pub cap_add: Vec<String>,
    /// Drop capabilities from the container
    #[arg(long)]
    pub cap_drop: Vec<String>,
    /// Write the container ID to the file
    #[arg(long)]
    pub cidfile: Option<PathBuf>,
    /// Path to the file that will receive the PID of the monitor
    #[arg(long)]
    pub conmon_pidfile: Option<PathBuf>,
    /// Set custom DNS servers
    #[arg(long)]
    pub dns: Vec<String>,
    /// Set custom DNS options
    #[arg(long, alias = "dns-opt")]
    pub dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long)]
    pub dns_search: Vec<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long)]
    pub entrypoint: Option<String>,
    /// Set environment variables in container
    #[arg(short = 'e', long, value_name = "stringArray")]
    pub env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long)]
    pub env_file: Vec<String>,
    /// Use all current host environment variables in container
    #[arg(long)]
    pub env_host: bool,
    /// Expose a port or a range of ports
    #[arg(long)]
    pub expose: Vec<String>,
    /// Add additional groups to the primary container process ('keep-groups' lets it use those of the caller)
    #[arg(long)]
    pub group_add: Vec<String>,
    /// Set container hostname
    #[arg(short = 'h', long)]
    pub hostname: Option<String>,
    /// Set proxy environment variables in the container based on the host proxy vars (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    pub http_proxy: Option<bool>,
    /// What becomes of the volumes of the image ("anonymous"|"tmpfs"|"ignore") (default "anonymous")
    #[arg(long)]
    pub image_volume: Option<String>,
    /// Run an init binary inside the container that forwards signals and reaps processes
    #[arg(long)]
    pub init: bool,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// Set metadata on container
    #[arg(short = 'l', long, value_name = "stringArray")]
    pub label: Vec<String>,
    /// Read in a line delimited file of labels
    #[arg(long)]
    pub label_file: Vec<String>,
    /// Logging driver for the container ("k8s-file"|"json-file"|"journald"|"none"|"passthrough") (default "k8s-file")
    #[arg(long)]
    pub log_driver: Option<String>,
    /// Logging driver options (max-size, max-file, path, tag)
    #[arg(long, value_name = "stringArray")]
    pub log_opt: Vec<String>,
    /// Attach a filesystem mount to the container
    #[arg(long, value_name = "stringArray")]
    pub mount: Vec<String>,
    /// Assign a name to the container
    #[arg(long)]
    pub name: Option<String>,
    /// Connect a container to a network ("slirp4netns[:OPTIONS]"|"none"|"host"|"container:NAME"|"ns:PATH")
    #[arg(long, alias = "net", value_name = "stringArray")]
    pub network: Vec<String>,
    /// Base file to create the /etc/hosts file inside the container, or "none" (default the host's /etc/hosts)
    #[arg(long)]
    pub hosts_file: Option<String>,
    /// Do not create /etc/hosts within the container, instead use the version from the image
    #[arg(long)]
    pub no_hosts: bool,
    /// Write the container process ID to the file
    #[arg(long)]
    pub pidfile: Option<PathBuf>,
    /// Give extended privileges to container
    #[arg(long)]
    pub privileged: bool,
    /// Publish a container's port, or a range of ports, to the host
    #[arg(short = 'p', long)]
    pub publish: Vec<String>,
    /// Publish all exposed ports to random ports on the host interface
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Pull image policy ("always"|"missing"|"never"|"newer") (default "missing")
    #[arg(long)]
    pub pull: Option<String>,
    /// Make containers root filesystem read-only
    #[arg(long)]
    pub read_only: bool,
    /// When running containers in read-only mode mount a read-write tmpfs on /run, /tmp and /var/tmp (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    pub read_only_tmpfs: Option<bool>,
    /// If a container with the same name exists, replace it
    #[arg(long)]
    pub replace: bool,
    /// Restart policy to apply when a container exits ("always"|"no"|"on-failure[:max_retries]"|"unless-stopped")
    #[arg(long)]
    pub restart: Option<String>,
    /// Remove container after exit
    #[arg(long)]
    pub rm: bool,
    /// Control sd-notify behavior ("container"|"conmon"|"healthy"|"ignore") (default "container")
    #[arg(long)]
    pub sdnotify: Option<String>,
    /// Security options
    #[arg(long, value_name = "stringArray")]
    pub security_opt: Vec<String>,
    /// Size of /dev/shm (format: <number>[<unit>], where unit = b (bytes), k (kibibytes), m (mebibytes), or g (gibibytes))
    #[arg(long, value_name = "<number>[<unit>]")]
    pub shm_size: Option<String>,
    /// Add secret to container
    #[arg(long, value_name = "stringArray")]
    pub secret: Vec<String>,
    /// Signal to stop a container. Default is SIGTERM
    #[arg(long)]
    pub stop_signal: Option<String>,
    /// Seconds that containers stopped by user command have to exit before SIGKILL (default 10)
    #[arg(long, value_name = "uint")]
    pub stop_timeout: Option<u32>,
    /// Sysctl options
    #[arg(long)]
    pub sysctl: Vec<String>,
    /// Maximum length of time a container is allowed to run (in seconds)
    #[arg(long, value_name = "uint")]
    pub timeout: Option<u32>,
    /// Mount a temporary filesystem (tmpfs) into a container
    #[arg(long, value_name = "tmpfs")]
    pub tmpfs: Vec<String>,
    /// Allocate a pseudo-TTY for container
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Ulimit options
    #[arg(long)]
    pub ulimit: Vec<String>,
    /// Set umask in container (default "0022")
    #[arg(long)]
    pub umask: Option<String>,
    /// Unset environment default variables in container
    #[arg(long, value_name = "stringArray")]
    pub unsetenv: Vec<String>,
    /// Unset all default environment variables in container
    #[arg(long)]
    pub unsetenv_all: bool,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short = 'u', long)]
    pub user: Option<String>,
    /// Bind mount a volume into the container
    #[arg(short = 'v', long, value_name = "stringArray")]
    pub volume: Vec<String>,
    /// Mount volumes from the specified container(s)
    #[arg(long)]
    pub volumes_from: Vec<String>,
    /// Working directory inside the container
    #[arg(short = 'w', long)]
    pub workdir: Option<String>,
    /// What it may use of the machine.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// What it shares with the host and with others.
    #[command(flatten)]
    pub isolation: IsolationArgs,
    /// Its health checks.
    #[command(flatten)]
    pub health: HealthArgs,
    /// Its cgroup.
    #[command(flatten)]
    pub cgroup: CgroupArgs,
    /// How its image is fetched.
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// The image and the command with its arguments.
    #[arg(trailing_var_arg = true)]
    pub args: Vec<String>,
}
