//! A lowest layer for all containers: the empty places that things are mounted on in every one of them.
//!
//! An image need not have `/etc/resolv.conf`. Were its place made when a container is mounted, each
//! container would begin with the making of some files and end with their removal.

use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags, chmodat, mkdirat, openat, statat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::stage::Stage;
use crate::store::Store;

/// Where it is; another set of places gets another name.
const PATH: &str = "places-1";
const FOLDERS: [&str; 5] = ["dev", "etc", "proc", "run", "sys"];

impl Store {
    /// The files that are in it, as paths in a container.
    pub const PLACES: [&str; 4] = [
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/run/.containerenv",
    ];

    /// The layer, made when it is first asked for.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn places(&self) -> Result<PathBuf> {
        let step = || format!("cannot make {}", self.path(PATH).display());
        match statat(self.dir(), PATH, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => return Ok(self.path(PATH)),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(Error::io(step(), error)),
        }
        let mut stage = Stage::new(self, "places")?;
        for folder in FOLDERS {
            mkdirat(stage.dir(), folder, Mode::RWXU).context(step)?;
            // Whatever our caller's mask is.
            chmodat(
                stage.dir(),
                folder,
                Mode::from_raw_mode(0o755),
                AtFlags::empty(),
            )
            .context(step)?;
        }
        for file in Self::PLACES {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            openat(stage.dir(), &file[1..], flags, Mode::RUSR | Mode::WUSR).context(step)?;
        }
        rustix::fs::fchmod(stage.dir(), Mode::from_raw_mode(0o755)).context(step)?;
        match stage.publish(PATH) {
            // Another was faster.
            Ok(_) | Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(self.path(PATH)),
            Err(error) => Err(Error::io(step(), error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcon_sys::ids::IdMaps;

    use super::*;

    #[test]
    fn they_are_made_once() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path(), &IdMaps::single()).unwrap();
        let first = store.places().unwrap();
        assert_eq!(store.places().unwrap(), first);
        for place in Store::PLACES {
            let file = first.join(&place[1..]);
            assert_eq!(file.metadata().unwrap().len(), 0, "{place}");
        }
        assert!(!store.has_unfinished());
    }
}
