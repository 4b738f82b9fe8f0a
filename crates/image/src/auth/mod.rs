//! Credentials for registries: where they are kept, `login` and `logout`.
//!
//! The files are those of podman, buildah, skopeo and docker (containers-auth.json(5)). With
//! `--authfile` or `REGISTRY_AUTH_FILE` it is that one alone; else, in this order,
//!
//! 1. `${XDG_RUNTIME_DIR}/containers/auth.json` (without that variable `/run/user/UID` or
//!    `/run/containers/UID`),
//! 2. `~/.config/containers/auth.json`,
//! 3. `~/.docker/config.json` (or where `DOCKER_CONFIG` says).
//!
//! Each may name credential helpers (`docker-credential-NAME`), which are run. `login` writes the
//! first; where there is no runtime folder to write to, the second.

mod file;
mod helper;

use crate::registries::Registries;
use crate::registry::{Client, Settings};
use crate::{Error, Result, Silent, work};
use file::{AuthFile, normalize};
use rcon_sys::passwd::{config_dir, home_dir};
use std::path::PathBuf;
use std::sync::OnceLock;

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
pub fn login(registry: &str, user: &str, password: &str, opts: &AuthOptions) -> Result<()> {
    let key = key_of(registry)?;
    let host = host_of(&key);
    let settings = Settings {
        tls_verify: opts.tls_verify,
        insecure: Registries::load()?.is_insecure(host),
        cert_dir: opts.cert_dir.clone(),
        credentials: Some(Credentials::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        }),
        ..Settings::default()
    };
    work::run(async {
        let client = Client::connect(host, None, &settings, &Silent).await?;
        client.check_credentials().await
    })?;
    let path = file_to_write(opts)?;
    match AuthFile::read(&path)?.helper_of(host) {
        // It is asked for a host, and would never be asked for this.
        Some(name) if key != host => Err(Error::Helper {
            helper: name.to_owned(),
            why: "it keeps credentials of whole registries only".to_owned(),
        }),
        Some(name) => helper::store(name, &key, user, password),
        None => file::set(&path, &key, user, password),
    }
}

/// Forget the credentials of one registry. `Ok(false)` when there were none.
///
/// # Errors
/// The file cannot be read or written, a credential helper fails.
pub fn logout(registry: &str, opts: &AuthOptions) -> Result<bool> {
    let key = key_of(registry)?;
    let path = file_to_write(opts)?;
    if !path.exists() {
        return Ok(false);
    }
    match AuthFile::read(&path)?.helper_of(host_of(&key)) {
        Some(name) => helper::erase(name, &key),
        None => file::remove(&path, &key),
    }
}

/// Forget all credentials in the file we write (`logout --all`).
///
/// # Errors
/// As [`logout`].
pub fn logout_all(opts: &AuthOptions) -> Result<()> {
    let path = file_to_write(opts)?;
    if !path.exists() {
        return Ok(());
    }
    file::remove_all(&path)
}

/// The credentials that would be used for `scope`: a registry, or `registry/namespace/repository`
/// (the longest stored prefix wins). `login --get-login` prints the user.
///
/// # Errors
/// A file that is there but cannot be read or understood, a helper that fails.
pub fn lookup(scope: &str, opts: &AuthOptions) -> Result<Option<Credentials>> {
    let key = normalize(scope);
    let named = opts.authfile.clone().or_else(named_by_environment);
    let files = match named {
        Some(file) => vec![file],
        None => usual_files(),
    };
    let registries = Registries::load()?;
    let configured = registries.credential_helpers();
    if configured.is_empty() {
        return in_files(&files, &key);
    }
    for name in configured {
        let found = match name.as_str() {
            "containers-auth.json" => in_files(&files, &key)?,
            name => ask_helper(name, host_of(&key))?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The registry that `login` and `logout` without an argument mean: the first of
/// `unqualified-search-registries`, else `docker.io`.
pub fn default_registry() -> String {
    crate::registries::default_registry()
}

fn in_files(files: &[PathBuf], key: &str) -> Result<Option<Credentials>> {
    for path in files {
        let file = AuthFile::read(path)?;
        if let Some(name) = file.helper_of(host_of(key))
            && let Some(found) = ask_helper(name, host_of(key))?
        {
            return Ok(Some(found));
        }
        let mut prefix = key;
        loop {
            if let Some(found) = file.get(prefix)? {
                return Ok(Some(found));
            }
            match prefix.rfind('/') {
                Some(end) => prefix = &prefix[..end],
                None => break,
            }
        }
        if let Some(name) = file.general_helper()
            && let Some(found) = ask_helper(name, host_of(key))?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Docker keeps Docker Hub under the address it had first.
fn ask_helper(name: &str, host: &str) -> Result<Option<Credentials>> {
    match helper::get(name, host)? {
        None if host == crate::reference::DOCKER_HUB => {
            helper::get(name, "https://index.docker.io/v1/")
        }
        found => Ok(found),
    }
}

fn key_of(registry: &str) -> Result<String> {
    let key = normalize(registry.trim());
    // A registry, perhaps with a name space: that is a name with nothing but a path below it.
    let probe = format!("{key}/x");
    let valid = crate::reference::Given::parse(&probe)
        .is_ok_and(|g| g.tag.is_none() && g.digest.is_none())
        && !key.is_empty();
    if valid {
        Ok(key)
    } else {
        Err(Error::invalid(
            format!("registry {registry:?}"),
            "this is no name of a registry",
        ))
    }
}

fn host_of(key: &str) -> &str {
    key.split('/').next().unwrap_or(key)
}

fn named_by_environment() -> Option<PathBuf> {
    std::env::var_os("REGISTRY_AUTH_FILE")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
}

static DOCKER_CONFIG: OnceLock<PathBuf> = OnceLock::new();

/// Says where Docker's `config.json` is, instead of `DOCKER_CONFIG` (`--config`). The first word holds.
pub fn set_docker_config(folder: PathBuf) {
    let _ = DOCKER_CONFIG.set(folder);
}

fn file_to_write(opts: &AuthOptions) -> Result<PathBuf> {
    if let Some(named) = opts.authfile.clone().or_else(named_by_environment) {
        return Ok(named);
    }
    runtime_file()
        .or_else(|| Some(config_dir()?.join("containers/auth.json")))
        .ok_or_else(|| {
            Error::Unsupported(
                "there is no place to keep credentials: neither XDG_RUNTIME_DIR nor HOME is set"
                    .to_owned(),
            )
        })
}

fn usual_files() -> Vec<PathBuf> {
    let mut files = Vec::from_iter(runtime_file());
    files.extend(config_dir().map(|d| d.join("containers/auth.json")));
    let docker = DOCKER_CONFIG
        .get()
        .cloned()
        .or_else(|| std::env::var_os("DOCKER_CONFIG").map(PathBuf::from))
        .filter(|dir| !dir.as_os_str().is_empty())
        .or_else(|| Some(home_dir()?.join(".docker")));
    files.extend(docker.map(|d| d.join("config.json")));
    files
}

/// The file that lives as long as the session.
fn runtime_file() -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
        && dir.is_dir()
    {
        return Some(dir.join("containers/auth.json"));
    }
    let uid = outer_uid()?;
    let session = PathBuf::from(format!("/run/user/{uid}"));
    if uid != 0 && session.is_dir() {
        return Some(session.join("containers/auth.json"));
    }
    (uid == 0).then(|| PathBuf::from("/run/containers/0/auth.json"))
}

/// Who we are outside the user namespace we may be working in.
fn outer_uid() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("Uid:"))?;
    let uid: u32 = line.split_ascii_whitespace().next()?.parse().ok()?;
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    map.lines().find_map(|line| {
        let numbers: Vec<u32> = line
            .split_ascii_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        let [inside, outside, count] = numbers[..] else {
            return None;
        };
        let offset = uid.checked_sub(inside)?;
        (offset < count).then(|| outside.checked_add(offset))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        for (key, user) in [
            ("r.io", "all"),
            ("r.io/team", "team"),
            ("r.io/team/app", "app"),
        ] {
            file::set(&path, key, user, "pw").unwrap();
        }
        let opts = AuthOptions {
            authfile: Some(path),
            ..AuthOptions::default()
        };
        let user = |scope: &str| match lookup(scope, &opts).unwrap() {
            Some(Credentials::Basic { user, .. }) => user,
            other => format!("{other:?}"),
        };
        assert_eq!(user("r.io/x/y"), "all");
        assert_eq!(user("r.io"), "all");
        assert_eq!(user("r.io/team/other"), "team");
        assert_eq!(user("r.io/team/app"), "app");
        assert_eq!(user("r.io/teams"), "all");
        assert_eq!(user("q.io"), "None");
    }

    #[test]
    fn registries_to_log_in_to() {
        assert_eq!(key_of("https://r.io/v2/").unwrap(), "r.io");
        assert_eq!(key_of("localhost:5000").unwrap(), "localhost:5000");
        assert_eq!(key_of("r.io/team").unwrap(), "r.io/team");
        assert_eq!(key_of("docker.io").unwrap(), "docker.io");
        for bad in ["", "a b", "r.io/x:tag", "r.io//x"] {
            assert!(key_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nobody_sees_a_password() {
        let shown = format!(
            "{:?}",
            Credentials::Basic {
                user: "me".into(),
                password: "geheim".into()
            }
        );
        assert!(!shown.contains("geheim"));
    }
}
