//! Putting datagrams together that came in fragments (RFC 791 §3.2, RFC 8200 §4.5).
//!
//! Programs in the container may send datagrams longer than the MTU. Everything here is bounded:
//! how many datagrams wait at a time, how long, and how long each may become. Fragments that
//! overlap are an attack or an error, and the datagram is given up (RFC 5722).

use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};

use super::link::MAX_PACKET;
use super::packet::Packet;

/// How many datagrams may wait for fragments, a MiB of them at most; the oldest makes room for another.
const MAX_WAITING: usize = 16;
/// How long a datagram waits: on this link, the next fragment is behind the one before. RFC 791
/// suggests 15 seconds for the world at large.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many fragments a datagram may have: the longest at the smallest MTU, 68
/// (RFC 791 §3.2), has 1366, of 48 bytes each.
const MAX_PARTS: usize = 1400;

/// The datagrams that wait for fragments.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    name: Name,
    since: Instant,
    payload: Vec<u8>,
    /// Which parts of the payload are there, in order.
    parts: Vec<(usize, usize)>,
    /// The length of the whole, once the last fragment has come.
    length: Option<usize>,
}

/// What fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    identification: u32,
}

impl Fragments {
    /// Adds a fragment; gives the whole payload when nothing is missing any more.
    pub(crate) fn add(&mut self, now: Instant, packet: &Packet<'_>) -> Option<Vec<u8>> {
        let fragment = packet.fragment?;
        let name = Name {
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            identification: fragment.identification,
        };
        self.waiting.retain(|waiting| waiting.since + TIMEOUT > now);
        let place = self
            .waiting
            .iter()
            .position(|waiting| waiting.name == name)
            .unwrap_or_else(|| self.begin(now, name));
        let start = usize::from(fragment.offset);
        match self.waiting[place].put(start, packet.payload, fragment.more) {
            Put::Incomplete => None,
            Put::Complete => Some(self.waiting.swap_remove(place).payload),
            Put::Wrong => {
                self.waiting.swap_remove(place);
                None
            }
        }
    }

    fn begin(&mut self, now: Instant, name: Name) -> usize {
        if self.waiting.len() >= MAX_WAITING
            && let Some((oldest, _)) = self
                .waiting
                .iter()
                .enumerate()
                .min_by_key(|(_, waiting)| waiting.since)
        {
            self.waiting.swap_remove(oldest);
        }
        self.waiting.push(Waiting {
            name,
            since: now,
            payload: Vec::new(),
            parts: Vec::new(),
            length: None,
        });
        self.waiting.len() - 1
    }
}

enum Put {
    Incomplete,
    Complete,
    Wrong,
}

impl Waiting {
    fn put(&mut self, start: usize, bytes: &[u8], more: bool) -> Put {
        let end = start + bytes.len();
        if self.parts.len() >= MAX_PARTS {
            return Put::Wrong;
        }
        // All but the last are multiples of eight bytes long.
        if bytes.is_empty() || end > MAX_PACKET || (more && !bytes.len().is_multiple_of(8)) {
            return Put::Wrong;
        }
        let at = self.parts.partition_point(|(first, _)| *first < start);
        let overlaps = at > 0 && self.parts[at - 1].1 > start
            || self.parts.get(at).is_some_and(|(first, _)| *first < end);
        let beyond = self.length.is_some_and(|length| end > length || !more);
        let furthest = self.parts.last().map_or(0, |(_, end)| *end);
        if overlaps || beyond || (!more && furthest > end) {
            return Put::Wrong;
        }
        if !more {
            self.length = Some(end);
        }
        self.parts.insert(at, (start, end));
        if self.payload.len() < end {
            self.payload.resize(end, 0);
        }
        self.payload[start..end].copy_from_slice(bytes);
        let mut covered = 0;
        for (first, last) in &self.parts {
            if *first != covered {
                return Put::Incomplete;
            }
            covered = *last;
        }
        match self.length == Some(covered) {
            true => Put::Complete,
            false => Put::Incomplete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::packet::{Fragment, UDP};
    use crate::testing::Random;

    fn fragment(identification: u32, offset: u16, payload: &[u8], more: bool) -> Packet<'_> {
        Packet {
            source: "10.0.2.100".parse().unwrap(),
            destination: "192.0.2.1".parse().unwrap(),
            protocol: UDP,
            whole: payload,
            payload,
            fragment: Some(Fragment {
                identification,
                offset,
                more,
            }),
        }
    }

    #[test]
    fn parts_come_together_in_any_order() {
        let now = Instant::ZERO;
        let whole: Vec<u8> = (0..100).collect();
        let parts = [(0, 32), (32, 64), (64, 100)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
            let mut fragments = Fragments::default();
            let mut result = None;
            for i in order {
                let (start, end) = parts[i];
                assert!(result.is_none());
                result = fragments.add(
                    now,
                    &fragment(9, start as u16, &whole[start..end], end < 100),
                );
            }
            assert_eq!(result.as_deref(), Some(&whole[..]));
            assert!(fragments.waiting.is_empty());
        }
    }

    #[test]
    fn overlaps_and_overlong_ones_are_given_up() {
        let bytes = [0; 64];
        let mut fragments = Fragments::default();
        assert!(
            fragments
                .add(Instant::ZERO, &fragment(1, 0, &bytes, true))
                .is_none()
        );
        assert!(
            fragments
                .add(Instant::ZERO, &fragment(1, 56, &bytes, false))
                .is_none()
        );
        assert!(fragments.waiting.is_empty());
        assert!(
            fragments
                .add(Instant::ZERO, &fragment(2, 65528, &bytes, false))
                .is_none()
        );
        assert!(
            fragments
                .add(Instant::ZERO, &fragment(3, 0, &bytes[..9], true))
                .is_none()
        );
        assert!(fragments.waiting.is_empty());
    }

    #[test]
    fn a_flood_stays_within_bounds_and_is_forgotten() {
        let mut fragments = Fragments::default();
        let bytes = [0; 64];
        for identification in 0..1000 {
            fragments.add(Instant::ZERO, &fragment(identification, 0, &bytes, true));
        }
        assert_eq!(fragments.waiting.len(), MAX_WAITING);
        let later = Instant::ZERO + TIMEOUT;
        fragments.add(later, &fragment(5000, 0, &bytes, true));
        assert_eq!(fragments.waiting.len(), 1);
    }

    #[test]
    fn no_fragments_make_it_panic() {
        let mut random = Random::new(11);
        let mut fragments = Fragments::default();
        let bytes = vec![7; 2000];
        for step in 0..100_000 {
            let length = random.below(bytes.len());
            let packet = fragment(
                random.below(4) as u32,
                (random.below(8192) as u16).saturating_mul(8),
                &bytes[..length],
                random.below(3) > 0,
            );
            fragments.add(Instant::from_millis(step), &packet);
        }
    }
}
