//! Who knows names: what the host's resolv.conf and hosts say, and how old that news is.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::time::{Duration, Instant};

use super::hosts::Hosts;
use crate::resolv::ResolvConf;

/// How often is looked whether the host's files have changed, at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many servers of the list are used (resolv.h: MAXNS).
pub(crate) const MAX_SERVERS: usize = 3;

/// Those who know names.
#[derive(Debug)]
pub(super) struct Names {
    /// Servers that were asked for instead of the host's.
    fixed: Vec<IpAddr>,
    host: ResolvConf,
    hosts: Hosts,
    /// The server that answered last.
    preferred: Option<IpAddr>,
    /// When the files were as they are known, or when that was asked last.
    looked: Option<Instant>,
    look: Look,
}

/// How the last question after the files stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// To be asked.
    Wanted,
    /// Asked.
    Asked,
    /// Answered.
    Answered,
    /// Not answered: nobody waits for the next answer.
    Unanswered,
}

impl Names {
    pub(super) fn new(servers: &[IpAddr]) -> Names {
        Names {
            fixed: servers.to_vec(),
            host: ResolvConf::default(),
            hosts: Hosts::default(),
            preferred: None,
            looked: None,
            look: Look::Unanswered,
        }
    }

    /// The names of the host's own.
    pub(super) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Whom to ask, the one that answered last first.
    pub(super) fn servers(&self) -> Vec<IpAddr> {
        let all = match self.fixed.as_slice() {
            [] => &self.host.servers,
            fixed => fixed,
        };
        let mut list = all[..all.len().min(MAX_SERVERS)].to_vec();
        if list.is_empty() {
            // What resolv.conf(5) says an empty one means.
            list.push(Ipv4Addr::LOCALHOST.into());
        }
        if let Some(preferred) = self.preferred
            && let Some(place) = list.iter().position(|server| *server == preferred)
        {
            list[..=place].rotate_right(1);
        }
        list
    }

    /// Has a server asked first from now on.
    pub(super) fn prefer(&mut self, server: IpAddr) {
        self.preferred = Some(server);
    }

    /// Takes the texts of the files; none is as before.
    pub(super) fn learn(&mut self, now: Instant, resolv_conf: Option<&str>, hosts: Option<&str>) {
        if let Some(text) = resolv_conf {
            self.host = ResolvConf::parse(text);
        }
        if let Some(text) = hosts {
            self.hosts = Hosts::parse(text);
        }
        self.looked = Some(now);
        self.look = Look::Answered;
    }

    /// Whether it is worth waiting for news. If the last is old, news is wanted.
    pub(super) fn is_stale(&mut self, now: Instant) -> bool {
        match self.look {
            Look::Wanted | Look::Asked => true,
            Look::Answered | Look::Unanswered => {
                if self.looked.is_some_and(|looked| looked + INTERVAL > now) {
                    return false;
                }
                let answered = self.look == Look::Answered;
                self.looked = Some(now);
                self.look = Look::Wanted;
                answered
            }
        }
    }

    /// Whether news is wanted; true once.
    pub(super) fn wants(&mut self) -> bool {
        let wanted = self.look == Look::Wanted;
        if wanted {
            self.look = Look::Asked;
        }
        wanted
    }

    /// Waits for news no longer.
    pub(super) fn give_up(&mut self) {
        self.look = Look::Unanswered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_server_that_answered_is_asked_first() {
        let mut names = Names::new(&[ip("192.0.2.1"), ip("192.0.2.2"), ip("192.0.2.3")]);
        assert_eq!(names.servers()[0], ip("192.0.2.1"));
        names.prefer(ip("192.0.2.2"));
        let list = [ip("192.0.2.2"), ip("192.0.2.1"), ip("192.0.2.3")];
        assert_eq!(names.servers(), list);
        names.prefer(ip("192.0.2.99"));
        assert_eq!(names.servers()[0], ip("192.0.2.1"));
    }

    #[test]
    fn news_is_asked_for_once_a_second_and_waited_for_if_there_is_hope() {
        let at = Instant::from_millis;
        let mut names = Names::new(&[]);
        names.learn(at(0), Some("nameserver 192.0.2.1"), Some("192.0.2.9 it"));
        assert!(!names.is_stale(at(999)) && !names.wants());
        assert!(names.is_stale(at(1000)));
        assert!(names.wants() && !names.wants());
        // Whoever comes meanwhile waits too.
        assert!(names.is_stale(at(1001)) && !names.wants());
        names.learn(at(1002), None, Some(""));
        assert_eq!(names.servers(), [ip("192.0.2.1")]);
        assert!(!names.is_stale(at(1003)));
        // Nobody answers: later ones ask, but do not wait, until somebody does.
        assert!(names.is_stale(at(3000)) && names.wants());
        names.give_up();
        assert!(!names.is_stale(at(3001)));
        assert!(!names.is_stale(at(4000)) && names.wants());
        names.learn(at(4001), None, None);
        assert!(names.is_stale(at(5001)));
    }
}
