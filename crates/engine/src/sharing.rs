//! Whose namespaces a container lives in: `--pid`, `--ipc`, `--uts`, `--cgroupns`, and `--userns container:` and `ns:`.

use std::path::PathBuf;

use rcon_bundle::{Namespaces, Options, Share};
use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::error::{Error, Result};
use crate::record::Config;

/// Whose one namespace is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The container's own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container; by its id once the container is made.
    Container(String),
    /// The one at a path.
    Path(PathBuf),
}

impl Place {
    /// Reads the word that says it.
    ///
    /// # Errors
    /// podman's, for another word.
    pub fn parse(word: &str) -> Result<Place> {
        let (kind, rest) = word.split_once(':').unwrap_or((word, ""));
        match kind {
            "" | "private" if !word.contains(':') => Ok(Place::Private),
            "host" if !word.contains(':') => Ok(Place::Host),
            "container" if !rest.is_empty() => Ok(Place::Container(rest.to_owned())),
            "container" => Err(Error::Invalid(
                "must provide a container to join: container:NAME".into(),
            )),
            "ns" if rest.starts_with('/') => Ok(Place::Path(rest.into())),
            "ns" => Err(Error::Invalid(
                "must provide the path of a namespace to join: ns:PATH".into(),
            )),
            "pod" => Err(Error::Invalid("rcon does not support pods yet".into())),
            _ => Err(Error::Invalid(format!(
                "unrecognized namespace mode {word} passed"
            ))),
        }
    }

    /// As podman says it, a container by its id.
    pub fn text(&self) -> String {
        match self {
            Place::Private => "private".to_owned(),
            Place::Host => "host".to_owned(),
            Place::Container(id) => format!("container:{id}"),
            Place::Path(path) => format!("ns:{}", path.display()),
        }
    }

    fn share(&self) -> Share {
        match self {
            Place::Private => Share::Private,
            Place::Host => Share::Host,
            Place::Container(_) | Place::Path(_) => Share::Joined,
        }
    }

    /// Whether it is somebody's who is neither the container nor the host.
    pub fn is_joined(&self) -> bool {
        self.share() == Share::Joined
    }
}

/// Whose the namespaces of a container are, but for its network and its mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sharing {
    /// `--pid`
    pub pid: Place,
    /// `--ipc`
    pub ipc: Place,
    /// `--ipc private`: not to be joined by others.
    pub ipc_closed: bool,
    /// `--uts`
    pub uts: Place,
    /// `--cgroupns`
    pub cgroup: Place,
    /// `--userns`, as far as it is somebody's.
    pub user: Place,
}

impl Sharing {
    /// Whether the container has all to itself.
    pub fn is_default(&self) -> bool {
        *self == Sharing::default()
    }

    /// All places, with podman's names for what is there.
    pub(crate) fn places(&self) -> [(&'static str, &Place); 5] {
        [
            ("user", &self.user),
            ("pid", &self.pid),
            ("ipc", &self.ipc),
            ("uts", &self.uts),
            ("cgroup", &self.cgroup),
        ]
    }

    /// Whether any is somebody's who is neither the container nor the host.
    pub(crate) fn joins(&self) -> bool {
        self.places().iter().any(|(_, place)| place.is_joined())
    }

    /// The ids of the containers that must run for this one to be started.
    pub fn dependencies(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = Vec::new();
        for (_, place) in self.places() {
            if let Place::Container(id) = place
                && !ids.contains(&id.as_str())
            {
                ids.push(id);
            }
        }
        ids
    }
}

impl Engine {
    /// Finds the containers that are meant by their names, and tells `options`.
    ///
    /// # Errors
    /// podman's, for one that is not there, or that keeps its IPC to itself.
    pub(crate) fn share(&self, wanted: &Sharing, options: &mut Options) -> Result<Sharing> {
        let mut sharing = wanted.clone();
        for (kind, place) in [
            ("user", &mut sharing.user),
            ("pid", &mut sharing.pid),
            ("ipc", &mut sharing.ipc),
            ("uts", &mut sharing.uts),
            ("cgroup", &mut sharing.cgroup),
        ] {
            let Place::Container(name) = place else {
                continue;
            };
            let other = match self.container(name) {
                Ok(other) => other.config,
                Err(error @ Error::NoSuchContainer(_)) => {
                    return Err(Error::Invalid(format!(
                        "looking up container to share {kind} namespace with: {error}"
                    )));
                }
                Err(error) => return Err(error),
            };
            if kind == "ipc" {
                if other.sharing.ipc_closed {
                    return Err(Error::Remote {
                        message: format!(
                            "joining IPC of container {} is not allowed: non-shareable IPC",
                            other.id
                        ),
                        code: 125,
                        hint: Some("make that container with --ipc shareable".into()),
                    });
                }
                options.no_shm = other.options.no_shm;
            }
            let theirs = other
                .sharing
                .places()
                .into_iter()
                .find_map(|(name, place)| (name == kind).then(|| place.clone()));
            *place = match theirs {
                // The host's is nobody's to be joined.
                Some(Place::Host) => Place::Host,
                _ => Place::Container(other.id),
            };
        }
        if options.keep_groups && sharing.joins() {
            return Err(Error::Invalid(
                "the groups of the caller cannot be kept in the user namespace of another container"
                    .into(),
            ));
        }
        options.namespaces = Namespaces {
            pid: sharing.pid.share(),
            ipc: sharing.ipc.share(),
            uts: sharing.uts.share(),
            cgroup: sharing.cgroup.share(),
        };
        Ok(sharing)
    }

    /// What a container that shares its name with others is called by all of them.
    pub fn host_name_of(&self, config: &Config) -> String {
        if let Place::Container(id) = &config.sharing.uts
            && let Ok(other) = self.container(id)
        {
            return match other.config.sharing.uts {
                Place::Private => other
                    .config
                    .options
                    .hostname
                    .clone()
                    .filter(|name| !name.is_empty())
                    .unwrap_or_else(|| other.config.short_id().to_owned()),
                _ => self.host_name_of(&other.config),
            };
        }
        match &config.sharing.uts {
            Place::Path(_) => String::new(),
            _ => rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (word, place) in [
            ("", Place::Private),
            ("private", Place::Private),
            ("host", Place::Host),
            ("container:a", Place::Container("a".into())),
            ("ns:/proc/1/ns/pid", Place::Path("/proc/1/ns/pid".into())),
        ] {
            assert_eq!(Place::parse(word).unwrap(), place);
        }
        assert_eq!(
            Place::parse("foo").unwrap_err().to_string(),
            "unrecognized namespace mode foo passed"
        );
        for bad in [
            "container:",
            "container",
            "ns:x",
            "host:x",
            "private:",
            "pod",
        ] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn who_must_run() {
        let sharing = Sharing {
            pid: Place::Container("a".into()),
            ipc: Place::Container("a".into()),
            uts: Place::Host,
            user: Place::Path("/x".into()),
            ..Sharing::default()
        };
        assert_eq!(sharing.dependencies(), ["a"]);
        assert!(sharing.joins() && !Sharing::default().joins());
    }
}
