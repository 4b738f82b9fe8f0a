//! auth.json and docker's config.json.
//!
//! Read leniently, and written so that nothing of another program's is lost: unknown fields stay,
//! the file is replaced whole, is readable by its owner alone, and two writers wait for each other.

use super::Credentials;
use crate::reference::canonical_registry;
use crate::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcon_sys::errors::in_words;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// One file, as it was when read.
pub(super) struct AuthFile {
    path: PathBuf,
    content: Map<String, Value>,
}

impl AuthFile {
    /// Read it; an empty one when there is none.
    pub fn read(path: &Path) -> Result<AuthFile> {
        let err = |why: String| Error::ConfigFile {
            file: path.to_owned(),
            why,
        };
        let content = match fs::read(path) {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Map::new(),
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(Value::Object(map)) => map,
                Ok(_) => return Err(err("it is not a JSON object".to_owned())),
                Err(e) => return Err(err(format!("malformed: {e}"))),
            },
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Map::new()
            }
            Err(e) => return Err(err(in_words(&e))),
        };
        Ok(AuthFile {
            path: path.to_owned(),
            content,
        })
    }

    /// The helper for one registry (`credHelpers`).
    pub fn helper_of(&self, registry: &str) -> Option<&str> {
        let helpers = self.content.get("credHelpers")?.as_object()?;
        let hit = helpers.iter().find(|(key, _)| normalize(key) == registry)?;
        hit.1.as_str().filter(|h| !h.is_empty())
    }

    /// The helper for all others (docker's `credsStore`).
    pub fn general_helper(&self) -> Option<&str> {
        self.content
            .get("credsStore")?
            .as_str()
            .filter(|h| !h.is_empty())
    }

    /// The credentials under exactly this key.
    pub fn get(&self, key: &str) -> Result<Option<Credentials>> {
        let Some(auths) = self.content.get("auths").and_then(Value::as_object) else {
            return Ok(None);
        };
        let Some((_, entry)) = auths.iter().find(|(k, _)| normalize(k) == key) else {
            return Ok(None);
        };
        let text = |name: &str| {
            entry
                .get(name)
                .and_then(Value::as_str)
                .filter(|t| !t.is_empty())
        };
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credentials::IdentityToken(token.to_owned())));
        }
        let Some(auth) = text("auth") else {
            return Ok(None);
        };
        let plain = STANDARD
            .decode(auth)
            .ok()
            .and_then(|b| String::from_utf8(b).ok());
        let pair = plain.as_deref().and_then(|p| p.split_once(':'));
        let (user, password) = pair.ok_or_else(|| Error::ConfigFile {
            file: self.path.clone(),
            why: format!("the entry for {key} is not the base64 of USER:PASSWORD"),
        })?;
        Ok(Some(Credentials::Basic {
            user: user.to_owned(),
            // Some old tools padded passwords with zero bytes.
            password: password.trim_end_matches('\0').to_owned(),
        }))
    }

    fn set(&mut self, key: &str, user: &str, password: &str) {
        self.remove(key);
        let entry = json!({ "auth": STANDARD.encode(format!("{user}:{password}")) });
        let auths = self.content.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(key.to_owned(), entry);
        }
    }

    fn remove(&mut self, key: &str) -> bool {
        let Some(auths) = self.content.get_mut("auths").and_then(Value::as_object_mut) else {
            return false;
        };
        let before = auths.len();
        auths.retain(|k, _| normalize(k) != key);
        auths.len() != before
    }
}

/// Put credentials under `key`.
pub(super) fn set(path: &Path, key: &str, user: &str, password: &str) -> Result<()> {
    change(path, |file| {
        file.set(key, user, password);
        true
    })
    .map(drop)
}

/// Remove those under `key`; whether there were any.
pub(super) fn remove(path: &Path, key: &str) -> Result<bool> {
    change(path, |file| file.remove(key))
}

/// Remove all.
pub(super) fn remove_all(path: &Path) -> Result<()> {
    change(path, |file| file.content.remove("auths").is_some()).map(drop)
}

/// Read, change, write, while others wait. Nothing is written when nothing was changed.
fn change(path: &Path, change: impl FnOnce(&mut AuthFile) -> bool) -> Result<bool> {
    // A link to where the file really is stays a link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(Error::io("creating", dir))?;
    let lock = File::open(dir).map_err(Error::io("opening", dir))?;
    lock.lock().map_err(Error::io("locking", dir))?;
    let mut file = AuthFile::read(&path)?;
    if !change(&mut file) {
        return Ok(false);
    }
    let mut text = serde_json::to_vec_pretty(&file.content).map_err(|e| Error::ConfigFile {
        file: path.clone(),
        why: e.to_string(),
    })?;
    text.push(b'\n');
    replace(dir, &path, &text).map_err(Error::io("writing", &path))?;
    Ok(true)
}

/// Put a new file, which its owner alone can read, in the place of `path`.
fn replace(dir: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    // Others may write to the folder: nothing that lies there already under some name is written to.
    let mut new = tempfile::Builder::new().prefix(".auth-").tempfile_in(dir)?;
    new.write_all(text)?;
    new.as_file().sync_all()?;
    new.persist(path).map(drop).map_err(|e| e.error)
}

/// `https://index.docker.io/v1/` and such are how docker writes a registry.
pub(super) fn normalize(key: &str) -> String {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let key = match bare {
        // With a scheme the path is the version of the protocol, not a name space.
        Some(bare) => bare.split('/').next().unwrap_or(bare),
        None => key.trim_end_matches('/'),
    };
    match key.split_once('/') {
        Some((host, path)) => format!("{}/{path}", canonical_registry(host)),
        None => canonical_registry(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_of_docker_and_podman() {
        assert_eq!(normalize("https://index.docker.io/v1/"), "docker.io");
        assert_eq!(normalize("http://r.example:5000/v2/"), "r.example:5000");
        assert_eq!(normalize("r.example/team/"), "r.example/team");
        assert_eq!(normalize("registry-1.docker.io"), "docker.io");
    }

    #[test]
    fn changes_leave_the_rest_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/auth.json");
        set(&path, "r.example", "me", "a:b").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        let more = text.replacen('{', "{\n\"other\": [1], \"credsStore\": \"x\",", 1);
        fs::write(&path, more).unwrap();
        set(&path, "q.example", "you", "pw").unwrap();

        let file = AuthFile::read(&path).unwrap();
        assert_eq!(file.content["other"], json!([1]));
        assert_eq!(file.general_helper(), Some("x"));
        assert_eq!(
            file.get("r.example").unwrap(),
            Some(Credentials::Basic {
                user: "me".into(),
                password: "a:b".into()
            })
        );
        assert!(remove(&path, "r.example").unwrap());
        assert!(!remove(&path, "r.example").unwrap());
        let file = AuthFile::read(&path).unwrap();
        assert!(file.get("r.example").unwrap().is_none());
        assert!(file.get("q.example").unwrap().is_some());
        remove_all(&path).unwrap();
        assert!(
            AuthFile::read(&path)
                .unwrap()
                .get("q.example")
                .unwrap()
                .is_none()
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn damaged_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        fs::write(&path, "{").unwrap();
        let err = AuthFile::read(&path).err().unwrap().to_string();
        assert!(err.contains("auth.json: malformed"), "{err}");
        fs::write(&path, r#"{"auths":{"r.io":{"auth":"!!"}}}"#).unwrap();
        assert!(AuthFile::read(&path).unwrap().get("r.io").is_err());
    }
}
