//! containers.conf: what `run` and `create` do when nothing is said.
//!
//! The files and their order are podman's (containers.conf(5)), see [`files`]. A later file wins, field by field; a list
//! takes the place of the one before, unless it has `{append = true}` in it. Fields that mean nothing here are passed over:
//! the file is podman's too.
//!
//! This is on the way of every start: a file in which all is commented out, as distributions ship it, is not even parsed.

use std::path::{Path, PathBuf};

use rcon_engine::bundle::{Options, parse};
use rcon_sys::errors::in_words;
use serde::Deserialize;

use crate::commands::ContainerArgs;
use crate::failure::Failure;

mod files;
mod said;

use files::{candidates, is_empty, without_comments};
pub use said::said;

/// The fields we know.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    containers: Containers,
    engine: Engine,
}

/// `[containers]`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Containers {
    annotations: List,
    base_hosts_file: Option<String>,
    cgroup_conf: List,
    cgroupns: Option<String>,
    cgroups: Option<String>,
    default_capabilities: List,
    default_sysctls: List,
    default_ulimits: List,
    devices: List,
    dns_options: List,
    dns_searches: List,
    dns_servers: List,
    env: List,
    env_host: Option<bool>,
    http_proxy: Option<bool>,
    init: Option<bool>,
    init_path: Option<String>,
    ipcns: Option<String>,
    log_driver: Option<String>,
    log_size_max: Option<i64>,
    log_tag: Option<String>,
    mounts: List,
    netns: Option<String>,
    no_hosts: Option<bool>,
    oom_score_adj: Option<i32>,
    pidns: Option<String>,
    pids_limit: Option<i64>,
    privileged: Option<bool>,
    read_only: Option<bool>,
    seccomp_profile: Option<String>,
    shm_size: Option<String>,
    tz: Option<String>,
    umask: Option<String>,
    userns: Option<String>,
    utsns: Option<String>,
    volumes: List,
}

/// `[engine]`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Engine {
    cgroup_manager: Option<String>,
    detach_keys: Option<String>,
    image_default_format: Option<String>,
    image_volume_mode: Option<String>,
    init_path: Option<String>,
    multi_image_archive: Option<bool>,
    network_cmd_options: List,
    pull_policy: Option<String>,
    stop_timeout: Option<u32>,
}

/// A list that takes the place of the one before, or goes on from it.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
struct List(Option<Vec<Item>>);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Item {
    Text(String),
    How { append: bool },
}

impl List {
    fn add_to(self, all: &mut Option<Vec<String>>) {
        let Some(items) = self.0 else { return };
        let mut append = false;
        let mut words = Vec::new();
        for item in items {
            match item {
                Item::Text(text) => words.push(text),
                Item::How { append: how } => append = how,
            }
        }
        match all {
            Some(all) if append => all.extend(words),
            all => *all = Some(words),
        }
    }
}

/// What all files say together.
#[derive(Debug, Default)]
pub struct Defaults {
    /// The files that were read, in that order.
    pub files: Vec<PathBuf>,
    annotations: Option<Vec<String>>,
    cgroup_conf: Option<Vec<String>>,
    cgroups: Option<String>,
    /// Who makes cgroups.
    pub cgroup_manager: Option<String>,
    /// The keys that leave a container.
    pub detach_keys: Option<String>,
    /// Options of the user-mode network, in the words of slirp4netns.
    pub network_options: Option<Vec<String>>,
    /// The most processes of a container.
    pub pids_limit: Option<i64>,
    /// What `commit` makes.
    pub image_default_format: Option<String>,
    /// Whether `save` takes all its words for images.
    pub multi_image_archive: Option<bool>,
    base_hosts_file: Option<String>,
    init_path: Option<String>,
    log_size_max: Option<u64>,
    cgroupns: Option<String>,
    devices: Option<Vec<String>>,
    ipcns: Option<String>,
    oom_score_adj: Option<i32>,
    pidns: Option<String>,
    tz: Option<String>,
    userns: Option<String>,
    utsns: Option<String>,
    log_driver: Option<String>,
    log_tag: Option<String>,
    privileged: Option<bool>,
    capabilities: Option<Vec<String>>,
    sysctls: Option<Vec<String>>,
    ulimits: Option<Vec<String>>,
    dns_options: Option<Vec<String>>,
    dns_searches: Option<Vec<String>>,
    dns_servers: Option<Vec<String>>,
    env: Option<Vec<String>>,
    env_host: Option<bool>,
    http_proxy: Option<bool>,
    init: Option<bool>,
    mounts: Option<Vec<String>>,
    netns: Option<String>,
    no_hosts: Option<bool>,
    read_only: Option<bool>,
    seccomp_profile: Option<String>,
    shm_size: Option<String>,
    umask: Option<String>,
    volumes: Option<Vec<String>>,
    image_volume_mode: Option<String>,
    pull_policy: Option<String>,
    stop_timeout: Option<u32>,
}

impl Defaults {
    /// Reads the files there are.
    ///
    /// # Errors
    /// For a file that cannot be read, or is no such file.
    pub fn load() -> Result<Defaults, Failure> {
        let mut all = Defaults::default();
        for (path, must) in candidates() {
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must => continue,
                Err(e) => {
                    return Err(Failure::new(format!(
                        "cannot read {}: {}",
                        path.display(),
                        in_words(&e)
                    )));
                }
            };
            all.add(&path, &text)?;
        }
        Ok(all)
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<(), Failure> {
        self.files.push(path.to_path_buf());
        if is_empty(text) {
            return Ok(());
        }
        let File { containers, engine } =
            toml::from_str(&without_comments(text)).map_err(|error| {
                Failure::new(format!(
                    "cannot read {}: {}",
                    path.display(),
                    error.message()
                ))
            })?;
        containers.annotations.add_to(&mut self.annotations);
        containers.cgroup_conf.add_to(&mut self.cgroup_conf);
        containers.devices.add_to(&mut self.devices);
        engine.network_cmd_options.add_to(&mut self.network_options);
        containers
            .default_capabilities
            .add_to(&mut self.capabilities);
        containers.default_sysctls.add_to(&mut self.sysctls);
        containers.default_ulimits.add_to(&mut self.ulimits);
        containers.dns_options.add_to(&mut self.dns_options);
        containers.dns_searches.add_to(&mut self.dns_searches);
        containers.dns_servers.add_to(&mut self.dns_servers);
        containers.env.add_to(&mut self.env);
        containers.mounts.add_to(&mut self.mounts);
        containers.volumes.add_to(&mut self.volumes);
        fn later<T>(field: &mut Option<T>, value: Option<T>) {
            if value.is_some() {
                *field = value;
            }
        }
        later(&mut self.base_hosts_file, containers.base_hosts_file);
        later(&mut self.init_path, engine.init_path);
        later(&mut self.init_path, containers.init_path);
        later(&mut self.image_default_format, engine.image_default_format);
        later(&mut self.multi_image_archive, engine.multi_image_archive);
        later(&mut self.cgroupns, containers.cgroupns);
        later(&mut self.ipcns, containers.ipcns);
        later(&mut self.oom_score_adj, containers.oom_score_adj);
        later(&mut self.pidns, containers.pidns);
        later(&mut self.tz, containers.tz);
        later(&mut self.userns, containers.userns);
        later(&mut self.utsns, containers.utsns);
        later(&mut self.cgroups, containers.cgroups);
        later(&mut self.cgroup_manager, engine.cgroup_manager);
        later(&mut self.detach_keys, engine.detach_keys);
        later(&mut self.log_driver, containers.log_driver);
        later(&mut self.log_tag, containers.log_tag);
        later(&mut self.pids_limit, containers.pids_limit);
        later(&mut self.privileged, containers.privileged);
        if let Some(size) = containers.log_size_max {
            // A negative one is no limit.
            self.log_size_max = u64::try_from(size).ok();
        }
        later(&mut self.env_host, containers.env_host);
        later(&mut self.http_proxy, containers.http_proxy);
        later(&mut self.init, containers.init);
        later(&mut self.netns, containers.netns);
        later(&mut self.no_hosts, containers.no_hosts);
        later(&mut self.read_only, containers.read_only);
        later(&mut self.seccomp_profile, containers.seccomp_profile);
        later(&mut self.shm_size, containers.shm_size);
        later(&mut self.umask, containers.umask);
        later(&mut self.image_volume_mode, engine.image_volume_mode);
        later(&mut self.pull_policy, engine.pull_policy);
        later(&mut self.stop_timeout, engine.stop_timeout);
        Ok(())
    }

    /// Gives `args` what was not said; `said` tells whether a flag was.
    pub fn apply(&self, args: &mut ContainerArgs, said: impl Fn(&str) -> bool) {
        let lists = [
            (&mut args.annotation, &self.annotations),
            (&mut args.cgroup.cgroup_conf, &self.cgroup_conf),
            (&mut args.ulimit, &self.ulimits),
        ];
        for (given, defaults) in lists {
            // The user's come after, and win.
            given.splice(0..0, defaults.iter().flatten().cloned());
        }
        for (given, defaults) in [
            (&mut args.volume, &self.volumes),
            (&mut args.mount, &self.mounts),
        ] {
            for word in defaults.iter().flatten() {
                if !given.contains(word) {
                    given.push(word.clone());
                }
            }
        }
        for (given, defaults) in [
            (&mut args.dns, &self.dns_servers),
            (&mut args.dns_search, &self.dns_searches),
            (&mut args.dns_option, &self.dns_options),
        ] {
            if given.is_empty() {
                given.extend(defaults.iter().flatten().cloned());
            }
        }
        for (given, flag, default) in [
            (&mut args.env_host, "--env-host", self.env_host),
            (&mut args.init, "--init", self.init),
            (&mut args.privileged, "--privileged", self.privileged),
            (&mut args.no_hosts, "--no-hosts", self.no_hosts),
            (&mut args.read_only, "--read-only", self.read_only),
        ] {
            if let (false, Some(default)) = (said(flag), default) {
                *given = default;
            }
        }
        args.http_proxy = args.http_proxy.or(self.http_proxy);
        args.stop_timeout = args.stop_timeout.or(self.stop_timeout);
        let has = |word: &str| args.log_opt.iter().any(|opt| opt.starts_with(word));
        let (has_driver, has_size, has_tag) = (has("driver="), has("max-size="), has("tag="));
        if !has_driver && args.log_driver.is_none() {
            args.log_driver.clone_from(&self.log_driver);
        }
        if let (false, Some(size)) = (has_size, self.log_size_max) {
            args.log_opt.push(format!("max-size={size}"));
        }
        if let (false, Some(tag)) = (has_tag, &self.log_tag) {
            args.log_opt.push(format!("tag={tag}"));
        }
        let own = &mut args.isolation;
        own.oom_score_adj = own.oom_score_adj.or(self.oom_score_adj);
        if own.device.is_empty() {
            own.device.extend(self.devices.iter().flatten().cloned());
        }
        for (given, default) in [
            (&mut own.cgroupns, &self.cgroupns),
            (&mut own.init_path, &self.init_path),
            (&mut args.hosts_file, &self.base_hosts_file),
            (&mut own.ipc, &self.ipcns),
            (&mut own.pid, &self.pidns),
            (&mut own.tz, &self.tz),
            (&mut own.userns, &self.userns),
            (&mut own.uts, &self.utsns),
            (&mut args.cgroup.cgroups, &self.cgroups),
            (&mut args.shm_size, &self.shm_size),
            (&mut args.umask, &self.umask),
            (&mut args.pull, &self.pull_policy),
            (&mut args.image_volume, &self.image_volume_mode),
        ] {
            if given.is_none() {
                given.clone_from(default);
            }
        }
        if args.network.is_empty()
            && let Some(network) = &self.netns
            // The default of both, whatever it is called.
            && !["", "private", "default", "bridge"].contains(&network.as_str())
        {
            args.network.push(network.clone());
        }
        if let Some(profile) = &self.seccomp_profile
            && !args.security_opt.iter().any(|o| o.starts_with("seccomp"))
        {
            args.security_opt.push(format!("seccomp={profile}"));
        }
    }

    /// What a container begins with, and the user's words change.
    pub fn begin(&self, options: &mut Options) -> Result<(), Failure> {
        options.default_caps.clone_from(&self.capabilities);
        for word in self.sysctls.iter().flatten() {
            let setting = parse::sysctl(word).map_err(rcon_engine::Error::from)?;
            options.default_sysctls.extend(setting);
        }
        Ok(())
    }

    /// Variables that the image and the user may set otherwise.
    pub fn env(&self) -> Vec<(String, String)> {
        let words = self.env.iter().flatten();
        words
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Defaults {
        let mut all = Defaults::default();
        for text in texts {
            all.add(Path::new("/x"), text).unwrap();
        }
        all
    }

    #[test]
    fn comments_are_passed_over_but_not_strings() {
        let all = read(&[
            "# [containers]\n[containers]\n  # shm_size = \"1m\"\nenv = [\n# \"A=1\",\n\"B=#2\", # \"C=3\"\n]\n",
        ]);
        assert_eq!(all.env(), [("B".into(), "#2".into())]);
        assert_eq!(all.shm_size, None);
        let all = read(&["[containers]\nenv = [\"\"\"A=1\n# 2\"\"\"]\n"]);
        assert_eq!(all.env(), [("A".into(), "1\n# 2".into())]);
    }

    #[test]
    fn later_files_win_field_by_field() {
        let all = read(&[
            "[containers]\nenv = [\"A=1\"]\nshm_size = \"1m\"\n[engine]\nstop_timeout = 3\nruntime = \"crun\"\n",
            "[containers]\nenv = [\"B=2\", {append = true}]\n[network]\nx = 1\n",
            "[containers]\nshm_size = \"2m\"\n",
        ]);
        assert_eq!(
            all.env(),
            [("A".into(), "1".into()), ("B".into(), "2".into())]
        );
        assert_eq!(
            (all.shm_size.as_deref(), all.stop_timeout),
            (Some("2m"), Some(3))
        );
        let all = read(&[
            "[containers]\nenv = [\"A=1\"]\n",
            "[containers]\nenv = [\"B=2\"]\n",
        ]);
        assert_eq!(all.env(), [("B".into(), "2".into())]);
    }

    #[test]
    fn logs_and_limits() {
        let all = read(&[
            "[containers]\nlog_driver = \"none\"\nlog_size_max = 5000\npids_limit = 7\ncgroups = \"disabled\"\n\
             [engine]\ndetach_keys = \"ctrl-a\"\nnetwork_cmd_options = [\"mtu=1500\"]\n",
            "[containers]\nlog_size_max = -1\n",
        ]);
        assert_eq!((all.log_size_max, all.pids_limit), (None, Some(7)));
        let mut args = ContainerArgs::default();
        all.apply(&mut args, |_| false);
        assert_eq!(args.log_driver.as_deref(), Some("none"));
        assert_eq!(args.cgroup.cgroups.as_deref(), Some("disabled"));
        let mut args = ContainerArgs {
            log_opt: vec!["driver=k8s-file".into()],
            ..ContainerArgs::default()
        };
        all.apply(&mut args, |_| false);
        assert_eq!(args.log_driver, None);
    }

    #[test]
    fn what_is_commented_out_is_nothing() {
        assert!(is_empty("# x = 1\n\n[containers]\n#env = []\n [engine]\n"));
        assert!(!is_empty("[containers]\ninit = true\n"));
        assert!(
            Defaults::default()
                .add(Path::new("/x"), "[containers\ninit=")
                .is_err()
        );
    }

    #[test]
    fn what_is_said_wins() {
        let all = read(&[
            "[containers]\ninit = true\nno_hosts = true\ndns_servers = [\"9.9.9.9\"]\ndefault_capabilities = [\"CHOWN\", \"CAP_KILL\"]\nnetns = \"none\"\nvolumes = [\"/a:/b\"]\n",
        ]);
        let mut args = ContainerArgs {
            dns: vec!["1.1.1.1".into()],
            ..ContainerArgs::default()
        };
        all.apply(&mut args, |flag| flag == "--no-hosts");
        assert!(args.init && !args.no_hosts);
        assert_eq!(
            (args.dns, args.network),
            (vec!["1.1.1.1".to_string()], vec!["none".to_string()])
        );
        let mut options = Options::default();
        all.begin(&mut options).unwrap();
        let caps = ["CHOWN", "CAP_KILL"].map(String::from).to_vec();
        assert_eq!(options.default_caps, Some(caps));
        assert_eq!(args.volume, ["/a:/b"]);
    }
}
