//! The names in the host's /etc/hosts (hosts(5)), which no name server knows.

use std::collections::HashMap;
use std::net::IpAddr;

use super::message::Question;

/// How long an answer may be remembered, in seconds: not long, the file may change.
const TTL: u32 = 5;
/// The type of records with an IPv4 address (RFC 1035 §3.2.2).
const A: u16 = 1;
/// The type of records with an IPv6 address (RFC 3596 §2.1).
const AAAA: u16 = 28;
/// The class of the internet (RFC 1035 §3.2.4).
const IN: u16 = 1;

/// Names and addresses.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    names: HashMap<String, Vec<IpAddr>>,
}

impl Hosts {
    /// Reads the text of a hosts file. Loopback addresses are left out: to the container they
    /// would mean itself.
    pub(crate) fn parse(text: &str) -> Hosts {
        let mut hosts = Hosts::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or("");
            let mut words = line.split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
                continue;
            };
            if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
                continue;
            }
            for name in words {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                hosts.names.entry(name).or_default().push(address);
            }
        }
        hosts
    }

    /// The answer to a question about a name in the file, if it is one about addresses.
    pub(crate) fn answer(&self, question: &Question<'_>) -> Option<Vec<u8>> {
        if question.class != IN {
            return None;
        }
        let addresses = self.names.get(&question.name)?;
        let records: Vec<Vec<u8>> = addresses
            .iter()
            .filter_map(|address| match (address, question.kind) {
                (IpAddr::V4(address), A) => Some(address.octets().to_vec()),
                (IpAddr::V6(address), AAAA) => Some(address.octets().to_vec()),
                _ => None,
            })
            // What fits into 512 bytes, the least that every resolver takes (RFC 1035 §2.3.4).
            .take(8)
            .collect();
        matches!(question.kind, A | AAAA).then(|| question.answer(&records, TTL))
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::query_for;
    use super::*;

    #[test]
    fn names_of_the_file_are_answered_and_no_others() {
        let hosts = Hosts::parse(
            "127.0.0.1 localhost\n127.0.1.1 myself\n10.0.0.67 Server server.lan # here\n\
             fd12::1 server\nnonsense\n",
        );
        let ask = |name: &str, kind| {
            let query = query_for(name, kind);
            let question = Question::parse(&query)?;
            hosts.answer(&question)
        };
        let answer = ask("server", A).unwrap();
        assert_eq!(answer[6..8], [0, 1]);
        assert!(answer.ends_with(&[0, 4, 10, 0, 0, 67]));
        assert!(ask("SERVER", AAAA).unwrap().ends_with(&[0, 1]));
        // Known, but without an address of that family: an empty answer.
        assert_eq!(ask("server.lan", AAAA).unwrap()[6..8], [0, 0]);
        assert_eq!(ask("server", 15), None);
        assert_eq!(ask("localhost", A), None);
        assert_eq!(ask("myself", A), None);
        assert_eq!(ask("elsewhere.lan", A), None);
    }
}
