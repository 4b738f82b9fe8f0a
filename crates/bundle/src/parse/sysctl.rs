//! `--sysctl`: only what belongs to a namespace of the container.

use crate::Error;

/// The settings of the IPC namespace, see ipc_namespaces(7).
const IPC: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Reads `KEY=VALUE`; empty text is nothing. What is not the container's own is refused.
///
/// # Errors
/// podman's `X is invalid, sysctl values must be in the form of KEY=VALUE` and `sysctl 'X' is not allowed`.
pub fn sysctl(text: &str) -> Result<Option<(String, String)>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Error::value(format!(
            "{text} is invalid, sysctl values must be in the form of KEY=VALUE"
        ))
    })?;
    let plain = key
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-/@".contains(&b))
        && !key.contains("..");
    let ours = IPC.contains(&key) || key.starts_with("net.") || key.starts_with("fs.mqueue.");
    if !plain || !ours {
        return Err(Error::with_hint(
            format!("sysctl '{key}' is not allowed"),
            "only net.*, fs.mqueue.* and the kernel's settings for System V IPC belong to a container",
        ));
    }
    Ok(Some((key.to_string(), value.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_is_the_containers() {
        for text in [
            "kernel.shmmax=1",
            "net.ipv4.ip_forward=1",
            "fs.mqueue.x=1",
            "net.ipv4.conf.eth0/1.rp_filter=0",
        ] {
            let (key, value) = text.split_once('=').unwrap();
            assert_eq!(
                sysctl(text).unwrap(),
                Some((key.to_string(), value.to_string()))
            );
        }
        assert_eq!(sysctl("").unwrap(), None);
        assert_eq!(
            sysctl("net.ipv4.ping_group_range=0 5").unwrap().unwrap().1,
            "0 5"
        );
    }

    #[test]
    fn refuses_the_hosts() {
        for (text, key) in [
            ("vm.x=1", "vm.x"),
            ("kernel.hostname=x", "kernel.hostname"),
            ("=1", ""),
            ("net/ipv4/x=1", "net/ipv4/x"),
            ("net.../x=1", "net.../x"),
        ] {
            assert_eq!(
                sysctl(text).unwrap_err().to_string(),
                format!("sysctl '{key}' is not allowed")
            );
        }
        assert_eq!(
            sysctl("a").unwrap_err().to_string(),
            "a is invalid, sysctl values must be in the form of KEY=VALUE"
        );
    }
}
