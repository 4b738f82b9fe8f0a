//! The limits of a specification as settings of the second version of cgroups.
//!
//! The specification speaks of the first version; config-linux.md and the practice of the runtimes
//! that everybody uses say what becomes of it in the second.

use std::path::Path;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxRdma, LinuxResources,
    LinuxThrottleDevice,
};

use super::files::{Setting, number};
use super::{Error, Result};

/// The settings, in an order in which the kernel takes them.
pub(super) fn settings(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    if let Some(memory) = resources.memory() {
        self::memory(memory, &mut list)?;
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, &mut list)?;
    }
    if let Some(pids) = resources.pids() {
        self::pids(pids, &mut list);
    }
    if let Some(block_io) = resources.block_io() {
        self::block_io(block_io, &mut list)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        hugepages(limit, &mut list)?;
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        list.push(rdma(device, limit));
    }
    if let Some(network) = resources.network()
        && (network.class_id().is_some() || network.priorities().is_some())
    {
        return Err(Error::Unsupported(
            "cgroups of version 2 have neither classes nor priorities of the network".to_owned(),
        ));
    }
    let mut raw: Vec<_> = resources.unified().iter().flatten().collect();
    raw.sort();
    for (file, value) in raw {
        if file.contains('/') || !file.contains('.') {
            return Err(Error::Unsupported(format!(
                "{file:?} is no setting of a cgroup"
            )));
        }
        list.push(Setting::new(file, value));
    }
    Ok(list)
}

/// A number of bytes or the like, of which a negative one is no limit.
fn most(value: i64) -> String {
    match value {
        ..0 => "max".to_owned(),
        value => value.to_string(),
    }
}

fn memory(memory: &LinuxMemory, list: &mut Vec<Setting>) -> Result<()> {
    // Zero is what Go programs write for "nothing was said".
    let said = |value: Option<i64>| value.filter(|value| *value != 0);
    let (limit, swap) = (said(memory.limit()), said(memory.swap()));
    match (swap, limit) {
        (None, Some(-1)) => list.push(Setting::optional("memory.swap.max", "max")),
        (None, _) => {}
        (Some(-1), _) => list.push(Setting::optional("memory.swap.max", "max")),
        // That of the first version counts memory and swap together.
        (Some(both), Some(limit @ 0..)) if both >= limit => {
            // Kernels without swap accounting have no such file; then nothing is swapped either.
            list.push(Setting::optional("memory.swap.max", both - limit));
        }
        (Some(both), Some(limit @ 0..)) => {
            return Err(Error::Unsupported(format!(
                "memory and swap together ({both}) cannot be less than memory ({limit})"
            )));
        }
        (Some(_), _) => {
            return Err(Error::Unsupported(
                "swap cannot be limited without limiting memory".to_owned(),
            ));
        }
    }
    if let Some(limit) = limit {
        // After the swap when it grows, before it when it shrinks: either order is taken here,
        // since the second version keeps them apart.
        list.push(Setting::new("memory.max", most(limit)));
    }
    if let Some(reservation) = said(memory.reservation()) {
        list.push(Setting::new("memory.low", most(reservation)));
    }
    let kernel = [memory.kernel(), memory.kernel_tcp()];
    let lacking = [
        (
            memory.disable_oom_killer() == Some(true),
            "cannot switch off the OOM killer",
        ),
        (memory.swappiness().is_some(), "have no swappiness"),
        (
            kernel.iter().any(|limit| limit.is_some_and(|l| l > 0)),
            "have no limit of the kernel's memory alone",
        ),
        (
            memory.use_hierarchy() == Some(false),
            "always count the memory of the cgroups below",
        ),
    ];
    match lacking.iter().find(|(wanted, _)| *wanted) {
        Some((_, what)) => Err(Error::Unsupported(format!("cgroups of version 2 {what}"))),
        None => Ok(()),
    }
}

/// Refuse, where that is asked for (`checkBeforeUpdate`), a limit that is less than what is used: the kernel would kill.
pub(super) fn check_memory(dir: &Path, resources: &LinuxResources) -> Result<()> {
    let Some(memory) = resources.memory() else {
        return Ok(());
    };
    let limit = memory.limit().and_then(|limit| u64::try_from(limit).ok());
    if let Some(limit @ 1..) = limit
        && memory.check_before_update() == Some(true)
        && let Some(used) = number(&dir.join("memory.current")).filter(|used| *used > limit)
    {
        return Err(Error::Refused {
            file: "memory.max".to_owned(),
            value: limit.to_string(),
            reason: format!("{used} bytes are in use"),
        });
    }
    Ok(())
}

fn cpu(cpu: &LinuxCpu, list: &mut Vec<Setting>) -> Result<()> {
    if cpu.realtime_runtime().is_some_and(|v| v != 0)
        || cpu.realtime_period().is_some_and(|v| v != 0)
    {
        return Err(Error::Unsupported(
            "cgroups of version 2 have no real-time limits".to_owned(),
        ));
    }
    if let Some(idle) = cpu.idle() {
        list.push(Setting::new("cpu.idle", idle));
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        list.push(Setting::new("cpu.weight", weight_of_shares(shares)));
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if let Some(burst) = cpu.burst().filter(|burst| *burst == 0 || quota.is_none()) {
        list.push(Setting::new("cpu.max.burst", burst));
    }
    if quota.is_some() || period.is_some() {
        let quota = quota.map_or_else(|| "max".to_owned(), most);
        let value = match period {
            Some(period) => format!("{quota} {period}"),
            None => quota,
        };
        list.push(Setting::new("cpu.max", value));
    }
    if let (Some(burst @ 1..), Some(_)) = (cpu.burst(), quota) {
        list.push(Setting::new("cpu.max.burst", burst));
    }
    if let Some(cpus) = cpu.cpus().as_deref().filter(|cpus| !cpus.is_empty()) {
        list.push(Setting::new("cpuset.cpus", cpus));
    }
    if let Some(mems) = cpu.mems().as_deref().filter(|mems| !mems.is_empty()) {
        list.push(Setting::new("cpuset.mems", mems));
    }
    Ok(())
}

/// 2…262144 with 1024 as the usual becomes 1…10000 with 100 as the usual, evenly in between on a
/// scale of logarithms.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil() as u64
}

fn pids(pids: &LinuxPids, list: &mut Vec<Setting>) {
    match pids.limit() {
        0 => {}
        limit => list.push(Setting::new("pids.max", most(limit))),
    }
}

fn block_io(io: &LinuxBlockIo, list: &mut Vec<Setting>) -> Result<()> {
    let mut devices = io.weight_device().iter().flatten();
    if io.leaf_weight().is_some_and(|weight| weight != 0)
        || devices.any(|device| device.leaf_weight().is_some_and(|weight| weight != 0))
    {
        return Err(Error::Unsupported(
            "cgroups of version 2 have no weights of leaves".to_owned(),
        ));
    }
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        list.push(io_weight(None, weight));
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            list.push(io_weight(Some((device.major(), device.minor())), weight));
        }
    }
    let kinds: [(&Option<Vec<LinuxThrottleDevice>>, &str); 4] = [
        (io.throttle_read_bps_device(), "rbps"),
        (io.throttle_write_bps_device(), "wbps"),
        (io.throttle_read_iops_device(), "riops"),
        (io.throttle_write_iops_device(), "wiops"),
    ];
    for (devices, key) in kinds {
        for device in devices.iter().flatten() {
            let rate = match device.rate() {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            list.push(Setting::new("io.max", value));
        }
    }
    Ok(())
}

/// 10…1000 of the first version; BFQ takes it as it is, `io.weight` has 1…10000.
fn io_weight(device: Option<(i64, i64)>, weight: u16) -> Setting {
    let which = match device {
        Some((major, minor)) => format!("{major}:{minor} "),
        None => String::new(),
    };
    if has_bfq() {
        return Setting::new("io.bfq.weight", format!("{which}{weight}"));
    }
    let weight = 1 + (u64::from(weight).saturating_sub(10) * 9999) / 990;
    Setting::new("io.weight", format!("{which}{weight}"))
}

/// Whether disks may have the scheduler whose weights are its own.
pub(super) fn has_bfq() -> bool {
    Path::new("/sys/module/bfq").exists()
}

/// The same in both versions.
pub(super) fn rdma(device: &str, limit: &LinuxRdma) -> Setting {
    let word = |value: Option<u32>| value.map_or_else(|| "max".to_owned(), |v| v.to_string());
    let (handles, objects) = (word(limit.hca_handles()), word(limit.hca_objects()));
    let value = format!("{device} hca_handle={handles} hca_object={objects}");
    Setting::new("rdma.max", value)
}

fn hugepages(limit: &LinuxHugepageLimit, list: &mut Vec<Setting>) -> Result<()> {
    let size = limit.page_size();
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Error::Unsupported(format!(
            "{size:?} is no size of huge pages"
        )));
    }
    list.push(Setting::new(
        &format!("hugetlb.{size}.max"),
        most(limit.limit()),
    ));
    list.push(Setting::optional(
        &format!("hugetlb.{size}.rsvd.max"),
        most(limit.limit()),
    ));
    Ok(())
}
