//! Mounts: what users ask for (`-v`, `--mount`, `--tmpfs`) and the list a container gets.
//!
//! [`volume()`], [`mount`] and [`tmpfs()`] read one flag each, [`combine`] puts them together and refuses two mounts in one
//! place. The whole list, podman's own mounts and the user's, sorted so that a parent comes before what is below it, is made
//! by `list`. Volumes stay names here: whoever keeps volumes says where they are ([`crate::Context::volumes`]).

mod flag;
pub(crate) mod list;
mod tmpfs;
mod volume;
mod words;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::parse::clean;
use crate::{Error, ImageConfig, ImageVolumes, Options};

pub use flag::mount;
pub use tmpfs::tmpfs;
pub use volume::volume;

/// One mount a user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserMount {
    /// What is mounted.
    pub source: Source,
    /// Where: absolute, without `.`, `..` or double slashes.
    pub destination: String,
    /// OCI mount options, complete (`rw`, `rprivate`, `rbind`, …).
    pub options: Vec<String>,
    /// For volumes: fill a new volume with what the image has at the destination (`nocopy` says no).
    pub copy: bool,
    /// `U`: all of it is given to the container's user before the program runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub chown: bool,
    /// `O`: what is written goes to memory and is gone with the container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overlay: bool,
    /// `subpath`: only this file or directory of a volume or an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
}

/// What is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A file or directory of the host, absolute.
    Bind(PathBuf),
    /// A volume of that name.
    Volume(String),
    /// A volume of the container's own, removed with it.
    Anonymous,
    /// The files of an image, by its name or id.
    Image(String),
    /// Memory.
    #[default]
    Tmpfs,
}

/// A volume that must exist before the container can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeUse {
    /// Where it is mounted; also the key by which [`crate::Context::volumes`] answers.
    pub destination: String,
    /// Its name; `None` asks for an anonymous one.
    pub name: Option<String>,
    /// Whether a new volume is filled with what the image has there.
    pub copy: bool,
    /// Whether the image, not the user, asks for it.
    pub from_image: bool,
}

/// Where a volume's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeAt {
    /// In its own directory.
    Folder(PathBuf),
    /// The same, of a new volume that becomes the container's user's.
    New(PathBuf),
    /// In a directory of the host that it stands for, with mount options of its own.
    Bind(PathBuf, Vec<String>),
    /// In memory, each container's its own, with these options.
    Tmpfs(Vec<String>),
}

/// Puts the mounts of all flags together.
///
/// The same `-v` given twice counts once. The result is in the order given.
///
/// # Errors
/// podman's `X: duplicate mount destination`.
pub fn combine(
    volumes: Vec<UserMount>,
    mounts: Vec<UserMount>,
    tmpfs: Vec<UserMount>,
) -> Result<Vec<UserMount>, Error> {
    let mut all: Vec<UserMount> = Vec::new();
    for mount in mounts.into_iter().chain(volumes).chain(tmpfs) {
        match all.iter().find(|m| m.destination == mount.destination) {
            Some(other)
                if *other == mount
                    && matches!(mount.source, Source::Bind(_) | Source::Volume(_)) => {}
            Some(_) => {
                return Err(Error::value(format!(
                    "{}: duplicate mount destination",
                    mount.destination
                )));
            }
            None => all.push(mount),
        }
    }
    Ok(all)
}

/// The volumes a container needs: the user's, then the image's that no mount of the user replaces.
pub fn volumes(image: &ImageConfig, options: &Options) -> Vec<VolumeUse> {
    let users = options.mounts.iter().filter_map(|m| {
        let name = match &m.source {
            Source::Volume(name) => Some(name.clone()),
            Source::Anonymous => None,
            Source::Bind(_) | Source::Image(_) | Source::Tmpfs => return None,
        };
        Some(VolumeUse {
            destination: m.destination.clone(),
            name,
            copy: m.copy,
            from_image: false,
        })
    });
    let images = match options.image_volume {
        ImageVolumes::Anonymous => image_volumes(image, options),
        ImageVolumes::Tmpfs | ImageVolumes::Ignore => Vec::new(),
    };
    let images = images.into_iter().map(|destination| VolumeUse {
        destination,
        name: None,
        copy: true,
        from_image: true,
    });
    users.chain(images).collect()
}

/// Where the image declares volumes and the user mounts nothing.
///
/// An image may not cover what the container's isolation is built on: volumes on or below `/proc`, `/sys` and `/dev`, and on
/// the root, are left out.
fn image_volumes(image: &ImageConfig, options: &Options) -> Vec<String> {
    let mut places: Vec<String> = image.volumes.iter().map(|v| clean(v)).collect();
    places.retain(|place| {
        let reserved = ["/proc", "/sys", "/dev"].iter().any(|r| below(place, r));
        place != "/"
            && !reserved
            && !place.contains('\0')
            && options.mounts.iter().all(|m| m.destination != *place)
    });
    places.sort();
    places.dedup();
    places
}

/// Whether `path` is `parent` or below it.
fn below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || parent == "/")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn v(text: &str) -> UserMount {
        volume(text, Path::new("/cwd")).unwrap()
    }

    #[test]
    fn doubles_are_refused_unless_the_same() {
        let both = combine(vec![v("/tmp:/b"), v("/tmp:/b/")], vec![], vec![]).unwrap();
        assert_eq!(both.len(), 1);
        for (volumes, mounts, memory) in [
            (vec!["/tmp:/b", "/etc:/b"], vec![], vec![]),
            (vec!["/tmp:/b"], vec!["type=bind,src=/etc,dst=/b"], vec![]),
            (vec!["/tmp:/b"], vec![], vec!["/b"]),
            (vec!["v1:/b", "v2:/b"], vec![], vec![]),
            (vec![], vec![], vec!["/b", "/b:ro"]),
            (
                vec![],
                vec!["type=bind,src=/tmp,dst=/b", "type=tmpfs,dst=/b"],
                vec![],
            ),
        ] {
            let volumes = volumes.into_iter().map(v).collect();
            let mounts = mounts
                .into_iter()
                .map(|m| mount(m, Path::new("/cwd")).unwrap())
                .collect();
            let memory = memory.into_iter().map(|m| tmpfs(m).unwrap()).collect();
            let error = combine(volumes, mounts, memory).unwrap_err();
            assert_eq!(error.to_string(), "/b: duplicate mount destination");
        }
    }

    #[test]
    fn which_volumes_are_needed() {
        let image = ImageConfig {
            volumes: [
                "/data/", "/x", "/proc/1", "/sys", "/dev/shm", "/", "/devices",
            ]
            .map(String::from)
            .to_vec(),
            ..ImageConfig::default()
        };
        let mut options = Options {
            mounts: vec![v("named:/n:nocopy"), v("/anon"), v("/tmp:/x")],
            ..Options::default()
        };
        let shown: Vec<_> = volumes(&image, &options)
            .iter()
            .map(|u| (u.destination.clone(), u.name.clone(), u.copy, u.from_image))
            .collect();
        assert_eq!(
            shown,
            [
                ("/n".into(), Some("named".into()), false, false),
                ("/anon".into(), None, true, false),
                ("/data".into(), None, true, true),
                ("/devices".into(), None, true, true),
            ]
        );
        options.image_volume = ImageVolumes::Ignore;
        assert_eq!(volumes(&image, &options).len(), 2);
    }

    #[test]
    fn below_means_whole_names() {
        assert!(below("/dev", "/dev") && below("/dev/shm", "/dev") && below("/x", "/"));
        assert!(!below("/devices", "/dev"));
    }
}
