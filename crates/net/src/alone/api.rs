//! slirp4netns's API (slirp4netns(1), "API SOCKET"): one request and one answer a connection, each a
//! JSON object. The answers are those of slirp4netns, to the letter where programs look at them.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::ports::mapping::{PortMapping, Protocol};
use crate::supervise::Network;

/// The longest request, in bytes, as slirp4netns has it.
const MAX_REQUEST: usize = 4095;
/// How many may be connected at a time; further ones wait.
const MAX_CLIENTS: usize = 16;

/// Those who add and remove ports.
#[derive(Debug)]
pub(super) struct Api {
    listener: OwnedFd,
    clients: Vec<Client>,
    container: Ipv4Addr,
    forwards: Vec<Forward>,
    next: u64,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    input: Vec<u8>,
}

/// A port that was added.
#[derive(Clone, Debug)]
struct Forward {
    id: u64,
    mapping: PortMapping,
}

/// Why a request cannot be done, in slirp4netns's words.
type Refusal = &'static str;

impl Api {
    pub(super) fn new(listener: OwnedFd, config: &Config) -> Api {
        Api {
            listener,
            clients: Vec::new(),
            container: config.container_v4(),
            forwards: Vec::new(),
            next: 1,
        }
    }

    /// Adds what is to be waited for.
    pub(super) fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let listening = match self.clients.len() < MAX_CLIENTS {
            true => PollFlags::IN,
            false => PollFlags::empty(),
        };
        fds.push(PollFd::from_borrowed_fd(self.listener.as_fd(), listening));
        let clients = self.clients.iter();
        fds.extend(clients.map(|c| PollFd::from_borrowed_fd(c.socket.as_fd(), PollFlags::IN)));
    }

    /// Does what can be done; `ready` is in the order of [`Api::watch`].
    pub(super) fn attend(&mut self, ready: &[bool], network: &mut Network) {
        let clients = std::mem::take(&mut self.clients);
        for (mut client, ready) in clients.into_iter().zip(&ready[1..]) {
            match *ready && client.read() {
                true => client.answer(&self.request(&client.input, network)),
                false if client.input.len() > MAX_REQUEST => {
                    client.answer(&error("bad request: too large message"));
                }
                false => self.clients.push(client),
            }
        }
        if ready[0] {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            if let Ok(socket) = rustix::net::accept_with(&self.listener, flags) {
                let input = Vec::new();
                self.clients.push(Client { socket, input });
            }
        }
    }

    /// The answer to a request.
    fn request(&mut self, text: &[u8], network: &mut Network) -> Value {
        let outcome = match serde_json::from_slice(text) {
            Ok(Value::Object(request)) => self.execute(&request, network),
            Ok(_) => Err("bad request: json_object() failed"),
            Err(_) => Err("bad request: cannot parse JSON"),
        };
        outcome.map_or_else(error, |value| json!({ "return": value }))
    }

    fn execute(
        &mut self,
        request: &Map<String, Value>,
        network: &mut Network,
    ) -> Result<Value, Refusal> {
        let none = Map::new();
        let arguments = match request.get("arguments") {
            Some(Value::Object(arguments)) => arguments,
            _ => &none,
        };
        match request.get("execute").and_then(Value::as_str) {
            None => Err("bad request: no execute found"),
            Some("add_hostfwd") => self.add(arguments, network),
            Some("list_hostfwd") => {
                let entries: Vec<Value> = self
                    .forwards
                    .iter()
                    .map(|f| f.describe(self.container))
                    .collect();
                Ok(json!({ "entries": entries }))
            }
            Some("remove_hostfwd") => self.remove(arguments, network),
            Some(_) => Err("bad request: unknown execute"),
        }
    }

    fn add(
        &mut self,
        arguments: &Map<String, Value>,
        network: &mut Network,
    ) -> Result<Value, Refusal> {
        let protocol = match arguments.get("proto").and_then(Value::as_str) {
            Some("tcp") => Protocol::Tcp,
            Some("udp") => Protocol::Udp,
            _ => return Err("bad request: add_hostfwd: bad arguments.proto"),
        };
        let address = |name: &str| match arguments.get(name) {
            None => Some(Ipv4Addr::UNSPECIFIED),
            Some(value) => value.as_str()?.parse().ok(),
        };
        let port = |name: &str| {
            let number = arguments.get(name)?.as_u64()?;
            u16::try_from(number).ok().filter(|port| *port != 0)
        };
        let host_addr =
            address("host_addr").ok_or("bad request: add_hostfwd: bad arguments.host_addr")?;
        let host_port =
            port("host_port").ok_or("bad request: add_hostfwd: bad arguments.host_port")?;
        // The namespace has one address of ours.
        let guest = address("guest_addr")
            .filter(|address| address.is_unspecified() || *address == self.container);
        if guest.is_none() {
            return Err("bad request: add_hostfwd: bad arguments.guest_addr");
        }
        let container_port =
            port("guest_port").ok_or("bad request: add_hostfwd: bad arguments.guest_port")?;
        let mapping = PortMapping {
            host_ip: Some(IpAddr::V4(host_addr)),
            host_port,
            container_port,
            protocol,
            range: 1,
        };
        network
            .publish(std::slice::from_ref(&mapping))
            .map_err(|_| "bad request: add_hostfwd: slirp_add_hostfwd failed")?;
        let id = self.next;
        self.next += 1;
        self.forwards.push(Forward { id, mapping });
        Ok(json!({ "id": id }))
    }

    fn remove(
        &mut self,
        arguments: &Map<String, Value>,
        network: &mut Network,
    ) -> Result<Value, Refusal> {
        let id = arguments
            .get("id")
            .and_then(Value::as_u64)
            .ok_or("bad request: remove_hostfwd: bad arguments.id")?;
        let failed = "bad request: remove_hostfwd: slirp_remove_hostfwd failed";
        let place = self.forwards.iter().position(|f| f.id == id);
        let place = place.ok_or("bad request: remove_hostfwd: bad arguments.id")?;
        network
            .withdraw(std::slice::from_ref(&self.forwards[place].mapping))
            .map_err(|_| failed)?;
        self.forwards.remove(place);
        Ok(json!({}))
    }
}

impl Forward {
    fn describe(&self, container: Ipv4Addr) -> Value {
        json!({
            "id": self.id,
            "proto": self.mapping.protocol,
            "host_addr": self.mapping.host_ip,
            "host_port": self.mapping.host_port,
            "guest_addr": container,
            "guest_port": self.mapping.container_port,
        })
    }
}

impl Client {
    /// Reads; true when the request is whole: it ends with its connection's half, or is an object.
    fn read(&mut self) -> bool {
        let mut buffer = [0; MAX_REQUEST + 1];
        loop {
            match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return true,
                Ok((length, _)) => self.input.extend_from_slice(&buffer[..length]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return true,
            }
            if self.input.len() > MAX_REQUEST {
                return false;
            }
        }
        serde_json::from_slice::<Map<String, Value>>(&self.input).is_ok()
    }

    /// Sends an answer; it is short enough for any socket that nothing was sent to yet.
    fn answer(&self, answer: &Value) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let _ = rustix::net::send(&self.socket, answer.to_string().as_bytes(), flags);
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }
}

fn error(description: Refusal) -> Value {
    json!({ "error": { "desc": description } })
}
