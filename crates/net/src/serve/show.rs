//! What is told to those who look at a network.

use super::Server;
use crate::channel::Place;
use crate::control::{Answer, Counts, Flow, Port, Request, Stats, Traffic};
use crate::poll::Ready;
use crate::ports::relay::RelayThread;
use crate::sandbox::Sandbox;

impl Server {
    /// Answers somebody who looks.
    pub(super) fn show(&mut self, ready: &Ready) {
        let mut control = std::mem::take(&mut self.control);
        control.ready(ready, |request| match request {
            Request::Stats => Answer::Stats(Box::new(self.stats())),
            Request::Flows => Answer::Flows(self.flows()),
            Request::Ports => Answer::Ports(self.ports()),
        });
        self.control = control;
    }

    /// In the order in which they were published.
    fn ports(&self) -> Vec<Port> {
        let mut places: Vec<(&Place, &u64)> = self.places.iter().collect();
        places.sort_unstable_by_key(|(_, number)| **number);
        let port = |(place, _): (&Place, &u64)| Port {
            protocol: place.protocol,
            host: place.address,
            container_port: place.container_port,
        };
        places.into_iter().map(port).collect()
    }

    fn stats(&self) -> Stats {
        let limits = self.stack.io.limits;
        let relayed = self.relay.as_ref().map(RelayThread::usage);
        let relayed = relayed.unwrap_or_default();
        Stats {
            pid: std::process::id(),
            uptime_ms: self.start.elapsed().as_millis() as u64,
            restarts: self.restarts,
            tap: Traffic {
                frames_sent: self.tap.frames_sent,
                bytes_sent: self.tap.bytes_sent,
                ignored: self.tap.ignored + self.stack.ignored(),
                ..self.stack.io.link.traffic()
            },
            flows: Counts {
                published_tcp: relayed.now,
                ..self.stack.counts(|usage| usage.now)
            },
            limits: Counts {
                tcp: limits.tcp_flows as u64,
                udp: limits.udp_flows as u64,
                icmp: limits.pings as u64,
                dns: limits.queries as u64,
                published_tcp: limits.relayed as u64,
                published_udp: limits.udp_clients as u64,
            },
            opened: Counts {
                published_tcp: relayed.opened,
                ..self.stack.counts(|usage| usage.opened)
            },
            // Clients of published TCP ports wait.
            turned_away: self.stack.counts(|usage| usage.turned_away),
            sandbox: Sandbox {
                // The relay's thread has its own filter, and one capability.
                few_calls: self.sandbox.few_calls
                    && self.relay.as_ref().is_none_or(RelayThread::is_restricted),
                ..self.sandbox
            },
        }
    }

    fn flows(&self) -> Vec<Flow> {
        let mut flows = Vec::new();
        self.stack.flows(&mut flows);
        if let Some(relay) = &self.relay {
            flows.extend(relay.flows());
        }
        flows
    }
}
