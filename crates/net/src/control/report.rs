//! What can be asked, and what is answered.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ports::mapping::Protocol;
use crate::sandbox::Sandbox;

/// The version of what is said.
pub const VERSION: u32 = 1;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How much there was of everything.
    Stats,
    /// Who speaks to whom now.
    Flows,
    /// The published ports.
    Ports,
}

/// A line that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) version: u32,
    pub(crate) request: Request,
}

/// A line that comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) answer: Answer,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Stats`].
    Stats(Box<Stats>),
    /// To [`Request::Flows`].
    Flows(Vec<Flow>),
    /// To [`Request::Ports`].
    Ports(Vec<Port>),
    /// Why there is no answer.
    Error(String),
}

/// How much there was of everything, since the network process was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// The network process.
    pub pid: u32,
    /// How long it has been there, in milliseconds.
    pub uptime_ms: u64,
    /// How often it had to be started again.
    pub restarts: u32,
    /// The container's device.
    pub tap: Traffic,
    /// What there is at the moment.
    pub flows: Counts,
    /// What there may be at most.
    pub limits: Counts,
    /// What there was since the start, that which failed among it.
    pub opened: Counts,
    /// What came to nothing, or had to make room, because there was too much of it or no
    /// descriptor left.
    pub turned_away: Counts,
    /// What the network process has given up.
    pub sandbox: Sandbox,
}

/// What went over the container's device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// Frames from the container; one may stand for many packets.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Those among them that were for nobody: no frames, or of a protocol that is not spoken here.
    pub ignored: u64,
    /// Frames to the container.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Frames to the container that its device had no room for.
    pub dropped: u64,
}

/// Numbers of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// TCP connections to the outside.
    pub tcp: u64,
    /// Pairs of UDP endpoints to the outside.
    pub udp: u64,
    /// Pings.
    pub icmp: u64,
    /// Queries for names under way.
    pub dns: u64,
    /// Connections to published TCP ports.
    pub published_tcp: u64,
    /// Clients of published UDP ports.
    pub published_udp: u64,
}

/// What kind of flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A TCP connection.
    Tcp,
    /// UDP datagrams between two endpoints.
    Udp,
    /// Pings.
    Icmp,
    /// A query for a name.
    Dns,
}

/// Who began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The container.
    Out,
    /// Somebody outside, at a published port.
    In,
}

/// Two who speak to one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Of what kind.
    pub kind: Kind,
    /// Who began.
    pub direction: Direction,
    /// How far it is: `connecting`, `open`, `unanswered`.
    pub state: String,
    /// The container's endpoint.
    pub container: SocketAddr,
    /// The other one, as the container knows it.
    pub peer: SocketAddr,
    /// Our own endpoint on the host.
    pub host: Option<SocketAddr>,
    /// Bytes from the container that have arrived, where they are counted.
    pub sent: Option<u64>,
    /// Bytes to the container.
    pub received: Option<u64>,
    /// Milliseconds since there was something.
    pub idle_ms: Option<u64>,
}

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where on the host.
    pub host: SocketAddr,
    /// Which port in the container.
    pub container_port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_as_they_are_described() {
        let question: Question =
            serde_json::from_str(r#"{"version":1,"request":"flows"}"#).unwrap();
        assert_eq!(question.request, Request::Flows);
        let message = Message {
            version: VERSION,
            answer: Answer::Stats(Box::default()),
        };
        let line = serde_json::to_string(&message).unwrap();
        assert!(
            line.starts_with(r#"{"version":1,"stats":{"pid":0,"#),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), message);
        let error = r#"{"version":1,"error":"no"}"#;
        assert_eq!(
            serde_json::from_str::<Message>(error).unwrap().answer,
            Answer::Error("no".into())
        );
    }
}
