//! Credential helpers: programs called `docker-credential-NAME` (docker-credential-helpers'
//! protocol: a verb as argument, a server on standard input, JSON on standard output).

use super::Credentials;
use crate::registry::clean;
use crate::{Error, Result};
use rcon_sys::errors::in_words;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// A user of this name means that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Ask for the credentials of a server.
pub(super) fn get(helper: &str, server: &str) -> Result<Option<Credentials>> {
    let Some(answer) = call(helper, "get", server.as_bytes())? else {
        return Ok(None);
    };
    let entry: Entry = serde_json::from_slice(&answer)
        .map_err(|e| fail(helper, format!("malformed answer: {e}")))?;
    if entry.secret.is_empty() && entry.username.is_empty() {
        return Ok(None);
    }
    Ok(Some(if entry.username == TOKEN_USER {
        Credentials::IdentityToken(entry.secret)
    } else {
        Credentials::Basic {
            user: entry.username,
            password: entry.secret,
        }
    }))
}

/// Keep credentials.
pub(super) fn store(helper: &str, server: &str, user: &str, password: &str) -> Result<()> {
    let entry = Entry {
        server_url: server.to_owned(),
        username: user.to_owned(),
        secret: password.to_owned(),
    };
    let text = serde_json::to_vec(&entry).map_err(|e| fail(helper, e.to_string()))?;
    call(helper, "store", &text).map(drop)
}

/// Forget credentials; false when there were none.
pub(super) fn erase(helper: &str, server: &str) -> Result<bool> {
    if get(helper, server)?.is_none() {
        return Ok(false);
    }
    call(helper, "erase", server.as_bytes()).map(|done| done.is_some())
}

fn fail(helper: &str, why: impl Into<String>) -> Error {
    Error::Helper {
        helper: helper.to_owned(),
        why: why.into(),
    }
}

/// `None`: it knows nothing of that server.
fn call(helper: &str, verb: &str, input: &[u8]) -> Result<Option<Vec<u8>>> {
    if helper.is_empty() || helper.contains(['/', '\0']) {
        return Err(fail(helper, "this is no name of a helper"));
    }
    let started = Command::new(format!("docker-credential-{helper}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = started.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => fail(helper, "not found in PATH"),
        _ => fail(helper, in_words(&e)),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read is free not to.
        let _ = stdin.write_all(input);
    }
    let output = child
        .wait_with_output()
        .map_err(|e| fail(helper, in_words(&e)))?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    // Errors are told on standard output.
    let said = clean(&String::from_utf8_lossy(&output.stdout));
    if said.contains("credentials not found") || said.contains("no credentials server URL") {
        return Ok(None);
    }
    let complained = clean(&String::from_utf8_lossy(&output.stderr));
    let why = [said, complained].into_iter().find(|t| !t.is_empty());
    Err(fail(
        helper,
        why.unwrap_or_else(|| format!("it failed ({})", output.status)),
    ))
}
