//! What a bug report needs: the machine, and what rcon makes of it.

use std::fs;
use std::path::Path;

use serde::Serialize;

use rcon_store::Driver;

use crate::error::Result;
use crate::{Engine, ListRequest, Status};

/// The machine and what rcon makes of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// The machine.
    pub host: Host,
    /// Images and containers.
    pub store: StoreInfo,
    /// What rcon relies on here, step by step, and why it is not better.
    pub ladder: Vec<Step>,
    /// The program.
    pub version: Version,
}

/// The machine.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// As Go names it, `amd64`.
    pub arch: String,
    /// Processors this process may use.
    pub cpus: usize,
    /// `v2`, `v1` or `hybrid`.
    pub cgroup_version: String,
    /// Name and version of the distribution.
    pub distribution: Distribution,
    /// Of the kernel (utsname).
    pub hostname: String,
    /// Its release.
    pub kernel: String,
    /// Bytes.
    pub mem_total: u64,
    /// Bytes that could be had.
    pub mem_available: u64,
    /// Bytes of swap.
    pub swap_total: u64,
    /// Bytes of it that are free.
    pub swap_free: u64,
    /// Always `linux`.
    pub os: String,
    /// Whether we are somebody else than root.
    pub rootless: bool,
    /// The ids of containers.
    pub id_mappings: IdMappings,
    /// Since the machine started, in seconds.
    pub uptime: u64,
}

/// From os-release(5).
#[derive(Clone, Debug, Default, Serialize)]
pub struct Distribution {
    /// `ID`.
    pub distribution: String,
    /// `VERSION_ID`.
    pub version: String,
}

/// The ids of containers, as podman shows them.
#[derive(Clone, Debug, Serialize)]
pub struct IdMappings {
    /// Users.
    pub uidmap: Vec<IdMapping>,
    /// Groups.
    pub gidmap: Vec<IdMapping>,
}

/// One run of ids.
#[derive(Clone, Debug, Serialize)]
pub struct IdMapping {
    /// The first inside.
    pub container_id: u32,
    /// The first outside.
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// Images and containers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreInfo {
    /// Where they are.
    pub graph_root: String,
    /// Where running containers have their sockets.
    pub run_root: String,
    /// The file system under `graph_root`.
    pub backing_filesystem: String,
    /// Its size in bytes.
    pub allocated: u64,
    /// Bytes of it that are in use, by whatever.
    pub used: u64,
    /// What makes one tree of the layers, as podman names it.
    pub graph_driver: String,
    /// fuse-overlayfs, where that does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_program: Option<String>,
    /// Stores of others that are read as well.
    pub image_stores: Vec<String>,
    /// How many images.
    pub images: usize,
    /// How many containers.
    pub containers: usize,
    /// How many of them run.
    pub running: usize,
    /// How many have ended or were never started.
    pub stopped: usize,
}

/// One step of the ladder.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What it is about: `namespaces`, `ids`, `network`.
    pub part: String,
    /// What is used.
    pub used: String,
    /// Why it is nothing better, with the remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The program.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Of rcon.
    pub version: String,
    /// `os/arch`.
    pub os_arch: String,
}

impl Engine {
    /// Looks around.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn info(&self) -> Result<Info> {
        let containers = self.list(&ListRequest {
            all: true,
            ..ListRequest::default()
        })?;
        let running = containers
            .iter()
            .filter(|c| c.state.status == Status::Running)
            .count();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let system = rustix::system::uname();
        let text = |t: &std::ffi::CStr| t.to_string_lossy().into_owned();
        let arch = go_arch().to_string();
        let driver = self.store.driver(&self.paths.wish)?;
        let (allocated, used) = match rustix::fs::statvfs(&self.paths.root) {
            Ok(fs) => (
                fs.f_blocks * fs.f_frsize,
                fs.f_blocks.saturating_sub(fs.f_bfree) * fs.f_frsize,
            ),
            Err(_) => (0, 0),
        };
        Ok(Info {
            host: Host {
                cpus: std::thread::available_parallelism().map_or(1, usize::from),
                cgroup_version: cgroup_version().into(),
                distribution: distribution(&crate::doctor::os_release()),
                hostname: text(system.nodename()),
                kernel: text(system.release()),
                mem_total: kibibytes(&memory, "MemTotal:"),
                mem_available: kibibytes(&memory, "MemAvailable:"),
                swap_total: kibibytes(&memory, "SwapTotal:"),
                swap_free: kibibytes(&memory, "SwapFree:"),
                os: "linux".into(),
                rootless: !rustix::process::geteuid().is_root(),
                id_mappings: IdMappings {
                    uidmap: mappings(&self.maps.uid),
                    gidmap: mappings(&self.maps.gid),
                },
                uptime: uptime(),
                arch: arch.clone(),
            },
            store: StoreInfo {
                graph_root: self.paths.root.display().to_string(),
                run_root: self.paths.runroot.display().to_string(),
                backing_filesystem: filesystem(&self.paths.root),
                allocated,
                used,
                graph_driver: match &driver {
                    Driver::Overlay | Driver::Fuse { .. } => "overlay",
                    Driver::Copy { .. } => "vfs",
                }
                .into(),
                mount_program: match &driver {
                    Driver::Fuse { program, .. } => Some(program.display().to_string()),
                    _ => None,
                },
                image_stores: self
                    .store
                    .additional()
                    .map(|root| root.display().to_string())
                    .collect(),
                images: self.store.images()?.len(),
                containers: containers.len(),
                running,
                stopped: containers.len() - running,
            },
            ladder: self.ladder(),
            version: Version {
                version: env!("CARGO_PKG_VERSION").into(),
                os_arch: format!("linux/{arch}"),
            },
        })
    }

    fn ladder(&self) -> Vec<Step> {
        let steps = self.examine().into_iter().map(|finding| Step {
            part: finding.part,
            used: finding.used,
            why: finding.why.map(|why| match finding.remedy {
                Some(remedy) => format!("{why}; {remedy}"),
                None => why,
            }),
        });
        steps.collect()
    }
}

fn mappings(ranges: &[rcon_sys::ids::IdRange]) -> Vec<IdMapping> {
    ranges
        .iter()
        .map(|r| IdMapping {
            container_id: r.container,
            host_id: r.host,
            size: r.len,
        })
        .collect()
}

/// The machine's architecture as Go and image platforms name it.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn distribution(os_release: &str) -> Distribution {
    let value = |key: &str| {
        let line = os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default()
            .trim_matches(['"', '\''])
            .to_string()
    };
    Distribution {
        distribution: value("ID"),
        version: value("VERSION_ID"),
    }
}

fn kibibytes(meminfo: &str, key: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number
        .and_then(|n| n.parse::<u64>().ok())
        .unwrap_or_default()
        * 1024
}

fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.')
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or_default()
}

fn cgroup_version() -> &'static str {
    match (
        Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        Path::new("/sys/fs/cgroup/unified").exists(),
    ) {
        (true, _) => "v2",
        (false, true) => "hybrid",
        (false, false) => "v1",
    }
}

/// The type of the file system that holds `path`: of the mounts above it, the longest and last.
fn filesystem(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((Path::new(words.next()?), words.next()?))
    });
    let above = mounts.filter(|(at, _)| path.starts_with(at));
    above
        .max_by_key(|(at, _)| at.as_os_str().len())
        .map_or_else(String::new, |(_, kind)| kind.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_system_are_read() {
        let release = "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n";
        let distribution = distribution(release);
        assert_eq!(
            (
                distribution.distribution.as_str(),
                distribution.version.as_str()
            ),
            ("debian", "12")
        );
        assert_eq!(
            kibibytes("MemTotal:  100 kB\nMemFree: 1 kB\n", "MemTotal:"),
            102_400
        );
        assert_eq!(kibibytes("", "MemTotal:"), 0);
        assert_ne!(filesystem(Path::new("/")), "");
    }
}
