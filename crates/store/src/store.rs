//! The store itself: where things are, and how it is opened.
//!
//! Opening is on the way of every command, so it is two system calls and the reading of one
//! small file where the store exists.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rcon_sys::ids::IdMaps;
use rcon_sys::shift::Shift;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::atomic;
use crate::digest::Digest;
use crate::driver::Driver;
use crate::error::{Context, Error, Result};
use crate::stage;

/// The layout that this program writes and reads.
const VERSION: u32 = 1;

/// The folders of a store, made when it is.
const FOLDERS: [&str; 5] = ["layers", "images", "names", "snapshots", "tmp"];

/// A directory with images and the writable trees of containers.
///
/// Cheap to open and safe to share between threads; any number of processes may use the same
/// directory at once.
#[derive(Debug)]
pub struct Store {
    pub(crate) root: PathBuf,
    pub(crate) dir: OwnedFd,
    pub(crate) key: String,
    pub(crate) single: bool,
    /// Where the owners of files are other ones than the ids of who unpacks them.
    pub(crate) shift: Option<Shift>,
    pub(crate) swept: AtomicBool,
    pub(crate) driver: OnceLock<Driver>,
    /// Stores of others, which are only read.
    pub(crate) additional: Vec<Store>,
}

impl Store {
    /// Open the store at `root`, made with mode 0700 if it does not exist.
    ///
    /// `maps` are the ids that layers are unpacked under and containers run with.
    ///
    /// # Errors
    /// When it cannot be made or read; [`Error::Version`] when a newer rcon made it.
    pub fn open(root: &Path, maps: &IdMaps) -> Result<Self> {
        let root = std::path::absolute(root)
            .context(|| format!("cannot open the store {}", root.display()))?;
        let open = || rustix::fs::openat(CWD, &root, DIRECTORY, Mode::empty());
        let dir = match open() {
            Err(Errno::NOENT) => {
                create_root(&root)?;
                open()
            }
            other => other,
        }
        .context(|| format!("cannot open the store {}", root.display()))?;
        let store = Self {
            root,
            dir,
            key: maps.key(),
            single: maps.is_single(),
            shift: None,
            swept: AtomicBool::new(false),
            driver: OnceLock::new(),
            additional: Vec::new(),
        };
        store.check_version()?;
        Ok(store)
    }

    /// The same directory, for containers whose ids are arranged as in `special`: their layers lie beside the usual ones,
    /// and are worked on by who is root over `maps`, as all others are.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_for(root: &Path, maps: &IdMaps, special: &IdMaps) -> Result<Self> {
        let store = Self::open(root, maps)?;
        let store = Self {
            key: special.key(),
            shift: Some(Shift::between(special, maps)),
            ..store
        };
        Ok(store)
    }

    /// From the ids of containers to those of who works on their files.
    pub fn shift(&self) -> Option<&Shift> {
        self.shift.as_ref()
    }

    /// Make the folder that layers go to, as the user whose store it is.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_layers_folder(&self) -> Result<()> {
        make_folder(self, &format!("layers/{}", self.key))
    }

    /// Its directory, an absolute path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The name of the id map that layers are unpacked under.
    pub fn map_key(&self) -> &str {
        &self.key
    }

    /// Whether files of all owners belong to one id.
    pub fn is_single(&self) -> bool {
        self.single
    }

    /// The directory that paths like `images/ID` are relative to.
    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// The absolute path of something in the store, for people.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    pub(crate) fn layer_path(&self, diff_id: &Digest) -> String {
        format!("layers/{}/{}", self.key, diff_id.file_name())
    }

    /// Remove what dead processes left in `tmp/`, and what could not be removed before.
    ///
    /// Done on its own before the first layer is staged. Never fails: what cannot be removed now
    /// (files of subordinate owners, outside of a user namespace) is left for the next time.
    pub fn sweep(&self) {
        self.swept.store(true, Ordering::Relaxed);
        stage::sweep(self);
    }

    /// Whether there is anything that [`Store::sweep`] would look at.
    pub fn has_unfinished(&self) -> bool {
        self.list("tmp").is_ok_and(|names| !names.is_empty())
    }

    /// [`Store::sweep`], once in the life of this object.
    pub(crate) fn sweep_once(&self) {
        if !self.swept.swap(true, Ordering::Relaxed) {
            stage::sweep(self);
        }
    }

    fn check_version(&self) -> Result<()> {
        let path = self.path("version");
        let text = match atomic::read(&self.dir, "version", 64) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.create(),
            Err(error) => return Err(Error::io(format!("cannot read {}", path.display()), error)),
        };
        self.check_version_text(&text)
    }

    pub(crate) fn check_version_text(&self, text: &[u8]) -> Result<()> {
        let text = String::from_utf8_lossy(text);
        match text.trim().parse::<u32>() {
            Ok(version) if version == VERSION => Ok(()),
            _ => Err(Error::Version {
                path: self.root.display().to_string(),
                found: text.trim().escape_debug().to_string(),
                known: VERSION,
            }),
        }
    }

    /// Make the folders, and at last the file that says they are there.
    fn create(&self) -> Result<()> {
        for folder in FOLDERS {
            make_folder(self, folder)?;
        }
        atomic::write(self, "version", format!("{VERSION}\n").as_bytes())
    }
}

/// Make a folder of the store, if it is not there.
pub(crate) fn make_folder(store: &Store, relative: &str) -> Result<()> {
    let what = || format!("cannot make {}", store.path(relative).display());
    match rustix::fs::mkdirat(store.dir(), relative, Mode::RWXU) {
        Ok(()) => {
            let dir = rustix::fs::openat(store.dir(), relative, DIRECTORY, Mode::empty());
            make_plain(dir.context(what)?).context(what)
        }
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(Error::io(what(), error)),
    }
}

/// Take from a new folder what it got from the one above: the set-group-id bit and a default
/// access control list would change the owners and modes of everything in it.
fn make_plain(dir: OwnedFd) -> rustix::io::Result<()> {
    rustix::fs::fchmod(&dir, Mode::RWXU)?;
    match rustix::fs::fremovexattr(&dir, "system.posix_acl_default") {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => Ok(()),
        Err(error) => Err(error),
    }
}

fn create_root(root: &Path) -> Result<()> {
    let make = |mode: u32, path: &Path| {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .context(|| format!("cannot make {}", path.display()))
    };
    if let Some(parent) = root.parent() {
        make(0o755, parent)?;
    }
    // Set-user-id files of images lie in it: nobody else may get there.
    make(0o700, root)
}

/// How directories are opened.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn opens_twice_and_is_private() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("a/b");
        let store = Store::open(&root, &IdMaps::single()).unwrap();
        assert_eq!(store.map_key(), "s");
        for folder in FOLDERS {
            assert!(root.join(folder).is_dir());
        }
        let mode = fs::metadata(&root).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        Store::open(&root, &IdMaps::single()).unwrap();
    }

    #[test]
    fn folders_inherit_nothing() {
        let temp = tempfile::tempdir().unwrap();
        fs::set_permissions(temp.path(), PermissionsExt::from_mode(0o2755)).unwrap();
        let root = temp.path().join("store");
        Store::open(&root, &IdMaps::single()).unwrap();
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode();
        assert_eq!(mode("layers") & 0o7777, 0o700);
    }

    #[test]
    fn threads_may_share_a_store() {
        fn shared<T: Send + Sync>() {}
        fn sent<T: Send>() {}
        shared::<Store>();
        sent::<crate::LayerStage<'_>>();
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        Store::open(temp.path(), &IdMaps::single()).unwrap();
        fs::write(temp.path().join("version"), "9\n").unwrap();
        let error = Store::open(temp.path(), &IdMaps::single()).unwrap_err();
        assert!(matches!(error, Error::Version { .. }), "{error}");
        assert!(error.hint().is_some());
    }
}
