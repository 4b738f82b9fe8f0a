//! Images mounted for a look: inside of `rcon unshare` only, whose mount namespace they end with.
//!
//! The mount points lie below the runtime directory and are named after the mount namespace as well
//! as the image: two shells in different namespaces do not see each other's.

use std::fs;
use std::path::{Path, PathBuf};

use rcon_store::{Driver, ImageRecord};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{UnmountFlags, unmount};

use crate::Engine;
use crate::error::{Context, Result};
use crate::rootfs;

/// An image that is mounted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMount {
    /// Its id.
    pub id: String,
    /// Its names, if it still has any.
    pub names: Vec<String>,
    /// Where.
    pub path: PathBuf,
}

impl Engine {
    /// Mounts an image, or finds where it is mounted already.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`]; outside of `rcon unshare`.
    pub fn mount_image(&self, name: &str) -> Result<ImageMount> {
        let prefix = self.mount_prefix()?;
        let image = self.find_image(name)?;
        if let Some(mounted) = self
            .mounted_images()?
            .into_iter()
            .find(|m| m.id == image.id)
        {
            return Ok(mounted);
        }
        let path = PathBuf::from(format!("{prefix}{}", image.id));
        fs::create_dir_all(&path).on("create", &path)?;
        if let Err(error) = self.mount_on(&image, &path) {
            let _ = fs::remove_dir(&path);
            return Err(error);
        }
        Ok(ImageMount {
            id: image.id,
            names: image.names,
            path,
        })
    }

    fn mount_on(&self, image: &ImageRecord, path: &Path) -> Result<()> {
        let why = || format!("cannot mount image {}", image.id);
        let trees = match image.layers.is_empty() {
            // Nothing is in it, and so is nothing in the mount point.
            true => vec![path.to_owned()],
            false => match self.store().driver(&self.paths.wish)? {
                Driver::Fuse { .. } | Driver::Copy { .. } if image.layers.len() > 1 => {
                    vec![self.store().image_tree(image)?]
                }
                _ => self.store().image_trees(&image.layers)?,
            },
        };
        let tree = match &trees[..] {
            [only] => rcon_sys::mount::copy_of_path(only, false).context(why)?,
            _ => rootfs::overlay(&trees, None, path)?,
        };
        let attributes = rcon_sys::mount::Attributes::MOUNT_ATTR_RDONLY;
        rcon_sys::mount::set_attributes(&tree, attributes, None, false).context(why)?;
        if is_mounted(path)? {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = openat(CWD, path, flags, Mode::empty()).on("open", path)?;
        rcon_sys::mount::attach(&tree, &target).context(why)
    }

    /// The images that are mounted here.
    ///
    /// # Errors
    /// Outside of `rcon unshare`.
    pub fn mounted_images(&self) -> Result<Vec<ImageMount>> {
        let prefix = self.mount_prefix()?;
        let mut all = Vec::new();
        for point in mount_points()? {
            let Some(id) = point.strip_prefix(&prefix) else {
                continue;
            };
            let image = self.store().image_by_id(id)?;
            all.push(ImageMount {
                id: id.to_owned(),
                names: image.map(|i| i.names).unwrap_or_default(),
                path: PathBuf::from(&point),
            });
        }
        Ok(all)
    }

    /// Takes the mount of an image away; whether there was one. With `force` even if it is in use.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`]; a mount that is in use; outside of `rcon unshare`.
    pub fn unmount_image(&self, name: &str, force: bool) -> Result<Option<ImageMount>> {
        let mounted = self.mounted_images()?;
        // Of an image that was removed the id is still known.
        let id = match mounted.iter().find(|m| m.id == name) {
            Some(mount) => mount.id.clone(),
            None => self.find_image(name)?.id,
        };
        let Some(mount) = mounted.into_iter().find(|m| m.id == id) else {
            return Ok(None);
        };
        let flags = if force {
            UnmountFlags::DETACH
        } else {
            UnmountFlags::empty()
        };
        unmount(&mount.path, flags).on("unmount", &mount.path)?;
        let _ = fs::remove_dir(&mount.path);
        Ok(Some(mount))
    }

    /// What the mount points of this mount namespace begin with.
    fn mount_prefix(&self) -> Result<String> {
        let namespace = fs::read_link("/proc/self/ns/mnt")
            .context(|| "cannot tell the mount namespace".to_string())?;
        let number: String = namespace
            .to_string_lossy()
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        let dir = self.paths().runroot.join("images");
        Ok(format!("{}/{number}-", dir.display()))
    }
}

fn is_mounted(path: &Path) -> Result<bool> {
    Ok(mount_points()?.iter().any(|point| Path::new(point) == path))
}

fn mount_points() -> Result<Vec<String>> {
    let text =
        fs::read_to_string("/proc/self/mountinfo").context(|| "cannot read the mounts".into())?;
    let point = |line: &str| line.split(' ').nth(4).map(|p| p.replace("\\040", " "));
    Ok(text.lines().filter_map(point).collect())
}
