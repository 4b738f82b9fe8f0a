//! `config.json` without what says nothing: most of what can be said of a container never is, and who lists a thousand
//! reads all of it a thousand times.
//!
//! Left out is what is blank (`null`, `false`, 0, nothing in it) and blank by default, in those parts whose missing fields
//! are read as the defaults. So a default that is blank has to stay so for as long as [`FORMAT`](crate::record::FORMAT)
//! does; defaults that say something are always written down.

use rcon_bundle::{ImageConfig, Options};
use serde::Serialize;
use serde_json::Value;

use crate::lifecycle::Lifecycle;
use crate::record::{Config, NameOptions};

/// What is written down of a container.
pub(crate) fn compact(config: &Config) -> Value {
    let mut all = value(config);
    prune(&mut all["image_config"], &value(&ImageConfig::default()));
    prune(&mut all["options"], &value(&Options::default()));
    prune(&mut all["names"], &value(&NameOptions::default()));
    prune(&mut all["lifecycle"], &value(&Lifecycle::default()));
    if let Some(own) = all["network"].get_mut("slirp") {
        prune(own, &value(&rcon_net::Config::default()));
    }
    all
}

/// Of text, numbers and names there is nothing that JSON cannot say.
fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

fn prune(value: &mut Value, default: &Value) {
    let (Value::Object(fields), Value::Object(defaults)) = (value, default) else {
        return;
    };
    fields.retain(|name, field| {
        let Some(default) = defaults.get(name) else {
            return true;
        };
        if field.is_object() && default.is_object() {
            prune(field, default);
            return !is_blank(field);
        }
        !(is_blank(field) && field == default)
    });
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::health::{HealthCheck, OnUnhealthy};
    use crate::record::{Network, test_config};

    /// A configuration of which much is said.
    fn rich() -> Config {
        let mut config = test_config("rich");
        let text = |word: &str| word.to_owned();
        config.image_config.cmd = vec![text("serve")];
        config.image_config.labels.insert(text("a"), text(""));
        let options = &mut config.options;
        options.command = vec![text("sh")];
        options.env = vec![(text("A"), text(""))];
        options.labels.insert(text("b"), text("0"));
        options.default_caps = Some(Vec::new());
        options.read_only_tmpfs = false;
        options.stop_timeout = Some(0);
        options.tty = true;
        options.accounts.add = false;
        options.resources.memory = Some(1 << 20);
        options.resources.unified.insert(text("x"), text(""));
        options.security.no_new_privileges = true;
        config.names.no_hosts = true;
        config.lifecycle.timeout = 3;
        config.lifecycle.log.max_size = Some(0);
        config.lifecycle.health.on_unhealthy = OnUnhealthy::Kill;
        config.lifecycle.health.check = Some(HealthCheck {
            interval: Duration::ZERO,
            ..HealthCheck::new(vec![text("CMD"), text("true")])
        });
        config.network = Network::Slirp(Box::new(rcon_net::Config {
            ipv6: !rcon_net::Config::default().ipv6,
            ..rcon_net::Config::default()
        }));
        config
    }

    #[test]
    fn nothing_that_was_said_is_lost() {
        for config in [test_config("plain"), rich()] {
            let short = serde_json::to_string(&compact(&config)).unwrap();
            let back: Config = serde_json::from_str(&short).unwrap();
            assert_eq!(value(&back), value(&config), "{short}");
            let long = serde_json::to_string(&config).unwrap();
            assert!(
                short.len() < long.len() * 2 / 3,
                "{} {}",
                short.len(),
                long.len()
            );
        }
    }

    #[test]
    fn defaults_that_say_something_are_written_down() {
        let text = serde_json::to_string(&compact(&test_config("plain"))).unwrap();
        for said in [
            "\"mtu\":65520",
            "\"read_only_tmpfs\":true",
            "\"sdnotify\"",
            "\"ports\":[]",
        ] {
            assert!(text.contains(said), "{said} {text}");
        }
    }
}
