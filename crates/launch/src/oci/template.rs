//! A specification to begin with (the command `spec`).

use serde_json::{Value, json};

use super::SPEC_VERSION;

/// A shell in its own namespaces, in the folder `rootfs` of the bundle. For an ordinary user with the
/// given user and group id, with `rootless`.
pub fn template(rootless: Option<(u32, u32)>) -> Value {
    let own = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            "nosuid,strictatime,mode=755,size=65536k",
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            "nosuid,noexec,nodev,mode=1777,size=65536k",
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            "nosuid,noexec,nodev,relatime,ro",
        ),
    ];
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount", "cgroup"];
    if rootless.is_some() {
        // The network of the host, since nobody would set up another.
        namespaces.retain(|kind| *kind != "network");
        namespaces.push("user");
        mounts[2] = mount(
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620",
        );
        mounts[5] = json!({
            "destination": "/sys",
            "type": "none",
            "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
        });
    }
    let namespaces: Vec<Value> = namespaces
        .iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    let mut linux = json!({
        "resources": {},
        "namespaces": namespaces,
        "maskedPaths": [
            "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
        ],
        "readonlyPaths": [
            "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
        ],
    });
    if rootless.is_none() {
        linux["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    }
    if let Some((uid, gid)) = rootless {
        let only = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1}]);
        linux["uidMappings"] = only(uid);
        linux["gidMappings"] = only(gid);
    }
    json!({
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {"bounding": own, "effective": own, "permitted": own},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "rcon",
        "mounts": mounts,
        "linux": linux,
    })
}

fn mount(place: &str, kind: &str, source: &str, options: &str) -> Value {
    let options: Vec<&str> = options.split(',').collect();
    json!({"destination": place, "type": kind, "source": source, "options": options})
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;

    use super::*;

    #[test]
    fn both_are_specifications() {
        for rootless in [None, Some((1000, 1000))] {
            let spec: Spec = serde_json::from_value(template(rootless)).unwrap();
            crate::support::check(&spec, true).unwrap();
            let users = spec.linux().as_ref().unwrap().uid_mappings().is_some();
            assert_eq!(users, rootless.is_some());
        }
    }
}
