//! What can go wrong, in words; and for what the user can mend, how.

use crate::Platform;
use crate::reference::ParseError;
use rcon_store::Digest;
use rcon_sys::errors::in_words;
use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name is none.
    #[error(transparent)]
    Reference(#[from] ParseError),
    /// Nothing could be pulled from this source.
    #[error("initializing source docker://{reference}: {error}")]
    Source {
        /// The full reference.
        reference: String,
        /// Why.
        error: Box<Error>,
    },
    /// Nothing could be pushed to this destination.
    #[error("copying image to {destination}: {error}")]
    Target {
        /// With its transport.
        destination: String,
        /// Why.
        error: Box<Error>,
    },
    /// A short name stood for several sources, and none worked.
    #[error("{} errors occurred while pulling:{}", .0.len(), list(.0))]
    Several(Vec<Error>),
    /// The registry does not answer as one.
    #[error("pinging container registry {registry}: {cause}")]
    Ping {
        /// `HOST[:PORT]`.
        registry: String,
        /// What happened.
        cause: Failure,
    },
    /// A request failed on its way.
    #[error("{what}: {cause}")]
    Transport {
        /// What was being done.
        what: String,
        /// What happened.
        cause: Failure,
    },
    /// The registry wants credentials, or refuses those it got.
    #[error("{what}: unauthorized: {message}")]
    Unauthorized {
        /// What was being done.
        what: String,
        /// What the registry says about it.
        message: String,
        /// Did we send credentials?
        had_credentials: bool,
        /// The registry.
        registry: String,
    },
    /// `login` with a wrong user or password.
    #[error("logging into {registry:?}: invalid username/password")]
    WrongPassword {
        /// The registry.
        registry: String,
    },
    /// The registry answered with an error.
    #[error("{what}: {message}")]
    Refused {
        /// What was being done.
        what: String,
        /// HTTP status.
        status: u16,
        /// Its code and message, or the status in words.
        message: String,
        /// When it wants to be asked again (Retry-After).
        after: Option<std::time::Duration>,
    },
    /// The repository or the tag does not exist (or is kept from us).
    #[error("reading manifest {selector} in {name}: {message}")]
    ManifestUnknown {
        /// Tag or digest.
        selector: String,
        /// `registry/repository`.
        name: String,
        /// `manifest unknown`, `name unknown`, …
        message: String,
    },
    /// Content is not what its digest promises.
    #[error("{what}: digest mismatch: expected {expected}, got {actual}")]
    DigestMismatch {
        /// What it is.
        what: String,
        /// The digest wanted.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// Content is not as long as announced.
    #[error("{what}: expected {expected} bytes, got {actual}")]
    SizeMismatch {
        /// What it is.
        what: String,
        /// Announced.
        expected: u64,
        /// Received (or the least it would be).
        actual: u64,
    },
    /// Larger than we accept to hold in memory.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What it is.
        what: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A manifest, index or configuration that says nonsense.
    #[error("{what}: {why}")]
    Invalid {
        /// What it is.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// Something known that we do not do.
    #[error("{0}")]
    Unsupported(String),
    /// policy.json does not allow the image.
    #[error("source image rejected: image {image} {why} ({})", .file.display())]
    Policy {
        /// The image with its transport.
        image: String,
        /// The policy.
        file: PathBuf,
        /// What it says.
        why: String,
    },
    /// An index without an entry for the platform.
    #[error(
        "choosing an image from manifest list {name}: no image found in manifest list for platform {wanted} (it has: {})",
        join(.found)
    )]
    NoPlatform {
        /// The full reference.
        name: String,
        /// What was wanted.
        wanted: Platform,
        /// What there is.
        found: Vec<Platform>,
    },
    /// A layer could not be fetched or unpacked.
    #[error("copying layer {digest}: {error}")]
    Layer {
        /// The blob.
        digest: Digest,
        /// Why.
        error: Box<Error>,
    },
    /// A short name with no registry to look in.
    #[error("short-name {name:?} did not resolve to an alias and {why}")]
    ShortName {
        /// The name.
        name: String,
        /// Why there is no registry for it.
        why: String,
    },
    /// A short name that several images in the store have.
    #[error("the name {name:?} fits several images: {}", .found.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// Their full names.
        found: Vec<String>,
    },
    /// registries.conf forbids the registry.
    #[error("registry {0} is blocked in registries.conf")]
    Blocked(String),
    /// A configuration file that cannot be used.
    #[error("{}: {why}", .file.display())]
    ConfigFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Certificates or keys that cannot be used.
    #[error("TLS set-up: {0}")]
    Tls(String),
    /// A credential helper failed.
    #[error("credential helper docker-credential-{helper}: {why}")]
    Helper {
        /// Its name without the prefix.
        helper: String,
        /// What it said.
        why: String,
    },
    /// `logout` of a registry we are not logged in to.
    #[error("not logged into {0}")]
    NotLoggedIn(String),
    /// An archive that is none of the known forms, or damaged.
    #[error("loading {archive}: {why}")]
    Archive {
        /// What was loaded.
        archive: String,
        /// What is wrong.
        why: String,
    },
    /// A `--change` that is none.
    #[error("invalid change {change:?}: {why}")]
    Change {
        /// The text given.
        change: String,
        /// What is wrong.
        why: String,
    },
    /// A file operation failed.
    #[error("{what}: {}", in_words(.source))]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] rcon_store::Error),
    /// SIGINT or SIGTERM came; nothing is left behind.
    #[error("interrupted")]
    Interrupted,
}

/// Why a request did not get an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody listens.
    #[error("connection refused ({url})")]
    ConnectionRefused {
        /// The URL asked for.
        url: String,
    },
    /// The name is unknown.
    #[error("lookup {host}: {why}")]
    Lookup {
        /// The host name.
        host: String,
        /// `no such host`, or why we do not know.
        why: String,
    },
    /// No way there.
    #[error("{why} ({url})")]
    Unreachable {
        /// The URL asked for.
        url: String,
        /// In words.
        why: String,
    },
    /// It took too long.
    #[error("timed out waiting for {url}")]
    TimedOut {
        /// The URL asked for.
        url: String,
    },
    /// The connection was cut.
    #[error("connection lost ({url}): {why}")]
    Lost {
        /// The URL asked for.
        url: String,
        /// In words.
        why: String,
    },
    /// The certificate is not to be trusted.
    #[error("tls: failed to verify certificate: {why} ({url})")]
    Certificate {
        /// The URL asked for.
        url: String,
        /// In words.
        why: String,
        /// Is there any authority we trust?
        no_roots: bool,
    },
    /// TLS failed otherwise.
    #[error("tls: {why} ({url})")]
    Tls {
        /// The URL asked for.
        url: String,
        /// In words.
        why: String,
        /// The other side does not speak TLS at all.
        plain: bool,
    },
    /// It answered, but not as a registry.
    #[error("{why} ({url})")]
    Answer {
        /// The URL asked for.
        url: String,
        /// In words.
        why: String,
    },
}

impl Failure {
    /// Could the same request work in a moment?
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            Failure::TimedOut { .. } | Failure::Lost { .. } | Failure::Unreachable { .. }
        )
    }
}

impl Error {
    /// What the user could do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Source { error, .. }
            | Error::Target { error, .. }
            | Error::Layer { error, .. } => error.hint(),
            Error::Several(errors) => errors.iter().find_map(Error::hint),
            Error::Ping { registry, cause } => match cause {
                Failure::Certificate { no_roots: true, .. } => Some(
                    "this machine has no certificate authorities: install ca-certificates, or set \
                     SSL_CERT_FILE"
                        .to_owned(),
                ),
                Failure::Certificate { .. } => Some(format!(
                    "put the authority's certificate in ~/.config/containers/certs.d/{registry}/ca.crt, \
                     or name a folder of certificates with --cert-dir"
                )),
                Failure::Tls { plain: true, .. } => Some(format!(
                    "{registry} speaks plain HTTP: if you trust the network in between, give \
                     --tls-verify=false"
                )),
                Failure::ConnectionRefused { .. } => {
                    Some(format!("is a registry running at {registry}?"))
                }
                Failure::Lookup { .. } => {
                    Some("check the registry's name and /etc/resolv.conf".to_owned())
                }
                _ => None,
            },
            Error::Unauthorized {
                had_credentials,
                registry,
                ..
            } => Some(if *had_credentials {
                format!(
                    "the stored credentials are not accepted: log in again with `rcon login {registry}`"
                )
            } else {
                format!("log in with `rcon login {registry}`")
            }),
            Error::ManifestUnknown { name, .. } => Some(format!(
                "check the name and the tag; if {name} is private, log in first"
            )),
            Error::NoPlatform { .. } => Some("choose one of these with --platform".to_owned()),
            Error::ShortName { .. } | Error::Ambiguous { .. } => {
                Some("name the image in full: REGISTRY/NAME:TAG".to_owned())
            }
            Error::Reference(ParseError::Uppercase(name)) => {
                Some(format!("try {:?}", name.to_lowercase()))
            }
            Error::Reference(ParseError::Transport(t)) => Some(match t.as_str() {
                "containers-storage" => {
                    "rcon has a store of its own: `podman save NAME | rcon load` brings images over"
                        .to_owned()
                }
                "docker-daemon" => {
                    "rcon asks no daemon: `docker save NAME | rcon load` brings images over".to_owned()
                }
                _ => "known are docker:, docker-archive:, oci:, oci-archive: and dir:".to_owned(),
            }),
            Error::Policy { why, .. } if why.contains("signed") => Some(
                "check the signature with podman or skopeo, or allow the image without one in the policy"
                    .to_owned(),
            ),
            Error::Store(error) => error.hint(),
            _ => None,
        }
    }

    /// For `map_err` on file operations.
    pub(crate) fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let what = format!("{what} {}", path.display());
        move |source| Error::Io { what, source }
    }

    /// Something is malformed.
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Invalid {
            what: what.into(),
            why: why.into(),
        }
    }
}

fn list(errors: &[Error]) -> String {
    errors.iter().map(|e| format!("\n * {e}")).collect()
}

fn join(platforms: &[Platform]) -> String {
    let all: Vec<String> = platforms.iter().map(Platform::to_string).collect();
    all.join(", ")
}
