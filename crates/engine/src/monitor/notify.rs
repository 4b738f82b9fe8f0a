//! Telling systemd that a service is ready (sd_notify(3)), by the monitor itself or by the program in the container.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use super::serve::Monitor;
use crate::files;
use crate::lifecycle::SdNotify;

/// The folder of the socket in the container's runtime directory.
const DIR: &str = "notify";
/// Where the container sees that folder.
pub(super) const INSIDE: &str = "/run/notify";
/// What the program finds in its environment.
pub(super) const VARIABLE: &str = "NOTIFY_SOCKET=/run/notify/notify";

/// How many notices are passed on before something else is looked at: a program that says something without end must not
/// keep us from the rest.
const AT_ONCE: usize = 16;

/// The way to who wants to be told.
#[derive(Debug)]
pub(super) struct Notify {
    mode: SdNotify,
    manager: SocketAddr,
    /// What the program in the container talks to.
    inner: Option<UnixDatagram>,
}

impl Notify {
    /// Of the command's own environment; `None` when nobody wants to be told.
    pub fn new(mode: SdNotify, runtime: &Path) -> io::Result<Option<Notify>> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|n| !n.is_empty()) else {
            return Ok(None);
        };
        if mode == SdNotify::Ignore {
            return Ok(None);
        }
        let inner = match mode {
            SdNotify::Container => Some(listen(&runtime.join(DIR))?),
            _ => None,
        };
        Ok(Some(Notify {
            mode,
            manager: address(name)?,
            inner,
        }))
    }

    /// The folder to be mounted at [`INSIDE`].
    pub fn folder(&self, runtime: &Path) -> Option<std::path::PathBuf> {
        self.inner.as_ref().map(|_| runtime.join(DIR))
    }

    /// Readable when the program says something.
    pub fn inner(&self) -> Option<BorrowedFd<'_>> {
        self.inner.as_ref().map(AsFd::as_fd)
    }

    /// The program runs: who the main process is, and whether that is all there is to wait for.
    pub fn started(&self) {
        let ready = match self.mode {
            SdNotify::Conmon => "\nREADY=1",
            _ => "",
        };
        self.tell(format!("MAINPID={}{ready}", std::process::id()).as_bytes());
    }

    /// The program is healthy.
    pub fn healthy(&self) {
        if self.mode == SdNotify::Healthy {
            self.tell(b"READY=1");
        }
    }

    /// Passes on what the program says. Which process is the main one is not for it to say.
    fn pass_on(&self) {
        let mut buffer = [0; 4096];
        for _ in 0..AT_ONCE {
            let Some(Ok(count)) = self.inner.as_ref().map(|inner| inner.recv(&mut buffer)) else {
                return;
            };
            let ours = |line: &&[u8]| !line.is_empty() && !line.starts_with(b"MAINPID=");
            let lines: Vec<&[u8]> = buffer[..count]
                .split(|b| *b == b'\n')
                .filter(ours)
                .collect();
            if !lines.is_empty() {
                self.tell(&lines.join(&b'\n'));
            }
        }
    }

    fn tell(&self, message: &[u8]) {
        // A manager that is gone needs no news.
        if let Ok(socket) = UnixDatagram::unbound() {
            let _ = socket.send_to_addr(message, &self.manager);
        }
    }
}

fn address(name: OsString) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

/// A socket that every user of the container can reach. By the folder's descriptor, because a path may be long.
fn listen(dir: &Path) -> io::Result<UnixDatagram> {
    files::make_dir(dir).map_err(|e| io::Error::other(e.to_string()))?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    let handle = File::open(dir)?;
    let path = format!("/proc/self/fd/{}/notify", handle.as_raw_fd());
    let socket = UnixDatagram::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o777))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Monitor {
    /// Passes on what the program says to systemd.
    pub(super) fn pass_on_notices(&self) {
        if let Some(notify) = &self.started.notify {
            notify.pass_on();
        }
    }

    /// Says that the container is healthy to who waits for it.
    pub(super) fn notify_healthy(&self) {
        if let Some(notify) = &self.started.notify {
            notify.healthy();
        }
    }
}
