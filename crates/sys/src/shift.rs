//! Files of containers whose users are arranged in another way than usual, seen from a namespace with the usual maps.
//!
//! Ordinary users cannot have id-mapped mounts of a disk. So what such a container is made of lies on the disk with the
//! owners that its own map gives it, and is written and read by who is root over all of the ids: what the container calls
//! its user 5 is another number there.

use std::io;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::thread;

use crate::ids::IdMaps;

/// From the ids of a container to those of a namespace that has them all, and back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shift {
    inner: IdMaps,
    outer: IdMaps,
}

impl Shift {
    /// From the ids of `inner` to those of `outer`.
    pub fn between(inner: &IdMaps, outer: &IdMaps) -> Self {
        Self {
            inner: inner.clone(),
            outer: outer.clone(),
        }
    }

    /// What the container's user `uid` is outside of it.
    pub fn uid(&self, uid: u32) -> Option<u32> {
        self.outer.to_container_uid(self.inner.to_host_uid(uid)?)
    }

    /// What the container's group `gid` is outside of it.
    pub fn gid(&self, gid: u32) -> Option<u32> {
        self.outer.to_container_gid(self.inner.to_host_gid(gid)?)
    }

    /// What the container calls a user; the id of nobody for one that it does not have.
    pub fn uid_inside(&self, uid: u32) -> u32 {
        let host = self.outer.to_host_uid(uid);
        host.and_then(|host| self.inner.to_container_uid(host))
            .unwrap_or(NOBODY)
    }

    /// What the container calls a group; the id of nobody for one that it does not have.
    pub fn gid_inside(&self, gid: u32) -> u32 {
        let host = self.outer.to_host_gid(gid);
        host.and_then(|host| self.inner.to_container_gid(host))
            .unwrap_or(NOBODY)
    }

    /// The container's root, as it is outside.
    ///
    /// # Errors
    /// When the container has no root.
    pub fn root(&self) -> io::Result<(u32, u32)> {
        let root = self.uid(0).zip(self.gid(0));
        root.ok_or_else(|| io::Error::other("the container has no user or no group 0"))
    }

    /// From now on what this thread makes belongs to the container's root; it keeps all its rights.
    ///
    /// # Errors
    /// When the container has no root, or this process is none.
    pub fn write_as_root(&self) -> io::Result<()> {
        let (uid, gid) = self.root()?;
        let sets = thread::capabilities(None)?;
        setfsgid(Gid::from_raw(gid));
        setfsuid(Uid::from_raw(uid));
        // Leaving user 0 takes the rights over files from the effective set.
        thread::set_capabilities(None, sets)?;
        // These calls tell failure by telling the same as before.
        let now = (
            setfsuid(Uid::from_raw(uid)).as_raw(),
            setfsgid(Gid::from_raw(gid)).as_raw(),
        );
        match now == (uid, gid) {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EPERM)),
        }
    }
}

/// How the kernel shows an id that a namespace does not have.
const NOBODY: u32 = 65534;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IdRange;
    use crate::ids::tests::maps;

    #[test]
    fn there_and_back() {
        let range = |container, host, len| IdRange {
            container,
            host,
            len,
        };
        let base = maps(&[(100_000, 100)]);
        let kept = [range(0, 1, 5), range(5, 0, 1)];
        let inner = base.rearranged(&kept, &kept).unwrap();
        let shift = Shift::between(&inner, &base);
        assert_eq!(
            (shift.uid(0), shift.uid(5), shift.gid(4)),
            (Some(1), Some(0), Some(5))
        );
        assert_eq!((shift.uid(6), shift.uid_inside(50)), (None, NOBODY));
        assert_eq!((shift.uid_inside(0), shift.gid_inside(1)), (5, 0));
        assert_eq!(shift.root().unwrap(), (1, 1));
    }
}
