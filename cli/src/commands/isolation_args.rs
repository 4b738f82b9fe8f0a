//! The options of `run` and `create` that say what a container shares with the host and with others, and what is done for
//! certain programs in it.

use std::path::PathBuf;

use clap::Args;
use rcon_engine::bundle::{self, Accounts, parse};
use rcon_engine::{Arrangement, Error, Options, Place, Sharing};

use crate::failure::Failure;
use crate::usage::{parse_bool, split_lists};

/// Namespaces, devices, users.
#[derive(Args, Debug, Default)]
pub struct IsolationArgs {
    /// Cgroup namespace to use ("host"|"private"|"container:NAME"|"ns:PATH")
    #[arg(long)]
    pub cgroupns: Option<String>,
    /// Chroot directories inside the container
    #[arg(long)]
    pub chrootdirs: Vec<String>,
    /// Add a host device to the container
    #[arg(long)]
    pub device: Vec<String>,
    /// Add a rule to the cgroup allowed devices list (refused: the kernel takes such rules from root only)
    #[arg(long)]
    pub device_cgroup_rule: Vec<String>,
    /// Preprocess environment variables from image before injecting them into the container
    #[arg(long, value_name = "stringArray")]
    pub env_merge: Vec<String>,
    /// Entry to write to /etc/group
    #[arg(long)]
    pub group_entry: Option<String>,
    /// Host user account to add to /etc/passwd within container
    #[arg(long)]
    pub hostuser: Vec<String>,
    /// Path to the container-init binary
    #[arg(long)]
    pub init_path: Option<String>,
    /// IPC namespace to use ("host"|"none"|"private"|"shareable"|"container:NAME"|"ns:PATH")
    #[arg(long)]
    pub ipc: Option<String>,
    /// Do not create /etc/hostname within the container, instead use the version from the image
    #[arg(long)]
    pub no_hostname: bool,
    /// Tune the host's OOM preferences (-1000 to 1000)
    #[arg(long, value_name = "int", allow_negative_numbers = true)]
    pub oom_score_adj: Option<i32>,
    /// Add entries to /etc/passwd and /etc/group (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    pub passwd: Option<bool>,
    /// Entry to write to /etc/passwd
    #[arg(long)]
    pub passwd_entry: Option<String>,
    /// Configure execution domain using personality (LINUX/LINUX32)
    #[arg(long)]
    pub personality: Option<String>,
    /// PID namespace to use ("host"|"private"|"container:NAME"|"ns:PATH")
    #[arg(long)]
    pub pid: Option<String>,
    /// Size of systemd specific tmpfs mounts (/run, /run/lock, /var/log/journal, /tmp)
    #[arg(long, value_name = "<number>[<unit>]")]
    pub shm_size_systemd: Option<String>,
    /// Run container in systemd mode ("true"|"false"|"always") (default "true")
    #[arg(long, num_args = 0..=1, require_equals = false, default_missing_value = "true")]
    pub systemd: Option<String>,
    /// Set timezone in container
    #[arg(long)]
    pub tz: Option<String>,
    /// GID map to use for the user namespace
    #[arg(long)]
    pub gidmap: Vec<String>,
    /// Name of range listed in /etc/subgid for use in user namespace
    #[arg(long)]
    pub subgidname: Option<String>,
    /// Name of range listed in /etc/subuid for use in user namespace
    #[arg(long)]
    pub subuidname: Option<String>,
    /// UID map to use for the user namespace
    #[arg(long)]
    pub uidmap: Vec<String>,
    /// User namespace to use ("host"|"keep-id[:uid=N,gid=N]"|"nomap"|"auto[:size=N]"|"container:NAME"|"ns:PATH")
    #[arg(long)]
    pub userns: Option<String>,
    /// UTS namespace to use ("host"|"private"|"container:NAME"|"ns:PATH")
    #[arg(long)]
    pub uts: Option<String>,
}

impl IsolationArgs {
    /// Whose namespaces it is to be in; `--ipc none` is an option by itself.
    pub fn sharing(&self) -> Result<Sharing, Failure> {
        let place = |word: &Option<String>| Place::parse(word.as_deref().unwrap_or_default());
        let ipc = match self.ipc.as_deref() {
            Some("none" | "shareable") => Place::Private,
            _ => place(&self.ipc)?,
        };
        Ok(Sharing {
            pid: place(&self.pid)?,
            ipc,
            ipc_closed: matches!(self.ipc.as_deref(), Some("private" | "none")),
            uts: place(&self.uts)?,
            cgroup: place(&self.cgroupns)?,
            user: match self.arrangement()? {
                Arrangement::Usual => match place(&self.userns)? {
                    // What podman calls the host's users are those that its containers have: the user and their
                    // subordinate ids.
                    Place::Host => Place::Private,
                    place => place,
                },
                _ => Place::Private,
            },
        })
    }

    /// How its users are to be arranged.
    pub fn arrangement(&self) -> Result<Arrangement, Failure> {
        let word = self.userns.as_deref().unwrap_or_default();
        let maps = !self.uidmap.is_empty() || !self.gidmap.is_empty();
        let names = self.subuidname.is_some() || self.subgidname.is_some();
        if !word.is_empty() && (maps || names) {
            return Err(Failure::new(
                "--userns and --uidmap/--gidmap/--subuidname/--subgidname are mutually exclusive",
            ));
        }
        if names {
            let of = |own: &Option<String>, other: &Option<String>| {
                own.clone().or_else(|| other.clone()).unwrap_or_default()
            };
            return Ok(Arrangement::Subordinate {
                users: of(&self.subuidname, &self.subgidname),
                groups: of(&self.subgidname, &self.subuidname),
            });
        }
        if maps {
            let users = runs(&self.uidmap, "UID")?;
            let groups = runs(&self.gidmap, "GID")?;
            return Ok(Arrangement::Maps {
                gid: if groups.is_empty() {
                    users.clone()
                } else {
                    groups.clone()
                },
                uid: if users.is_empty() { groups } else { users },
            });
        }
        let (kind, rest) = word.split_once(':').unwrap_or((word, ""));
        let numbers = |known: &[&str]| numbers(kind, rest, known);
        Ok(match kind {
            "keep-id" => {
                let found = numbers(&["uid", "gid"])?;
                Arrangement::KeepId {
                    uid: found[0],
                    gid: found[1],
                }
            }
            "nomap" if rest.is_empty() => Arrangement::NoMap,
            "auto" => Arrangement::Auto {
                size: numbers(&["size"])?[0],
            },
            _ => Arrangement::Usual,
        })
    }

    /// Puts the rest into `options`.
    pub fn add_to(&self, options: &mut Options) -> Result<(), Failure> {
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let refused = |error: bundle::Error| Failure::from(Error::from(error));
        for rule in split_lists(&self.device_cgroup_rule) {
            parse::device_rule(&rule).map_err(refused)?;
        }
        let mut chroot_dirs = split_lists(&self.chrootdirs);
        chroot_dirs.retain(|dir| !dir.is_empty());
        if let Some(dir) = chroot_dirs.iter().find(|dir| !dir.starts_with('/')) {
            return Err(Failure::new(format!(
                "invalid chroot directory {dir:?}, must be an absolute path"
            )));
        }
        if let Some(score) = self.oom_score_adj
            && !(-1000..=1000).contains(&score)
        {
            return Err(Failure::new(format!(
                "invalid value {score} for --oom-score-adj: must be between -1000 and 1000"
            )));
        }
        if let Some(entry) = self.env_merge.iter().find(|e| !e.contains('=')) {
            return Err(Failure::new(format!(
                "invalid environment variable {entry:?} for --env-merge: must be NAME=TEXT"
            )));
        }
        let devices = split_lists(&self.device);
        let devices = devices.iter().map(|word| parse::device(word));
        options.devices = devices.collect::<Result<_, _>>().map_err(refused)?;
        options.chroot_dirs = chroot_dirs;
        options.env_merge.clone_from(&self.env_merge);
        options.accounts = Accounts {
            add: self.passwd.unwrap_or(true),
            host_users: split_lists(&self.hostuser),
            passwd_entry: self.passwd_entry.clone(),
            group_entry: self.group_entry.clone(),
        };
        options.no_hostname = self.no_hostname;
        options.no_shm = self.ipc.as_deref() == Some("none");
        options.oom_score_adj = self.oom_score_adj;
        if let Some(path) = &self.init_path
            && options.init
        {
            options.init_path = Some(parse::init_path(path, &here).map_err(refused)?);
        }
        let personality = self.personality.as_deref().map(parse::personality);
        options.personality = personality.transpose().map_err(refused)?;
        let size = self.shm_size_systemd.as_deref();
        let size = size.filter(|text| !text.is_empty()).map(parse::bytes);
        options.shm_size_systemd = size.transpose().map_err(|error| {
            Failure::new(format!("unable to translate --shm-size-systemd: {error}"))
        })?;
        if let Some(word) = &self.systemd {
            options.systemd = parse::systemd(word).map_err(refused)?;
        }
        let zone = self.tz.as_deref().map(parse::time_zone);
        options.tz = zone.transpose().map_err(refused)?.flatten();
        if options.group_add.iter().any(|group| group == KEEP_GROUPS) {
            if options.group_add.len() > 1 {
                return Err(Failure::new(
                    "the '--group-add keep-groups' option is not allowed with any other --group-add options",
                ));
            }
            options.group_add.clear();
            options.keep_groups = true;
        }
        Ok(())
    }
}

/// The values of `NAME=NUMBER,…`, in the order of the names.
fn numbers(kind: &str, words: &str, known: &[&str]) -> Result<Vec<Option<u32>>, Failure> {
    let mut found = vec![None; known.len()];
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let Some(at) = known.iter().position(|known| *known == name) else {
            return Err(Failure::new(format!(
                "unknown option specified for --userns {kind}: {word:?}"
            ))
            .hint(format!("{kind} takes {}", known.join("= and ") + "=")));
        };
        let number = value
            .parse::<u32>()
            .ok()
            .filter(|number| *number < u32::MAX);
        found[at] = Some(number.ok_or_else(|| {
            Failure::new(format!(
                "invalid value {value:?} for {name} of --userns {kind}"
            ))
        })?);
    }
    Ok(found)
}

/// `--uidmap` and `--gidmap`: `CONTAINER:HOST:SIZE`.
fn runs(words: &[String], kind: &str) -> Result<Vec<(u32, u32, u32)>, Failure> {
    let words = split_lists(words);
    let runs = words.iter().map(|word| {
        let parts: Vec<Option<u32>> = word.split(':').map(|part| part.parse().ok()).collect();
        match parts[..] {
            [Some(container), Some(host), Some(size)] => Ok((container, host, size)),
            _ => Err(Failure::new(format!(
                "initializing ID mappings: {kind} setting is malformed expected [\"uint32:uint32:uint32\"]: [{word:?}]"
            ))),
        }
    });
    runs.collect()
}

/// The word that stands for the groups of the caller.
const KEEP_GROUPS: &str = "keep-groups";

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(args: IsolationArgs) -> String {
        match args.sharing() {
            Ok(_) => args.add_to(&mut Options::default()).unwrap_err().message,
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn whose_namespaces() {
        let args = |ipc: &str| IsolationArgs {
            ipc: Some(ipc.into()),
            userns: Some("host".into()),
            pid: Some("container:x".into()),
            ..IsolationArgs::default()
        };
        let sharing = args("none").sharing().unwrap();
        assert_eq!(sharing.pid, Place::Container("x".into()));
        assert_eq!(
            (sharing.user, sharing.ipc),
            (Place::Private, Place::Private)
        );
        assert!(sharing.ipc_closed && !args("shareable").sharing().unwrap().ipc_closed);
        assert_eq!(args("host").sharing().unwrap().ipc, Place::Host);
        assert_eq!(
            refused(args("foo")),
            "unrecognized namespace mode foo passed"
        );
    }

    #[test]
    fn in_podmans_words() {
        let with = |change: &dyn Fn(&mut IsolationArgs)| {
            let mut args = IsolationArgs::default();
            change(&mut args);
            refused(args)
        };
        assert_eq!(
            with(&|a| a.systemd = Some("foo".into())),
            "invalid config provided: --systemd values must be one of \"true, false, always\": invalid configuration"
        );
        assert_eq!(
            with(&|a| a.tz = Some("Foo/Bar".into())),
            "running container create option: stat /usr/share/zoneinfo/Foo/Bar: no such file or directory"
        );
        assert_eq!(
            with(&|a| a.device = vec!["/dev/null:x:y".into()]),
            "invalid device mode: y"
        );
        assert_eq!(
            with(&|a| a.device_cgroup_rule = vec!["c 1:3 r".into()]),
            "device cgroup rules are not supported in rootless mode or in a user namespace"
        );
        let mut options = Options {
            group_add: vec!["keep-groups".into(), "5".into()],
            ..Options::default()
        };
        let failure = IsolationArgs::default().add_to(&mut options).unwrap_err();
        assert_eq!(
            failure.message,
            "the '--group-add keep-groups' option is not allowed with any other --group-add options"
        );
    }
}
