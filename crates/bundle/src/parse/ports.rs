//! `--expose` and the ports an image exposes. Publishing them is the network's affair.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, ImageConfig};

/// A port, or a run of ports, that a container listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExposedPort {
    /// The first port, 1 to 65535.
    pub first: u16,
    /// The last port; the first again for a single one.
    pub last: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

impl fmt::Display for ExposedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}/{}", self.first, self.protocol),
            false => write!(f, "{}-{}/{}", self.first, self.last, self.protocol),
        }
    }
}

/// Reads `PORT[-PORT][/PROTOCOL]`; empty text is nothing.
///
/// # Errors
/// podman's words for ports that are none; an unknown protocol is refused too.
pub fn expose(text: &str) -> Result<Option<ExposedPort>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let (range, protocol) = text.split_once('/').unwrap_or((text, ""));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => {
            return Err(Error::value(format!(
                "invalid protocol {other:?} for --expose, must be tcp, udp or sctp"
            )));
        }
    };
    let number = |digits: &str| {
        let failed = |why: &str| {
            Error::value(format!(
                "invalid range format for --expose: {text}: strconv.ParseUint: parsing {digits:?}: {why}"
            ))
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(failed("invalid syntax"));
        }
        match digits.parse::<u16>() {
            Ok(0) => Err(Error::value(
                "port numbers must be between 1 and 65535 (inclusive), got 0",
            )),
            Ok(port) => Ok(port),
            Err(_) => Err(failed("value out of range")),
        }
    };
    let (first, last) = match range.split_once('-') {
        None => (number(range)?, number(range)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    if last < first {
        return Err(Error::value(format!(
            "invalid range format for --expose: {text}: Invalid range specified for the Port: {range}"
        )));
    }
    Ok(Some(ExposedPort {
        first,
        last,
        protocol,
    }))
}

/// The ports an image and its user expose, sorted and without doubles; what an image has wrong is left out.
pub fn image_ports(image: &ImageConfig, more: &[ExposedPort]) -> Vec<ExposedPort> {
    let declared = image
        .exposed_ports
        .iter()
        .filter_map(|text| expose(text).ok().flatten());
    let mut ports: Vec<ExposedPort> = declared.chain(more.iter().copied()).collect();
    ports.sort();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ports() {
        for (text, shown) in [
            ("80", "80/tcp"),
            ("80/tcp", "80/tcp"),
            ("53/UDP", "53/udp"),
            ("80-90/sctp", "80-90/sctp"),
            ("80/", "80/tcp"),
            ("7-7", "7/tcp"),
        ] {
            assert_eq!(expose(text).unwrap().unwrap().to_string(), shown);
        }
        assert_eq!(expose("").unwrap(), None);
    }

    #[test]
    fn refuses_as_podman_does() {
        let prefix = "invalid range format for --expose: ";
        for (text, message) in [
            (
                "x",
                format!("{prefix}x: strconv.ParseUint: parsing \"x\": invalid syntax"),
            ),
            (
                "90-80",
                format!("{prefix}90-80: Invalid range specified for the Port: 90-80"),
            ),
            (
                "65536",
                format!("{prefix}65536: strconv.ParseUint: parsing \"65536\": value out of range"),
            ),
            (
                "80:80",
                format!("{prefix}80:80: strconv.ParseUint: parsing \"80:80\": invalid syntax"),
            ),
            (
                "-1",
                format!("{prefix}-1: strconv.ParseUint: parsing \"\": invalid syntax"),
            ),
            (
                "80-",
                format!("{prefix}80-: strconv.ParseUint: parsing \"\": invalid syntax"),
            ),
            (
                "0",
                "port numbers must be between 1 and 65535 (inclusive), got 0".into(),
            ),
            (
                "80/foo",
                "invalid protocol \"foo\" for --expose, must be tcp, udp or sctp".into(),
            ),
        ] {
            assert_eq!(expose(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn images_may_be_wrong() {
        let image = ImageConfig {
            exposed_ports: ["80/tcp", "nonsense", "53/udp", "80"]
                .map(String::from)
                .to_vec(),
            ..ImageConfig::default()
        };
        let more = expose("22").unwrap().unwrap();
        let shown: Vec<_> = image_ports(&image, &[more])
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown, ["22/tcp", "53/udp", "80/tcp"]);
    }
}
