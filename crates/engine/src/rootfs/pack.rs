//! A file or a directory as an archive, for copying.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rcon_sys::folders::{Descent, LONGEST_PATH, names_in};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat};
use rustix::io::Errno;

/// Says whose a file is to be, by its status: the one that a descriptor is open on, or the one of that name in the
/// directory. `None` leaves it out.
pub(crate) type Whose<'a> =
    dyn Fn(BorrowedFd<'_>, Option<&OsStr>, &Stat) -> Option<(u32, u32)> + 'a;

/// Writes what `source` is open on to `out`, under the name `top` (nothing for the content of a directory). `owner` says
/// whose a file is to be.
pub(crate) fn pack(
    source: OwnedFd,
    top: &Path,
    owner: &Whose<'_>,
    out: impl Write,
) -> io::Result<()> {
    let mut packer = Packer {
        archive: tar::Builder::new(io::BufWriter::with_capacity(128 * 1024, out)),
        owner,
        linked: HashMap::new(),
    };
    let stat = rustix::fs::fstat(&source)?;
    let file = (packer.owner)(source.as_fd(), None, &stat).map(|owner| Entry { stat, owner });
    match (file, kind(&stat)) {
        (None, _) => {}
        (Some(dir), FileType::Directory) => packer.tree(source, &dir, top)?,
        (Some(file), _) => packer.file(source, &file, top)?,
    }
    packer.archive.into_inner()?.flush()
}

struct Packer<'a, W: Write> {
    archive: tar::Builder<W>,
    owner: &'a Whose<'a>,
    /// Files with several names, and the first of these.
    linked: HashMap<(u64, u64), PathBuf>,
}

/// What the header of a file says.
struct Entry {
    stat: Stat,
    owner: (u32, u32),
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode as RawMode)
}

impl<W: Write> Packer<'_, W> {
    fn tree(&mut self, dir: OwnedFd, entry: &Entry, path: &Path) -> io::Result<()> {
        let mut path = path.to_path_buf();
        let mut levels = vec![self.dir(&dir, entry, &path)?.into_iter()];
        let mut way = Descent::new(dir);
        while let Some(names) = levels.last_mut() {
            let Some(name) = names.next() else {
                levels.pop();
                way.leave()?;
                path.pop();
                continue;
            };
            path.push(&name);
            if path.as_os_str().len() > LONGEST_PATH {
                return Err(io::Error::other(format!(
                    "something in it lies so deep that its path has more bytes than the {LONGEST_PATH} that a path can \
                     have"
                )));
            }
            match self.entry(way.here(), &name, &path)? {
                Some((inner, entry)) => {
                    levels.push(self.dir(&inner, &entry, &path)?.into_iter());
                    way.enter(inner)?;
                }
                None => {
                    path.pop();
                }
            }
        }
        Ok(())
    }

    /// Writes the entry of a directory; the names in it.
    fn dir(&mut self, dir: &OwnedFd, entry: &Entry, path: &Path) -> io::Result<Vec<OsString>> {
        if !path.as_os_str().is_empty() {
            let mut header = header(entry, tar::EntryType::Directory);
            self.archive.append_data(&mut header, path, io::empty())?;
        }
        let mut names = names_in(dir)?;
        names.sort();
        Ok(names)
    }

    /// Writes what is no directory; what is one is left to the caller.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> io::Result<Option<(OwnedFd, Entry)>> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Removed since its name was read.
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let Some(owner) = (self.owner)(parent, Some(name), &stat) else {
            return Ok(None);
        };
        let own = Entry { stat, owner };
        let entry = &own;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |more| rustix::fs::openat(parent, name, flags | more, Mode::empty());
        match kind(&stat) {
            FileType::Directory => return Ok(Some((open(OFlags::DIRECTORY)?, own))),
            FileType::RegularFile => {
                let key = (stat.st_dev, stat.st_ino);
                if stat.st_nlink > 1 {
                    if let Some(first) = self.linked.get(&key).cloned() {
                        let mut header = header(entry, tar::EntryType::Link);
                        self.archive.append_link(&mut header, path, first)?;
                        return Ok(None);
                    }
                    self.linked.insert(key, path.to_path_buf());
                }
                self.file(open(OFlags::empty())?, entry, path)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                let target = OsStr::from_bytes(target.to_bytes());
                let mut header = header(entry, tar::EntryType::Symlink);
                self.archive
                    .append_link(&mut header, path, Path::new(target))?;
            }
            FileType::Fifo => {
                let mut header = header(entry, tar::EntryType::Fifo);
                self.archive.append_data(&mut header, path, io::empty())?;
            }
            // Devices and sockets mean nothing elsewhere.
            _ => {}
        }
        Ok(None)
    }

    fn file(&mut self, file: OwnedFd, entry: &Entry, path: &Path) -> io::Result<()> {
        let mut header = header(entry, tar::EntryType::Regular);
        let size = u64::try_from(entry.stat.st_size).unwrap_or_default();
        header.set_size(size);
        let content = Exactly {
            file: File::from(file),
            left: size,
        };
        self.archive.append_data(&mut header, path, content)
    }
}

fn header(entry: &Entry, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    let (uid, gid) = entry.owner;
    header.set_entry_type(kind);
    header.set_mode(entry.stat.st_mode & 0o7777);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_mtime(u64::try_from(entry.stat.st_mtime).unwrap_or_default());
    header.set_size(0);
    header
}

/// As many bytes as its header says, whatever has become of the file: zeros where it is shorter.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let mut count = self.file.read(&mut buffer[..want])?;
        if count == 0 {
            buffer[..want].fill(0);
            count = want;
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Whether a descriptor is open on a directory.
pub(crate) fn is_dir(fd: impl AsFd) -> rustix::io::Result<bool> {
    Ok(kind(&rustix::fs::fstat(fd)?) == FileType::Directory)
}
