//! policy.json (containers-policy.json(5)): which images may be taken at all.
//!
//! The user's `~/.config/containers/policy.json` comes before the system's
//! `/etc/containers/policy.json`; without either everything is taken. Requirements to accept
//! anything and to reject are followed. Those that ask for signatures are not: an image that needs
//! one is refused, never taken unchecked.

use crate::{Error, Reference, Result};
use rcon_sys::errors::in_words;
use rcon_sys::passwd::config_dir;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

const SYSTEM: &str = "/etc/containers/policy.json";

/// What must be true of an image.
#[derive(Clone, Debug, Deserialize)]
struct Requirement {
    #[serde(rename = "type")]
    kind: String,
}

type Requirements = Vec<Requirement>;

#[derive(Debug, Deserialize)]
struct Document {
    default: Requirements,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Requirements>>,
}

/// Rules for images, and the file they stand in.
#[derive(Debug)]
pub struct Policy {
    document: Option<Document>,
    file: PathBuf,
}

impl Policy {
    /// Read the file that is named, or the user's, or the system's.
    ///
    /// # Errors
    /// A file that cannot be read or understood: then nothing can be taken.
    pub fn load(named: Option<&Path>) -> Result<Policy> {
        if let Some(file) = named {
            return Policy::read(file, true);
        }
        if let Some(dir) = config_dir() {
            let own = dir.join("containers/policy.json");
            if own.exists() {
                return Policy::read(&own, true);
            }
        }
        Policy::read(Path::new(SYSTEM), false)
    }

    fn read(file: &Path, must: bool) -> Result<Policy> {
        let text = match std::fs::read(file) {
            Ok(text) => text,
            Err(e) if !must && e.kind() == io::ErrorKind::NotFound => {
                return Ok(Policy {
                    document: None,
                    file: file.to_owned(),
                });
            }
            Err(e) => {
                return Err(Error::ConfigFile {
                    file: file.to_owned(),
                    why: in_words(&e),
                });
            }
        };
        Policy::parse(&text, file)
    }

    /// Understand the content of a policy file.
    ///
    /// # Errors
    /// What is no policy.
    pub fn parse(text: &[u8], file: &Path) -> Result<Policy> {
        let bad = |why: String| Error::ConfigFile {
            file: file.to_owned(),
            why,
        };
        let document: Document =
            serde_json::from_slice(text).map_err(|e| bad(format!("invalid policy: {e}")))?;
        let all = document.transports.values().flat_map(BTreeMap::values);
        for list in all.chain([&document.default]) {
            if list.is_empty() {
                return Err(bad(
                    "invalid policy: a list of requirements is empty".to_owned()
                ));
            }
            let known = [
                "insecureAcceptAnything",
                "reject",
                "signedBy",
                "signedBaseLayer",
                "sigstoreSigned",
            ];
            if let Some(odd) = list.iter().find(|r| !known.contains(&r.kind.as_str())) {
                return Err(bad(format!("invalid policy: unknown type {:?}", odd.kind)));
            }
        }
        Ok(Policy {
            document: Some(document),
            file: file.to_owned(),
        })
    }

    /// May this image of a registry be taken?
    ///
    /// # Errors
    /// [`Error::Policy`] if not.
    pub fn check(&self, reference: &Reference) -> Result<()> {
        let name = reference.name();
        let mut scopes = vec![reference.to_string(), name.clone()];
        let mut rest = name.as_str();
        while let Some((parent, _)) = rest.rsplit_once('/') {
            scopes.push(parent.to_owned());
            rest = parent;
        }
        // `*.example.com` for all below it.
        let host = rest.split(':').next().unwrap_or(rest);
        let mut domain = host;
        while let Some((_, parent)) = domain.split_once('.') {
            scopes.push(format!("*.{parent}"));
            domain = parent;
        }
        self.follow("docker", &scopes, &format!("docker://{reference}"))
    }

    /// May this image in files be taken?
    ///
    /// # Errors
    /// [`Error::Policy`] if not.
    pub fn check_files(&self, transport: &str, path: &Path, which: Option<&str>) -> Result<()> {
        let shown = match which {
            Some(which) => format!("{transport}:{}:{which}", path.display()),
            None => format!("{transport}:{}", path.display()),
        };
        let mut scopes = Vec::new();
        // A docker-archive has no scopes but the whole.
        if transport != "docker-archive" {
            let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            if let Some(which) = which {
                scopes.push(format!("{}:{which}", whole.display()));
            }
            scopes.extend(whole.ancestors().map(|p| p.display().to_string()));
        }
        self.follow(transport, &scopes, &shown)
    }

    fn follow(&self, transport: &str, scopes: &[String], image: &str) -> Result<()> {
        let Some(document) = &self.document else {
            return Ok(());
        };
        let list = document.transports.get(transport).and_then(|transport| {
            let found = scopes.iter().find_map(|scope| transport.get(scope));
            found.or_else(|| transport.get(""))
        });
        for requirement in list.unwrap_or(&document.default) {
            let why = match requirement.kind.as_str() {
                "insecureAcceptAnything" => continue,
                "reject" => "is rejected by policy".to_owned(),
                kind => format!("must be signed ({kind}), and rcon cannot check signatures"),
            };
            return Err(Error::Policy {
                image: image.to_owned(),
                file: self.file.clone(),
                why,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<Policy> {
        Policy::parse(text.as_bytes(), Path::new("/etc/policy.json"))
    }

    #[test]
    fn the_nearest_scope_decides() {
        let policy = policy(
            r#"{
                "default": [{"type": "reject"}],
                "transports": {
                    "docker": {
                        "docker.io": [{"type": "insecureAcceptAnything"}],
                        "docker.io/team": [{"type": "reject"}],
                        "docker.io/team/good": [{"type": "insecureAcceptAnything"}],
                        "docker.io/team/good:bad": [{"type": "reject"}],
                        "*.example.com": [{"type": "insecureAcceptAnything"}],
                        "signed.example.com": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x"}],
                        "both.io": [{"type": "insecureAcceptAnything"}, {"type": "sigstoreSigned"}]
                    },
                    "dir": { "/usr": [{"type": "insecureAcceptAnything"}] },
                    "docker-archive": { "": [{"type": "insecureAcceptAnything"}] }
                }
            }"#,
        )
        .unwrap();
        let ask = |name: &str| policy.check(&Reference::parse(name).unwrap());
        for good in [
            "alpine",
            "team/good:x",
            "a.example.com/x",
            "a.b.example.com:5000/x/y",
        ] {
            assert!(ask(good).is_ok(), "{good}");
        }
        for bad in [
            "team/x",
            "team/good:bad",
            "example.com/x",
            "quay.io/x",
            "dockerXio/x",
        ] {
            let error = ask(bad).unwrap_err().to_string();
            assert!(error.contains("rejected by policy"), "{error}");
        }
        for signed in ["signed.example.com/x", "both.io/x"] {
            let error = ask(signed).unwrap_err().to_string();
            assert!(error.contains("must be signed"), "{error}");
        }
        assert!(
            policy
                .check_files("dir", Path::new("/usr/lib"), None)
                .is_ok()
        );
        assert!(policy.check_files("dir", Path::new("/etc"), None).is_err());
        assert!(
            policy
                .check_files("docker-archive", Path::new("/x.tar"), None)
                .is_ok()
        );
        assert!(policy.check_files("oci", Path::new("/usr"), None).is_err());
    }

    #[test]
    fn what_cannot_be_understood_permits_nothing() {
        for bad in [
            "",
            "{}",
            r#"{"default": []}"#,
            r#"{"default": [{"type": "trustMe"}]}"#,
            r#"{"default": [{"type": "reject"}], "transports": {"docker": {"x": []}}}"#,
        ] {
            assert!(policy(bad).is_err(), "{bad}");
        }
        assert!(Policy::load(Some(Path::new("/nonexistent"))).is_err());
    }
}
