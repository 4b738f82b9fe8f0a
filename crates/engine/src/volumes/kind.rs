//! Volumes that are not directories of their own (`volume create --opt`): memory, or a directory of the host; and volumes with
//! an owner from the beginning.
//!
//! The options are those of mount(8) as podman's local driver takes them: `type`, `device` and `o`. An ordinary user can
//! mount memory and what can be reached already; everything else takes the machine's root, and is refused when the volume is
//! made, not when somebody needs it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rcon_bundle::VolumeAt;
use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::Volume;
use crate::Engine;
use crate::error::{Context, Error, Result};
use crate::files::{self, Durable};
use crate::record::Config;
use crate::records::Lock;

/// Refuses options that cannot be had.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<()> {
    let bad = |message: String| Err(Error::Invalid(message));
    for key in options.keys() {
        if !["type", "device", "o"].contains(&key.as_str()) {
            return bad(format!(
                "invalid mount option {key} for driver 'local': invalid option provided"
            ));
        }
    }
    let volume = Given(options);
    for (name, value) in volume.own() {
        let known = match name {
            "uid" | "gid" => value.is_some_and(|v| v.parse::<u32>().is_ok()),
            "nocopy" => value.is_none(),
            _ => {
                return bad(format!(
                    "volume option {name:?} needs a quota on the file system, which an ordinary user cannot set"
                ));
            }
        };
        if !known {
            return bad(format!(
                "cannot convert volume option {name}={:?} to a number",
                value.unwrap_or_default()
            ));
        }
    }
    match (volume.kind(), volume.device()) {
        (Kind::Own | Kind::Tmpfs, _) => Ok(()),
        (Kind::Bind, Some(device)) if device.starts_with('/') => Ok(()),
        (Kind::Bind, Some(device)) => bad(format!(
            "invalid device {device:?}: a bind needs an absolute path"
        )),
        (Kind::Bind, None) => bad("a volume that is a bind needs a device=PATH".into()),
        (Kind::Other(kind), _) => Err(Error::Remote {
            message: format!(
                "volumes of type {kind:?} are not supported: only the machine's root can mount them"
            ),
            code: 125,
            hint: Some(
                "have it mounted on the host, and bind that directory: --opt type=none --opt o=bind --opt device=PATH"
                    .into(),
            ),
        }),
    }
}

enum Kind {
    Own,
    Tmpfs,
    Bind,
    Other(String),
}

/// The options of a volume, looked at.
struct Given<'a>(&'a BTreeMap<String, String>);

impl<'a> Given<'a> {
    fn kind(&self) -> Kind {
        let binds = self.words().any(|w| w == "bind" || w == "rbind");
        match self.0.get("type").map_or("", String::as_str) {
            "tmpfs" => Kind::Tmpfs,
            "bind" => Kind::Bind,
            "" | "none" if binds => Kind::Bind,
            "" if self.device().is_none() => Kind::Own,
            other => Kind::Other(other.to_string()),
        }
    }

    fn device(&self) -> Option<&'a str> {
        self.0.get("device").map(String::as_str)
    }

    fn words(&self) -> impl Iterator<Item = &'a str> {
        let all = self.0.get("o").map_or("", String::as_str);
        all.split(',').filter(|word| !word.is_empty())
    }

    /// The words that are about the volume, not for the kernel; of memory the kernel takes owner and size itself.
    fn own(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let tmpfs = matches!(self.kind(), Kind::Tmpfs);
        self.words().filter_map(move |word| {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            let own = match name {
                "nocopy" => true,
                "uid" | "gid" | "size" | "inodes" => !tmpfs,
                _ => false,
            };
            own.then_some((name, value))
        })
    }

    fn for_mounting(&self) -> Vec<String> {
        let own: Vec<&str> = self.own().map(|(name, _)| name).collect();
        let words = self.words().filter(|word| {
            let name = word.split('=').next().unwrap_or_default();
            !own.contains(&name)
        });
        words.map(str::to_string).collect()
    }

    fn number(&self, wanted: &str) -> Option<u32> {
        let mut own = self.own();
        own.find(|(name, _)| *name == wanted)?.1?.parse().ok()
    }
}

impl Volume {
    /// Whether its files are not in its own directory.
    pub(super) fn is_elsewhere(&self) -> bool {
        !matches!(Given(&self.options).kind(), Kind::Own)
    }

    /// Whether it is not filled with what an image has.
    pub(super) fn is_given(&self) -> bool {
        Given(&self.options).own().any(|(name, _)| name == "nocopy")
    }

    /// The owner it was made for.
    pub fn owner(&self) -> Option<(u32, u32)> {
        let given = Given(&self.options);
        match (given.number("uid"), given.number("gid")) {
            (None, None) => None,
            (uid, gid) => Some((uid.unwrap_or(0), gid.unwrap_or(0))),
        }
    }
}

impl Engine {
    /// Where the files of a volume are, for a mount.
    pub(crate) fn volume_at(&self, name: &str) -> Result<VolumeAt> {
        let record: Option<Volume> = files::read(&self.volume_dir(name).join("volume.json"))?;
        let folder = self.volume_data(name);
        let volume = match record {
            Some(volume) if volume.unowned => return Ok(VolumeAt::New(folder)),
            Some(volume) if !volume.options.is_empty() => volume,
            _ => return Ok(VolumeAt::Folder(folder)),
        };
        let given = Given(&volume.options);
        Ok(match (given.kind(), given.device()) {
            (Kind::Tmpfs, _) => VolumeAt::Tmpfs(given.for_mounting()),
            (Kind::Bind, Some(device)) => {
                let device = PathBuf::from(device);
                if let Err(error) = std::fs::metadata(&device) {
                    return Err(Error::Invalid(format!(
                        "mounting volume {name}: {}: {}",
                        device.display(),
                        rcon_sys::errors::in_words(&error)
                    )));
                }
                VolumeAt::Bind(device, given.for_mounting())
            }
            _ => VolumeAt::Folder(folder),
        })
    }

    /// The directory that has the files of a volume.
    ///
    /// # Errors
    /// For one in memory: it has files only while a container runs.
    pub fn volume_files(&self, volume: &Volume) -> Result<PathBuf> {
        match self.volume_at(&volume.name)? {
            VolumeAt::Folder(path) | VolumeAt::New(path) | VolumeAt::Bind(path, _) => Ok(path),
            VolumeAt::Tmpfs(_) => Err(Error::Invalid(format!(
                "volume {} is memory: it has files only while a container runs",
                volume.name
            ))),
        }
    }

    /// Notes that new volumes have become those of a container's user, which has been started.
    pub(crate) fn note_owned(&self, config: &Config) -> Result<()> {
        for used in &config.volumes {
            let dir = self.volume_dir(&used.name);
            let unowned = || -> Result<Option<Volume>> {
                let volume = files::read::<Volume>(&dir.join("volume.json"))?;
                Ok(volume.filter(|volume| volume.unowned))
            };
            if unowned()?.is_none() {
                continue;
            }
            // Others may be started with it just now.
            let _lock = Lock::take(&dir)?;
            if let Some(volume) = unowned()? {
                let owned = Volume {
                    unowned: false,
                    ..volume
                };
                let durable = match owned.anonymous {
                    true => Durable::No,
                    false => Durable::Yes,
                };
                files::replace(&dir, "volume.json", &owned, durable)?;
            }
        }
        Ok(())
    }

    /// Gives a new volume to the owner it is made for.
    pub(super) fn give_volume(&self, volume: &Volume) -> Result<()> {
        let Some((uid, gid)) = volume.owner() else {
            return Ok(());
        };
        let data = self.volume_data(&volume.name);
        if self.maps.is_single() {
            let note = rcon_sys::owner::TrueOwner::new(uid, gid).encode();
            let flags = rustix::fs::XattrFlags::empty();
            return rustix::fs::setxattr(&data, rcon_sys::owner::TRUE_OWNER, &note, flags)
                .on("change", &data);
        }
        self.in_worker(|_| -> Result<()> {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = rustix::fs::open(&data, flags, Mode::empty()).on("open", &data)?;
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(&dir, Some(uid), Some(gid)).on("change the owner of", &data)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split(';').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn what_an_ordinary_user_can_mount() {
        for good in [
            "",
            "type=tmpfs;device=tmpfs;o=size=1m,uid=5",
            "type=none;o=bind;device=/srv",
            "o=rbind,ro;device=/srv",
            "type=bind;device=/srv",
            "o=uid=5,gid=6",
            "o=nocopy",
        ] {
            check(&options(good)).unwrap();
        }
        for (bad, message) in [
            ("x=1", "invalid mount option x for driver 'local'"),
            ("type=nfs;device=h:/x", "volumes of type \"nfs\""),
            ("type=ext4;device=/dev/sda", "volumes of type \"ext4\""),
            ("type=bind", "a volume that is a bind needs"),
            ("o=bind;device=srv", "invalid device \"srv\""),
            ("o=size=1m", "volume option \"size\" needs a quota"),
            ("o=uid=x", "cannot convert volume option uid"),
        ] {
            let error = check(&options(bad)).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        let given = options("type=tmpfs;o=size=1m,uid=5,nocopy");
        assert_eq!(Given(&given).for_mounting(), ["size=1m", "uid=5"]);
    }
}
