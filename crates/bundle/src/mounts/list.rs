//! The mounts of a container, podman's and the user's, in the order they are to be made.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::{Source, UserMount, VolumeAt, below, image_volumes};
use crate::{Context, Error, ImageConfig, ImageVolumes, Network, Options, Share, devices, systemd};

/// Where the user's own `--init-path` is in the container.
pub(crate) const INIT: &str = "/run/podman-init";

/// The size of `/dev/shm` unless `--shm-size` says otherwise.
const SHM_SIZE: u64 = 64 << 20;

/// Lists all mounts: parents before what is below them, otherwise the container's own first, then the user's.
///
/// A mount of the user takes the place of one of ours.
///
/// # Errors
/// A bind mount whose source is missing, a volume that the context does not know.
pub(crate) fn list(
    image: &ImageConfig,
    options: &Options,
    context: &Context,
    for_systemd: bool,
) -> Result<Vec<Mount>, Error> {
    let mut all = Vec::new();
    let mut own = own(options, context, for_systemd);
    own.extend(further(options)?);
    for mount in own {
        let replaced = options.mounts.iter().any(|m| m.destination == mount.place);
        if !replaced && has_place(&mount.place, options) {
            all.push(mount);
        }
    }
    let is_free = |place: &str| {
        options.mounts.iter().all(|m| m.destination != place) && has_place(place, options)
    };
    if for_systemd {
        let size = match options.shm_size_systemd {
            Some(size) => format!(",size={size}"),
            None => String::new(),
        };
        for place in systemd::TMPFS {
            if is_free(place) {
                let words = format!("rw,rprivate,nosuid,nodev,tmpcopyup{size}");
                all.push(Entry::new(place, "tmpfs", "tmpfs", &words));
            }
        }
    }
    if options.read_only && options.read_only_tmpfs {
        let theirs = if for_systemd {
            &systemd::TMPFS[..]
        } else {
            &[]
        };
        for place in ["/run", "/tmp", "/var/tmp"] {
            if theirs.contains(&place) {
                continue;
            }
            if is_free(place) {
                all.push(Entry::new(
                    place,
                    "tmpfs",
                    "tmpfs",
                    "rw,rprivate,nosuid,nodev,tmpcopyup",
                ));
            }
        }
    }
    for mount in &options.mounts {
        all.push(users(mount, context)?);
    }
    let from_image = match options.image_volume {
        ImageVolumes::Ignore => Vec::new(),
        _ => image_volumes(image, options),
    };
    for place in from_image {
        all.push(match options.image_volume {
            ImageVolumes::Tmpfs => Entry::new(
                &place,
                "tmpfs",
                "tmpfs",
                "rprivate,rw,nodev,exec,nosuid,tmpcopyup",
            ),
            _ => {
                let options = "rprivate,rw,nodev,exec,nosuid,rbind";
                let options = options.split(',').map(str::to_string).collect();
                volume_entry(context, &place, options)?
            }
        });
    }
    all.sort_by_key(|m| m.place.split('/').count());
    Ok(all.into_iter().map(Entry::into_oci).collect())
}

/// One mount in the making.
struct Entry {
    place: String,
    kind: &'static str,
    source: PathBuf,
    options: Vec<String>,
}

impl Entry {
    fn new(place: &str, kind: &'static str, source: impl Into<PathBuf>, options: &str) -> Entry {
        let options = options.split(',').map(str::to_string).collect();
        Entry {
            place: place.to_string(),
            kind,
            source: source.into(),
            options,
        }
    }

    fn into_oci(self) -> Mount {
        let mut mount = Mount::default();
        mount
            .set_destination(PathBuf::from(self.place))
            .set_typ(Some(self.kind.to_string()))
            .set_source(Some(self.source))
            .set_options(Some(self.options));
        mount
    }
}

/// What every container has.
fn own(options: &Options, context: &Context, for_systemd: bool) -> Vec<Entry> {
    let privileged = options.privileged;
    let access = if privileged { "rw" } else { "ro" };
    // systemd makes cgroups of its own.
    let groups = if for_systemd { "rw" } else { access };
    let proc_options = match options.security.proc_opts.is_empty() {
        true => "nosuid,noexec,nodev".to_string(),
        false => options.security.proc_opts.join(","),
    };
    // sysfs shows the devices of a network namespace and can only be mounted by who owns it: on the host's network the
    // host's own /sys has to do.
    let sys = match options.network {
        Network::Private | Network::Joined => Entry::new(
            "/sys",
            "sysfs",
            "sysfs",
            &format!("nosuid,noexec,nodev,{access}"),
        ),
        Network::Host => Entry::new(
            "/sys",
            "bind",
            "/sys",
            &format!("rprivate,nosuid,noexec,nodev,{access},rbind"),
        ),
    };
    // Group 5 is "tty" wherever Linux is; where the container has no such group the option would be refused.
    let tty_group = if context.gids == 0 || context.gids > 5 {
        ",gid=5"
    } else {
        ""
    };
    let shm = format!(
        "nosuid,noexec,nodev,mode=1777,size={}",
        options.shm_size.unwrap_or(SHM_SIZE)
    );
    let mut list = vec![
        Entry::new("/proc", "proc", "proc", &proc_options),
        Entry::new(
            "/dev",
            "tmpfs",
            "tmpfs",
            "nosuid,noexec,strictatime,mode=755,size=65536k",
        ),
        Entry::new(
            "/dev/pts",
            "devpts",
            "devpts",
            &format!("nosuid,noexec,newinstance,ptmxmode=0666,mode=0620{tty_group}"),
        ),
    ];
    // A host need not have its own mounted, and only it could do so.
    if options.namespaces.ipc != Share::Host || Path::new("/dev/mqueue").is_dir() {
        list.push(Entry::new(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            "nosuid,noexec,nodev",
        ));
    }
    match options.namespaces.ipc {
        _ if options.no_shm => {}
        Share::Host => list.push(Entry::new(
            "/dev/shm",
            "bind",
            "/dev/shm",
            "bind,rprivate,nosuid,noexec,nodev",
        )),
        // That of another comes in the place of this one, by who launches it.
        Share::Private | Share::Joined => {
            list.push(Entry::new("/dev/shm", "tmpfs", "shm", &shm));
        }
    }
    // What shows the network comes last: who mounts all this may have to wait for it.
    list.push(sys);
    list.push(Entry::new(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &format!("rprivate,nosuid,noexec,nodev,relatime,{groups}"),
    ));
    let no_name = None;
    let files = [
        ("/run/.containerenv", &context.container_env_file),
        ("/etc/resolv.conf", &context.resolv_file),
        ("/etc/hosts", &context.hosts_file),
        (
            "/etc/hostname",
            match options.no_hostname {
                true => &no_name,
                false => &context.hostname_file,
            },
        ),
        ("/etc/localtime", &context.localtime_file),
    ];
    let guard = if options.read_only {
        "bind,rprivate,ro,nosuid,noexec,nodev"
    } else {
        "bind,rprivate"
    };
    for (place, file) in files {
        let Some(file) = file else { continue };
        list.push(Entry::new(place, "bind", file, guard));
        for dir in &options.chroot_dirs {
            let place = crate::parse::clean(&format!("{dir}{place}"));
            list.push(Entry::new(&place, "bind", file, guard));
        }
    }
    if privileged {
        for device in devices::find(Path::new("/dev")) {
            let place = device.display().to_string();
            list.push(Entry::new(
                &place,
                "bind",
                device,
                "slave,nosuid,noexec,rw,rbind",
            ));
        }
    }
    list
}

/// What only some containers have: devices, a first process of the user's own.
fn further(options: &Options) -> Result<Vec<Entry>, Error> {
    let mut list = Vec::new();
    if let (true, Some(path)) = (options.init, &options.init_path) {
        std::fs::metadata(path).map_err(|e| {
            Error::value(format!(
                "container-init binary not found on the host: stat {}: {}",
                path.display(),
                rcon_sys::errors::in_words(&e)
            ))
        })?;
        list.push(Entry::new(INIT, "bind", path, "bind,ro,rprivate"));
    }
    for device in &options.devices {
        let access = if device.access.contains('w') {
            "rw"
        } else {
            "ro"
        };
        let words = format!("slave,nosuid,noexec,{access},rbind");
        for (source, place) in devices::of(device)? {
            list.push(Entry::new(&place, "bind", source, &words));
        }
    }
    Ok(list)
}

/// Whether one of our mounts can be made where the user has mounted something above it.
///
/// Its mount point would have to be created in a directory of the host that the user only wanted to show; so ours comes only
/// where the mount point is there already. Volumes and tmpfs belong to the container: there it may be created.
fn has_place(place: &str, options: &Options) -> bool {
    let above = options
        .mounts
        .iter()
        .filter(|m| below(place, &m.destination));
    match above.max_by_key(|m| m.destination.len()) {
        Some(UserMount {
            source: Source::Bind(path),
            destination,
            ..
        }) => {
            let rest = place[destination.len()..].trim_start_matches('/');
            std::fs::symlink_metadata(path.join(rest)).is_ok()
        }
        _ => true,
    }
}

/// An option for the launcher: the files are given to the program's user.
const GIVE: &str = "rcon.give";

/// An option for the launcher: only this part is mounted.
const PART: &str = "rcon.part=";

/// A kind of mount for the launcher: directories over one another, each an option `lowerdir=`, the top one first; with `rw`
/// what is written goes to memory.
const LAYERS: &str = "rcon.layers";

fn users(mount: &UserMount, context: &Context) -> Result<Entry, Error> {
    let mut entry = users_source(mount, context)?;
    if mount.overlay {
        let lower = format!("lowerdir={}", entry.source.display());
        entry.kind = LAYERS;
        entry.source = "overlay".into();
        entry.options.retain(|o| o != "bind" && o != "rbind");
        entry.options.push(lower);
    }
    if mount.chown {
        entry.options.push(GIVE.into());
    }
    if let Some(path) = &mount.subpath {
        entry.options.push(format!("{PART}{path}"));
    }
    Ok(entry)
}

fn users_source(mount: &UserMount, context: &Context) -> Result<Entry, Error> {
    let (kind, source) = match &mount.source {
        Source::Bind(path) if mount.chown && is_systems(path) => {
            return Err(Error::with_hint(
                format!(
                    "chowning host path {:?} is not allowed",
                    path.display().to_string()
                ),
                format!(
                    "`rcon unshare chown -R USER {}` does it, if it is meant",
                    path.display()
                ),
            ));
        }
        Source::Bind(path) => {
            std::fs::metadata(path).map_err(|e| {
                let message = format!("statfs {}: {}", path.display(), rcon_sys::errors::in_words(&e));
                match e.kind() {
                    std::io::ErrorKind::NotFound => Error::with_hint(
                        message,
                        "only volumes with a name are made by themselves: make the folder first (mkdir -p)",
                    ),
                    _ => Error::value(message),
                }
            })?;
            ("bind", path.clone())
        }
        Source::Volume(_) | Source::Anonymous => {
            return volume_entry(context, &mount.destination, mount.options.clone());
        }
        Source::Image(name) => {
            let layers = context
                .images
                .get(&mount.destination)
                .ok_or_else(|| Error::value(format!("no files are known of the image {name}")))?;
            let lower = layers
                .iter()
                .map(|layer| format!("lowerdir={}", layer.display()));
            return Ok(Entry {
                place: mount.destination.clone(),
                kind: LAYERS,
                source: "overlay".into(),
                options: mount.options.iter().cloned().chain(lower).collect(),
            });
        }
        Source::Tmpfs => ("tmpfs", PathBuf::from("tmpfs")),
    };
    Ok(Entry {
        place: mount.destination.clone(),
        kind,
        source,
        options: mount.options.clone(),
    })
}

/// Directories that belong to everybody, whose owner is not to be changed by a slip.
fn is_systems(path: &Path) -> bool {
    const SYSTEMS: [&str; 28] = [
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib64",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",
        "/usr",
        "/usr/bin",
        "/usr/lib",
        "/usr/local",
        "/usr/share",
        "/var",
        "/var/lib",
        "/var/log",
        "/var/run",
        "/var/tmp",
    ];
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    SYSTEMS.iter().any(|systems| path == Path::new(systems))
}

/// The mount of a volume at `place`.
fn volume_entry(context: &Context, place: &str, mut options: Vec<String>) -> Result<Entry, Error> {
    let missing = || Error::value(format!("no directory is known for the volume at {place}"));
    let (kind, source) = match context.volumes.get(place).ok_or_else(missing)? {
        VolumeAt::Folder(path) => ("bind", path.clone()),
        VolumeAt::New(path) => {
            options.push(GIVE.into());
            ("bind", path.clone())
        }
        VolumeAt::Bind(path, own) => {
            for word in own {
                // What the volume says of itself, the mount says again or more strictly.
                if word == "ro" {
                    options.retain(|o| o != "rw" && o != "ro");
                }
                if !options.contains(word) {
                    options.push(word.clone());
                }
            }
            ("bind", path.clone())
        }
        VolumeAt::Tmpfs(own) => {
            options.retain(|o| o != "bind" && o != "rbind");
            options.extend(own.iter().cloned());
            ("tmpfs", PathBuf::from("tmpfs"))
        }
    };
    Ok(Entry {
        place: place.to_string(),
        kind,
        source,
        options,
    })
}

#[cfg(test)]
mod tests;
