//! The network of a running container, seen from its monitor.

use rcon_net::PortMapping;

use super::serve::Monitor;
use crate::files::Durable;
use crate::ports::{self, Change, Outcome};
use crate::protocol::MAX_MESSAGE;
use crate::record::ProcessRef;
use crate::{Error, records};

impl Monitor {
    /// Answers the network process, or starts it again.
    pub(super) fn attend_net(&mut self) {
        if let Some(net) = &mut self.started.net {
            net.attend();
        }
        // Another monitor must know which process it is.
        let now = self
            .started
            .net
            .as_ref()
            .and_then(rcon_net::Network::process_id);
        let noted = &mut self.container.state.network;
        if self.started.net.is_some() && now != noted.map(|process| process.pid) {
            *noted = now.and_then(ProcessRef::of);
            let dir = self.engine.paths.container(self.container.id());
            let _ = records::save_state(&dir, &self.container.state, Durable::No);
        }
    }

    /// Publishes ports or takes them back; the answer.
    pub(super) fn change_ports(&mut self, change: serde_json::Result<Change>) -> Vec<u8> {
        let outcome = match change
            .map_err(|_| Error::Invalid("the monitor does not understand what is asked".into()))
            .and_then(|change| self.change(&change))
        {
            Ok(ports) => Outcome {
                ports,
                ..Outcome::default()
            },
            Err(error) => Outcome {
                hint: error.hint(),
                code: error.exit_code(),
                error: Some(error.to_string()),
                ports: Vec::new(),
            },
        };
        // Plain fields can always be written.
        let text = serde_json::to_vec(&outcome).unwrap_or_default();
        match text.len() < MAX_MESSAGE {
            true => text,
            false => serde_json::to_vec(&Outcome::default()).unwrap_or_default(),
        }
    }

    fn change(&mut self, change: &Change) -> crate::Result<Vec<PortMapping>> {
        if self.started.orphan.is_some() {
            return Err(Error::Remote {
                message: "the ports cannot be changed: the monitor that held them was killed"
                    .into(),
                code: 125,
                hint: Some(format!(
                    "`rcon restart {}` makes them anew",
                    self.container.config.name
                )),
            });
        }
        let net = self
            .started
            .net
            .as_mut()
            .ok_or_else(|| ports::no_network(&self.container))?;
        let added = match change {
            Change::Publish(ports) => net
                .publish(ports)
                .map_err(|error| ports::with_holder(&self.engine, error))?,
            Change::Withdraw(ports) => {
                net.withdraw(ports)?;
                Vec::new()
            }
        };
        self.container.state.ports = net.ports().to_vec();
        // For a start that is yet to come.
        self.container.config.ports = ports::after(
            &self.container.config.ports,
            change,
            &self.container.state.ports,
        );
        let dir = self.engine.paths.container(self.container.id());
        records::save_state(&dir, &self.container.state, Durable::No)?;
        Ok(added)
    }
}
