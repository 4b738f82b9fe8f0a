//! The user and group data bases, read by ourselves.
//!
//! A statically linked program cannot use the name service switch of libc (it would load shared
//! objects of the machine's libc into ours), so `/etc/passwd` and `/etc/group` are parsed here, in
//! the form of passwd(5) and group(5). The same parsers serve for the files inside a container's
//! root, which are not to be trusted: lines that are not whole are skipped, never guessed at.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// One line of passwd(5), without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name, never empty.
    pub name: String,
    /// Numeric user id.
    pub uid: u32,
    /// Numeric id of the login group.
    pub gid: u32,
    /// The full name, or whatever else stands in the field for comments.
    pub comment: String,
    /// Home directory as written; may be empty.
    pub home: String,
    /// Login shell as written; may be empty.
    pub shell: String,
}

/// One line of group(5), without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Group name, never empty.
    pub name: String,
    /// Numeric group id.
    pub gid: u32,
    /// Login names of the members.
    pub members: Vec<String>,
}

/// A user or group id in decimal: digits only, and not the value that means "no id".
///
/// Signs, blanks, other bases and 4294967295 are refused.
pub fn parse_id(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// The users in a text in the form of passwd(5), in its order.
pub fn users(text: &str) -> impl Iterator<Item = User> + '_ {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _password, uid, gid, comment, home, shell] = fields.as_slice() else {
            return None;
        };
        (!name.is_empty() && !name.starts_with(['+', '-', '#'])).then_some(())?;
        Some(User {
            name: (*name).to_owned(),
            uid: parse_id(uid)?,
            gid: parse_id(gid)?,
            comment: (*comment).to_owned(),
            home: (*home).to_owned(),
            shell: (*shell).to_owned(),
        })
    })
}

/// The groups in a text in the form of group(5), in its order.
pub fn groups(text: &str) -> impl Iterator<Item = Group> + '_ {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _password, gid, members] = fields.as_slice() else {
            return None;
        };
        (!name.is_empty() && !name.starts_with(['+', '-', '#'])).then_some(())?;
        Some(Group {
            name: (*name).to_owned(),
            gid: parse_id(gid)?,
            members: members
                .split(',')
                .filter(|member| !member.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    })
}

fn read_lossy(path: &Path) -> Option<String> {
    fs::read(path)
        .ok()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The user of this machine with the id `uid`, from `/etc/passwd`.
pub fn lookup_uid(uid: u32) -> Option<User> {
    let text = read_lossy(Path::new("/etc/passwd"))?;
    // Most lines need not be taken apart.
    let field = format!(":{uid}:");
    let lines = text.lines().filter(|line| line.contains(&field));
    lines.flat_map(users).find(|user| user.uid == uid)
}

/// The group of this machine with the id `gid`, from `/etc/group`.
pub fn lookup_gid(gid: u32) -> Option<Group> {
    let text = read_lossy(Path::new("/etc/group"))?;
    groups(&text).find(|group| group.gid == gid)
}

/// The login name of the user who runs this process.
///
/// From `/etc/passwd` by the real user id; for users that only a directory service knows, what
/// the login put in `USER` or `LOGNAME`.
pub fn current_user_name() -> Option<String> {
    let uid = rustix::process::getuid().as_raw();
    lookup_uid(uid).map(|user| user.name).or_else(|| {
        ["USER", "LOGNAME"]
            .into_iter()
            .filter_map(|name| env::var(name).ok())
            .find(|name| !name.is_empty())
    })
}

/// The home directory of the user who runs this process: `HOME` when it is an absolute path, else
/// what `/etc/passwd` says.
pub fn home_dir() -> Option<PathBuf> {
    let from_env = env::var_os("HOME").map(PathBuf::from);
    from_env.filter(|home| home.is_absolute()).or_else(|| {
        lookup_uid(rustix::process::getuid().as_raw())
            .map(|user| PathBuf::from(user.home))
            .filter(|home| home.is_absolute())
    })
}

/// Where the user's settings are: `XDG_CONFIG_HOME` when it is an absolute path, else `~/.config`.
pub fn config_dir() -> Option<PathBuf> {
    below_home("XDG_CONFIG_HOME", ".config")
}

/// Where what can be had again is kept: `XDG_CACHE_HOME` when it is an absolute path, else `~/.cache`.
pub fn cache_dir() -> Option<PathBuf> {
    below_home("XDG_CACHE_HOME", ".cache")
}

fn below_home(variable: &str, usual: &str) -> Option<PathBuf> {
    let named = env::var_os(variable).map(PathBuf::from);
    let named = named.filter(|path| path.is_absolute());
    named.or_else(|| Some(home_dir()?.join(usual)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_decimals() {
        assert_eq!(parse_id("0"), Some(0));
        assert_eq!(parse_id("4294967294"), Some(4_294_967_294));
        for bad in [
            "",
            "-1",
            "+1",
            " 1",
            "1 ",
            "0x1",
            "4294967295",
            "4294967296",
            "1.0",
            "１",
        ] {
            assert_eq!(parse_id(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn broken_lines_are_skipped() {
        let text = "root:x:0:0:root:/root:/bin/sh\n\n#c:x:1:1:::\n+nis\nshort:x:1:1\n:x:5:5:::\n\
                    neg:x:-1:0:::\nweb:x:33:34:a,b:/var/www:\nlong:x:1:1:::sh:extra\n";
        let names: Vec<_> = users(text)
            .map(|user| (user.name, user.uid, user.gid))
            .collect();
        assert_eq!(names, [("root".into(), 0, 0), ("web".into(), 33, 34)]);
    }

    #[test]
    fn group_members() {
        let text = "root:x:0:\nwheel:x:10:root,web,\nbad:x:y:\n";
        let all: Vec<_> = groups(text).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[1].members, ["root", "web"]);
        assert!(all[0].members.is_empty());
    }

    #[test]
    fn this_user_has_a_home() {
        assert!(home_dir().is_some_and(|home| home.is_absolute()));
    }
}
