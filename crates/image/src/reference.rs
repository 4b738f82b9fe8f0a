//! Image names: `[registry/]repository[:tag][@digest]`.
//!
//! The grammar is that of the distribution project's reference package, the one podman and docker
//! use; messages are podman's, so that scripts which look for them go on working. A
//! [`Reference`] is always complete: a registry and a tag or digest. What a *short* name stands for
//! depends on where one looks (see [`crate::registries`] for pulling and [`crate::find_local`]).

mod grammar;

pub(crate) use grammar::is_tag;
use grammar::{is_component, is_domain, is_hex_id, is_registry_like, parse_digest};
use rcon_store::Digest;
use std::fmt;
use thiserror::Error;

/// Registry of names that name none.
pub const DOCKER_HUB: &str = "docker.io";
/// The pretended registry of images made here.
pub const LOCALHOST: &str = "localhost";
/// Longest repository name with its registry, in bytes.
const NAME_MAX: usize = 255;
/// Longest tag, in bytes.
const TAG_MAX: usize = 128;

/// Why a text is no reference.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// It does not follow the grammar.
    #[error("parsing reference {0:?}: invalid reference format")]
    Format(String),
    /// There is no name in it.
    #[error("parsing reference {0:?}: repository name must have at least one component")]
    Empty(String),
    /// Only the case is wrong.
    #[error("parsing reference {0:?}: invalid reference format: repository name must be lowercase")]
    Uppercase(String),
    /// The name is longer than any registry takes.
    #[error("parsing reference: repository name must not be more than {NAME_MAX} characters")]
    TooLong,
    /// It would be taken for an image id.
    #[error(
        "parsing reference {0:?}: invalid repository name, cannot specify 64-byte hexadecimal strings"
    )]
    LooksLikeId(String),
    /// `@` is followed by something that is no digest we know.
    #[error("parsing reference {name:?}: {why}")]
    Digest {
        /// The whole text.
        name: String,
        /// What is wrong with its digest.
        why: &'static str,
    },
    /// A transport (`dir:`, `oci-archive:` …) that is none of ours here.
    #[error("unsupported transport {0:?}: images cannot be had from there")]
    Transport(String),
}

/// A complete image name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A name as a user gives it, split by the grammar but not completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The registry, when the first component can only be one (it has a dot or a colon, or is
    /// `localhost`).
    pub registry: Option<String>,
    /// Everything after it, without tag and digest.
    pub path: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest.
    pub digest: Option<Digest>,
}

impl Given {
    /// Split `text`.
    ///
    /// # Errors
    /// When it does not follow the grammar.
    pub fn parse(text: &str) -> Result<Given, ParseError> {
        let bad = || ParseError::Format(text.to_owned());
        if text.is_empty() {
            return Err(ParseError::Empty(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(text, digest)?)),
            None => (text, None),
        };
        let slash = rest.rfind('/').map_or(0, |i| i + 1);
        let (name, tag) = match rest[slash..].find(':') {
            Some(colon) => {
                let tag = &rest[slash + colon + 1..];
                if !is_tag(tag) {
                    return Err(bad());
                }
                (&rest[..slash + colon], Some(tag.to_owned()))
            }
            None => (rest, None),
        };
        if name.is_empty() {
            return Err(bad());
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_registry_like(first) => (Some(first), path),
            _ => (None, name),
        };
        if registry.is_some_and(|r| !is_domain(r)) {
            return Err(bad());
        }
        if !path.split('/').all(is_component) {
            return Err(if path.to_ascii_lowercase().split('/').all(is_component) {
                ParseError::Uppercase(text.to_owned())
            } else {
                bad()
            });
        }
        let given = Given {
            registry: registry.map(canonical_registry),
            path: path.to_owned(),
            tag,
            digest,
        };
        // With what a short name is completed by: it is to stay a name then.
        let whole = given.at(DOCKER_HUB);
        if whole.registry.len() + 1 + whole.repository.len() > NAME_MAX {
            return Err(ParseError::TooLong);
        }
        Ok(given)
    }

    /// Is a registry still to be found?
    pub fn is_short(&self) -> bool {
        self.registry.is_none()
    }

    /// Complete it with a registry where it names none, and with `latest`.
    pub fn at(&self, registry: &str) -> Reference {
        let registry = self
            .registry
            .clone()
            .unwrap_or_else(|| canonical_registry(registry));
        let repository = if registry == DOCKER_HUB && !self.path.contains('/') {
            format!("library/{}", self.path)
        } else {
            self.path.clone()
        };
        let tag = match (&self.tag, &self.digest) {
            // With both the digest decides, and podman forgets the tag.
            (_, Some(_)) => None,
            (Some(tag), None) => Some(tag.clone()),
            (None, None) => Some("latest".to_owned()),
        };
        Reference {
            registry,
            repository,
            tag,
            digest: self.digest.clone(),
        }
    }
}

impl Reference {
    /// Parse as docker normalizes: a name without registry is on Docker Hub.
    ///
    /// # Errors
    /// When it does not follow the grammar.
    pub fn parse(text: &str) -> Result<Reference, ParseError> {
        let given = Given::parse(text)?;
        if given.is_short() && is_hex_id(text) {
            return Err(ParseError::LooksLikeId(text.to_owned()));
        }
        Ok(given.at(DOCKER_HUB))
    }

    /// Parse a name that is given to an image here (`tag`, `import`, `load`): a name without
    /// registry is under `localhost/`, as podman does it.
    ///
    /// # Errors
    /// When it does not follow the grammar.
    pub fn parse_local(text: &str) -> Result<Reference, ParseError> {
        let given = Given::parse(text)?;
        if given.is_short() && is_hex_id(text) {
            return Err(ParseError::LooksLikeId(text.to_owned()));
        }
        Ok(given.at(LOCALHOST))
    }

    /// Parse a name out of an archive: docker writes its own images without registry, and means
    /// Docker Hub; podman puts them there as well.
    pub(crate) fn parse_archived(text: &str) -> Result<Reference, ParseError> {
        Reference::parse(text)
    }

    /// `HOST[:PORT]`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `None` when there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository, under this tag.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Reference {
        Reference {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        }
    }

    /// `registry/repository@digest`.
    #[must_use]
    pub fn with_digest(&self, digest: &Digest) -> Reference {
        Reference {
            tag: None,
            digest: Some(digest.clone()),
            ..self.clone()
        }
    }

    /// The same image elsewhere: `name` is `HOST[:PORT]/path`, as in registries.conf.
    pub(crate) fn moved(&self, name: &str) -> Result<Reference, ParseError> {
        let given = Given::parse(name)?;
        let Some(registry) = given.registry else {
            return Err(ParseError::Format(name.to_owned()));
        };
        Ok(Reference {
            registry,
            repository: given.path,
            tag: self.tag.clone(),
            digest: self.digest.clone(),
        })
    }

    /// What stands after `/manifests/` in a request.
    pub(crate) fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Reference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Reference::parse(text)
    }
}

/// Docker Hub goes by several names.
pub(crate) fn canonical_registry(registry: &str) -> String {
    match registry {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        other => other.to_owned(),
    }
}

/// `docker://NAME` and `NAME` are the same; other transports are refused.
pub(crate) fn strip_transport(text: &str) -> Result<&str, ParseError> {
    if let Some(name) = text.strip_prefix("docker://") {
        return Ok(name);
    }
    const OTHERS: [&str; 8] = [
        "dir",
        "oci",
        "oci-archive",
        "docker-archive",
        "docker-daemon",
        "containers-storage",
        "ostree",
        "tarball",
    ];
    match text.split_once(':') {
        // `dir:x` is also a valid name with a tag; podman reads it as a transport, and so do we.
        Some((transport, _)) if OTHERS.contains(&transport) => {
            Err(ParseError::Transport(transport.to_owned()))
        }
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> String {
        Reference::parse(text).unwrap().to_string()
    }

    #[test]
    fn completes_names_as_docker_does() {
        let d = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        for (given, want) in [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("alpine:3.20", "docker.io/library/alpine:3.20".to_owned()),
            (
                "library/alpine",
                "docker.io/library/alpine:latest".to_owned(),
            ),
            ("user/app", "docker.io/user/app:latest".to_owned()),
            (
                "docker.io/alpine",
                "docker.io/library/alpine:latest".to_owned(),
            ),
            (
                "index.docker.io/alpine",
                "docker.io/library/alpine:latest".to_owned(),
            ),
            (
                "quay.io/libpod/banner",
                "quay.io/libpod/banner:latest".to_owned(),
            ),
            ("localhost/x", "localhost/x:latest".to_owned()),
            (
                "localhost:5000/x:T_.-1",
                "localhost:5000/x:T_.-1".to_owned(),
            ),
            ("[::1]:5000/x/y", "[::1]:5000/x/y:latest".to_owned()),
            ("h.io/a_b__c---d.e", "h.io/a_b__c---d.e:latest".to_owned()),
            ("Foo.com/x", "Foo.com/x:latest".to_owned()),
        ] {
            assert_eq!(full(given), want, "{given}");
        }
        assert_eq!(
            full(&format!("alpine@{d}")),
            format!("docker.io/library/alpine@{d}")
        );
        assert_eq!(
            full(&format!("alpine:x@{d}")),
            format!("docker.io/library/alpine@{d}")
        );
        assert_eq!(
            Reference::parse_local("web").unwrap().to_string(),
            "localhost/web:latest"
        );
    }

    #[test]
    fn refuses_what_podman_refuses() {
        let hex64 = "a".repeat(64);
        for bad in [
            "a b",
            ":x",
            "x:",
            "x@sha256:12",
            "a//b",
            "-a",
            "a/../b",
            "http://h/x",
            "foo_.com/x",
            "a/",
            "/a",
            "a___b",
            "a._b",
            "x@",
            "h:x/y",
            "é",
            "a:b:c",
            ".a",
            "x\n",
            "[::1/x",
            "h.io",
        ] {
            // `h.io` alone is a fine repository name.
            if bad == "h.io" {
                assert_eq!(full(bad), "docker.io/library/h.io:latest");
                continue;
            }
            let err = Reference::parse(bad).unwrap_err().to_string();
            assert!(err.contains("invalid reference format"), "{bad}: {err}");
        }
        let msg = |t: &str| Reference::parse(t).unwrap_err().to_string();
        assert!(msg("UPPER").contains("must be lowercase"));
        assert!(msg("h.io/Abc").contains("must be lowercase"));
        assert!(msg("").contains("at least one component"));
        assert!(msg(&hex64).contains("64-byte hexadecimal"));
        assert!(msg(&format!("x@foo:{hex64}")).contains("unsupported digest algorithm"));
        assert!(msg(&format!("x@sha256:{hex64}a")).contains("invalid checksum digest length"));
        assert!(msg(&"a".repeat(300)).contains("255"));
        // docker.io/library/ and the name.
        let longest = Reference::parse(&"a".repeat(237)).unwrap();
        assert_eq!(Reference::parse(&longest.to_string()), Ok(longest));
        assert!(msg(&"a".repeat(238)).contains("255"));
        assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
    }

    #[test]
    fn transports() {
        assert_eq!(strip_transport("docker://a.b/c").unwrap(), "a.b/c");
        assert_eq!(strip_transport("alpine:3").unwrap(), "alpine:3");
        assert!(strip_transport("oci-archive:/x.tar").is_err());
    }
}
