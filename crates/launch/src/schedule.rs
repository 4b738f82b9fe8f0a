//! How a program is scheduled: processors, priorities, memory nodes, and its personality (config.md,
//! process; config-linux.md, personality and memory policy).

use nix::sys::personality::{self, Persona};
use oci_spec::runtime::{
    IOPriorityClass, LinuxMemoryPolicy, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler, Spec,
};
use rcon_sys::scheduling::{self, Policy};

use crate::error::{Context, Error, Result};

/// Take on what `spec` says of all its programs and `process` of this one.
pub(crate) fn apply(spec: &Spec, process: &Process) -> Result<()> {
    if let Some(linux) = spec.linux() {
        if let Some(personality) = linux.personality() {
            let domain = match personality.domain() {
                LinuxPersonalityDomain::PerLinux => 0,
                LinuxPersonalityDomain::PerLinux32 => 8,
            };
            personality::set(Persona::from_bits_retain(domain))
                .context(|| format!("cannot set the personality {}", personality.domain()))?;
        }
        if let Some(policy) = linux.memory_policy() {
            memory(policy)?;
        }
    }
    if let Some(scheduler) = process.scheduler() {
        scheduling::set_policy(&policy(scheduler)?)
            .context(|| format!("cannot set the scheduling policy {}", scheduler.policy()))?;
    }
    if let Some(priority) = process.io_priority() {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let level = u8::try_from(priority.priority())
            .ok()
            .filter(|level| *level <= 7)
            .ok_or_else(|| {
                let level = priority.priority();
                Error::Invalid(format!("the I/O priority {level} is not one of 0 to 7"))
            })?;
        scheduling::set_io_priority(class, level)
            .context(|| format!("cannot set the I/O priority {}", priority.class()))?;
    }
    Ok(())
}

fn policy(scheduler: &Scheduler) -> Result<Policy> {
    let number = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flags = scheduler.flags().iter().flatten().fold(0, |all, flag| {
        all | match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        }
    });
    let priority = scheduler.priority().unwrap_or(0);
    Ok(Policy {
        policy: number,
        flags,
        nice: scheduler.nice().unwrap_or(0),
        priority: u32::try_from(priority)
            .map_err(|_| Error::Invalid(format!("{priority} is no scheduling priority")))?,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    })
}

fn memory(policy: &LinuxMemoryPolicy) -> Result<()> {
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |all, flag| {
        all | match flag {
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        }
    });
    let nodes = list(policy.nodes().as_deref().unwrap_or_default())?;
    scheduling::set_memory_policy(mode | flags, &nodes)
        .context(|| format!("cannot set the memory policy {}", policy.mode()))
}

/// Let this process run on the processors of `words` (`0-3,8`) only.
pub(crate) fn confine(words: &str) -> Result<()> {
    scheduling::set_processors(&list(words)?)
        .context(|| format!("cannot run on the processors {words}"))
}

/// The numbers of a list of numbers and ranges, as `0-3,8`.
fn list(words: &str) -> Result<Vec<u32>> {
    const MOST: u32 = 8191;
    let wrong = || Error::Invalid(format!("{words:?} is no list of numbers like 0-3,8"));
    let mut numbers = Vec::new();
    for word in words
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|n| *n <= MOST);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => numbers.extend(first..=last),
            _ => return Err(wrong()),
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers() {
        assert_eq!(list("0-2,7").unwrap(), [0, 1, 2, 7]);
        assert!(list("").unwrap().is_empty());
        for bad in ["x", "3-1", "1-", "-1", "0-99999"] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }
}
