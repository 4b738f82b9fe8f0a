//! What a container may not see or change of the kernel: sysctls, masked and read-only paths
//! (config-linux.md).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::CloneFlags;
use rcon_sys::mount::{self, Attributes};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::devices::host_node;
use crate::error::{Context, Error, Result};
use crate::namespaces::Namespaces;
use crate::root::{Root, is_folder};

/// A proc file system of this process's namespaces that nobody else has or can reach.
pub(crate) fn private() -> Result<OwnedFd> {
    let step = || "cannot mount proc".to_owned();
    match mount::new_filesystem("proc", None, &[], Attributes::empty()) {
        // The processes are the host's. The sysctls below are still those of whoever looks.
        Err(Errno::PERM) => {
            let proc = mount::copy_of_path(Path::new("/proc"), true).context(step)?;
            match rustix::fs::fstatfs(&proc).context(step)?.f_type {
                PROC_MAGIC => Ok(proc),
                _ => Err(Errno::PERM).context(step),
            }
        }
        other => other.context(step),
    }
}

const PROC_MAGIC: i64 = 0x9fa0;

/// The sysctls of the kernel proper that each ipc namespace has for itself (ipc_namespaces(7)).
const IPC_SYSCTLS: [&str; 8] = [
    "sys/kernel/msgmax",
    "sys/kernel/msgmnb",
    "sys/kernel/msgmni",
    "sys/kernel/sem",
    "sys/kernel/shmall",
    "sys/kernel/shmmax",
    "sys/kernel/shmmni",
    "sys/kernel/shm_rmid_forced",
];

/// Set sysctls by way of `proc`, which must be a proc file system with nothing mounted over it.
///
/// It is opened without following any link or leaving the file system, so that the value goes
/// where the name says.
///
/// Only what the container's `namespaces` have for themselves is set: a container of root could
/// change the rest for the whole machine.
pub(crate) fn set_sysctls<'a>(
    proc: impl AsFd,
    namespaces: &Namespaces,
    sysctls: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<()> {
    // In the order of their names: the same specification does the same every time.
    let sorted: BTreeMap<_, _> = sysctls.into_iter().collect();
    for (name, value) in sorted {
        let path = sysctl_path(name)
            .ok_or_else(|| Error::Invalid(format!("{name:?} is not the name of a sysctl")))?;
        if !owner(&path).is_some_and(|kind| namespaces.has(kind)) {
            return Err(Error::Invalid(format!(
                "sysctl '{name}' is not allowed: it is not the container's own but the host's"
            )));
        }
        let step = || format!("cannot set the sysctl {name} to {value:?}");
        let file = openat2(
            &proc,
            path.as_str(),
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        )
        .context(step)?;
        rustix::io::write(&file, value.as_bytes()).context(step)?;
    }
    Ok(())
}

/// Sysctls that make a container more comfortable, and that it can do without.
const COMFORTS: [&str; 2] = [
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
];

/// As [`set_sysctls`], by way of the `/proc` that is around the container and may be covered in
/// parts: what only makes it more comfortable may fail there.
pub(crate) fn set_sysctls_around<'a>(
    namespaces: &Namespaces,
    sysctls: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty())
        .context(|| "cannot open /proc".to_owned())?;
    for (name, value) in sysctls {
        match set_sysctls(&proc, namespaces, [(name, value)]) {
            Err(_) if COMFORTS.contains(&name.as_str()) => {}
            result => result?,
        }
    }
    Ok(())
}

/// The namespace that a sysctl belongs to; `None` for one that belongs to the machine.
fn owner(path: &str) -> Option<CloneFlags> {
    Some(if path.starts_with("sys/net/") {
        CloneFlags::CLONE_NEWNET
    } else if path.starts_with("sys/fs/mqueue/") || IPC_SYSCTLS.contains(&path) {
        CloneFlags::CLONE_NEWIPC
    } else if matches!(path, "sys/kernel/domainname" | "sys/kernel/hostname") {
        CloneFlags::CLONE_NEWUTS
    } else if path.starts_with("sys/user/") {
        CloneFlags::CLONE_NEWUSER
    } else {
        return None;
    })
}

/// The path below `/proc` of a sysctl, by the rule of sysctl.d(5): the first separator of the
/// name says which of `.` and `/` it is, and the other stands for itself.
fn sysctl_path(name: &str) -> Option<String> {
    let first = name.find(['.', '/'])?;
    let path: String = if name.as_bytes()[first] == b'/' {
        name.to_owned()
    } else {
        name.chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect()
    };
    let sound = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    sound.then(|| format!("sys/{path}"))
}

/// Hide `paths`: files behind the null device, folders behind an empty folder. What is not there
/// needs no hiding.
pub(crate) fn mask(root: &Root, paths: &[String]) -> Result<()> {
    // One mount of each kind, copied for every further path.
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let step = || format!("cannot mask {path}");
        let Some(target) = existing(root, path)? else {
            continue;
        };
        let folder = is_folder(&target).context(step)?;
        let pattern = if folder { &mut empty } else { &mut null };
        let cover = match pattern {
            Some(pattern) => mount::copy_of(&*pattern, false).context(step)?,
            None if folder => empty_folder().context(step)?,
            None => host_node(Path::new("/dev/null"), 1, 3)?,
        };
        mount::attach(&cover, &target).context(step)?;
        pattern.get_or_insert(cover);
    }
    Ok(())
}

fn empty_folder() -> rustix::io::Result<OwnedFd> {
    let option = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
    mount::new_filesystem(
        "tmpfs",
        None,
        &[
            option("size", "0k"),
            option("nr_inodes", "1"),
            option("mode", "555"),
        ],
        Attributes::MOUNT_ATTR_RDONLY
            | Attributes::MOUNT_ATTR_NOSUID
            | Attributes::MOUNT_ATTR_NODEV
            | Attributes::MOUNT_ATTR_NOEXEC,
    )
}

/// Make `paths` and all that is mounted below them read-only.
pub(crate) fn make_read_only(root: &Root, paths: &[String]) -> Result<()> {
    for path in paths {
        let step = || format!("cannot make {path} read-only");
        let Some(target) = existing(root, path)? else {
            continue;
        };
        let tree = mount::copy_of(&target, true).context(step)?;
        mount::set_attributes(&tree, Attributes::MOUNT_ATTR_RDONLY, None, true).context(step)?;
        mount::attach(&tree, &target).context(step)?;
    }
    Ok(())
}

fn existing(root: &Root, path: &str) -> Result<Option<OwnedFd>> {
    match root.find(Path::new(path)) {
        Ok(target) => Ok(Some(target)),
        // What this user may not even look up needs no further hiding.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error).context(|| format!("cannot open {path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names() {
        let path = |name| sysctl_path(name);
        assert_eq!(
            path("net.ipv4.ip_forward").as_deref(),
            Some("sys/net/ipv4/ip_forward")
        );
        assert_eq!(
            path("net/ipv4/conf/eth0.5/x").as_deref(),
            Some("sys/net/ipv4/conf/eth0.5/x")
        );
        assert_eq!(
            path("net.ipv4.conf.eth0/5.x").as_deref(),
            Some("sys/net/ipv4/conf/eth0.5/x")
        );
        for bad in ["", "kernel", "a..b", "../x", "a/../b", "/etc", "a/"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }
}
