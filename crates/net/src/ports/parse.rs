//! The values of `-p`: `[[hostIP:][hostPort]:]containerPort[/protocol]`, each port maybe a range.

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::ports::mapping::{PortMapping, Protocol};

/// Reads one value of `-p`.
pub(crate) fn parse(text: &str) -> Result<Vec<PortMapping>> {
    let (ports, protocol) = match text.split_once('/') {
        Some((_, "")) => return Err(bad("must provide a non-empty protocol to publish")),
        Some((ports, protocol)) => (ports, parse_protocol(protocol)?),
        None => (text, Protocol::Tcp),
    };
    let (host_ip, host_port, container_port) = split(ports)?;

    let host_ip = match host_ip {
        None | Some("") => None,
        Some(ip) => Some(
            ip.parse::<IpAddr>()
                .map_err(|_| bad(format!("cannot parse \"{ip}\" as an IP address")))?,
        ),
    };
    if container_port.is_empty() {
        return Err(bad("must provide a non-empty container port to publish"));
    }
    let (container_port, range) =
        parse_range(container_port).map_err(|why| bad(format!("parsing container port: {why}")))?;
    let host_port = match host_port {
        None | Some("") => 0,
        Some(port) => {
            let (first, host_range) =
                parse_range(port).map_err(|why| bad(format!("parsing host port: {why}")))?;
            if host_range != range {
                return Err(bad(format!(
                    "host and container port ranges have different lengths: {host_range} vs {range}"
                )));
            }
            first
        }
    };
    Ok(vec![PortMapping {
        host_ip,
        host_port,
        container_port,
        protocol,
        range,
    }])
}

/// Splits into host address, host port and container port; an IPv6 address is in brackets.
fn split(text: &str) -> Result<(Option<&str>, Option<&str>, &str)> {
    const FORM: &str = "invalid port format - format is [[hostIP:]hostPort:]containerPort";
    const BOTH: &str =
        "invalid port format - must provide host and destination port if specifying an IP";
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, ports) = rest.split_once(']').ok_or_else(|| bad(FORM))?;
        let ports = ports.strip_prefix(':').ok_or_else(|| bad(BOTH))?;
        let (host, container) = ports.split_once(':').ok_or_else(|| bad(BOTH))?;
        if container.contains(':') {
            return Err(bad(FORM));
        }
        return Ok((Some(ip), Some(host), container));
    }
    let mut parts = text.split(':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(container), None, ..) => Ok((None, None, container)),
        (Some(host), Some(container), None, _) => Ok((None, Some(host), container)),
        (Some(ip), Some(host), Some(container), None) => Ok((Some(ip), Some(host), container)),
        _ => Err(bad(FORM)),
    }
}

fn parse_protocol(text: &str) -> Result<Protocol> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Err(bad(
            "publishing SCTP ports is not possible with a user-mode network: use tcp or udp",
        )),
        _ => Err(bad(format!(
            "unrecognized protocol \"{text}\" - must be tcp or udp"
        ))),
    }
}

/// Reads `80` or `80-90` as the first port and how many there are.
fn parse_range(text: &str) -> std::result::Result<(u16, u16), String> {
    let Some((first, last)) = text.split_once('-') else {
        return Ok((parse_port(text)?, 1));
    };
    if first.is_empty() {
        return Err("port numbers cannot be negative".into());
    }
    let (first, last) = (parse_port(first)?, parse_port(last)?);
    if last <= first {
        return Err(format!(
            "the end port of a range must be higher than the start port - {last} is not higher than {first}"
        ));
    }
    // 1-65535 is 65535 ports: it fits.
    Ok((first, last - first + 1))
}

fn parse_port(text: &str) -> std::result::Result<u16, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("invalid port number: \"{text}\" is not a number"));
    }
    match text.parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!(
            "port numbers must be between 1 and 65535 (inclusive), got {text}"
        )),
    }
}

fn bad(message: impl Into<String>) -> Error {
    Error::Publish(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (Option<String>, u16, u16, Protocol, u16) {
        let mapping = parse(text).unwrap().remove(0);
        (
            mapping.host_ip.map(|ip| ip.to_string()),
            mapping.host_port,
            mapping.container_port,
            mapping.protocol,
            mapping.range,
        )
    }

    #[test]
    fn every_form_of_podman_is_read() {
        use Protocol::{Tcp, Udp};
        let ip = |text: &str| Some(text.to_owned());
        assert_eq!(one("80"), (None, 0, 80, Tcp, 1));
        assert_eq!(one("8080:80"), (None, 8080, 80, Tcp, 1));
        assert_eq!(one(":80"), (None, 0, 80, Tcp, 1));
        assert_eq!(one("8080-8090:80-90"), (None, 8080, 80, Tcp, 11));
        assert_eq!(one("80-82"), (None, 0, 80, Tcp, 3));
        assert_eq!(
            one("127.0.0.1:8080:80"),
            (ip("127.0.0.1"), 8080, 80, Tcp, 1)
        );
        assert_eq!(one("127.0.0.1::80"), (ip("127.0.0.1"), 0, 80, Tcp, 1));
        assert_eq!(one("[::1]:8080:80/udp"), (ip("::1"), 8080, 80, Udp, 1));
        assert_eq!(one("[::1]::80/tcp"), (ip("::1"), 0, 80, Tcp, 1));
        assert_eq!(one("53:53/UDP"), (None, 53, 53, Udp, 1));
        assert_eq!(one("1-65535"), (None, 0, 1, Tcp, 65535));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_as_podman_does() {
        for (text, message) in [
            ("", "must provide a non-empty container port to publish"),
            (
                "8080:",
                "must provide a non-empty container port to publish",
            ),
            (
                "foo",
                "parsing container port: invalid port number: \"foo\" is not a number",
            ),
            (
                "foo:80",
                "parsing host port: invalid port number: \"foo\" is not a number",
            ),
            (
                "99999",
                "parsing container port: port numbers must be between 1 and 65535 (inclusive), got 99999",
            ),
            (
                "8080:0",
                "parsing container port: port numbers must be between 1 and 65535 (inclusive), got 0",
            ),
            (
                "-1",
                "parsing container port: port numbers cannot be negative",
            ),
            (
                "90-80",
                "parsing container port: the end port of a range must be higher than the start port - 80 is not higher than 90",
            ),
            (
                "8080-8085:80-81",
                "host and container port ranges have different lengths: 6 vs 2",
            ),
            ("1.2.3:80:80", "cannot parse \"1.2.3\" as an IP address"),
            (
                "1:2:3:4",
                "invalid port format - format is [[hostIP:]hostPort:]containerPort",
            ),
            (
                "[::1:80:80",
                "invalid port format - format is [[hostIP:]hostPort:]containerPort",
            ),
            (
                "[::1]:80",
                "invalid port format - must provide host and destination port if specifying an IP",
            ),
            ("80:80/", "must provide a non-empty protocol to publish"),
            (
                "80/foo",
                "unrecognized protocol \"foo\" - must be tcp or udp",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text:?}");
        }
        assert!(parse("80/sctp").unwrap_err().to_string().contains("SCTP"));
    }

    #[test]
    fn no_text_makes_it_panic() {
        let mut random = crate::testing::Random::new(1);
        let alphabet = b"0123456789:-/[].tcpudp%+ \xc3\xa9";
        for _ in 0..200_000 {
            let text: Vec<u8> = (0..random.below(24))
                .map(|_| alphabet[random.below(alphabet.len())])
                .collect();
            let _ = parse(&String::from_utf8_lossy(&text));
        }
    }
}
