//! A file or a directory as an archive, for copying.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RawMode, Stat};
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
        (Some(dir), FileType::Directory) => packer.dir(&source, &dir, top)?,
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
    fn dir(&mut self, dir: &OwnedFd, entry: &Entry, path: &Path) -> io::Result<()> {
        if !path.as_os_str().is_empty() {
            let mut header = header(entry, tar::EntryType::Directory);
            self.archive.append_data(&mut header, path, io::empty())?;
        }
        let mut names: Vec<Vec<u8>> = Vec::new();
        for entry in Dir::read_from(dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            let name = OsStr::from_bytes(&name);
            self.entry(dir, name, &path.join(name))?;
        }
        Ok(())
    }

    fn entry(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Removed since its name was read.
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let Some(owner) = (self.owner)(parent.as_fd(), Some(name), &stat) else {
            return Ok(());
        };
        let entry = &Entry { stat, owner };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |more| rustix::fs::openat(parent, name, flags | more, Mode::empty());
        match kind(&stat) {
            FileType::Directory => self.dir(&open(OFlags::DIRECTORY)?, entry, path),
            FileType::RegularFile => {
                let key = (stat.st_dev, stat.st_ino);
                if stat.st_nlink > 1 {
                    if let Some(first) = self.linked.get(&key).cloned() {
                        let mut header = header(entry, tar::EntryType::Link);
                        return self.archive.append_link(&mut header, path, first);
                    }
                    self.linked.insert(key, path.to_path_buf());
                }
                self.file(open(OFlags::empty())?, entry, path)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                let target = OsStr::from_bytes(target.to_bytes());
                let mut header = header(entry, tar::EntryType::Symlink);
                self.archive
                    .append_link(&mut header, path, Path::new(target))
            }
            FileType::Fifo => {
                let mut header = header(entry, tar::EntryType::Fifo);
                self.archive.append_data(&mut header, path, io::empty())
            }
            // Devices and sockets mean nothing elsewhere.
            _ => Ok(()),
        }
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
