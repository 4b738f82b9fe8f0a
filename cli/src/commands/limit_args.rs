//! The limits of a container, as `run`, `create` and `update` take them.

use clap::Args;
use rcon_engine::bundle::resources::{self, DeviceRate, Resources};
use rcon_engine::{CgroupChoice, CgroupMode, Error, Manager};

use crate::failure::Failure;
use crate::usage::split_lists;

/// What a container may use of the machine.
#[derive(Args, Debug, Default)]
pub struct LimitArgs {
    /// Block IO relative weight (between 10 and 1000)
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// Block IO relative weight of a device (DEVICE_NAME:WEIGHT)
    #[arg(long, value_name = "DEVICE_NAME:WEIGHT")]
    pub blkio_weight_device: Vec<String>,
    /// Limit the CPU CFS (Completely Fair Scheduler) period
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// Limit the CPU CFS (Completely Fair Scheduler) quota
    #[arg(long)]
    pub cpu_quota: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short = 'c', long)]
    pub cpu_shares: Option<u64>,
    /// Number of CPUs (0 is no limit)
    #[arg(long)]
    pub cpus: Option<String>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes (MEMs) in which to allow execution (0-3, 0,1)
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Limit read rate (bytes per second) from a device (e.g. --device-read-bps=/dev/sda:1mb)
    #[arg(long)]
    pub device_read_bps: Vec<String>,
    /// Limit read rate (IO per second) from a device (e.g. --device-read-iops=/dev/sda:1000)
    #[arg(long)]
    pub device_read_iops: Vec<String>,
    /// Limit write rate (bytes per second) to a device (e.g. --device-write-bps=/dev/sda:1mb)
    #[arg(long)]
    pub device_write_bps: Vec<String>,
    /// Limit write rate (IO per second) to a device (e.g. --device-write-iops=/dev/sda:1000)
    #[arg(long)]
    pub device_write_iops: Vec<String>,
    /// Memory limit (format: <number>[<unit>], where unit = b (bytes), k (kibibytes), m (mebibytes), or g (gibibytes))
    #[arg(short = 'm', long, value_name = "<number>[<unit>]")]
    pub memory: Option<String>,
    /// Memory soft limit (format: <number>[<unit>])
    #[arg(long, value_name = "<number>[<unit>]")]
    pub memory_reservation: Option<String>,
    /// Limit of memory and swap together ('-1' for unlimited swap)
    #[arg(long, value_name = "<number>[<unit>]")]
    pub memory_swap: Option<String>,
    /// Tune container memory swappiness (0 to 100, or -1 for the system's; cgroups of version 1 only)
    #[arg(long)]
    pub memory_swappiness: Option<i64>,
    /// Limit of processes and threads (-1 for unlimited)
    #[arg(long)]
    pub pids_limit: Option<i64>,
}

impl LimitArgs {
    /// The limits.
    ///
    /// # Errors
    /// For values that are none, and limits that do not go together.
    pub fn resolve(&self) -> Result<Resources, Failure> {
        let memory = |flag: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| resources::memory(flag, text))
                .transpose()
                .map_err(Error::from)
        };
        type Read = fn(&str) -> Result<DeviceRate, rcon_engine::bundle::Error>;
        let devices = |words: &[String], read: Read| -> Result<Vec<DeviceRate>, Failure> {
            let list: Result<Vec<_>, _> = split_lists(words).iter().map(|w| read(w)).collect();
            Ok(list.map_err(Error::from)?)
        };
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let all = Resources {
            memory: memory("memory", &self.memory)?,
            memory_swap: self
                .memory_swap
                .as_deref()
                .map(resources::memory_swap)
                .transpose()
                .map_err(Error::from)?,
            memory_reservation: memory("memory-reservation", &self.memory_reservation)?,
            memory_swappiness: match self.memory_swappiness {
                None | Some(-1) => None,
                Some(value) => Some(u64::try_from(value).ok().filter(|v| *v <= 100).ok_or_else(
                    || {
                        Failure::new(format!(
                            "invalid value: {value}, valid memory swappiness range is 0-100"
                        ))
                    },
                )?),
            },
            oom_kill_disable: false,
            nano_cpus: self
                .cpus
                .as_deref()
                .map(resources::cpus)
                .transpose()
                .map_err(Error::from)?,
            cpu_shares: self.cpu_shares,
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpuset_cpus: text(&self.cpuset_cpus),
            cpuset_mems: text(&self.cpuset_mems),
            pids_limit: self.pids_limit,
            blkio_weight: self.blkio_weight,
            blkio_weight_devices: devices(&self.blkio_weight_device, resources::device_weight)?,
            read_bps: devices(&self.device_read_bps, resources::bytes_a_second)?,
            write_bps: devices(&self.device_write_bps, resources::bytes_a_second)?,
            read_iops: devices(&self.device_read_iops, resources::operations_a_second)?,
            write_iops: devices(&self.device_write_iops, resources::operations_a_second)?,
            unified: Default::default(),
        };
        all.check().map_err(Error::from)?;
        Ok(all)
    }
}

/// Where a new container's cgroup is.
#[derive(Args, Debug, Default)]
pub struct CgroupArgs {
    /// Configure cgroup v2 (key=value)
    #[arg(long)]
    pub cgroup_conf: Vec<String>,
    /// Parent cgroup of the container: a slice of systemd, or a folder
    #[arg(long)]
    pub cgroup_parent: Option<String>,
    /// Whether the container has a cgroup of its own ("enabled"|"disabled"|"no-conmon"|"split")
    #[arg(long)]
    pub cgroups: Option<String>,
    /// Disable OOM Killer (cgroups of version 1 only)
    #[arg(long)]
    pub oom_kill_disable: bool,
}

impl CgroupArgs {
    /// The choice.
    ///
    /// # Errors
    /// For words that are none.
    pub fn choice(&self, manager: Manager) -> Result<CgroupChoice, Failure> {
        let mode = match self.cgroups.as_deref() {
            None | Some("") => CgroupMode::Default,
            Some(word) => CgroupMode::parse(word)?,
        };
        Ok(CgroupChoice {
            mode,
            parent: self
                .cgroup_parent
                .clone()
                .filter(|parent| !parent.is_empty()),
            manager,
            usual_pids: None,
        })
    }

    /// What of it is a limit, added to the others.
    ///
    /// # Errors
    /// As [`CgroupArgs::choice`].
    pub fn add_to(&self, resources: &mut Resources) -> Result<(), Failure> {
        resources.oom_kill_disable = self.oom_kill_disable;
        for word in &self.cgroup_conf {
            let (file, value) = resources::cgroup_setting(word).map_err(Error::from)?;
            resources.unified.insert(file, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Said {
        #[command(flatten)]
        limits: LimitArgs,
    }

    #[test]
    fn limits_are_read() {
        let of = |words: &[&str]| {
            Said::parse_from(std::iter::once(&"update").chain(words))
                .limits
                .resolve()
        };
        let all = of(&[
            "-m",
            "64m",
            "--cpus",
            "1.5",
            "-c",
            "512",
            "--pids-limit",
            "7",
        ])
        .unwrap();
        assert_eq!(
            (all.memory, all.nano_cpus),
            (Some(64 << 20), Some(1_500_000_000))
        );
        assert_eq!((all.cpu_shares, all.pids_limit), (Some(512), Some(7)));
        for (words, message) in [
            (
                &["-m", "x"][..],
                "invalid value for memory: invalid size: 'x'",
            ),
            (
                &["--cpus", "1", "--cpu-quota", "5000"],
                "--cpu-quota and --cpus cannot be set together",
            ),
            (
                &["--memory-swappiness", "101"],
                "invalid value: 101, valid memory swappiness range is 0-100",
            ),
            (
                &["--device-read-bps", "sda:1"],
                "bad format for device path: sda:1",
            ),
        ] {
            assert_eq!(of(words).unwrap_err().message, message);
        }
    }

    #[test]
    fn choices_are_read() {
        let args = CgroupArgs {
            cgroups: Some("split".into()),
            cgroup_conf: vec!["memory.high=1".into()],
            ..CgroupArgs::default()
        };
        assert_eq!(args.choice(Manager::Auto).unwrap().mode, CgroupMode::Split);
        let mut resources = Resources::default();
        args.add_to(&mut resources).unwrap();
        assert_eq!(resources.unified["memory.high"], "1");
        let bad = CgroupArgs {
            cgroups: Some("foo".into()),
            ..CgroupArgs::default()
        };
        assert!(bad.choice(Manager::Auto).is_err());
    }
}
