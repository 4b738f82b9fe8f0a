//! What the files say, field by field, and what of it is followed; for `info`.

use std::path::PathBuf;

use super::Defaults;
use crate::failure::Failure;

/// The fields that are followed, as `TABLE.NAME`.
const FOLLOWED: [&str; 45] = [
    "containers.annotations",
    "containers.base_hosts_file",
    "containers.cgroup_conf",
    "containers.cgroupns",
    "containers.cgroups",
    "containers.default_capabilities",
    "containers.default_sysctls",
    "containers.default_ulimits",
    "containers.devices",
    "containers.dns_options",
    "containers.dns_searches",
    "containers.dns_servers",
    "containers.env",
    "containers.env_host",
    "containers.http_proxy",
    "containers.init",
    "containers.init_path",
    "containers.ipcns",
    "containers.log_driver",
    "containers.log_size_max",
    "containers.log_tag",
    "containers.mounts",
    "containers.netns",
    "containers.no_hosts",
    "containers.oom_score_adj",
    "containers.pidns",
    "containers.pids_limit",
    "containers.privileged",
    "containers.read_only",
    "containers.seccomp_profile",
    "containers.shm_size",
    "containers.tz",
    "containers.umask",
    "containers.userns",
    "containers.utsns",
    "containers.volumes",
    "engine.cgroup_manager",
    "engine.detach_keys",
    "engine.image_default_format",
    "engine.image_volume_mode",
    "engine.init_path",
    "engine.multi_image_archive",
    "engine.network_cmd_options",
    "engine.pull_policy",
    "engine.stop_timeout",
];

/// One field of a file, as it stands there.
#[derive(Debug)]
pub struct Said {
    /// `TABLE.NAME`
    pub name: String,
    /// Its value.
    pub value: serde_json::Value,
    /// Where it stands.
    pub file: PathBuf,
    /// Whether it means anything here.
    pub followed: bool,
}

/// All that the files say, the first file first.
///
/// # Errors
/// As [`Defaults::load`].
pub fn said() -> Result<Vec<Said>, Failure> {
    let mut all = Vec::new();
    for file in Defaults::load()?.files {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let tables: toml::Table = toml::from_str(&text).unwrap_or_default();
        for (table, fields) in &tables {
            for (field, value) in fields.as_table().into_iter().flatten() {
                let name = format!("{table}.{field}");
                all.push(Said {
                    followed: FOLLOWED.contains(&name.as_str()),
                    value: serde_json::to_value(value).unwrap_or_default(),
                    file: file.clone(),
                    name,
                });
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_followed_is_what_is_read() {
        // Of every field that is named, a value that cannot be is refused; of others it is passed over.
        for name in FOLLOWED {
            let (table, field) = name.split_once('.').unwrap();
            let text = format!("[{table}]\n{field} = {{}}\n");
            let read = Defaults::default().add(Path::new("/x"), &text);
            assert!(read.is_err(), "{name} is not read");
        }
        let other = "[engine]\nruntime = {}\n";
        assert!(Defaults::default().add(Path::new("/x"), other).is_ok());
    }
}
