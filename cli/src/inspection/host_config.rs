//! `HostConfig` of a container, as `podman inspect` shows it.

use rcon_engine::bundle::resources::DeviceRate;
use rcon_engine::bundle::{self, Caps, Source};
use rcon_engine::{Container, Engine, LogDriver, Manager, Network, Place};
use serde_json::{Map, Value, json};

use super::container::{path, port_bindings};
use crate::output::human;

/// What docker gives a container; podman tells capabilities as additions to and removals from it.
const DOCKERS: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The object.
pub fn object(
    engine: &Engine,
    container: &Container,
    built: Option<&bundle::Bundle>,
    caps: &Caps,
) -> Value {
    let config = &container.config;
    let options = &config.options;
    let name = |cap: &&str| format!("CAP_{cap}");
    let added: Vec<String> = caps
        .bounding
        .iter()
        .filter(|c| !DOCKERS.contains(c))
        .map(name)
        .collect();
    let dropped: Vec<String> = DOCKERS
        .iter()
        .filter(|c| !caps.bounding.contains(*c))
        .map(name)
        .collect();
    let log = match config.lifecycle.log.driver {
        LogDriver::K8sFile | LogDriver::JsonFile => {
            engine.log_path(container).display().to_string()
        }
        _ => String::new(),
    };
    let bindings = match config.network {
        Network::Slirp(_) => port_bindings(container, container.ports()),
        _ => json!({}),
    };
    let hosts: Vec<String> = config
        .names
        .hosts
        .iter()
        .map(|(name, address)| format!("{name}:{address}"))
        .collect();
    let mut object = json!({
        "Binds": binds(container),
        "CgroupMode": config.sharing.cgroup.text(),
        "ContainerIDFile": path(&config.lifecycle.cidfile),
        "LogConfig": {
            "Type": config.lifecycle.log.driver.as_str(),
            "Config": null,
            "Path": log,
            "Tag": config.lifecycle.log.tag.as_deref().unwrap_or_default(),
            "Size": config.lifecycle.log.max_size.map_or_else(|| "0B".into(), |size| human::size(size, "")),
        },
        "NetworkMode": match &config.network {
            Network::None => "none".to_owned(),
            Network::Host => "host".to_owned(),
            Network::Container(id) => format!("container:{id}"),
            Network::Path(path) => format!("ns:{}", path.display()),
            Network::Slirp(_) => "slirp4netns".to_owned(),
        },
        "PortBindings": bindings,
        "RestartPolicy": {
            "Name": config.restart.name(),
            "MaximumRetryCount": config.restart.retries(),
        },
        "AutoRemove": config.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": null,
        "CapAdd": added,
        "CapDrop": dropped,
        "Dns": config.names.servers,
        "DnsOptions": config.names.options,
        "DnsSearch": config.names.search,
        "ExtraHosts": hosts,
        "GroupAdd": match options.keep_groups {
            true => json!(["keep-groups"]),
            false => json!(options.group_add),
        },
        "IpcMode": match (&config.sharing.ipc, options.no_shm, config.sharing.ipc_closed) {
            (Place::Private, true, _) => "none".to_owned(),
            (Place::Private, false, false) => "shareable".to_owned(),
            (place, ..) => place.text(),
        },
        "Cgroup": "",
        "Links": null,
        "OomScoreAdj": options.oom_score_adj.unwrap_or(0),
        "PidMode": config.sharing.pid.text(),
        "Privileged": options.privileged,
        "PublishAllPorts": false,
        "ReadonlyRootfs": options.read_only,
        "SecurityOpt": security(&options.security),
        "Tmpfs": tmpfs(container),
        "UTSMode": config.sharing.uts.text(),
        "UsernsMode": match (&config.sharing.user, &config.arranged) {
            (Place::Private, None) => String::new(),
            (place, _) => place.text(),
        },
        "ShmSize": options.shm_size.unwrap_or(64 << 20),
        "Runtime": "oci",
        "ConsoleSize": [0, 0],
        "Isolation": "",
    });
    if let Some(map) = object.as_object_mut() {
        map.extend(limits(engine, container));
        map.insert("Devices".into(), devices(container));
        if let Some(arranged) = &config.arranged {
            let lines = |runs: &[(u32, u32, u32)]| -> Value {
                let line = |run: &(u32, u32, u32)| format!("{}:{}:{}", run.0, run.1, run.2);
                runs.iter().map(line).collect::<Vec<_>>().into()
            };
            let both = json!({"UidMap": lines(&arranged.uid), "GidMap": lines(&arranged.gid)});
            map.insert("IDMappings".into(), both);
        }
        map.insert("Ulimits".into(), ulimits(built));
    }
    object
}

fn devices(container: &Container) -> Value {
    let devices = container.config.options.devices.iter();
    devices
        .map(|device| {
            json!({
                "PathOnHost": device.source,
                "PathInContainer": device.destination,
                "CgroupPermissions": device.access,
            })
        })
        .collect()
}

/// Its limits.
fn limits(engine: &Engine, container: &Container) -> Map<String, Value> {
    let resources = &container.config.options.resources;
    let choice = &container.config.cgroup;
    let devices = |list: &[DeviceRate], name: &str| -> Value {
        match list.is_empty() {
            true => Value::Null,
            false => list
                .iter()
                .map(|device| json!({"Path": device.path, name: device.rate}))
                .collect(),
        }
    };
    let oci = resources.to_oci().ok().flatten().unwrap_or_default();
    let cpu = oci.cpu().clone().unwrap_or_default();
    let memory = oci.memory().as_ref();
    let object = json!({
        "Memory": resources.memory.unwrap_or(0),
        "MemorySwap": memory.and_then(|memory| memory.swap()).unwrap_or(0),
        "MemoryReservation": resources.memory_reservation.unwrap_or(0),
        "MemorySwappiness": resources.memory_swappiness.unwrap_or(0),
        "KernelMemory": 0,
        "OomKillDisable": resources.oom_kill_disable,
        "NanoCpus": resources.nano_cpus.unwrap_or(0),
        "CpuShares": resources.cpu_shares.unwrap_or(0),
        "CpuPeriod": cpu.period().unwrap_or(0),
        "CpuQuota": cpu.quota().unwrap_or(0),
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": resources.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": resources.cpuset_mems.clone().unwrap_or_default(),
        "CpuCount": 0,
        "CpuPercent": 0,
        "PidsLimit": engine.pids_limit(container).unwrap_or(0),
        "BlkioWeight": resources.blkio_weight.unwrap_or(0),
        "BlkioWeightDevice": devices(&resources.blkio_weight_devices, "Weight"),
        "BlkioDeviceReadBps": devices(&resources.read_bps, "Rate"),
        "BlkioDeviceWriteBps": devices(&resources.write_bps, "Rate"),
        "BlkioDeviceReadIOps": devices(&resources.read_iops, "Rate"),
        "BlkioDeviceWriteIOps": devices(&resources.write_iops, "Rate"),
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "DiskQuota": 0,
        "CgroupConf": match resources.unified.is_empty() {
            true => Value::Null,
            false => json!(resources.unified),
        },
        "CgroupParent": choice.parent.clone().unwrap_or_default(),
        "CgroupManager": match choice.manager {
            Manager::Auto | Manager::Cgroupfs => "cgroupfs",
            Manager::Systemd => "systemd",
        },
        "Cgroups": choice.mode.as_str(),
    });
    match object {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn ulimits(built: Option<&bundle::Bundle>) -> Value {
    let limits = built
        .and_then(|b| b.spec.process().as_ref()?.rlimits().clone())
        .unwrap_or_default();
    let one = |limit: &Value| {
        json!({
            "Name": limit["type"],
            "Soft": limit["soft"],
            "Hard": limit["hard"],
        })
    };
    // Through the specification's own names.
    let limits = serde_json::to_value(limits).unwrap_or_default();
    limits
        .as_array()
        .map(|list| list.iter().map(one).collect())
        .unwrap_or_else(|| json!([]))
}

fn binds(container: &Container) -> Vec<String> {
    let config = &container.config;
    let mut binds = Vec::new();
    for mount in &config.options.mounts {
        let source = match &mount.source {
            Source::Bind(path) => path.display().to_string(),
            Source::Volume(name) => name.clone(),
            Source::Image(id) => id.clone(),
            Source::Anonymous | Source::Tmpfs => continue,
        };
        binds.push(format!(
            "{source}:{}:{}",
            mount.destination,
            mount.options.join(",")
        ));
    }
    for volume in config.volumes.iter().filter(|v| v.anonymous) {
        binds.push(format!(
            "{}:{}:rprivate,rw,nodev,exec,nosuid,rbind",
            volume.name, volume.destination
        ));
    }
    binds
}

fn tmpfs(container: &Container) -> Value {
    let options = &container.config.options;
    let mut map = std::collections::BTreeMap::new();
    if options.read_only && options.read_only_tmpfs {
        for path in ["/run", "/tmp", "/var/tmp"] {
            map.insert(path, "rw,rprivate,nosuid,nodev,tmpcopyup".to_owned());
        }
    }
    for mount in options.mounts.iter().filter(|m| m.source == Source::Tmpfs) {
        map.insert(&mount.destination, mount.options.join(","));
    }
    json!(map)
}

fn security(security: &bundle::parse::Security) -> Vec<String> {
    let mut words = Vec::new();
    if security.no_new_privileges {
        words.push("no-new-privileges".into());
    }
    match &security.seccomp {
        bundle::parse::SeccompChoice::Default => {}
        bundle::parse::SeccompChoice::Unconfined => words.push("seccomp=unconfined".into()),
        bundle::parse::SeccompChoice::File(path) => {
            words.push(format!("seccomp={}", path.display()))
        }
    }
    let join = |name: &str, list: &[String]| {
        (!list.is_empty()).then(|| format!("{name}={}", list.join(":")))
    };
    words.extend(join("mask", &security.mask));
    words.extend(join("unmask", &security.unmask));
    words.extend(security.label.iter().map(|l| format!("label={l}")));
    words
}
