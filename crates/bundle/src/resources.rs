//! What a container may use of the machine: the flags, and the `resources` of the specification that they come to.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder,
};
use serde::{Deserialize, Serialize};

mod words;

pub use words::{
    bytes_a_second, cgroup_setting, cpus, device_weight, memory, memory_swap, operations_a_second,
};

use crate::Error;

/// A number for one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRate {
    /// The device's path on the host.
    pub path: String,
    /// Bytes or operations a second, or a weight.
    pub rate: u64,
}

/// The limits of a container; `None` is what nothing was said about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// `--memory`, bytes.
    pub memory: Option<i64>,
    /// `--memory-swap`, bytes of memory and swap together; −1 is no limit.
    pub memory_swap: Option<i64>,
    /// `--memory-reservation`, bytes.
    pub memory_reservation: Option<i64>,
    /// `--memory-swappiness`, 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// `--oom-kill-disable`.
    pub oom_kill_disable: bool,
    /// `--cpus`, in billionths of a processor.
    pub nano_cpus: Option<u64>,
    /// `--cpu-shares`.
    pub cpu_shares: Option<u64>,
    /// `--cpu-quota`, microseconds.
    pub cpu_quota: Option<i64>,
    /// `--cpu-period`, microseconds.
    pub cpu_period: Option<u64>,
    /// `--cpuset-cpus`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`.
    pub cpuset_mems: Option<String>,
    /// `--pids-limit`; −1 is no limit.
    pub pids_limit: Option<i64>,
    /// `--blkio-weight`.
    pub blkio_weight: Option<u16>,
    /// `--blkio-weight-device`.
    pub blkio_weight_devices: Vec<DeviceRate>,
    /// `--device-read-bps`.
    pub read_bps: Vec<DeviceRate>,
    /// `--device-write-bps`.
    pub write_bps: Vec<DeviceRate>,
    /// `--device-read-iops`.
    pub read_iops: Vec<DeviceRate>,
    /// `--device-write-iops`.
    pub write_iops: Vec<DeviceRate>,
    /// `--cgroup-conf`: files of the cgroup and what is written to them.
    pub unified: BTreeMap<String, String>,
}

/// What `--cpus` counts in.
const PERIOD: u64 = 100_000;

impl Resources {
    /// Whether anything is limited.
    pub fn is_empty(&self) -> bool {
        *self == Resources::default()
    }

    /// These, with those of `later` where it has any.
    pub fn overlaid(&self, later: &Resources) -> Resources {
        fn last<T: Clone>(one: &Option<T>, two: &Option<T>) -> Option<T> {
            two.clone().or_else(|| one.clone())
        }
        fn join(one: &[DeviceRate], two: &[DeviceRate]) -> Vec<DeviceRate> {
            let kept = one.iter().filter(|a| two.iter().all(|b| a.path != b.path));
            kept.chain(two).cloned().collect()
        }
        let mut all = Resources {
            memory: last(&self.memory, &later.memory),
            memory_swap: last(&self.memory_swap, &later.memory_swap),
            memory_reservation: last(&self.memory_reservation, &later.memory_reservation),
            memory_swappiness: last(&self.memory_swappiness, &later.memory_swappiness),
            oom_kill_disable: self.oom_kill_disable || later.oom_kill_disable,
            nano_cpus: last(&self.nano_cpus, &later.nano_cpus),
            cpu_shares: last(&self.cpu_shares, &later.cpu_shares),
            cpu_quota: last(&self.cpu_quota, &later.cpu_quota),
            cpu_period: last(&self.cpu_period, &later.cpu_period),
            cpuset_cpus: last(&self.cpuset_cpus, &later.cpuset_cpus),
            cpuset_mems: last(&self.cpuset_mems, &later.cpuset_mems),
            pids_limit: last(&self.pids_limit, &later.pids_limit),
            blkio_weight: last(&self.blkio_weight, &later.blkio_weight),
            blkio_weight_devices: join(&self.blkio_weight_devices, &later.blkio_weight_devices),
            read_bps: join(&self.read_bps, &later.read_bps),
            write_bps: join(&self.write_bps, &later.write_bps),
            read_iops: join(&self.read_iops, &later.read_iops),
            write_iops: join(&self.write_iops, &later.write_iops),
            unified: self.unified.clone(),
        };
        // Two ways to say the same: the later word holds.
        if later.nano_cpus.is_some() {
            (all.cpu_quota, all.cpu_period) = (None, None);
        } else if later.cpu_quota.is_some() || later.cpu_period.is_some() {
            all.nano_cpus = None;
        }
        // A swap limit that was worked out of the memory limit goes with it, and there is none without one of memory.
        if later.memory.is_some() && later.memory_swap.is_none() {
            let memory = all.memory.filter(|memory| *memory > 0);
            let fits = all
                .memory_swap
                .is_some_and(|swap| swap < 0 || memory.is_some_and(|memory| swap >= memory));
            all.memory_swap = all.memory_swap.filter(|_| fits);
        }
        all.unified.extend(later.unified.clone());
        all
    }

    /// Whether they go together; with podman's messages.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |text: &str| Err(Error::value(text));
        let (memory, swap) = (
            self.memory.filter(|m| *m > 0),
            self.memory_swap.filter(|s| *s > 0),
        );
        match (memory, swap) {
            (Some(memory), Some(swap)) if swap < memory => {
                return refuse(
                    "minimum memoryswap limit should be larger than memory limit, see usage",
                );
            }
            (None, Some(_)) => {
                return refuse(
                    "you should always set the memory limit when using the memoryswap limit, see usage",
                );
            }
            _ => {}
        }
        if let (Some(memory), Some(reservation)) = (memory, self.memory_reservation)
            && memory < reservation
        {
            return refuse(
                "minimum memory limit can not be less than memory reservation limit, see usage",
            );
        }
        if self.memory_swappiness.is_some_and(|value| value > 100) {
            return refuse("invalid memory swappiness value, valid range is 0-100");
        }
        if self.nano_cpus.is_some() && self.cpu_period.is_some() {
            return refuse("--cpu-period and --cpus cannot be set together");
        }
        if self.nano_cpus.is_some() && self.cpu_quota.is_some() {
            return refuse("--cpu-quota and --cpus cannot be set together");
        }
        if self
            .cpu_period
            .is_some_and(|p| p != 0 && !(1000..=1_000_000).contains(&p))
        {
            return refuse(
                "CPU cfs period cannot be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
            );
        }
        if self.cpu_quota.is_some_and(|q| q > 0 && q < 1000) {
            return refuse("CPU cfs quota cannot be less than 1ms (i.e. 1000)");
        }
        if self
            .blkio_weight
            .is_some_and(|w| w != 0 && !(10..=1000).contains(&w))
        {
            return refuse("range of blkio weight is from 10 to 1000");
        }
        Ok(())
    }

    /// The `resources` of the specification; `None` when nothing is limited.
    ///
    /// # Errors
    /// As [`Resources::check`], and for a device that is not there.
    pub fn to_oci(&self) -> Result<Option<LinuxResources>, Error> {
        self.check()?;
        if self.is_empty() {
            return Ok(None);
        }
        let mut all = LinuxResources::default();
        all.set_memory(self.oci_memory());
        all.set_cpu(self.oci_cpu());
        if let Some(limit) = self.pids_limit {
            let mut pids = LinuxPids::default();
            pids.set_limit(if limit <= 0 { -1 } else { limit });
            all.set_pids(Some(pids));
        }
        all.set_block_io(self.oci_block_io()?);
        if !self.unified.is_empty() {
            all.set_unified(Some(self.unified.clone().into_iter().collect()));
        }
        Ok(Some(all))
    }

    fn oci_memory(&self) -> Option<LinuxMemory> {
        // Without a word about swap there is as much of it as of memory, as podman and docker have it.
        let swap = self
            .memory_swap
            .filter(|swap| *swap != 0)
            .or_else(|| self.memory.filter(|m| *m > 0).map(|m| m.saturating_mul(2)));
        let mut memory = LinuxMemory::default();
        memory.set_limit(self.memory);
        memory.set_swap(swap);
        memory.set_reservation(self.memory_reservation);
        memory.set_swappiness(self.memory_swappiness);
        memory.set_disable_oom_killer(self.oom_kill_disable.then_some(true));
        (memory != LinuxMemory::default()).then_some(memory)
    }

    fn oci_cpu(&self) -> Option<LinuxCpu> {
        let mut cpu = LinuxCpu::default();
        let (quota, period) = match self.nano_cpus {
            Some(0) => (Some(-1), Some(PERIOD)),
            Some(nano) => {
                let quota = u128::from(nano) * u128::from(PERIOD) / 1_000_000_000;
                (i64::try_from(quota).ok(), Some(PERIOD))
            }
            None => (self.cpu_quota, self.cpu_period),
        };
        cpu.set_quota(quota);
        cpu.set_period(period);
        cpu.set_shares(self.cpu_shares);
        cpu.set_cpus(self.cpuset_cpus.clone());
        cpu.set_mems(self.cpuset_mems.clone());
        (cpu != LinuxCpu::default()).then_some(cpu)
    }

    fn oci_block_io(&self) -> Result<Option<LinuxBlockIo>, Error> {
        let mut io = LinuxBlockIo::default();
        io.set_weight(self.blkio_weight);
        let weights: Result<Vec<LinuxWeightDevice>, Error> = self
            .blkio_weight_devices
            .iter()
            .map(|device| {
                let (major, minor) = numbers(&device.path)?;
                // (The builder has a default for every field and cannot fail.)
                Ok(LinuxWeightDeviceBuilder::default()
                    .major(major)
                    .minor(minor)
                    .weight(u16::try_from(device.rate).unwrap_or(u16::MAX))
                    .build()
                    .unwrap_or_default())
            })
            .collect();
        io.set_weight_device(some(weights?));
        io.set_throttle_read_bps_device(some(throttles(&self.read_bps)?));
        io.set_throttle_write_bps_device(some(throttles(&self.write_bps)?));
        io.set_throttle_read_iops_device(some(throttles(&self.read_iops)?));
        io.set_throttle_write_iops_device(some(throttles(&self.write_iops)?));
        Ok((io != LinuxBlockIo::default()).then_some(io))
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn throttles(devices: &[DeviceRate]) -> Result<Vec<LinuxThrottleDevice>, Error> {
    devices
        .iter()
        .map(|device| {
            let (major, minor) = numbers(&device.path)?;
            Ok(LinuxThrottleDeviceBuilder::default()
                .major(major)
                .minor(minor)
                .rate(device.rate)
                .build()
                .unwrap_or_default())
        })
        .collect()
}

/// The numbers of a device of the host.
fn numbers(path: &str) -> Result<(i64, i64), Error> {
    let gone =
        |why: &str| Error::value(format!("could not get the numbers of device {path}: {why}"));
    let stat = rustix::fs::stat(path).map_err(|errno| gone(&errno.to_string()))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::BlockDevice {
        return Err(gone("it is no block device"));
    }
    let number = rustix::fs::major(stat.st_rdev);
    Ok((
        i64::from(number),
        i64::from(rustix::fs::minor(stat.st_rdev)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_the_specifications_resources() {
        let resources = Resources {
            memory: Some(memory("memory", "64m").unwrap()),
            nano_cpus: Some(cpus("0.5").unwrap()),
            pids_limit: Some(0),
            unified: [cgroup_setting("memory.high=5").unwrap()].into(),
            ..Resources::default()
        };
        let oci = serde_json::to_value(resources.to_oci().unwrap().unwrap()).unwrap();
        assert_eq!(
            oci,
            serde_json::json!({
                "memory": {"limit": 67108864, "swap": 134217728},
                "cpu": {"quota": 50000, "period": 100000},
                "pids": {"limit": -1},
                "unified": {"memory.high": "5"},
            })
        );
        assert!(Resources::default().to_oci().unwrap().is_none());
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let none = Resources::default;
        for (bad, words) in [
            (
                Resources {
                    memory: Some(10),
                    memory_swap: Some(5),
                    ..none()
                },
                "larger than memory",
            ),
            (
                Resources {
                    memory_swap: Some(5),
                    ..none()
                },
                "always set the memory limit",
            ),
            (
                Resources {
                    memory: Some(5),
                    memory_reservation: Some(10),
                    ..none()
                },
                "reservation",
            ),
            (
                Resources {
                    memory_swappiness: Some(101),
                    ..none()
                },
                "0-100",
            ),
            (
                Resources {
                    nano_cpus: Some(1),
                    cpu_quota: Some(5000),
                    ..none()
                },
                "--cpu-quota and --cpus",
            ),
            (
                Resources {
                    nano_cpus: Some(1),
                    cpu_period: Some(5000),
                    ..none()
                },
                "--cpu-period and --cpus",
            ),
            (
                Resources {
                    cpu_period: Some(5),
                    ..none()
                },
                "cfs period",
            ),
            (
                Resources {
                    cpu_quota: Some(5),
                    ..none()
                },
                "cfs quota",
            ),
            (
                Resources {
                    blkio_weight: Some(5),
                    ..none()
                },
                "10 to 1000",
            ),
        ] {
            let error = bad.to_oci().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let missing = Resources {
            read_bps: vec![bytes_a_second("/dev/null:1mb").unwrap()],
            ..none()
        };
        assert!(
            missing
                .to_oci()
                .unwrap_err()
                .to_string()
                .contains("no block device")
        );
    }

    #[test]
    fn later_words_hold() {
        let first = Resources {
            memory: Some(100),
            memory_swap: Some(150),
            nano_cpus: Some(1_000_000_000),
            ..Resources::default()
        };
        let later = Resources {
            memory: Some(200),
            cpu_quota: Some(5000),
            ..Resources::default()
        };
        let both = first.overlaid(&later);
        assert_eq!((both.memory, both.memory_swap), (Some(200), None));
        assert_eq!((both.nano_cpus, both.cpu_quota), (None, Some(5000)));
        let none = Resources {
            memory: Some(0),
            ..Resources::default()
        };
        let both = first.overlaid(&none);
        assert_eq!((both.memory, both.memory_swap), (Some(0), None));
        both.to_oci().unwrap();
        let usual = Resources {
            memory_swap: Some(0),
            ..Resources::default()
        };
        let memory = first.overlaid(&usual).to_oci().unwrap().unwrap();
        assert_eq!(memory.memory().as_ref().unwrap().swap(), Some(200));
        assert_eq!(first.overlaid(&Resources::default()), first);
    }
}
