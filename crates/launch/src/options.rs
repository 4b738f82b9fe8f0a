//! Mount options in the words of mount(8) and the OCI runtime specification (config.md, mounts).

use rcon_sys::mount::{Attributes, Propagation};

use crate::error::Result;

/// The options of one mount, sorted by what they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// A copy of what is mounted elsewhere; `Some(true)` with all below it.
    pub(crate) bind: Option<bool>,
    /// Attributes of the mount itself.
    pub(crate) attributes: Attrs,
    /// Attributes that the mount shall not have, whatever its origin has.
    pub(crate) cleared: Attrs,
    /// Attributes of the mount and all below it.
    pub(crate) recursive: Attrs,
    /// As `cleared`, of the mount and all below it.
    pub(crate) recursive_cleared: Attrs,
    /// Show owners through id maps; `Some(true)` those of all mounts below too.
    pub(crate) idmap: Option<bool>,
    /// How the mount propagates; the flag says whether those below it too.
    pub(crate) propagation: Option<(Propagation, bool)>,
    /// Fill the new file system with what it covers.
    pub(crate) copy_up: bool,
    /// All of it is given to the program's user.
    pub(crate) give: bool,
    /// Only this part of it is mounted.
    pub(crate) part: Option<String>,
    /// Everything else: for the file system.
    pub(crate) data: Vec<(String, Option<String>)>,
}

/// Attributes to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attrs(pub(crate) Attributes);

impl Default for Attrs {
    fn default() -> Self {
        Self(Attributes::empty())
    }
}

/// Sort `options`.
///
/// Words that take an attribute away (`rw`, `suid`, `dev`, `exec`) undo what an earlier word set, and
/// are remembered: what a mount has from its origin can be taken away where the mount is the
/// container's own, not where it belongs to a parent user namespace.
pub(crate) fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Result<Options> {
    let mut parsed = Options::default();
    for option in options {
        if attribute(option, &mut parsed.attributes.0, &mut parsed.cleared.0) {
            continue;
        }
        if let Some(recursive) = option.strip_prefix('r')
            && !matches!(option, "ro" | "rw" | "relatime")
            && attribute(
                recursive,
                &mut parsed.recursive.0,
                &mut parsed.recursive_cleared.0,
            )
        {
            continue;
        }
        match option {
            "" | "defaults" | "async" | "auto" | "noauto" | "_netdev" | "nofail" => {}
            "bind" => parsed.bind = Some(parsed.bind.unwrap_or(false)),
            "rbind" => parsed.bind = Some(true),
            "shared" => parsed.propagation = Some((Propagation::Shared, false)),
            "rshared" => parsed.propagation = Some((Propagation::Shared, true)),
            "slave" => parsed.propagation = Some((Propagation::Slave, false)),
            "rslave" => parsed.propagation = Some((Propagation::Slave, true)),
            "private" => parsed.propagation = Some((Propagation::Private, false)),
            "rprivate" => parsed.propagation = Some((Propagation::Private, true)),
            "unbindable" => parsed.propagation = Some((Propagation::Unbindable, false)),
            "runbindable" => parsed.propagation = Some((Propagation::Unbindable, true)),
            "tmpcopyup" | "copyup" => parsed.copy_up = true,
            "notmpcopyup" | "nocopyup" => parsed.copy_up = false,
            "rcon.give" => parsed.give = true,
            "idmap" => parsed.idmap = Some(false),
            "ridmap" => parsed.idmap = Some(true),
            _ => {
                let (name, value) = match option.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (option, None),
                };
                if name == "rcon.part" {
                    parsed.part = value;
                    continue;
                }
                parsed.data.push((name.to_owned(), value));
            }
        }
    }
    Ok(parsed)
}

/// The words that mean something here, whatever the file system.
pub(crate) fn names() -> Vec<String> {
    const ATTRIBUTES: [&str; 18] = [
        "ro",
        "rw",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noexec",
        "exec",
        "nodiratime",
        "diratime",
        "nosymfollow",
        "symfollow",
        "noatime",
        "atime",
        "strictatime",
        "nostrictatime",
        "relatime",
        "norelatime",
    ];
    const OTHERS: [&str; 18] = [
        "bind",
        "rbind",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "private",
        "rprivate",
        "unbindable",
        "runbindable",
        "tmpcopyup",
        "idmap",
        "ridmap",
        "defaults",
        "sync",
        "async",
        "dirsync",
        "lazytime",
    ];
    let recursive = ATTRIBUTES.iter().map(|word| format!("r{word}"));
    let plain = ATTRIBUTES
        .iter()
        .chain(&OTHERS)
        .map(|word| (*word).to_owned());
    let mut all: Vec<String> = plain.chain(recursive).collect();
    all.sort_unstable();
    all
}

/// Set or take back the attribute that `word` names; whether it names one.
fn attribute(word: &str, attributes: &mut Attributes, cleared: &mut Attributes) -> bool {
    let times = Attributes::MOUNT_ATTR_NOATIME | Attributes::MOUNT_ATTR_STRICTATIME;
    let (flag, set) = match word {
        "ro" => (Attributes::MOUNT_ATTR_RDONLY, true),
        "rw" => (Attributes::MOUNT_ATTR_RDONLY, false),
        "nosuid" => (Attributes::MOUNT_ATTR_NOSUID, true),
        "suid" => (Attributes::MOUNT_ATTR_NOSUID, false),
        "nodev" => (Attributes::MOUNT_ATTR_NODEV, true),
        "dev" => (Attributes::MOUNT_ATTR_NODEV, false),
        "noexec" => (Attributes::MOUNT_ATTR_NOEXEC, true),
        "exec" => (Attributes::MOUNT_ATTR_NOEXEC, false),
        "nodiratime" => (Attributes::MOUNT_ATTR_NODIRATIME, true),
        "diratime" => (Attributes::MOUNT_ATTR_NODIRATIME, false),
        "nosymfollow" => (Attributes::MOUNT_ATTR_NOSYMFOLLOW, true),
        "symfollow" => (Attributes::MOUNT_ATTR_NOSYMFOLLOW, false),
        "noatime" => {
            attributes.remove(times);
            (Attributes::MOUNT_ATTR_NOATIME, true)
        }
        "strictatime" => {
            attributes.remove(times);
            (Attributes::MOUNT_ATTR_STRICTATIME, true)
        }
        "relatime" | "norelatime" | "atime" | "nostrictatime" => (times, false),
        _ => return false,
    };
    attributes.set(flag, set);
    cleared.set(flag, !set);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted() {
        let parsed = parse([
            "rbind",
            "nosuid",
            "ro",
            "rnodev",
            "rslave",
            "size=64k",
            "mode=1777",
            "newinstance",
        ])
        .unwrap();
        assert_eq!(parsed.bind, Some(true));
        assert_eq!(
            parsed.attributes.0,
            Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_RDONLY
        );
        assert_eq!(parsed.recursive.0, Attributes::MOUNT_ATTR_NODEV);
        assert_eq!(parsed.propagation, Some((Propagation::Slave, true)));
        let data: Vec<_> = parsed
            .data
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        assert_eq!(
            data,
            [
                ("size", Some("64k")),
                ("mode", Some("1777")),
                ("newinstance", None)
            ]
        );
    }

    #[test]
    fn later_words_win() {
        let parsed = parse(["ro", "noatime", "rw", "strictatime", "rro", "relatime"]).unwrap();
        assert_eq!(parsed.attributes.0, Attributes::empty());
        assert_eq!(parsed.recursive.0, Attributes::MOUNT_ATTR_RDONLY);
        let parsed = parse(["rbind", "bind"]).unwrap();
        assert_eq!(parsed.bind, Some(true));
    }

    #[test]
    fn id_mapping_and_what_is_taken_away() {
        assert_eq!(parse(["bind", "idmap"]).unwrap().idmap, Some(false));
        assert_eq!(parse(["rbind", "ridmap"]).unwrap().idmap, Some(true));
        let parsed = parse(["bind", "ro", "rw", "suid", "rexec"]).unwrap();
        assert_eq!(
            parsed.cleared.0,
            Attributes::MOUNT_ATTR_RDONLY | Attributes::MOUNT_ATTR_NOSUID
        );
        assert_eq!(parsed.recursive_cleared.0, Attributes::MOUNT_ATTR_NOEXEC);
        assert_eq!(parse(["rw", "ro"]).unwrap().cleared.0, Attributes::empty());
    }
}
