//! Secrets: small texts that containers get and images do not.
//!
//! Each is a directory `secrets/ID` that only its owner can enter. A container gets a copy of its own when it is made, in its
//! directory; it is mounted under `/run/secrets`, or put into the environment, when it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use rcon_bundle::{Options, Source, UserMount};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::events::{Action, Event};
use crate::files::{self, Durable};
use crate::record::Config;
use crate::{Engine, names};

/// As large as a secret may be (podman's limit).
pub const SECRET_MAX: usize = 512_000;

/// How often a secret that is replaced again and again under our hands is read.
const ATTEMPTS: u32 = 16;

/// A secret, without what it says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Secret {
    /// 25 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// When it was last changed.
    pub updated: DateTime<Utc>,
    /// `--label`
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// One secret of a container: `--secret`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// Its name.
    pub name: String,
    /// Its id at the time; empty in a request.
    #[serde(default)]
    pub id: String,
    /// The variable, or the path in the container, that it becomes.
    pub target: String,
    /// It becomes a variable.
    pub env: bool,
    /// Whose the file is.
    pub uid: u32,
    /// Whose group the file is.
    pub gid: u32,
    /// The file's mode.
    pub mode: u32,
}

impl SecretUse {
    /// Reads `NAME[,type=mount|env][,target=…][,uid=…][,gid=…][,mode=…]`.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str) -> Result<SecretUse> {
        let bad = || {
            Error::Invalid(format!(
                "invalid secret option {text:?}: must be NAME[,type=mount|env,target=...,uid=...,gid=...,mode=...]"
            ))
        };
        let mut words = text.split(',');
        let name = words.next().unwrap_or_default();
        let name = name.strip_prefix("source=").unwrap_or(name);
        let mut secret = SecretUse {
            name: name.into(),
            id: String::new(),
            target: String::new(),
            env: false,
            uid: 0,
            gid: 0,
            mode: 0o444,
        };
        let mut about_files = false;
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(bad)?;
            match (key, value) {
                ("source", name) => secret.name = name.into(),
                ("type", "mount") => secret.env = false,
                ("type", "env") => secret.env = true,
                ("target", target) => secret.target = target.into(),
                ("mode", mode) => {
                    secret.mode = u32::from_str_radix(mode, 8).map_err(|_| bad())? & 0o7777;
                    about_files = true;
                }
                ("uid" | "UID", id) => {
                    secret.uid = id.parse().map_err(|_| bad())?;
                    about_files = true;
                }
                ("gid" | "GID", id) => {
                    secret.gid = id.parse().map_err(|_| bad())?;
                    about_files = true;
                }
                _ => return Err(bad()),
            }
        }
        if secret.name.is_empty() {
            return Err(Error::Invalid("no source found for secret".into()));
        }
        if secret.env && about_files {
            return Err(Error::Invalid(
                "UID, GID, Mode options cannot be set with secret type env: invalid secret option"
                    .into(),
            ));
        }
        if secret.target.is_empty() {
            secret.target.clone_from(&secret.name);
        }
        if !secret.env && !secret.target.starts_with('/') {
            secret.target = format!("/run/secrets/{}", secret.target);
        }
        Ok(secret)
    }
}

fn valid_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= 253
        && edge(name.chars().next())
        && edge(name.chars().next_back())
        && !name.contains(['/', '=', ',', '\0'])
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

impl Engine {
    fn secret_dir(&self, id: &str) -> PathBuf {
        self.paths.root.join("secrets").join(id)
    }

    /// Keeps a secret.
    ///
    /// # Errors
    /// [`Error::SecretExists`] for a name that is taken (unless it may be replaced); a name or a size that cannot be.
    pub fn create_secret(
        &self,
        name: &str,
        text: &[u8],
        labels: BTreeMap<String, String>,
        replace: bool,
    ) -> Result<Secret> {
        if !valid_name(name) {
            return Err(Error::Invalid(format!(
                "secret name {name} can not include '=', '/', ',', or the NULL ('\\0') and be between 1 and 253 characters: invalid secret name"
            )));
        }
        if text.is_empty() || text.len() >= SECRET_MAX {
            return Err(Error::Invalid(format!(
                "secret data must be larger than 0 and less than {SECRET_MAX} bytes"
            )));
        }
        let all = self.paths.root.join("secrets");
        files::make_dir(&all)?;
        // One at a time, so that a name is given once.
        let _lock = crate::records::Lock::take(&all)?;
        // By the name alone: it may be the beginning of another's id.
        let old = self.written_secrets()?;
        let old: Vec<Secret> = old.into_iter().filter(|old| old.name == name).collect();
        if !old.is_empty() && !replace {
            return Err(Error::SecretExists(name.into()));
        }
        // The last one is meant, also when the clock was set back.
        let after = old
            .last()
            .map(|old| old.created + TimeDelta::nanoseconds(1));
        let now = after.map_or_else(Utc::now, |after| after.max(Utc::now()));
        let secret = Secret {
            id: names::random_id()?[..25].to_string(),
            name: name.into(),
            created: now,
            updated: now,
            labels,
        };
        let dir = self.secret_dir(&secret.id);
        let written = files::make_dir(&dir)
            .and_then(|()| write(&dir.join("data"), text, 0o600))
            .and_then(|()| files::replace(&dir, "secret.json", &secret, Durable::Yes));
        if let Err(error) = written {
            let _ = files::remove_tree(&dir);
            return Err(error);
        }
        for old in old {
            self.discard_secret(&old)?;
        }
        self.emit(&Event::secret(&secret.id, name, Action::Create));
        Ok(secret)
    }

    /// All secrets, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn secrets(&self) -> Result<Vec<Secret>> {
        let mut secrets = self.written_secrets()?;
        // Of two with one name the last has taken the other's place, which is about to go.
        let mut seen = BTreeSet::new();
        secrets.reverse();
        secrets.retain(|secret| seen.insert(secret.name.clone()));
        secrets.reverse();
        Ok(secrets)
    }

    /// As [`Engine::secrets`], with those in whose place others are already.
    fn written_secrets(&self) -> Result<Vec<Secret>> {
        let dir = self.paths.root.join("secrets");
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).on("read", &dir),
        };
        let mut secrets = Vec::new();
        for entry in entries {
            let path = entry.on("read", &dir)?.path();
            secrets.extend(files::read::<Secret>(&path.join("secret.json"))?);
        }
        secrets.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        Ok(secrets)
    }

    /// A secret by its name, its id, or the beginning of its id.
    ///
    /// # Errors
    /// [`Error::NoSuchSecret`]; a beginning that several have.
    pub fn secret(&self, name: &str) -> Result<Secret> {
        let all = self.secrets()?;
        if let Some(secret) = all.iter().find(|s| s.name == name || s.id == name) {
            return Ok(secret.clone());
        }
        let mut found = all
            .into_iter()
            .filter(|s| !name.is_empty() && s.id.starts_with(name));
        match (found.next(), found.next()) {
            (Some(secret), None) => Ok(secret),
            (Some(_), Some(_)) => Err(Error::Invalid(format!(
                "more than one secret has an ID that begins with {name}"
            ))),
            _ => Err(Error::NoSuchSecret(name.into())),
        }
    }

    /// What a secret says.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn secret_text(&self, secret: &Secret) -> Result<Vec<u8>> {
        let path = self.secret_dir(&secret.id).join("data");
        fs::read(&path).on("read", &path)
    }

    /// Removes a secret; its id. Containers keep their copies.
    ///
    /// # Errors
    /// [`Error::NoSuchSecret`].
    pub fn remove_secret(&self, name: &str) -> Result<String> {
        let secret = self.secret(name)?;
        // First those in whose place it is, which would be seen again without it.
        for written in self.written_secrets()? {
            if written.name == secret.name {
                self.discard_secret(&written)?;
            }
        }
        Ok(secret.id)
    }

    fn discard_secret(&self, secret: &Secret) -> Result<()> {
        let dir = self.secret_dir(&secret.id);
        // Gone from here on, in case we are cut short.
        files::remove_file(&dir.join("secret.json"))?;
        files::remove_tree(&dir)?;
        self.emit(&Event::secret(&secret.id, &secret.name, Action::Remove));
        Ok(())
    }

    /// Finds the secrets that a container is to have.
    pub(crate) fn find_secrets(&self, wanted: &[SecretUse]) -> Result<Vec<SecretUse>> {
        let find = |wanted: &SecretUse| {
            Ok(SecretUse {
                id: self.secret(&wanted.name)?.id,
                ..wanted.clone()
            })
        };
        wanted.iter().map(find).collect()
    }

    /// What a secret says that a container is to have; it may have been replaced since it was found.
    fn text_for(&self, wanted: &SecretUse) -> Result<Vec<u8>> {
        let find = || match self.secret(&wanted.id) {
            Err(Error::NoSuchSecret(_)) => self.secret(&wanted.name),
            found => found,
        };
        for _ in 0..ATTEMPTS {
            match fs::read(self.secret_dir(&find()?.id).join("data")) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                read => return read.context(|| format!("cannot read the secret {}", wanted.name)),
            }
        }
        self.secret_text(&find()?)
    }

    /// Gives a container in the making its copies.
    pub(crate) fn copy_secrets(&self, config: &Config, dir: &Path) -> Result<()> {
        if config.secrets.is_empty() {
            return Ok(());
        }
        let place = dir.join(DIR);
        files::make_dir(&place)?;
        let mut others = Vec::new();
        for (number, secret) in config.secrets.iter().enumerate() {
            let text = self.text_for(secret)?;
            let path = place.join(number.to_string());
            let mode = if secret.env { 0o600 } else { secret.mode };
            write(&path, &text, mode)?;
            if (secret.uid, secret.gid) != (0, 0) {
                others.push((path, secret));
            }
        }
        if others.is_empty() {
            return Ok(());
        }
        self.in_worker(|_| -> Result<()> {
            for (path, secret) in others {
                std::os::unix::fs::chown(&path, Some(secret.uid), Some(secret.gid)).context(
                    || {
                        format!(
                            "cannot give the secret {} to {}:{}",
                            secret.name, secret.uid, secret.gid
                        )
                    },
                )?;
                fs::set_permissions(&path, fs::Permissions::from_mode(secret.mode))
                    .on("change", &path)?;
            }
            Ok(())
        })
    }
}

/// Where a container's copies are, in its directory.
const DIR: &str = "secrets";

fn write(path: &Path, text: &[u8], mode: u32) -> Result<()> {
    fs::write(path, text).on("write", path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).on("change", path)
}

/// The options with the container's secrets in them, its copies being in `dir`.
pub(crate) fn added(config: &Config, dir: &Path) -> Result<Options> {
    let mut options = config.options.clone();
    for (number, secret) in config.secrets.iter().enumerate() {
        let path = dir.join(DIR).join(number.to_string());
        if secret.env {
            let text = fs::read(&path).on("read", &path)?;
            let text = String::from_utf8(text).map_err(|_| {
                Error::Invalid(format!(
                    "the secret {} is no text and cannot be a variable",
                    secret.name
                ))
            })?;
            options.env.push((secret.target.clone(), text));
        } else {
            options.mounts.push(UserMount {
                source: Source::Bind(path),
                destination: secret.target.clone(),
                options: ["bind", "rprivate", "nosuid", "nodev", "noexec"]
                    .map(String::from)
                    .to_vec(),
                ..UserMount::default()
            });
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_read() {
        let secret = SecretUse::parse("s").unwrap();
        assert_eq!(
            (secret.target.as_str(), secret.mode, secret.env),
            ("/run/secrets/s", 0o444, false)
        );
        let secret = SecretUse::parse("s,type=env").unwrap();
        assert_eq!((secret.target.as_str(), secret.env), ("s", true));
        let secret = SecretUse::parse("source=s,target=/t,uid=1,gid=2,mode=0400").unwrap();
        assert_eq!(
            (secret.target.as_str(), secret.uid, secret.gid, secret.mode),
            ("/t", 1, 2, 0o400)
        );
        for bad in [
            "",
            "s,x",
            "s,type=no",
            "s,mode=9",
            "s,type=env,uid=1",
            "s,uid=x",
        ] {
            assert!(SecretUse::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_no_beginning_of_an_id() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(crate::Paths {
            root: dir.path().join("root"),
            runroot: dir.path().join("run"),
            wish: rcon_store::Wish::default(),
            image_stores: Vec::new(),
        })
        .unwrap();
        let make = |name: &str, replace: bool| {
            engine.create_secret(name, b"text", BTreeMap::new(), replace)
        };
        let other = make("other", false).unwrap();
        let name = &other.id[..1];
        make(name, true).unwrap();
        make(name, true).unwrap();
        assert_eq!(engine.secret("other").unwrap().id, other.id);
        assert_eq!(engine.secrets().unwrap().len(), 2);
        assert!(matches!(make(name, false), Err(Error::SecretExists(_))));
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "a-b_c.d", "0"] {
            assert!(valid_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a/b", "a=b"] {
            assert!(!valid_name(bad), "{bad}");
        }
    }
}
