//! Who runs the program: `NAME|UID[:GROUP|GID]`, looked up in the files of the container.
//!
//! The rules are podman's: a number that the passwd file does not know is taken as it is, with
//! group 0; a user of the passwd file gets its login group and, unless a group is asked for, the
//! groups that list it as a member.

use std::collections::HashSet;
use std::path::Path;

use oci_spec::runtime::User as SpecUser;
use rcon_sys::passwd::{self, Group, User};

use crate::error::{Context, Error, Result};
use crate::root::Root;

/// The longest passwd or group file that is read, in bytes.
const MOST: u64 = 8 << 20;

/// The ids of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Supplementary groups; the group itself is among them when a user was asked for.
    pub(crate) groups: Vec<u32>,
    /// The home directory that the passwd file gives the user, else `/`.
    pub(crate) home: String,
}

/// Find the ids of `user`, or of the specification's user when that is empty; with `None` exactly
/// those of the specification, and only a home from the files.
pub(crate) fn resolve(
    root: &Root,
    user: Option<&str>,
    group_add: &[String],
    spec: &SpecUser,
) -> Result<Identity> {
    let read = |path: &str| {
        root.read(Path::new(path), MOST)
            .context(|| format!("cannot read {path} of the container"))
            .map(Option::unwrap_or_default)
    };
    let text = user.unwrap_or_default();
    let passwd = read("/etc/passwd")?;
    let own_groups = user.is_some() && (!text.contains(':') || text.ends_with(':'));
    // The group file only matters for names and memberships.
    let group = match user.is_some() || !group_add.is_empty() {
        true => read("/etc/group")?,
        false => String::new(),
    };
    let mut identity = look_up(text, spec, &passwd, &group, own_groups)?;
    let extra = spec.additional_gids().iter().flatten().copied();
    identity.groups.extend(extra);
    for name in group_add {
        identity.groups.push(find_group(&group, name)?);
    }
    // An image may name a user in any number of groups.
    let mut seen = HashSet::new();
    identity.groups.retain(|gid| seen.insert(*gid));
    Ok(identity)
}

fn look_up(
    text: &str,
    spec: &SpecUser,
    passwd: &str,
    group: &str,
    own_groups: bool,
) -> Result<Identity> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let number = match user {
        "" => Some(spec.uid()),
        user => passwd::parse_id(user),
    };
    let known: Option<User> = passwd::users(passwd)
        .find(|known| (!user.is_empty() && known.name == user) || number == Some(known.uid));
    let uid = known.as_ref().map(|known| known.uid).or(number);
    let uid = uid.ok_or_else(|| Error::NoUser(user.to_owned()))?;
    let gid = match (wanted_group, &known) {
        (Some(wanted), _) => find_group(group, wanted)?,
        // The specification's own user has the specification's own group.
        (None, Some(known)) if !user.is_empty() => known.gid,
        (None, None) if !user.is_empty() => 0,
        (None, _) => spec.gid(),
    };
    // Nobody asked for: then only what the group file says, as podman has it.
    let mut groups = match text {
        "" => Vec::new(),
        _ => vec![gid],
    };
    if let (true, Some(known)) = (own_groups, &known) {
        groups.extend(
            passwd::groups(group)
                .filter(|group| group.members.contains(&known.name))
                .map(|group| group.gid),
        );
    }
    let home = known
        .map(|known| known.home)
        .filter(|home| !home.is_empty());
    Ok(Identity {
        uid,
        gid,
        groups,
        home: home.unwrap_or_else(|| "/".to_owned()),
    })
}

fn find_group(file: &str, wanted: &str) -> Result<u32> {
    let number = passwd::parse_id(wanted);
    let known = passwd::groups(file)
        .find(|Group { name, gid, .. }| name == wanted || number == Some(*gid))
        .map(|group| group.gid);
    known
        .or(number)
        .ok_or_else(|| Error::NoGroup(wanted.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:\n7:x:70:71::/seven:\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root\nweb:x:34:\nlog:x:4:web,root\n";

    fn find(text: &str) -> Result<Identity> {
        let own_groups = !text.contains(':') || text.ends_with(':');
        look_up(text, &SpecUser::default(), PASSWD, GROUP, own_groups)
    }

    fn ids(text: &str) -> (u32, u32, Vec<u32>) {
        let identity = find(text).unwrap();
        (identity.uid, identity.gid, identity.groups)
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(ids(""), (0, 0, vec![10, 4]));
        assert_eq!(ids("root"), (0, 0, vec![0, 10, 4]));
        assert_eq!(ids("web"), (33, 34, vec![34, 4]));
        assert_eq!(ids("33"), (33, 34, vec![34, 4]));
        assert_eq!(ids("web:wheel"), (33, 10, vec![10]));
        assert_eq!(ids("web:"), (33, 34, vec![34, 4]));
        assert_eq!(ids(":10"), (0, 10, vec![10]));
        assert_eq!(ids("1000"), (1000, 0, vec![0]));
        assert_eq!(ids("1000:1000"), (1000, 1000, vec![1000]));
        // A name of digits is a name first.
        assert_eq!(ids("7"), (70, 71, vec![71]));
        assert_eq!(find("web").unwrap().home, "/var/www");
        assert_eq!(find("1000").unwrap().home, "/");
    }

    #[test]
    fn who_is_not_there() {
        for bad in [
            "nobody",
            "-1",
            "+0",
            "0x0",
            "4294967295",
            "99999999999",
            " 0",
            "web ",
        ] {
            assert_eq!(find(bad), Err(Error::NoUser(bad.to_owned())), "{bad}");
        }
        assert_eq!(find("web:none"), Err(Error::NoGroup("none".to_owned())));
        assert_eq!(find("0:-1"), Err(Error::NoGroup("-1".to_owned())));
        assert_eq!(
            find("ghost").unwrap_err().to_string(),
            "unable to find user ghost: no matching entries in passwd file"
        );
    }
}
