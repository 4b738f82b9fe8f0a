//! The option words that all kinds of mounts share.

use crate::Error;

/// How a mount takes part in mount events, see mount_namespaces(7).
pub(super) const PROPAGATION: &[&str] = &[
    "shared",
    "rshared",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
];

/// Pairs and groups of which a mount may have one.
const GROUPS: &[(&[&str], &str)] = &[
    (&["noexec", "exec"], "'noexec' or 'exec'"),
    (&["nodev", "dev"], "'nodev' or 'dev'"),
    (&["nosuid", "suid"], "'nosuid' or 'suid'"),
    (&["rw", "ro"], "'rw' or 'ro'"),
    (&["z", "Z", "O"], "'z', 'Z', or 'O'"),
    (&["U"], "'U'"),
    (
        PROPAGATION,
        "'[r]shared', '[r]private', '[r]slave' or '[r]unbindable'",
    ),
    (&["bind", "rbind"], "'[r]bind'"),
    (&["copy", "nocopy"], "'copy' or 'nocopy'"),
];

/// Words for other systems or for caches that Linux does not have; they have no effect by their own definition.
const WITHOUT_EFFECT: &[&str] = &["cached", "delegated"];

/// Checks the options of `-v` as podman does.
///
/// # Errors
/// `invalid option type "X"`, or `invalid options "A, B", can only specify 1 … option`.
pub(super) fn check(words: &[&str]) -> Result<(), Error> {
    let mut seen = [false; GROUPS.len()];
    for word in words {
        let Some(group) = GROUPS
            .iter()
            .position(|(members, _)| members.contains(word))
        else {
            if WITHOUT_EFFECT.contains(word) {
                continue;
            }
            return Err(Error::value(format!("invalid option type {word:?}")));
        };
        if std::mem::replace(&mut seen[group], true) {
            let given = words.join(", ");
            return Err(Error::value(format!(
                "invalid options {given:?}, can only specify 1 {} option",
                GROUPS[group].1
            )));
        }
    }
    Ok(())
}

/// Takes out the words that say nothing to the kernel.
///
/// `z` and `Z` relabel for SELinux, which a rootless container without SELinux does not need; `U` and `O` are kept elsewhere.
pub(super) fn effective(words: &[&str]) -> Vec<String> {
    let silent = |word: &str| {
        ["z", "Z", "U", "O", "copy", "nocopy"].contains(&word) || WITHOUT_EFFECT.contains(&word)
    };
    let words = words.iter().filter(|word| !silent(word));
    words.map(|word| (*word).to_string()).collect()
}

/// Checks the path of a part of a volume or an image.
///
/// # Errors
/// For one that leads out of it.
pub(super) fn subpath(path: &str) -> Result<String, Error> {
    let relative = path.trim_start_matches('/');
    if relative.is_empty() || relative.split('/').any(|part| part == "..") || path.contains('\0') {
        return Err(Error::value(format!(
            "subpath {path:?} must name a file or directory inside of what is mounted"
        )));
    }
    Ok(relative.to_string())
}

/// Completes the options: access, propagation, for what is not the user's own directory `nosuid,nodev`, and the kind of bind.
pub(super) fn complete(options: &mut Vec<String>, guarded: bool, bind: bool) {
    fn add(options: &mut Vec<String>, unless: &[&str], word: &str) {
        if !options.iter().any(|o| unless.contains(&o.as_str())) {
            options.push(word.to_string());
        }
    }
    add(options, &["rw", "ro"], "rw");
    add(options, PROPAGATION, "rprivate");
    if guarded {
        add(options, &["nosuid", "suid"], "nosuid");
        add(options, &["nodev", "dev"], "nodev");
    }
    if bind {
        add(options, &["bind", "rbind"], "rbind");
    }
}

/// Checks a place inside the container.
///
/// # Errors
/// podman's `container directory cannot be empty` and `invalid container path …`; the root itself cannot be covered.
pub(super) fn destination(path: &str) -> Result<String, Error> {
    if path.is_empty() {
        return Err(Error::value("container directory cannot be empty"));
    }
    if !path.starts_with('/') {
        return Err(Error::value(format!(
            "invalid container path {path:?}, must be an absolute path"
        )));
    }
    let clean = crate::parse::clean(path);
    if clean == "/" || clean.contains('\0') {
        return Err(Error::value(format!(
            "invalid container path {path:?}, nothing can be mounted there"
        )));
    }
    Ok(clean)
}

/// Checks the name of a volume.
///
/// # Errors
/// podman's message with the pattern of names.
pub(super) fn volume_name(name: &str) -> Result<String, Error> {
    let mut bytes = name.bytes();
    let ok = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if !ok {
        return Err(Error::value(format!(
            "creating named volume {name:?}: running volume create option: names must match [a-zA-Z0-9][a-zA-Z0-9_.-]*: \
             invalid argument"
        )));
    }
    Ok(name.to_string())
}
