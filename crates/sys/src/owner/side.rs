//! The file beside a tree that has the owners of what takes no attributes.
//!
//! It is a text, a line each, the last one of a file counts: `INODE SECONDS.NANOSECONDS UID GID TYPE RDEV`, with the time of
//! the file's birth, which keeps an entry from being taken for that of a later file with the same inode. Where files have no
//! such time (network file systems) it is `-1` and the type of the file system; then whoever makes a file has to see to it
//! that there is no entry of an earlier one ([`SideFile::has_weak`]).

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, StatxFlags, statx};
use rustix::io::Errno;

use super::{Device, TrueOwner};

/// What tells a file from all others, earlier ones too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    inode: u64,
    born: (i64, u32),
}

/// The time of birth where there is none.
const UNBORN: i64 = -1;

/// File systems of things that are no files: proc, sysfs, devpts, cgroups, message queues, pipes,
/// sockets, and what has no name at all (linux/magic.h).
const KERNELS_OWN: [u32; 9] = [
    0x9fa0,
    0x6265_6572,
    0x1cd1,
    0x0027_e0eb,
    0x6367_7270,
    0x1980_0202,
    0x5049_5045,
    0x534f_434b,
    0x0904_1934,
];

/// Those that a process answers for.
const FUSE: u32 = 0x6573_5546;

impl FileKey {
    /// That of `name` in the directory `at` (not following a link), or of `at` itself when `name`
    /// is empty; with its type. `None` for what is the kernel's own: nothing of it lasts.
    ///
    /// # Errors
    /// As statx(2).
    pub fn of(
        at: impl AsFd,
        name: impl rustix::path::Arg,
    ) -> rustix::io::Result<(FileType, Option<Self>)> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let wanted = StatxFlags::INO | StatxFlags::BTIME | StatxFlags::TYPE;
        let stat = statx(&at, name, flags, wanted)?;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let inode = stat.stx_ino;
        let born = (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec);
        if stat.stx_mask & StatxFlags::BTIME.bits() != 0 && born != (0, 0) {
            return Ok((kind, Some(Self { inode, born })));
        }
        let system = match rustix::fs::fstatfs(at) {
            Ok(system) => system.f_type as u32,
            // Of a link that leads nowhere, asked of a process that answers by following it.
            Err(Errno::NOENT) => FUSE,
            Err(error) => return Err(error),
        };
        let key = Self {
            inode,
            born: (UNBORN, system),
        };
        Ok((kind, (!KERNELS_OWN.contains(&system)).then_some(key)))
    }

    /// Whether it may be a later file's too.
    fn is_weak(&self) -> bool {
        self.born.0 == UNBORN
    }
}

/// The file beside a tree that has the owners of what takes no attributes.
#[derive(Debug, Default)]
pub struct SideFile {
    file: Option<File>,
    read: u64,
    partial: Vec<u8>,
    /// What was written last may end in the middle of a line.
    torn: bool,
    known: Known,
}

/// What has been read of it.
#[derive(Debug, Default)]
struct Known {
    owners: HashMap<FileKey, TrueOwner>,
    /// By inode alone, those first noted without a time of birth, and all.
    inodes: [HashMap<u64, TrueOwner>; 2],
    weak: bool,
    devices: bool,
}

impl Known {
    fn take_in(&mut self, key: FileKey, owner: TrueOwner) {
        self.weak |= key.is_weak();
        self.devices |= owner.device.is_some();
        self.owners.insert(key, owner);
        if key.is_weak() {
            self.inodes[0].insert(key.inode, owner);
        }
        self.inodes[1].insert(key.inode, owner);
    }

    /// The same file may have a time of birth on one way to it and none on another, as through FUSE.
    fn get(&self, key: &FileKey) -> Option<TrueOwner> {
        let inodes = &self.inodes[usize::from(key.is_weak())];
        let found = self.owners.get(key).or_else(|| inodes.get(&key.inode));
        found.copied()
    }
}

impl SideFile {
    /// The one at `path` for reading; empty if there is none.
    ///
    /// # Errors
    /// When it cannot be opened or read, or is damaged.
    pub fn read(path: &Path) -> io::Result<Self> {
        match File::open(path) {
            Ok(file) => Self::from_file(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// The one at `path` for reading and adding to; made if there is none.
    ///
    /// # Errors
    /// When it cannot be opened, made or read, or is damaged.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create(true).mode(0o600);
        Self::from_file(options.open(path)?)
    }

    /// The one that is open as `file`.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn from_file(file: File) -> io::Result<Self> {
        let mut side = Self {
            file: Some(file),
            ..Self::default()
        };
        side.refresh()?;
        Ok(side)
    }

    /// Take in what others have added since.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn refresh(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let stat = rustix::fs::fstat(file)?;
        if u64::try_from(stat.st_size).unwrap_or(0) <= self.read {
            return Ok(());
        }
        let mut block = vec![0; 64 * 1024];
        loop {
            let count = std::os::unix::fs::FileExt::read_at(file, &mut block, self.read)?;
            if count == 0 {
                return Ok(());
            }
            self.read += count as u64;
            for byte in &block[..count] {
                if *byte != b'\n' {
                    self.partial.push(*byte);
                    continue;
                }
                // A line that a crash has cut is nobody's.
                if let Some((key, owner)) = parse(&self.partial) {
                    self.known.take_in(key, owner);
                }
                self.partial.clear();
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.owners.is_empty()
    }

    /// Whether an entry could be taken for that of a later file: new files need one of their own.
    pub fn has_weak(&self) -> bool {
        self.known.weak
    }

    /// Whether there are devices, or were.
    pub fn has_devices(&self) -> bool {
        self.known.devices
    }

    /// The owner of a file, if it is here.
    pub fn get(&self, key: &FileKey) -> Option<TrueOwner> {
        self.known.get(key)
    }

    /// Note the owner of a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set(&mut self, key: FileKey, owner: TrueOwner) -> io::Result<()> {
        let kind = owner.device.map_or(0, Device::type_bits);
        let number = owner.device.map_or(0, |device| device.number);
        let FileKey { inode, born } = key;
        // What somebody's full disk or crash has left of a line must not take ours with it.
        let apart = match self.torn || !self.partial.is_empty() {
            true => "\n",
            false => "",
        };
        let line = format!(
            "{apart}{inode} {}.{:09} {} {} {kind} {number}\n",
            born.0, born.1, owner.uid, owner.gid
        );
        let missing = || io::Error::from(io::ErrorKind::Unsupported);
        let mut file = self.file.as_ref().ok_or_else(missing)?;
        self.torn = true;
        // One write, so that lines of several writers stay whole.
        file.write_all(line.as_bytes())?;
        self.torn = false;
        self.known.take_in(key, owner);
        Ok(())
    }
}

fn parse(line: &[u8]) -> Option<(FileKey, TrueOwner)> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let inode = words.next()?.parse().ok()?;
    let (seconds, nanoseconds) = words.next()?.split_once('.')?;
    let born = (seconds.parse().ok()?, nanoseconds.parse().ok()?);
    let uid = words.next()?.parse().ok()?;
    let gid = words.next()?.parse().ok()?;
    let kind = words.next()?.parse().ok()?;
    let number = words.next()?.parse().ok()?;
    if words.next().is_some() {
        return None;
    }
    let owner = TrueOwner {
        uid,
        gid,
        device: Device::from_type(kind, number),
    };
    Some((FileKey { inode, born }, owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_a_birth_are_told_by_their_inode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owners");
        let mut side = SideFile::open(&path).unwrap();
        let key = |born| FileKey { inode: 7, born };
        side.set(key((1, 0)), TrueOwner::new(1, 1)).unwrap();
        assert!(!side.has_weak());
        let weak = key((UNBORN, 0x6969));
        side.set(weak, TrueOwner::new(5, 6)).unwrap();
        let read = SideFile::read(&path).unwrap();
        assert!(side.has_weak() && read.has_weak());
        assert_eq!(read.get(&weak), Some(TrueOwner::new(5, 6)));
        // The same file on a way that tells of no birth, and the other way round.
        let unborn = key((UNBORN, FUSE));
        let mut side = SideFile::open(&dir.path().join("other")).unwrap();
        side.set(key((3, 0)), TrueOwner::new(3, 3)).unwrap();
        assert_eq!(side.get(&unborn), Some(TrueOwner::new(3, 3)));
        assert_eq!(side.get(&key((4, 0))), None);
        side.set(unborn, TrueOwner::new(4, 4)).unwrap();
        assert_eq!(side.get(&key((4, 0))), Some(TrueOwner::new(4, 4)));
        assert_eq!(side.get(&key((3, 0))), Some(TrueOwner::new(3, 3)));
        let status = File::open("/proc/self/status").unwrap();
        assert_eq!(FileKey::of(&status, "").unwrap().1, None);
    }

    #[test]
    fn side_files_keep_what_attributes_cannot() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        let folder = File::open(dir.path()).unwrap();
        let (kind, key) = FileKey::of(&folder, "link").unwrap();
        assert_eq!(kind, FileType::Symlink);
        let Some(key) = key else {
            return; // This file system does not say when files were born.
        };
        let path = dir.path().join("owners");
        assert!(SideFile::read(&path).unwrap().is_empty());
        let mut writer = SideFile::open(&path).unwrap();
        let mut reader = SideFile::read(&path).unwrap();
        writer.set(key, TrueOwner::new(5, 6)).unwrap();
        writer.set(key, TrueOwner::new(7, 8)).unwrap();
        assert_eq!(reader.get(&key), None);
        reader.refresh().unwrap();
        assert_eq!(reader.get(&key), Some(TrueOwner::new(7, 8)));
        assert!(!reader.has_devices());
        let device = TrueOwner {
            device: Device::from_type(libc::S_IFCHR.into(), 0x103),
            ..TrueOwner::default()
        };
        writer.set(key, device).unwrap();
        reader.refresh().unwrap();
        assert!(writer.has_devices() && reader.has_devices());
        // What a crash cut off is passed over.
        std::fs::write(&path, "12 0.5 1 1 0 0\n13 0.5 1").unwrap();
        let cut = SideFile::read(&path).unwrap();
        assert_eq!(cut.known.owners.len(), 1);
        // And does not spoil what is written after it.
        let mut writer = SideFile::open(&path).unwrap();
        writer.set(key, TrueOwner::new(7, 8)).unwrap();
        let read = SideFile::read(&path).unwrap();
        assert_eq!(read.get(&key), Some(TrueOwner::new(7, 8)));
        assert_eq!(read.known.owners.len(), 2);
    }
}
