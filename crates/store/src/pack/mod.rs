//! From a tree to an archive: what a container changed as a layer, or all of a root file system.
//!
//! Overlay's deletions become those of layers (image-spec, layer.md, "Whiteouts"), the true owners
//! that were noted where there is only one id become owners again, and of extended attributes the
//! archive gets what an image may set. Names come in the order of their bytes, so the same tree
//! always gives the same archive.
//!
//! Call this in a process that is root of a user namespace with the store's id maps.

mod header;

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread::JoinHandle;

use rcon_sys::folders::{Descent, LONGEST_PATH, shown};
use rcon_sys::owner::{TRUE_OWNER, TrueOwner};
use rcon_sys::shift::Shift;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::layered::has_mark;
use crate::owners::Owners;
use crate::stage::names_in;
use crate::store::DIRECTORY;
use crate::unpack::{OPAQUE_XATTR, WHITEOUT_XATTR, is_allowed};
use header::{BLOCK, Head};

/// Bytes read at once.
const BUFFER: usize = 128 * 1024;

/// What a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeForm {
    /// All there is, for example a mounted root file system.
    Whole,
    /// The upper directory of an overlay mount: whiteouts and opaque directories delete.
    Changes,
}

/// Write the tree below `dir` as an archive. Directories of other file systems mounted in it are
/// written, but not entered. What is called as one of `leave_out` (paths relative to `dir`) is left
/// out if it is an empty file or directory, as the places are that something was mounted on.
///
/// # Errors
/// What cannot be read; [`Error::LongPath`] for what lies so deep that no path leads there;
/// [`Error::Stream`] if `out` fails.
pub fn write_tree(
    dir: impl AsFd,
    form: TreeForm,
    leave_out: &[PathBuf],
    out: &mut dyn Write,
) -> Result<()> {
    write_tree_of(dir, form, leave_out, None, out)
}

/// As [`write_tree`], of a container whose ids are others than those of this process.
///
/// # Errors
/// As [`write_tree`].
pub fn write_tree_of(
    dir: impl AsFd,
    form: TreeForm,
    leave_out: &[PathBuf],
    shift: Option<&Shift>,
    out: &mut dyn Write,
) -> Result<()> {
    let what = || "cannot read the files of the container";
    let root = rustix::fs::openat(dir, ".", DIRECTORY, Mode::empty()).context(what)?;
    let device = rustix::fs::fstat(&root).context(what)?.st_dev;
    let mut walk = Walk {
        out,
        form,
        shift,
        owners: match form {
            TreeForm::Whole => Owners::default(),
            TreeForm::Changes => Owners::beside(&root).context(what)?,
        },
        leave_out: leave_out
            .iter()
            .map(|path| path.as_os_str().as_bytes().to_vec())
            .collect(),
        device,
        linked: HashMap::new(),
        buffer: vec![0; BUFFER],
    };
    walk.all(root)?;
    out.write_all(&[0; 2 * BLOCK]).map_err(Error::Stream)
}

struct Walk<'a> {
    out: &'a mut dyn Write,
    form: TreeForm,
    shift: Option<&'a Shift>,
    /// Of what takes no attributes.
    owners: Owners,
    leave_out: BTreeSet<Vec<u8>>,
    device: u64,
    /// Files with several names, and the first of these.
    linked: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

/// A directory on the way down.
struct Level {
    names: std::vec::IntoIter<OsString>,
    /// How much of the path is its own.
    path: usize,
}

impl Level {
    fn of(dir: &OwnedFd, path: &[u8]) -> Result<Self> {
        let mut names = names_in(dir).map_err(|error| unreadable(path, error))?;
        names.sort();
        Ok(Self {
            names: names.into_iter(),
            path: path.len(),
        })
    }
}

/// What an entry becomes.
struct Found<'a> {
    path: &'a [u8],
    stat: &'a Stat,
    /// The open file or directory, if it is one.
    file: Option<&'a OwnedFd>,
    /// Whose it is, where that is not known from the file itself.
    noted: Option<TrueOwner>,
}

impl Walk<'_> {
    fn all(&mut self, root: OwnedFd) -> Result<()> {
        let mut path = Vec::new();
        let mut levels = vec![Level::of(&root, &path)?];
        let mut way = Descent::new(root);
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path);
            let Some(name) = level.names.next() else {
                levels.pop();
                way.leave().map_err(|error| unreadable(&path, error))?;
                continue;
            };
            path.extend_from_slice(name.as_bytes());
            if path.len() > LONGEST_PATH {
                return Err(Error::LongPath(shown(&path)));
            }
            if let Some(inner) = self.entry(way.here(), &name, &mut path)? {
                levels.push(Level::of(&inner, &path)?);
                way.enter(inner).map_err(|error| unreadable(&path, error))?;
            }
        }
        Ok(())
    }

    /// Write an entry; the directory it is, if that is to be entered.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &mut Vec<u8>,
    ) -> Result<Option<OwnedFd>> {
        let failed = |error| unreadable(path, error);
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // The container may run, and remove what it made.
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(failed)?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let open = |flags: OFlags| {
            let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::empty())
        };
        match kind {
            FileType::Directory => {
                let dir = match open(OFlags::DIRECTORY) {
                    Err(Errno::NOENT) => return Ok(None),
                    other => other.map_err(failed)?,
                };
                if self.leave_out.contains(&path[..]) && names_in(&dir).is_ok_and(|n| n.is_empty())
                {
                    return Ok(None);
                }
                let noted = self.owners.beside_of(&dir, OsStr::new(""), &stat);
                let noted = noted.map_err(failed)?;
                path.push(b'/');
                let found = Found {
                    path,
                    stat: &stat,
                    file: Some(&dir),
                    noted,
                };
                self.head(&found, b'5', b"", 0)?;
                if self.form == TreeForm::Changes && has_mark(&dir, OPAQUE_XATTR, b"y") {
                    self.deletion(&[path, &b".wh..wh..opq"[..]].concat())?;
                }
                // What is mounted there is not part of this tree.
                return Ok((stat.st_dev == self.device).then_some(dir));
            }
            FileType::RegularFile => {
                if stat.st_size == 0 && self.leave_out.contains(&path[..]) {
                    return Ok(None);
                }
                if self.known(path, &stat)? {
                    return Ok(None);
                }
                let file = match open(OFlags::NONBLOCK) {
                    Err(Errno::NOENT) => {
                        // Its other names are no links to this one.
                        self.linked.remove(&(stat.st_dev, stat.st_ino));
                        return Ok(None);
                    }
                    other => other.map_err(failed)?,
                };
                if self.form == TreeForm::Changes
                    && stat.st_size == 0
                    && has_mark(&file, WHITEOUT_XATTR, b"")
                {
                    self.deletion(&whiteout(path, name))?;
                } else {
                    self.file(path, &stat, file)?;
                }
            }
            FileType::Symlink => {
                if self.known(path, &stat)? {
                    return Ok(None);
                }
                let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(failed)?;
                let found = Found {
                    path,
                    stat: &stat,
                    file: None,
                    noted: self.owners.beside_of(parent, name, &stat).map_err(failed)?,
                };
                self.head(&found, b'2', target.to_bytes(), 0)?;
            }
            FileType::CharacterDevice if stat.st_rdev == 0 && self.form == TreeForm::Changes => {
                self.deletion(&whiteout(path, name))?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                let kind = match kind {
                    FileType::CharacterDevice => b'3',
                    FileType::BlockDevice => b'4',
                    _ => b'6',
                };
                let found = Found {
                    path,
                    stat: &stat,
                    file: None,
                    noted: self.owners.beside_of(parent, name, &stat).map_err(failed)?,
                };
                self.head(&found, kind, b"", 0)?;
            }
            // A socket without its program is of no use, and archives know none.
            _ => {}
        }
        Ok(None)
    }

    /// Write a hard link if this is another name of a file that was written.
    fn known(&mut self, path: &[u8], stat: &Stat) -> Result<bool> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        let key = (stat.st_dev, stat.st_ino);
        let Some(first) = self.linked.get(&key).cloned() else {
            self.linked.insert(key, path.to_vec());
            return Ok(false);
        };
        let found = Found {
            path,
            stat,
            file: None,
            noted: None,
        };
        self.head(&found, b'1', &first, 0)?;
        Ok(true)
    }

    fn file(&mut self, path: &[u8], stat: &Stat, file: OwnedFd) -> Result<()> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let found = Found {
            path,
            stat,
            file: Some(&file),
            noted: self
                .owners
                .beside_of(&file, OsStr::new(""), stat)
                .map_err(|error| unreadable(path, error))?,
        };
        if let Some(device) = noted_owner(&file).and_then(|owner| owner.device) {
            let kind = if device.block { b'4' } else { b'3' };
            return self.head(&found, kind, b"", 0);
        }
        self.head(&found, b'0', b"", size)?;
        let mut file = File::from(file);
        let mut left = size;
        while left > 0 {
            let want = left.min(self.buffer.len() as u64) as usize;
            let count = match file.read(&mut self.buffer[..want]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other
                    .map_err(|error| Error::io(format!("cannot read {}", shown(path)), error))?,
            };
            if count == 0 {
                // It became shorter meanwhile: zeros, as all archivers do.
                self.buffer[..want].fill(0);
            }
            let count = if count == 0 { want } else { count };
            self.put(|out, buffer| out.write_all(&buffer[..count]))?;
            left -= count as u64;
        }
        self.put(|out, _| header::fill(out, size))
    }

    /// An entry that deletes.
    fn deletion(&mut self, path: &[u8]) -> Result<()> {
        let head = Head {
            kind: b'0',
            name: path,
            link: b"",
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            device: (0, 0),
            xattrs: &[],
        };
        self.put(|out, _| head.write(out))
    }

    fn head(&mut self, found: &Found<'_>, kind: u8, link: &[u8], size: u64) -> Result<()> {
        let stat = found.stat;
        let attributes = match found.file {
            Some(file) => attributes(file).map_err(|error| unreadable(found.path, error))?,
            None => Vec::new(),
        };
        let noted = attributes
            .iter()
            .find(|(name, _)| name == TRUE_OWNER.as_bytes())
            .and_then(|(_, value)| TrueOwner::decode(value))
            .or(found.noted)
            // What belongs to somebody else really does.
            .filter(|_| {
                found.noted.is_none()
                    || self.shift.is_some()
                    || (stat.st_uid, stat.st_gid) == (0, 0)
            });
        let (uid, gid) = match noted {
            Some(owner) => (owner.uid, owner.gid),
            None => match self.shift {
                Some(shift) => (shift.uid_inside(stat.st_uid), shift.gid_inside(stat.st_gid)),
                None => (stat.st_uid, stat.st_gid),
            },
        };
        let mut xattrs = attributes;
        // A name with an equals sign in it would be read as a shorter one.
        xattrs.retain(|(name, _)| kind != b'1' && is_allowed(name) && !name.contains(&b'='));
        xattrs.sort();
        let number = noted
            .and_then(|owner| owner.device)
            .map_or(stat.st_rdev, |device| device.number);
        let device = match kind {
            b'3' | b'4' => (rustix::fs::major(number), rustix::fs::minor(number)),
            _ => (0, 0),
        };
        let head = Head {
            kind,
            name: found.path,
            link,
            mode: stat.st_mode & 0o7777,
            uid: uid.into(),
            gid: gid.into(),
            size,
            mtime: stat.st_mtime,
            device,
            xattrs: &xattrs,
        };
        self.put(|out, _| head.write(out))
    }

    fn put(&mut self, put: impl FnOnce(&mut dyn Write, &[u8]) -> io::Result<()>) -> Result<()> {
        put(self.out, &self.buffer).map_err(Error::Stream)
    }
}

/// The name that deletes the last part of `path`.
fn whiteout(path: &[u8], name: &OsStr) -> Vec<u8> {
    let dir = &path[..path.len() - name.len()];
    [dir, b".wh.", name.as_bytes()].concat()
}

/// What the file itself says of its owner.
fn noted_owner(file: &OwnedFd) -> Option<TrueOwner> {
    let mut value = [0_u8; 64];
    let len = rustix::fs::fgetxattr(file, TRUE_OWNER, &mut value[..]).ok()?;
    TrueOwner::decode(&value[..len])
}

/// All extended attributes of a file.
pub(crate) fn attributes(file: impl AsFd) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // The kernel's limits (xattr(7)).
    let mut names = vec![0_u8; 64 * 1024];
    let len = match rustix::fs::flistxattr(&file, &mut names[..]) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut all = Vec::new();
    let mut buffer = Vec::new();
    for name in names[..len].split(|&byte| byte == 0) {
        if name.is_empty() {
            continue;
        }
        buffer.resize(64 * 1024, 0);
        match rustix::fs::fgetxattr(&file, OsStr::from_bytes(name), &mut buffer[..]) {
            Ok(len) => all.push((name.to_vec(), buffer[..len].to_vec())),
            // Not for us, or gone.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn unreadable(path: &[u8], error: Errno) -> Error {
    Error::io(format!("cannot read /{}", shown(path)), error)
}

/// The archive of a tree as a stream that another thread writes. It only ends if all of it was
/// written: what went wrong there is the error here.
#[derive(Debug)]
pub struct TreeReader {
    pipe: Option<PipeReader>,
    writer: Option<JoinHandle<Result<()>>>,
}

impl TreeReader {
    /// As [`write_tree_of`].
    ///
    /// # Errors
    /// When there is no descriptor or no thread to be had.
    pub fn new(
        dir: OwnedFd,
        form: TreeForm,
        leave_out: Vec<PathBuf>,
        shift: Option<Shift>,
    ) -> Result<Self> {
        let what = || "cannot start a thread";
        let (pipe, end) = io::pipe().context(what)?;
        let writer = std::thread::Builder::new()
            .name("pack".to_owned())
            .spawn(move || {
                let mut out = BufWriter::with_capacity(BUFFER, end);
                write_tree_of(&dir, form, &leave_out, shift.as_ref(), &mut out)?;
                out.flush().map_err(Error::Stream)
            })
            .context(what)?;
        Ok(Self {
            pipe: Some(pipe),
            writer: Some(writer),
        })
    }
}

impl Read for TreeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.pipe {
            Some(pipe) => pipe.read(buffer)?,
            None => 0,
        };
        if count == 0
            && !buffer.is_empty()
            && let Some(writer) = self.writer.take()
        {
            match writer.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(io::Error::other(error)),
                Err(_) => {
                    return Err(io::Error::other(
                        "the thread that read the files broke down",
                    ));
                }
            }
        }
        Ok(count)
    }
}

impl Drop for TreeReader {
    fn drop(&mut self) {
        // Its next write fails.
        self.pipe = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests;
