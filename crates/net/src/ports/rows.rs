//! Rows of published ports against each other: which ports of one are meant by another, and what is left of a row.
//!
//! A row may be every port there is. So nothing here looks at ports one by one, only at where rows begin and end.

use std::ops::Range;

use crate::ports::mapping::PortMapping;

/// What [`withdraw`] makes of published ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// Those that stay published.
    pub left: Vec<PortMapping>,
    /// Those that do not.
    pub gone: Vec<PortMapping>,
}

/// Takes the ports that `unwanted` means ([`PortMapping::means`]) out of `ports`.
///
/// # Errors
/// The first port of `unwanted` that is not among `ports`.
pub fn withdraw(ports: &[PortMapping], unwanted: &[PortMapping]) -> Result<Withdrawn, PortMapping> {
    let index = Index::new(ports);
    let mut taken: Vec<Vec<Range<u32>>> = vec![Vec::new(); ports.len()];
    for wanted in unwanted {
        let mut found = Vec::new();
        for (at, meant) in index.meant_by(wanted) {
            taken[at].push(meant.theirs);
            found.push(meant.ours);
        }
        if let Some(missing) = gaps(count(wanted), found).first() {
            return Err(part(wanted, missing.start..missing.start + 1));
        }
    }
    let mut all = Withdrawn::default();
    for (port, taken) in ports.iter().zip(taken) {
        if taken.is_empty() {
            all.left.push(port.clone());
            continue;
        }
        let left = gaps(count(port), taken);
        let parts = |ranges: &[Range<u32>]| {
            ranges
                .iter()
                .cloned()
                .map(|range| part(port, range))
                .collect::<Vec<_>>()
        };
        all.left.extend(parts(&left));
        all.gone.extend(parts(&gaps(count(port), left)));
    }
    Ok(all)
}

/// Those of `ports` that `bound` still has, at the same host address. One on a port of the kernel's choice stays as long as
/// one like it is bound.
pub fn still_bound(ports: &[PortMapping], bound: &[PortMapping]) -> Vec<PortMapping> {
    let index = Index::new(bound);
    let mut left = Vec::new();
    for port in ports {
        let meant = index.meant_by(port);
        let same = meant.filter(|(at, _)| bound[*at].host_ip == port.host_ip);
        let gone = gaps(count(port), same.map(|(_, meant)| meant.ours).collect());
        match gone.is_empty() {
            true => left.push(port.clone()),
            false => left.extend(
                gaps(count(port), gone)
                    .into_iter()
                    .map(|range| part(port, range)),
            ),
        }
    }
    left
}

/// The same ports in as few rows as can be, by protocol, host address and port: rows that go on where another ends become
/// one with it, and ports that were named twice are there once.
pub fn joined(ports: &[PortMapping]) -> Vec<PortMapping> {
    let mut sorted = ports.to_vec();
    sorted.sort_by_key(|port| {
        (
            port.protocol,
            port.host_ip,
            port.host_port,
            port.container_port,
        )
    });
    let mut rows: Vec<PortMapping> = Vec::new();
    for port in sorted {
        match rows.last_mut() {
            Some(row) => match together(row, &port) {
                Some(range) => row.range = range,
                None => rows.push(port),
            },
            None => rows.push(port),
        }
    }
    rows
}

/// How many ports a row has with another that begins within it or right behind it.
fn together(row: &PortMapping, port: &PortMapping) -> Option<u16> {
    let behind = |first: u16, next: u16| u32::from(next).checked_sub(first.into());
    let ahead = behind(row.container_port, port.container_port)?;
    let known = row.host_port != 0;
    let same = (row.protocol, row.host_ip) == (port.protocol, port.host_ip)
        && known == (port.host_port != 0)
        && (!known || behind(row.host_port, port.host_port) == Some(ahead));
    // Ports of the kernel's choice are not known to follow each other.
    let begins = ahead < count(row) || known && ahead == count(row);
    let range = count(row).max(ahead + count(port));
    (same && begins)
        .then(|| u16::try_from(range).ok())
        .flatten()
}

/// Rows of ports by where they begin in the container.
struct Index<'a> {
    ports: &'a [PortMapping],
    order: Vec<usize>,
    longest: u32,
}

/// The ports that two rows have in common, by their places in the row that means and in the one that is meant.
struct Meant {
    ours: Range<u32>,
    theirs: Range<u32>,
}

impl<'a> Index<'a> {
    fn new(ports: &'a [PortMapping]) -> Index<'a> {
        let mut order: Vec<usize> = (0..ports.len()).collect();
        order.sort_by_key(|at| ports[*at].container_port);
        Index {
            ports,
            order,
            longest: ports.iter().map(count).max().unwrap_or(0),
        }
    }

    /// The rows that have ports that `wanted` means, by their places, and which ports these are.
    fn meant_by<'b>(
        &'b self,
        wanted: &'b PortMapping,
    ) -> impl Iterator<Item = (usize, Meant)> + 'b {
        let begin = |at: &usize| u32::from(self.ports[*at].container_port);
        let first = u32::from(wanted.container_port);
        let from = self
            .order
            .partition_point(|at| begin(at) + self.longest <= first);
        let to = self
            .order
            .partition_point(|at| begin(at) < first + count(wanted));
        let near = self.order[from..to.max(from)].iter();
        near.filter_map(move |at| Some((*at, meant(wanted, &self.ports[*at])?)))
    }
}

/// The ports of `bound` that `wanted` means.
fn meant(wanted: &PortMapping, bound: &PortMapping) -> Option<Meant> {
    let ahead = |ours: u16, theirs: u16| i64::from(ours) - i64::from(theirs);
    let shift = ahead(wanted.container_port, bound.container_port);
    let same = wanted.protocol == bound.protocol
        && (wanted.host_ip.is_none() || wanted.host_ip == bound.host_ip)
        && (wanted.host_port == 0
            || bound.host_port != 0 && ahead(wanted.host_port, bound.host_port) == shift);
    let start = shift.max(0);
    let end = (shift + i64::from(count(wanted))).min(count(bound).into());
    let range = |shift: i64| {
        let [start, end] = [start, end].map(|at| u32::try_from(at - shift).ok());
        Some(start?..end?)
    };
    (same && start < end).then_some(())?;
    Some(Meant {
        ours: range(shift)?,
        theirs: range(0)?,
    })
}

/// What is left of the places from 0 to `count`, which is not one itself.
fn gaps(count: u32, mut taken: Vec<Range<u32>>) -> Vec<Range<u32>> {
    taken.sort_unstable_by_key(|range| range.start);
    let mut left = Vec::new();
    let mut next = 0;
    for range in taken {
        if next < range.start {
            left.push(next..range.start);
        }
        next = next.max(range.end);
    }
    if next < count {
        left.push(next..count);
    }
    left
}

fn count(port: &PortMapping) -> u32 {
    port.range.max(1).into()
}

/// Some ports of a row.
fn part(port: &PortMapping, range: Range<u32>) -> PortMapping {
    let start = u16::try_from(range.start).unwrap_or(u16::MAX);
    let length = range.end.saturating_sub(range.start);
    PortMapping {
        host_port: match port.host_port {
            0 => 0,
            first => first.saturating_add(start),
        },
        container_port: port.container_port.saturating_add(start),
        range: u16::try_from(length).unwrap_or(u16::MAX),
        ..port.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn ports(text: &str) -> Vec<PortMapping> {
        text.split_whitespace()
            .flat_map(|word| PortMapping::parse(word).unwrap())
            .collect()
    }

    fn words(ports: &[PortMapping]) -> String {
        let words: Vec<String> = ports.iter().map(ToString::to_string).collect();
        words.join(" ")
    }

    #[test]
    fn a_port_in_the_middle_leaves_two_rows() {
        let all = ports("1-65535:1-65535 127.0.0.1:1-65535:1-65535/udp");
        let done = withdraw(&all, &ports("80 8080-8089:8080-8089 127.0.0.1::1-1000/udp")).unwrap();
        assert_eq!(
            words(&done.left),
            "1-79:1-79/tcp 81-8079:81-8079/tcp 8090-65535:8090-65535/tcp 127.0.0.1:1001-65535:1001-65535/udp"
        );
        assert_eq!(
            words(&done.gone),
            "80:80/tcp 8080-8089:8080-8089/tcp 127.0.0.1:1-1000:1-1000/udp"
        );
        let missing = withdraw(&all, &ports("80 81:82")).unwrap_err();
        assert_eq!(missing.to_string(), "81:82/tcp");
        // The same host ports lead elsewhere.
        let missing = withdraw(
            &ports("1000-2000:2000-3000"),
            &ports("1500-1501:2500-2501 1500-1501:2499-2500"),
        );
        assert_eq!(missing.unwrap_err().to_string(), "1500:2499/tcp");
    }

    #[test]
    fn rows_are_joined_where_both_sides_go_on() {
        for (apart, together) in [
            ("8081:81 8080:80 8082:82", "8080-8082:80-82/tcp"),
            ("8080:80 8081:80", "8080:80/tcp 8081:80/tcp"),
            ("8080:80 8081:81/udp", "8080:80/tcp 8081:81/udp"),
            (
                "8080:80 127.0.0.1:8081:81",
                "8080:80/tcp 127.0.0.1:8081:81/tcp",
            ),
            ("80 81", "80/tcp 81/tcp"),
            ("80 80-81 8080:80 8080:80", "80-81/tcp 8080:80/tcp"),
            (
                "8080-8089:80-89 8085:85 8085-8095:85-95",
                "8080-8095:80-95/tcp",
            ),
            ("1-65534:1-65534 65535:65535", "1-65535:1-65535/tcp"),
        ] {
            assert_eq!(words(&joined(&ports(apart))), together);
        }
    }

    /// Rows of few ports, so that there is much that overlaps.
    fn any(random: &mut Random, bound: bool) -> PortMapping {
        let ip = ["127.0.0.1", "::1"][random.below(2)].parse().unwrap();
        PortMapping {
            host_ip: (random.below(2) == 0).then_some(ip),
            host_port: match random.below(3) {
                0 if !bound => 0,
                _ => 1 + random.below(12) as u16,
            },
            container_port: 1 + random.below(12) as u16,
            protocol: Default::default(),
            range: random.below(6) as u16,
        }
    }

    fn singles(ports: &[PortMapping]) -> Vec<PortMapping> {
        ports.iter().flat_map(PortMapping::singles).collect()
    }

    #[test]
    fn it_is_as_if_each_port_was_looked_at() {
        let mut random = Random::new(3);
        let (mut refused, mut done) = (0, 0);
        for _ in 0..20_000 {
            let mut list = |most: usize, bound: bool| {
                let count = random.below(most);
                (0..count)
                    .map(|_| any(&mut random, bound))
                    .collect::<Vec<_>>()
            };
            let (all, unwanted) = (list(5, true), list(3, false));
            let (one_by_one, unwanted_ones) = (singles(&all), singles(&unwanted));
            let missing = unwanted_ones
                .iter()
                .find(|wanted| !one_by_one.iter().any(|port| wanted.means(port)));
            match withdraw(&all, &unwanted) {
                Err(error) => {
                    assert_eq!(Some(&error), missing);
                    refused += 1;
                }
                Ok(withdrawn) => {
                    assert_eq!(missing, None);
                    let meant =
                        |port: &PortMapping| unwanted_ones.iter().any(|wanted| wanted.means(port));
                    let (gone, left): (Vec<_>, Vec<_>) =
                        one_by_one.iter().cloned().partition(meant);
                    assert_eq!(
                        (singles(&withdrawn.left), singles(&withdrawn.gone)),
                        (left, gone)
                    );
                    done += 1;
                }
            }
            let stays = |port: &PortMapping| {
                one_by_one
                    .iter()
                    .any(|bound| port.host_ip == bound.host_ip && port.means(bound))
            };
            let still: Vec<_> = unwanted_ones
                .iter()
                .filter(|port| stays(port))
                .cloned()
                .collect();
            assert_eq!(singles(&still_bound(&unwanted, &all)), still);
            let mut rows = singles(&joined(&all));
            let mut before = one_by_one;
            for list in [&mut rows, &mut before] {
                list.sort_by_key(|port| (port.host_ip, port.host_port, port.container_port));
                list.dedup();
            }
            assert_eq!(rows, before);
        }
        assert!(refused > 1000 && done > 1000, "{refused} {done}");
    }
}
