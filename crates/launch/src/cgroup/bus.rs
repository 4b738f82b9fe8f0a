//! As much of D-Bus as asking systemd takes (the D-Bus specification): authentication by our user
//! id, method calls with their answers, one kind of signal. A connection is made for one question
//! and closed again; nothing is kept waiting for ever.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

mod layout;

pub(super) use layout::{Call, Value};
use layout::{ERROR, METHOD_RETURN, Message, SIGNAL, rest_length};

use super::{Error, Result};

/// How long an answer may take; D-Bus's own usual limit.
const PATIENCE: Duration = Duration::from_secs(25);

/// Where a bus listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    socket: Socket,
    /// There is a broker between us and systemd, which wants to be greeted.
    broker: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Socket {
    Path(PathBuf),
    Abstract(String),
}

/// A connection.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: Vec<Message>,
    broker: bool,
}

fn failed(what: &str, error: &std::io::Error) -> Error {
    Error::Systemd(format!("{what}: {}", super::error::reason(error)))
}

impl Bus {
    /// Where this user's systemd may be found, the likeliest first.
    pub(super) fn addresses() -> Vec<Address> {
        let uid = rustix::process::geteuid();
        let at = |path: String, broker| Address {
            socket: Socket::Path(path.into()),
            broker,
        };
        if uid.is_root() {
            let list = vec![
                at("/run/dbus/system_bus_socket".to_owned(), true),
                at("/run/systemd/private".to_owned(), false),
            ];
            return list.into_iter().filter(Address::exists).collect();
        }
        let runtime = std::env::var("XDG_RUNTIME_DIR")
            .ok()
            .filter(|dir| dir.starts_with('/'));
        let usual = format!("/run/user/{}", uid.as_raw());
        let mut list: Vec<Address> = Vec::new();
        for dir in runtime.iter().chain([&usual]) {
            list.push(at(format!("{dir}/bus"), true));
        }
        let given = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
        list.extend(given.split(';').filter_map(Address::parse));
        for dir in runtime.iter().chain([&usual]) {
            list.push(at(format!("{dir}/systemd/private"), false));
        }
        let mut known: Vec<Address> = Vec::new();
        for address in list {
            if !known.contains(&address) && address.exists() {
                known.push(address);
            }
        }
        known
    }

    /// Connect, say who we are, and greet.
    pub(super) fn open(address: &Address) -> Result<Bus> {
        let stream = match &address.socket {
            Socket::Path(path) => UnixStream::connect(path),
            Socket::Abstract(name) => {
                SocketAddr::from_abstract_name(name).and_then(|a| UnixStream::connect_addr(&a))
            }
        };
        let mut stream = stream.map_err(|error| failed("its bus cannot be reached", &error))?;
        let step = "its bus does not let us in";
        let limits = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        limits.map_err(|error| failed(step, &error))?;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        let hello = format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n");
        stream
            .write_all(hello.as_bytes())
            .map_err(|error| failed(step, &error))?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < 512 {
            let mut byte = [0];
            stream
                .read_exact(&mut byte)
                .map_err(|error| failed(step, &error))?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            return Err(Error::Systemd(step.to_owned()));
        }
        let mut bus = Bus {
            stream,
            serial: 0,
            signals: Vec::new(),
            broker: address.broker,
        };
        if bus.broker {
            bus.call(&broker("Hello", "", Vec::new()))?;
        }
        Ok(bus)
    }

    /// Ask for the signals of that name. Without a broker all come anyway.
    pub(super) fn match_signal(&mut self, interface: &str, member: &str) -> Result<()> {
        if self.broker {
            let rule = format!("type='signal',interface='{interface}',member='{member}'");
            self.call(&broker("AddMatch", "s", vec![Value::Text(rule)]))?;
        }
        Ok(())
    }

    /// Call a method, and wait for the texts in its answer.
    pub(super) fn call(&mut self, call: &Call) -> Result<Vec<String>> {
        self.serial += 1;
        let serial = self.serial;
        self.stream
            .write_all(&call.encode(serial))
            .map_err(|error| failed("it cannot be asked", &error))?;
        loop {
            let message = self.receive()?;
            match message.kind {
                METHOD_RETURN if message.answers == serial => return Ok(message.texts),
                ERROR if message.answers == serial => {
                    let words = message.texts.into_iter().next().unwrap_or(message.error);
                    return Err(Error::Systemd(words));
                }
                SIGNAL => self.signals.push(message),
                _ => {}
            }
        }
    }

    /// Wait for a signal of that name whose texts are the right ones.
    pub(super) fn wait_signal(
        &mut self,
        member: &str,
        right: impl Fn(&[String]) -> bool,
    ) -> Result<Vec<String>> {
        let mut known = std::mem::take(&mut self.signals).into_iter();
        loop {
            let message = match known.next() {
                Some(message) => message,
                None => self.receive()?,
            };
            if message.kind == SIGNAL && message.member == member && right(&message.texts) {
                return Ok(message.texts);
            }
        }
    }

    fn receive(&mut self) -> Result<Message> {
        let step = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                Error::Systemd(format!("it did not answer within {} s", PATIENCE.as_secs()))
            }
            _ => failed("it went away", &error),
        };
        let mut fixed = [0_u8; 16];
        self.stream.read_exact(&mut fixed).map_err(step)?;
        let nonsense = || Error::Systemd("its bus sent what is no message".to_owned());
        let rest = rest_length(&fixed).ok_or_else(nonsense)?;
        let mut bytes = fixed.to_vec();
        bytes.resize(16 + rest, 0);
        self.stream.read_exact(&mut bytes[16..]).map_err(step)?;
        Message::decode(&bytes).ok_or_else(nonsense)
    }
}

fn broker(member: &'static str, signature: &'static str, body: Vec<Value>) -> Call {
    Call {
        path: "/org/freedesktop/DBus",
        destination: "org.freedesktop.DBus",
        interface: "org.freedesktop.DBus",
        member,
        signature,
        body,
    }
}

impl Address {
    /// The address in one part of `DBUS_SESSION_BUS_ADDRESS`, if it is one of a socket.
    fn parse(text: &str) -> Option<Address> {
        let words = text.strip_prefix("unix:")?;
        let socket = words
            .split(',')
            .find_map(|word| match word.split_once('=')? {
                ("path", path) => Some(Socket::Path(path.into())),
                ("abstract", name) => Some(Socket::Abstract(name.to_owned())),
                _ => None,
            })?;
        Some(Address {
            socket,
            broker: true,
        })
    }

    fn exists(&self) -> bool {
        match &self.socket {
            Socket::Path(path) => path.exists(),
            Socket::Abstract(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let path = Address::parse("unix:path=/run/user/1/bus,guid=00").unwrap();
        assert_eq!(path.socket, Socket::Path("/run/user/1/bus".into()));
        let name = Address::parse("unix:abstract=/tmp/dbus-x").unwrap();
        assert_eq!(name.socket, Socket::Abstract("/tmp/dbus-x".into()));
        assert!(Address::parse("tcp:host=localhost").is_none());
    }
}
