//! `rcon network ls`, `inspect` and `exists`: the networks that a container can be given.
//!
//! There are three, and none can be made or removed: a container's own user-mode network, the
//! host's, and none at all.

use clap::Args;
use rcon_engine::net;
use serde_json::{Value, json};

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::table::Table;
use crate::output::{self, human, json};

/// A network that is always there.
struct Network {
    name: &'static str,
    driver: &'static str,
    /// The SHA-256 of the name, as podman makes ids of networks.
    id: &'static str,
}

const NETWORKS: [Network; 3] = [
    Network {
        name: "slirp4netns",
        driver: "slirp4netns",
        id: "ebe3262ae97c575e316064735df66981d0a698e5c45b4c4b3294789e6c10c229",
    },
    Network {
        name: "host",
        driver: "host",
        id: "4740ae6347b0172c01254ff55bae5aff5199f4446e7f6d643d40185b3f475145",
    },
    Network {
        name: "none",
        driver: "null",
        id: "140bedbf9c3f6d56a9846d2ba7088798683f4da0c248231336e6a05679e4fdfe",
    },
];

impl Network {
    fn find(text: &str) -> Option<&'static Network> {
        NETWORKS
            .iter()
            .find(|network| network.name == text)
            .or_else(|| {
                let mut of_id = NETWORKS
                    .iter()
                    .filter(|network| network.id.starts_with(text));
                of_id
                    .next()
                    .filter(|_| !text.is_empty() && of_id.next().is_none())
            })
    }

    fn object(&self) -> Value {
        let config = net::Config::for_this_host();
        let mut subnets = Vec::new();
        let own = self.name == "slirp4netns";
        if own {
            subnets
                .push(json!({"subnet": config.cidr.to_string(), "gateway": config.gateway_v4()}));
            if config.has_ipv6() {
                subnets.push(json!({"subnet": "fd00::/64", "gateway": "fd00::2"}));
            }
        }
        json!({
            "name": self.name,
            "id": self.id,
            "driver": self.driver,
            "subnets": subnets,
            "ipv6_enabled": own && config.has_ipv6(),
            "internal": self.name == "none",
            "dns_enabled": own,
            "options": if own { json!({"mtu": config.mtu.to_string()}) } else { json!({}) },
        })
    }
}

/// The network of that name or id, as `inspect` shows it.
pub fn find(name: &str) -> Option<Value> {
    Network::find(name).map(Network::object)
}

fn not_found(name: &str) -> Failure {
    Failure::new(format!(
        "unable to find network with name or ID {name}: network not found"
    ))
    .hint("rcon has the networks slirp4netns (the default), host and none")
}

/// The arguments of `network ls`.
#[derive(Args, Debug)]
pub struct NetworkLs {
    /// Provide filter values: dangling, driver, id, label, name
    #[arg(short = 'f', long)]
    filter: Vec<String>,
    /// Pretty-print networks to JSON or using a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not truncate the network ID
    #[arg(long)]
    no_trunc: bool,
    /// Do not print headers
    #[arg(short = 'n', long)]
    noheading: bool,
    /// Display only names
    #[arg(short = 'q', long)]
    quiet: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Command for NetworkLs {
    const ABOUT: &'static str = "List networks";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &["network ls", "network ls --format json"];

    fn run(self, context: &Context) -> Outcome {
        if !self.args.is_empty() {
            return Err(Failure::new(format!(
                "`{}` takes no arguments",
                context.name
            )));
        }
        let all = filtered(&self.filter)?;
        let id = |network: &Network| match self.no_trunc {
            true => network.id.to_owned(),
            false => human::short(network.id).to_owned(),
        };
        // Templates name the fields as podman's do.
        let objects = || -> Vec<Value> {
            let object = |n: &Network| json!({"ID": id(n), "Name": n.name, "Driver": n.driver});
            all.iter().copied().map(object).collect()
        };
        let text = match Format::parse(self.format.as_deref()) {
            Format::Default if self.quiet => all.iter().map(|n| format!("{}\n", n.name)).collect(),
            Format::Default => {
                let mut table = Table::new();
                if !self.noheading {
                    table.row(["NETWORK ID", "NAME", "DRIVER"]);
                }
                for network in &all {
                    table.row([&id(network), network.name, network.driver]);
                }
                table.render()
            }
            Format::Json => {
                let objects = all.iter().map(|network| network.object()).collect();
                json::pretty(&Value::Array(objects), 5)
            }
            Format::Lines(text) => format::lines("network ls", &text, &objects())?,
            Format::Table(text) => {
                let objects = objects();
                let blank = json!({"ID": "", "Name": "", "Driver": ""});
                let headers = format::headers(&blank, &[("ID", "NETWORK ID")]);
                let headers = (!self.noheading).then_some(&headers);
                format::table("network ls", &text, &objects, headers)?
            }
        };
        output::print(&text)?;
        Ok(0)
    }
}

/// The networks that meet all conditions: of several with one key, one.
fn filtered(conditions: &[String]) -> Result<Vec<&'static Network>, Failure> {
    let mut pairs = Vec::new();
    for text in conditions {
        match text.split_once('=') {
            Some((key @ ("dangling" | "driver" | "id" | "label" | "label!" | "name"), value)) => {
                pairs.push((key, value));
            }
            Some((key, _)) => return Err(Failure::new(format!("invalid filter {key:?}"))),
            None => {
                return Err(Failure::new(format!(
                    "invalid argument {text:?} for \"-f, --filter\" flag: must be in the form of filter=value"
                )));
            }
        }
    }
    let meets = |network: &Network, key: &str, value: &str| match key {
        "driver" => network.driver == value,
        "id" => network.id.starts_with(value),
        // There are no labels, and every container can have these.
        "label" => false,
        "label!" => true,
        "dangling" => value == "false",
        _ => rcon_engine::filter::matches_pattern(network.name, value),
    };
    let fits = |network: &&Network| {
        pairs.iter().all(|(key, _)| {
            let mut same = pairs.iter().filter(|(other, _)| other == key);
            same.any(|(key, value)| meets(network, key, value))
        })
    };
    Ok(NETWORKS.iter().filter(fits).collect())
}

/// The arguments of `network inspect`.
#[derive(Args, Debug)]
pub struct NetworkInspect {
    /// Pretty-print network to JSON or using a Go template
    #[arg(short = 'f', long)]
    format: Option<String>,
    names: Vec<String>,
}

impl Command for NetworkInspect {
    const ABOUT: &'static str = "Inspect network";
    const USAGE: &'static str = "[options] NETWORK [NETWORK...]";
    const EXAMPLES: &'static [&'static str] = &["network inspect slirp4netns"];

    fn run(self, _: &Context) -> Outcome {
        if self.names.is_empty() {
            return Err(Failure::new("requires at least 1 arg(s), only received 0"));
        }
        let find = |name: &String| Network::find(name).ok_or_else(|| not_found(name));
        let found: Vec<&Network> = self.names.iter().map(find).collect::<Result<_, _>>()?;
        let objects: Vec<Value> = found.into_iter().map(Network::object).collect();
        let text = match Format::parse(self.format.as_deref()) {
            Format::Default | Format::Json => json::pretty(&Value::Array(objects), 5),
            Format::Lines(text) => format::lines("network inspect", &text, &objects)?,
            Format::Table(text) => {
                let headers = format::headers(&objects[0], &[]);
                format::table("network inspect", &text, &objects, Some(&headers))?
            }
        };
        output::print(&text)?;
        Ok(0)
    }
}

/// The arguments of `network exists`.
#[derive(Args, Debug)]
pub struct NetworkExists {
    names: Vec<String>,
}

impl Command for NetworkExists {
    const ABOUT: &'static str = "Check if network exists";
    const USAGE: &'static str = "NETWORK";
    const EXAMPLES: &'static [&'static str] = &["network exists slirp4netns"];

    fn run(self, _: &Context) -> Outcome {
        match self.names.as_slice() {
            [name] => Ok(u8::from(Network::find(name).is_none())),
            names => Err(Failure::new(format!(
                "accepts 1 arg(s), received {}",
                names.len()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_found_by_name_and_by_what_their_id_begins_with() {
        assert_eq!(Network::find("host").unwrap().driver, "host");
        for network in &NETWORKS {
            assert_eq!(network.id.len(), 64);
            let found = Network::find(&network.id[..12]).unwrap();
            assert_eq!(found.name, network.name);
        }
        assert!(Network::find("podman").is_none() && Network::find("").is_none());
    }
}
