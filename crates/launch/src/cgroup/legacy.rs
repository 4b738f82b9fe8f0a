//! The first version of cgroups, for the super-user of a host that has no other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxBlockIo, LinuxResources};

use super::files::{self, Setting, write};
use super::unified::rdma;
use super::{Error, Result, devices};

/// The settings of a specification, by controller.
fn settings(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    let mut put = |file: &str, value: Option<i64>| {
        if let Some(value) = value.filter(|value| *value != 0) {
            list.push(Setting::new(file, value));
        }
    };
    if let Some(memory) = resources.memory() {
        put("memory.limit_in_bytes", memory.limit());
        put("memory.soft_limit_in_bytes", memory.reservation());
        put("memory.memsw.limit_in_bytes", memory.swap());
        put("memory.kmem.limit_in_bytes", memory.kernel());
        put("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp());
    }
    if let Some(cpu) = resources.cpu() {
        let signed = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok());
        put("cpu.shares", signed(cpu.shares()));
        put("cpu.cfs_period_us", signed(cpu.period()));
        put("cpu.cfs_quota_us", cpu.quota());
        put("cpu.cfs_burst_us", signed(cpu.burst()));
        put("cpu.idle", cpu.idle());
        put("cpu.rt_period_us", signed(cpu.realtime_period()));
        put("cpu.rt_runtime_us", cpu.realtime_runtime());
    }
    if let Some(memory) = resources.memory() {
        if let Some(swappiness) = memory.swappiness() {
            list.push(Setting::new("memory.swappiness", swappiness));
        }
        if let Some(below) = memory.use_hierarchy() {
            let value = i32::from(below);
            list.push(Setting::optional("memory.use_hierarchy", value));
        }
        if memory.disable_oom_killer() == Some(true) {
            list.push(Setting::new("memory.oom_control", 1));
        }
    }
    if let Some(cpu) = resources.cpu() {
        let text = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        list.extend(text(cpu.cpus()).map(|cpus| Setting::new("cpuset.cpus", cpus)));
        list.extend(text(cpu.mems()).map(|mems| Setting::new("cpuset.mems", mems)));
    }
    match resources.pids().as_ref().map(|pids| pids.limit()) {
        None | Some(0) => {}
        Some(..0) => list.push(Setting::new("pids.max", "max")),
        Some(limit) => list.push(Setting::new("pids.max", limit)),
    }
    if let Some(io) = resources.block_io() {
        block_io(io, &mut list);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size());
        list.push(Setting::new(&file, limit.limit()));
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        list.push(rdma(device, limit));
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            list.push(Setting::new("net_cls.classid", class));
        }
        for one in network.priorities().iter().flatten() {
            let value = format!("{} {}", one.name(), one.priority());
            list.push(Setting::new("net_prio.ifpriomap", value));
        }
    }
    for rule in devices::rules(resources)? {
        let file = match rule.allow {
            true => "devices.allow",
            false => "devices.deny",
        };
        list.push(Setting::new(file, rule));
    }
    if resources
        .unified()
        .as_ref()
        .is_some_and(|raw| !raw.is_empty())
    {
        return Err(Error::Unsupported(
            "settings of cgroups of version 2 cannot be made on a host with version 1".to_owned(),
        ));
    }
    Ok(list)
}

fn block_io(io: &LinuxBlockIo, list: &mut Vec<Setting>) {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        // BFQ's name for it, where the older scheduler with its own is gone.
        list.push(Setting::new("blkio.weight", weight));
    }
    if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
        list.push(Setting::new("blkio.leaf_weight", weight));
    }
    for device in io.weight_device().iter().flatten() {
        for (weight, file) in [
            (device.weight(), "blkio.weight_device"),
            (device.leaf_weight(), "blkio.leaf_weight_device"),
        ] {
            if let Some(weight) = weight {
                let value = format!("{}:{} {weight}", device.major(), device.minor());
                list.push(Setting::new(file, value));
            }
        }
    }
    for (devices, file) in [
        (
            io.throttle_read_bps_device(),
            "blkio.throttle.read_bps_device",
        ),
        (
            io.throttle_write_bps_device(),
            "blkio.throttle.write_bps_device",
        ),
        (
            io.throttle_read_iops_device(),
            "blkio.throttle.read_iops_device",
        ),
        (
            io.throttle_write_iops_device(),
            "blkio.throttle.write_iops_device",
        ),
    ] {
        for device in devices.iter().flatten() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            list.push(Setting::new(file, value));
        }
    }
}

/// Make all settings.
pub(super) fn apply(dirs: &BTreeMap<String, PathBuf>, resources: &LinuxResources) -> Result<()> {
    for setting in settings(resources)? {
        let missing = || Error::NoController {
            controller: setting.controller().to_owned(),
            file: setting.file.clone(),
        };
        let dir = dirs.get(setting.controller()).ok_or_else(missing)?;
        let once = files::apply(dir, std::slice::from_ref(&setting));
        // Memory alone, and memory with swap, must never be the wrong way round in between.
        match once {
            Err(Error::Refused { .. }) if setting.file == "memory.limit_in_bytes" => {
                if let Some(both) = resources.memory().as_ref().and_then(|memory| memory.swap()) {
                    write(&dir.join("memory.memsw.limit_in_bytes"), &both.to_string())?;
                }
                files::apply(dir, &[setting])?;
            }
            other => other?,
        }
    }
    Ok(())
}

/// Make a cgroup of that name in each of `parents`.
pub(super) fn make(
    parents: &BTreeMap<String, PathBuf>,
    name: &str,
) -> Result<BTreeMap<String, PathBuf>> {
    let mut made = BTreeMap::new();
    for (controller, parent) in parents {
        let dir = parent.join(name);
        if let Err(error) = fs::create_dir_all(&dir) {
            for dir in made.values() {
                let _ = fs::remove_dir(dir);
            }
            return Err(Error::file("make the cgroup", &dir, &error));
        }
        if controller == "cpuset" {
            inherit(parent, &dir)?;
        }
        made.insert(controller.clone(), dir);
    }
    Ok(made)
}

/// A new cpuset is empty, and takes no process then.
fn inherit(parent: &Path, dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if files::read(&dir.join(file))?.trim().is_empty() {
            write(&dir.join(file), files::read(&parent.join(file))?.trim())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_the_first_version() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"memory":{"limit":100,"swap":200,"swappiness":3,"kernel":5,"kernelTCP":6,"useHierarchy":true,"disableOOMKiller":true},
                "pids":{"limit":-1},
                "cpu":{"quota":50000,"period":100000,"cpus":"0","mems":"1","burst":7,"idle":1,"realtimeRuntime":8,"realtimePeriod":9},
                "blockIO":{"weight":10,"leafWeight":20,"weightDevice":[{"major":8,"minor":0,"weight":30,"leafWeight":40}],
                    "throttleReadBpsDevice":[{"major":8,"minor":1,"rate":1}],"throttleWriteBpsDevice":[{"major":8,"minor":1,"rate":2}],
                    "throttleReadIOPSDevice":[{"major":8,"minor":1,"rate":3}],"throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":4}]},
                "hugepageLimits":[{"pageSize":"2MB","limit":11}],
                "rdma":{"mlx5_1":{"hcaHandles":3}},
                "network":{"classID":5,"priorities":[{"name":"lo","priority":6}]},
                "devices":[{"allow":false,"type":"b","access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}]}"#,
        )
        .unwrap();
        let shown: Vec<String> = settings(&resources)
            .unwrap()
            .iter()
            .map(|s| format!("{}={}", s.file, s.value))
            .collect();
        assert_eq!(
            shown,
            [
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=200",
                "memory.kmem.limit_in_bytes=5",
                "memory.kmem.tcp.limit_in_bytes=6",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpu.cfs_burst_us=7",
                "cpu.idle=1",
                "cpu.rt_period_us=9",
                "cpu.rt_runtime_us=8",
                "memory.swappiness=3",
                "memory.use_hierarchy=1",
                "memory.oom_control=1",
                "cpuset.cpus=0",
                "cpuset.mems=1",
                "pids.max=max",
                "blkio.weight=10",
                "blkio.leaf_weight=20",
                "blkio.weight_device=8:0 30",
                "blkio.leaf_weight_device=8:0 40",
                "blkio.throttle.read_bps_device=8:1 1",
                "blkio.throttle.write_bps_device=8:1 2",
                "blkio.throttle.read_iops_device=8:1 3",
                "blkio.throttle.write_iops_device=8:1 4",
                "hugetlb.2MB.limit_in_bytes=11",
                "rdma.max=mlx5_1 hca_handle=3 hca_object=max",
                "net_cls.classid=5",
                "net_prio.ifpriomap=lo 6",
                "devices.deny=b *:* mrw",
                "devices.allow=c 1:3 rw"
            ]
        );
    }
}
