//! Which user and group ids a container of this user can have, and how they are mapped.
//!
//! A ladder, each step checked before it is taken:
//!
//! 1. [`MapMethod::Direct`]: root with `CAP_SETUID` and `CAP_SETGID` maps every id it has to
//!    itself.
//! 2. [`MapMethod::Newuidmap`]: the user's own id becomes 0, the subordinate ids of subuid(5) and
//!    subgid(5) follow, written by newuidmap(1) and newgidmap(1).
//! 3. [`MapMethod::Single`]: the user's own id becomes 0 and nothing else is mapped; needs nothing
//!    at all.
//!
//! Detection never fails: where a step cannot be taken the next one is, and
//! [`IdMaps::why_single`] tells people why and what to do about it.

mod detect;
mod write;

use std::path::PathBuf;

pub use self::write::{IdError, write_maps, write_maps_and};

use self::detect::{find_mapper, identity, is_root, read_map, subordinate};

/// A run of ids that is mapped as a whole, as one line of user_namespaces(7)'s `uid_map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id inside.
    pub container: u32,
    /// First id outside, as the namespace of this process sees it.
    pub host: u32,
    /// How many.
    pub len: u32,
}

/// How the maps get written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapMethod {
    /// By the set-user-id programs of the distribution.
    Newuidmap {
        /// Where newuidmap(1) is.
        newuidmap: PathBuf,
        /// Where newgidmap(1) is.
        newgidmap: PathBuf,
    },
    /// One user and one group, written by ourselves; setgroups(2) stays denied inside.
    Single,
    /// Any ids, written by ourselves with the privileges of root.
    Direct,
}

/// The ids of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMaps {
    /// User ids.
    pub uid: Vec<IdRange>,
    /// Group ids.
    pub gid: Vec<IdRange>,
    /// How they are written.
    pub method: MapMethod,
    /// Why there is only one id, with a remedy; for people.
    pub why_single: Option<String>,
    /// They are not those that containers have unless something else is said.
    pub special: bool,
}

/// The first and last of 65536 ids that are nobody's in `/etc/subuid` and `/etc/subgid`: what a
/// user could be given.
pub fn free_range() -> (u32, u32) {
    detect::free()
}

impl IdMaps {
    /// The best maps this user can have here.
    pub fn detect() -> Self {
        let uid_limits = read_map("/proc/self/uid_map");
        let gid_limits = read_map("/proc/self/gid_map");
        if is_root() {
            return Self {
                uid: identity(&uid_limits),
                gid: identity(&gid_limits),
                method: MapMethod::Direct,
                why_single: None,
                special: false,
            };
        }
        match subordinate(&uid_limits, &gid_limits) {
            Ok(maps) => maps,
            Err(why) => Self {
                why_single: Some(why),
                ..Self::single()
            },
        }
    }

    /// The user's own id as 0, and nothing else.
    pub fn single() -> Self {
        let own = |host| {
            vec![IdRange {
                container: 0,
                host,
                len: 1,
            }]
        };
        Self {
            uid: own(rustix::process::geteuid().as_raw()),
            gid: own(rustix::process::getegid().as_raw()),
            method: MapMethod::Single,
            why_single: None,
            special: false,
        }
    }

    /// The ids that this process's own user namespace has, each as itself: the maps of what lives in
    /// the same namespace. They are never written.
    pub fn own() -> Self {
        Self {
            uid: identity(&read_map("/proc/self/uid_map")),
            gid: identity(&read_map("/proc/self/gid_map")),
            method: MapMethod::Direct,
            why_single: None,
            special: false,
        }
    }

    /// Other maps of the same ids: what `uid` and `gid` call the host's are the ids that these maps have inside.
    ///
    /// Fails with a reason for people where an id is not among them, or is given twice.
    pub fn rearranged(&self, uid: &[IdRange], gid: &[IdRange]) -> Result<Self, String> {
        if self.is_single() {
            return Err(match &self.why_single {
                Some(why) => format!("there is only one id here: {why}"),
                None => "there is only one id here".to_owned(),
            });
        }
        Ok(Self {
            uid: composed(uid, &self.uid, "user")?,
            gid: composed(gid, &self.gid, "group")?,
            method: self.method.clone(),
            why_single: None,
            special: true,
        })
    }

    /// Whether the id of this process is among the users, and its group among the groups.
    pub fn has_caller(&self) -> bool {
        self.to_container_uid(rustix::process::geteuid().as_raw())
            .is_some()
            && self
                .to_container_gid(rustix::process::getegid().as_raw())
                .is_some()
    }

    /// The given maps, to be written by the way that this user has for them.
    ///
    /// Fails with a reason for people where a map takes newuidmap and that cannot be used.
    pub fn given(uid: Vec<IdRange>, gid: Vec<IdRange>) -> Result<Self, String> {
        let only = |ranges: &[IdRange], own: u32| matches!(ranges, [IdRange { host, len: 1, .. }] if *host == own);
        let method = if is_root() {
            MapMethod::Direct
        } else if only(&uid, rustix::process::geteuid().as_raw())
            && only(&gid, rustix::process::getegid().as_raw())
        {
            MapMethod::Single
        } else {
            MapMethod::Newuidmap {
                newuidmap: find_mapper("newuidmap")?,
                newgidmap: find_mapper("newgidmap")?,
            }
        };
        Ok(Self {
            uid,
            gid,
            method,
            why_single: None,
            special: false,
        })
    }

    /// Whether only one user or one group is mapped, so that owners cannot be told apart.
    pub fn is_single(&self) -> bool {
        let one =
            |ranges: &[IdRange]| ranges.iter().map(|range| u64::from(range.len)).sum::<u64>() <= 1;
        self.method == MapMethod::Single || one(&self.uid) || one(&self.gid)
    }

    /// A short name for the mapping that is safe as a file name.
    ///
    /// Files written under one mapping have the right owners under an equal one only. `s` is the
    /// single id and `i` the identity; else the host's runs of ids beyond the user's own, for
    /// example `200000-65536`.
    pub fn key(&self) -> String {
        if self.special {
            return self.special_key();
        }
        if self.is_single() {
            return "s".to_owned();
        }
        let full = |ranges: &[IdRange]| ranges.iter().all(|range| range.container == range.host);
        if full(&self.uid) && full(&self.gid) {
            return "i".to_owned();
        }
        let runs = |ranges: &[IdRange]| {
            let skip = usize::from(ranges.first().is_some_and(|range| range.len == 1));
            let runs: Vec<String> = ranges[skip..]
                .iter()
                .map(|range| format!("{}-{}", range.host, range.len))
                .collect();
            runs.join("_")
        };
        let (uid, gid) = (runs(&self.uid), runs(&self.gid));
        let key = if uid == gid {
            uid
        } else {
            format!("{uid}.{gid}")
        };
        if key.len() <= 100 {
            return key;
        }
        // Very many runs: a name of fixed length, still the same for the same runs.
        format!("h{:016x}", fnv(&key))
    }

    fn special_key(&self) -> String {
        let runs = |ranges: &[IdRange]| {
            let runs = ranges
                .iter()
                .map(|r| format!("{}.{}-{}", r.container, r.host, r.len));
            runs.collect::<Vec<_>>().join("_")
        };
        let key = format!("m{}+{}", runs(&self.uid), runs(&self.gid));
        match key.len() <= 100 {
            true => key,
            false => format!("m{:016x}", fnv(&key)),
        }
    }

    /// The id outside of the user `uid` inside.
    pub fn to_host_uid(&self, uid: u32) -> Option<u32> {
        outward(&self.uid, uid)
    }

    /// The id outside of the group `gid` inside.
    pub fn to_host_gid(&self, gid: u32) -> Option<u32> {
        outward(&self.gid, gid)
    }

    /// The id inside of the user `uid` outside.
    pub fn to_container_uid(&self, uid: u32) -> Option<u32> {
        inward(&self.uid, uid)
    }

    /// The id inside of the group `gid` outside.
    pub fn to_container_gid(&self, gid: u32) -> Option<u32> {
        inward(&self.gid, gid)
    }
}

/// FNV-1a.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// `inner`, whose hosts are the insides of `outer`, as a map of the hosts of `outer`.
fn composed(inner: &[IdRange], outer: &[IdRange], kind: &str) -> Result<Vec<IdRange>, String> {
    let end = |start: u32, len: u32| u64::from(start) + u64::from(len);
    let mut made: Vec<IdRange> = Vec::new();
    for range in inner.iter().filter(|range| range.len > 0) {
        let mut done = 0;
        while done < range.len {
            let (Some(at), Some(place)) = (
                range.host.checked_add(done),
                range.container.checked_add(done),
            ) else {
                return Err(format!("the {kind} ids end before {}", u32::MAX));
            };
            let Some(part) = outer
                .iter()
                .find(|part| part.container <= at && u64::from(at) < end(part.container, part.len))
            else {
                return Err(format!(
                    "the {kind} id {at} is not one of the {} there are",
                    total(outer)
                ));
            };
            let offset = at - part.container;
            let len = (part.len - offset).min(range.len - done);
            let host = part.host + offset;
            for other in &made {
                let meets =
                    |a: u32, b: u32| u64::from(a) < end(b, other.len) && u64::from(b) < end(a, len);
                if meets(place, other.container) || meets(host, other.host) {
                    return Err(format!(
                        "the {kind} id {place} of the container is given twice, or what it stands for is"
                    ));
                }
            }
            made.push(IdRange {
                container: place,
                host,
                len,
            });
            done += len;
        }
    }
    match made.is_empty() {
        true => Err(format!("there is no {kind} id in the map")),
        false => Ok(made),
    }
}

fn total(ranges: &[IdRange]) -> u64 {
    ranges.iter().map(|range| u64::from(range.len)).sum()
}

fn outward(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.container)?;
        let host = range.host.checked_add(offset)?;
        (offset < range.len).then_some(host)
    })
}

fn inward(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.host)?;
        let container = range.container.checked_add(offset)?;
        (offset < range.len).then_some(container)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Those of the user 1000 with these ranges of subordinate ids.
    pub(crate) fn maps(sub: &[(u32, u32)]) -> IdMaps {
        let mut ranges = vec![IdRange {
            container: 0,
            host: 1000,
            len: 1,
        }];
        let mut next = 1;
        for &(host, len) in sub {
            ranges.push(IdRange {
                container: next,
                host,
                len,
            });
            next += len;
        }
        IdMaps {
            uid: ranges.clone(),
            gid: ranges,
            method: MapMethod::Newuidmap {
                newuidmap: "/u".into(),
                newgidmap: "/g".into(),
            },
            why_single: None,
            special: false,
        }
    }

    #[test]
    fn ids_go_both_ways() {
        let maps = maps(&[(200_000, 65_536)]);
        assert_eq!(maps.to_host_uid(0), Some(1000));
        assert_eq!(maps.to_host_uid(33), Some(200_032));
        assert_eq!(maps.to_host_uid(65_536), Some(265_535));
        assert_eq!(maps.to_host_uid(65_537), None);
        assert_eq!(maps.to_container_gid(200_032), Some(33));
        assert_eq!(maps.to_container_gid(1001), None);
    }

    #[test]
    fn keys_are_short_and_tell_mappings_apart() {
        assert_eq!(IdMaps::single().key(), "s");
        assert_eq!(maps(&[(200_000, 65_536)]).key(), "200000-65536");
        assert_eq!(maps(&[(1, 2), (5, 6)]).key(), "1-2_5-6");
        let many: Vec<_> = (0..60).map(|n| (10_000 + n * 10, 2)).collect();
        assert_eq!(maps(&many).key().len(), 17);
    }

    #[test]
    fn detection_says_why() {
        let maps = IdMaps::detect();
        assert_eq!(maps.why_single.is_some(), maps.method == MapMethod::Single);
        assert!(!maps.uid.is_empty() && !maps.gid.is_empty());
    }

    #[test]
    fn other_maps_of_the_same_ids() {
        let range = |container, host, len| IdRange {
            container,
            host,
            len,
        };
        let base = maps(&[(100_000, 65_536)]);
        // As keep-id has it.
        let kept = [
            range(0, 1, 1000),
            range(1000, 0, 1),
            range(1001, 1001, 64536),
        ];
        let maps = base.rearranged(&kept, &kept).unwrap();
        assert_eq!(
            maps.uid,
            [
                range(0, 100_000, 1000),
                range(1000, 1000, 1),
                range(1001, 101_000, 64536)
            ]
        );
        let none = base
            .rearranged(&[range(0, 1, 65536)], &[range(0, 1, 65536)])
            .unwrap();
        assert_eq!(none.uid, [range(0, 100_000, 65536)]);
        // What is the same on the host but for one id lies apart.
        assert!(base.key() != none.key() && none.key() != maps.key());
        let across = base
            .rearranged(&[range(5, 0, 3)], &[range(5, 0, 3)])
            .unwrap();
        assert_eq!(across.uid, [range(5, 1000, 1), range(6, 100_000, 2)]);
        for bad in [
            vec![range(0, 65537, 1)],
            vec![range(0, 0, 2), range(1, 5, 1)],
            vec![range(0, 0, 2), range(5, 1, 1)],
            vec![range(u32::MAX, 0, 2)],
            vec![],
        ] {
            assert!(base.rearranged(&bad, &bad).is_err(), "{bad:?}");
        }
        assert!(IdMaps::single().rearranged(&kept, &kept).is_err());
    }
}
