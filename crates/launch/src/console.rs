//! Terminals, made in the container's own devpts (pts(4)).

use std::os::fd::OwnedFd;
use std::path::Path;

use rcon_sys::mount;
use rustix::fs::{OFlags, fstatfs};
use rustix::process::Uid;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::error::{Context, Error, Result};
use crate::request::Size;
use crate::root::{Kind, Root};

const DEVPTS_MAGIC: i64 = 0x1cd1;

/// A new terminal.
#[derive(Debug)]
pub(crate) struct Console {
    /// The end of whoever shows it.
    pub(crate) master: OwnedFd,
    /// The end of the program.
    pub(crate) slave: OwnedFd,
}

impl Console {
    /// Make one in the devpts of `root`.
    ///
    /// The slave is opened through the master, so that no name can lead to another terminal.
    pub(crate) fn open(root: &Root, size: Option<Size>) -> Result<Self> {
        let step = || "cannot make a terminal in the container".to_owned();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master = root.open(Path::new("/dev/pts/ptmx"), flags).context(step)?;
        let filesystem = fstatfs(&master).context(step)?;
        if filesystem.f_type != DEVPTS_MAGIC {
            return Err(Error::Invalid(
                "the container has no devpts on /dev/pts, and so cannot have a terminal".to_owned(),
            ));
        }
        unlockpt(&master).context(step)?;
        let open = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, open).context(step)?;
        if let Some(Size { rows, cols }) = size {
            let size = Winsize {
                ws_row: rows,
                ws_col: cols,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            tcsetwinsize(&master, size).context(step)?;
        }
        Ok(Self { master, slave })
    }

    /// Put the terminal at `/dev/console` of the container too.
    pub(crate) fn bind(&self, root: &Root) -> Result<()> {
        let step = || "cannot make /dev/console".to_owned();
        let target = root
            .find_or_create(Path::new("/dev/console"), Kind::File)
            .context(step)?;
        let copy = mount::copy_of(&self.slave, false).context(step)?;
        mount::attach(copy, target).context(step)
    }

    /// Give the terminal to the user `uid`; its group is that of all terminals.
    pub(crate) fn give_to(&self, uid: u32) -> Result<()> {
        rustix::fs::fchown(&self.slave, Some(Uid::from_raw(uid)), None)
            .context(|| "cannot give the terminal to the user".to_owned())
    }
}
