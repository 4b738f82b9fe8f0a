//! Users by their names, as the files of a container have them.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Opens a path in the root of a container, as the container would.
pub(crate) fn open_inside(
    root: &OwnedFd,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), inside) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The ids of `user[:group]`, names looked up in the container; those of root for what is not there.
pub(crate) fn user_ids(root: &OwnedFd, user: &str) -> (u32, u32) {
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    let lines = |path: &str| {
        let file = open_inside(root, Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK);
        let mut text = Vec::new();
        if let Ok(file) = file {
            let _ = File::from(file).take(1 << 20).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    let find = |path: &str, name: &str, field: usize| {
        let text = lines(path);
        let line = text.lines().find(|line| {
            let mut fields = line.split(':');
            let first = fields.next();
            first == Some(name) || (fields.nth(1) == Some(name) && !name.is_empty())
        })?;
        line.split(':').nth(field)?.parse::<u32>().ok()
    };
    if user.is_empty() {
        return (0, 0);
    }
    let uid = user.parse().ok().or_else(|| find("/etc/passwd", user, 2));
    let gid = match group {
        "" => find("/etc/passwd", user, 3),
        group => group.parse().ok().or_else(|| find("/etc/group", group, 2)),
    };
    (uid.unwrap_or(0), gid.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_looked_up_in_the_container() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "web:x:33:34::/:/bin/sh\n").unwrap();
        std::fs::write(dir.path().join("etc/group"), "staff:x:50:\n").unwrap();
        let root: OwnedFd = File::open(dir.path()).unwrap().into();
        for (user, ids) in [
            ("", (0, 0)),
            ("web", (33, 34)),
            ("33", (33, 34)),
            ("web:staff", (33, 50)),
            ("7:8", (7, 8)),
            ("9", (9, 0)),
            ("nobody", (0, 0)),
        ] {
            assert_eq!(user_ids(&root, user), ids, "{user}");
        }
    }
}
