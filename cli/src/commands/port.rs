//! `rcon port`

use clap::Args;
use rcon_engine::{Error, ListRequest, PortMapping};

use super::select;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, human};

/// The arguments of `port`.
#[derive(Args, Debug)]
pub struct Port {
    /// Display port information for all containers
    #[arg(short = 'a', long)]
    all: bool,
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    args: Vec<String>,
}

impl Command for Port {
    const ABOUT: &'static str = "List port mappings or a specific mapping for the container";
    const USAGE: &'static str = "[options] CONTAINER [PORT]\n  rcon port add|rm CONTAINER PORT...";
    const EXAMPLES: &'static [&'static str] = &[
        "port --all",
        "port ctrID 80/tcp",
        "port --latest 80",
        "port add ctrID 8080:80 127.0.0.1:5353:53/udp",
        "port rm ctrID 8080:80",
    ];

    fn run(mut self, context: &Context) -> Outcome {
        if self.all && !self.args.is_empty() {
            return Err(Failure::new("no arguments are needed with --all"));
        }
        if self.all && self.latest {
            return Err(Failure::new("--all and --latest cannot be used together"));
        }
        // With two words it is a container of that name and a port of it.
        if let [word @ ("add" | "rm"), name, ports @ ..] =
            &self.args.iter().map(String::as_str).collect::<Vec<_>>()[..]
            && !ports.is_empty()
            && !self.latest
        {
            return change(context, word, name, ports);
        }
        let most = if self.latest { 1 } else { 2 };
        if self.args.len() > most {
            return Err(Failure::new(
                "too many arguments: a container and at most one port are understood",
            ));
        }
        let engine = context.engine()?;
        let mut text = String::new();
        if self.all {
            for container in engine.list(&ListRequest::default())? {
                for port in singles(container.ports()) {
                    text += &format!("{}\t{}\n", human::short(container.id()), whole(&port));
                }
            }
        } else {
            let nothing = "you must supply a running container name or id";
            let name = select::one(&engine, &mut self.args, self.latest, nothing)?;
            let container = engine.container(&name)?;
            let ports = singles(container.ports());
            match self.args.first() {
                None => ports
                    .iter()
                    .for_each(|port| text += &format!("{}\n", whole(port))),
                Some(wanted) => {
                    let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
                    for port in &ports {
                        if port.container_port.to_string() == number
                            && port.protocol.to_string() == protocol
                        {
                            text += &format!("{}\n", host_side(port));
                        }
                    }
                    if text.is_empty() {
                        return Err(Failure::new(format!(
                            "failed to find published port {wanted:?}"
                        )));
                    }
                }
            }
        }
        output::print(&text)?;
        Ok(0)
    }
}

/// Publishes ports of a container, and tells on which ports of the host; or takes them back.
fn change(context: &Context, word: &str, name: &str, ports: &[&str]) -> Outcome {
    let mut mappings = Vec::new();
    for port in ports {
        mappings.extend(PortMapping::parse(port).map_err(Error::from)?);
    }
    let engine = context.engine()?;
    if word == "rm" {
        engine.withdraw_ports(name, &mappings)?;
        return Ok(0);
    }
    let bound = engine.publish(name, &mappings)?;
    let lines: String = singles(&bound)
        .iter()
        .map(|port| format!("{}\n", whole(port)))
        .collect();
    output::print(&lines)?;
    Ok(0)
}

/// The ports one by one.
pub fn singles(ports: &[PortMapping]) -> Vec<PortMapping> {
    ports.iter().flat_map(PortMapping::singles).collect()
}

fn whole(port: &PortMapping) -> String {
    format!(
        "{}/{} -> {}",
        port.container_port,
        port.protocol,
        host_side(port)
    )
}

fn host_side(port: &PortMapping) -> String {
    match port.host_ip {
        None => format!("0.0.0.0:{}", port.host_port),
        Some(ip) => std::net::SocketAddr::new(ip, port.host_port).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_told_one_by_one() {
        let ports = PortMapping::parse("9000-9002:90-92").unwrap();
        let lines: Vec<_> = singles(&ports).iter().map(whole).collect();
        assert_eq!(
            lines,
            [
                "90/tcp -> 0.0.0.0:9000",
                "91/tcp -> 0.0.0.0:9001",
                "92/tcp -> 0.0.0.0:9002"
            ]
        );
        let ports = PortMapping::parse("[::1]:53:53/udp").unwrap();
        assert_eq!(whole(&singles(&ports)[0]), "53/udp -> [::1]:53");
    }
}
