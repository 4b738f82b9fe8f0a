//! What is done in the new process of a container right after its birth, in its namespaces and before it has ids: its
//! network, and the files by which its parent knows it where it cannot look.

use std::fs::File;
use std::os::fd::OwnedFd;

use rcon_launch::{InNetns, NetworkFailure};

use crate::ahead::{interior, loopback};

/// What is to be done.
#[derive(Clone, Copy)]
pub(super) struct Inside<'a> {
    /// The network of its own.
    pub net: Option<&'a rcon_net::Config>,
    /// Only loopback.
    pub loopback: bool,
    /// It comes about among the users of another, where nobody can look into it from here.
    pub hidden: bool,
    /// Its processes are among those of others.
    pub shares_processes: bool,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Found {
    pub tap: Option<OwnedFd>,
    /// Its network namespace, where that could not be seen from outside.
    pub netns: Option<OwnedFd>,
    /// Its mount namespace, where its processes are among those of others.
    pub mounts: Option<File>,
}

impl<'a> Inside<'a> {
    /// The work, to be done inside.
    pub fn work(self) -> Option<InNetns<'a>> {
        if self.net.is_none() && !self.loopback && !self.shares_processes {
            return None;
        }
        Some(Box::new(move || {
            let mut files = match self.net {
                Some(net) => interior(net)?,
                None => Vec::new(),
            };
            if self.loopback {
                loopback()?;
            }
            if self.net.is_some() && self.hidden {
                files.push(own("net")?);
            }
            if self.shares_processes {
                files.push(own("mnt")?);
            }
            Ok(files)
        }))
    }

    /// What the files are that came back.
    pub fn found(self, mut files: Vec<OwnedFd>) -> Found {
        let mounts = match self.shares_processes {
            true => files.pop().map(File::from),
            false => None,
        };
        Found {
            mounts,
            netns: match self.net.is_some() && self.hidden {
                true => files.pop(),
                false => None,
            },
            tap: files.pop(),
        }
    }
}

fn own(kind: &str) -> Result<OwnedFd, NetworkFailure> {
    let file = File::open(format!("/proc/self/ns/{kind}"));
    file.map(OwnedFd::from).map_err(|error| NetworkFailure {
        message: format!("cannot open the {kind} namespace of the container: {error}"),
        hint: None,
    })
}
