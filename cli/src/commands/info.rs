//! `rcon info`

use std::path::PathBuf;

use clap::Args;
use rcon_engine::Options;
use serde_json::{Value, json};

use crate::app::Command;
use crate::containers_conf::{self, Defaults};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::{self, json};

/// The arguments of `info`.
#[derive(Args, Debug)]
pub struct Info {
    /// Display additional debug information, as rcon always does
    #[arg(short = 'D', long, hide = true)]
    debug: bool,
    /// Change the output format to JSON or a Go template
    #[arg(short = 'f', long)]
    format: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Command for Info {
    const ABOUT: &'static str = "Display system information, as a bug report needs it";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &["info", "info --format '{{.Host.Kernel}}'"];

    fn run(self, context: &Context) -> Outcome {
        let _ = self.debug;
        if !self.args.is_empty() {
            return Err(Failure::new(format!(
                "`{}` takes no arguments",
                context.name
            )));
        }
        let mut facts = facts(&context.engine()?.info()?, configuration()?);
        let search =
            rcon_engine::image::registries::Registries::load().map(|r| r.search_registries());
        facts["registries"] = json!({"search": search.unwrap_or_default()});
        let text = match Format::parse(self.format.as_deref()) {
            Format::Default => yaml(&facts),
            Format::Json => json::pretty(&facts, 2),
            Format::Lines(text) | Format::Table(text) => format::lines("info", &text, &[facts])?,
        };
        output::print(&text)?;
        Ok(0)
    }
}

/// The variables that name files or folders of ours.
const VARIABLES: [&str; 9] = [
    "CONTAINERS_CONF",
    "CONTAINERS_CONF_OVERRIDE",
    "CONTAINERS_REGISTRIES_CONF",
    "CONTAINERS_STORAGE_CONF",
    "DOCKER_CONFIG",
    "REGISTRY_AUTH_FILE",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
];

/// Which files are read, of those there are, and what they say.
fn configuration() -> Result<Value, Failure> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let user = rcon_sys::passwd::config_dir();
    // The user's own takes the place of the administrator's.
    let first = |name: &str, file: &str| {
        let user = user.as_ref().map(|dir| dir.join("containers").join(file));
        let all = [
            variable(name),
            user,
            Some(PathBuf::from("/etc/containers").join(file)),
        ];
        let found = all.into_iter().flatten().find(|path| path.exists());
        found.map_or(Value::Null, |path| path.display().to_string().into())
    };
    let runtime = variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
    let auth = [variable("REGISTRY_AUTH_FILE"), runtime];
    let auth = auth.into_iter().flatten().find(|path| path.exists());
    let said = containers_conf::said()?;
    let files: Vec<String> = Defaults::load()?
        .files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let followed = said.iter().filter(|said| said.followed).map(|said| {
        json!({
            "name": said.name,
            "value": said.value,
            "file": said.file.display().to_string(),
        })
    });
    let followed: Vec<Value> = followed.collect();
    let others: Vec<&String> = said
        .iter()
        .filter(|said| !said.followed)
        .map(|said| &said.name)
        .collect();
    let variables: Vec<String> = VARIABLES
        .iter()
        .filter_map(|name| Some(format!("{name}={}", variable(name)?.display())))
        .collect();
    Ok(json!({
        "fields": followed,
        "fieldsNotFollowed": others,
        "environment": variables,
        "storageConf": first("CONTAINERS_STORAGE_CONF", "storage.conf"),
        "authFile": auth.map(|path| path.display().to_string()),
        "containersConf": files,
        "policy": first("", "policy.json"),
        "registriesConf": first("CONTAINERS_REGISTRIES_CONF", "registries.conf"),
    }))
}

/// What is known of the machine, under podman's names; what only rcon has to say is in `ladder`.
fn facts(info: &rcon_engine::Info, configuration: Value) -> Value {
    let (host, store) = (&info.host, &info.store);
    let version = &info.version.version;
    let caps = rcon_engine::bundle::capabilities(&Options::default(), None).unwrap_or_default();
    let caps: Vec<String> = caps.bounding.iter().map(|c| format!("CAP_{c}")).collect();
    json!({
        "host": {
            "arch": host.arch,
            "cgroupControllers": rcon_engine::controllers(),
            "cgroupManager": match rcon_engine::has_systemd() {
                true => "systemd",
                false => "cgroupfs",
            },
            "cgroupVersion": host.cgroup_version,
            "cpus": host.cpus,
            "distribution": host.distribution,
            "eventLogger": "file",
            "hostname": host.hostname,
            "idMappings": host.id_mappings,
            "kernel": host.kernel,
            "linkmode": "static",
            "logDriver": "k8s-file",
            "memFree": host.mem_available,
            "memTotal": host.mem_total,
            "networkBackend": "rcon",
            "ociRuntime": {"name": "rcon", "version": version},
            "os": host.os,
            "security": {
                "apparmorEnabled": false,
                "capabilities": caps.join(","),
                "rootless": host.rootless,
                "seccompEnabled": true,
                "selinuxEnabled": false,
            },
            "serviceIsRemote": false,
            "swapFree": host.swap_free,
            "swapTotal": host.swap_total,
            "uptime": uptime(host.uptime),
        },
        "configuration": configuration,
        "ladder": info.ladder,
        "plugins": {
            "authorization": null,
            "log": ["k8s-file", "json-file", "journald", "none", "passthrough"],
            "network": ["slirp4netns", "host", "none"],
            "volume": ["local"],
        },
        "store": {
            "containerStore": {
                "number": store.containers,
                "paused": 0,
                "running": store.running,
                "stopped": store.stopped,
            },
            "graphDriverName": store.graph_driver,
            "graphOptions": graph_options(store),
            "graphRoot": store.graph_root,
            "graphRootAllocated": store.allocated,
            "graphRootUsed": store.used,
            "graphStatus": {"Backing Filesystem": store.backing_filesystem},
            "imageStore": {"number": store.images},
            "runRoot": store.run_root,
            "volumePath": format!("{}/volumes", store.graph_root),
        },
        "version": {"APIVersion": version, "OsArch": info.version.os_arch, "Version": version},
    })
}

/// What was set of the storage, under the names that it has for podman.
fn graph_options(store: &rcon_engine::info::StoreInfo) -> Value {
    let mut options = serde_json::Map::new();
    if let Some(program) = &store.mount_program {
        let program = json!({ "Executable": program });
        options.insert("overlay.mount_program".to_owned(), program);
    }
    if !store.image_stores.is_empty() {
        let name = format!("{}.imagestore", store.graph_driver);
        options.insert(name, store.image_stores.join(",").into());
    }
    options.into()
}

/// `1h 2m 3.00s`, and after a day how many days that is.
fn uptime(seconds: u64) -> String {
    let text = format!(
        "{}h {}m {}.00s",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    match seconds / 86400 {
        0 => text,
        days => format!(
            "{text} (Approximately {}.{:02} days)",
            days,
            seconds % 86400 * 100 / 86400
        ),
    }
}

/// The object as YAML, the keys sorted as podman has them.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            for key in keys {
                *text += &format!("{indent}{key}:");
                // A list stands as deep as its key.
                entry(
                    &map[key],
                    if map[key].is_array() {
                        depth
                    } else {
                        depth + 1
                    },
                    text,
                );
            }
        }
        Value::Array(list) => {
            for item in list {
                let mut inner = String::new();
                block(item, depth + 1, &mut inner);
                *text += &format!("{indent}- {}", inner.trim_start());
            }
        }
        scalar => *text += &format!("{indent}{}\n", plain(scalar, depth)),
    }
}

fn entry(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            block(value, depth, text);
        }
        Value::Array(list) if !list.is_empty() => {
            text.push('\n');
            block(value, depth, text);
        }
        Value::Object(_) => *text += " {}\n",
        Value::Array(_) => *text += " []\n",
        scalar => *text += &format!(" {}\n", plain(scalar, depth)),
    }
}

/// A scalar; text that YAML would take for something else is quoted.
fn plain(value: &Value, depth: usize) -> String {
    let Value::String(text) = value else {
        return value.to_string();
    };
    if text.contains('\n') {
        let indent = "  ".repeat(depth);
        return format!(
            "|-\n{indent}{}",
            text.trim_end().replace('\n', &format!("\n{indent}"))
        );
    }
    let odd = text.is_empty()
        || text.trim() != text
        || text.contains(": ")
        || text.contains(" #")
        || text.ends_with(':')
        || text.starts_with(|c: char| "!&*-?|>@`\"'%#{}[],:=~".contains(c))
        || text.parse::<f64>().is_ok()
        || ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_lowercase().as_str())
        || text.chars().any(char::is_control);
    match odd {
        true => Value::String(text.clone()).to_string(),
        false => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes() {
        assert_eq!(uptime(3723), "1h 2m 3.00s");
        assert_eq!(uptime(129_600), "36h 0m 0.00s (Approximately 1.50 days)");
    }

    #[test]
    fn facts_are_printed_as_yaml() {
        let value = json!({
            "b": {"c": [], "a": {}},
            "a": [{"x": 1, "y": "12"}, {"x": 2, "y": "a: b"}],
            "t": "two\nlines", "e": "", "n": null,
        });
        assert_eq!(
            yaml(&value),
            "a:\n- x: 1\n  y: \"12\"\n- x: 2\n  y: \"a: b\"\nb:\n  a: {}\n  c: []\ne: \"\"\nn: null\nt: |-\n  two\n  lines\n"
        );
    }
}
