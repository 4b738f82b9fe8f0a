//! From an image's configuration and a user's options to an OCI runtime specification.
//!
//! [`build`] is a function of what it is given and of a few looks at the host: whether the sources of bind mounts exist, which
//! devices there are, what a seccomp profile file says, how ready the kernel is to kill us. It knows nothing of where images,
//! volumes and containers are kept; what it needs from there comes in a [`Context`]. The defaults are podman's, so that a container moved from there behaves the
//! same: its command, environment, capabilities, mounts, masked paths and system call filter.
//!
//! Users and groups are left as the user wrote them ([`Bundle::user`]), since names can only be looked up inside the root
//! file system; the specification carries 0:0.
//!
//! To read in this order: `options` has what can be asked for, `image_config` what an image says; [`build`] goes through
//! them part by part (`command`, `env`, `caps`, `limits`, `mounts`, `linux`, `seccomp`); [`parse`] and [`resources`] read the
//! words of a command line. Nothing here starts, mounts or writes anything.

#![forbid(unsafe_code)]

mod caps;
mod command;
mod devices;
mod env;
mod error;
mod image_config;
mod limits;
mod linux;
mod mounts;
mod options;
pub mod parse;
pub mod resources;
pub mod seccomp;
mod systemd;

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::{Process, Root, Spec, User};
use serde_json::Value;

pub use caps::{Caps, capabilities, capability_names};
pub use command::{Command, command, display, shown};
pub use error::Error;
pub use image_config::ImageConfig;
pub use limits::HardLimits;
pub use mounts::{Source, UserMount, VolumeAt, VolumeUse, combine, volumes};
pub use options::{
    Accounts, Device, ImageVolumes, Namespaces, Network, Options, Personality, Share, SystemdMode,
};
pub use resources::Resources;

/// What surrounds a container: its identity, its own files on the host, its volumes, and what the host allows.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The full id; its first 12 digits are the default host name.
    pub container_id: String,
    /// The host's own name, which a container on the host's network has too; that of the other container for one that
    /// shares its names.
    pub host_name: String,
    /// What becomes `/etc/resolv.conf`; `None` leaves the image's.
    pub resolv_file: Option<PathBuf>,
    /// What becomes `/etc/hosts`; `None` leaves the image's.
    pub hosts_file: Option<PathBuf>,
    /// What becomes `/etc/hostname`; `None` leaves the image's.
    pub hostname_file: Option<PathBuf>,
    /// What becomes `/run/.containerenv`; `None` makes none.
    pub container_env_file: Option<PathBuf>,
    /// What becomes `/etc/localtime`; `None` leaves the image's.
    pub localtime_file: Option<PathBuf>,
    /// The directory of each volume that [`volumes`] asked for, by destination.
    pub volumes: BTreeMap<String, VolumeAt>,
    /// The layers of each image that is mounted, the top one first, by destination.
    pub images: BTreeMap<String, Vec<PathBuf>>,
    /// How many user ids the container has, counted from 0; 0 is taken for "all".
    pub uids: u32,
    /// How many group ids the container has, counted from 0; 0 is taken for "all".
    pub gids: u32,
    /// The resource limits that cannot be exceeded.
    pub limits: HardLimits,
}

/// A container ready to be launched.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The specification. Its `root.path` is a placeholder; the launcher is told the root file system by itself.
    pub spec: Spec,
    /// The name it has for itself, also where that is not its own to set.
    pub hostname: String,
    /// `name|uid[:group|gid]`, to be resolved inside the root file system; `None` is root.
    pub user: Option<String>,
    /// Further groups, names or ids.
    pub group_add: Vec<String>,
    /// Whether a missing working directory is to be made: it is the image's word, not the user's.
    pub create_cwd: bool,
    /// The command without the entrypoint, as `ps` shows it.
    pub command: Vec<String>,
    /// The signal that stops the container.
    pub stop_signal: i32,
    /// Whether it is set up for systemd.
    pub for_systemd: bool,
    /// The labels of image and user.
    pub labels: BTreeMap<String, String>,
    /// The image's health check, as it stands.
    pub healthcheck: Option<Value>,
}

/// Builds the specification of a container.
///
/// # Errors
/// When nothing says what to run, the source of a bind mount is missing, options contradict one another or the host's
/// limits, or a seccomp profile cannot be used; with podman's messages.
pub fn build(image: &ImageConfig, options: &Options, context: &Context) -> Result<Bundle, Error> {
    let mut command = command(image, options)?;
    let for_systemd = systemd::is_wanted(options, &command.args);
    if let (true, Some(_)) = (options.init, &options.init_path) {
        let words = [mounts::list::INIT, "--"].map(String::from);
        command.args.splice(0..0, words);
    }
    let user = options
        .user
        .clone()
        .filter(|u| !u.is_empty())
        .or_else(|| image.user.clone());
    let caps = capabilities(options, user.as_deref())?;
    let hostname = hostname(options, context)?;
    let (cwd, create_cwd) = working_dir(image, options, context)?;

    let mut oci_user = User::default();
    oci_user.set_umask(Some(options.umask.unwrap_or(0o022)));
    let uuid = for_systemd.then_some(context.container_id.as_str());
    let mut process = Process::default();
    process
        .set_terminal(Some(options.tty))
        .set_user(oci_user)
        .set_args(Some(command.args))
        .set_env(Some(env::list(image, options, &hostname, uuid)))
        .set_cwd(PathBuf::from(cwd))
        .set_capabilities(Some(caps.to_oci()))
        .set_rlimits(Some(limits::list(options, context)?))
        .set_oom_score_adj(options.oom_score_adj.map(limits::oom_score))
        .set_no_new_privileges(Some(options.security.no_new_privileges));
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs"))
        .set_readonly(Some(options.read_only));
    let mut spec = Spec::default();
    spec.set_version("1.2.0".into())
        .set_root(Some(root))
        .set_hostname((options.namespaces.uts == Share::Private).then(|| hostname.clone()))
        .set_mounts(Some(mounts::list::list(
            image,
            options,
            context,
            for_systemd,
        )?))
        .set_process(Some(process))
        .set_annotations(Some(options.annotations.clone().into_iter().collect()))
        .set_linux(Some(linux::linux(options, context, &caps)?));

    let mut labels = image.labels.clone();
    labels.extend(options.labels.clone());
    Ok(Bundle {
        spec,
        hostname,
        user,
        group_add: options
            .group_add
            .iter()
            .filter(|g| !g.is_empty())
            .cloned()
            .collect(),
        create_cwd,
        command: command.shown,
        stop_signal: stop_signal(image, options),
        for_systemd,
        labels,
        healthcheck: image.healthcheck.clone(),
    })
}

/// SIGTERM unless the user or, in a form that can be understood, the image says otherwise, or it is systemd that runs.
pub fn stop_signal(image: &ImageConfig, options: &Options) -> i32 {
    let images = || {
        image
            .stop_signal
            .as_deref()
            .and_then(|s| parse::signal(s).ok())
    };
    let systemds = || {
        let command = command(image, options).ok()?;
        systemd::is_wanted(options, &command.args).then_some(systemd::STOP)
    };
    let said = options.stop_signal.or_else(images);
    said.or_else(systemds).unwrap_or(15)
}

/// The longest host name Linux takes, see uname(2).
const HOST_NAME_MAX: usize = 64;

fn hostname(options: &Options, context: &Context) -> Result<String, Error> {
    match options.hostname.as_deref() {
        Some(name) if !name.is_empty() && options.namespaces.uts != Share::Private => {
            Err(Error::value(format!(
                "invalid config provided: cannot set hostname when running in the {} UTS namespace: invalid configuration",
                match options.namespaces.uts {
                    Share::Host => "host",
                    _ => "other container's",
                }
            )))
        }
        None | Some("") => Ok(match (options.network, options.namespaces.uts) {
            (Network::Host, _) | (_, Share::Host | Share::Joined)
                if !context.host_name.is_empty() =>
            {
                context.host_name.clone()
            }
            _ => context.container_id.chars().take(12).collect(),
        }),
        Some(name) if name.len() > HOST_NAME_MAX || name.chars().any(|c| c.is_control()) => {
            Err(Error::value(format!(
                "invalid host name {name:?}: at most {HOST_NAME_MAX} bytes, no control characters"
            )))
        }
        Some(name) => Ok(name.to_string()),
    }
}

/// The working directory, and whether it may be made.
///
/// It is cleaned as text: `/a/..` is `/`, never what a symbolic link `/a` makes of it.
fn working_dir(
    image: &ImageConfig,
    options: &Options,
    context: &Context,
) -> Result<(String, bool), Error> {
    match options.workdir.as_deref().filter(|w| !w.is_empty()) {
        Some(path) if !path.starts_with('/') || path.contains('\0') => Err(Error::NoWorkdir {
            path: path.to_owned(),
            container: context.container_id.clone(),
        }),
        Some(path) => Ok((parse::clean(path), false)),
        None => Ok((
            parse::clean(
                &image
                    .working_dir
                    .as_deref()
                    .unwrap_or("/")
                    .replace('\0', ""),
            ),
            true,
        )),
    }
}

#[cfg(test)]
mod tests;
