//! Transports in references: where an image is to be had, besides registries.
//!
//! `oci:PATH[:NAME]`, `oci-archive:PATH[:NAME]`, `docker-archive:PATH[:NAME|:@N]`, `dir:PATH`, as in
//! containers-transports(5). A path has no colon in it. `docker://` is what goes without saying.

use crate::archive::ArchiveImage;
use crate::archive::files::Files;
use crate::archive::source::Cancel;
use crate::archive::{dir, docker, oci, unpack};
use crate::policy::Policy;
use crate::{Error, Platform, Progress, Reference, Result, Source, load, work};
use rcon_store::{ImageRecord, Store};
use std::path::PathBuf;

/// The form of files that hold images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tar as `docker save` writes it.
    DockerArchive,
    /// A tar of an OCI layout.
    OciArchive,
    /// A folder with an OCI layout.
    Oci,
    /// A folder with one image's files beside each other, as skopeo writes it.
    Dir,
}

impl Kind {
    /// The transport's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::DockerArchive => "docker-archive",
            Kind::OciArchive => "oci-archive",
            Kind::Oci => "oci",
            Kind::Dir => "dir",
        }
    }
}

/// Images in files, as a user names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSource {
    /// What form they have.
    pub kind: Kind,
    /// The file or folder.
    pub path: PathBuf,
    /// Which of several: a name, or `@N` counting from 0.
    pub which: Option<String>,
}

impl LocalSource {
    /// Read `TRANSPORT:PATH…`; `None` for anything else, names of registries included.
    ///
    /// # Errors
    /// When there is no path.
    pub fn parse(text: &str) -> Result<Option<LocalSource>> {
        let Some((transport, rest)) = text.split_once(':') else {
            return Ok(None);
        };
        let kinds = [Kind::DockerArchive, Kind::OciArchive, Kind::Oci, Kind::Dir];
        let Some(kind) = kinds.into_iter().find(|k| k.name() == transport) else {
            return Ok(None);
        };
        let (path, which) = match rest.split_once(':') {
            Some((path, which)) if kind != Kind::Dir => (path, Some(which)),
            _ => (rest, None),
        };
        if path.is_empty() {
            let why = "there is no path in it";
            return Err(Error::invalid(format!("source {text:?}"), why));
        }
        Ok(Some(LocalSource {
            kind,
            path: path.into(),
            which: which.filter(|w| !w.is_empty()).map(str::to_owned),
        }))
    }

    /// Put the images into the store. Same conditions as [`crate::pull()`].
    ///
    /// # Errors
    /// Files that are not of that form, damaged, or without the image that was asked for; what the
    /// signature policy says.
    pub(crate) fn fetch(
        &self,
        store: &Store,
        policy: Option<&std::path::Path>,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<Vec<ImageRecord>> {
        let policy = Policy::load(policy)?;
        policy.check_files(self.kind.name(), &self.path, self.which.as_deref())?;
        let cancel = Cancel::default();
        work::threaded(&cancel, || {
            let files = load::open(store, &Source::Path(self.path.clone()), &cancel)?;
            let wants_folder = matches!(self.kind, Kind::Oci | Kind::Dir);
            if files.is_folder() != wants_folder {
                let kind = if wants_folder { "folder" } else { "file" };
                return Err(files.damaged(format!("{}: is for a {kind}", self.kind.name())));
            }
            let host = Platform::host();
            let platform = platform.unwrap_or(&host);
            let images = match self.kind {
                Kind::DockerArchive => docker::read(&files)?,
                Kind::Oci | Kind::OciArchive => oci::read(&files, platform)?,
                Kind::Dir => dir::read(&files)?.map(|image| vec![image]),
            };
            let images = images.ok_or_else(|| {
                files.damaged(format!("it is not what {}: stands for", self.kind.name()))
            })?;
            self.choose(&files, images)?
                .into_iter()
                .map(|image| unpack::image(store, &files, image, progress))
                .collect()
        })
    }

    fn choose(&self, files: &Files, mut images: Vec<ArchiveImage>) -> Result<Vec<ArchiveImage>> {
        let found: Vec<String> = images.iter().flat_map(|i| i.names.clone()).collect();
        if let Some(which) = &self.which {
            let name = match self.kind {
                Kind::DockerArchive => Reference::parse(which),
                _ => Reference::parse_local(which),
            };
            let name = name.map(|n| n.to_string()).ok();
            let index = which
                .strip_prefix('@')
                .and_then(|n| n.parse::<usize>().ok());
            let has = |image: &ArchiveImage| {
                image.label.as_ref() == Some(which)
                    || name.as_ref().is_some_and(|n| image.names.contains(n))
            };
            let at = match index {
                Some(index) if self.kind == Kind::DockerArchive => Some(index),
                _ => images.iter().position(has),
            };
            let Some(at) = at.filter(|&at| at < images.len()) else {
                return Err(files.damaged(format!(
                    "there is no image {which:?} in it (it has: {})",
                    if found.is_empty() {
                        "no names".to_owned()
                    } else {
                        found.join(", ")
                    }
                )));
            };
            let mut image = images.swap_remove(at);
            // It goes by the name that it was asked for by.
            if self.kind == Kind::Oci {
                image.names = Vec::from_iter(name);
            } else if let Some(name) = name.filter(|n| image.names.contains(n)) {
                image.names = vec![name];
            }
            return Ok(vec![image]);
        }
        if images.len() > 1 && self.kind != Kind::DockerArchive {
            return Err(files.damaged(format!(
                "there are {} images in it: say which ({}:PATH:NAME; it has: {})",
                images.len(),
                self.kind.name(),
                found.join(", ")
            )));
        }
        if self.kind == Kind::Oci {
            for image in &mut images {
                image.names.clear();
            }
        }
        Ok(images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let parse = |text: &str| LocalSource::parse(text).unwrap();
        let of = |kind, path: &str, which: Option<&str>| {
            Some(LocalSource {
                kind,
                path: path.into(),
                which: which.map(str::to_owned),
            })
        };
        assert_eq!(parse("oci:/a/b"), of(Kind::Oci, "/a/b", None));
        assert_eq!(parse("oci:/a:x:1"), of(Kind::Oci, "/a", Some("x:1")));
        assert_eq!(parse("dir:/a:b"), of(Kind::Dir, "/a:b", None));
        assert_eq!(
            parse("docker-archive:a.tar:@2"),
            of(Kind::DockerArchive, "a.tar", Some("@2"))
        );
        assert_eq!(
            parse("oci-archive:a.tar:"),
            of(Kind::OciArchive, "a.tar", None)
        );
        for name in [
            "alpine",
            "docker://alpine",
            "localhost:5000/x",
            "oci/x",
            "containers-storage:x",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
        LocalSource::parse("oci::x").unwrap_err();
    }
}
