//! Programs of the kernel's that decide over devices for a cgroup (bpf(2), linux/bpf.h).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u8,
    /// The register it is done to, and in the upper half the one it is done with.
    pub registers: u8,
    /// How far to jump, or from where to read.
    pub offset: i16,
    /// The operand.
    pub value: i32,
}

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;
/// BPF_PROG_TYPE_CGROUP_DEVICE
const DEVICE_PROGRAM: u32 = 15;
/// BPF_CGROUP_DEVICE
const DEVICES: u32 = 6;
/// BPF_F_ALLOW_MULTI: cgroups below can have programs too, and all must agree.
const SEVERAL: u32 = 2;
/// The most programs that the kernel takes for one cgroup.
const MOST: usize = 64;

/// union bpf_attr, as far as it is used here: words in a row.
type Words = [u32; 16];

fn bpf(command: libc::c_long, words: &mut Words) -> io::Result<i32> {
    // SAFETY: the words are as long as is said and outlive the call; those of them that are pointers point at what the
    // callers below keep alive until then, as large as they say.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            words.as_mut_ptr(),
            size_of::<Words>(),
        )
    };
    match i32::try_from(result) {
        Ok(result @ 0..) => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

fn pointer(words: &mut Words, at: usize, address: usize) {
    let bytes = (address as u64).to_ne_bytes();
    let half = |from: usize| {
        [
            bytes[from],
            bytes[from + 1],
            bytes[from + 2],
            bytes[from + 3],
        ]
    };
    words[at] = u32::from_ne_bytes(half(0));
    words[at + 1] = u32::from_ne_bytes(half(4));
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Have `program` decide over the devices of the cgroup whose folder is `cgroup`, instead of those that did so far.
///
/// # Errors
/// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN` over the whole machine, `EINVAL` from kernels without such programs.
pub fn decide_devices(cgroup: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let license = c"Apache-2.0";
    let mut load: Words = [0; 16];
    load[0] = DEVICE_PROGRAM;
    load[1] = u32::try_from(program.len()).unwrap_or(u32::MAX);
    pointer(&mut load, 2, program.as_ptr().addr());
    pointer(&mut load, 4, license.as_ptr().addr());
    let loaded = owned(bpf(PROG_LOAD, &mut load)?);
    let before = attached(cgroup)?;
    change(PROG_ATTACH, cgroup, &loaded)?;
    for id in before {
        let mut words: Words = [0; 16];
        words[0] = id;
        let old = owned(bpf(PROG_GET_FD_BY_ID, &mut words)?);
        change(PROG_DETACH, cgroup, &old)?;
    }
    Ok(())
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: each of the commands whose result this is gives a descriptor that the kernel has just made.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn change(command: libc::c_long, cgroup: BorrowedFd<'_>, program: &OwnedFd) -> io::Result<()> {
    let mut words: Words = [0; 16];
    words[..3].copy_from_slice(&[number(cgroup), number(program.as_fd()), DEVICES]);
    if command == PROG_ATTACH {
        words[3] = SEVERAL;
    }
    bpf(command, &mut words).map(drop)
}

fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MOST];
    let mut words: Words = [0; 16];
    words[..2].copy_from_slice(&[number(cgroup), DEVICES]);
    pointer(&mut words, 4, ids.as_mut_ptr().addr());
    words[6] = MOST as u32;
    bpf(PROG_QUERY, &mut words)?;
    let count = usize::try_from(words[6]).unwrap_or(0).min(MOST);
    Ok(ids[..count].to_vec())
}
