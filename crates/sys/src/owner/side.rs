//! The file beside a tree that has the owners of what takes no attributes.
//!
//! It is a text, a line each, the last one of a file counts: `INODE SECONDS.NANOSECONDS UID GID TYPE RDEV`, with the time of
//! the file's birth, which keeps an entry from being taken for that of a later file with the same inode. Where files have no
//! such time (network file systems) it is `-1` and the type of the file system; then whoever makes a file has to see to it
//! that there is no entry of an earlier one ([`SideFile::has_weak`]). What stands above a line of nothing but `=` came with
//! the layers and is never dropped.
//!
//! Entries of files that are gone are dropped by [`SideFile::compact`].

mod compact;

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Statx, StatxFlags, statx};
use rustix::io::Errno;

pub use self::compact::Marks;
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
        if let Some(key) = Self::with_birth(&stat) {
            return Ok((kind, Some(key)));
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

    /// That of the file with this status, if the status says when it was born.
    pub fn with_birth(stat: &Statx) -> Option<Self> {
        let born = (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec);
        let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0 && born != (0, 0);
        known.then_some(Self {
            inode: stat.stx_ino,
            born,
        })
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
    /// Where it is, for those that share it.
    place: Option<(OwnedFd, OsString)>,
    read: u64,
    partial: Vec<u8>,
    /// What was written last may end in the middle of a line.
    torn: bool,
    known: Known,
    /// What the last search did not find: it may have been moved from under it.
    missed: HashSet<FileKey>,
}

/// What has been read of it.
#[derive(Debug, Default)]
struct Known {
    owners: HashMap<FileKey, Noted>,
    /// How many have been taken in, ever.
    count: u64,
    /// By inode alone, those first noted without a time of birth, and all.
    inodes: [HashMap<u64, TrueOwner>; 2],
    weak: bool,
    devices: bool,
}

/// An owner, and what else is known of the entry.
#[derive(Clone, Copy, Debug)]
struct Noted {
    owner: TrueOwner,
    /// The how manieth it was.
    number: u64,
    /// It came with the layers.
    stays: bool,
}

impl Known {
    fn take_in(&mut self, key: FileKey, owner: TrueOwner) {
        self.weak |= key.is_weak();
        self.devices |= owner.device.is_some();
        self.count += 1;
        let number = self.count;
        let noted = self.owners.entry(key).or_insert(Noted {
            owner,
            number,
            stays: false,
        });
        (noted.owner, noted.number) = (owner, number);
        if key.is_weak() {
            self.inodes[0].insert(key.inode, owner);
        }
        self.inodes[1].insert(key.inode, owner);
    }

    /// The same file may have a time of birth on one way to it and none on another, as through FUSE.
    fn get(&self, key: &FileKey) -> Option<TrueOwner> {
        let inodes = &self.inodes[usize::from(key.is_weak())];
        let own = self.owners.get(key).map(|noted| noted.owner);
        own.or_else(|| inodes.get(&key.inode).copied())
    }

    /// What has been taken in so far stays.
    fn hold(&mut self) {
        self.owners
            .values_mut()
            .for_each(|noted| noted.stays = true);
    }
}

impl SideFile {
    /// What follows the entries of the layers in the file of a container.
    pub const END_OF_LAYERS: &'static [u8] = b"=\n";

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
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder =
            rustix::fs::openat(CWD, above.unwrap_or(Path::new(".")), flags, Mode::empty())?;
        let mut side = Self::from_file(open_in(&folder, name, OFlags::CREATE)?)?;
        side.place = Some((folder, name.to_owned()));
        Ok(side)
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
        if stat.st_nlink == 0 && self.take_new()? {
            return self.refresh();
        }
        let Some(file) = &self.file else {
            return Ok(());
        };
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
                match parse(&self.partial) {
                    Some((key, owner)) => self.known.take_in(key, owner),
                    None if self.partial == b"=" => self.known.hold(),
                    None => {}
                }
                self.partial.clear();
            }
        }
    }

    /// Open what has taken the place of the file; whether anything has.
    fn take_new(&mut self) -> io::Result<bool> {
        let Some((folder, name)) = &self.place else {
            return Ok(false);
        };
        let file = match open_in(folder, name, OFlags::empty()) {
            // The container is being removed.
            Err(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        self.file = Some(file);
        self.read = 0;
        self.partial.clear();
        self.torn = false;
        self.known = Known::default();
        Ok(true)
    }

    /// Wait until nobody writes the file anew, or, to do that, until nobody adds to it. Where there are no such locks
    /// everybody goes ahead.
    fn lock(&mut self, how: FlockOperation) -> io::Result<()> {
        loop {
            let Some(file) = self.file.as_ref().filter(|_| self.place.is_some()) else {
                return Ok(());
            };
            let _ = rustix::io::retry_on_intr(|| rustix::fs::flock(file, how));
            if rustix::fs::fstat(file)?.st_nlink > 0 || !self.take_new()? {
                return Ok(());
            }
            self.refresh()?;
        }
    }

    fn unlock(&self) {
        if let Some(file) = self.file.as_ref().filter(|_| self.place.is_some()) {
            let _ = rustix::fs::flock(file, FlockOperation::Unlock);
        }
    }

    /// Bytes of the file, as far as it was read.
    pub fn size(&self) -> u64 {
        self.read
    }

    /// How many files there are entries of.
    pub fn len(&self) -> usize {
        self.known.owners.len()
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
        self.lock(FlockOperation::LockShared)?;
        let done = self.add(key, owner);
        self.unlock();
        done
    }

    fn add(&mut self, key: FileKey, owner: TrueOwner) -> io::Result<()> {
        let mut line = String::new();
        // What somebody's full disk or crash has left of a line must not take ours with it.
        if self.torn || !self.partial.is_empty() {
            line.push('\n');
        }
        add_line(&mut line, key, owner);
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

fn open_in(folder: &OwnedFd, name: &OsStr, more: OFlags) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags | more, Mode::RUSR | Mode::WUSR).map(File::from)
}

fn add_line(text: &mut String, key: FileKey, owner: TrueOwner) {
    let kind = owner.device.map_or(0, Device::type_bits);
    let number = owner.device.map_or(0, |device| device.number);
    let FileKey { inode, born } = key;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{inode} {}.{:09} {} {} {kind} {number}",
        born.0, born.1, owner.uid, owner.gid
    );
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
