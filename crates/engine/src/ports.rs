//! Published ports that come and go while a container runs.
//!
//! They are part of the container from then on: what `port add` publishes is published again at the
//! next start, and what `port rm` takes back is not.

use std::os::fd::AsFd;

use rcon_net::PortMapping;
use rcon_net::control::{Answer, Request as Look, ask};
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

use crate::protocol::{self, MAX_MESSAGE, Reply, Request};
use crate::record::{Container, Network, Status};
use crate::records::{self, Lock};
use crate::{Engine, ListRequest};

/// What is to be done; a command says it to the monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// Publish these too.
    Publish(Vec<PortMapping>),
    /// Publish these no longer.
    Withdraw(Vec<PortMapping>),
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The ports that are bound now and were not before; none if they are too many to be told.
    pub ports: Vec<PortMapping>,
    /// Why it could not be done.
    pub error: Option<String>,
    /// The exit code for that.
    pub code: i32,
    /// The way out.
    pub hint: Option<String>,
}

impl Engine {
    /// Publishes ports of a container, at once if it runs; gives those that are bound then.
    ///
    /// # Errors
    /// A port that cannot be bound: then none of them is published. A container without a network
    /// of its own.
    pub fn publish(&self, name_or_id: &str, ports: &[PortMapping]) -> Result<Vec<PortMapping>> {
        self.change_ports(name_or_id, &Change::Publish(ports.to_vec()))
    }

    /// Takes published ports back. No host port and no host address stand for any.
    ///
    /// # Errors
    /// A port that is not published: then nothing has changed.
    pub fn withdraw_ports(&self, name_or_id: &str, ports: &[PortMapping]) -> Result<()> {
        self.change_ports(name_or_id, &Change::Withdraw(ports.to_vec()))
            .map(drop)
    }

    /// The ports that are new with the change.
    fn change_ports(&self, name_or_id: &str, change: &Change) -> Result<Vec<PortMapping>> {
        let container = self.container(name_or_id)?;
        let dir = self.paths.container(container.id());
        let gone = || Error::NoSuchContainer(name_or_id.to_owned());
        if !matches!(container.config.network, Network::Slirp(_)) {
            return Err(no_network(&container));
        }
        match container.state.status {
            Status::Initialized | Status::Running | Status::Paused => {
                // The lock is not ours meanwhile: the monitor takes it at the end of its container.
                let added = self.ask_monitor(&container, change)?;
                // One that is removed at its end has no next start.
                if let Some(_lock) = Lock::take(&dir)?
                    && let Some(container) = records::load(&dir)?
                {
                    let (mut config, bound) = (container.config, container.state.ports);
                    config.ports = after(&config.ports, change, &bound);
                    records::save_config(&dir, &config)?;
                }
                Ok(added)
            }
            Status::Stopping => Err(Error::StateImproper(format!(
                "container {} is being stopped",
                container.config.name
            ))),
            Status::Created | Status::Exited => {
                let _lock = Lock::take(&dir)?.ok_or_else(gone)?;
                let container = self.settle(container.id())?.ok_or_else(gone)?;
                if container.state.status.has_process() {
                    return Err(Error::StateImproper(format!(
                        "container {} has just been started",
                        container.config.name
                    )));
                }
                let mut config = container.config;
                config.ports = planned(&config.ports, change)?;
                records::save_config(&dir, &config)?;
                Ok(Vec::new())
            }
        }
    }

    fn ask_monitor(&self, container: &Container, change: &Change) -> Result<Vec<PortMapping>> {
        container.state.wake_monitor();
        let socket = protocol::connect(&self.paths.runtime(container.id())).context(|| {
            "cannot reach the monitor of the container (it may have been killed)".into()
        })?;
        let text = serde_json::to_vec(change)
            .map_err(|error| Error::Invalid(format!("cannot ask the monitor: {error}")))?;
        if text.len() >= MAX_MESSAGE {
            return Err(Error::Invalid(
                "too many ports at once; name ranges of them instead".into(),
            ));
        }
        let mut message = Vec::new();
        Request::Ports(&text).encode(&mut message);
        let talk = || "cannot talk to the monitor".to_owned();
        protocol::try_send(&socket, &message).context(talk)?;
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut fds, None)).context(talk)?;
            let length = match protocol::try_receive(&socket, &mut buffer).context(talk)? {
                None => continue,
                Some(length) => length,
            };
            let outcome: Outcome = match Reply::decode(&buffer[..length]) {
                Some(Reply::Ports(text)) => serde_json::from_slice(text)
                    .map_err(|_| Error::Invalid("the monitor speaks another language".into()))?,
                Some(Reply::Exited(_)) | None => {
                    return Err(Error::StateImproper(format!(
                        "container {} has ended",
                        container.config.name
                    )));
                }
                Some(_) => continue,
            };
            return match outcome.error {
                None => Ok(outcome.ports),
                Some(message) => Err(Error::Remote {
                    message,
                    code: outcome.code,
                    hint: outcome.hint,
                }),
            };
        }
    }

    /// Asks the network process of a running container.
    ///
    /// # Errors
    /// A container that does not run, or has no network of its own; a network that is down.
    pub fn look_at_network(&self, name_or_id: &str, what: Look) -> Result<Answer> {
        let container = self.container(name_or_id)?;
        if !matches!(container.config.network, Network::Slirp(_)) {
            return Err(no_network(&container));
        }
        if !container.state.status.has_process() {
            return Err(Error::StateImproper(format!(
                "container {} does not run, and so has no network",
                container.config.name
            )));
        }
        let down = || "cannot reach the network of the container (it may be down)".to_owned();
        let dir = self.paths.runtime(container.id());
        let socket = protocol::connect_stream(&dir, protocol::NET).context(down)?;
        ask(socket, what).context(down)
    }
}

/// A container whose network is not ours to change or look at.
pub(crate) fn no_network(container: &Container) -> Error {
    let (name, why) = (&container.config.name, &container.config.network);
    let why = match why {
        Network::Host => "it has the host's".to_owned(),
        Network::None => "it has none".to_owned(),
        Network::Container(id) => format!("it has that of container {}", &id[..id.len().min(12)]),
        Network::Path(path) => format!("it has that of {}", path.display()),
        Network::Slirp(_) => "it is down".to_owned(),
    };
    Error::StateImproper(format!("container {name} has no network of its own: {why}"))
}

/// The ports of a container that does not run, after a change.
fn planned(ports: &[PortMapping], change: &Change) -> Result<Vec<PortMapping>> {
    match change {
        Change::Publish(added) => Ok([ports, added].concat()),
        Change::Withdraw(unwanted) => match rcon_net::withdraw(ports, unwanted) {
            Ok(withdrawn) => Ok(withdrawn.left),
            Err(port) => Err(Error::Invalid(format!("port {port} is not published"))),
        },
    }
}

/// What is to be published from now on: `ports` were before the change, `bound` are after it.
pub(crate) fn after(
    ports: &[PortMapping],
    change: &Change,
    bound: &[PortMapping],
) -> Vec<PortMapping> {
    match change {
        Change::Publish(added) => [ports, added].concat(),
        Change::Withdraw(_) => rcon_net::still_bound(ports, bound),
    }
}

/// Says which container holds the port that could not be bound, if it is one of ours.
pub(crate) fn with_holder(engine: &Engine, error: rcon_net::Error) -> rcon_net::Error {
    let rcon_net::Error::Bind {
        protocol,
        address,
        holder,
        source,
    } = error
    else {
        return error;
    };
    let holds = |container: &Container| {
        container
            .state
            .ports
            .iter()
            .flat_map(PortMapping::singles)
            .any(|port| port.protocol == protocol && port.host_port == address.port())
    };
    let ours = match source.raw_os_error() {
        Some(libc::EADDRINUSE) => engine.list(&ListRequest::default()).ok(),
        _ => None,
    };
    let container = ours.into_iter().flatten().find(holds);
    rcon_net::Error::Bind {
        protocol,
        address,
        holder: container
            .map(|container| format!("container {}", container.config.name))
            .or(holder),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Vec<PortMapping> {
        text.split_whitespace()
            .flat_map(|word| PortMapping::parse(word).unwrap())
            .collect()
    }

    #[test]
    fn what_stays_is_published_at_the_next_start() {
        let before = ports("8080-8082:80-82 90 127.0.0.1:53:53/udp");
        let change = Change::Withdraw(ports("81"));
        let bound = ports("8080:80 8082:82 43210:90 127.0.0.1:53:53/udp");
        let left = ports("8080:80 8082:82 90 127.0.0.1:53:53/udp");
        assert_eq!(after(&before, &change, &bound), left);
        let added = Change::Publish(ports("99"));
        assert_eq!(after(&left, &added, &bound), [left, ports("99")].concat());
    }

    #[test]
    fn what_is_not_published_cannot_be_taken_back() {
        let before = ports("8080-8081:80-81");
        let error = planned(&before, &Change::Withdraw(ports("80/udp"))).unwrap_err();
        assert_eq!(error.to_string(), "port 80/udp is not published");
        let left = planned(&before, &Change::Withdraw(ports("8081:81"))).unwrap();
        assert_eq!(left, ports("8080:80"));
    }
}
