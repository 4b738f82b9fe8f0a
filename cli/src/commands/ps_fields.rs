//! What `rcon ps` says of a container: the cells of its table, the fields of its templates, and its JSON.

use chrono::{DateTime, Utc};
use rcon_engine::{Container, Network, PortMapping, State, Status, bundle, net};
use serde_json::{Value, json};

use crate::output::human;
use crate::output::table::ellipsis;

/// The user's words after the image or the image's own, without the entry point.
pub fn words(c: &Container) -> Vec<String> {
    let (options, image) = (&c.config.options, &c.config.image_config);
    bundle::shown(
        options.entrypoint.as_deref(),
        options.command.clone(),
        image.cmd.clone(),
    )
}

pub fn command(words: &[String], cut: bool) -> String {
    let text = bundle::display(words);
    if cut { ellipsis(&text, 17) } else { text }
}

/// `Up 2 minutes`, `Exited (0) 3 seconds ago`, `Created`, …
pub fn status(state: &State, now: DateTime<Utc>) -> String {
    let since =
        |time: Option<DateTime<Utc>>| time.map_or_else(String::new, |t| human::duration(now - t));
    match state.status {
        Status::Running => {
            let up = since(state.started);
            match state.health {
                Some(health) => format!("Up {up} ({})", health.status.as_str()),
                None => format!("Up {up}"),
            }
        }
        Status::Paused => "Paused".into(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished)),
        Status::Created => "Created".into(),
        Status::Initialized => "Initialized".into(),
        Status::Stopping => "Stopping".into(),
    }
}

/// As [`status`], with the `ago` that podman says of this field.
pub fn state(state: &State, now: DateTime<Utc>) -> String {
    match state.status {
        Status::Running => status(state, now) + " ago",
        _ => status(state, now),
    }
}

/// `0.0.0.0:8080->80/tcp, 0.0.0.0:9000-9002->9000-9002/tcp`
pub fn ports(ports: &[PortMapping]) -> String {
    let mut sorted = net::joined(ports);
    sorted.sort_by_key(|p| (p.protocol, p.host_port));
    let run = |first: u16, range: u16| match range {
        0 | 1 => first.to_string(),
        _ => format!("{first}-{}", first.saturating_add(range - 1)),
    };
    let one = |p: &PortMapping| {
        let inside = format!("{}/{}", run(p.container_port, p.range), p.protocol);
        match (p.host_port, p.host_ip) {
            // Chosen when it starts.
            (0, _) => inside,
            (port, None) => format!("0.0.0.0:{}->{inside}", run(port, p.range)),
            (port, Some(std::net::IpAddr::V6(ip))) => {
                format!("[{ip}]:{}->{inside}", run(port, p.range))
            }
            (port, Some(ip)) => format!("{ip}:{}->{inside}", run(port, p.range)),
        }
    };
    sorted.iter().map(one).collect::<Vec<_>>().join(", ")
}

pub fn mounts(c: &Container) -> Vec<&str> {
    let users = c
        .config
        .options
        .mounts
        .iter()
        .map(|m| m.destination.as_str());
    let volumes = c.config.volumes.iter().map(|v| v.destination.as_str());
    let mut all: Vec<&str> = users.collect();
    for destination in volumes {
        if !all.contains(&destination) {
            all.push(destination);
        }
    }
    all
}

pub fn pid(state: &State) -> i32 {
    match (state.status.has_process(), state.process) {
        (true, Some(process)) => process.pid,
        _ => 0,
    }
}

/// A container as `--format json` shows it.
pub fn object(c: &Container, now: DateTime<Utc>) -> Value {
    let ended = !c.state.status.is_alive() && c.state.finished.is_some();
    let labels = c.config.labels();
    let ports: Vec<Value> = net::joined(c.ports())
        .iter()
        .map(|p| {
            json!({
                "host_ip": p.host_ip.map_or_else(String::new, |ip| ip.to_string()),
                "container_port": p.container_port,
                "host_port": p.host_port,
                "range": p.range,
                "protocol": p.protocol.to_string(),
            })
        })
        .collect();
    json!({
        "AutoRemove": c.config.auto_remove,
        "Command": words(c),
        "CreatedAt": human::ago(c.config.created, now),
        "Exited": ended,
        "ExitedAt": human::unix(c.state.finished.filter(|_| ended)),
        "ExitCode": c.state.exit_code,
        "Id": c.config.id,
        "Image": c.config.image_name,
        "ImageID": c.config.image_id,
        "IsInfra": false,
        "Labels": if labels.is_empty() { Value::Null } else { json!(labels) },
        "Mounts": mounts(c),
        "Names": [c.config.name],
        "Namespaces": {},
        "Networks": [],
        "Pid": pid(&c.state),
        "Pod": "",
        "PodName": "",
        "Ports": if ports.is_empty() { Value::Null } else { Value::Array(ports) },
        "Size": null,
        "StartedAt": human::unix(c.state.started),
        "Restarts": c.state.restarts,
        "State": c.state.status.as_str(),
        "Status": status(&c.state, now),
        "Created": c.config.created.timestamp(),
    })
}

/// A container as templates see it: podman's reporter gives most fields in words.
pub fn fields(c: &Container, cut: bool, now: DateTime<Utc>) -> Value {
    let mut object = object(c, now);
    let cut_id = |id: &str| {
        if cut {
            human::short(id).to_owned()
        } else {
            id.to_owned()
        }
    };
    let labels = c.config.labels();
    let own = [
        ("ID", json!(cut_id(&c.config.id))),
        ("ImageID", json!(cut_id(&c.config.image_id))),
        ("Names", json!(c.config.name)),
        ("Command", json!(command(&words(c), cut))),
        ("Created", json!(human::moment(c.config.created))),
        ("CreatedAt", json!(human::moment(c.config.created))),
        ("CreatedHuman", json!(human::ago(c.config.created, now))),
        ("RunningFor", json!(human::ago(c.config.created, now))),
        ("State", json!(state(&c.state, now))),
        ("Ports", json!(ports(c.ports()))),
        ("Networks", json!("")),
        ("Labels", json!(labels)),
        ("Size", json!("")),
    ];
    if let Some(map) = object.as_object_mut() {
        map.extend(own.map(|(name, value)| (name.to_owned(), value)));
    }
    object
}

/// A container that is nobody's, for the names of the fields.
pub fn blank() -> Container {
    Container {
        config: rcon_engine::Config {
            format: rcon_engine::record::FORMAT,
            id: String::new(),
            name: String::new(),
            created: DateTime::UNIX_EPOCH,
            image_id: String::new(),
            image_name: String::new(),
            image_digest: String::new(),
            image_config: rcon_engine::ImageConfig::default(),
            options: rcon_engine::Options::default(),
            sharing: rcon_engine::Sharing::default(),
            arranged: None,
            network: Network::None,
            ports: Vec::new(),
            names: rcon_engine::NameOptions::default(),
            auto_remove: false,
            restart: rcon_engine::RestartPolicy::No,
            lifecycle: rcon_engine::Lifecycle::default(),
            cgroup: rcon_engine::CgroupChoice::default(),
            volumes: Vec::new(),
            secrets: Vec::new(),
            create_command: Vec::new(),
            by_run: None,
        },
        state: rcon_engine::State::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_listed() {
        let mut all = PortMapping::parse("127.0.0.1:5353:53/udp").unwrap();
        for row in ["9002:9002", "9000-9001:9000-9001"] {
            all.extend(PortMapping::parse(row).unwrap());
        }
        all.extend(PortMapping::parse("[::1]:8080:80").unwrap());
        assert_eq!(
            ports(&all),
            "[::1]:8080->80/tcp, 0.0.0.0:9000-9002->9000-9002/tcp, 127.0.0.1:5353->53/udp"
        );
    }
}
