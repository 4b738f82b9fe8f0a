//! Another file system under everything that the program keeps.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use super::host::Host;
use super::{Rcon, installed, lab, leaks, skip};

/// What lies there instead of the machine's own.
#[derive(Clone, Copy)]
pub enum Kind {
    /// An overlay, on which no other one can be put.
    Overlay,
    /// One in memory that keeps extended attributes.
    Memory,
    /// One that keeps neither extended attributes nor times of birth.
    Plain,
    /// One that a process answers for (bindfs), as with network file systems, with these options.
    Passed(&'static [&'static str]),
}

/// As an NFS server is to who is not its root: nothing can be given away.
pub const KEEPS_OWNERS: Kind = Kind::Passed(&["--chown-deny", "--xattr-none"]);

/// A file system that is mounted where the program keeps everything.
pub struct Disk {
    at: PathBuf,
    host: Option<Arc<Host>>,
}

impl Disk {
    /// Mounts one, on `host` if there is one, or says why that cannot be.
    pub fn mount(t: &Rcon, kind: Kind, host: Option<&Arc<Host>>) -> Option<Disk> {
        if !lab().root {
            skip("only root can mount another file system");
            return None;
        }
        let at = PathBuf::from(t.mkdir(".local/share/rcon"));
        let below = t.dir.join("below");
        for part in ["lower", "upper", "work", "passed"] {
            std::fs::create_dir_all(below.join(part)).unwrap();
        }
        for part in ["upper", "passed"] {
            std::os::unix::fs::chown(below.join(part), Some(t.user.uid), Some(t.user.gid)).unwrap();
        }
        let (from, to) = (below.display(), at.display());
        let own = format!("chown {}:{} {to}", t.user.uid, t.user.gid);
        let script = match kind {
            Kind::Overlay => format!(
                "mount -t overlay -o lowerdir={from}/lower,upperdir={from}/upper,workdir={from}/work,userxattr none {to}"
            ),
            Kind::Memory => format!("mount -t tmpfs none {to}; {own}"),
            Kind::Plain => format!("mount -t ramfs none {to}; {own}"),
            Kind::Passed(options) => {
                if !installed("bindfs") {
                    skip("bindfs is not installed");
                    return None;
                }
                let options = options.join(" ");
                // What is remembered of files for a while is not always true.
                let timeouts = "attr_timeout=0,entry_timeout=0,ac_attr_timeout=0";
                format!("bindfs -o allow_other,{timeouts} {options} {from}/passed {to}")
            }
        };
        let disk = Disk {
            at,
            host: host.cloned(),
        };
        assert!(disk.as_root(&script), "cannot do: {script}");
        Some(disk)
    }

    fn as_root(&self, script: &str) -> bool {
        let mut command = match &self.host {
            None => Command::new("sh"),
            Some(host) => {
                let mut command = Command::new("nsenter");
                let target = host.pid().to_string();
                command.args(["--target", &target, "--mount", "--", "sh"]);
                command
            }
        };
        let status = command.args(["-ec", script]).status();
        status.is_ok_and(|status| status.success())
    }

    /// Takes it away again, when all that was on it could be removed.
    #[track_caller]
    pub fn release(self, t: &Rcon) {
        t.run(&["system", "check"]).code(0).prints("");
        t.run(&["rm", "-f", "-a", "-t", "0"]).code(0);
        t.run(&["rmi", "-a", "-f"]).code(0);
        if self.host.is_none() {
            let left = leaks::stored(&self.at);
            assert!(left.is_empty(), "left in the store:\n{}", left.join("\n"));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.as_root(&format!("umount -l {}", self.at.display()));
    }
}
