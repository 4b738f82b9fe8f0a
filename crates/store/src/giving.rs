//! Can files here be given to others?
//!
//! A network file system gives files to nobody but whom its server knows, and lets the root of a user namespace into
//! nothing that belongs to others: of subordinate ids it has never heard. Layers cannot be unpacked with their owners
//! there. It is tried, where the file system is not one of those that are known to do it; that it worked is remembered
//! in the store, for these ids, this kernel and this file system.

use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use rcon_sys::ids::{IdMaps, IdRange};
use rcon_sys::userns;
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};

use crate::atomic;
use crate::error::{Result, Why};
use crate::stage::Stage;
use crate::store::{DIRECTORY, Store};

const MEMORY: &str = "giving.json";

/// File systems of this machine's own, by linux/magic.h: ext4, xfs, btrfs, tmpfs, ramfs, overlay, f2fs, zfs, bcachefs.
const LOCAL: [u32; 9] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0x8584_58f6,
    0x794c_7630,
    0xf2f5_2010,
    0x2fc1_2fc1,
    0xca45_1a4e,
];

impl Store {
    /// Why files in this store cannot have the owners that `maps` give them, and what to do about it; for people.
    /// `None` where they can.
    ///
    /// Forks when it tries, so the caller must have one thread.
    pub fn refuses_owners(&self, maps: &IdMaps) -> Option<String> {
        // The first that is not root.
        let other = |ranges: &[IdRange]| {
            ranges.iter().find_map(|range| match range.container {
                0 => (range.len > 1).then_some(1),
                id => Some(id),
            })
        };
        let (Some(uid), Some(gid)) = (other(&maps.uid), other(&maps.gid)) else {
            return None;
        };
        let system = rustix::fs::fstatfs(self.dir()).ok()?.f_type as u32;
        if LOCAL.contains(&system) {
            return None;
        }
        let here = (self.here().ok()?, maps.key());
        let known = atomic::read(self.dir(), MEMORY, atomic::LIMIT).ok();
        if known
            .and_then(|text| serde_json::from_slice(&text).ok())
            .as_ref()
            == Some(&here)
        {
            return None;
        }
        // What else is wrong here, others find out and tell.
        match self.try_to_give(maps, uid, gid).ok()? {
            0 => {
                // Where this cannot be written it is tried again the next time.
                if let Ok(text) = serde_json::to_vec(&here) {
                    let _ = atomic::write(self, MEMORY, &text);
                }
                None
            }
            number => Some(format!(
                "the file system of {} gives files to nobody else ({}), as on a network; rcon --root DIRECTORY, on a \
                 local disk",
                self.root().display(),
                Why(&std::io::Error::from_raw_os_error(number))
            )),
        }
    }

    /// The error number of giving a directory away and using it nevertheless.
    fn try_to_give(&self, maps: &IdMaps, uid: u32, gid: u32) -> Result<i32> {
        let stage = Stage::new(self, "giving")?;
        let path = self.path(stage.name());
        let failed = |error| crate::Error::io("cannot try to give files away", error);
        let path =
            CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
        let exercise = || -> rustix::io::Result<()> {
            let dir = rustix::fs::openat(CWD, &path, DIRECTORY, Mode::empty())?;
            rustix::fs::mkdirat(&dir, c"given", Mode::RWXU)?;
            let inner = rustix::fs::openat(&dir, c"given", DIRECTORY, Mode::empty())?;
            rustix::fs::fchown(&inner, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            drop(rustix::fs::openat(&dir, c"given/file", flags, Mode::RUSR)?);
            rustix::fs::unlinkat(&dir, c"given/file", rustix::fs::AtFlags::empty())?;
            rustix::fs::unlinkat(&dir, c"given", rustix::fs::AtFlags::REMOVEDIR)
        };
        let ran = userns::run(maps, |out: &mut dyn Write| {
            let number = exercise().err().map_or(0, rustix::io::Errno::raw_os_error);
            i32::from(write!(out, "{number}").is_err())
        });
        let (_, said) = ran.map_err(failed)?;
        let said = String::from_utf8_lossy(&said).parse::<i32>();
        said.map_err(|_| failed(std::io::ErrorKind::InvalidData.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_has_nobody_to_give_to() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path(), &IdMaps::single()).unwrap();
        assert_eq!(store.refuses_owners(&IdMaps::single()), None);
    }
}
