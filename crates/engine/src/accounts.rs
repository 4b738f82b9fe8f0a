//! Which users of the host a container is to know by name: `--hostuser`, and how its own is to be called.

use std::path::Path;

use rcon_launch::{Account, Accounts};
use rcon_sys::passwd;

use crate::error::{Error, Result};
use crate::record::Config;

/// What is to be told to the container; `None` for nothing.
pub(crate) fn of(config: &Config, runtime: &Path) -> Option<Accounts> {
    let wanted = &config.options.accounts;
    if !wanted.add {
        return None;
    }
    let mut users: Vec<Account> = wanted
        .host_users
        .iter()
        .filter_map(|name| account(name))
        .collect();
    if let Some((uid, gid)) = config.arranged.as_ref().and_then(|a| a.caller) {
        let own = rustix::process::getuid().as_raw().to_string();
        users.extend(account(&own).map(|account| Account {
            uid,
            gid,
            ..account
        }));
    }
    Some(Accounts {
        folder: runtime.to_path_buf(),
        users,
        passwd_entry: wanted.passwd_entry.clone(),
        group_entry: wanted.group_entry.clone(),
    })
}

/// That the users are there.
///
/// # Errors
/// podman's, for one that is not.
pub(crate) fn check(config: &Config) -> Result<()> {
    for name in &config.options.accounts.host_users {
        if account(name).is_none() {
            return Err(Error::Invalid(format!(
                "looking up host user {name}: user: unknown user {name}"
            )));
        }
    }
    Ok(())
}

fn account(name: &str) -> Option<Account> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = passwd::parse_id(name);
    let user = passwd::users(&text).find(|user| user.name == name || number == Some(user.uid))?;
    let group = passwd::lookup_gid(user.gid).map_or_else(|| user.name.clone(), |group| group.name);
    Some(Account {
        name: user.name,
        uid: user.uid,
        gid: user.gid,
        group,
        about: user.comment,
        home: user.home,
    })
}
