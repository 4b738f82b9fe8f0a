//! What a container's own files say of users and groups: who its program runs as has a line in `/etc/passwd`, as podman
//! has it, and so have users of the host who are wanted there.
//!
//! The files of the image stay as they are; what is changed is mounted over them.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use rcon_sys::mount;
use rcon_sys::passwd;

use crate::error::{Context, Result};
use crate::root::{Kind, Root};

/// The longest passwd or group file that is gone on from, in bytes.
const MOST: u64 = 8 << 20;

/// A user who is to be known in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id, in the container.
    pub uid: u32,
    /// Group id, in the container.
    pub gid: u32,
    /// The name of the group.
    pub group: String,
    /// The full name.
    pub about: String,
    /// The home directory; it holds only where the container has it.
    pub home: String,
}

/// What is to be said of users beside what an image says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Where the files are kept that are mounted; the container's root must be able to enter it.
    pub folder: PathBuf,
    /// Users of the host.
    pub users: Vec<Account>,
    /// How the line of the container's own user is to look: `$USERNAME`, `$UID`, `$GID`, `$NAME` and `$HOME` are put in.
    pub passwd_entry: Option<String>,
    /// How the line of its group is to look: `$GROUPNAME`, `$GID` and `$USERLIST` are put in.
    pub group_entry: Option<String>,
}

/// The files that are to be mounted, and who they are for.
pub(crate) struct Opened<'a> {
    accounts: &'a Accounts,
    name: &'a str,
    group: &'a str,
    passwd: (File, OwnedFd),
    groups: (File, OwnedFd),
}

impl Accounts {
    /// Make the files, if anything is to be said of the user `user` or of others; by who owns the folder.
    pub(crate) fn open<'a>(&'a self, user: Option<&'a str>) -> Result<Option<Opened<'a>>> {
        let user = user.unwrap_or_default();
        let (name, group) = user.split_once(':').unwrap_or((user, ""));
        // Who is named is there already, and so is root.
        let is_unknown = |text: &str| passwd::parse_id(text).is_some_and(|id| id != 0);
        if !is_unknown(name) && !is_unknown(group) && self.users.is_empty() {
            return Ok(None);
        }
        let open = |name: &str| -> Result<(File, OwnedFd)> {
            let path = self.folder.join(name);
            let step = || format!("cannot make {}", path.display());
            let file = File::create(&path).context(step)?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            file.set_permissions(mode).context(step)?;
            let tree = mount::copy_of_path(&path, false).context(step)?;
            Ok((file, tree))
        };
        Ok(Some(Opened {
            accounts: self,
            name,
            group,
            passwd: open("passwd")?,
            groups: open("group")?,
        }))
    }
}

impl Opened<'_> {
    /// Add the lines that are missing in `root`, in which everything is mounted already.
    pub(crate) fn add(self, root: &Root, spec: &Spec, process: &Process) -> Result<()> {
        let (name, group) = (self.name, self.group);
        let number = passwd::parse_id(name).filter(|uid| *uid != 0);
        let group_number = passwd::parse_id(group).filter(|gid| *gid != 0);
        let read = |path: &str| root.read(Path::new(path), MOST);
        let passwd = read("/etc/passwd").ok().flatten();
        let groups = read("/etc/group").ok().flatten();
        let (passwd, groups) = (passwd.unwrap_or_default(), groups.unwrap_or_default());
        let home = process.cwd().display().to_string();
        let mut lines = String::new();
        let mut group_lines = String::new();
        for account in &self.accounts.users {
            self.accounts
                .user(account, spec, &home, &passwd, &mut lines);
            let known = passwd::groups(&groups)
                .any(|known| known.gid == account.gid || known.name == account.group);
            if !known && is_word(&account.group) {
                self.accounts
                    .group(&account.group, account.gid, &account.name, &mut group_lines);
            }
        }
        let known_group = |gid: u32| {
            [&groups, &group_lines]
                .into_iter()
                .any(|text| passwd::groups(text).any(|known| known.gid == gid))
        };
        let gid = match (group, group_number) {
            ("", _) => Some(0),
            (_, Some(gid)) => Some(gid),
            (name, None) => passwd::groups(&groups)
                .find(|known| known.name == name)
                .map(|known| known.gid),
        };
        let there = |uid: u32| {
            [&passwd, &lines]
                .into_iter()
                .any(|text| passwd::users(text).any(|known| known.uid == uid || known.name == name))
        };
        if let (Some(uid), Some(gid)) = (number, gid)
            && !there(uid)
        {
            let entry = Account {
                name: uid.to_string(),
                uid,
                gid,
                group: String::new(),
                about: "container user".to_owned(),
                home: home.clone(),
            };
            self.accounts.line(&entry, &mut lines);
        }
        if let Some(gid) = group_number
            && !known_group(gid)
        {
            self.accounts
                .group(&gid.to_string(), gid, name, &mut group_lines);
        }
        put(self.passwd, root, spec, "/etc/passwd", &passwd, &lines)?;
        put(self.groups, root, spec, "/etc/group", &groups, &group_lines)
    }
}

impl Accounts {
    /// The line of a user of the host, unless the container has such a user already.
    fn user(&self, account: &Account, spec: &Spec, cwd: &str, passwd: &str, lines: &mut String) {
        let known = passwd::users(passwd)
            .any(|known| known.uid == account.uid || known.name == account.name);
        let fields = [&account.name, &account.about, &account.home];
        if known || fields.iter().any(|field| !is_field(field)) || !is_word(&account.name) {
            return;
        }
        // Of the host's homes only one that is mounted is there.
        let mut mounts = spec.mounts().iter().flatten();
        let has_home = mounts.any(|mount| {
            mount.destination() != Path::new("/")
                && Path::new(&account.home).starts_with(mount.destination())
        });
        let entry = match has_home {
            true => account.clone(),
            false => Account {
                home: cwd.to_owned(),
                ..account.clone()
            },
        };
        self.line(&entry, lines);
    }

    fn line(&self, account: &Account, lines: &mut String) {
        let Account {
            name,
            uid,
            gid,
            about,
            home,
            ..
        } = account;
        let line = match &self.passwd_entry {
            Some(entry) => entry
                .replace("$USERNAME", name)
                .replace("$UID", &uid.to_string())
                .replace("$GID", &gid.to_string())
                .replace("$NAME", about)
                .replace("$HOME", home),
            None => format!("{name}:*:{uid}:{gid}:{about}:{home}:/bin/sh"),
        };
        lines.push_str(line.trim_end_matches('\n'));
        lines.push('\n');
    }

    fn group(&self, name: &str, gid: u32, member: &str, lines: &mut String) {
        let line = match &self.group_entry {
            Some(entry) => entry
                .replace("$GROUPNAME", name)
                .replace("$GID", &gid.to_string())
                .replace("$USERLIST", member),
            None => format!("{name}:x:{gid}:{member}"),
        };
        lines.push_str(line.trim_end_matches('\n'));
        lines.push('\n');
    }
}

/// Mount the file with further lines over the one at `place`, where the user has mounted nothing there.
fn put(
    (mut file, tree): (File, OwnedFd),
    root: &Root,
    spec: &Spec,
    place: &str,
    text: &str,
    lines: &str,
) -> Result<()> {
    let mut mounts = spec.mounts().iter().flatten();
    if lines.is_empty() || mounts.any(|mount| mount.destination() == Path::new(place)) {
        return Ok(());
    }
    let step = || format!("cannot make {place} of the container");
    let end = match text.is_empty() || text.ends_with('\n') {
        true => "",
        false => "\n",
    };
    file.write_all(format!("{text}{end}{lines}").as_bytes())
        .context(step)?;
    let target = root
        .find_or_create(Path::new(place), Kind::File)
        .context(step)?;
    mount::attach(&tree, &target).context(step)
}

/// Whether it can stand in a field of such a file.
fn is_field(text: &str) -> bool {
    !text.contains([':', '\n'])
}

fn is_word(text: &str) -> bool {
    is_field(text) && !text.is_empty() && !text.contains(char::is_whitespace)
}
