//! Finding the working directory and the program, inside the container.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, OFlags, accessat, chownat, stat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::error::{Error, RawError, Result};
use crate::root::{Kind, Root};

/// `PATH` for programs whose environment has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Make the folder `path` of `root`, which is this process's `/`, its working directory.
///
/// A missing folder is created for the user and group of `owner`, when there is one. Magic links
/// of proc are no folders here: one could lead out of the container by a descriptor that is still
/// open.
pub(crate) fn enter(root: &Root, path: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    let shown = || path.display().to_string();
    if !path.is_absolute() {
        return Err(Error::Invalid(format!(
            "the working directory {:?} is not an absolute path",
            shown()
        )));
    }
    let failed = |errno: Errno| Error::Workdir {
        path: shown(),
        errno: errno.raw(),
    };
    let folder = match root.open(path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => match owner {
            Some(owner) => create(root, path, owner).map_err(failed)?,
            None => return Err(Error::NoWorkdir(shown())),
        },
        Err(Errno::NOTDIR) => return Err(Error::NotFolder(shown())),
        result => result.map_err(failed)?,
    };
    rustix::process::fchdir(&folder).map_err(failed)?;
    // The kernel says "(unreachable)" in front of a folder that is not below `/`.
    let name = rustix::process::getcwd(Vec::new()).map_err(failed)?;
    if name.as_bytes().first() == Some(&b'/') {
        Ok(())
    } else {
        Err(failed(Errno::XDEV))
    }
}

fn create(root: &Root, path: &Path, (uid, gid): (u32, u32)) -> rustix::io::Result<OwnedFd> {
    let folder = root.find_or_create(path, Kind::Folder)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    match chownat(&folder, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH) {
        // With a single id everything belongs to it.
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => Ok(folder),
        Err(error) => Err(error),
    }
}

/// The path of the program `name`, which is a path or is looked up in the `PATH` of `variables`.
pub(crate) fn program(name: &str, variables: &[String]) -> Result<String> {
    let refused = |errno: Errno| Error::NotExecutable {
        program: name.to_owned(),
        errno: errno.raw(),
    };
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Error::NotFound(name.to_owned())),
            Err(errno) => Err(refused(errno)),
        };
    }
    let search = variables.iter().find_map(|word| word.strip_prefix("PATH="));
    let mut found = Error::NotFound(name.to_owned());
    for folder in search.unwrap_or(DEFAULT_PATH).split(':') {
        if name.is_empty() {
            break;
        }
        // An empty entry is the working directory.
        let path = match folder {
            "" => format!("./{name}"),
            folder => format!("{folder}/{name}"),
        };
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => found = refused(errno),
        }
    }
    Err(found)
}

fn executable(path: &str) -> rustix::io::Result<()> {
    let found = stat(path)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn programs_are_found_as_execvp_finds_them() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: u32| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        make("first/tool", 0o644);
        make("second/tool", 0o755);
        make("first/plain", 0o644);
        fs::create_dir(folder.path().join("second/folder")).unwrap();
        let base = folder.path().to_str().unwrap();
        let variables = [format!("PATH={base}/first:{base}/none:{base}/second")];
        let find = |name: &str| program(name, &variables);
        assert_eq!(find("tool"), Ok(format!("{base}/second/tool")));
        let denied = |name: &str| Error::NotExecutable {
            program: name.to_owned(),
            errno: libc::EACCES,
        };
        assert_eq!(find("plain"), Err(denied("plain")));
        assert_eq!(find("folder"), Err(denied("folder")));
        assert_eq!(find("ghost"), Err(Error::NotFound("ghost".to_owned())));
        assert_eq!(find(""), Err(Error::NotFound(String::new())));
        let path = format!("{base}/first/tool/x");
        assert_eq!(find(&path), Err(Error::NotFound(path.clone())));
        let path = format!("{base}/second/tool");
        assert_eq!(find(&path), Ok(path.clone()));
    }
}
