//! What the supervisor and the network process say to one another: one JSON object a message, some
//! with descriptors, over a pair of sequenced-packet sockets. Neither ever waits for the other.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ports::mapping::Protocol;

/// How many sockets go with one message ([`rcon_sys::fdpass::MAX_FDS`]).
pub(crate) const BATCH: usize = rcon_sys::fdpass::MAX_FDS;
/// How many ports one message takes back: each has at most 120 bytes.
pub(crate) const WITHDRAWN: usize = 128;
/// Room for the longest message.
const MAX_LEN: usize = 16 * 1024;

/// What the supervisor says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Serve these ports too; a descriptor for each comes along.
    Publish {
        /// What they are.
        places: Vec<Place>,
        /// Whether servers can see clients by their own addresses, where that has changed.
        client_addresses: Option<bool>,
    },
    /// Serve these ports no longer.
    Withdraw {
        /// Which.
        places: Vec<Place>,
    },
    /// What has become of the files that names come from; a descriptor for each that is new.
    Names {
        /// The host's resolv.conf.
        resolv_conf: Content,
        /// The host's hosts file.
        hosts: Content,
    },
    /// The container has ended: close the ports at once, and end when all that it sent is delivered.
    Linger,
    /// End now.
    End,
}

/// A bound port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Place {
    /// TCP or UDP.
    pub(crate) protocol: Protocol,
    /// Where on the host.
    pub(crate) address: SocketAddr,
    /// Which port in the container.
    pub(crate) container_port: u16,
}

/// What has become of a file since it was asked for last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    /// It is as it was.
    Same,
    /// It is not there.
    Gone,
    /// It is another, and comes along.
    Sent,
}

/// What the network process says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// Look whether the files that names come from have changed: the answer is [`Order::Names`].
    Look,
    /// What [`Order::Publish`] named is served.
    Published,
    /// What [`Order::Withdraw`] named is closed.
    Withdrawn,
    /// After [`Order::Linger`]: the ports are closed, and the end takes longer than is worth waiting for.
    Lingers,
}

/// A pair of connected ends, neither of which waits.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (near, far) = rcon_sys::fdpass::pair()?;
    rustix::io::ioctl_fionbio(&near, true)?;
    rustix::io::ioctl_fionbio(&far, true)?;
    Ok((near, far))
}

/// Sends a message. WouldBlock means that the other side does not listen.
pub(crate) fn send(
    channel: impl AsFd,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    Ok(rcon_sys::fdpass::send_fds(channel, &text, fds)?)
}

/// What [`receive`] found.
pub(crate) enum Received<T> {
    /// A message, and what came with it.
    Message(T, Vec<OwnedFd>),
    /// Nothing for now.
    Nothing,
    /// Nothing any more.
    End,
}

/// Takes the next message. What is no message of ours counts as the end.
pub(crate) fn receive<T: DeserializeOwned>(channel: impl AsFd) -> Received<T> {
    match rcon_sys::fdpass::recv_message(channel, MAX_LEN) {
        Ok((said, _)) if said.is_empty() => Received::End,
        Ok((said, fds)) => match serde_json::from_slice(&said) {
            Ok(message) => Received::Message(message, fds),
            Err(_) => Received::End,
        },
        Err(rustix::io::Errno::AGAIN) => Received::Nothing,
        Err(_) => Received::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_cross_with_their_descriptors() {
        let (near, far) = pair().unwrap();
        let place = Place {
            protocol: Protocol::Udp,
            address: "[::1]:53".parse().unwrap(),
            container_port: 5353,
        };
        let order = Order::Publish {
            places: vec![place; BATCH],
            client_addresses: Some(true),
        };
        send(&near, &order, &[far.as_fd(); BATCH]).unwrap();
        let Received::Message(received, fds) = receive::<Order>(&far) else {
            panic!("nothing came");
        };
        assert_eq!((received, fds.len()), (order, BATCH));
        let longest = Place {
            address: "[1111:1111:1111:1111:1111:1111:1111:1111%4294967295]:65535"
                .parse()
                .unwrap(),
            container_port: u16::MAX,
            ..place
        };
        let order = Order::Withdraw {
            places: vec![longest; WITHDRAWN],
        };
        send(&near, &order, &[]).unwrap();
        let Received::Message(received, _) = receive::<Order>(&far) else {
            panic!("nothing came");
        };
        assert_eq!(received, order);
        assert!(matches!(receive::<Order>(&far), Received::Nothing));
        send(&far, &Word::Look, &[]).unwrap();
        assert!(matches!(
            receive::<Word>(&near),
            Received::Message(Word::Look, _)
        ));
        rcon_sys::fdpass::send_fds(&far, b"nonsense", &[]).unwrap();
        assert!(matches!(receive::<Word>(&near), Received::End));
        drop((far, fds));
        assert!(matches!(receive::<Word>(&near), Received::End));
    }
}
