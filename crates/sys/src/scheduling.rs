//! How the kernel shares processors, disks and memory nodes out to the calling process.

use std::io;

/// The fields of sched_setattr(2) that a caller chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The policy, `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the ordinary policies.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: u32,
    /// For the deadline policy, in nanoseconds.
    pub runtime: u64,
    /// For the deadline policy, in nanoseconds.
    pub deadline: u64,
    /// For the deadline policy, in nanoseconds.
    pub period: u64,
}

/// `struct sched_attr` in its first published size.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Have this process scheduled by `policy`.
///
/// Fails with `EPERM` for what takes `CAP_SYS_NICE` (a higher priority, real time) and with
/// `EINVAL` for fields that do not go together.
pub fn set_policy(policy: &Policy) -> io::Result<()> {
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: policy.policy,
        flags: policy.flags,
        nice: policy.nice,
        priority: policy.priority,
        runtime: policy.runtime,
        deadline: policy.deadline,
        period: policy.period,
    };
    // SAFETY: a whole structure that says its own size and outlives the call; 0 is this process.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// The priority of this process at disks (ioprio_set(2)): 1 is real time, 2 best effort, 3 idle; 0
/// is the highest level of a class and 7 the lowest.
///
/// # Errors
/// As ioprio_set(2): real time takes a privilege.
pub fn set_io_priority(class: u8, level: u8) -> io::Result<()> {
    const OF_PROCESS: libc::c_int = 1;
    let priority = libc::c_int::from(class) << 13 | libc::c_int::from(level);
    // SAFETY: plain numbers; 0 is this process.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, OF_PROCESS, 0, priority) })
}

/// From which memory nodes this process gets its memory (set_mempolicy(2)).
///
/// # Errors
/// As set_mempolicy(2).
pub fn set_memory_policy(mode: u32, nodes: &[u32]) -> io::Result<()> {
    let mut mask = [0_u64; 16];
    for node in nodes {
        let word = usize::try_from(node / 64).ok();
        let word = word.and_then(|word| mask.get_mut(word));
        *word.ok_or(io::ErrorKind::InvalidInput)? |= 1 << (node % 64);
    }
    let (pointer, bits) = match nodes.is_empty() {
        true => (std::ptr::null(), 0),
        // The kernel takes one bit less than it is told.
        false => (mask.as_ptr(), mask.len() * 64 + 1),
    };
    // SAFETY: the mask has at least as many bits as the kernel reads of it, or is not there at all.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) })
}

/// On which processors this process may run (sched_setaffinity(2)).
///
/// # Errors
/// As sched_setaffinity(2): `EINVAL` when none of them is there for us.
pub fn set_processors(processors: &[u32]) -> io::Result<()> {
    let mut set = nix::sched::CpuSet::new();
    for processor in processors {
        let number = usize::try_from(*processor).unwrap_or(usize::MAX);
        set.set(number)?;
    }
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?;
    Ok(())
}

fn check(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_may_do() {
        let idle = Policy {
            policy: 5,
            ..Policy::default()
        };
        // On a thread of its own: the kernel's "process" is the calling thread here.
        std::thread::spawn(move || {
            set_policy(&idle).unwrap();
            set_io_priority(3, 0).unwrap();
            set_processors(&[0]).unwrap();
            set_memory_policy(0, &[]).unwrap();
            assert!(set_memory_policy(2, &[5000]).is_err());
            assert!(set_policy(&Policy { policy: 99, ..idle }).is_err());
        })
        .join()
        .unwrap();
    }
}
