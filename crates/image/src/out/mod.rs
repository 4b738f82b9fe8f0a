//! Images on their way out: to a registry, into an archive, into a folder.
//!
//! | file | what |
//! |---|---|
//! | `image` | what there is to send, and the manifest it gets |
//! | `pack` | layers made again and compressed, on all cores |
//! | `place` | an archive or a folder that files are put into |
//! | `write` | docker-archive, OCI layout and `dir:`, made of such files |
//!
//! The store keeps trees. A layer's archive is made again of its tree, bit for bit
//! ([`rcon_store::LayerHold::write_archive`]), so an image keeps its configuration and with it its
//! id wherever it goes. Its manifest stays the same as well if all compressed layers that it names
//! can be had at the destination; else it gets a new one, for layers that are compressed anew.
//! That is done in blocks of fixed size and so gives the same bytes each time: what was pushed once
//! is found by its digest the next time.

pub(crate) mod image;
pub(crate) mod pack;
pub(crate) mod place;
pub(crate) mod write;

use crate::reference::strip_transport;
use crate::{Error, Reference, Result};
use std::path::PathBuf;

/// Which family of manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The OCI image specification's.
    Oci,
    /// Docker's, version 2, schema 2.
    Docker,
}

/// Where an archive goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// A file, which is replaced when the archive is whole.
    Path(PathBuf),
}

/// Where an image goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `docker://NAME`, or a name without transport.
    Registry(Reference),
    /// `docker-archive:FILE[:NAME]`.
    DockerArchive(Output, Option<Reference>),
    /// `oci-archive:FILE[:NAME]`.
    OciArchive(Output, Option<String>),
    /// `oci:FOLDER[:NAME]`.
    Oci(PathBuf, Option<String>),
    /// `dir:FOLDER`.
    Dir(PathBuf),
}

impl Destination {
    /// Read a destination as `podman push` takes it.
    ///
    /// # Errors
    /// A name that is none, or a transport that is not supported.
    pub fn parse(text: &str) -> Result<Destination> {
        let (transport, rest) = text.split_once(':').unwrap_or(("", text));
        if !matches!(transport, "docker-archive" | "oci-archive" | "oci" | "dir") {
            return Ok(Destination::Registry(Reference::parse(strip_transport(
                text,
            )?)?));
        }
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) if transport != "dir" => {
                (path, Some(name).filter(|n| !n.is_empty()))
            }
            _ => (rest, None),
        };
        if path.is_empty() {
            let why = "there is no path in it";
            return Err(Error::invalid(format!("destination {text:?}"), why));
        }
        let path = PathBuf::from(path);
        let owned = name.map(str::to_owned);
        Ok(match transport {
            "docker-archive" => {
                let name = name.map(Reference::parse).transpose()?;
                Destination::DockerArchive(Output::Path(path), name)
            }
            "oci-archive" => Destination::OciArchive(Output::Path(path), owned),
            "oci" => Destination::Oci(path, owned),
            _ => Destination::Dir(path),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let parse = |text: &str| Destination::parse(text).unwrap();
        let name = |text: &str| Reference::parse(text).unwrap();
        let full = "localhost:5000/a/b:c";
        assert_eq!(parse(full), Destination::Registry(name(full)));
        assert_eq!(
            parse("docker://localhost:5000/a"),
            Destination::Registry(name("localhost:5000/a:latest"))
        );
        assert_eq!(parse("dir:/a:b"), Destination::Dir("/a:b".into()));
        assert_eq!(parse("oci:/a"), Destination::Oci("/a".into(), None));
        assert_eq!(
            parse("oci-archive:a.tar:q.io/x:1"),
            Destination::OciArchive(Output::Path("a.tar".into()), Some("q.io/x:1".into()))
        );
        assert_eq!(
            parse("docker-archive:a.tar:x"),
            Destination::DockerArchive(Output::Path("a.tar".into()), Some(name("x")))
        );
        for bad in [
            "oci:",
            "dir:",
            "containers-storage:x",
            "UPPER",
            "docker-archive:a:B",
        ] {
            assert!(Destination::parse(bad).is_err(), "{bad}");
        }
    }
}
