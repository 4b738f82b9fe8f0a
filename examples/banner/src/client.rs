//! `curl`: fetches one page over plain HTTP.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use crate::words;

/// How long to wait for a connection, and for each answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints the body of `url`.
pub fn fetch(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (
            host,
            port.parse()
                .map_err(|_| format!("not a port number: {port}"))?,
        ),
        None => (authority, 80),
    };
    let address = resolve(host)?;
    let mut stream = TcpStream::connect_timeout(&(address, port).into(), PATIENCE)
        .map_err(|error| format!("cannot connect to {host} port {port}: {}", words(&error)))?;
    let body = exchange(&mut stream, host, path)
        .map_err(|error| format!("no answer from {host} port {port}: {}", words(&error)))?;
    std::io::stdout()
        .write_all(&body)
        .map_err(|error| words(&error))
}

fn exchange(stream: &mut TcpStream, host: &str, path: &str) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    while answer.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut body = Vec::new();
    answer.read_to_end(&mut body)?;
    Ok(body)
}

/// An address, or a name of /etc/hosts: a static program has no resolver library to ask.
fn resolve(host: &str) -> Result<IpAddr, String> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    hosts
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name == host).then_some(address)
        })
        .next()
        .ok_or_else(|| format!("{host} is neither an address nor a name in /etc/hosts"))
}
