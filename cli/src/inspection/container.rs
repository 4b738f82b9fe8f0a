//! A container as `podman inspect` shows it.
//!
//! The process (environment, capabilities, limits) is shown as it would be built now, by the same function that builds it
//! when the container starts; should that fail (a bind mount's source is gone), what the user said is shown instead.

use std::collections::BTreeMap;

use rcon_engine::bundle::{self, Source};
use rcon_engine::{Container, Engine, PortMapping, Status};
use serde_json::{Map, Value, json};

use super::{graph_driver, host_config};
use crate::commands::port::singles;
use crate::output::human;

/// The object.
pub fn object(engine: &Engine, container: &Container) -> Value {
    let config = &container.config;
    let options = &config.options;
    let built = build(engine, container);
    let argv = config.argv();
    let runtime = engine.paths().runtime(&config.id);
    let lasting = engine.paths().container(&config.id);
    let file = |name: &str| runtime.join(name).display().to_string();
    let caps = bundle::capabilities(options, user(container)).unwrap_or_default();
    let names = |set: &std::collections::BTreeSet<&str>| {
        set.iter().map(|c| format!("CAP_{c}")).collect::<Vec<_>>()
    };
    let snapshot = engine.store().snapshot(&config.id).ok().flatten();
    let graph = graph_driver::of_container(snapshot.as_ref());
    json!({
        "Id": config.id,
        "Created": human::rfc3339(Some(config.created)),
        "Path": argv.first().cloned().unwrap_or_default(),
        "Args": argv.get(1..).unwrap_or_default(),
        "State": state(engine, container),
        "Image": config.image_id,
        "ImageDigest": config.image_digest,
        "ImageName": config.image_name,
        "Rootfs": "",
        "Pod": "",
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": if config.names.no_hosts { String::new() } else { file("hosts") },
        "StaticDir": lasting.display().to_string(),
        "OCIRuntime": "rcon",
        "ConmonPidFile": path(&config.lifecycle.conmon_pidfile),
        "PidFile": path(&config.lifecycle.pidfile),
        "Name": config.name,
        "RestartCount": container.state.restarts,
        "Driver": graph["Name"],
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "EffectiveCaps": names(&caps.effective),
        "BoundingCaps": names(&caps.bounding),
        "ExecIDs": [],
        "GraphDriver": graph,
        "Mounts": mounts(engine, container),
        "Dependencies": config.sharing.dependencies(),
        "NetworkSettings": network_settings(container),
        "Namespace": "",
        "IsInfra": false,
        "IsService": false,
        "Config": process_config(container, built.as_ref()),
        "HostConfig": host_config::object(engine, container, built.as_ref(), &caps),
    })
}

/// The container's user, as far as it is said by user or image.
fn user(container: &Container) -> Option<&str> {
    let said = container
        .config
        .options
        .user
        .as_deref()
        .filter(|u| !u.is_empty());
    said.or(container.config.image_config.user.as_deref())
}

fn build(engine: &Engine, container: &Container) -> Option<bundle::Bundle> {
    let config = &container.config;
    let volumes = config
        .volumes
        .iter()
        .map(|v| {
            let at = bundle::VolumeAt::Folder(engine.volume_data(&v.name));
            (v.destination.clone(), at)
        })
        .collect();
    let images = config.options.mounts.iter();
    let images = images
        .filter(|m| matches!(m.source, Source::Image(_)))
        .map(|m| (m.destination.clone(), Vec::new()))
        .collect();
    let context = bundle::Context {
        container_id: config.id.clone(),
        host_name: engine.host_name_of(config),
        volumes,
        images,
        limits: bundle::HardLimits::current(),
        ..bundle::Context::default()
    };
    bundle::build(&config.image_config, &config.options, &context).ok()
}

/// A path that need not be there.
pub fn path(path: &Option<std::path::PathBuf>) -> String {
    path.as_ref()
        .map_or_else(String::new, |path| path.display().to_string())
}

fn state(engine: &Engine, container: &Container) -> Value {
    let state = &container.state;
    let alive = state.status.has_process();
    let pid =
        |process: Option<rcon_engine::ProcessRef>| process.filter(|_| alive).map_or(0, |p| p.pid);
    let mut object = json!({
        "OciVersion": "1.2.0",
        "Status": state.status.as_str(),
        "Running": matches!(state.status, Status::Running | Status::Stopping),
        "Paused": state.status == Status::Paused,
        "Restarting": state.restarting,
        "OOMKilled": state.oom_killed,
        "Dead": false,
        "Pid": pid(state.process),
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": human::rfc3339(state.started),
        "FinishedAt": human::rfc3339(state.finished.filter(|_| !state.status.is_alive())),
        "Health": health(engine, container),
        "CheckpointedAt": human::rfc3339(None),
        "RestoredAt": human::rfc3339(None),
    });
    if let (true, Some(map)) = (alive, object.as_object_mut()) {
        if let Some(path) = engine.cgroup_path(container) {
            map.insert("CgroupPath".into(), path.into());
        }
        map.insert("ConmonPid".into(), pid(state.monitor).into());
    }
    object
}

/// What is known of its health.
fn health(engine: &Engine, container: &Container) -> Value {
    match container.state.health {
        Some(state) => json!({
            "Status": state.status.as_str(),
            "FailingStreak": state.failing_streak,
            "Log": engine.health_log(container),
        }),
        None => json!({"Status": "", "FailingStreak": 0, "Log": null}),
    }
}

/// A health check as images write it.
fn check(check: &rcon_engine::HealthCheck) -> Value {
    let nanoseconds = |time: std::time::Duration| time.as_nanos() as u64;
    json!({
        "Test": check.test,
        "StartPeriod": nanoseconds(check.start_period),
        "Interval": nanoseconds(check.interval),
        "Timeout": nanoseconds(check.timeout),
        "Retries": check.retries,
    })
}

/// What is mounted by the user and the image.
fn mounts(engine: &Engine, container: &Container) -> Vec<Value> {
    let config = &container.config;
    let mut list = BTreeMap::new();
    for mount in &config.options.mounts {
        // Of the options, what is said elsewhere is left out.
        let hide = |o: &&String| {
            !["rw", "ro"].contains(&o.as_str())
                && !o.ends_with("private")
                && !o.ends_with("shared")
                && !o.ends_with("slave")
        };
        let options: Vec<&String> = mount.options.iter().filter(hide).collect();
        let propagation = mount.options.iter().find(|o| {
            [
                "private", "rprivate", "shared", "rshared", "slave", "rslave",
            ]
            .contains(&o.as_str())
        });
        let object = |kind: &str, name: Option<&str>, source: String, driver: &str| {
            let mut object = json!({"Type": kind});
            if let Some(map) = object.as_object_mut() {
                name.map(|name| map.insert("Name".into(), name.into()));
                map.insert("Source".into(), source.into());
                map.insert("Destination".into(), mount.destination.as_str().into());
                map.insert("Driver".into(), driver.into());
                map.insert("Mode".into(), "".into());
                map.insert("Options".into(), json!(options));
                map.insert(
                    "RW".into(),
                    (!mount.options.iter().any(|o| o == "ro")).into(),
                );
                map.insert(
                    "Propagation".into(),
                    propagation.map_or("rprivate", String::as_str).into(),
                );
            }
            object
        };
        match &mount.source {
            Source::Bind(path) => {
                list.insert(
                    mount.destination.as_str(),
                    object("bind", None, path.display().to_string(), ""),
                );
            }
            Source::Volume(_) | Source::Anonymous => {
                if let Some(volume) = config
                    .volumes
                    .iter()
                    .find(|v| v.destination == mount.destination)
                {
                    let data = engine.volume_data(&volume.name).display().to_string();
                    list.insert(
                        mount.destination.as_str(),
                        object("volume", Some(&volume.name), data, "local"),
                    );
                }
            }
            Source::Image(id) => {
                list.insert(
                    mount.destination.as_str(),
                    object("image", None, id.clone(), ""),
                );
            }
            Source::Tmpfs => {}
        }
    }
    for volume in &config.volumes {
        list.entry(volume.destination.as_str()).or_insert_with(|| {
            json!({
                "Type": "volume",
                "Name": volume.name,
                "Source": engine.volume_data(&volume.name).display().to_string(),
                "Destination": volume.destination,
                "Driver": "local",
                "Mode": "",
                "Options": ["nodev", "exec", "nosuid", "rbind"],
                "RW": true,
                "Propagation": "rprivate",
            })
        });
    }
    list.into_values().collect()
}

/// `{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`; what is exposed and not published is null.
pub fn port_bindings(container: &Container, ports: &[PortMapping]) -> Value {
    let mut object = BTreeMap::new();
    for exposed in bundle::parse::image_ports(
        &container.config.image_config,
        &container.config.options.expose,
    ) {
        for port in exposed.first..=exposed.last {
            object.insert(format!("{port}/{}", exposed.protocol), Value::Null);
        }
    }
    for port in singles(ports) {
        let binding = json!({
            "HostIp": port.host_ip.map_or_else(String::new, |ip| ip.to_string()),
            "HostPort": port.host_port.to_string(),
        });
        let list = object
            .entry(format!("{}/{}", port.container_port, port.protocol))
            .or_insert(Value::Null);
        match list.as_array_mut() {
            Some(list) => list.push(binding),
            None => *list = json!([binding]),
        }
    }
    Value::Object(object.into_iter().collect::<Map<String, Value>>())
}

/// As podman has it for a user-mode network: the addresses are the same in every container and are not told.
fn network_settings(container: &Container) -> Value {
    let ports = match container.config.network {
        rcon_engine::Network::Slirp(_) => port_bindings(container, container.ports()),
        _ => json!({}),
    };
    json!({
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": "",
        "Bridge": "",
        "SandboxID": "",
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": ports,
        "SandboxKey": "",
    })
}

fn process_config(container: &Container, built: Option<&bundle::Bundle>) -> Value {
    let config = &container.config;
    let options = &config.options;
    let command = bundle::command(&config.image_config, options).ok();
    let process = built.and_then(|b| b.spec.process().as_ref());
    let env = match process.and_then(|p| p.env().clone()) {
        Some(env) => env,
        None => {
            let said = options
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            config
                .image_config
                .env
                .iter()
                .cloned()
                .chain(said)
                .collect()
        }
    };
    let hostname = built.map_or_else(|| config.short_id().to_owned(), |b| b.hostname.clone());
    let labels = config.labels();
    let mut object = json!({
        "Hostname": hostname,
        "Domainname": "",
        "User": user(container).unwrap_or_default(),
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": false,
        "Env": env,
        "Cmd": command.as_ref().map(|c| c.shown.clone()),
        "Image": config.image_name,
        "Volumes": null,
        "WorkingDir": process.map_or_else(|| "/".into(), |p| p.cwd().display().to_string()),
        "Entrypoint": command.map_or_else(String::new, |c| c.entrypoint.join(" ")),
        "OnBuild": null,
        "Labels": if labels.is_empty() { Value::Null } else { json!(labels) },
        "Annotations": options.annotations,
        "StopSignal": config.stop_signal(),
        "HealthcheckOnFailureAction": config.lifecycle.health.on_unhealthy.as_str(),
        "CreateCommand": config.create_command,
        "Umask": format!("{:04o}", options.umask.unwrap_or(0o022)),
        "Timeout": config.lifecycle.timeout,
        "StopTimeout": config.stop_timeout(),
        "Passwd": options.accounts.add,
        "sdNotifyMode": config.lifecycle.sdnotify.as_str(),
    });
    let health = &config.lifecycle.health;
    if let Some(map) = object.as_object_mut() {
        if let Some(zone) = &options.tz {
            map.insert("Timezone".into(), zone.as_str().into());
        }
        if let Some(entry) = &options.accounts.passwd_entry {
            map.insert("PasswdEntry".into(), entry.as_str().into());
        }
        if let Some(entry) = &options.accounts.group_entry {
            map.insert("GroupEntry".into(), entry.as_str().into());
        }
        if !options.chroot_dirs.is_empty() {
            map.insert("ChrootDirs".into(), json!(options.chroot_dirs));
        }
        map.insert(
            "SystemdMode".into(),
            built.is_some_and(|b| b.for_systemd).into(),
        );
        if let Some(own) = &health.check {
            map.insert("Healthcheck".into(), check(own));
        }
        if let Some(startup) = &health.startup {
            let mut own = check(&startup.check);
            own["Successes"] = startup.successes.into();
            map.insert("StartupHealthCheck".into(), own);
        }
    }
    object
}
