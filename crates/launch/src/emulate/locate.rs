//! Finding the file that a caller means.
//!
//! This process is root in the caller's user and mount namespace, has the root of the container as
//! its own and the `/proc` of outside as its working directory. So a path from the caller's root is
//! used as it is, and one from its working directory or a descriptor by way of `THREAD/cwd` and
//! `THREAD/fd/N`: the kernel resolves all of it as it would have for the caller. What is changed
//! is first pinned by a descriptor, on a way without magic links: these would lead to what only
//! this process may see.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rcon_sys::notify;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::calls::At;

/// Where files are looked for.
#[derive(Debug)]
pub(super) struct Places {
    root: OwnedFd,
    proc: OwnedFd,
    /// Some process may have another root than the container's.
    pub(super) roots_differ: bool,
}

/// Where a name begins.
#[derive(Clone, Copy, Debug)]
enum Base {
    /// At the root.
    Root,
    /// At the working directory of this thread.
    Folder(i32),
    /// At a descriptor of this thread.
    Fd(i32, i32),
}

impl Base {
    /// Below `/proc`; the root has none.
    fn path(self) -> Option<String> {
        match self {
            Base::Root => None,
            Base::Folder(thread) => Some(format!("{thread}/cwd")),
            Base::Fd(thread, fd) => Some(format!("{thread}/fd/{fd}")),
        }
    }
}

/// Names for the processes that call, which last longer than a call.
#[derive(Debug, Default)]
pub(super) struct Callers(HashMap<i32, OwnedFd>);

impl Callers {
    /// A copy of descriptor `fd` of `thread`.
    fn copy(&mut self, thread: i32, fd: i32) -> io::Result<OwnedFd> {
        /// Those who do not come back are forgotten with the rest.
        const MOST: usize = 64;
        if let Some(pidfd) = self.0.get(&thread) {
            match notify::copy_fd(pidfd.as_fd(), fd) {
                // It ended, and another has its number.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => return other,
            }
        }
        let pidfd = pidfd(thread)?;
        let copy = notify::copy_fd(pidfd.as_fd(), fd);
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(thread, pidfd);
        copy
    }
}

/// A descriptor of `thread` itself.
pub(super) fn pidfd(thread: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(thread).ok_or(Errno::SRCH)?;
    // A thread that is not the first of its process (PIDFD_THREAD, Linux 6.9).
    let one = PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .or_else(|_| rustix::process::pidfd_open(pid, one))?;
    Ok(pidfd)
}

/// A file by its name.
#[derive(Clone, Debug)]
pub(super) struct Named {
    base: Base,
    /// From there, or from the root.
    rest: Vec<u8>,
    /// A link at the end is followed.
    pub(super) follow: bool,
}

/// While this lives, the root of this process is that of a caller.
#[derive(Debug)]
pub(super) struct OtherRoot<'a>(&'a Places);

impl Places {
    /// Of a process whose root and working directory are as they should be.
    pub(super) fn new() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: openat(CWD, "/", flags, Mode::empty())?,
            proc: openat(CWD, ".", flags, Mode::empty())?,
            roots_differ: false,
        })
    }

    /// Take on the root of `thread`, if it is another one.
    pub(super) fn enter(&self, thread: i32) -> io::Result<Option<OtherRoot<'_>>> {
        if !self.roots_differ {
            return Ok(None);
        }
        let same = |path: String| -> io::Result<(u64, u64)> {
            let path = CString::new(path)?;
            let mask = libc::STATX_INO | libc::STATX_MNT_ID;
            let stat = notify::status_x(&path, 0, mask)?;
            Ok((stat.stx_ino, stat.stx_mnt_id))
        };
        if same(format!("{thread}/root"))? == same("/".to_owned())? {
            return Ok(None);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let theirs = openat(CWD, format!("{thread}/root"), flags, Mode::empty())?;
        self.change(theirs.as_fd())?;
        Ok(Some(OtherRoot(self)))
    }

    fn change(&self, root: BorrowedFd<'_>) -> rustix::io::Result<()> {
        rustix::process::fchdir(root)?;
        let changed = rustix::process::chroot(".");
        rustix::process::fchdir(&self.proc)?;
        changed
    }
}

impl Drop for OtherRoot<'_> {
    fn drop(&mut self) {
        // The root that we came with; it cannot have become unusable.
        let _ = self.0.change(self.0.root.as_fd());
    }
}

impl Named {
    /// The file that `thread` means by `at`.
    pub(super) fn read(thread: i32, at: &At) -> io::Result<Self> {
        let mut buffer = [0; 4096];
        let path = match at.path {
            0 if at.empty => &[][..],
            address => {
                let len = notify::read_text(thread, address, &mut buffer)?;
                &buffer[..len]
            }
        };
        if path.is_empty() && !at.empty {
            return Err(Errno::NOENT.into());
        }
        let (base, rest) = match path {
            [b'/', ..] => match stream(path).filter(|_| at.follow) {
                Some(fd) => (Base::Fd(thread, fd.cast_signed()), &[][..]),
                None => (Base::Root, path),
            },
            path => match at.dir {
                libc::AT_FDCWD => (Base::Folder(thread), path),
                fd => (Base::Fd(thread, fd), path),
            },
        };
        Ok(Self {
            base,
            rest: rest.to_vec(),
            follow: at.follow || rest.is_empty(),
        })
    }

    /// Its path for a call that follows or does not, as [`Named::follow`] says.
    pub(super) fn path(&self) -> io::Result<CString> {
        let mut path = Vec::with_capacity(self.rest.len() + 24);
        if let Some(base) = self.base.path() {
            path.extend_from_slice(base.as_bytes());
            if !self.rest.is_empty() {
                path.push(b'/');
            }
        }
        path.extend_from_slice(&self.rest);
        Ok(CString::new(path)?)
    }

    /// The limits of the process whose directory in `/proc` it is.
    pub(super) fn process(&self) -> Option<String> {
        let number = match self.base {
            Base::Root => std::str::from_utf8(&self.rest)
                .ok()?
                .strip_prefix("/proc/")?,
            _ => return None,
        };
        let number = number.trim_end_matches('/');
        let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| format!("/proc/{number}/limits"))
    }

    /// A copy of the descriptor that it is meant by, if it is meant by one.
    pub(super) fn copy(&self, callers: &mut Callers) -> Option<OwnedFd> {
        match self.base {
            Base::Fd(thread, fd) if self.rest.is_empty() => callers.copy(thread, fd).ok(),
            _ => None,
        }
    }

    /// A descriptor (`O_PATH`) of it.
    pub(super) fn pin(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let base = match self.base.path() {
            Some(base) => Some(openat(CWD, base.as_str(), flags, Mode::empty())?),
            None => None,
        };
        match (base, self.rest.is_empty()) {
            (Some(base), true) => Ok(base),
            (base, _) => self.open_from(base.as_ref(), OFlags::PATH),
        }
    }

    /// A descriptor of it, to note something on: an open one where that is no more than a look,
    /// since much is quicker done with such. Else, and for what is no file or directory, as
    /// [`Named::pin`].
    pub(super) fn pin_open(&self, callers: &mut Callers) -> rustix::io::Result<OwnedFd> {
        let base = match self.base {
            Base::Fd(thread, fd) => match callers.copy(thread, fd) {
                Ok(copy) => Some(copy),
                Err(_) => return self.pin(),
            },
            Base::Folder(_) if self.rest.is_empty() => return self.pin(),
            Base::Folder(thread) => {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                Some(openat(CWD, format!("{thread}/cwd"), flags, Mode::empty())?)
            }
            Base::Root => None,
        };
        let base = match (base, self.rest.is_empty()) {
            (Some(base), true) => return Ok(base),
            (base, _) => base,
        };
        let from = base.as_ref().map_or(CWD, AsFd::as_fd);
        let follow = match self.follow {
            true => AtFlags::empty(),
            false => AtFlags::SYMLINK_NOFOLLOW,
        };
        let plain = statat(from, &self.rest[..], follow).is_ok_and(|stat| {
            let kind = FileType::from_raw_mode(stat.st_mode);
            matches!(kind, FileType::RegularFile | FileType::Directory)
        });
        // Should it have become something else meanwhile, this neither waits nor takes a terminal.
        let look = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        if plain && let Ok(file) = self.open_from(base.as_ref(), look) {
            return Ok(file);
        }
        self.open_from(base.as_ref(), OFlags::PATH)
    }

    fn open_from(&self, base: Option<&OwnedFd>, how: OFlags) -> rustix::io::Result<OwnedFd> {
        let from = base.map_or(CWD, AsFd::as_fd);
        let last = match self.follow {
            true => OFlags::empty(),
            false => OFlags::NOFOLLOW,
        };
        let flags = how | last | OFlags::CLOEXEC;
        loop {
            let resolve = ResolveFlags::NO_MAGICLINKS;
            match openat2(from, &self.rest[..], flags, Mode::empty(), resolve) {
                // Not EAGAIN: that is a lease on the file, which may be there for long.
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// The directory it is in, pinned, and its name there; `None` for what has no name of its own.
    pub(super) fn split(&self) -> rustix::io::Result<Option<(OwnedFd, Vec<u8>)>> {
        let end = self.rest.iter().rposition(|byte| *byte != b'/');
        let Some(end) = end else { return Ok(None) };
        let whole = &self.rest[..=end];
        let (dir, name) = match whole.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&whole[..=slash], &whole[slash + 1..]),
            None => (&[][..], whole),
        };
        if name == b"." || name == b".." {
            return Ok(None);
        }
        let parent = Self {
            base: self.base,
            rest: dir.to_vec(),
            follow: true,
        };
        Ok(Some((parent.pin()?, name.to_vec())))
    }
}

/// The descriptor of the caller that a well-known path leads to.
fn stream(path: &[u8]) -> Option<u32> {
    let path = std::str::from_utf8(path).ok()?;
    match path {
        "/dev/stdin" => Some(0),
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        path => path
            .strip_prefix("/proc/self/fd/")
            .or_else(|| path.strip_prefix("/dev/fd/"))?
            .parse()
            .ok(),
    }
}

/// The path of a descriptor of this process, for calls that take no descriptors like it.
pub(super) fn path_of(fd: impl AsFd) -> String {
    format!("self/fd/{}", fd.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_known_by_their_paths() {
        for (path, fd) in [
            ("/dev/stdout", Some(1)),
            ("/proc/self/fd/7", Some(7)),
            ("/dev/fd/10", Some(10)),
            ("/proc/self/fd/7/x", None),
            ("/proc/1/fd/7", None),
            ("/dev/null", None),
        ] {
            assert_eq!(stream(path.as_bytes()), fd, "{path}");
        }
    }

    fn named(rest: &str) -> Named {
        Named {
            base: Base::Root,
            rest: rest.as_bytes().to_vec(),
            follow: false,
        }
    }

    #[test]
    fn processes_are_known_by_their_directories() {
        for (path, limits) in [
            ("/proc/17", Some("/proc/17/limits")),
            ("/proc/17/", Some("/proc/17/limits")),
            ("/proc/17/exe", None),
            ("/proc/", None),
            ("/proc/self", None),
        ] {
            assert_eq!(named(path).process().as_deref(), limits, "{path}");
        }
    }

    #[test]
    fn names_have_parents() {
        let name = |rest: &str| named(rest).split().unwrap().map(|(_, name)| name);
        assert_eq!(name("/tmp/x"), Some(b"x".to_vec()));
        assert_eq!(name("/x//"), Some(b"x".to_vec()));
        assert_eq!(name("/"), None);
        assert_eq!(name("/tmp/.."), None);
    }
}
